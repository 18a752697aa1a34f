"""Linear probes on activations: grouped folds, fits for all layers and folds at once, evaluation with controls.

    >>> from probes import by_question, cross_validated_auroc, fit_logistic, shuffled_labels
    >>> folds = by_question(questions)                     # X: (layer, n, d_model), y: n booleans, questions: n names
    >>> cross_validated_auroc(X, y, folds).value           # held-out AUROC of every layer
    >>> shuffled_labels(X, y, folds).value                 # its control: near one half
    >>> fit_logistic(X, y).scores(X_new)                   # fit on all rows, score new ones

Every fit takes activations of all layers, labels, and folds; it returns one ``Probe`` that holds the solution of every
layer and fold. Without folds it uses all rows, and the fold axis is absent.

All names of ``probes/public.py`` can be imported from here. It is loaded on first use, so ``import probes`` alone needs
no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.public import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Look a public name up when it is first used (PEP 562)."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("probes.public"), name)


def __dir__() -> list[str]:
    return [name for name in vars(import_module("probes.public")) if not name.startswith("_")]
