"""Read a log of Inspect, with every reason why it is none of the EM protocol."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from inspect_ai.log import EvalLog, read_eval_log

from experiments.inspecting.records import Facts, read_facts, row_of
from interp.runs.table import Row


def read_log(path: Path) -> EvalLog:
    """Read a log of Inspect whole.

    Raises:
        ValueError: If it is no log, or its evaluation did not end.
    """
    try:
        log = read_eval_log(str(path))
    except Exception as error:  # what a damaged archive or a strange JSON raises depends on the format
        raise ValueError(f"{path}: not a log of Inspect ({type(error).__name__})") from error
    if log.status != "success":
        raise ValueError(f"{path}: its evaluation did not end ({log.status}); `inspect eval-retry {path}` goes on")
    return log


def facts_in(log: EvalLog, path: Path) -> Facts:
    """Return what the log says beside its samples.

    Raises:
        ValueError: If it is none of the EM protocol; names the file.
    """
    try:
        return read_facts(log)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rows_in(log: EvalLog, path: Path) -> list[Row]:
    """Return the judged answers in a log, in the order of its data set.

    Raises:
        ValueError: If an answer has no score, stands twice, is left out, or was sampled in several epochs; names the
            file.
    """
    samples = log.samples or []
    if not samples or any(sample.epoch != 1 for sample in samples):
        many = "several epochs, in which `semcon/em` repeats its answers; -T samples=N draws more"
        raise ValueError(f"{path}: {many if samples else 'no samples in it'}")
    order = {str(name): i for i, name in enumerate(log.eval.dataset.sample_ids or [])}
    try:
        rows = [row_of(sample) for sample in sorted(samples, key=lambda s: order.get(str(s.id), len(order)))]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    twice, n = [key for key, times in Counter(row["key"] for row in rows).items() if times > 1], len(samples)
    stated = log.results.total_samples if log.results else n
    if twice or stated != n:
        raise ValueError(
            f"{path}: {f'answer {twice[0]!r} stands twice' if twice else f'{n} of {stated} samples in it'}"
        )
    return rows
