"""Probes from class means, for all layers and folds at once: their difference, and linear discriminant analysis."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from probes.probe import Activations, FoldLabels, Probe, by_layer
from probes.splits import Folds


def fit_mean_difference(X: Activations, y: FoldLabels, folds: Folds | None = None) -> Probe:
    """Fit the difference of class means; the score is zero halfway between the means.

    Not evidence for: a boundary at zero that is right for unbalanced classes; scores are not log-odds.

    Source: Marks and Tegmark 2023 (arXiv:2310.06824), mass-mean probe.
    """

    def fit_layer(x: Tensor, targets: Tensor, rows: Tensor) -> Probe:
        centre = x.mean(0)
        positive, negative = _class_means(x - centre, targets, rows)
        middle = (positive + negative) / 2 + centre
        return Probe(positive - negative, middle.new_zeros(len(rows)), middle, torch.ones_like(middle))

    return by_layer(X, y, folds, fit_layer)


def fit_lda(X: Activations, y: FoldLabels, folds: Folds | None = None, *, shrinkage: float | None = None) -> Probe:
    """Fit linear discriminant analysis; the within-class covariance S is shrunk to (1 - s) S + s · tr(S)/d · I.

    Args:
        X: Activations.
        y: Labels.
        folds: Training rows of each fold; None uses all rows and leaves out the fold axis.
        shrinkage: s in [0, 1]; None takes the Ledoit-Wolf estimate from the rows centred on their class means.

    Raises:
        ValueError: If ``shrinkage`` is outside [0, 1].

    Source: Ledoit and Wolf 2004, J. Multivariate Analysis 88, lemma 3.3, for the automatic shrinkage.
    """
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage={shrinkage}: expected a number in [0, 1] or None")
    return by_layer(X, y, folds, partial(_lda, shrinkage=shrinkage))


def _lda(x: Tensor, targets: Tensor, rows: Tensor, *, shrinkage: float | None) -> Probe:
    centre = x.mean(0)
    x = x - centre
    means = _class_means(x, targets, rows)
    counts = [(rows * side).sum(1) for side in (targets, 1 - targets)]
    distinct, member = rows.unique(dim=0, return_inverse=True)
    weight = torch.empty_like(means[0])
    # Fits on the same rows, such as those of permuted labels, share their second moments.
    for i, used in enumerate(distinct):
        moment = (x * used[:, None]).T @ x
        for k in (member == i).nonzero()[:, 0].tolist():
            middles = torch.stack([mean[k] for mean in means])
            sizes = torch.stack([count[k] for count in counts])
            covariance = (moment - (middles.T * sizes) @ middles) / used.sum()
            s = _ledoit_wolf(x, targets[k], used, middles, covariance) if shrinkage is None else shrinkage
            size = covariance.diagonal().mean()
            shrunk = (1 - s) * covariance
            shrunk.diagonal().add_(torch.where(size > 0, s * size, 1))  # identical rows have no covariance to scale by
            weight[k] = torch.linalg.solve(shrunk, middles[0] - middles[1])
    middle = (means[0] + means[1]) / 2 + centre
    return Probe(weight, (counts[0] / counts[1]).log(), middle, torch.ones_like(middle))


def _ledoit_wolf(x: Tensor, targets: Tensor, rows: Tensor, means: Float[Tensor, "2 d"], covariance: Tensor) -> Tensor:
    # Squared distance of each row to both class means; each row counts with its own class.
    distances = x.square().sum(1) - 2 * means @ x.T + means.square().sum(1, keepdim=True)
    norms = torch.where(targets > 0, distances[0], distances[1])
    count, d = rows.sum(), x.shape[1]
    size = covariance.diagonal().mean()
    spread = covariance.square().sum() - d * size.square()
    noise = ((rows * norms.square()).sum() / count - covariance.square().sum()) / count
    return (noise / spread.clamp_min(torch.finfo(x.dtype).tiny)).clamp(0, 1)


def _class_means(x: Tensor, targets: Tensor, rows: Tensor) -> tuple[Float[Tensor, "fold d"], Float[Tensor, "fold d"]]:
    positive, negative = rows * targets, rows * (1 - targets)
    return positive @ x / positive.sum(1, keepdim=True), negative @ x / negative.sum(1, keepdim=True)
