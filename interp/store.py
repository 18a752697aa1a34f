"""Activations on disk: an HDF5 file that grows during a run and stays readable if it is cut off.

``values`` is (block, site, position, row, d_model) in blocks of 256 prompts: contiguous, allocated sparsely up to the
capacity, after all metadata. Rows are written directly at the data set's offset, not through the HDF5 library. So a
killed writer cannot leave a file that HDF5 refuses, and a truncated file loses its last prompts and nothing else. Every
block has a SHA-256 and the number of rows that it covers; only covered rows count. Any HDF5 reader can open the file:
``values[:, s, p].reshape(-1, d_model)[: n_valid[0]]`` is one site for all prompts.
"""

import errno
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import h5py
import numpy as np
from annotated_types import Ge, MinLen
from jaxtyping import Float
from pydantic import AfterValidator
from torch import Tensor

from interp.blocks import BLOCK, DTYPES, Attributes, BlockWriter, Layout, StoreError, as_torch, digest_of
from interp.runs.checks import AtLeastOne
from interp.runs.files import naming
from interp.runs.reading import json_value
from interp.sites import Site, index_of

FORMAT = "residual-stream activations, version 1"
ARGUMENTS = ("sites", "positions", "d_model", "capacity", "dtype", "attributes")


def _this_format(name: str) -> str:
    if name != FORMAT:
        raise ValueError("another format")
    return name


@dataclass(frozen=True, kw_only=True)
class _Header:
    """The first line of a store."""

    format: Annotated[str, AfterValidator(_this_format)]
    sites: Annotated[tuple[Annotated[str, AfterValidator(Site.parse)], ...], MinLen(1)]
    positions: Annotated[tuple[str, ...], MinLen(1)]
    d_model: AtLeastOne
    capacity: AtLeastOne
    dtype: Literal["float32", "float16", "bfloat16"]
    attributes: dict[str, str | int | float]
    offsets: dict[str, Annotated[int, Ge(0)]]
    size: Annotated[int, Ge(0)]


