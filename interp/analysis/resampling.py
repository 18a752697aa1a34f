"""Intervals and nulls of differences in means, and of cosines between them: resampled by question, never by row.

    >>> a = Contrast(positive, negative, positive_questions, negative_questions)
    >>> cosine_estimate(a, b)                       # value, interval over questions, null over permuted labels

Two directions of one model share its mean, its outliers and its questions, so that "1/sqrt(d)" is no null for their
cosine. The null here keeps all of that: each side is centred, so that only what the labels do not explain is left, and
the rows of a question are dealt to the two sides at random. (Dealing rows that are not centred would not do: most of
what sets the two sides apart would still set two random halves apart, and a cosine does not see how little.)
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.stats import Interval

N_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Contrast:
    """Activations of two sets of prompts with the question of each row; its direction is the difference in means."""

    positive: Float[Tensor, "n d_model"]
    negative: Float[Tensor, "m d_model"]
    positive_groups: Sequence[Hashable]
    negative_groups: Sequence[Hashable]

    def __post_init__(self) -> None:
        for rows, groups in ((self.positive, self.positive_groups), (self.negative, self.negative_groups)):
            if len(rows) != len(groups) or len(rows) == 0:
                raise ValueError(f"contrast of {len(rows)} rows with {len(groups)} groups: want one group a row")

    @property
    def groups(self) -> tuple[Hashable, ...]:
        """The questions of either side, each once, in order of appearance."""
        return tuple(dict.fromkeys((*self.positive_groups, *self.negative_groups)))

    @property
    def direction(self) -> Float64[Tensor, " d_model"]:
        """mean(positive) - mean(negative)."""
        return self.positive.double().mean(0) - self.negative.double().mean(0)


@dataclass(frozen=True)
class CosineEstimate:
    """A cosine with its interval over questions, and what it is when nothing sets the first contrast's sides apart.

    Attributes:
        null: Central 95 % of the cosine over permutations of centred rows.
        p: Share of permutations (and the observation) with a cosine at least as large in magnitude.
    """

    value: float
    interval: Interval
    null: Interval
    p: float
    n_clusters: int


def cosine_estimate(a: Contrast, b: Contrast, *, n_draws: int = N_DRAWS, seed: int = 0) -> CosineEstimate:
    """Return the cosine of the directions of two contrasts; the null is of ``permuted_directions(a)``.

    Contrasts on the same questions are resampled together. Means over resampled questions are noisier than the mean
    itself, and noise lowers a cosine: the interval leans towards 0, and near ±1 it may end just short of the value.
    With fewer than two questions it is NaN.

    Not evidence for: one direction behind both, when both are measured on the same rows; the null does not undo that.
    """
    value = float(_cosine(a.direction, b.direction))
    draws = _cosine(bootstrap_directions(a, n_draws, seed), bootstrap_directions(b, n_draws, seed))
    null = _cosine(permuted_directions(a, n_draws, seed), b.direction)
    n = min(len(a.groups), len(b.groups))
    ends = _ends(draws) if n > 1 else (float("nan"), float("nan"))
    p = float((1 + (null.abs() >= abs(value)).sum()) / (1 + n_draws))
    interval = Interval(*ends, "cluster_bootstrap")
    return CosineEstimate(value, interval, Interval(*_ends(null), "permutation"), p, n)


def bootstrap_directions(contrast: Contrast, n_draws: int, seed: int) -> Float64[Tensor, "draw d_model"]:
    """Return the direction over questions drawn with replacement; equal questions and seed give equal draws."""
    groups = contrast.groups
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(groups), (n_draws, len(groups)), generator=generator)
    times = torch.zeros(n_draws, len(groups), dtype=torch.float64).scatter_add(
        1, drawn, torch.ones_like(drawn).double()
    )
    sides = ((contrast.positive, contrast.positive_groups), (contrast.negative, contrast.negative_groups))
    positive, negative = (_means(rows, own, groups, times) for rows, own in sides)
    return positive - negative


def permuted_directions(contrast: Contrast, n_draws: int, seed: int) -> Float64[Tensor, "draw d_model"]:
    """Return the direction when the rows of each question, centred by side, are dealt to the two sides at random.

    As many to each side as it has. Rows of a question that only one side has are dealt among all such rows.
    """
    sides = (contrast.positive.double(), contrast.negative.double())
    rows = torch.cat([side - side.mean(0) for side in sides])
    label = torch.arange(len(rows)) < len(contrast.positive)
    both = set(contrast.positive_groups) & set(contrast.negative_groups)
    names = [g if g in both else None for g in (*contrast.positive_groups, *contrast.negative_groups)]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = torch.tensor([order[name] for name in names])
    slots = (group * 2 + ~label).argsort(stable=True)  # within each question, the positive rows first
    generator = torch.Generator().manual_seed(seed)
    shuffled = (torch.rand(n_draws, len(rows), generator=generator) + group).argsort(1)  # a random order within each
    positive = label[slots].double()
    weight = positive / positive.sum() - (1 - positive) / (1 - positive).sum()
    return torch.zeros(n_draws, len(rows), dtype=torch.float64).scatter(1, shuffled, weight.expand(n_draws, -1)) @ rows


def _means(
    rows: Tensor, own: Sequence[Hashable], groups: Sequence[Hashable], times: Tensor
) -> Float64[Tensor, "draw d_model"]:
    """Return the mean of the rows whose question was drawn, as often as it was; NaN where none was."""
    place = {name: i for i, name in enumerate(groups)}
    index = torch.tensor([place[name] for name in own])
    sums = torch.zeros(len(groups), rows.shape[1], dtype=torch.float64).index_add(0, index, rows.double())
    counts = torch.bincount(index, minlength=len(groups)).double()
    return (times @ sums) / (times @ counts)[:, None]


def _cosine(a: Tensor, b: Tensor) -> Float64[Tensor, "*draw"]:
    return torch.cosine_similarity(a, b, dim=-1, eps=0.0)


def _ends(draws: Float64[Tensor, " draw"]) -> tuple[float, float]:
    low, high = draws.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
