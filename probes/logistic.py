"""Logistic regression for all layers and folds: at one penalty, along a path, at a nested choice of penalties."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probes.newton import Problem, solve_path, walk_path
from probes.probe import Probe, by_layer, check_classes
from probes.splits import Folds

L2S = tuple(10.0**power for power in range(-2, 5))
TOLERANCE = 0.03


def fit_logistic(
    X: Float[Tensor, "layer n d_model"],
    y: Bool[Tensor, "*fold n"],
    folds: Folds | None = None,
    *,
    l2: float = 1.0,
    tolerance: float = TOLERANCE,
) -> Probe:
    """Fit logistic regression on features standardised by the training rows of each fold.

    Minimises sum of log-losses + l2/2 · |weight|² with a free bias: scikit-learn's ``C`` is 1/l2.

    Args:
        X: Activations.
        y: Labels.
        folds: Rows to learn from; None uses all.
        l2: Penalty, positive.
        tolerance: Relative length of the last step (see ``solve_path``); the default leaves about 1 % in the weights,
            scikit-learn's error at its default, and moves an AUROC by less than 0.001.
    """
    return fit_logistic_path(X, y, folds, l2s=(l2,), tolerance=tolerance)[0]


def fit_logistic_path(
    X: Float[Tensor, "layer n d_model"],
    y: Bool[Tensor, "*fold n"],
    folds: Folds | None = None,
    *,
    l2s: Sequence[float] = L2S,
    tolerance: float = TOLERANCE,
) -> Probe:
    """Fit logistic regression for every penalty; the fields of the probe have a leading penalty axis.

    Raises:
        ValueError: If a penalty is not positive.
    """
    check_l2s(l2s)

    def fit_layer(x: Tensor, targets: Tensor, rows: Tensor) -> Probe:
        problem, standard = _problem(x, targets, rows)
        return _probe(solve_path(problem, l2s, tolerance=tolerance), standard, torch.tensor(l2s)[:, None])

    return by_layer(X, y, folds, fit_layer, axis=1)


def fit_logistic_nested(
    X: Float[Tensor, "layer n d_model"],
    y: Bool[Tensor, "*fold n"],
    folds: Folds,
    *,
    l2s: Sequence[float] = L2S,
    n_inner: int = 4,
    tolerance: float = TOLERANCE,
) -> Probe:
    """Fit logistic regression with the penalty chosen in each fold by grouped cross-validation of its training rows.

    The choice is the smallest held-out log-loss over ``n_inner`` splits, by layer and fold; test rows play no part. The
    inner fits stop at three times ``tolerance``, which decides between penalties a factor of ten apart. The search goes
    from the strongest penalty to weaker ones and ends where, in every fold, the last two were worse than one before:
    the loss falls and then rises along the path, and its far end is where the fits are slow.

    Raises:
        ValueError: If a penalty is not positive, or the training rows of a fold have fewer than ``n_inner`` groups.
    """
    check_l2s(l2s)
    train, test, owner = inner_folds(y.to(X.device), folds, n_inner)

    def fit_layer(x: Tensor, targets: Tensor, rows: Tensor) -> Probe:
        problem, _ = _problem(x, targets[owner], train.to(x.dtype))
        tried, losses, best = [], [], owner.new_zeros(len(rows))
        for l2, weights in walk_path(problem, l2s, tolerance=3 * tolerance):
            loss = torch.nn.functional.softplus(weights @ problem.features.T * (1 - 2 * problem.targets)) * test
            starts = weights.new_zeros(len(rows), weights.shape[1]).index_add(0, owner, weights)
            tried.append((l2, starts / owner.bincount()[:, None]))
            losses.append(loss.new_zeros(len(rows)).index_add(0, owner, loss.sum(-1)))
            best = torch.stack(losses).argmin(0)
            if (best < len(tried) - 2).all():
                break
        return _chosen(x, targets, rows, best, tried, tolerance)

    return by_layer(X, y, folds, fit_layer)


def _chosen(
    x: Tensor, targets: Tensor, rows: Tensor, best: Tensor, tried: Sequence[tuple[float, Tensor]], tolerance: float
) -> Probe:
    """Refit every fold at its own penalty, from the mean of its inner solutions there."""
    problem, standard = _problem(x, targets, rows)
    weights = torch.zeros_like(problem.penalty)
    for i in best.unique().tolist():
        here = (best == i).nonzero()[:, 0]
        l2, starts = tried[i]
        part = Problem(problem.features, problem.targets[here], problem.rows[here], problem.penalty[here])
        weights[here] = solve_path(part, (l2,), tolerance=tolerance, start=starts[here])[0]
    return _probe(weights, standard, torch.tensor([l2 for l2, _ in tried], device=x.device)[best])


@dataclass(frozen=True, eq=False)
class _Standard:
    """Mean and scale of a fold's training rows: of raw activations, and of the solver's features."""

    mean: Float[Tensor, "fold d"]
    scale: Float[Tensor, "fold d"]
    solver_mean: Float[Tensor, "fold d"]
    solver_scale: Float[Tensor, "fold d"]


def _problem(x: Tensor, targets: Tensor, rows: Tensor) -> tuple[Problem, _Standard]:
    """Standardise by all rows once; what a fold's own scale changes is the penalty, and its mean only the bias."""
    centre = x.mean(0)
    z = x - centre
    spread = z.square().mean(0).sqrt()  # several times faster than std
    spread = torch.where(spread > 0, spread, 1)
    z /= spread
    mean, variance = moments(z, rows)
    scale = torch.where(variance > 0, variance, 1).sqrt()
    features = torch.cat([z, z.new_ones(len(z), 1)], 1)
    penalty = torch.cat([scale.square(), scale.new_zeros(len(scale), 1)], 1)
    # A feature that is constant in a fold has scale 0 here, so that no weight is left on it.
    standard = _Standard(centre + spread * mean, spread * scale, mean, scale * (variance > 0))
    return Problem(features, targets, rows, penalty), standard


