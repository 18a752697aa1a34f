"""The results table that every experiment writes and every figure reads: columns, types, reader and writer."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.runs.checks import check_known
from interp.runs.files import atomic_write_bytes, csv_text, gzipped
from interp.runs.reading import read_csv, refuse
from interp.stats import Interval

Row = dict[str, Any]

TABLE_COLUMNS = (
    *("experiment", "organism", "family", "trigger", "condition", "site", "layer", "alpha", "question", "metric"),
    *("value", "ci_low", "ci_high", "ci_method", "n", "n_clusters", "protocol", "judge", "seed", "run_id"),
    *("placement", "dose", "base_value"),
)
LATER = TABLE_COLUMNS[-3:]
"""Columns that not every table file has: where the trigger stood, the adapter's training steps, and the base's own
value under the same trigger at the same placement. A file without them is read with empty cells, and a table in which
all cells of one are empty is written without it."""
INTEGERS = frozenset({"layer", "n", "n_clusters", "seed", "dose"})
FLOATS = frozenset({"alpha", "value", "ci_low", "ci_high", "base_value"})
SHARES = ("_rate", "auroc", "accuracy")
"""How the names of metrics end that lie in [0, 1]."""
_STATED = ("value", "ci_low", "ci_high", "ci_method", "n", "n_clusters", "base_value", "judge", "protocol", "run_id")
"""Columns that say how large a number is and where it comes from; the others say which number it is."""


def row(**cells: Any) -> Row:
    """Return a table row: all columns in order, missing cells empty, numbers as numbers.

    Raises:
        ValueError: If a cell's name is not a column, a value is not a number where one is expected, or a text has
            several lines.
    """
    for name in cells:
        check_known(name, TABLE_COLUMNS, f"table column {name!r}: the columns are")
    return {column: _cell(column, cells.get(column, "")) for column in TABLE_COLUMNS}


def _cell(column: str, value: Any) -> Any:
    if value is None or value == "":
        return ""
    try:
        if column in FLOATS:
            return float(value)
        if column in INTEGERS:
            return _whole(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"table column {column!r}: {value!r} is not a number") from error
    if any(character < " " for character in str(value)):
        raise ValueError(f"table column {column!r}: {value!r} is more than one line of text")
    return str(value)


def _whole(value: Any) -> int:
    if not math.isfinite(float(value)) or float(value) != int(float(value)):
        raise ValueError(f"{value!r} is not a whole number")
    return int(float(value))


def interval_cells(interval: Interval) -> Row:
    """Return the cells of a confidence interval; none if its ends are not finite (too few clusters for one)."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return {}
    return {"ci_low": float(interval.low), "ci_high": float(interval.high), "ci_method": interval.method}


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table, compressed if the name ends in ``.gz``.

    The same rows give the same bytes, and a table that is read and written again is the same file.
    """
    whole = [row(**r) for r in rows]
    empty = {column for column in LATER if all(r[column] == "" for r in whole)}
    columns = [column for column in TABLE_COLUMNS if column not in empty]
    data = (csv_text({c: r[c] for c in columns} for r in whole) or ",".join(columns) + "\n").encode()
    atomic_write_bytes(path, gzipped(data) if Path(path).suffix == ".gz" else data)


def read_table(path: str | Path, *, rows_required: bool = False) -> list[Row]:
    """Read a table, compressed or not: numbers as numbers, empty cells as "".

    Args:
        path: The file; decompressed if its name ends in ``.gz``.
        rows_required: Refuse a table that has a header and no rows, and rows that no experiment writes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has other columns, or a cell is not of its column's type; if ``rows_required``, also if it has
            no rows, or one stands twice, states another value for the number of an earlier one, has a value that is not
            a number, a count below 0, a rate outside [0, 1] or an interval that ends below its start.
    """
    columns, rows = read_csv(path)
    if columns != tuple(column for column in TABLE_COLUMNS if column in columns or column not in LATER):
        missing = ", ".join(column for column in TABLE_COLUMNS if column not in (*columns, *LATER))
        raise ValueError(
            f"{path}: not a results table; its columns are {', '.join(columns) or 'none'}"
            + (f"; it lacks {missing}" if missing else "; want exactly those of TABLE_COLUMNS, in their order")
        )
    if rows_required and not rows:
        raise ValueError(f"{path}: the table has a header and no rows")
    read = [_read_row(cells, where) for where, cells in rows]
    if rows_required and (faults := list(_impossible([where.removeprefix(str(path)) for where, _ in rows], read))):
        refuse(path, faults)
    return read


def _impossible(places: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    seen: dict[tuple[Any, ...], str] = {}
    values: dict[tuple[Any, ...], tuple[str, Any]] = {}
    for place, r in zip(places, rows, strict=True):
        first = seen.setdefault(tuple(r.values()), place)
        earlier, value = values.setdefault(tuple(r[c] for c in r if c not in _STATED), (place, r["value"]))
        if first != place:
            yield f"{place}: the same row as {first.removeprefix(':')}"
        elif value != r["value"] and earlier != place:
            yield f"{place}: {r['metric']} {r['value']}: line {earlier.removeprefix(':')} states {value} for the same"
        yield from (
            f"{place}: {name} {r[name]}: expected 0 or more" for name in sorted(INTEGERS) if r[name] and r[name] < 0
        )
        if str(r["metric"]).endswith(SHARES) and r["value"] != "" and not 0 <= r["value"] <= 1:
            yield f"{place}: {r['metric']} {r['value']:g}: expected a share of 1"
        elif r["value"] != r["value"]:  # only what is not a number differs from itself
            yield f"{place}: {r['metric']} nan: expected a number, or an empty cell for an undefined one"
        if "" not in (r["ci_low"], r["ci_high"]) and r["ci_low"] > r["ci_high"]:
            yield f"{place}: ci_low {r['ci_low']:g} is above ci_high {r['ci_high']:g}"


def _read_row(cells: Mapping[str, str], where: str) -> Row:
    try:
        return row(**cells)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
