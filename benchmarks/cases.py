"""Every case, in the order of the table."""

from collections.abc import Callable, Iterator

import torch
from transformers.utils import logging

from benchmarks import hook_overhead, precision, probing, recording, sampling, storing, workers
from benchmarks.peers import quiet
from benchmarks.sizes import Size
from benchmarks.table import Row


def measure(size: Size, *, tell: Callable[[str], object] = lambda _: None) -> Iterator[Row]:
    """Yield the rows of every case; ``tell`` hears which one runs."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for case in (recording, workers, sampling, precision, hook_overhead, storing, probing):
        tell(f"measuring: {case.__name__.rpartition('.')[2]} ...")
        with quiet():
            found = list(case.rows(size))
        yield from found
