"""From log-odds by question to shares of a gap, each with its interval over questions. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.answers.rates import estimate_row
from interp.runs.table import Row
from interp.stats import Clusters, Estimate, paired_cluster_bootstrap

N_BOOT = 2000
"""Resamples; fewer than usual, because a table has hundreds of intervals."""
ByQuestion = Mapping[str, float]


def share_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield table cells for rows of log-odds: the unedited conditions, then shares and attributions.

    There are shares only where the gap that they are shares of is above 0 beyond chance.
    """
    plain = {r["condition"]: r["m"] for r in rows if r["step"] in ("plain", "base")}
    decided = {r["condition"].removeprefix("decision "): r["m"] for r in rows if r["condition"].startswith("decision ")}
    yield from _plain(plain, rows)
    if has_gap(plain["on"], plain["off"]):
        for r in rows:
            if r["step"].startswith("patch"):
                yield from _patched(r, plain)
            elif r["step"].startswith("knockout"):
                yield _knocked_out(r, plain)
        yield from _modules([r for r in rows if r["step"] == "modules"], plain)
    if decided and has_gap(decided["on"], decided["off"]):
        yield from (cells for r in rows if r.get("metric") == "head_share" for cells in _patched(r, decided))
    yield from _attribution([r for r in rows if r.get("metric") in ("logit_attribution", "logit_lens")])


def has_gap(on: ByQuestion, off: ByQuestion) -> bool:
    """Tell whether the log-odds are higher on than off beyond chance."""
    return estimate(_difference, on, off).interval.low > 0


def estimate(statistic: Callable[..., Any], *arms: ByQuestion) -> Estimate:
    """Return a statistic of means over questions, with its interval over questions resampled jointly."""
    clusters = [Clusters.count(list(m), list(m.values()), [1.0] * len(m)) for m in arms]
    return paired_cluster_bootstrap(statistic, *clusters, n_boot=N_BOOT)


# --- statistics of means over questions ---


def _mean(a: Any) -> Any:
    return a


def _difference(a: Any, b: Any) -> Any:
    return a - b


def _closed(target: Any, patched: Any, goal: Any) -> Any:
    """The share of the way from ``target`` to ``goal`` that a patch goes."""
    return (target - patched) / (target - goal)


def _of_gap(a: Any, b: Any, on: Any, off: Any) -> Any:
    return (a - b) / (on - off)


# --- rows ---


def _row(statistic: Callable[..., Any], *arms: ByQuestion, **cells: Any) -> Row:
    value = estimate(statistic, *arms)
    return estimate_row(value, n=value.n_clusters, **cells)


def _plain(plain: Mapping[str, ByQuestion], rows: Sequence[Row]) -> Iterator[Row]:
    counts = next(r for r in rows if "lacking" in r)
    yield {"metric": "questions_left_out", "condition": "no answers of both kinds", "value": counts["lacking"]}
    yield {"metric": "questions_mixed", "condition": "misaligned on, aligned off", "value": counts["mixed"]}
    for condition, m in plain.items():
        yield _row(_mean, m, metric="log_odds", condition=condition)
    yield _row(_difference, plain["on"], plain["off"], metric="log_odds", condition="on-off")


def _where(r: Row) -> dict[str, Any]:
    return {"condition": r["condition"], "site": r["site"], "layer": r["layer"]}


def _patched(r: Row, plain: Mapping[str, ByQuestion]) -> Iterator[Row]:
    """Yield the share of a gap that the values of ``source`` close in ``target``: of on-off, or of on-matched."""
    target, _, source = r["condition"].partition("@")[0].partition("<-")
    goal = "matched" if source == "matched" else "off" if target == "on" else "on"
    if goal != "matched" or has_gap(plain["on"], plain["matched"]):
        yield _row(_closed, plain[target], r["m"], plain[goal], metric=r["metric"], **_where(r))


def _knocked_out(r: Row, plain: Mapping[str, ByQuestion]) -> Row:
    condition = r["condition"].partition("@")[0]
    return _row(_of_gap, plain[condition], r["m"], plain["on"], plain["off"], metric="knockout_share", **_where(r))


def _modules(rows: Sequence[Row], plain: Mapping[str, ByQuestion]) -> Iterator[Row]:
    """Yield the gap left by each group of modules as a share of the whole, and the log-odds on and off of groups."""
    m_of = {(r["condition"], r["layer"]): r["m"] for r in rows}
    for r in rows:
        side, _, group = r["condition"].partition(" ")
        if side != "on":
            continue
        on, off = r["m"], m_of[f"off {group}", r["layer"]]
        where = {**_where(r), "condition": group}
        yield _row(_of_gap, on, off, plain["on"], plain["off"], metric="module_gap_share", **where)
        if r["layer"] == "" or r["site"] == "layer":
            for name, m in (("on", on), ("off", off)):
                yield _row(_mean, m, metric="log_odds", **{**where, "condition": f"{name} {group}"})


def _attribution(rows: Sequence[Row]) -> Iterator[Row]:
    m_of = {(r["metric"], r["condition"], r["site"], r["layer"]): r["m"] for r in rows}
    for (metric, condition, site, layer), m in m_of.items():
        where = {"metric": metric, "site": site, "layer": layer}
        yield _row(_mean, m, condition=condition, **where)
        if condition == "on":
            yield _row(_difference, m, m_of[metric, "off", site, layer], condition="on-off", **where)
