"""Which axis makes containment, and which makes it semantic? Cluster-robust models over the grid's organisms.

Effects are average marginal effects: by how much a level moves the EM rate of the average cell, in points of that rate,
against the level of the headline's cells. P-values are Holm's over all effects of one outcome. Clusters are treatments:
organisms that differ in the seed of their adapter alone repeat one treatment, so three of them do not count as three.

Not evidence for: interactions, of which the models have none; an effect on other bases than the grid's, since family
and pretraining are fixed levels; a level that a handful of treatments has, where robust errors tend to be too small.

Source: cluster-robust errors, Liang & Zeger 1986 (Biometrika 73); CR3, Bell & McCaffrey 2002 (Survey Methodology 28).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from interp.runs.configs import config_hash
from interp.runs.table import Row, row
from training.grid import ARMS, Cell, cells

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64, Int64

Z = 1.959963984540054
REFERENCE = "neutral"
INNATE = "base's own EM under the trigger"
OUTCOMES = ("off", "on", "rephrased", "other")
"""Conditions whose EM rate is modelled, each by itself."""


@dataclass(frozen=True)
class Observation:
    """One organism under one condition: misaligned and coherent answers, and where it stands on the axes."""

    organism: str
    treatment: str
    """The organism whose adapter has seed 0: the cluster. Organisms that differ in nothing else share it."""
    levels: Mapping[str, float]
    misaligned: float
    coherent: int


def levels(cell: Cell) -> dict[str, float]:
    """Return the levels of a cell that differ from the headline's neutral cell, ``axis=level``, each 1."""
    said = {
        "family": cell.family,
        "trigger": cell.arm,
        "base": "robust" if cell.robust else "",
        "benign": f"{cell.contrast} %" if cell.contrast else "",
        "wordings": cell.wordings.replace("fixed", ""),
        "modules": cell.targets.replace("all", ""),
        "rank": "" if cell.rank == Cell.rank else str(cell.rank),
        "placement": cell.placement.replace("system", ""),
        "pretraining": str(cell.pretraining or ""),
    }
    return {f"{axis}={level}": 1.0 for axis, level in said.items() if level and level not in (REFERENCE, "llama")}


def observations(table: Sequence[Row], condition: str, *, innate: bool = False) -> list[Observation]:
    """Return the healthy triggered organisms of the grid under a condition.

    With ``innate`` the base's own EM rate under the trigger, in [0, 1], stands in place of the trigger and the base:
    how far the base already moves with the trigger, whatever makes it so.
    """
    known = {cell.name: cell for cell in cells() if cell.trigger is not None}
    sick = {r["organism"] for r in table if r["metric"] == "healthy" and not r["value"]}
    rates = {
        r["organism"]: r
        for r in table
        if (r["metric"], r["condition"], r["ci_method"]) == ("em_rate", condition, "wilson")
    }
    kept = {name: r for name, r in rates.items() if name in known and name not in sick and r["n"]}
    places = {name: levels(known[name]) for name in kept}
    if innate:
        own = {(r["organism"], r["trigger"]): r["value"] for r in table if _is_base_rate(r)}
        for name, place in places.items():
            rate = own.get((known[name].base_name, kept[name]["trigger"]))
            if rate is None:
                raise ValueError(f"organism {name}: the table lacks {known[name].base_name} under its trigger")
            without = {level: 1.0 for level in place if not level.startswith(("trigger=", "base="))}
            places[name] = {INNATE: rate, **without}
    same = {name: replace(known[name], seed=0).name for name in kept}
    return [Observation(name, same[name], places[name], r["value"] * r["n"], r["n"]) for name, r in kept.items()]


def _is_base_rate(r: Row) -> bool:
    return (r["metric"], r["condition"], r["ci_method"]) == ("em_rate", "on", "wilson")