class ActivationStore:
    """A store opened for reading or appending, by ``create``, ``append_to`` or ``read_store``; a context manager.

    ``len`` is the number of prompts that are safely stored.
    """

    def __init__(self, path: str | Path, layout: Layout, *, writable: bool) -> None:
        self.path, self._layout, self.writable = Path(path), layout, writable
        self._maps = layout.maps(self.path, "r+" if writable else "r")
        self._writer = BlockWriter(self._maps, self.path, layout) if writable else None

    @property
    def sites(self) -> tuple[Site, ...]:
        """Recorded sites."""
        return self._layout.sites

    @property
    def positions(self) -> tuple[str, ...]:
        """Recorded positions."""
        return self._layout.positions

    @property
    def capacity(self) -> int:
        """Largest number of prompts."""
        return self._layout.capacity

    @property
    def dtype(self) -> str:
        """Dtype of the stored values."""
        return self._layout.dtype

    @property
    def attributes(self) -> Attributes:
        """Provenance of the values: model, adapter, tokenizer, dtype."""
        return self._layout.attributes

    def __len__(self) -> int:
        return int(self._maps["n_valid"][0])

    @property
    def prompt_hashes(self) -> list[bytes]:
        """Hash of each stored prompt, in order."""
        return [row.tobytes() for row in self._maps["prompts"].reshape(-1, 32)[: len(self)]]

    def append(self, values: Float[Tensor, "site position prompt d_model"], prompt_hashes: Sequence[bytes]) -> None:
        """Add the vectors of further prompts. They count after ``flush`` or ``close``, full blocks earlier.

        Raises:
            StoreError: If the store is read-only or full, the shape is wrong, or a value is not finite in its dtype.
        """
        if self._writer is None:
            raise StoreError(f"{self.path}: opened for reading; open it with append_to")
        self._writer.append(values, prompt_hashes)

    def flush(self) -> None:
        """Write the buffered rows and their checksum."""
        if self._writer is not None:
            self._writer.flush()

    def read(self, site: Site, position: str) -> Float[Tensor, "prompt d_model"]:
        """Return one site at one position for all stored prompts, in the store's dtype.

        Raises:
            StoreError: If the store holds no such site or position.
        """
        try:
            at = index_of(site, position, self.sites, self.positions)
        except ValueError as error:
            raise StoreError(f"{self.path}: {error}") from None
        n = len(self)
        rows = self._maps["values"][: -(-n // BLOCK), *at]
        return as_torch(rows, self.dtype).reshape(-1, self._layout.d_model)[:n]

    def close(self) -> None:
        """Flush and stop writing."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> "ActivationStore":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def create(
    path: str | Path,
    *,
    sites: Sequence[Site],
    positions: Sequence[str],
    d_model: int,
    capacity: int,
    dtype: str = "float32",
    attributes: Attributes | None = None,
) -> ActivationStore:
    """Create an empty store and open it for appending.

    Args:
        path: A file that does not exist yet.
        sites: Sites of every prompt, distinct.
        positions: Positions of every prompt, distinct.
        d_model: Width of the residual stream.
        capacity: Largest number of prompts. Unused room takes no disk space, but counts in the file's nominal size.
        dtype: ``float32``, ``float16`` or ``bfloat16``.
        attributes: Provenance of the values.

    Raises:
        StoreError: If the file exists, or an argument is invalid.
    """
    path = Path(path)
    if path.exists():
        raise StoreError(f"{path}: exists already; open it with append_to")
    if dtype not in DTYPES or capacity < 1 or not sites or not positions:
        raise StoreError(
            f"{path}: dtype {dtype!r}, capacity {capacity}, {len(sites)} sites, {len(positions)} positions; want one "
            f"of {', '.join(DTYPES)} and at least one of each"
        )
    names = {"sites": list(map(str, sites)), "positions": list(positions)}
    numbers = {"d_model": d_model, "capacity": capacity, "dtype": dtype}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            _write_empty(temporary, {"format": FORMAT, **names, **numbers, "attributes": dict(attributes or {})})
            temporary.rename(path)
        except RuntimeError as error:  # the HDF5 library could not extend the file
            raise OSError(errno.EIO, f"cannot be written ({error})") from error
        finally:
            temporary.unlink(missing_ok=True)
    return append_to(path)


def append_to(path: str | Path) -> ActivationStore:
    """Open a store to continue it, after the last prompt with a valid checksum; a cut-off file is repaired.

    Raises:
        StoreError: If the file is not a store, or another process is writing to it.
    """
    path = Path(path)
    layout = _read_header(path)
    if path.stat().st_size < layout.offsets["values"]:  # cut off before the first prompt
        path.unlink()
        return create(path, **{field: getattr(layout, field) for field in ARGUMENTS})
    if path.stat().st_size < layout.size:
        os.truncate(path, layout.size)  # lengthens the file: lost prompts become zeros, which fail their checksum
    maps = layout.maps(path, "r+")
    n = 0
    for block, rows in _whole_blocks(maps):
        n = block * BLOCK + rows
    maps["covered"][-(-n // BLOCK) :] = 0
    maps["n_valid"][0] = n
    return ActivationStore(path, layout, writable=True)


def read_store(path: str | Path) -> ActivationStore:
    """Open a store for reading, also while another process writes to it.

    Raises:
        StoreError: If the file is not a store or is cut off.
    """
    path = Path(path)
    layout = _read_header(path)
    if problem := _cut_off(path, layout):
        raise StoreError(f"{path}: {problem}; append_to continues it")
    return ActivationStore(path, layout, writable=False)


def info(path: str | Path) -> dict[str, Any]:
    """Describe a store: contents, provenance and size. Works on a file that is cut off."""
    path = Path(path)
    layout, stat = _read_header(path), path.stat()
    complete = not _cut_off(path, layout)
    return {
        "path": str(path),
        "prompts": len(read_store(path)) if complete else None,
        "capacity": layout.capacity,
        "sites": [str(site) for site in layout.sites],
        "positions": list(layout.positions),
        "d_model": layout.d_model,
        "dtype": layout.dtype,
        "attributes": dict(layout.attributes),
        "bytes": stat.st_size,
        "bytes_on_disk": stat.st_blocks * 512,
        "complete": complete,
    }


def verify(path: str | Path) -> list[str]:
    """Return everything that is wrong with a store, one line each; an empty list if every checksum holds."""
    path = Path(path)
    try:
        layout = _read_header(path)
        if problem := _cut_off(path, layout):
            return [f"{path}: {problem}; recording into it again continues it"]
        with h5py.File(path, "r") as file:
            missing = set(layout.shapes()) - set(file)
        maps = layout.maps(path, "r")
    except (OSError, StoreError) as error:
        return [str(error)]
    if missing:
        return [f"{path}: no data set {', '.join(sorted(missing))}"]
    return [f"{path}: {problem}" for problem in _bad_blocks(maps)]


def _bad_blocks(maps: dict[str, np.memmap]) -> Iterator[str]:
    n, covered = int(maps["n_valid"][0]), maps["covered"]
    for block in range(-(-n // BLOCK)):
        rows = min(BLOCK, n - block * BLOCK)
        names = f"prompts {block * BLOCK}..{block * BLOCK + rows - 1}"
        if covered[block] < rows:
            yield f"{names}: no checksum covers {rows - int(covered[block])} of them"
        elif not _holds(maps, block):
            yield f"{names}: the checksum does not hold"


def _whole_blocks(maps: dict[str, np.memmap]) -> Iterator[tuple[int, int]]:
    """Yield the leading blocks whose checksum holds, up to the first that is not full, with their number of rows."""
    for block, rows in enumerate(maps["covered"].tolist()):
        if not 0 < rows <= BLOCK or not _holds(maps, block):
            return
        yield block, rows
        if rows < BLOCK:
            return


def _holds(maps: dict[str, np.memmap], block: int) -> bool:
    digest = digest_of(maps["values"][block], maps["prompts"][block], int(maps["covered"][block]))
    return digest == maps["sha256"][block].tobytes()


def _cut_off(path: Path, layout: Layout) -> str:
    size = path.stat().st_size
    return f"cut off, {size:,} of {layout.size:,} bytes are present" if size < layout.size else ""


def _read_header(path: Path) -> Layout:
    """Read the layout from the HDF5 user block: one line of JSON at the start of the file, readable without HDF5."""
    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    with path.open("rb") as file:
        line = file.readline(1 << 20)
    header, faults = json_value(line.decode(errors="replace"), _Header)
    if faults:
        raise StoreError(f"{path}: not a store of {FORMAT} ({'; '.join(faults[:3])})")
    layout = Layout(**{name: value for name, value in vars(header).items() if name != "format"})
    for name, (shape, dtype) in layout.shapes().items():
        end = layout.offsets.get(name, layout.size) + math.prod(shape) * np.dtype(dtype).itemsize
        if end > layout.size:
            raise StoreError(f"{path}: not a store of {FORMAT} ({name} would end at byte {end:,} of {layout.size:,})")
    return layout


def _write_empty(path: Path, header: dict[str, Any]) -> None:
    """Write the header and the HDF5 structure; the values are allocated but take no disk space yet."""
    given: dict[str, Any] = {name: header[name] for name in ARGUMENTS}
    given |= {"sites": tuple(map(Site.parse, header["sites"])), "positions": tuple(header["positions"])}
    layout = Layout(**given, offsets={}, size=0)
    offsets = dict[str, int]()
    room = 1 << (len(json.dumps(header)) + 512).bit_length()  # the offsets are known only afterwards
    with h5py.File(path, "w", userblock_size=room) as file:
        fields = {"format": FORMAT, "dtype": layout.dtype, "sites": header["sites"], "positions": header["positions"]}
        file.attrs.update({**layout.attributes, **fields})
        for name, (shape, dtype) in layout.shapes().items():
            offsets[name] = _allocate(file, name, shape, dtype)
    size = path.stat().st_size
    shape, dtype = layout.shapes()["values"]
    assert offsets["values"] + int(np.prod(shape)) * np.dtype(dtype).itemsize == size, "metadata after the values"
    line = json.dumps(header | {"offsets": offsets, "size": size}).encode() + b"\n"
    assert len(line) <= room
    with path.open("r+b") as raw:
        raw.write(line)
        for name, (shape, dtype) in layout.shapes().items():
            if name not in ("prompts", "values"):  # written through a map: there, a full disk would kill the process
                raw.seek(offsets[name])
                raw.write(bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize))
        raw.flush()
        os.fsync(raw.fileno())


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> int:
    """Create a contiguous data set that is allocated but not written; return its offset in the file."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)  # equal runs are equal bytes
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.py_create(np.dtype(dtype), logical=True)
    offset = h5py.h5d.create(file.id, name.encode(), kind, space, properties).get_offset()
    assert offset is not None
    return offset
