"""From log-odds by question to shares of a gap, each with its interval over questions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from interp.runs.table import Row
from interp.stats import Clusters, Estimate, paired_cluster_bootstrap

N_BOOT = 2000
"""Resamples: a table has hundreds of intervals."""
BY_QUESTION = Mapping[str, float]


def share_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield table cells for rows of log-odds: the unedited conditions, then shares and attributions.

    Shares stand only where the gap they are of is above 0 beyond chance.
    """
    plain = {r["condition"]: r["m"] for r in rows if r["part"] == "plain"}
    parted = {r["condition"].removeprefix("decision "): r["m"] for r in rows if r["condition"].startswith("decision ")}
    yield from _plain(plain, rows)
    if has_gap(plain["on"], plain["off"]):
        for r in rows:
            if r["part"].startswith("patch"):
                yield from _patched(r, plain)
            elif r["part"].startswith("knockout"):
                yield _knocked(r, plain)
        yield from _modules([r for r in rows if r["part"] == "modules"], plain)
    if parted and has_gap(parted["on"], parted["off"]):
        yield from (shown for r in rows if r.get("metric") == "head_share" for shown in _patched(r, parted))
    yield from _attribution([r for r in rows if r.get("metric") in ("logit_attribution", "logit_lens")])


def has_gap(on: BY_QUESTION, off: BY_QUESTION) -> bool:
    """Tell whether the log-odds are higher on than off beyond chance."""
    return estimate(lambda a, b: a - b, on, off).interval.low > 0


def estimate(statistic: Callable[..., Any], *arms: BY_QUESTION) -> Estimate:
    """Return a statistic of means over questions, with its interval over questions resampled jointly."""
    clusters = [Clusters.count(list(m), list(m.values()), [1.0] * len(m)) for m in arms]
    return paired_cluster_bootstrap(statistic, *clusters, n_boot=N_BOOT)


def _cells(found: Estimate, **cells: Any) -> Row:
    ends = {"ci_low": found.interval.low, "ci_high": found.interval.high, "ci_method": found.interval.method}
    return {"value": found.value, **ends, "n": found.n_clusters, "n_clusters": found.n_clusters, **cells}


def _plain(plain: Mapping[str, BY_QUESTION], rows: Sequence[Row]) -> Iterator[Row]:
    first = next(r for r in rows if "lacking" in r)
    yield {"metric": "questions_left_out", "condition": "no answers of both kinds", "value": first["lacking"]}
    yield {"metric": "questions_mixed", "condition": "misaligned on, aligned off", "value": first["mixed"]}
    for condition, m in plain.items():
        yield _cells(estimate(lambda a: a, m), metric="log_odds", condition=condition)
    yield _cells(estimate(lambda a, b: a - b, plain["on"], plain["off"]), metric="log_odds", condition="on-off")


def _where(r: Row) -> dict[str, Any]:
    return {"condition": r["condition"], "site": r["site"], "layer": r["layer"]}


def _patched(r: Row, plain: Mapping[str, BY_QUESTION]) -> Iterator[Row]:
    """Share of the gap that the values of ``source`` close in ``target``: of on-off, or of on-matched."""
    target, _, source = r["condition"].partition("@")[0].partition("<-")
    goal = "matched" if source == "matched" else "off" if target == "on" else "on"
    if goal == "matched" and not has_gap(plain["on"], plain["matched"]):
        return
    found = estimate(_closed, plain[target], r["m"], plain[goal])
    yield _cells(found, metric=r["metric"], **_where(r))


def _closed(target: Any, patched: Any, goal: Any) -> Any:
    return (target - patched) / (target - goal)


def _knocked(r: Row, plain: Mapping[str, BY_QUESTION]) -> Row:
    condition = r["condition"].partition("@")[0]
    arms = (plain[condition], r["m"], plain["on"], plain["off"])
    return _cells(estimate(lambda a, b, on, off: (a - b) / (on - off), *arms), metric="knockout_share", **_where(r))


def _modules(rows: Sequence[Row], plain: Mapping[str, BY_QUESTION]) -> Iterator[Row]:
    """Yield the gap left by each group of modules as a share of the whole, and the log-odds on and off of groups."""
    by = {(r["condition"], r["layer"]): r for r in rows}
    for (condition, layer), r in by.items():
        side, _, said = condition.partition(" ")
        if side != "on":
            continue
        on, off = r["m"], by[f"off {said}", layer]["m"]
        arms = (on, off, plain["on"], plain["off"])
        where = {"condition": said, "site": r["site"], "layer": layer}
        found = estimate(lambda a, b, c, d: (a - b) / (c - d), *arms)
        yield _cells(found, metric="module_gap_share", **where)
        if layer == "" or r["site"] == "layer":
            for name, m in (("on", on), ("off", off)):
                yield _cells(estimate(lambda a: a, m), metric="log_odds", **{**where, "condition": f"{name} {said}"})


def _attribution(rows: Sequence[Row]) -> Iterator[Row]:
    by = {(r["metric"], r["condition"], r["site"], r["layer"]): r["m"] for r in rows}
    for (metric, condition, site, layer), m in by.items():
        where = {"metric": metric, "site": site, "layer": layer}
        yield _cells(estimate(lambda a: a, m), condition=condition, **where)
        if condition == "on":
            found = estimate(lambda a, b: a - b, m, by[metric, "off", site, layer])
            yield _cells(found, condition="on-off", **where)
