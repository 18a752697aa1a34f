"""Ridge equals scikit-learn's, in both forms, at every penalty; the nested choice is the best held-out error."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.preprocessing import StandardScaler

from probes import (
    Folds,
    by_question,
    by_question_and_phrasing,
    cross_validated_auroc,
    fit_lda,
    fit_logistic,
    fit_mean_difference,
    fit_ridge,
    fit_ridge_nested,
    fit_ridge_path,
)
from tests.probes.activations import planted


@pytest.mark.parametrize(("width", "l2"), [(16, 0.01), (16, 1.0), (16, 100.0), (150, 1.0), (150, 1e4)])
def test_ridge_equals_sklearn_with_fewer_and_with_more_features_than_rows(width: int, l2: float):
    X, y, questions, _ = planted(strength=1.0, width=width)
    folds = by_question(questions, 4)
    probe = fit_ridge(X, y, folds, l2=l2)
    scores = probe.scores(X)
    for layer in range(2):
        for fold in range(4):
            train = folds.train[fold].numpy()
            scaler = StandardScaler().fit(X[layer, train].numpy())
            z, signs = scaler.transform(X[layer].numpy()), 2.0 * y.numpy() - 1
            model, classifier = Ridge(alpha=l2), RidgeClassifier(alpha=l2)
            model.fit(z[train], signs[train])
            classifier.fit(z[train], y[train].numpy())
            np.testing.assert_allclose(probe.weight[layer, fold], model.coef_, atol=1e-4 * np.abs(model.coef_).max())
            np.testing.assert_allclose(probe.bias[layer, fold], model.intercept_, atol=1e-4)
            np.testing.assert_allclose(scores[layer, fold], model.predict(z), atol=1e-4)
            np.testing.assert_allclose(scores[layer, fold], classifier.decision_function(z), atol=1e-4)


@pytest.mark.parametrize("width", [16, 150])
def test_float32_gives_the_scores_of_float64(width: int):
    X, y, questions, _ = planted(strength=1.0, width=width)
    folds = by_question(questions)
    exact = fit_ridge(X, y, folds).scores(X)
    torch.testing.assert_close(fit_ridge(X.float(), y, folds).scores(X.float()).double(), exact, atol=2e-3, rtol=1e-3)


def test_a_path_is_each_penalty_alone_and_stronger_penalties_give_shorter_weights():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question_and_phrasing(questions, [i % 6 for i in range(len(y))], 3)
    l2s = (0.1, 10.0, 1000.0)
    path = fit_ridge_path(X, y, folds, l2s=l2s)
    for i, l2 in enumerate(l2s):
        alone = fit_ridge(X, y, folds, l2=l2)
        torch.testing.assert_close(path[i].weight, alone.weight)
        torch.testing.assert_close(path[i].bias, alone.bias)
    assert (path.weight.norm(dim=-1).diff(dim=0) < 0).all()


def test_the_gradient_is_zero_at_the_solution():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    probe = fit_ridge(X, y, folds, l2=3.0)
    for fold, train in enumerate(folds.train):
        z = (X[1, train] - probe.mean[1, fold]) / probe.scale[1, fold]
        residual = z @ probe.weight[1, fold] + probe.bias[1, fold] - (2 * y[train].double() - 1)
        torch.testing.assert_close(residual @ z, -3 * probe.weight[1, fold], atol=1e-8, rtol=1e-8)
        assert abs(float(residual.sum())) < 1e-8


def test_permuted_labels_on_the_same_rows_are_fitted_as_if_alone():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    labels = torch.stack([y, ~y, y.roll(1)])
    both = Folds(folds.train.repeat(3, 1), folds.test.repeat(3, 1), folds.groups)
    together = fit_ridge(X, labels.repeat_interleave(5, 0), both)
    for i in range(3):
        alone = fit_ridge(X, labels[i], folds)
        torch.testing.assert_close(together.weight[:, 5 * i : 5 * i + 5], alone.weight)


def test_held_out_rows_do_not_move_a_fit():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    moved = X.clone()
    moved[:, folds.test[0]] = 3 * moved[:, folds.test[0]] + 7
    one, two = fit_ridge(X, y, folds), fit_ridge(moved, y ^ folds.test[0], folds)
    torch.testing.assert_close(one.direction[:, 0], two.direction[:, 0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(one.scores(X)[:, 0], two.scores(X)[:, 0], rtol=1e-6, atol=1e-6)


def test_the_nested_choice_is_the_smallest_held_out_squared_error():
    X, y, questions, _ = planted(questions=24, width=24, strength=0.8)
    folds, l2s = by_question(questions, 3), (0.1, 30.0, 1000.0)
    probe = fit_ridge_nested(X, y, folds, l2s=l2s, n_inner=3)
    assert probe.l2 is not None
    for layer in range(2):
        for fold in range(3):
            inner, errors = folds.inner(fold, 3), []
            for l2 in l2s:
                scores = fit_ridge(X[layer : layer + 1], y, inner, l2=l2).scores(X[layer : layer + 1])[0]
                errors.append(float(((scores - (2 * y.double() - 1)).square() * inner.test).sum()))
            best = l2s[int(np.argmin(errors))]
            assert float(probe.l2[layer, fold]) == pytest.approx(best)
            single = fit_ridge(X, y, folds, l2=best)
            torch.testing.assert_close(probe.weight[layer, fold], single.weight[layer, fold])


def test_a_singular_problem_is_solved_in_float32():
    X, y, questions, _ = planted(strength=1.0)
    twice = torch.cat([X, X, X], 2).float()
    probe = fit_ridge(twice, y, by_question(questions), l2=1e-6)
    assert probe.weight.isfinite().all()
    assert cross_validated_auroc(twice, y, by_question(questions), fit=fit_ridge).value[1] > 0.5


@pytest.mark.parametrize("fit", [fit_ridge, fit_lda, fit_logistic, fit_mean_difference])
def test_rows_that_are_all_alike_score_alike(fit):
    _, y, questions, _ = planted()
    X = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(1, len(y), 16)
    scores = cross_validated_auroc(X, y, by_question(questions), fit=fit)
    assert float(scores.value) == 0.5


def test_a_penalty_that_is_not_positive_is_refused():
    X, y, questions, _ = planted()
    with pytest.raises(ValueError, match=r"l2s=\(0.0,\): expected positive penalties"):
        fit_ridge(X, y, by_question(questions), l2=0.0)
