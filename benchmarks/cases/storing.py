"""Write activations to a store and read them back layer by layer, against raw files of the same bytes.

Unlike the raw files, the store keeps a SHA-256 of every block and a hash of every prompt, refuses non-finite values,
and survives an interrupted write. No side waits for the disk. The store hashes in a second thread, so writing is
measured twice: as it is, and with the process pinned to one processor.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import race
from interp.sites import resid_post
from interp.store import create, read_store

OURS, MEMMAP, FILE = "ours", "numpy memmap", "plain file, window after window"
DTYPE, POSITION, WINDOW = "float16", "last_prompt", 256


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    with tempfile.TemporaryDirectory() as folder:
        files = _Files(Path(folder), _activations(size))
        writers = {OURS: files.write_store, MEMMAP: files.write_memmap, FILE: files.write_file}
        yield from files.rows("store write", race(writers, size.storing_rounds, before=files.clear), threads=2)
        if hasattr(os, "sched_setaffinity"):
            with _one_processor():
                seconds = race(writers, size.storing_rounds, before=files.clear)
            yield from files.rows("store write, on one processor", seconds)
        files.clear()
        files.write_store()
        files.values.numpy().tofile(files.raw)  # pages written through a memory map are slower to read back
        readers = {OURS: files.read_store, MEMMAP: files.read_memmap}
        yield from files.rows("store read, one layer at a time", race(readers, size.storing_rounds, check=_check))


def _activations(size: Size) -> Tensor:
    return torch.randn(size.store, generator=torch.Generator().manual_seed(0)).to(getattr(torch, DTYPE))


@dataclass(frozen=True)
class _Files:
    """The same activations (layer, prompt, d_model) as a store and as a raw file."""

    folder: Path
    values: Tensor

    @property
    def store(self) -> Path:
        return self.folder / "activations.h5"

    @property
    def raw(self) -> Path:
        return self.folder / "activations.bin"

    @property
    def layers(self) -> range:
        return range(len(self.values))

    def clear(self) -> None:
        self.store.unlink(missing_ok=True)
        self.raw.unlink(missing_ok=True)

    def write_store(self) -> None:
        n_layers, n, width = self.values.shape
        hashes = [index.to_bytes(32, "little") for index in range(n)]
        layout = {"sites": resid_post(range(n_layers)), "positions": [POSITION], "d_model": width}
        with create(self.store, **layout, capacity=n, dtype=DTYPE) as store:
            for start in range(0, n, WINDOW):
                window = slice(start, start + WINDOW)
                store.append(self.values[:, None, window], hashes[window])

    def write_memmap(self) -> None:
        out = np.memmap(self.raw, dtype=DTYPE, mode="w+", shape=tuple(self.values.shape))
        for start in range(0, self.values.shape[1], WINDOW):
            out[:, start : start + WINDOW] = self.values[:, start : start + WINDOW].numpy()

    def write_file(self) -> None:
        with self.raw.open("wb", buffering=0) as out:
            for start in range(0, self.values.shape[1], WINDOW):
                out.write(self.values[:, start : start + WINDOW].contiguous().numpy().data)

    def read_store(self) -> Tensor:
        store = read_store(self.store)
        return _one_by_one(store.read(site, POSITION) for site in store.sites)

    def read_memmap(self) -> Tensor:
        file = np.memmap(self.raw, dtype=DTYPE, mode="r", shape=tuple(self.values.shape))
        return _one_by_one(torch.from_numpy(np.array(file[layer])) for layer in self.layers)

    def rows(self, case: str, seconds: dict[str, float], *, threads: int = 1) -> Iterator[Row]:
        megabytes = self.values.numel() * self.values.element_size() / 1e6
        speed = {name: megabytes / value for name, value in seconds.items()}
        for peer in [name for name in speed if name != OURS]:
            ours, other = speed[OURS], speed[peer]
            yield Row(case=case, ours=ours, peer=other, peer_name=peer, unit="MB/s", dtype=DTYPE, threads=threads)


def _one_by_one(layers: Iterator[Tensor]) -> Tensor:
    """Read the layers one at a time, as an analysis does; return the first row of each."""
    return torch.stack([layer[0].clone() for layer in layers])


@contextmanager
def _one_processor() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _check(read: dict[str, Any]) -> None:
    if not torch.equal(read[OURS], read[MEMMAP]):
        raise RuntimeError("store read: the two sides read different values")
