"""Blocks of 256 prompts in an activation store: layout, checksums and writer."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.runs.files import naming, write_all
from interp.runs.locks import hold
from interp.sites import Site

BLOCK = 256
DTYPES: Mapping[str, tuple[type[np.generic], torch.dtype]] = MappingProxyType(
    {
        "float32": (np.float32, torch.float32),
        "float16": (np.float16, torch.float16),
        "bfloat16": (np.uint16, torch.bfloat16),  # NumPy and HDF5 have no bfloat16, so its bits are stored
    }
)
Attributes = Mapping[str, str | int | float]


class StoreError(ValueError):
    """A file that is not a store, is cut off, does not fit the request, or fails its checksums."""


@dataclass(frozen=True)
class Layout:
    """Position of everything in the file; fixed at creation."""

    sites: tuple[Site, ...]
    positions: tuple[str, ...]
    d_model: int
    capacity: int
    dtype: str
    attributes: Attributes
    offsets: Mapping[str, int]
    size: int

    @property
    def n_blocks(self) -> int:
        """Number of blocks for the full capacity."""
        return -(-self.capacity // BLOCK)

    @property
    def block_shape(self) -> tuple[int, int, int, int]:
        """Shape of one block: site, position, row, d_model."""
        return len(self.sites), len(self.positions), BLOCK, self.d_model

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
        """Return shape and dtype of each data set in file order, the large one last."""
        return {
            "n_valid": ((1,), np.uint64),
            "covered": ((self.n_blocks,), np.uint32),
            "sha256": ((self.n_blocks, 32), np.uint8),
            "prompts": ((self.n_blocks, BLOCK, 32), np.uint8),
            "values": ((self.n_blocks, *self.block_shape), DTYPES[self.dtype][0]),
        }

    def maps(self, path: Path, mode: Any) -> dict[str, np.memmap]:
        """Map every data set of the file into memory.

        Raises:
            StoreError: If the file counts more prompts than it has room for.
        """
        maps = {
            name: np.memmap(path, dtype, mode=mode, offset=self.offsets[name], shape=shape)
            for name, (shape, dtype) in self.shapes().items()
        }
        if (n := int(maps["n_valid"][0])) > self.capacity:
            raise StoreError(f"{path}: counts {n} prompts in room for {self.capacity}")
        return maps


class BlockWriter:
    """Fills blocks in memory and writes each in one piece, while a second thread hashes it."""

    def __init__(self, maps: Mapping[str, np.memmap], path: Path, layout: Layout) -> None:
        self.maps, self.path, self.layout = maps, path, layout
        self.n = int(maps["n_valid"][0])
        self.buffers = [torch.zeros(layout.block_shape, dtype=DTYPES[layout.dtype][1]) for _ in range(2)]
        self.hashing: tuple[int, int, Future[bytes]] | None = None
        self.file = path.open("r+b", buffering=0)
        try:
            self.lock = hold(self.file, path)
        except ValueError as error:
            raise StoreError(f"{path}: another process is writing to it") from error
        self.worker = ThreadPoolExecutor(1)
        if self.n % BLOCK:
            self._buffer[:] = as_torch(maps["values"][self.n // BLOCK], layout.dtype)

    @property
    def _buffer(self) -> Tensor:
        return self.buffers[self.n // BLOCK % 2]

    def append(self, values: Tensor, prompt_hashes: Sequence[bytes]) -> None:
        """Add rows; every full block is written to disk."""
        self._check(values, prompt_hashes)
        hashes = np.frombuffer(b"".join(prompt_hashes), np.uint8).reshape(-1, 32)
        start = 0
        while start < len(hashes):
            row = self.n % BLOCK
            count = min(BLOCK - row, len(hashes) - start)
            part = values[:, :, start : start + count].to(self._buffer.dtype)
            self._check_finite(part)
            self._buffer[:, :, row : row + count] = part
            self._put("prompts", self.n * 32, hashes[start : start + count].data)
            self._advance(count)
            start += count

    def _advance(self, count: int) -> None:
        buffer, block = self._buffer, self.n // BLOCK
        self.n += count
        if self.n % BLOCK == 0:
            self._write(block, buffer, BLOCK)

    def _write(self, block: int, buffer: Tensor, rows: int) -> None:
        buffer[:, :, rows:] = 0  # a buffer is used again: what it held before is not part of this block
        raw = buffer.view(torch.uint8).numpy()
        self._settle()  # frees the other buffer, and keeps the checksums in the order of the blocks
        self.hashing = (block, rows, self.worker.submit(digest_of, raw, self.maps["prompts"][block], rows))
        self._put("values", block * raw.nbytes, raw.data)

    def _put(self, name: str, at: int, data: memoryview) -> None:
        """Write to a data set past its map: on a full disk, a write to the map would kill the process."""
        with naming(self.path):
            self.file.seek(self.layout.offsets[name] + at)
            write_all(self.file, data.cast("B"))

    def _settle(self) -> None:
        """Record the checksum of the block last written; its rows count from now on."""
        if self.hashing is None:
            return
        block, rows, digest = self.hashing
        self.maps["sha256"][block] = np.frombuffer(digest.result(), np.uint8)
        self.maps["covered"][block] = rows
        self.maps["n_valid"][0] = block * BLOCK + rows
        self.hashing = None

    def flush(self) -> None:
        """Write the rows of the block that is not full yet, and their checksum."""
        if self.n % BLOCK and self.n != int(self.maps["n_valid"][0]):
            self._write(self.n // BLOCK, self._buffer, self.n % BLOCK)
        self._settle()

    def close(self) -> None:
        """Flush, and release the file for other writers."""
        if not self.file.closed:
            self.flush()
            self.worker.shutdown()
            self.lock.close()

    def _check(self, values: Tensor, prompt_hashes: Sequence[bytes]) -> None:
        sites, positions, _, d_model = self.layout.block_shape
        want = (sites, positions, len(prompt_hashes), d_model)
        if tuple(values.shape) != want:
            raise StoreError(
                f"append {tuple(values.shape)}: {self.path} wants (site, position, prompt, d_model) {want}"
            )
        if self.n + len(prompt_hashes) > self.layout.capacity:
            raise StoreError(
                f"append {len(prompt_hashes)} prompts: {self.path} holds {self.n} of at most {self.layout.capacity}"
            )

    def _check_finite(self, part: Tensor) -> None:
        if torch.isfinite(part.sum(dtype=torch.float32)):  # one cheap pass; if the sum overflows, look at each value
            return
        bad = (~torch.isfinite(part)).nonzero()
        if len(bad):
            site, position, row, _ = bad[0].tolist()
            raise StoreError(
                f"append: {self.layout.sites[site]} at {self.layout.positions[position]}, prompt {self.n + row}: "
                f"not finite in {self.layout.dtype} (float16 ends at 65504, float32 and bfloat16 do not)"
            )


def digest_of(block: np.ndarray, prompts: np.ndarray, rows: int) -> bytes:
    """SHA-256 of a block's first ``rows`` rows and of their prompt hashes."""
    digest = hashlib.sha256(np.ascontiguousarray(block[:, :, :rows]).data)
    digest.update(prompts[:rows].tobytes())
    return digest.digest()


def as_torch(array: np.ndarray, dtype: str) -> Tensor:
    """Copy stored values into a tensor of the dtype that they represent."""
    return torch.from_numpy(np.array(array)).view(DTYPES[dtype][1])
