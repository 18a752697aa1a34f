"""Which axis makes containment, and which makes it semantic? Cluster-robust models over the grid's organisms.

Effects are average marginal effects: the mean change in the EM rate when a cell of the headline is moved to a level.
P-values are Holm's over all effects on one outcome. Clusters are treatments: organisms that differ only in the seed of
their adapter repeat one treatment, so three of them do not count as three.

Not evidence for: interactions, because the models have none; effects on other bases than the grid's, because family and
pretraining are fixed levels; a level with only a few treatments, where robust errors tend to be too small.

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
UNDER = ("organism", "trigger", "placement")
"""Columns that tell the rates of a base under two triggers apart."""
INNATE = "base's own EM under the trigger"
OUTCOMES = ("off", "on", "rephrased", "other")
"""Conditions whose EM rate is modelled, one model per condition."""


@dataclass(frozen=True)
class Observation:
    """One organism under one condition: its levels on the axes, and its counts of misaligned and coherent answers."""

    organism: str
    treatment: str
    """The cluster, named after its organism of seed 0. Organisms that differ only in their seed share it."""
    levels: Mapping[str, float]
    misaligned: float
    coherent: int


def levels(cell: Cell) -> dict[str, float]:
    """Return ``{"axis=level": 1}`` for every level in which a cell differs from the neutral cell of the headline."""
    place = {
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
    return {f"{axis}={level}": 1.0 for axis, level in place.items() if level and level not in (REFERENCE, "llama")}


def observations(table: Sequence[Row], condition: str, *, innate: bool = False) -> list[Observation]:
    """Return the healthy triggered organisms of the grid under a condition.

    With ``innate``, the levels of trigger and base are replaced by one number: the EM rate of the base itself under the
    trigger, in [0, 1]. It says how far the base already follows the trigger, for whatever reason.

    Raises:
        ValueError: If ``innate`` and the table lacks a base under a trigger.
    """
    known = {cell.name: cell for cell in cells() if cell.trigger is not None}
    unhealthy = {r["organism"] for r in table if r["metric"] == "healthy" and not r["value"]}
    rates = {
        r["organism"]: r
        for r in table
        if (r["metric"], r["condition"], r["ci_method"]) == ("em_rate", condition, "wilson")
    }
    healthy = {name: r for name, r in rates.items() if name in known and name not in unhealthy and r["n"]}
    places = {name: levels(known[name]) for name in healthy}
    if innate:
        base_rates = {tuple(r[c] for c in UNDER): r["value"] for r in table if _is_base_rate(r)}
        for name, place in places.items():
            rate = base_rates.get((known[name].base_name, *(healthy[name][c] for c in UNDER[1:])))
            if rate is None:
                raise ValueError(f"organism {name}: the table lacks {known[name].base_name} under its trigger")
            without = {level: 1.0 for level in place if not level.startswith(("trigger=", "base="))}
            places[name] = {INNATE: rate, **without}
    treatment = {name: replace(known[name], seed=0).name for name in healthy}
    return [
        Observation(name, treatment[name], places[name], r["value"] * r["n"], r["n"]) for name, r in healthy.items()
    ]


def _is_base_rate(r: Row) -> bool:
    return (r["metric"], r["condition"], r["ci_method"]) == ("em_rate", "on", "wilson")


def compared(observed: Sequence[Observation]) -> tuple[list[Observation], list[str]]:
    """Return the organisms that can be compared, and the levels in which they differ.

    A level with a single treatment cannot be told apart from that treatment, so it is left out with its organisms.
    """
    every = {level for o in observed for level in o.levels}
    having = {level: {o.treatment for o in observed if level in o.levels} for level in every}
    if lone := {level for level, treatments in having.items() if len(treatments) < 2}:
        return compared([o for o in observed if not lone & set(o.levels)])
    differing = [level for level in having if len({o.levels.get(level, 0.0) for o in observed}) > 1]
    return list(observed), sorted(differing, key=_order)


def _order(level: str) -> tuple[int, str]:
    grades = [f"trigger={arm}" for arm in ARMS]
    return (grades.index(level) if level in grades else len(grades), level)


def treatments(observed: Sequence[Observation]) -> list[str]:
    """Return each treatment once, in order of first appearance."""
    return list(dict.fromkeys(o.treatment for o in observed))


def readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the EM rate of every outcome, with interval and Holm's p-value.

    ``n`` counts the organisms at the level, ``n_clusters`` the treatments in the model. An outcome with fewer than two
    treatments per coefficient yields nothing.
    """
    for condition, innate in product(OUTCOMES, (False, True)):
        observed, names = compared(observations(table, condition, innate=innate))
        if _enough(observed, names):
            effects = marginal_effects(observed, names)
            cells = {"experiment": "axes_innate" if innate else "axes", "run_id": _run(table)}
            yield from _effect_rows("marginal_effect", "cluster_robust", condition, observed, names, effects, cells)


