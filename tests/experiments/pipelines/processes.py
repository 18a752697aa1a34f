"""Commands that run as processes of their own: their workers, and waiting for what they do."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def children(process: subprocess.Popen) -> list[Path]:
    """Return the workers; none is known where there is no /proc."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [Path("/proc") / pid for pid in path.read_text().split()] if path.exists() else []


HANGS = 1200
"""Seconds after which something hangs, however busy the machine; no expectation of how long it takes."""


def wait_until(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + HANGS
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.02)
