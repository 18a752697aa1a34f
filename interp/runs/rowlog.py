"""An append-only file of JSON rows in chunks; after a crash each chunk is complete or absent.

Every line is one row plus ``chunk_left``, the number of lines of its chunk that follow; 0 ends the chunk. A crash can
cut off only the last chunk. Opening the log drops an incomplete chunk, and the writer, which skips keys that are
present, writes it again.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from interp.runs.configs import canonical_json

_LEFT = "chunk_left"


class RowLog:
    """The rows of one file, each with a unique string ``key``.

    Args:
        path: The file; created at the first append.
        repair: Remove an incomplete last chunk from the disk. Only for the single writing process.
    """

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        self.path = path
        rows, whole = _whole_chunks(path)
        self._keys = {row["key"] for row in rows}
        if repair and path.exists():
            os.truncate(path, whole)

    def keys(self) -> frozenset[str]:
        """Return the keys of all rows."""
        return frozenset(self._keys)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of all complete chunks, in the order written."""
        return _whole_chunks(self.path)[0]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append one chunk and return when it is on the disk.

        Raises:
            ValueError: If a row has no string ``key``, repeats a key, or has no exact JSON form. Nothing is written.
        """
        chunk = [dict(row) for row in rows]
        added: set[str] = set()
        for row in chunk:
            added.add(self._new_key(row, added))
        lines = [canonical_json({**row, _LEFT: len(chunk) - 1 - i}) + "\n" for i, row in enumerate(chunk)]
        with self.path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._keys |= added

    def _new_key(self, row: Mapping[str, Any], added: set[str]) -> str:
        key = row.get("key")
        if not isinstance(key, str):
            raise ValueError(f"{self.path}: row {row!r:.80}: needs a string 'key'")
        if key in self._keys or key in added:
            raise ValueError(f"{self.path}: row key {key!r} is already present")
        return key


def _whole_chunks(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of the complete chunks at the start of a log, and their length in bytes.

    Raises:
        ValueError: If an unreadable line is not at the end of the file: a crash cannot cause that.
    """
    rows: list[dict[str, Any]] = []
    n_whole = n_bytes = offset = 0
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for number, line in enumerate(lines, 1):
        if (row := _parse(line)) is None:
            if any(_parse(later) for later in lines[number:]):
                raise ValueError(f"{path}:{number}: not a row, but rows follow; the file was changed by hand")
            break
        rows.append(row)
        offset += len(line)
        if row.pop(_LEFT) == 0:
            n_whole, n_bytes = len(rows), offset
    return rows[:n_whole], n_bytes


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the row of a line, or None if the line is incomplete."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    valid = isinstance(row, dict) and isinstance(row.get(_LEFT), int) and isinstance(row.get("key"), str)
    return row if valid else None
