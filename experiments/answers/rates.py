"""Table rows from judged answers: EM and coherence rates with intervals, and statistics of paired conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments.protocol import load_protocol
from interp.runs.table import Row
from interp.stats import EmStatistics, Estimate, Interval, em_statistics, is_coherent, is_misaligned

METRICS = ("em_rate", "em_rate_all", "coherence_rate")


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
    return {
        name: em_statistics(
            [r["question"] for r in group],
            [r["aligned"] for r in group],
            [r["coherent"] for r in group],
            thresholds=load_protocol().thresholds,
        )
        for name, group in groups.items()
    }


def rate_rows(s: EmStatistics, metrics: Sequence[str] = METRICS, **cells: Any) -> Iterator[Row]:
    """Yield two rows per rate: one with the Wilson interval, one with the question-cluster interval."""
    for metric in metrics:
        rate = getattr(s, metric)
        for interval in (s.wilson[metric], s.cluster[metric]):
            counts = {"n": rate.n, "n_clusters": s.n_clusters}
            yield {"metric": metric, "value": rate.value, **_interval(interval), **counts, **cells}


def estimate_row(estimate: Estimate, **cells: Any) -> Row:
    """Return the row of a paired statistic."""
    return {"value": estimate.value, **_interval(estimate.interval), "n_clusters": estimate.n_clusters, **cells}


def _interval(interval: Interval) -> Row:
    """Return the cells of an interval. If none can be given, its ends are NaN and its method is still named."""
    return {"ci_low": interval.low, "ci_high": interval.high, "ci_method": interval.method}
