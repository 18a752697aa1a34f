"""Ridge regression on labels of +1 and -1, in closed form, for all layers and folds; penalties chosen by nested folds.

One Gram matrix per layer serves every fold, which subtracts the rows it leaves out. Where a fold has fewer rows than
features, the kernel between its rows gives the same solution more cheaply.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probes.penalties import L2S, check_l2s, inner_folds
from probes.probe import Activations, FoldLabels, Probe, by_layer, fold_moments
from probes.splits import Folds


def fit_ridge(X: Activations, y: FoldLabels, folds: Folds | None = None, *, l2: float = 1.0) -> Probe:
    """Fit ridge regression on features standardised by the training rows of each fold.

    Minimises sum of (±1 - score)² + l2 · |weight|² with a free bias: scikit-learn's ``RidgeClassifier(alpha=l2)``.

    Not evidence for: log-odds; the score is a regression on ±1.
    """
    return fit_ridge_path(X, y, folds, l2s=(l2,))[0]


def fit_ridge_path(X: Activations, y: FoldLabels, folds: Folds | None = None, *, l2s: Sequence[float] = L2S) -> Probe:
    """Fit ridge regression for every penalty; the fields of the probe have a leading penalty axis.

    Raises:
        ValueError: If a penalty is not positive.
    """
    check_l2s(l2s)

    def fit_layer(x: Tensor, targets: Tensor, rows: Tensor) -> Probe:
        layer = _Layer(x)
        weight, standards = layer.path(targets, rows.bool(), l2s)
        return layer.probe(weight, standards, targets, rows, torch.tensor(l2s)[:, None].expand(weight.shape[:2]))

    return by_layer(X, y, folds, fit_layer, axis=1)


def fit_ridge_nested(
    X: Activations, y: FoldLabels, folds: Folds, *, l2s: Sequence[float] = L2S, n_inner: int = 4
) -> Probe:
    """Fit ridge regression with the penalty chosen in each fold by grouped cross-validation of its training rows.

    The choice minimises the held-out squared error over ``n_inner`` splits, by layer and fold; test rows play no part.

    Raises:
        ValueError: If a penalty is not positive, or the training rows of a fold have fewer than ``n_inner`` groups.
    """
    check_l2s(l2s)
    train, test, outer = inner_folds(y.to(X.device), folds, n_inner)

    def fit_layer(x: Tensor, targets: Tensor, rows: Tensor) -> Probe:
        layer, inner = _Layer(x), targets[outer]
        weight, standards = layer.path(inner, train, l2s)
        probes = layer.probe(weight, standards, inner, train.to(x.dtype), weight.new_zeros(weight.shape[:2]))
        error = torch.stack([_squared_error(x, probe, inner, test) for probe in (probes[i] for i in range(len(l2s)))])
        choice = error.new_zeros(len(l2s), len(rows)).index_add(1, outer, error).argmin(0)
        weight, standards = layer.path(targets, rows.bool(), l2s)
        chosen = weight[choice, torch.arange(len(rows), device=x.device)]
        return layer.probe(chosen, standards, targets, rows, torch.tensor(l2s)[choice.cpu()])

    return by_layer(X, y, folds, fit_layer)


class _Layer:
    """One layer's activations, centred and scaled by all rows, with their Gram matrix once it is needed."""

    def __init__(self, x: Float[Tensor, "n d"]) -> None:
        self.centre = x.mean(0)
        z = x - self.centre
        unit = z.square().mean(0).sqrt()
        self.unit = torch.where(unit > 0, unit, 1)
        self.z = z / self.unit
        self._gram: Tensor | None = None

    def path(
        self, targets: Float[Tensor, "k n"], rows: Bool[Tensor, "k n"], l2s: Sequence[float]
    ) -> tuple[Float[Tensor, "l2 k d"], tuple[Tensor, Tensor]]:
        """Return standardised weights of every penalty, and each regression's mean and scale.

        Regressions on the same rows, such as those of permuted labels, share their factors.
        """
        distinct, member = rows.unique(dim=0, return_inverse=True)
        mean, variance = fold_moments(self.z, distinct.to(self.z.dtype))
        scale = torch.where(variance > 0, variance, 1).sqrt()
        weight = self.z.new_empty(len(l2s), len(rows), self.z.shape[1])
        for i, used in enumerate(distinct):
            here = (member == i).nonzero()[:, 0]
            signs = 2 * targets[here][:, used] - 1
            signs = signs - signs.mean(1, keepdim=True)
            # A feature that is constant in a fold gets no scale, and so no weight.
            inverse = torch.where(variance[i] > 0, 1 / scale[i], 0)
            weight[:, here] = self._solve(used, mean[i], inverse, signs, l2s)
        return weight, (mean[member], scale[member])

    def _solve(
        self, rows: Tensor, mean: Tensor, inverse: Tensor, signs: Float[Tensor, "r m"], l2s: Sequence[float]
    ) -> Float[Tensor, "l2 r d"]:
        """Solve for each penalty through the smaller of two matrices: features by features, or rows by rows."""
        if int(rows.sum()) < len(mean):
            # (ZᵀZ + l2 I)⁻¹ Zᵀ y = Zᵀ (ZZᵀ + l2 I)⁻¹ y
            z = (self.z[rows] - mean) * inverse
            return _shifted_solve(z @ z.T, l2s, signs) @ z
        right = (signs @ self.z[rows]) * inverse  # the signs sum to zero, so the mean cancels
        gram = self._gram_of(rows) - rows.sum() * mean[:, None] * mean
        return _shifted_solve(gram * inverse[:, None] * inverse, l2s, right)

    def _gram_of(self, rows: Tensor) -> Float[Tensor, "d d"]:
        # A large fold is the Gram matrix of all rows minus that of the few rows left out.
        if 2 * int(rows.sum()) < len(rows):
            return self.z[rows].T @ self.z[rows]
        if self._gram is None:
            self._gram = self.z.T @ self.z
        return self._gram - self.z[~rows].T @ self.z[~rows]

    def probe(
        self, weight: Tensor, standards: tuple[Tensor, Tensor], targets: Tensor, rows: Tensor, l2: Tensor
    ) -> Probe:
        """Return weights as a probe of raw activations; the bias is the mean label."""
        mean, scale = (value.expand_as(weight) for value in standards)
        bias = (2 * (rows * targets).sum(-1) / rows.sum(-1) - 1).expand(weight.shape[:-1])
        return Probe(weight, bias, self.centre + self.unit * mean, self.unit * scale, l2.to(bias))


def _shifted_solve(
    matrix: Float[Tensor, "m m"], shifts: Sequence[float], right: Float[Tensor, "r m"]
) -> Float[Tensor, "shift r m"]:
    """Solve (matrix + shift · I) w = right by Cholesky; in float64 where the matrix is singular in float32."""
    out = []
    for shift in shifts:
        shifted = matrix.clone()
        shifted.diagonal().add_(shift)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        if failed and matrix.dtype != torch.float64:
            out.append(_shifted_solve(matrix.double(), (shift,), right.double())[0].to(matrix.dtype))
            continue
        half = torch.linalg.solve_triangular(factor, right.T, upper=False)
        out.append(torch.linalg.solve_triangular(factor.T, half, upper=True).T)
    return torch.stack(out)


def _squared_error(x: Tensor, probe: Probe, targets: Tensor, test: Tensor) -> Float[Tensor, " k"]:
    single = Probe(*(value[None] for value in (probe.weight, probe.bias, probe.mean, probe.scale)))
    return ((single.scores(x[None])[0] - (2 * targets - 1)).square() * test).sum(1)