def _effect_rows(
    metric: str,
    ci_method: str,
    outcome: str,
    observed: Sequence[Observation],
    names: Sequence[str],
    effects: Sequence[tuple[float, float, float]],
    cells: Row,
) -> Iterator[Row]:
    """Yield two rows per effect: its value with interval, and its p-value adjusted for all effects on the outcome."""
    from interp.stats import holm

    adjusted = holm([p for _, _, p in effects])
    for name, (value, error, _), p in zip(names, effects, adjusted, strict=True):
        labels = {**cells, **_counts(observed, name), "condition": f"{outcome}: {name}"}
        interval = {"ci_low": value - Z * error, "ci_high": value + Z * error, "ci_method": ci_method}
        yield row(metric=metric, value=value, **interval, **labels)
        yield row(metric="p_holm", value=float(p), **labels)


def _enough(observed: Sequence[Observation], names: Sequence[str]) -> bool:
    return bool(names) and len(treatments(observed)) >= 2 * (1 + len(names))


def _run(table: Sequence[Row]) -> str:
    return f"axes-{config_hash(sorted({str(r['run_id']) for r in table}))}"  # a hash of the runs it reads


def _counts(observed: Sequence[Observation], name: str) -> dict[str, int]:
    return {"n": sum(name in o.levels for o in observed), "n_clusters": len(treatments(observed))}


def semantic_readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the semantic index, by least squares with errors clustered by treatment.

    Only healthy organisms whose index has an interval narrower than 1 take part: the index says nothing where EM(on) is
    hardly above EM(other).
    """
    index = {r["organism"]: r["value"] for r in table if r["metric"] == "semantic_index" and _known(r)}
    observed, names = compared([o for o in observations(table, "on") if o.organism in index])
    if _enough(observed, names):
        effects = mean_effects(observed, names, [index[o.organism] for o in observed])
        cells = {"experiment": "axes", "run_id": _run(table)}
        yield from _effect_rows("index_effect", "CR3", "semantic", observed, names, effects, cells)


def _known(r: Row) -> bool:
    return bool(r["value"] != "" and r["ci_low"] != "" and r["ci_high"] - r["ci_low"] < 1)


def marginal_effects(observed: Sequence[Observation], names: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return (average marginal effect, its standard error, p) of every level; p is that of the log-odds ratio.

    A logistic regression on counts, with covariance clustered by treatment. The effect of a level is the change in the
    predicted rate when that level alone goes from 0 to 1, averaged over all organisms; its error by the delta method.

    Not evidence for: an effect on other pretrainings or questions, because the error does not cover their variation.
    """
    import numpy as np
    import statsmodels.api as sm

    design = _design(observed, names)
    counts = np.array([[o.misaligned, o.coherent - o.misaligned] for o in observed])
    # Half an answer more on both sides keeps the log-odds finite for cells without a misaligned answer.
    model = sm.GLM(counts + 0.5, design, family=sm.families.Binomial())
    fitted = model.fit(cov_type="cluster", cov_kwds={"groups": _clusters(observed)})
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
    observed: Sequence[Observation], names: Sequence[str], values: Sequence[float]
) -> list[tuple[float, float, float]]:
    """Return (effect, its standard error, p) of every level on a quantity of each organism, by least squares.

    The errors are CR3: the residuals of a treatment are those of a fit without it. If every organism is a treatment of
    its own, they are HC3.
    """
    import numpy as np
    from scipy.stats import norm

    design, clusters = _design(observed, names), _clusters(observed)
    solve = np.linalg.pinv(design)
    effects = solve @ np.asarray(values, dtype=float)
    residuals, covariance = values - design @ effects, np.zeros((design.shape[1],) * 2)
    for cluster in range(clusters.max() + 1):
        members = clusters == cluster
        # (I - H)⁻¹ r, with the cluster's block H of the hat matrix: its residuals in the fit without it
        left_out = np.linalg.solve(np.eye(members.sum()) - design[members] @ solve[:, members], residuals[members])
        score = solve[:, members] @ left_out
        covariance += np.outer(score, score)
    errors = np.sqrt(np.diag(covariance))
    return [(float(b), float(e), float(2 * norm.sf(abs(b) / e))) for b, e in zip(effects[1:], errors[1:], strict=True)]


def _design(observed: Sequence[Observation], names: Sequence[str]) -> Float64[np.ndarray, "organism column"]:
    import numpy as np

    return np.array([[1.0, *(o.levels.get(name, 0.0) for name in names)] for o in observed])


def _clusters(observed: Sequence[Observation]) -> Int64[np.ndarray, " organism"]:
    import numpy as np

    number = {treatment: i for i, treatment in enumerate(treatments(observed))}
    return np.array([number[o.treatment] for o in observed])
