# ruff: noqa: F401
"""Every public name of the package; ``probes/__init__.py`` loads this module when the first one is used."""

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
from probes.saved import SavedProbe, fit_final, load_probe, save_probe
from probes.splits import Folds, all_rows, by_question, by_question_and_phrasing
from probes.transfer import LabelledSet, transfer_matrix, transfer_scores
