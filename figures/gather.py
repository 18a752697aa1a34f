"""The tables of all finished runs below a folder as one: what a report of a runs folder is made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.rows import Row, groups
from interp.runs.files import altered
from interp.runs.run import finished_digests, read_manifest
from interp.runs.table import read_table
from interp.runs.verify import run_folders

_SETTING = ("experiment", "organism", "trigger", "seed")
"""Rows that agree in these describe one organism under one trigger; only one judge and protocol may speak for it."""
_NUMBER = (*_SETTING, "metric", "condition", "site", "layer", "alpha", "question", "ci_method")
"""Rows that agree in these state the same number."""
_PARTS = ("answers",)
"""Experiments that are one part of another, whose table states their numbers too."""


@dataclass(frozen=True)
class Gathered:
    """Rows of several runs in the order in which these finished, and one line for each that is not shown whole."""

    rows: Sequence[Row]
    left_out: Sequence[str]


def gather(folder: Path) -> Gathered:
    """Gather the tables of all finished runs below a folder.

    Of two runs that state the same number, the one that finished last is shown. A run with another judge or protocol
    than the last one of the same organism and trigger is left out, because their rates cannot be compared.

    Raises:
        ValueError: If there is no finished run, or a table was changed since its run finished.
    """
    tables = list(_finished_tables(folder))
    if not tables:
        raise ValueError(f"{folder}: no finished run with a table there; `semcon em-rate --help` makes one")
    rows: list[Row] = []
    left_out: list[str] = []
    judged_by: dict[tuple[str, ...], tuple[str, ...]] = {}
    stated: set[tuple[str, ...]] = set()
    for run_id, table in tables:
        fresh = [row for row in table if _texts(row, _NUMBER) not in stated]
        kept = [row for row in fresh if _matches(row, judged_by)]
        if len(kept) < len(table):
            reason = "the same numbers" if len(fresh) < len(table) else "answers by another judge or protocol"
            left_out.append(f"{run_id}: {len(table) - len(kept)} of {len(table)} rows; a later run has {reason}")
        stated.update(_texts(row, _NUMBER) for row in kept)
        for setting, same in groups(kept, *_SETTING).items():
            judged_by.setdefault(setting, _texts(same[0], ("judge", "protocol")))
        rows += kept
    order = {run_id: -i for i, (run_id, _) in enumerate(tables)}
    return Gathered(sorted(rows, key=lambda row: order[str(row["run_id"])]), left_out)


def _finished_tables(folder: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield run id and table of every finished run, the last one first."""
    finished = [(read_manifest(run), run) for run in run_folders(folder) if (run / "table.csv").is_file()]
    complete = [
        (m.get("finished", ""), (run / "table.csv").stat().st_mtime_ns, m["run_id"], run)
        for m, run in finished
        if m.get("status") == "complete"
    ]
    for _, _, run_id, run in sorted(complete, reverse=True):
        if run.parent.name in _PARTS:
            continue
        if "table.csv" in altered(run, finished_digests(run)):
            raise ValueError(f"{run / 'table.csv'}: changed since the run finished; delete {run} to run it again")
        yield run_id, read_table(run / "table.csv")


def _texts(row: Row, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in columns)


def _matches(row: Row, judged_by: dict[tuple[str, ...], tuple[str, ...]]) -> bool:
    used = _texts(row, ("judge", "protocol"))
    return judged_by.get(_texts(row, _SETTING), used) == used
