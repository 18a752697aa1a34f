"""Seconds of several ways to do the same work, taking turns; and the memory that one of them needs."""

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Entrant = Callable[[], Any]


def race(
    entrants: Mapping[str, Entrant],
    rounds: int,
    *,
    check: Callable[[dict[str, Any]], None] | None = None,
    before: Callable[[], object] = lambda: None,
    warm: Mapping[str, Entrant] | None = None,
) -> dict[str, float]:
    """Return the median seconds of each entrant over ``rounds`` in which each has one turn.

    Every other round runs in reverse order, so that no side always follows the same other.

    Args:
        entrants: What to time, by name.
        rounds: Turns of each.
        check: Called with what each returned in an untimed first round; raises if they did different work.
        before: Run before every turn, untimed.
        warm: What to run in the untimed first round in place of ``entrants``, such as less of the same work.
    """
    first = {}
    for name, run in (warm or entrants).items():
        before()
        first[name] = run()
    if check is not None:
        check(first)
    del first
    gc.collect()
    gc.freeze()  # what the libraries hold is not searched again before every turn
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    for turn in range(rounds):
        for name in list(entrants)[:: -1 if turn % 2 else 1]:
            before()
            gc.collect()
            start = time.perf_counter()
            entrants[name]()
            seconds[name].append(time.perf_counter() - start)
    gc.unfreeze()
    return {name: median(values) for name, values in seconds.items()}


def peak_memory(run: Entrant) -> float | None:
    """Return by how many megabytes the resident memory rises at most while ``run`` runs; None where none can tell.

    What earlier runs freed is handed back to the system first, where the system is Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        CLEAR.write_text("5", encoding="ascii")  # sets the peak back to what is resident now
    except OSError:
        return None
    start = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - start) / 1e6


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
