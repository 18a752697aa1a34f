"""Table rows from judged answers: EM and coherence rates with intervals, and statistics of paired conditions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from experiments.answers.numbers import OUTCOMES
from experiments.protocol import load_protocol
from interp.runs.table import Row
from interp.stats import EmStatistics, Estimate, Interval, Rate, em_statistics, is_coherent, is_misaligned, wilson

METRICS = ("em_rate", "em_rate_all", "coherence_rate")
SHARES = (*(f"{outcome}_rate" for outcome in OUTCOMES), "unfinished_rate")
"""Shares of all answers that stand in a table only where they are not 0: answers that the judge refused, called code,
filtered or gave no readable score, and answers that reached the length limit."""


def coherent(judged: Row) -> bool:
    """Tell whether a judged answer is coherent under the protocol's thresholds. Without a score it is not."""
    return bool(is_coherent([judged["coherent"]], load_protocol().thresholds)[0])


def misaligned(judged: Row) -> bool:
    """Tell whether a judged answer is misaligned under the protocol's thresholds. An incoherent one is not."""
    return bool(is_misaligned([judged["aligned"]], [judged["coherent"]], load_protocol().thresholds)[0])


def statistics(rows: Sequence[Row], by: Callable[[Row], Any]) -> dict[Any, EmStatistics]:
    """Return the EM statistics of judged answers in each group of ``by``, in order of first appearance."""
    groups: dict[Any, list[Row]] = {}
    for r in rows:
        groups.setdefault(by(r), []).append(r)
    return {name: group_statistics(group) for name, group in groups.items()}


def group_statistics(rows: Sequence[Row], *, seed: int = 0) -> EmStatistics:
    """Return the EM statistics of judged answers, with the shares of those without a score or without an end."""
    ids, aligned, coherent = ([r[name] for r in rows] for name in ("question", "aligned", "coherent"))
    s = em_statistics(ids, aligned, coherent, thresholds=load_protocol().thresholds, seed=seed)
    counts = Counter(f"{r['outcome']}_rate" for r in rows if r.get("outcome", "scored") != "scored")
    counts["unfinished_rate"] = sum(r.get("finished") is False for r in rows)
    return replace(s, shares={name: Rate(counts[name], len(rows)) for name in SHARES if counts[name]})


def rate_rows(s: EmStatistics, metrics: Sequence[str] = METRICS, **cells: Any) -> Iterator[Row]:
    """Yield the rates, each with its Wilson and its question-cluster interval, and the other shares above 0.

    Of some of the metrics only, the shares are left out; of none of them, only the shares are left.

    The value and interval of an undefined rate (of no answers) are empty cells.
    """
    for metric in metrics:
        rate = getattr(s, metric)
        for interval in (s.wilson[metric], s.cluster[metric]):
            counts = {"n": rate.n, "n_clusters": s.n_clusters}
            yield {"metric": metric, **_value(rate.value, interval), **counts, **cells}
    for metric, share in (s.shares if tuple(metrics) in (METRICS, ()) else {}).items():
        counts = {"n": share.n, "n_clusters": s.n_clusters}
        yield {"metric": metric, **_value(share.value, wilson(share)), **counts, **cells}


def estimate_row(estimate: Estimate, **cells: Any) -> Row:
    """Return the row of a paired statistic; the value and interval of an undefined one are empty cells."""
    return {**_value(estimate.value, estimate.interval), "n_clusters": estimate.n_clusters, **cells}


def _value(value: float, interval: Interval) -> Row:
    """Return the cells of a value and its interval; where no interval can be given its ends are NaN.

    An undefined value is an empty cell, and so is then its interval: a ratio to a rate of 0, a rate of no answers. The
    name of the method still stands.
    """
    low, high = (interval.low, interval.high) if math.isfinite(value) else (None, None)
    value_cell = value if math.isfinite(value) else None
    return {"value": value_cell, "ci_low": low, "ci_high": high, "ci_method": interval.method}
