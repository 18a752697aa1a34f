"""Logistic regression equals scikit-learn's at every penalty; the nested choice is the best held-out log-loss."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from probes import L2S, by_question, by_question_and_phrasing, fit_logistic, fit_logistic_nested, fit_logistic_path
from tests.probes.activations import planted


def sklearn_logistic(x: np.ndarray, y: np.ndarray, l2: float) -> tuple[StandardScaler, LogisticRegression]:
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10, max_iter=500)
    return scaler, model.fit(scaler.transform(x), y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("l2", [0.01, 1.0, 100.0])
def test_logistic_equals_sklearn(l2: float, dtype: torch.dtype):
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions, 4)
    probe = fit_logistic(X.to(dtype), y, folds, l2=l2, tolerance=1e-4)
    scores = probe.scores(X.to(dtype))
    for layer in range(2):
        for fold in range(4):
            train, test = folds.train[fold].numpy(), folds.test[fold].numpy()
            scaler, model = sklearn_logistic(X[layer, train].numpy(), y[train].numpy(), l2)
            np.testing.assert_allclose(probe.weight[layer, fold], model.coef_[0], atol=1e-3 * abs(model.coef_).max())
            np.testing.assert_allclose(probe.bias[layer, fold], np.ravel(model.intercept_)[0], atol=1e-3)
            theirs = model.decision_function(scaler.transform(X[layer].numpy()))
            np.testing.assert_allclose(scores[layer, fold], theirs, atol=1e-3 * abs(theirs).max())
            ours = roc_auc_score(y[test], scores[layer, fold, test])
            assert abs(ours - roc_auc_score(y[test], theirs[test])) <= 0.002


def test_the_default_tolerance_moves_no_auroc():
    X, y, questions, _ = planted(questions=60, rows=10, width=128, strength=0.7)
    folds = by_question(questions)
    for l2 in (0.01, 1.0):
        rough = fit_logistic(X.float(), y, folds, l2=l2).scores(X.float())
        exact = fit_logistic(X, y, folds, l2=l2, tolerance=1e-7).scores(X)
        for fold in range(5):
            test = folds.test[fold]
            for layer in range(2):
                one, two = (roc_auc_score(y[test], s[layer, fold, test]) for s in (rough, exact))
                assert abs(one - two) < 0.001


def test_the_gradient_is_zero_at_the_solution():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    probe = fit_logistic(X, y, folds, l2=2.0, tolerance=1e-8)
    for fold in range(5):
        train = folds.train[fold]
        z = (X[1, train] - probe.mean[1, fold]) / probe.scale[1, fold]
        residual = (z @ probe.weight[1, fold] + probe.bias[1, fold]).sigmoid() - y[train].double()
        torch.testing.assert_close(z.T @ residual, -2.0 * probe.weight[1, fold], atol=1e-6, rtol=0)
        torch.testing.assert_close(residual.sum(), residual.new_zeros(()), atol=1e-6, rtol=0)


def test_the_path_holds_the_single_fits_in_the_given_order():
    X, y, questions, _ = planted(strength=1.0)
    folds, l2s = by_question(questions), (1.0, 100.0, 0.1)
    path = fit_logistic_path(X, y, folds, l2s=l2s, tolerance=1e-7)
    for i, l2 in enumerate(l2s):
        single = fit_logistic(X, y, folds, l2=l2, tolerance=1e-7)
        torch.testing.assert_close(path[i].weight, single.weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(path[i].l2, torch.full((2, 5), l2, dtype=torch.float64))
    assert path[1].weight.norm() < path[0].weight.norm() < path[2].weight.norm()


def test_separable_rows_are_solved_at_a_weak_penalty():
    X, y, questions, _ = planted(strength=50.0)
    probe = fit_logistic(X, y, by_question(questions), l2=1e-6)
    assert probe.weight.isfinite().all()
    assert ((probe.scores(X)[1] > 0) == y).all()


def test_large_means_cost_no_accuracy_in_float32():
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    far = (X + 3000).float()
    exact = fit_logistic(far.double(), y, folds, tolerance=1e-6).scores(far.double())
    torch.testing.assert_close(
        fit_logistic(far, y, folds, tolerance=1e-4).scores(far).double(), exact, atol=0.01, rtol=0.01
    )


def test_the_nested_choice_is_the_best_held_out_log_loss():
    X, y, questions, _ = planted(questions=24, width=24, strength=0.8)
    folds, l2s = by_question(questions, 3), (0.1, 10.0, 1000.0)
    probe = fit_logistic_nested(X, y, folds, l2s=l2s, n_inner=3, tolerance=1e-6)
    for layer in range(2):
        for fold in range(3):
            losses = []
            for l2 in l2s:
                inner = folds.inner(fold, 3)
                scores = fit_logistic(X[layer : layer + 1], y, inner, l2=l2, tolerance=1e-6).scores(
                    X[layer : layer + 1]
                )[0]
                loss = torch.nn.functional.softplus(scores * (1 - 2 * y.double()))
                losses.append(float((loss * inner.test).sum()))
            best = l2s[int(np.argmin(losses))]
            assert probe.l2 is not None
            assert float(probe.l2[layer, fold]) == pytest.approx(best)
            single = fit_logistic(X, y, folds, l2=best, tolerance=1e-8)
            torch.testing.assert_close(probe.weight[layer, fold], single.weight[layer, fold], rtol=1e-3, atol=1e-4)


def test_the_nested_choice_never_sees_the_test_rows():
    X, y, questions, _ = planted(strength=1.0)
    phrasings = [i % 6 // 2 for i in range(len(y))]
    folds = by_question_and_phrasing(questions, phrasings, 3)
    moved = X.clone()
    moved[:, folds.test[0]] += 100
    one, two = (fit_logistic_nested(x, y, folds, l2s=L2S[::2], n_inner=2, tolerance=1e-7) for x in (X, moved))
    torch.testing.assert_close(one.weight[:, 0], two.weight[:, 0], rtol=1e-3, atol=1e-4)
    assert one.l2 is not None and two.l2 is not None
    assert torch.equal(one.l2[:, 0], two.l2[:, 0])
