"""LDA equals scikit-learn's; the mean difference is the difference of means."""

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from probes import by_question, fit_lda, fit_mean_difference
from tests.probes.activations import planted


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_lda_equals_sklearn(shrinkage: float):
    X, y, questions, _ = planted(strength=1.0)
    y = torch.arange(len(y)) % 3 == 1
    folds = by_question(questions, 3)
    probe = fit_lda(X, y, folds, shrinkage=shrinkage)
    for fold in range(3):
        train = folds.train[fold].numpy()
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(X[1, train], y[train])
        np.testing.assert_allclose(probe.scores(X)[1, fold], model.decision_function(X[1]), rtol=1e-6, atol=1e-8)


def test_automatic_shrinkage_is_ledoit_wolf():
    from sklearn.covariance import ledoit_wolf

    X, y, _, _ = planted(strength=1.0, width=40)
    residuals = X.clone()
    for side in (y, ~y):
        residuals[:, side] -= residuals[:, side].mean(1, keepdim=True)
    for layer in range(2):
        _, shrinkage = ledoit_wolf(residuals[layer].numpy(), assume_centered=True)
        expected = fit_lda(X[layer : layer + 1], y, shrinkage=float(shrinkage))
        torch.testing.assert_close(fit_lda(X, y)[layer].weight, expected.weight[0])


def test_mean_difference_is_the_difference_of_the_means_and_zero_between_them():
    X, y, questions, _ = planted()
    folds = by_question(questions)
    probe = fit_mean_difference(X, y, folds)
    for fold in range(5):
        train = folds.train[fold]
        positive, negative = X[:, train & y].mean(1), X[:, train & ~y].mean(1)
        torch.testing.assert_close(probe.weight[:, fold], positive - negative)
        middle = probe.scores((positive + negative)[:, None] / 2)
        torch.testing.assert_close(middle[:, fold, 0], torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
