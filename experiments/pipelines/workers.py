"""Experiments over worker processes of one thread each; what they write does not depend on how many there are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from experiments.spec import Experiment, run_experiment
from interp.runs.progress import progress_bar
from interp.runs.table import Row

Rescue = Callable[[Experiment, Exception], list[Row]]
"""Makes the rows of an experiment that failed; raises the error again if it is not one to go on after."""


def run_stages(
    stages: Sequence[Sequence[Experiment]], root: Path, title: str, *, workers: int = 0, rescue: Rescue | None = None
) -> list[Row]:
    """Run every stage's experiments, a stage after the one it needs; return all tables' rows in the order given.

    Args:
        stages: Experiments; those of one stage run side by side.
        root: Folder of all runs.
        title: Of the progress bar.
        workers: Worker processes; 0 = one per core.
        rescue: What to do about an experiment that fails; by default its error ends the whole.
    """
    tables: dict[int, list[Row]] = {}
    every = [experiment for stage in stages for experiment in stage]
    with Workers(workers or os.cpu_count() or 1, root) as pool, progress_bar(title, len(every), unit="run") as bar:
        for stage in stages:
            for index, found in pool.run(stage, len(tables)):
                tables[index] = _rescued(every[index], found, rescue) if isinstance(found, Exception) else found
                bar.update()
    return [row for index in sorted(tables) for row in tables[index]]


def _rescued(experiment: Experiment, error: Exception, rescue: Rescue | None) -> list[Row]:
    if rescue is None:
        raise error
    return rescue(experiment, error)


class Workers:
    """Processes of one thread each; each draws its own progress bar below the main one."""

    def __init__(self, count: int, root: Path) -> None:
        self.root, context = root, get_context("spawn")
        lines = context.SimpleQueue()
        for line in range(1, count + 1):
            lines.put(line)
        self.pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(lines,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: Any) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def run(self, stage: Sequence[Experiment], first: int) -> Iterator[tuple[int, list[Row] | Exception]]:
        """Yield (index, table or error) of each experiment as it ends; indices count on from ``first``."""
        waiting: dict[Future[list[Row]], int] = {
            self.pool.submit(_table, experiment, self.root): first + i for i, experiment in enumerate(stage)
        }
        for done in as_completed(waiting):
            error = done.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            yield waiting[done], error or done.result()


def _start(lines: SimpleQueue[int]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["SEMCON_BAR"] = str(lines.get())
    import torch
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(1)
    disable_progress_bar()


def _end_with_parent() -> None:
    """End this process when the one that started it is killed, so that the locks it holds are free for the next run."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _table(experiment: Experiment, root: Path) -> list[Row]:
    _, table = run_experiment(experiment, root)
    return table
