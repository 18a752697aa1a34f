"""Time several ways to do the same work, taking turns; measure the peak memory of one."""

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
    """Return the median seconds of each entrant over ``rounds`` rounds; in each round every entrant runs once.

    Every other round runs in reverse order, so that no entrant always follows the same other one.

    Args:
        entrants: Functions to time, by name.
        rounds: Timed rounds.
        check: Called with the results of an untimed first round, by name; raises if the entrants did different work.
        before: Run before every turn, untimed.
        warm: Run in the untimed first round in place of ``entrants``, such as less of the same work.
    """
    first = {}
    for name, run in (warm or entrants).items():
        before()
        first[name] = run()
    if check is not None:
        check(first)
    del first
    gc.collect()
    gc.freeze()  # exempt the libraries' own objects from the collection before every turn
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
    """Return the peak rise in resident memory while ``run`` runs, in megabytes; None where it cannot be measured.

    Memory freed by earlier runs is handed back to the system first. Linux only.
    """
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        CLEAR.write_text("5", encoding="ascii")  # resets the recorded peak to the current resident memory
    except OSError:
        return None
    start = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - start) / 1e6


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
