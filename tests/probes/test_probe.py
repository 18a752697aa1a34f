"""Every fit recovers planted directions and depends neither on held-out rows nor on what it is batched with."""

from collections.abc import Callable

import pytest
import torch

from probes import Folds, Probe, all_rows, by_question, fit_lda, fit_logistic, fit_mean_difference, fit_ridge
from tests.probes.activations import planted

FITS = [fit_logistic, fit_mean_difference, fit_lda]


@pytest.mark.parametrize("fit", FITS)
def test_a_planted_direction_is_recovered(fit: Callable[..., Probe]):
    X, y, _, directions = planted(questions=800, width=8, strength=1.0)
    isotropic = (X - X.mean(1, keepdim=True)) / torch.arange(1, 9).double() ** -0.7
    planted_direction = directions[1] * torch.arange(1, 9).double() ** 0.7
    direction = fit(isotropic, y).direction[1]
    assert torch.cosine_similarity(direction, planted_direction, dim=0) > 0.99


@pytest.mark.parametrize("fit", FITS)
def test_held_out_rows_do_not_move_a_fit(fit: Callable[..., Probe]):
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    moved = X.clone()
    moved[:, folds.test[0]] = 3 * moved[:, folds.test[0]] + 7
    kwargs = {"tolerance": 1e-9} if fit is fit_logistic else {}
    one, two = fit(X, y, folds, **kwargs), fit(moved, y ^ folds.test[0], folds, **kwargs)
    for name in ("weight", "bias", "mean", "scale"):
        torch.testing.assert_close(getattr(one, name)[:, 0], getattr(two, name)[:, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
def test_layers_and_folds_do_not_influence_each_other(fit: Callable[..., Probe]):
    X, y, questions, _ = planted(layers=3, strength=1.0)
    folds = by_question(questions)
    kwargs = {"tolerance": 1e-9} if fit is fit_logistic else {}
    together = fit(X, y, folds, **kwargs)
    one = Folds(folds.train[2:3], folds.test[2:3], folds.groups)
    alone = fit(X[1:2], y, one, **kwargs)
    torch.testing.assert_close(together.weight[1, 2], alone.weight[0, 0], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(together.bias[1, 2], alone.bias[0, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
def test_labels_may_differ_by_fold(fit: Callable[..., Probe]):
    X, y, questions, _ = planted(strength=1.0)
    one = all_rows(questions)
    both = Folds(one.train.repeat(2, 1), one.test.repeat(2, 1), one.groups)
    kwargs = {"tolerance": 1e-9} if fit is fit_logistic else {}
    probe = fit(X, torch.stack([y, ~y]), both, **kwargs)
    torch.testing.assert_close(probe.weight[:, 0], -probe.weight[:, 1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(probe.weight[:, 0], fit(X, y, **kwargs).weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fit", [fit_logistic, fit_lda])
def test_a_fit_does_not_depend_on_the_scale_and_offset_of_a_logistic_feature(fit: Callable[..., Probe]):
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    kwargs = {"tolerance": 1e-9} if fit is fit_logistic else {"shrinkage": 0.0}
    scale = torch.logspace(-3, 3, X.shape[2], dtype=torch.float64)
    one, two = fit(X, y, folds, **kwargs).scores(X), fit(scale * X - 9, y, folds, **kwargs).scores(scale * X - 9)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_features_constant_in_a_fold_get_no_weight(fit: Callable[..., Probe], dtype: torch.dtype):
    X, y, questions, _ = planted(strength=1.0)
    folds = by_question(questions)
    rare = torch.zeros(len(y), dtype=torch.float64)
    rare[folds.test[0].nonzero()[0]] = 1
    X = torch.cat([X, rare.expand(2, -1)[..., None], torch.full((2, len(y), 1), 5.0, dtype=torch.float64)], 2)
    probe = fit(X.to(dtype), y, folds)
    assert probe.weight[:, 0, -2].abs().max() == 0
    assert probe.weight[..., -1].abs().max() == 0
    assert probe.weight.isfinite().all()


def test_bad_input_is_refused_by_name():
    X, y, questions, _ = planted()
    folds = by_question(questions)
    with pytest.raises(ValueError, match="expected \\(layer, n, d\\) and n booleans"):
        fit_logistic(X, y.long(), folds)
    with pytest.raises(ValueError, match="fold 0: the 96 training rows have one class only"):
        fit_lda(X, torch.zeros_like(y), folds)
    broken = X.clone()
    broken[1, 3, 3] = torch.inf
    with pytest.raises(ValueError, match="X: layer 1 has values that are not finite"):
        fit_mean_difference(broken, y, folds)
    with pytest.raises(ValueError, match=r"l2s=\(0.0,\): expected positive penalties"):
        fit_logistic(X, y, folds, l2=0.0)
    with pytest.raises(ValueError, match="shrinkage=2"):
        fit_lda(X, y, folds, shrinkage=2)
    with pytest.raises(ValueError, match="the probe has shape"):
        fit_lda(X, y, folds).scores(X[:1])
