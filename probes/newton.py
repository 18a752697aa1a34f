"""Many L2-penalised logistic regressions on one shared feature matrix, solved together by truncated Newton.

Folds, label permutations and inner splits of a layer differ only in their labels and in which rows count. Their
Hessians are therefore close to one shared matrix. Its Cholesky factor preconditions the conjugate gradients of all
regressions, and each product with the features is a single matrix product for all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_FORCING = 0.4  # conjugate gradients stop at this fraction of the first residual
_MAX_NEWTON, _MAX_CG, _MAX_LINE = 100, 200, 8
_CHEAP = 4  # factorising, or inverting, pays where there are at most this many features per regression
_STALE = 0.4  # factorise again once the mean curvature of the losses has fallen to this fraction


@dataclass(frozen=True, eq=False)
class Problem:
    """``k`` logistic regressions on shared features; a constant feature with zero penalty is the intercept.

    Regression k minimises sum_i rows[k, i] · log(1 + exp(∓ w·x_i)) + l2/2 · sum_j penalty[k, j] · w_j².
    """

    features: Float[Tensor, "n d"]
    targets: Float[Tensor, "k n"]
    rows: Float[Tensor, "k n"]
    penalty: Float[Tensor, "k d"]


def solve_path(
    problem: Problem, l2s: Sequence[float], *, tolerance: float, start: Float[Tensor, "k d"] | None = None
) -> Float[Tensor, "l2 k d"]:
    """Solve ``problem`` for every penalty, each starting from the solution for the next stronger one.

    A regression is done once its last Newton step, measured by the Hessian, is shorter than ``tolerance`` times its
    weights, measured by the penalty. The remaining error is a fraction of that step.

    Raises:
        RuntimeError: If a regression is not solved in 100 Newton steps.
    """
    solutions = dict(walk_path(problem, l2s, tolerance=tolerance, start=start))
    return torch.stack([solutions[l2] for l2 in l2s])


def walk_path(
    problem: Problem, l2s: Sequence[float], *, tolerance: float, start: Float[Tensor, "k d"] | None = None
) -> Iterator[tuple[float, Float[Tensor, "k d"]]]:
    """Yield each penalty with its solution, strongest first, so that a caller can stop before the slow weak end."""
    weights = torch.zeros_like(problem.penalty) if start is None else start
    gram = curvature = None
    for l2 in sorted(set(l2s), reverse=True):
        now = _shared_curvature(problem, weights)
        if gram is None or curvature is None or now.mean() < _STALE * curvature.mean():
            curvature, gram = now, _gram(problem.features, now)
        penalty = l2 * problem.penalty
        weights = _newton(problem, penalty, weights, _preconditioner(gram, penalty, curvature), tolerance)
        yield l2, weights


@dataclass(frozen=True, eq=False)
class _Preconditioner:
    """The inverse of one matrix that approximates every Hessian, and the mean curvature that it was made with."""

    factor: Float[Tensor, "d d"]
    curvature: float
    inverse: Float[Tensor, "d d"] | None = None
    """Present where, with many regressions, multiplying by it is cheaper than solving with the Cholesky factor."""

    def __call__(self, residual: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        if self.inverse is not None:
            return residual @ self.inverse
        return torch.cholesky_solve(residual.T, self.factor).T

    def renewed(self, problem: Problem, curvature: Float[Tensor, "k n"], penalty: Tensor, rows: Tensor):
        """Return a new one for the present curvature once that has fallen, if making it costs less than it saves."""
        if problem.features.shape[1] > _CHEAP * len(curvature):
            return self
        shared = curvature.sum(0) / rows.sum(0).clamp_min(1) * rows.mean()
        if shared.mean() >= _STALE * self.curvature:
            return self
        return _preconditioner(_gram(problem.features, shared), penalty, shared)


def _newton(
    problem: Problem, penalty: Tensor, weights: Tensor, preconditioner: _Preconditioner, tolerance: float
) -> Tensor:
    solved = weights.clone()
    active = torch.arange(len(weights), device=weights.device)
    X, targets, rows = problem.features, problem.targets, problem.rows
    scores, floor = weights @ X.T, 0.1 * torch.finfo(X.dtype).eps * len(X)
    for _ in range(_MAX_NEWTON):
        chance = scores.sigmoid()
        gradient = torch.addcmul((rows * (chance - targets)) @ X, penalty, weights)
        curvature = rows * chance * (1 - chance)
        preconditioner = preconditioner.renewed(problem, curvature, penalty, rows)
        step, score_step = _direction(X, curvature, penalty, gradient, preconditioner)
        length = _line_search(
            scores, score_step, targets, rows, _dot(weights * penalty, step), _dot(step * penalty, step)
        )
        weights, scores = weights + length * step, scores + length * score_step
        solved[active] = weights
        # The Newton decrement is the squared length of the step in the metric of the Hessian.
        decrement = -_dot(gradient, step)
        unsolved = (decrement > tolerance**2 * _dot(weights * penalty, weights) + floor)[:, 0]
        if not unsolved.any():
            return solved
        if not unsolved.all():  # drop the solved regressions from all further products
            active, weights, scores = active[unsolved], weights[unsolved], scores[unsolved]
            penalty, targets, rows = penalty[unsolved], targets[unsolved], rows[unsolved]
    raise RuntimeError(f"logistic probe: {len(active)} of {len(solved)} fits not solved in {_MAX_NEWTON} Newton steps")


def _direction(
    X: Tensor, curvature: Tensor, penalty: Tensor, gradient: Tensor, precondition: _Preconditioner
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k n"]]:
    """Solve the Newton systems by preconditioned conjugate gradients; return the step and its effect on the scores."""
    residual = -gradient
    direction = preconditioned = precondition(residual)
    energy = first = _dot(residual, preconditioned)
    step, score_step = torch.zeros_like(gradient), torch.zeros_like(curvature)
    for _ in range(_MAX_CG):
        along = direction @ X.T
        image = torch.addcmul((curvature * along) @ X, penalty, direction)
        length = energy / _dot(direction, image).clamp_min(_tiny(X))
        step, score_step = step + length * direction, score_step + length * along
        residual = residual - length * image
        preconditioned = precondition(residual)
        energy, before = _dot(residual, preconditioned), energy
        if (energy <= _FORCING**2 * first).all():
            break
        direction = preconditioned + energy / before.clamp_min(_tiny(X)) * direction
    return step, score_step


def _line_search(
    scores: Tensor, score_step: Tensor, targets: Tensor, rows: Tensor, tilt: Tensor, bend: Tensor
) -> Tensor:
    """Minimise each convex objective along its step, by Newton steps on the slope inside a shrinking bracket."""
    weighted = rows * score_step
    slope_0 = _dot(weighted, scores.sigmoid() - targets) + tilt
    length = torch.ones_like(tilt)
    low, high = torch.zeros_like(tilt), torch.full_like(tilt, torch.inf)
    for _ in range(_MAX_LINE):
        chance = (scores + length * score_step).sigmoid()
        slope = _dot(weighted, chance - targets) + tilt + length * bend
        if (slope.abs() <= 0.1 * slope_0.abs()).all():
            break
        low, high = torch.where(slope < 0, length, low), torch.where(slope < 0, high, length)
        newton = length - slope / (_dot(weighted * score_step, chance * (1 - chance)) + bend).clamp_min(_tiny(scores))
        middle = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        length = torch.where((newton > low) & (newton < high), newton, middle)
    return length


def _shared_curvature(problem: Problem, weights: Tensor) -> Float[Tensor, " n"]:
    """Return the mean second derivative of each row's loss over the regressions that use the row."""
    chance = (weights @ problem.features.T).sigmoid()
    mean = (problem.rows * chance * (1 - chance)).sum(0) / problem.rows.sum(0).clamp_min(1)
    return mean * problem.rows.mean()


def _gram(X: Tensor, curvature: Tensor) -> Float[Tensor, "d d"]:
    return (X * curvature[:, None]).T @ X


def _preconditioner(gram: Tensor, penalty: Float[Tensor, "k d"], curvature: Tensor) -> _Preconditioner:
    diagonal = penalty.mean(0) + 1e-6 * gram.diagonal().mean()
    factor = torch.linalg.cholesky(gram + diagonal.diag())
    inverse = torch.cholesky_inverse(factor) if len(gram) <= _CHEAP * len(penalty) else None
    return _Preconditioner(factor, float(curvature.mean()), inverse)


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "k 1"]:
    return (a * b).sum(-1, keepdim=True)


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
