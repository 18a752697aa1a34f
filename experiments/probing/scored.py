"""Probes of one label at every layer, beside their controls: shuffled labels, a random direction, a bag of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from interp.runs.checks import check_known
from interp.runs.table import interval_cells

if TYPE_CHECKING:
    from torch import Tensor

    from probes import Fit, Folds, LayerScores

FitName = Literal["logistic", "nested", "mean_difference", "ridge", "lda"]
FITS: tuple[FitName, ...] = get_args(FitName)
LOG_ODDS = ("logistic", "nested", "lda")
"""Fits whose scores are log-odds, so that they have a calibration."""
DIRECTIONS, PERMUTATIONS, FEWER = 20, 20, 5
"""Random directions and label permutations; fewer for the fits after the first, and for directions of categories."""
CATEGORY_PERMUTATIONS = 2
"""Each is a mean over as many probes as there are categories."""


def find_fit(name: str) -> Fit:
    """Return the function of a fit's name.

    Raises:
        ValueError: If there is none of that name.
    """
    import probes

    fits = {
        "logistic": probes.fit_logistic,
        "nested": partial(probes.fit_logistic_nested, n_inner=2),
        "mean_difference": probes.fit_mean_difference,
        "ridge": probes.fit_ridge,
        "lda": probes.fit_lda,
    }
    check_known(name, fits, f"fit {name!r}: the fits are")
    return fits[name]


class Probes:
    """The probes and controls of one kind of label: all share labels and folds.

    Args:
        labels: Label of each row: a number of its class, of two classes 0 or 1.
        token_ids: Tokens of each row, for the control that sees which tokens occur.
        folds: Training and test rows.
        categorical: Whether the labels are classes, each against the rest; else 1 is the positive class.
        seed: Seed of the controls and the intervals.
        draws: Permutations and random directions of categories; by default few.
    """

    def __init__(
        self,
        labels: Sequence[int],
        token_ids: Sequence[Sequence[int]],
        folds: Folds,
        categorical: bool,
        seed: int,
        draws: tuple[int, int] = (CATEGORY_PERMUTATIONS, FEWER),
    ) -> None:
        import torch

        self.token_ids, self.categories, self.draws = token_ids, categorical, draws
        self.y = torch.tensor(labels, dtype=torch.long if categorical else torch.bool)
        self.options: dict[str, Any] = {"folds": folds, "seed": seed}
        self._words: dict[str, LayerScores] = {}

    def scores(
        self, X: Tensor, fits: Sequence[str], named: Callable[[str], str]
    ) -> Iterator[tuple[str, str, LayerScores]]:
        """Yield (condition, metric, scores by layer) of every fit, each followed by its controls.

        Args:
            X: Activations, [layer, row, d_model].
            fits: Names of fits.
            named: Returns the condition of a fit.
        """
        from probes import random_direction, shuffled_labels

        directions = self.draws[1] if self.categories else DIRECTIONS
        random = random_direction(X, self.y, n_draws=directions, **self.options)
        for i, name in enumerate(fits):
            permutations = self.draws[0] if self.categories else FEWER if i else PERMUTATIONS
            condition, fit = named(name), find_fit(name)
            metrics = list(self._metrics(X, fit, calibrated=name in LOG_ODDS))
            shuffled = shuffled_labels(X, self.y, fit=fit, n_draws=permutations, **self.options)
            controls = {"shuffled_labels": shuffled, "random_direction": random, "bag_of_tokens": self._bag(name)}
            yield condition, *metrics[0]
            yield from ((f"{condition}/{control}", "auroc", null) for control, null in controls.items())
            yield from ((condition, metric, values) for metric, values in metrics[1:])

    def _bag(self, name: str) -> LayerScores:
        from probes import bag_of_tokens

        if name not in self._words:
            self._words[name] = bag_of_tokens(self.token_ids, self.y, fit=find_fit(name), **self.options)
        return self._words[name]

    def _metrics(self, X: Tensor, fit: Fit, *, calibrated: bool) -> Iterator[tuple[str, LayerScores]]:
        """Yield AUROC, accuracy (of categories by the highest score, else by sign), and of log-odds the calibration."""
        from probes import cross_validated_scores, grouped_mean, macro_auroc, one_vs_rest

        folds, seed, sides = self.options["folds"], self.options["seed"], one_vs_rest(self.y)
        scores = cross_validated_scores(X, sides, folds, fit)
        yield "auroc", macro_auroc(scores, sides, folds, seed=seed)
        if len(folds.groups) > 1 and self.categories:
            yield "auroc", macro_auroc(scores, sides, folds, kind=1, seed=seed)
        correct = scores.argmax(1) == self.y if self.categories else (scores[:, 0] > 0) == self.y
        yield "accuracy", grouped_mean(correct, folds, seed=seed)
        if calibrated:
            yield "brier", grouped_mean((scores.sigmoid() - sides.double()).square().mean(1), folds, seed=seed)
            yield "ece", _ece(scores, sides)


def _ece(scores: Tensor, sides: Tensor) -> LayerScores:
    """Return the expected calibration error, of categories the mean over their probes; without an interval."""
    import torch

    from probes import LayerScores, calibration

    errors = [[calibration(s, y).ece for s, y in zip(layer, sides, strict=True)] for layer in scores]
    value = torch.tensor(errors).mean(1)
    return LayerScores(value, value * torch.nan, value * torch.nan, "", scores.shape[-1], 0)


def score_cells(scores: LayerScores, layer: int) -> dict[str, Any]:
    """Return the cells of one layer; a statistic without an interval leaves the interval's cells empty."""
    cells = {"value": float(scores.value[layer]), "n": scores.n}
    if not scores.method:
        return cells
    return {**cells, **interval_cells(scores.interval(layer)), "n_clusters": scores.n_clusters}
