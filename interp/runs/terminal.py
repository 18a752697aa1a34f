"""Tables for a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_ALWAYS = ("metric", "condition", "value", "ci_low", "ci_high", "ci_method")
_NEVER = ("run_id", "protocol")


def aligned_text(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return lines of cells as aligned columns, the first ``left`` flush left; the first line is the heading."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in [padded[0], "─" * len(padded[0]), *padded[1:]])


def table_text(rows: Sequence[Mapping[str, Any]], limit: int = 60) -> str:
    """Return a results table as text: cells that all rows share in a heading, then the columns in which rows differ."""
    columns = [c for c in rows[0] if c not in _NEVER and any(row[c] != "" for row in rows)]
    shared = [c for c in columns if c not in _ALWAYS and len({row[c] for row in rows}) == 1]
    varying = sorted((c for c in columns if c not in shared), key=lambda c: c == "value" or c.startswith("ci_"))
    lines = [varying, *([_cell(row[c], c) for c in varying] for row in rows[:limit])]
    left = sum(not any(isinstance(row[c], int | float) for row in rows) for c in varying)
    heading = "  ".join(f"{c}={_cell(rows[0][c], c)}" for c in shared)
    more = f"\n… and {len(rows) - limit} rows more" if len(rows) > limit else ""
    return f"{heading}\n{aligned_text(lines, left)}{more}".lstrip("\n")


def _cell(value: Any, column: str) -> str:
    if (column == "value" and value == "") or (isinstance(value, float) and not math.isfinite(value)):
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
