"""Two worker processes of one thread each against one: how the suite uses a second core."""

from collections.abc import Iterator
from multiprocessing import get_context
from typing import Any

from benchmarks.models import mixed_prompts, random_llama
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import race

DTYPE = "float32"


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case: recording with prompts split over processes that are already running."""
    with _Team(size) as team:
        seconds = race({"two": lambda: team.run(2), "one": lambda: team.run(1)}, size.recording_rounds)
    rates = [n * size.worker_prompts / seconds[name] for n, name in ((2, "two"), (1, "one"))]
    case, name = "record, two worker processes of one thread", f"ours in one process, {DTYPE}"
    yield Row(case=case, ours=rates[0], peer=rates[1], peer_name=name, unit="prompts/s", dtype=DTYPE, threads=2)


class _Team:
    """Two processes that hold the model and record their prompts on request."""

    def __init__(self, size: Size) -> None:
        context = get_context("spawn")
        self.pipes = [context.Pipe() for _ in range(2)]
        self.processes = [context.Process(target=_work, args=(size, theirs)) for _, theirs in self.pipes]

    def run(self, n: int) -> None:
        """Let the first ``n`` processes record; return when all are done."""
        ends = [ours for ours, _ in self.pipes[:n]]
        for end in ends:
            end.send(True)
        for end in ends:
            end.recv()

    def __enter__(self) -> "_Team":
        for process in self.processes:
            process.start()
        for (ours, _), process in zip(self.pipes, self.processes, strict=True):
            while not ours.poll(1):
                if not process.is_alive():
                    raise RuntimeError(f"a worker ended with exit status {process.exitcode} before it was ready")
            ours.recv()
        return self

    def __exit__(self, *_error: object) -> None:
        for (ours, _), process in zip(self.pipes, self.processes, strict=True):
            if process.is_alive():
                ours.send(False)
            process.join(30)


def _work(size: Size, pipe: Any) -> None:
    """Record once for every True received."""
    import torch

    from interp.recording import record
    from interp.sites import resid_post

    torch.set_num_threads(1)
    lm = random_llama(size, DTYPE)
    chats = mixed_prompts(lm, size.worker_prompts, *size.words)
    pipe.send(True)
    while pipe.recv():
        record(lm, chats, resid_post(range(lm.n_layers)), ["last_prompt"])
        pipe.send(True)
