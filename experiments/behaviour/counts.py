"""Counts of judged answers by question: what every interval of a rate is made of.

A table of rates has pooled numbers alone. Beside it stand the counts of misaligned, coherent and all answers to every
question, from which anyone can make the intervals again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.answers.rates import coherent, misaligned
from experiments.spec import Experiment, run_experiment
from interp.runs.files import atomic_write_bytes, csv_text, gzipped
from interp.runs.reading import read_columns
from interp.runs.table import Row
from interp.stats import Clusters

COLUMNS = ("run_id", "organism", "condition", "dose", "question", "misaligned", "coherent", "answers")
RATES = {
    "em_rate": ("misaligned", "coherent"),
    "em_rate_all": ("misaligned", "answers"),
    "coherence_rate": ("coherent", "answers"),
}
"""Numerator and denominator of every rate."""


def counted(rows: Iterable[Row], **cells: Any) -> list[dict[str, Any]]:
    """Count the judged answers of a run by condition, dose and question, in order of first appearance.

    A condition under an edit is named as in tables: ``on+clamp_trigger``.
    """
    counts: dict[tuple[str, Any, str], list[int]] = {}
    for r in rows:
        if "text" in r:
            condition = f"{r['condition']}+{r['edit']}" if r.get("edit") else r["condition"]
            group = counts.setdefault((condition, r.get("dose", ""), r["question"]), [0, 0, 0])
            for i, hit in enumerate((misaligned(r), coherent(r), True)):
                group[i] += hit
    return [dict(zip(COLUMNS, (*cells.values(), *key, *group), strict=True)) for key, group in counts.items()]


def write_counts(path: Path, experiments: Sequence[Experiment], root: Path) -> None:
    """Write the counts of finished experiments, compressed; runs without judged answers add nothing."""

    def lines() -> Iterator[dict[str, Any]]:
        for experiment in experiments:
            run, table = run_experiment(experiment, root)
            yield from counted(run.rows(), run_id=run.run_id, organism=table[0]["organism"])

    atomic_write_bytes(path, gzipped(csv_text(lines()).encode()))


def read_counts(path: Path) -> dict[tuple[str, str, str], list[Mapping[str, str]]]:
    """Read counts by (run id, condition, dose): one line per question.

    Raises:
        ValueError: If the file has other columns.
    """
    lines = read_columns(path, COLUMNS, "table of counts")
    groups: dict[tuple[str, str, str], list[Mapping[str, str]]] = {}
    for _, cells in lines:
        groups.setdefault((cells["run_id"], cells["condition"], cells["dose"]), []).append(cells)
    return groups


def clusters(lines: Sequence[Mapping[str, str]], metric: str) -> Clusters:
    """Return the counts of a rate by question, as the intervals take them."""
    top, bottom = RATES[metric]
    columns = ([float(line[c]) for line in lines] for c in (top, bottom))
    return Clusters.count([line["question"] for line in lines], *columns)
