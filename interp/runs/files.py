"""Files: atomic writes, content digests, and the text of a CSV."""

import csv
import functools
import gzip
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

LEAST_ROOM = 50_000_000
"""Bytes that must be free before a run starts: a table, its log and an adapter of a small model."""


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; during the write and after a crash the file has its old or its new content."""
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o644)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8; see ``atomic_write_bytes``."""
    atomic_write_bytes(path, text.encode())


def append_bytes(path: Path, data: bytes) -> None:
    """Append ``data`` and return when it is on the disk; if that fails, the file keeps the length it had."""
    with naming(path), path.open("ab", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        try:
            write_all(file, data)
            os.fsync(file.fileno())
        except BaseException:
            os.truncate(path, length)
            raise


def check_room(folder: Path) -> None:
    """Refuse a folder of runs that is a file, cannot be written, or whose disk has less than ``LEAST_ROOM`` bytes free.

    Raises:
        ValueError: If it is one of these.
    """
    if "\0" in str(folder):
        raise ValueError(f"{str(folder)!r}: no name of a folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        kind = "a file" if existing.exists() else "a link to nothing"
        raise ValueError(f"{folder}: {existing} is {kind}, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{folder}: {existing} cannot be written")
    if (free := shutil.disk_usage(existing).free) < LEAST_ROOM:
        raise ValueError(f"{folder}: {free / 1e6:.0f} MB free on its disk, a run needs {LEAST_ROOM / 1e6:.0f} MB")


def check_out(file: Path | None) -> None:
    """Refuse a file to be written that is a folder, or whose folder is a file or cannot be written.

    Raises:
        ValueError: If it is one of these.
    """
    if file is not None and file.is_dir():
        raise ValueError(f"{file}: is a folder; name a file")
    if file is not None:
        check_room(file.parent)


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of ``data`` to a file without a buffer, which may take only a part at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Give an OSError raised inside the name of the file being written: a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of a folder: of the names and digests of its files, sorted by name.

    Raises:
        FileNotFoundError: If there is no such file or folder.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return hashlib.sha256("".join(f"{name}\0{sha256_file(path / name)}\n" for name in names).encode()).hexdigest()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def altered(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Return the names of the files of a folder that are missing, links, or of another SHA-256 than ``digests`` says.

    A file is read once per process, and again only if its size or times changed.
    """
    return [name for name, digest in digests.items() if _digest_once(folder / name) != digest]


def _digest_once(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():
        return None
    stat = path.stat()
    return _digest(str(path.absolute()), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(path: str, *_stat: int) -> str:
    return sha256_file(path)


def gzipped(data: bytes) -> bytes:
    """Return ``data`` compressed, without a time stamp: the same data give the same bytes."""
    return gzip.compress(data, compresslevel=9, mtime=0)


def csv_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV of rows with the same columns; floats as ``%.6g``, None as an empty cell.

    Raises:
        ValueError: If a row has other columns than the first.
    """
    rows = list(rows)
    columns = list(rows[0]) if rows else []
    if other := next((row for row in rows if list(row) != columns), None):
        raise ValueError(f"row with columns {list(other)}: the table has {columns}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *([_cell(value) for value in row.values()] for row in rows)] if columns else [])
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # adding zero turns -0.0 into 0.0
    return "" if value is None else str(value)
