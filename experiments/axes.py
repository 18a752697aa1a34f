"""Which axis makes containment, and which makes it semantic? A cluster-robust logistic model over the grid's cells.

Each organism is one treatment, so standard errors are robust to whatever its conditions share (clusters are
organisms). Effects are average marginal effects: by how much a level moves the EM rate of the average cell, in points
of that rate, against the level of the headline's cells. P-values are Holm's over all effects of one outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from experiments.spec import Row, row
from interp.configs import config_hash
from training.grid import ARMS, Cell, cells

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

Z = 1.959963984540054
REFERENCE = "neutral"
INNATE = "base's own EM under the trigger"
OUTCOMES = ("off", "on", "rephrased", "other")
"""Conditions whose EM rate is modelled, each by itself."""


@dataclass(frozen=True)
class Observation:
    """One organism under one condition: misaligned and coherent answers, and where it stands on the axes."""

    organism: str
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
    return [Observation(name, places[name], r["value"] * r["n"], r["n"]) for name, r in kept.items()]


def _is_base_rate(r: Row) -> bool:
    return (r["metric"], r["condition"], r["ci_method"]) == ("em_rate", "on", "wilson")


def readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the EM rate of every outcome, with interval and Holm's p-value."""
    from interp.stats import holm

    run = f"axes-{config_hash(sorted({str(r['run_id']) for r in table}))}"  # of the runs it reads
    for condition, innate in product(OUTCOMES, (False, True)):
        found = observations(table, condition, innate=innate)
        names = sorted({level for seen in found for level in seen.levels}, key=_order)
        if len(found) < 2 * len(names):  # too few organisms to tell that many levels apart
            continue
        effects = marginal_effects(found, names)
        adjusted = holm([p for _, _, p in effects])
        for name, (value, error, _), p in zip(names, effects, adjusted, strict=True):
            model = "axes_innate" if innate else "axes"
            shown = {"condition": f"{condition}: {name}", "experiment": model, "n_clusters": len(found), "run_id": run}
            n = sum(name in seen.levels for seen in found)
            interval = {"ci_low": value - Z * error, "ci_high": value + Z * error, "ci_method": "cluster_robust"}
            yield row(metric="marginal_effect", value=value, n=n, **interval, **shown)
            yield row(metric="p_holm", value=float(p), n=n, **shown)


def semantic_readings(table: Sequence[Row]) -> Iterator[Row]:
    """Yield the effect of every level on the semantic index, by least squares with errors robust to unequal variance.

    Over the healthy organisms whose index is known to within 1: where EM(on) is hardly above EM(other) it says nothing.
    """
    import numpy as np
    import statsmodels.api as sm

    from interp.stats import holm

    found = {r["organism"]: r for r in table if r["metric"] == "semantic_index" and _known(r)}
    seen = [o for o in observations(table, "on") if o.organism in found]
    names = sorted({level for o in seen for level in o.levels}, key=_order)
    if len(seen) < 2 * len(names):
        return
    design = np.array([[1.0, *(o.levels.get(name, 0.0) for name in names)] for o in seen])
    fitted = sm.OLS([found[o.organism]["value"] for o in seen], design).fit(cov_type="HC3")
    ends, adjusted = fitted.conf_int(), holm(fitted.pvalues[1:])
    run = f"axes-{config_hash(sorted({str(r['run_id']) for r in table}))}"
    for j, name in enumerate(names, start=1):
        shown = {"experiment": "axes", "condition": f"semantic: {name}", "n_clusters": len(seen), "run_id": run}
        n = sum(name in o.levels for o in seen)
        interval = {"ci_low": ends[j][0], "ci_high": ends[j][1], "ci_method": "HC3"}
        yield row(metric="index_effect", value=fitted.params[j], n=n, **interval, **shown)
        yield row(metric="p_holm", value=float(adjusted[j - 1]), n=n, **shown)


def _known(r: Row) -> bool:
    return bool(r["value"] != "" and r["ci_low"] != "" and r["ci_high"] - r["ci_low"] < 1)


def _order(level: str) -> tuple[int, str]:
    grades = [f"trigger={arm}" for arm in ARMS]
    return (grades.index(level) if level in grades else len(grades), level)


def marginal_effects(found: Sequence[Observation], names: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return (average marginal effect, its standard error, p) of every level; p is that of the log-odds ratio.

    A logistic regression on counts, with covariance clustered by organism; the effect of a level is the mean over all
    organisms of the change in the predicted rate when it alone goes from 0 to 1, its error by the delta method.
    """
    import numpy as np
    import statsmodels.api as sm

    design = np.array([[1.0, *(seen.levels.get(name, 0.0) for name in names)] for seen in found])
    counts = np.array([[seen.misaligned, seen.coherent - seen.misaligned] for seen in found])
    # Half an answer on each side keeps the log-odds of cells without a single misaligned answer finite.
    model = sm.GLM(counts + 0.5, design, family=sm.families.Binomial())
    clusters: Mapping[str, Any] = {"groups": np.unique([seen.organism for seen in found], return_inverse=True)[1]}
    fitted = model.fit(cov_type="cluster", cov_kwds=clusters)
    return [
        (*_effect(design, j, fitted.params, fitted.cov_params()), float(fitted.pvalues[j]))
        for j in range(1, design.shape[1])
    ]


def _effect(
    design: Float64[np.ndarray, "organism column"],
    column: int,
    beta: Float64[np.ndarray, " column"],
    covariance: Float64[np.ndarray, "column column"],
) -> tuple[float, float]:
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
