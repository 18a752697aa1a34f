"""Every case, in the order of the table."""

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers.utils import logging

from benchmarks.cases import hook_overhead, precision, probing, recording, sampling, storing, workers
from benchmarks.peers import quiet
from benchmarks.sizes import Size
from benchmarks.table import Row

CASES = {
    case.__name__.rpartition(".")[2]: case
    for case in (recording, workers, sampling, precision, hook_overhead, storing, probing)
}


def measure(size: Size, only: Sequence[str] = (), *, tell: Callable[[str], object] = lambda _: None) -> Iterator[Row]:
    """Yield the rows of every case, or of those named; ``tell`` hears which one runs."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for name in only or CASES:
        tell(f"measuring: {name} ...")
        with quiet():
            found = list(CASES[name].rows(size))
        yield from found