def moments(z: Tensor, rows: Tensor) -> tuple[Float[Tensor, "fold d"], Float[Tensor, "fold d"]]:
    """Return mean and variance over each fold's rows; a variance lost in rounding is zero."""
    count = rows.sum(1, keepdim=True)
    mean, square = rows @ z / count, rows @ z.square() / count
    variance = square - mean.square()
    if z.dtype == torch.float64:
        return mean, torch.where(variance > 1e-13 * square, variance, 0)
    if (variance > 1e-3 * square).all():
        return mean, variance
    mean, variance = moments(z.double(), rows.double())
    return mean.to(z.dtype), variance.to(z.dtype)


def _probe(weights: Float[Tensor, "*batch fold d"], standard: _Standard, l2: Tensor) -> Probe:
    weight, bias = weights[..., :-1], weights[..., -1]
    bias = bias + (weight * standard.solver_mean).sum(-1)
    weight = weight * standard.solver_scale
    mean, scale = standard.mean.expand_as(weight), standard.scale.expand_as(weight)
    return Probe(weight, bias, mean, scale, l2.to(bias).expand_as(bias))


def inner_folds(
    y: Bool[Tensor, "*fold n"], folds: Folds, n_inner: int
) -> tuple[Bool[Tensor, "inner n"], Bool[Tensor, "inner n"], Int[Tensor, " inner"]]:
    """Return the training and test rows of every inner split of every fold, and the fold that each belongs to.

    Raises:
        ValueError: If a fold has fewer than ``n_inner`` groups, or an inner split trains on one class only.
    """
    inner = [folds.inner(fold, n_inner) for fold in range(len(folds))]
    train = torch.cat([split.train for split in inner]).to(y.device)
    test = torch.cat([split.test for split in inner]).to(y.device)
    owner = torch.repeat_interleave(torch.tensor([len(split) for split in inner])).to(y.device)
    check_classes(y if y.ndim == 1 else y[owner], train)
    return train, test, owner


def check_l2s(l2s: Sequence[float]) -> None:
    """Refuse penalties that are not positive.

    Raises:
        ValueError: Names them.
    """
    if not l2s or not all(l2 > 0 for l2 in l2s):
        raise ValueError(f"l2s={tuple(l2s)}: expected positive penalties")
