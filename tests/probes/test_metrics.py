"""AUROC and calibration equal scikit-learn's; intervals resample groups and cover the truth."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from probes import (
    accuracy,
    all_rows,
    auroc,
    by_question,
    by_question_and_phrasing,
    calibration,
    cross_validated_scores,
    fit_logistic,
    grouped_auroc,
    grouped_mean,
    held_out_scores,
    macro_auroc,
    one_vs_rest,
)
from tests.probes.activations import categories, planted

labelled = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@given(labelled)
def test_auroc_equals_sklearn_with_ties(rows: list[tuple[int, bool]]):
    scores, y = torch.tensor([float(s) for s, _ in rows]), torch.tensor([label for _, label in rows])
    both = auroc(torch.stack([scores, -scores]), y)
    assert float(both[0]) == pytest.approx(roc_auc_score(y, scores))
    assert float(both.sum()) == pytest.approx(1)


@given(labelled)
def test_auroc_in_one_fold_is_the_plain_auroc(rows: list[tuple[int, bool]]):
    scores, y = torch.tensor([[float(s) for s, _ in rows]]), torch.tensor([label for _, label in rows])
    folds = all_rows(range(len(y)))
    single = type(folds)(folds.train, folds.train, folds.groups)
    assert float(grouped_auroc(scores, y, single, n_boot=1).value) == pytest.approx(float(auroc(scores, y)))


def test_auroc_is_unmoved_by_an_offset_between_folds():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    scores = held_out_scores(fit_logistic(X, y, folds), X, folds)
    shifted = scores + 10 * folds.test.double().argmax(0)
    torch.testing.assert_close(grouped_auroc(scores, y, folds).value, grouped_auroc(shifted, y, folds).value)


def test_the_interval_resamples_questions_not_rows():
    X, y, questions, _ = planted(questions=30, strength=1.0)
    score = X[1:2, :, 0]
    once = grouped_auroc(score, y, by_question(questions))
    copies = grouped_auroc(score.repeat(1, 4), y.repeat(4), by_question(questions * 4))
    torch.testing.assert_close(once.value, copies.value, atol=0.02, rtol=0)
    width, copied = float(once.high - once.low), float(copies.high - copies.low)
    assert copied == pytest.approx(width, rel=0.15), "copying the rows of every question must not narrow the interval"
    assert once.low < once.value < once.high
    assert (once.n, once.n_clusters, copies.n, copies.n_clusters) == (180, 30, 720, 30)
    assert once.interval(0).method == "cluster_bootstrap"


def test_the_interval_covers_the_truth_at_its_level():
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # two unit normals sqrt(2) apart
    generator, covered = torch.Generator().manual_seed(0), 0
    y = torch.arange(240) % 2 == 1
    questions = [i // 4 for i in range(240)]
    for _ in range(60):
        score = torch.randn(1, 240, generator=generator) + math.sqrt(2) * y
        result = grouped_auroc(score, y, by_question(questions, 2), n_boot=400)
        covered += int(result.low <= truth <= result.high)
    assert 51 <= covered <= 60


def test_calibration_and_accuracy_of_known_scores():
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(20_000, generator=generator, dtype=torch.float64)
    y = torch.rand(20_000, generator=generator) < scores.sigmoid()
    honest, loud = calibration(scores, y), calibration(5 * scores, y)
    assert honest.ece < 0.015
    assert loud.ece > 0.1
    assert honest.brier == pytest.approx(brier_score_loss(y, scores.sigmoid()))
    assert loud.brier > honest.brier
    assert float(accuracy(scores, y)) == pytest.approx(float(((scores > 0) == y).double().mean()))


def test_the_macro_auroc_is_sklearns_mean_over_categories():
    X, y, question, _ = categories(signal=1.0)
    folds = by_question(question.tolist(), 2)
    sides = one_vs_rest(y)
    scores = cross_validated_scores(X, sides, folds, fit_logistic)
    macro = macro_auroc(scores, sides, folds, n_boot=50)
    for layer in range(2):
        expected = []
        for c in range(4):
            right, pairs = 0.0, 0
            for test in folds.test:
                weight = int((test & sides[c]).sum()) * int((test & ~sides[c]).sum())
                right += weight * roc_auc_score(sides[c, test], scores[layer, c, test])
                pairs += weight
            expected.append(right / pairs)
        assert float(macro.value[layer]) == pytest.approx(sum(expected) / 4)


def test_the_interval_over_phrasings_resamples_phrasings():
    X, y, question, phrasing = categories(signal=1.0)
    folds, sides = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 2), one_vs_rest(y)
    scores = cross_validated_scores(X, sides, folds, fit_logistic)
    first, second = (macro_auroc(scores, sides, folds, kind=kind) for kind in (0, 1))
    torch.testing.assert_close(first.value, second.value)
    assert (first.n_clusters, second.n_clusters) == (24, 4)
    assert (first.method, second.method) == ("cluster_bootstrap", "phrasing_bootstrap")


def test_a_mean_by_group_is_the_mean_and_copies_do_not_narrow_its_interval():
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(2, 120, generator=generator) < 0.7).double()
    questions = [i // 4 for i in range(120)]
    once = grouped_mean(right, by_question(questions))
    copies = grouped_mean(right.repeat(1, 4), by_question(questions * 4))
    torch.testing.assert_close(once.value, right.mean(1))
    torch.testing.assert_close(copies.high - copies.low, once.high - once.low)
    assert (once.low < once.value).all() and (once.value < once.high).all()


def test_bad_input_is_refused():
    y = torch.tensor([True, True])
    with pytest.raises(ValueError, match="all 2 labels are True"):
        auroc(torch.zeros(2), y)
    with pytest.raises(ValueError, match="none of the 2 folds tests both classes"):
        grouped_auroc(torch.zeros(1, 2), torch.tensor([True, False]), by_question(["a", "b"], 2))
