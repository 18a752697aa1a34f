"""The measured cases, one module each. Importing this loads nothing heavy."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.sizes import Size
    from benchmarks.table import Row

NAMES = ("recording", "workers", "sampling", "precision", "hook_overhead", "storing", "probing", "pocket")
"""The cases on the CPU, in the order of the table."""


def measure(
    size: "Size", only: Sequence[str] = (), *, report: Callable[[str], object] = lambda _: None
) -> "Iterator[Row]":
    """Yield the rows of every case, or of those in ``only``; ``report`` is called with a line before each."""
    import torch
    from transformers.utils import logging

    from benchmarks.peers import quiet

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in only or NAMES:
        report(f"measuring: {name} ...")
        with quiet():
            rows = list(import_module(f"{__name__}.{name}").rows(size))
        yield from rows
