"""AUROC with intervals that respect groups and folds; accuracy; calibration."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from interp.stats import Interval
from probes.splits import Folds

BOOTSTRAPS = ("cluster_bootstrap", "phrasing_bootstrap")
"""Names of the intervals that resample the first and the second kind of group of a split."""
N_BOOT = 2000
"""Bootstrap resamples."""
LEVEL = 0.95
"""Level of every interval."""


@dataclass(frozen=True, eq=False)
class LayerScores:
    """One statistic per layer with its interval.

    Attributes:
        method: How the interval is made: one of ``BOOTSTRAPS``, or the spread of a control over its draws.
        n: Rows tested.
        n_clusters: Groups in the sample.
    """

    value: Float[Tensor, " layer"]
    low: Float[Tensor, " layer"]
    high: Float[Tensor, " layer"]
    method: str
    n: int
    n_clusters: int

    def interval(self, layer: int) -> Interval:
        """Return the interval at index ``layer`` of the layer axis."""
        return Interval(float(self.low[layer]), float(self.high[layer]), self.method)


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error over equal-width bins, and the Brier score; both in [0, 1], 0 is best."""

    ece: float
    brier: float


def auroc(scores: Float[Tensor, "*batch n"], y: Bool[Tensor, " n"]) -> Float[Tensor, "*batch"]:
    """Return the probability that a positive row scores above a negative one; ties count half.

    Raises:
        ValueError: If ``y`` has one class only, or a score is not a number.
    """
    _check_two_classes(y)
    _check_scores(scores)
    # AUROC from ranks (Mann-Whitney U); tied scores share their mean rank.
    ordered = scores.sort(-1).values
    below = torch.searchsorted(ordered, scores.contiguous())
    up_to = torch.searchsorted(ordered, scores.contiguous(), right=True)
    ranks = (below + up_to + 1).double() / 2
    positive, negative = int(y.sum()), int((~y).sum())
    return (ranks[..., y].sum(-1) - positive * (positive + 1) / 2) / (positive * negative)


def accuracy(scores: Float[Tensor, "*batch n"], y: Bool[Tensor, " n"]) -> Float[Tensor, "*batch"]:
    """Return the share of rows on the right side of a score of zero."""
    _check_scores(scores)
    return ((scores > 0) == y).double().mean(-1)


def calibration(scores: Float[Tensor, " n"], y: Bool[Tensor, " n"], *, n_bins: int = 10) -> Calibration:
    """Return how far sigmoid(score) is from the observed frequency of the positive class.

    Not evidence for: anything, where scores are not log-odds, such as those of ``fit_mean_difference``.
    """
    _check_scores(scores)
    chance, observed = scores.double().sigmoid(), y.double()
    bins = (chance * n_bins).long().clamp(max=n_bins - 1)
    gap = torch.zeros(n_bins, dtype=torch.float64).index_add(0, bins, chance - observed)
    return Calibration(ece=float(gap.abs().sum() / len(y)), brier=float((chance - observed).square().mean()))


def grouped_auroc(
    scores: Float[Tensor, "layer n"], y: Bool[Tensor, " n"], folds: Folds, *, n_boot: int = N_BOOT, seed: int = 0
) -> LayerScores:
    """Return the AUROC of held-out scores, with a cluster-bootstrap interval.

    Only rows of the same fold are compared. Folds have different probes, whose scores share no zero: pooling them pulls
    the AUROC of a useless probe below one half. The bootstrap draws groups (of the first kind) with replacement.

    Raises:
        ValueError: If no fold tests both classes.

    Not evidence for: groups other than those sampled. At an AUROC of exactly 1 the interval collapses to a point.
    """
    return macro_auroc(scores[:, None], y[None], folds, n_boot=n_boot, seed=seed)


