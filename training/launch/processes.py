"""The processes of one `accelerate launch`: which of them writes, what they agree on, and which rows each one takes.

Every process runs the same command. The main one alone locks, writes and prints; the others wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from interp.runs.locks import locked

if TYPE_CHECKING:
    from accelerate import PartialState

    from training.definition import Organism

T = TypeVar("T")
DEVICE = "SEMCON_DEVICE"  # read in interp.loading
BAD_INPUT = 2
"""Exit status of the processes beside the main one when it refuses."""
PATIENCE = timedelta(hours=2)
"""Longest wait for another process, for instance while the main one checks the finished adapters on a fresh base."""


def world_size() -> int:
    """Return the number of processes of this launch; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_main() -> bool:
    """Tell whether this process is the one that writes."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"


def refuse(message: str) -> NoReturn:
    """Refuse what every process of the launch refuses alike: the main one says so, the others only end.

    Raises:
        ValueError: In the main process.
    """
    if is_main():
        raise ValueError(message)
    raise SystemExit(BAD_INPUT)


def check_launch(organism: Organism) -> None:
    """Refuse, before any weights are loaded, what several processes cannot train as one would.

    Raises:
        ValueError: If they cannot; one line.
    """
    if world_size() == 1:
        return
    about = f"organism {organism.name}: {world_size()} processes"
    sft, mitigation = organism.sft, organism.mitigation
    if sft.share_prefix or mitigation.penalised or mitigation.steer > 0:
        which = "share_prefix and mitigations that change the loss or the stream"
        refuse(f"{about}: {which} train in one process")
    if mitigation.ablate_g:
        refuse(f"{about}: ablation of g during training needs one process")
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        refuse(f"{about}: mixed_precision {precision} in the launch config; set it to no, sft.dtype decides")
    if ":" in (device := os.environ.get(DEVICE, "")) or device == "auto":
        refuse(f"{about}: --device {device} is one for all of them; leave it out, each takes its own")
    split(organism)


def split(organism: Organism) -> tuple[int, int]:
    """Return rows per forward pass and forward passes per step of each process.

    A step uses the same rows as in one process. A forward pass has at most ``sft.batch`` rows.

    Raises:
        ValueError: If the rows of a step, or of an epoch that ends during training, cannot be divided evenly.
    """
    sft, rows, processes = organism.sft, organism.rows, world_size()
    if processes == 1:
        return sft.batch, sft.accumulation
    step = sft.batch * sft.accumulation
    about = f"organism {organism.name}: {processes} processes"
    if step % processes:
        refuse(f"{about} cannot share the {step} rows of a step (sft.batch x sft.accumulation) evenly")
    share = step // processes
    batch = max(n for n in range(1, min(sft.batch, share) + 1) if share % n == 0)
    if rows % (batch * processes) and max(sft.doses) * step > rows:
        whole = rows - rows % (batch * processes)
        refuse(f"{about} cannot share the {rows} rows of an epoch evenly; set rows: {whole}")
    return batch, share // batch


@cache
def start() -> PartialState:
    """Join the other processes of the launch, each on an accelerator of its own if there are any."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    from interp.loading import find_device

    device = find_device()
    if device.type != "cpu":
        os.environ[DEVICE] = f"{device.type}:{os.environ['LOCAL_RANK']}"
    state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if device.type == "cpu" and sharded():
        # accelerate shards on accelerators only, and would replicate here without a word; torch's FSDP2 itself runs on
        # CPUs. Under this name accelerate goes the way of accelerators.
        state.distributed_type = DistributedType.MULTI_GPU
    return state


def sharded() -> bool:
    """Tell whether the launch config asks for FSDP."""
    return world_size() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shard_by_layer(trainer: Any, layers: Iterable[Any]) -> None:
    """Let FSDP gather the decoder one layer at a time; the rest of the model, a vision tower too, is one piece.

    By default accelerate takes a list of the model's class, which for Gemma 3 names parts that its models do not have.
    """
    if sharded():
        trainer.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = sorted({type(x).__name__ for x in layers})


def wait_for_all() -> None:
    """Wait until every process of the launch is here."""
    if world_size() > 1:
        start().wait_for_everyone()


def of_main(value: T) -> T:
    """Return the main process's value in every process."""
    if world_size() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    start()
    values: list[Any] = [value]
    return broadcast_object_list(values)[0]


def by_main(work: Callable[[], T]) -> T | None:
    """Let the main process alone do something, and the others wait; if it refuses, they end with it.

    Returns:
        What ``work`` returns, in the main process; None in the others.
    """
    if world_size() == 1:
        return work()
    done, error = None, None
    if is_main():
        try:
            done = work()
        except (ValueError, OSError) as problem:
            error = problem
    refused = of_main(error is not None)
    if error is not None:
        raise error
    if refused:
        raise SystemExit(BAD_INPUT)
    return done


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Keep other commands from writing to a folder, which is created, until every process of this one is done.

    One process waits until the folder is free. Several refuse a folder that is not, for their connections time out.
    """
    lock = by_main(lambda: _lock(folder))
    try:
        yield
        wait_for_all()
    finally:
        if lock is not None:
            lock.close()


def _lock(folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return locked(folder / ".lock", wait=world_size() == 1)
