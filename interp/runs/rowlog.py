"""An append-only file of JSON rows in chunks; after a crash each chunk is complete or absent.

Every line is one row plus ``chunk_left``, the number of lines of its chunk that follow; 0 ends the chunk. A crash can
cut off only the last chunk. Opening the log drops an incomplete chunk, and the writer, which skips keys that are
present, writes it again.

The line that ends a chunk also carries the SHA-256 of the file up to it, so that a change to any earlier line is found.
Logs of earlier versions carry none and are read as before.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from interp.runs.configs import canonical_json
from interp.runs.files import append_bytes

Row = dict[str, Any]

_LEFT, _SHA256 = "chunk_left", "log_sha256"
_CHANGED = "the file was changed since it was written"
_SOME_SUM = re.compile(rb':"[0-9a-f]{64}"\}\Z')
_SUM = re.compile(rb',"%s":"([0-9a-f]{64})"\}\n\Z' % _SHA256.encode())


class RowLog:
    """The rows of one file, each with a unique string ``key``.

    Args:
        path: The file; created at the first append.
        repair: Remove an incomplete last chunk from the disk. Only for the single writing process.

    Raises:
        ValueError: If the file was changed since it was written; names the line.
    """

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        self.path = path
        rows, self._digest, length = _whole_chunks(path)
        self._keys = {row["key"] for row in rows}
        if repair and path.exists():
            os.truncate(path, length)

    def keys(self) -> frozenset[str]:
        """Return the keys of all rows."""
        return frozenset(self._keys)

    def rows(self) -> list[Row]:
        """Return the rows of all complete chunks, in the order written."""
        return _whole_chunks(self.path)[0]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append one chunk and return when it is on the disk.

        Raises:
            ValueError: If a row has no string ``key``, repeats a key, or has no exact JSON form. Nothing is written.
            OSError: If it cannot be written; nothing of it stays in the file.
        """
        chunk = [dict(row) for row in rows]
        added: set[str] = set()
        for row in chunk:
            added.add(self._new_key(row, added))
        if not chunk:
            return
        data = "".join(
            canonical_json({**row, _LEFT: len(chunk) - 1 - i}) + "\n" for i, row in enumerate(chunk)
        ).encode()
        digest = self._digest.copy()
        digest.update(data)
        data = data[:-2] + f',"{_SHA256}":"{digest.hexdigest()}"}}\n'.encode()
        append_bytes(self.path, data)
        self._digest.update(data)
        self._keys |= added

    def _new_key(self, row: Mapping[str, Any], added: set[str]) -> str:
        key = row.get("key")
        if not isinstance(key, str):
            raise ValueError(f"{self.path}: row {row!r:.80}: needs a string 'key'")
        if key in self._keys or key in added:
            raise ValueError(f"{self.path}: row key {key!r} is already present")
        return key


def _whole_chunks(path: Path) -> tuple[list[Row], Any, int]:
    """Return the rows of the complete chunks at the start of a log, the hash of their bytes, and their length.

    Raises:
        ValueError: If a whole line is no row, a key repeats, or a checksum does not hold: a crash causes none of these.
    """
    data = path.read_bytes() if path.exists() else b""
    rows: list[Row] = []
    keys: set[str] = set()
    digest, summed, start, stop, first, n_whole = hashlib.sha256(), False, 0, 0, 1, 0
    for number, line in enumerate(data.split(b"\n")[:-1], 1):  # what follows the last line end was cut off by a crash
        stop += len(line) + 1
        row = _parse(line, f"{path}:{number}")
        if row["key"] in keys:
            raise ValueError(f"{path}:{number}: key {row['key']!r} stands in an earlier line; the file was changed")
        rows.append(row)
        keys.add(row["key"])
        if row.pop(_LEFT) == 0:
            claimed = row.pop(_SHA256, None)
            expected = claimed or summed or _SOME_SUM.search(line)  # also where the checksum's name was changed
            if expected and claimed != _digest_before_sum(digest, data[start:stop]):
                raise ValueError(f"{path}:{number}: the checksum of lines {first}..{number} does not hold; {_CHANGED}")
            digest.update(data[start:stop])
            summed, start, first, n_whole = summed or claimed is not None, stop, number + 1, len(rows)
    return rows[:n_whole], digest, start


def _digest_before_sum(digest: Any, chunk: bytes) -> str:
    """Return the checksum that ends a chunk: of all bytes before it, and of the chunk without it."""
    whole = digest.copy()
    whole.update(_SUM.sub(b"}\n", chunk))
    return whole.hexdigest()


def _parse(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict) and isinstance(row.get(_LEFT), int) and isinstance(row.get("key"), str):
        return row
    raise ValueError(f"{where}: not a row of this log; {_CHANGED}")
