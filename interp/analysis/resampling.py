"""Intervals and null distributions of differences in means and their cosines, resampled by question, never by row.

    >>> a = Contrast(positive, negative, positive_questions, negative_questions)
    >>> cosine_estimate(a, b)                       # value, interval over questions, null over permuted labels

Two directions of one model share its mean activation, its outlier dimensions and their questions, so 1/sqrt(d) is the
wrong null for their cosine. The null here keeps all of these: each side is centred, which removes what the labels
explain, and the rows of a question are then assigned to the two sides at random. (Rows that are not centred would not
do. The difference between the two sides would still dominate the difference of two random halves; that difference is
shorter, but a cosine does not see length.)
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.stats import Interval

N_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Contrast:
    """Activations of two sets of prompts with the question of each row; the direction is the difference in means."""

    positive: Float[Tensor, "n d_model"]
    negative: Float[Tensor, "m d_model"]
    positive_groups: Sequence[Hashable]
    negative_groups: Sequence[Hashable]

    def __post_init__(self) -> None:
        for rows, groups in ((self.positive, self.positive_groups), (self.negative, self.negative_groups)):
            if len(rows) != len(groups) or len(rows) == 0:
                raise ValueError(f"contrast of {len(rows)} rows with {len(groups)} groups: want one group per row")

    @property
    def groups(self) -> tuple[Hashable, ...]:
        """All questions of the two sides, each once, in order of first appearance."""
        return tuple(dict.fromkeys((*self.positive_groups, *self.negative_groups)))

    @property
    def direction(self) -> Float64[Tensor, " d_model"]:
        """mean(positive) - mean(negative)."""
        return self.positive.double().mean(0) - self.negative.double().mean(0)


@dataclass(frozen=True)
class CosineEstimate:
    """A cosine with its interval over questions, and its null distribution: no difference in the first contrast.

    Attributes:
        null: Central 95 % of the cosine over permutations of centred rows.
        p: Share of permutations (counting the observation as one) with a cosine at least as large in magnitude.
    """

    value: float
    interval: Interval
    null: Interval
    p: float
    n_clusters: int


def cosine_estimate(a: Contrast, b: Contrast, *, n_draws: int = N_DRAWS, seed: int = 0) -> CosineEstimate:
    """Return the cosine of the directions of two contrasts; the null uses ``permuted_directions(a)``.

    Contrasts on the same questions are resampled together. Means over resampled questions are noisier than the mean
    itself, and noise lowers a cosine, so percentiles of the draws lean towards 0 and may not reach the value. The
    interval therefore has their width and the value as its centre, both on Fisher's z scale. With fewer than two
    questions it is NaN.

    Not evidence for: one direction behind both, if both are measured on the same rows; the null does not correct that.
    """
    value = float(_cosine(a.direction, b.direction))
    draws = _cosine(bootstrap_directions(a, n_draws, seed), bootstrap_directions(b, n_draws, seed))
    null = _cosine(permuted_directions(a, n_draws, seed), b.direction)
    n = min(len(a.groups), len(b.groups))
    ends = about(value, *_ends(draws)) if n > 1 else (float("nan"), float("nan"))
    p = float((1 + (null.abs() >= abs(value)).sum()) / (1 + n_draws))
    interval = Interval(*ends, "cluster_bootstrap_z")
    return CosineEstimate(value, interval, Interval(*_ends(null), "permutation"), p, n)


def about(cosine: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends of an interval as wide as [low, high] whose centre is ``cosine``, on Fisher's z scale.

    It contains the cosine and stays within [-1, 1].
    """
    largest = 1 - 1e-12  # atanh(1) is infinite
    z, bottom, top = (math.atanh(min(max(x, -largest), largest)) for x in (cosine, low, high))
    half = (top - bottom) / 2
    return min(cosine, math.tanh(z - half)), max(cosine, math.tanh(z + half))


def bootstrap_directions(contrast: Contrast, n_draws: int, seed: int) -> Float64[Tensor, "draw d_model"]:
    """Return the direction over questions drawn with replacement; the same questions and seed give the same draws."""
    groups = contrast.groups
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(groups), (n_draws, len(groups)), generator=generator)
    times = torch.zeros(n_draws, len(groups), dtype=torch.float64).scatter_add(
        1, drawn, torch.ones_like(drawn).double()
    )
    sides = ((contrast.positive, contrast.positive_groups), (contrast.negative, contrast.negative_groups))
    positive, negative = (_means(rows, row_groups, groups, times) for rows, row_groups in sides)
    return positive - negative


def permuted_directions(contrast: Contrast, n_draws: int, seed: int) -> Float64[Tensor, "draw d_model"]:
    """Return the direction after the rows of each question, centred by side, are assigned to the sides at random.

    Each side keeps its number of rows per question. Questions that only one side has are treated as one question.
    """
    sides = (contrast.positive.double(), contrast.negative.double())
    rows = torch.cat([side - side.mean(0) for side in sides])
    label = torch.arange(len(rows)) < len(contrast.positive)
    both = set(contrast.positive_groups) & set(contrast.negative_groups)
    names = [g if g in both else None for g in (*contrast.positive_groups, *contrast.negative_groups)]
    order = {name: i for i, name in enumerate(dict.fromkeys(names))}
    group = torch.tensor([order[name] for name in names])
    # Both orders below list the questions one after the other: ``slots`` with the positive rows of each first,
    # ``shuffled`` with each question's rows in random order. Giving the weight of slot i to row shuffled[i] therefore
    # permutes the labels within questions, and one matrix product turns the weights of all draws into directions.
    slots = (group * 2 + ~label).argsort(stable=True)
    generator = torch.Generator().manual_seed(seed)
    shuffled = (torch.rand(n_draws, len(rows), generator=generator) + group).argsort(1)
    positive = label[slots].double()
    weight = positive / positive.sum() - (1 - positive) / (1 - positive).sum()
    return torch.zeros(n_draws, len(rows), dtype=torch.float64).scatter(1, shuffled, weight.expand(n_draws, -1)) @ rows


def _means(
    rows: Tensor, row_groups: Sequence[Hashable], groups: Sequence[Hashable], times: Tensor
) -> Float64[Tensor, "draw d_model"]:
    """Return the mean of the rows, each counted as often as its question was drawn; NaN if no question has rows."""
    number = {name: i for i, name in enumerate(groups)}
    index = torch.tensor([number[name] for name in row_groups])
    sums = torch.zeros(len(groups), rows.shape[1], dtype=torch.float64).index_add(0, index, rows.double())
    counts = torch.bincount(index, minlength=len(groups)).double()
    return (times @ sums) / (times @ counts)[:, None]


def _cosine(a: Tensor, b: Tensor) -> Float64[Tensor, "*draw"]:
    return torch.cosine_similarity(a, b, dim=-1, eps=0.0)


def _ends(draws: Float64[Tensor, " draw"]) -> tuple[float, float]:
    low, high = draws.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
