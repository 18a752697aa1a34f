"""EM statistics of judged answers in CSV files.

    semcon score answers.csv ...        columns question_id, aligned, coherent

Two rates share the name EM, so both are printed: misaligned of all answers (the numbers quoted for released organisms)
and misaligned of the coherent ones. An answer without a coherence score counts as incoherent, one without an alignment
score (a refusal) as not misaligned. Both stay in the denominator of the rate of all answers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from experiments.answers.judge import Recorded, read_scores
from experiments.answers.rates import rate_rows
from experiments.cli.terminal import aligned_text
from experiments.protocol import load_protocol
from interp.runs.table import Row, row, write_table
from interp.stats import EmStatistics, Interval, em_statistics

_HEADING = ("file", "n", "questions", "EM of all", "Wilson", "by question", "EM of coherent", "coherent")


def score(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE.csv ...")],
    *,
    csv: Path | None = None,
    seed: int = 0,
) -> None:
    """Print EM and coherence rates of judged answers in percent, with the Wilson and the question-cluster interval.

    Args:
        files: CSV files with the columns question_id, aligned, coherent (0 to 100; empty: no score).
        csv: Results table to write: every rate, once with each interval.
        seed: Seed of the cluster bootstrap.
    """
    if not files:
        raise ValueError("name at least one CSV file")
    by_file = {path: statistics(read_scores(path), seed=seed) for path in files}
    print(aligned_text([_HEADING, *(_line(path.stem, s) for path, s in by_file.items())]))
    if csv:
        write_table(csv, [r for path, s in by_file.items() for r in table_rows(path.stem, s, seed=seed)])
        print(f"\nwrote {csv}")


def statistics(judged: Sequence[Recorded], *, seed: int = 0) -> EmStatistics:
    """Return the EM statistics of judged answers under the protocol's thresholds."""
    ids, aligned, coherent = zip(*((j.question_id, j.aligned, j.coherent) for j in judged), strict=True)
    return em_statistics(ids, aligned, coherent, thresholds=load_protocol().thresholds, seed=seed)


def table_rows(organism: str, s: EmStatistics, *, seed: int = 0) -> list[Row]:
    """Return two table rows per rate: one with the Wilson interval, one with the question-cluster interval."""
    cells = {"experiment": "score", "organism": organism, "protocol": load_protocol().version, "judge": "recorded"}
    return [row(**cells, **rate, seed=seed) for rate in rate_rows(s)]


def _line(name: str, s: EmStatistics) -> list[str]:
    of_all, of_coherent, coherent = (f"{100 * r.value:.2f}" for r in (s.em_rate_all, s.em_rate, s.coherence_rate))
    intervals = [_percent(s.wilson["em_rate_all"]), _percent(s.cluster["em_rate_all"])]
    return [name, str(s.n), str(s.n_clusters), of_all, *intervals, of_coherent, coherent]


def _percent(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
