"""Progress of a long job: live on a terminal, a line in ten seconds in a log."""

import os
import sys
from typing import Any


def progress_bar(title: str, total: int | None, *, done: int = 0, unit: str = "row") -> Any:
    """Return a bar with counts and the time left: live on a terminal, a line in ten seconds in a log.

    A worker process draws its own on the line that ``SEMCON_BAR`` names.
    """
    from tqdm import tqdm

    live = sys.stderr.isatty()
    every, line = (0.1, os.environ.get("SEMCON_BAR")) if live else (10.0, "0")  # no cursor movements in a log
    at = None if line is None else int(line)
    return tqdm(desc=title, total=total, initial=done, unit=unit, mininterval=every, leave=False, position=at)
