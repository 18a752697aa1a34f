"""Experiments over worker processes of one thread each, or over a cluster; the results do not depend on which."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from concurrent import futures
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from annotated_types import Ge, MinLen

from experiments.cli.placement import Placement
from experiments.spec import Experiment, run_experiment
from interp.runs.checks import NotNegative, check_fields
from interp.runs.files import check_room
from interp.runs.progress import progress_bar
from interp.runs.run import runs_root
from interp.runs.table import Row
from training.grid import FAMILIES, Family

if TYPE_CHECKING:
    from experiments.pipelines.on_ray import Tasks

Rescue = Callable[[Experiment, Exception], list[Row]]
"""Makes the rows of an experiment that failed, or raises its error again."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """What executes the runs of a command."""

    executor: Literal["processes", "ray"] = "processes"
    """processes: worker processes of this machine; ray: tasks of a Ray cluster (pip install '.[ray]')."""
    ray_address: str | None = None
    """HOST:PORT of the cluster's head, or local for a cluster of this machine alone; by default $RAY_ADDRESS, else the
    cluster that this machine is part of."""
    gpus_per_run: Annotated[float, Ge(0)] = 0.0
    """GPUs of each run on a Ray cluster; 0.5 lets two runs share one."""

    def __post_init__(self) -> None:
        """Refuse options of a cluster without one.

        Raises:
            ValueError: If there is one.
        """
        check_fields(self)
        given = [("--ray-address", self.ray_address is not None), ("--gpus-per-run", self.gpus_per_run > 0)]
        if wrong := [name for name, is_given in given if is_given and self.executor != "ray"]:
            raise ValueError(f"{wrong[0]}: needs --executor ray")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A command that runs many experiments on the Microcosm, in stages, over worker processes or a cluster."""

    families: Annotated[tuple[Family, ...], MinLen(1)] = FAMILIES
    """Families of the Microcosm."""
    workers: NotNegative = 0
    """Worker processes; 0 = one per core."""
    on: Annotated[Executor, tyro.conf.arg(name="")] = Executor()
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""
    place: Annotated[Placement, tyro.conf.arg(name="")] = Placement()  # noqa: RUF009

    def __post_init__(self) -> None:
        """Refuse a field outside the range that its annotation states, and a value named twice.

        Raises:
            ValueError: If one of them is.
        """
        check_fields(self)

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the experiments of one stage after the other; a stage may need those before it."""
        raise NotImplementedError

    def run(self, title: str, rescue: Rescue | None = None) -> list[Row]:
        """Run every stage; see ``run_stages``."""
        check_room(getattr(self, "out", None) or self.runs)
        return run_stages(list(self.stages()), self.runs, title, workers=self.workers, on=self.on, rescue=rescue)


def run_stages(
    stages: Sequence[Sequence[Experiment]],
    root: Path,
    title: str,
    *,
    workers: int = 0,
    on: Executor = Executor(),
    rescue: Rescue | None = None,
) -> list[Row]:
    """Run experiments stage by stage; return the rows of all tables, in the order of the experiments.

    Args:
        stages: Experiments; those of one stage run side by side.
        root: Folder of all runs.
        title: Title of the progress bar.
        workers: Worker processes; 0 = one per core.
        on: What executes them.
        rescue: Makes the rows of an experiment that fails; without it the first error stops everything.
    """
    every = [experiment for stage in stages for experiment in stage]
    needs = [{*range(sum(map(len, stages[:number])))} for number, stage in enumerate(stages) for _ in stage]
    return _run(every, needs, range(len(every)), root, title, workers, on, rescue)


def run_needing(
    needs: Mapping[Experiment, Collection[Experiment]],
    root: Path,
    title: str,
    *,
    first: Collection[Experiment] = (),
    workers: int = 0,
    on: Executor = Executor(),
) -> list[Row]:
    """Run experiments, each as soon as those that it needs have ended; the rest is as in ``run_stages``.

    Args:
        needs: Experiments, each with those among them that it needs.
        root: Folder of all runs.
        title: Title of the progress bar.
        first: Those that go before others that could start too: what much waits for, and what takes long.
        workers: Worker processes; 0 = one per core.
        on: What executes them.
    """
    every = list(needs)
    numbers = {experiment: number for number, experiment in enumerate(every)}
    order = sorted(numbers.values(), key=lambda number: every[number] not in first)
    return _run(every, [{numbers[n] for n in needs[e]} for e in every], order, root, title, workers, on, None)


def _run(
    every: Sequence[Experiment],
    needs: Sequence[Set[int]],
    order: Collection[int],
    root: Path,
    title: str,
    workers: int,
    on: Executor,
    rescue: Rescue | None,
) -> list[Row]:
    """Run experiments by their numbers: of those whose needs have ended, the first in ``order``."""
    check_room(root)
    tables: dict[int, list[Row]] = {}
    left = list(order)
    with _pool(workers, root, on) as pool, progress_bar(title, len(every), unit="run") as bar:
        while len(tables) < len(every):
            for number in [number for number in left if needs[number] <= tables.keys()][: pool.free()]:
                left.remove(number)
                pool.start(number, every[number])
            number, result = pool.ended()
            tables[number] = _rescued(every[number], result, rescue) if isinstance(result, Exception) else result
            bar.update()
    return [row for number in sorted(tables) for row in tables[number]]


def _pool(workers: int, root: Path, on: Executor) -> Workers | Tasks:
    """Return what executes experiments.

    Raises:
        ValueError: If Ray is not installed, its cluster cannot be used, or a number of workers is given for it.
    """
    if on.executor != "ray":
        return Workers(workers or os.cpu_count() or 1, root)
    if workers:
        raise ValueError(f"--workers {workers}: a cluster has as many as its nodes have cores; leave it out")
    if find_spec("ray") is None:
        raise ValueError("--executor ray: Ray is not installed; pip install '.[ray]'")
    from experiments.pipelines.on_ray import Tasks

    return Tasks(root, on.ray_address, on.gpus_per_run)


def _rescued(experiment: Experiment, error: Exception, rescue: Rescue | None) -> list[Row]:
    if rescue is None:
        raise error
    return rescue(experiment, error)


class Workers:
    """Worker processes of one thread each; each draws its own progress bar below the main one."""

    def __init__(self, count: int, root: Path) -> None:
        self.count, self.root, context = count, root, get_context("spawn")
        self.running: dict[Future[list[Row]], int] = {}
        lines = context.SimpleQueue()
        for line in range(1, count + 1):
            lines.put(line)
        self.others = set(active_children())
        self.pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(lines,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, _kind: object, error: object, _trace: object) -> None:
        if error is not None:  # nobody waits for what still runs: it continues another time
            for worker in set(active_children()) - self.others:
                worker.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def free(self) -> int:
        """Return how many experiments can start at once."""
        return self.count - len(self.running)

    def start(self, number: int, experiment: Experiment) -> None:
        """Start an experiment in a process of its own."""
        with unheard(signal.SIGINT, signal.SIGTERM):  # inherited: this process ends its workers
            self.running[self.pool.submit(_table, experiment, self.root)] = number

    def ended(self) -> tuple[int, list[Row] | Exception]:
        """Wait until an experiment ends; return its number, and its table or error."""
        done = next(iter(futures.wait(self.running, return_when=futures.FIRST_COMPLETED).done))
        number, error = self.running.pop(done), done.exception()
        if isinstance(error, BrokenExecutor):
            raise OSError("a worker process was killed, maybe for lack of memory; the same command continues")
        if error is not None and not isinstance(error, Exception):
            raise error
        return number, error or done.result()


@contextmanager
def unheard(*numbers: signal.Signals) -> Iterator[None]:
    """Put signals off, and for good in the processes that this thread starts.

    The mask alone does not do it: a signal that another thread receives runs its handler in the main thread at once.
    """
    heard: list[int] = []
    main = threading.current_thread() is threading.main_thread()  # only the main thread can set a handler
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    handlers = [(n, signal.signal(n, lambda number, _: heard.append(number))) for n in numbers] if main else []
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number in heard[:1]:
            signal.raise_signal(number)


def _start(lines: SimpleQueue[int]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["SEMCON_BAR"] = str(lines.get())
    import torch
    from tqdm import tqdm
    from transformers.utils.logging import disable_progress_bar

    tqdm.set_lock(threading.RLock())  # its own is one of the system's, left behind by a worker that is killed
    torch.set_num_threads(1)
    disable_progress_bar()


def _end_with_parent() -> None:
    """End this process when its parent is killed, so that its locks are free for the next run."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _table(experiment: Experiment, root: Path) -> list[Row]:
    _, table = run_experiment(experiment, root)
    return table