def macro_auroc(
    scores: Float[Tensor, "layer class n"],
    labels: Bool[Tensor, "class n"],
    folds: Folds,
    *,
    kind: int = 0,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> LayerScores:
    """Return the mean of ``grouped_auroc`` over classes, each against the rest; chance is one half.

    Args:
        scores: Held-out scores of each class's probe.
        labels: The positive rows of each class.
        folds: The folds that the scores come from.
        kind: Which groups of ``folds`` the bootstrap draws: 0 questions, 1 phrasings.
        n_boot: Resamples; each draws the same groups for every class.
        seed: Seed of the resamples.

    Raises:
        ValueError: If for some class no fold tests both positive and negative rows.
    """
    groups = folds.groups[kind].unique(return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n_groups, (n_boot, n_groups), generator=generator)
    counts = torch.zeros(n_boot, n_groups, dtype=torch.float64).scatter_add(1, draws, torch.ones(draws.shape).double())
    values, resampled = [], []
    _check_scores(scores.cpu()[..., folds.test.any(0)])
    for of_class, y in zip(scores.cpu().unbind(1), labels.cpu(), strict=True):
        wins, pairs = _pairs(of_class, y, folds.test, groups, n_groups)
        if not pairs.any():
            raise ValueError(f"none of the {len(folds)} folds tests both classes")
        values.append(wins.sum((1, 2)) / pairs.sum())
        resampled.append(_weighed(counts, wins) / _weighed(counts, pairs))
    low, high = spread(torch.stack(resampled).mean(0))
    n = int(folds.test.any(0).sum())
    return LayerScores(torch.stack(values).mean(0), low, high, BOOTSTRAPS[kind], n, n_groups)


def grouped_mean(values: Float[Tensor, "layer n"], folds: Folds, *, n_boot: int = N_BOOT, seed: int = 0) -> LayerScores:
    """Return the mean of ``values``, such as hits, over tested rows, with an interval that resamples groups."""
    groups = folds.groups[0].unique(return_inverse=True)[1]
    tested, n_groups = folds.test.any(0), int(groups.max()) + 1
    member = one_hot(groups[tested], n_groups).double()
    sums, sizes = values.cpu().double()[:, tested] @ member, member.sum(0)
    draws = torch.randint(n_groups, (n_boot, n_groups), generator=torch.Generator().manual_seed(seed))
    low, high = spread(sums[:, draws].sum(-1) / sizes[draws].sum(-1))
    return LayerScores(sums.sum(1) / sizes.sum(), low, high, BOOTSTRAPS[0], int(tested.sum()), n_groups)


def spread(draws: Float[Tensor, "*batch draw"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Return the central quantiles that hold ``LEVEL`` of the draws; undefined draws are left out."""
    tail = (1 - LEVEL) / 2
    return draws.nanquantile(tail, -1), draws.nanquantile(1 - tail, -1)


def _weighed(counts: Float[Tensor, "draw group"], pairs: Float[Tensor, "*layer group group"]) -> Tensor:
    """Sum pairs over resampled groups.

    Pairs between two groups count once per pair of their copies, pairs inside a group once per copy. Two copies of a
    group are not paired with each other: they share its question.
    """
    inside = pairs.diagonal(dim1=-2, dim2=-1)
    return ((counts @ pairs) * counts).sum(-1) - inside @ (counts * (counts - 1)).T


def _pairs(
    scores: Tensor, y: Tensor, test: Tensor, groups: Tensor, n_groups: int
) -> tuple[Float[Tensor, "layer group group"], Float[Tensor, "group group"]]:
    """Count the positive-negative row pairs within folds by pair of groups, and how many are in the right order."""
    wins = torch.zeros(len(scores), n_groups, n_groups, dtype=torch.float64)
    pairs = torch.zeros(n_groups, n_groups, dtype=torch.float64)
    for fold in test:
        up, down = (fold & y).nonzero()[:, 0], (fold & ~y).nonzero()[:, 0]
        if not len(up) or not len(down):
            continue
        ups, positive = groups[up].unique(return_inverse=True)
        downs, negative = groups[down].unique(return_inverse=True)
        member = one_hot(positive, len(ups)).T.double(), one_hot(negative, len(downs)).double()
        pairs[ups[:, None], downs] += member[0].sum(1)[:, None] * member[1].sum(0)
        above, below = scores[:, up, None], scores[:, None, down]
        order = (above > below).double() + 0.5 * (above == below).double()
        wins[:, ups[:, None], downs] += member[0] @ order @ member[1]
    return wins, pairs


def _check_scores(scores: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise ValueError(f"scores of shape {tuple(scores.shape)}: {int(scores.isnan().sum())} are not a number")


def _check_two_classes(y: Tensor) -> None:
    if y.all() or not y.any():
        raise ValueError(f"y: all {len(y)} labels are {bool(y.all())}; an AUROC needs both classes")
