"""A measurement against one peer, and the table of all measurements."""

import csv
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from interp.runs.files import atomic_write_text, csv_text

COLUMNS = ("case", "ours", "peer", "peer_name", "ratio", "unit", "threads", "dtype", "machine")
LESS_IS_BETTER = ("MB",)
BY_HAND = ("sorted by length", "plain file")
"""Marks of peers that are not a library: a loop tuned by hand, a bare file."""
RESULTS = ("EM rate", "cosine")
"""Units of results, not speeds: ``ours`` is in bfloat16, ``peer`` in float32."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Two measurements of one case in the same unit. Both sides use ``dtype``, unless ``peer_name`` names another."""

    case: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    dtype: str
    threads: int = 1

    @property
    def ratio(self) -> float:
        """How many times better ours is; below 1 it is worse. For ``RESULTS``, 1 means no change."""
        if self.ours == self.peer or not self.peer:
            return 1.0 if self.ours == self.peer else math.inf
        return self.peer / self.ours if self.unit in LESS_IS_BETTER else self.ours / self.peer

    def cells(self) -> dict[str, Any]:
        """Return the cells by column name."""
        return {name: processor() if name == "machine" else getattr(self, name) for name in COLUMNS}


@cache
def processor() -> str:
    """Describe the machine without its name: processors, instruction set, torch version."""
    vectors = torch.backends.cpu.get_cpu_capability()
    return f"{os.cpu_count()} CPUs {platform.machine()} {vectors}; torch {torch.__version__}"


def write(cells: Iterable[Mapping[str, Any]], path: Path, *, machine: str | None = None) -> None:
    """Write the table as CSV; ``machine`` replaces the processor where an accelerator did the work."""
    path.parent.mkdir(parents=True, exist_ok=True)
    other = {} if machine is None else {"machine": machine}
    atomic_write_text(path, csv_text({**row, **other} for row in cells))


def renewed(path: Path, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """Return the table at ``path`` with the rows of the same case, dtype and peer replaced; new rows come last."""
    key = itemgetter("case", "dtype", "peer_name")
    new = {key(row.cells()): row.cells() for row in rows}
    updated = [new.pop(key(row), row) for row in (read(path) if path.exists() else [])]
    return [*updated, *new.values()]


def as_text(rows: Sequence[Row], *, machine: str | None = None) -> str:
    """Return the table for a terminal."""
    header = ("case", "dtype", "ours", "peer", "unit", "ratio", "peer")
    cells = [
        (row.case, row.dtype, f"{row.ours:,.4g}", f"{row.peer:,.4g}", row.unit, f"{row.ratio:.2f}", row.peer_name)
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (header, *cells)
    ]
    return "\n".join(line.rstrip() for line in [*lines, "", f"{machine or processor()}; ratio > 1: ours is better"])


def read(path: Path) -> list[dict[str, str]]:
    """Read a table that ``write`` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the table as Markdown, with only the strongest peer per case and pair of dtypes: that of the lowest ratio.

    Peers tuned by hand (``BY_HAND``) have lines of their own. Rows with a ratio below 1 stay.
    """
    best: dict[tuple[str, ...], Mapping[str, str]] = {}
    for row in rows:
        marks = [name for name in ("float32", "bfloat16", *BY_HAND) if name in row["peer_name"]]
        key = (row["case"], row["dtype"], *marks)
        if key not in best or float(row["ratio"]) < float(best[key]["ratio"]):
            best[key] = row
    lines = [
        f"| {row['case']} | {row['dtype']} | {_number(row['ours'])} | {_number(row['peer'])} | {row['unit']} "
        f"| {float(row['ratio']):.2f} | {row['peer_name']} |"
        for row in best.values()
    ]
    head = ["| case | dtype | ours | strongest peer | unit | ratio | peer |", "|---|---|---:|---:|---|---:|---|"]
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    return "\n".join([*head, *lines, "", f"Ratio > 1: ours is better. One thread unless stated otherwise. {machines}."])


def _number(text: str) -> str:
    return f"{float(text):,.4g}"