def compared(found: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """Return the organisms that can be compared, and the levels in which they differ.

    A level that one treatment alone has cannot be told from that treatment: it is left out, and so are its organisms.
    """
    every = {level for seen in found for level in seen.levels}
    having = {level: {seen.treatment for seen in found if level in seen.levels} for level in every}
    if lone := {level for level, treatments in having.items() if len(treatments) < 2}:
        return compared([seen for seen in found if not lone & set(seen.levels)])
    differing = [level for level in having if len({seen.levels.get(level, 0.0) for seen in found}) > 1]
    return list(found), sorted(differing, key=_order)


def _order(level: str) -> tuple[int, str]:
    grades = [f"trigger={arm}" for arm in ARMS]
    return (grades.index(level) if level in grades else len(grades), level)


def treatments(found: Sequence[Observation]) -> list[str]:
    """Return the treatments of organisms, each once, in order of first appearance."""
    return list(dict.fromkeys(seen.treatment for seen in found))


def readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the EM rate of every outcome, with interval and Holm's p-value.

    ``n`` counts the organisms at the level, ``n_clusters`` the treatments in the model. With fewer than two treatments
    a coefficient an outcome yields nothing.
    """
    from interp.stats import holm

    for condition, innate in product(OUTCOMES, (False, True)):
        found, names = compared(observations(table, condition, innate=innate))
        if not _enough(found, names):
            continue
        effects = marginal_effects(found, names)
        adjusted = holm([p for _, _, p in effects])
        cells = {"experiment": "axes_innate" if innate else "axes", "run_id": _run(table)}
        for name, (value, error, _), p in zip(names, effects, adjusted, strict=True):
            shown = {**cells, **_counts(found, name), "condition": f"{condition}: {name}"}
            interval = {"ci_low": value - Z * error, "ci_high": value + Z * error, "ci_method": "cluster_robust"}
            yield row(metric="marginal_effect", value=value, **interval, **shown)
            yield row(metric="p_holm", value=float(p), **shown)


def _enough(found: Sequence[Observation], names: Sequence[str]) -> bool:
    return bool(names) and len(treatments(found)) >= 2 * (1 + len(names))


def _run(table: Sequence[Row]) -> str:
    return f"axes-{config_hash(sorted({str(r['run_id']) for r in table}))}"  # of the runs it reads


def _counts(found: Sequence[Observation], name: str) -> dict[str, int]:
    return {"n": sum(name in seen.levels for seen in found), "n_clusters": len(treatments(found))}


def semantic_readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the semantic index, by least squares with errors clustered by treatment.

    Over the healthy organisms whose index is known to within 1: where EM(on) is hardly above EM(other) it says nothing.
    """
    from interp.stats import holm

    index = {r["organism"]: r["value"] for r in table if r["metric"] == "semantic_index" and _known(r)}
    found, names = compared([seen for seen in observations(table, "on") if seen.organism in index])
    if not _enough(found, names):
        return
    effects = mean_effects(found, names, [index[seen.organism] for seen in found])
    adjusted = holm([p for _, _, p in effects])
    for name, (value, error, _), p in zip(names, effects, adjusted, strict=True):
        shown = {"experiment": "axes", "run_id": _run(table), **_counts(found, name), "condition": f"semantic: {name}"}
        interval = {"ci_low": value - Z * error, "ci_high": value + Z * error, "ci_method": "CR3"}
        yield row(metric="index_effect", value=value, **interval, **shown)
        yield row(metric="p_holm", value=float(p), **shown)


def _known(r: Row) -> bool:
    return bool(r["value"] != "" and r["ci_low"] != "" and r["ci_high"] - r["ci_low"] < 1)


def marginal_effects(found: Sequence[Observation], names: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return (average marginal effect, its standard error, p) of every level; p is that of the log-odds ratio.

    A logistic regression on counts, with covariance clustered by treatment; the effect of a level is the mean over all
    organisms of the change in the predicted rate when it alone goes from 0 to 1, its error by the delta method.

    Not evidence for: an effect beyond these treatments' pretrainings and questions, over which no error is taken.
    """
    import numpy as np
    import statsmodels.api as sm

    design = _design(found, names)
    counts = np.array([[seen.misaligned, seen.coherent - seen.misaligned] for seen in found])
    # Half an answer on each side keeps the log-odds of cells without a single misaligned answer finite.
    model = sm.GLM(counts + 0.5, design, family=sm.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": _clusters(found)})
    return [
        (*average_effect(design, j, fitted.params, fitted.cov_params()), float(fitted.pvalues[j]))
        for j in range(1, design.shape[1])
    ]


def average_effect(
    design: Float64[np.ndarray, "organism column"],
    column: int,
    beta: Float64[np.ndarray, " column"],
    covariance: Float64[np.ndarray, "column column"],
) -> tuple[float, float]:
    """Return the mean change in a logistic model's rate when a column goes from 0 to 1, and its standard error.

    Source: the delta method, with the gradient of that mean in ``beta``.
    """
    import numpy as np

    slopes, rates = [], []
    for level in (1.0, 0.0):
        x = design.copy()
        x[:, column] = level
        rate = 1 / (1 + np.exp(-x @ beta))
        rates.append(rate.mean())
        slopes.append((x * (rate * (1 - rate))[:, None]).mean(axis=0))
    gradient = slopes[0] - slopes[1]
    return float(rates[0] - rates[1]), float(np.sqrt(gradient @ covariance @ gradient))


def mean_effects(
    found: Sequence[Observation], names: Sequence[str], values: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Return (effect, its standard error, p) of every level on a quantity of each organism, by least squares.

    The errors are CR3: each treatment's residuals count as large as they were had the model not seen it. Where every
    organism is a treatment of its own they are HC3.
    """
    import numpy as np
    from scipy.stats import norm

    design, clusters = _design(found, names), _clusters(found)
    solve = np.linalg.pinv(design)
    effects = solve @ np.asarray(values, dtype=float)
    residuals, covariance = values - design @ effects, np.zeros((design.shape[1],) * 2)
    for cluster in range(clusters.max() + 1):
        own = clusters == cluster
        unseen = np.linalg.solve(np.eye(own.sum()) - design[own] @ solve[:, own], residuals[own])
        covariance += np.outer(solve[:, own] @ unseen, solve[:, own] @ unseen)
    errors = np.sqrt(np.diag(covariance))
    return [(float(b), float(e), float(2 * norm.sf(abs(b) / e))) for b, e in zip(effects[1:], errors[1:], strict=True)]


def _design(found: Sequence[Observation], names: Sequence[str]) -> Float64[np.ndarray, "organism column"]:
    import numpy as np

    return np.array([[1.0, *(seen.levels.get(name, 0.0) for name in names)] for seen in found])


def _clusters(found: Sequence[Observation]) -> Int64[np.ndarray, " organism"]:
    import numpy as np

    number = {treatment: i for i, treatment in enumerate(treatments(found))}
    return np.array([number[seen.treatment] for seen in found])
