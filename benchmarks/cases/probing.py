"""Fit logistic probes for every layer and fold, against scikit-learn's loop over them with the same objective.

Twice: at one penalty, and with the penalty chosen in every fold by grouped folds of its training rows. scikit-learn
fits layer by layer, so its fits per second are measured on a few layers.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import Entrant, race
from probes import L2S, Folds, auroc, by_question, fit_logistic, fit_logistic_nested, held_out_scores

L2 = 1.0
ROWS_PER_QUESTION = 4
INNER = 4
TOLERANCE = 0.002
"""Largest accepted difference between held-out AUROCs."""
SOLVERS = ("lbfgs", "newton-cholesky")


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    layers, n, width = size.probe
    X, y = _activations(layers, n, width)
    folds = by_question([row // ROWS_PER_QUESTION for row in range(len(y))], size.folds)
    few = X[: size.probe_share]
    shape = f"{layers} layers x {len(folds)} folds x {n} x {width}"
    share = "" if len(few) == layers else f", {len(few)} of the layers"
    one = {f"scikit-learn LogisticRegression({s}) loop{share}": partial(_fixed, solver=s) for s in SOLVERS}
    nested = {f"scikit-learn LogisticRegressionCV({s}) loop{share}": partial(_chosen, solver=s) for s in SOLVERS[:1]}
    cases = {
        f"probe, {shape}": (partial(fit_logistic, l2=L2), one),
        f"probe, {len(L2S)} penalties by {INNER} inner folds, {shape}": (
            partial(fit_logistic_nested, n_inner=INNER),
            nested,
        ),
    }
    for case, (fit, peers) in cases.items():
        entrants: dict[str, Entrant] = {name: partial(_loop, few, y, folds, peer) for name, peer in peers.items()}
        entrants["ours"] = lambda fit=fit: held_out_scores(fit(X, y, folds), X, folds)
        seconds = race(entrants, size.rounds, check=partial(_check, y, folds))
        for name in peers:
            ours, peer = layers * len(folds) / seconds["ours"], len(few) * len(folds) / seconds[name]
            yield Row(case=case, ours=ours, peer=peer, peer_name=name, unit="fits/s", dtype="float32")


def _activations(layers: int, n: int, width: int) -> tuple[Tensor, Tensor]:
    """Make features, correlated as in residual streams, that predict the label in part (AUROC about 0.8)."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 2 == 0
    spectrum = torch.arange(1, width + 1) ** -0.5
    mix = torch.linalg.qr(torch.randn(layers, width, width, generator=draw)).Q * spectrum[:, None]
    signal = torch.nn.functional.normalize(torch.randn(layers, 1, width, generator=draw), dim=-1)
    noise = torch.randn(layers, n, width, generator=draw)
    return (noise + 2 * y[:, None] * signal) @ mix, y


def _loop(X: Tensor, y: Tensor, folds: Folds, make: Callable[[Folds, int], Any]) -> Tensor:
    """Return the held-out score of every row: standardise, fit and score, layer by layer and fold by fold."""
    from sklearn.preprocessing import StandardScaler

    scores = torch.empty(X.shape[:2])
    for layer, x in enumerate(X.numpy()):
        for fold, (train, test) in enumerate(zip(folds.train.numpy(), folds.test.numpy(), strict=True)):
            scaler = StandardScaler().fit(x[train])
            model = make(folds, fold).fit(scaler.transform(x[train]), y[train].numpy())
            scores[layer, test] = torch.from_numpy(model.decision_function(scaler.transform(x[test]))).float()
    return scores


def _fixed(folds: Folds, fold: int, *, solver: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / L2, solver=solver, max_iter=1000)


def _chosen(folds: Folds, fold: int, *, solver: Any) -> Any:
    """Return scikit-learn's model that chooses among the penalties on the same inner folds."""
    from sklearn.linear_model import LogisticRegressionCV

    inner, rows = folds.inner(fold, INNER), folds.train[fold]
    cv = [
        (train[rows].nonzero()[:, 0].numpy(), test[rows].nonzero()[:, 0].numpy())
        for train, test in zip(inner.train, inner.test, strict=True)
    ]
    options: Any = {"Cs": [1 / l2 for l2 in L2S], "l1_ratios": (0.0,), "use_legacy_attributes": False}
    return LogisticRegressionCV(cv=cv, scoring="neg_log_loss", solver=solver, max_iter=1000, **options)


def _check(y: Tensor, folds: Folds, scores: dict[str, Tensor]) -> None:
    """Compare the mean held-out AUROC of every layer that both sides fitted."""
    aurocs = {
        name: torch.stack([auroc(values[:, test], y[test]) for test in folds.test]).mean(0)
        for name, values in scores.items()
    }
    for name, values in aurocs.items():
        difference = float((values - aurocs["ours"][: len(values)]).abs().max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"probe: an AUROC of {name} differs from ours by {difference:.4f}")
