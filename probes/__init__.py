# ruff: noqa: F401
"""Linear probes on activations: grouped folds, fits for all layers and folds at once, evaluation with controls.

    >>> from probes import by_question, cross_validated_auroc, fit_logistic, shuffled_labels
    >>> folds = by_question(questions)                     # X: (layer, n, d_model), y: n booleans, questions: n names
    >>> cross_validated_auroc(X, y, folds).value           # held-out AUROC of every layer
    >>> shuffled_labels(X, y, folds).value                 # its control: near one half
    >>> fit_logistic(X, y).scores(X_new)                   # fit on all rows, score new ones

Every fit takes activations of all layers, labels, and folds; it returns one ``Probe`` that holds the solution of every
layer and fold. Without folds it uses all rows, and the fold axis is absent. Every name in ``__all__`` can be imported
from here. A name loads its module on first use, so ``import probes`` itself needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers and editors; a test keeps the two lists equal
    from probes.class_means import fit_lda, fit_mean_difference
    from probes.evaluate import (
        bag_of_tokens,
        cross_validated_auroc,
        cross_validated_scores,
        held_out_scores,
        one_vs_rest,
        random_direction,
        shuffled_labels,
        token_counts,
    )
    from probes.logistic import fit_logistic, fit_logistic_nested, fit_logistic_path
    from probes.metrics import (
        Calibration,
        LayerScores,
        accuracy,
        auroc,
        calibration,
        grouped_auroc,
        grouped_mean,
        macro_auroc,
    )
    from probes.penalties import L2S
    from probes.probe import Fit, Probe
    from probes.ridge import fit_ridge, fit_ridge_nested, fit_ridge_path
    from probes.splits import Folds, all_rows, by_question, by_question_and_phrasing
    from probes.transfer import LabelledSet, transfer_matrix, transfer_scores

_NAMES = {
    "class_means": "fit_lda fit_mean_difference",
    "evaluate": "bag_of_tokens cross_validated_auroc cross_validated_scores held_out_scores one_vs_rest "
    "random_direction shuffled_labels token_counts",
    "logistic": "fit_logistic fit_logistic_nested fit_logistic_path",
    "metrics": "Calibration LayerScores accuracy auroc calibration grouped_auroc grouped_mean macro_auroc",
    "penalties": "L2S",
    "probe": "Fit Probe",
    "ridge": "fit_ridge fit_ridge_nested fit_ridge_path",
    "splits": "Folds all_rows by_question by_question_and_phrasing",
    "transfer": "LabelledSet transfer_matrix transfer_scores",
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
