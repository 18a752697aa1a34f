"""What a fit returns, the linear score of every layer and fold; and the loop over layers that every fit shares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.splits import Folds

Activations = Float[Tensor, "layer n d_model"]
"""One site per layer and one row per example."""
FoldLabels = Bool[Tensor, "*fold n"]
"""One label per row, the same for all folds or a row of labels per fold."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear score of standardised activations: weight · (x - mean) / scale + bias, positive for the positive class.

    Attributes:
        l2: The penalty of each solution, where the fit has one.
    """

    weight: Float[Tensor, "*batch d_model"]
    bias: Float[Tensor, "*batch"]
    mean: Float[Tensor, "*batch d_model"]
    scale: Float[Tensor, "*batch d_model"]
    l2: Float[Tensor, "*batch"] | None = None

    def __getitem__(self, i: int) -> "Probe":
        """Return the probe at ``i`` of the leading axis."""
        l2 = None if self.l2 is None else self.l2[i]
        return Probe(self.weight[i], self.bias[i], self.mean[i], self.scale[i], l2)

    @property
    def direction(self) -> Float[Tensor, "*batch d_model"]:
        """The weight on raw activations."""
        return self.weight / self.scale

    def scores(self, X: Activations) -> Float[Tensor, "layer *fold n"]:
        """Return the score of every row; for logistic regression and LDA the log-odds of the positive class.

        Raises:
            ValueError: If the number of layers or the width is not the probe's.
        """
        if X.shape[::2] != (len(self.weight), self.weight.shape[-1]):
            raise ValueError(f"X has shape {tuple(X.shape)}; the probe has shape {tuple(self.weight.shape)}")
        return torch.stack([_scores(x.to(self.weight.dtype), self[i]) for i, x in enumerate(X)])


Fit = Callable[[Activations, FoldLabels, Folds], Probe]
FitLayer = Callable[[Tensor, Tensor, Tensor], Probe]


def by_layer(X: Tensor, y: Tensor, folds: Folds | None, fit_layer: FitLayer, *, axis: int = 0) -> Probe:
    """Fit every layer with ``fit_layer(x, targets, rows)``; layers become axis ``axis`` of the probe.

    ``targets`` and ``rows`` are (fold, n) labels and row weights, 0 or 1. Half precision is raised to float32.

    Raises:
        ValueError: If shapes disagree, a layer has a non-finite value, or a fold trains on one class only.
    """
    train = (torch.ones(1, X.shape[1], dtype=torch.bool) if folds is None else folds.train).to(X.device)
    y = y.to(X.device)
    _check(X, y, train)
    dtype = X.dtype if X.dtype == torch.float64 else torch.float32
    rows, targets = train.to(dtype), y.expand(train.shape).to(dtype)
    probes = [fit_layer(x.to(dtype), targets, rows) for x in X]
    return _stacked(probes, axis, squeeze=folds is None)


def fold_moments(z: Tensor, rows: Tensor) -> tuple[Float[Tensor, "fold d"], Float[Tensor, "fold d"]]:
    """Return mean and variance over each fold's rows; a variance lost in rounding is zero."""
    count = rows.sum(1, keepdim=True)
    mean, square = rows @ z / count, rows @ z.square() / count
    variance = square - mean.square()
    if z.dtype == torch.float64:
        return mean, torch.where(variance > 1e-13 * square, variance, 0)
    if (variance > 1e-3 * square).all():
        return mean, variance
    # The difference of two nearly equal squares has lost its digits in float32.
    mean, variance = fold_moments(z.double(), rows.double())
    return mean.to(z.dtype), variance.to(z.dtype)


def _stacked(probes: Sequence[Probe], axis: int, squeeze: bool) -> Probe:
    def stack(name: str) -> Tensor:
        value = torch.stack([getattr(probe, name) for probe in probes], axis)
        return value.squeeze(axis + 1) if squeeze else value

    l2 = None if probes[0].l2 is None else stack("l2")
    return Probe(stack("weight"), stack("bias"), stack("mean"), stack("scale"), l2)


def _scores(x: Tensor, probe: Probe) -> Float[Tensor, "*fold n"]:
    # Residual streams have means far larger than their spread: subtract before multiplying.
    centre = probe.mean.reshape(-1, probe.mean.shape[-1]).mean(0)
    offset = probe.bias - ((probe.mean - centre) * probe.direction).sum(-1)
    return probe.direction @ (x - centre).T + offset[..., None]


def _check(X: Tensor, y: Tensor, train: Tensor) -> None:
    if X.ndim != 3 or y.dtype != torch.bool or y.shape[-1] != X.shape[1]:
        raise ValueError(f"X {tuple(X.shape)}, y {tuple(y.shape)} {y.dtype}: expected (layer, n, d) and n booleans")
    if train.shape[1] != X.shape[1] or (y.ndim == 2 and len(y) != len(train)):
        raise ValueError(f"folds of shape {tuple(train.shape)} do not fit X {tuple(X.shape)}, y {tuple(y.shape)}")
    if bad := [i for i, x in enumerate(X) if not x.sum().isfinite() and not x.isfinite().all()]:
        raise ValueError(f"X: layer {bad[0]} has values that are not finite")
    check_classes(y, train)


def check_classes(y: FoldLabels, train: Bool[Tensor, "fold n"]) -> None:
    """Refuse folds whose training rows have one class only.

    Raises:
        ValueError: Names the first such fold.
    """
    for fold, (rows, labels) in enumerate(zip(train, y.expand(train.shape), strict=True)):
        if not (rows & labels).any() or not (rows & ~labels).any():
            raise ValueError(f"fold {fold}: the {int(rows.sum())} training rows have one class only")
