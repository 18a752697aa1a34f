"""Progress of a long job: a live bar on a terminal, one line every ten seconds in a log."""

import os
import sys
from collections.abc import Callable
from typing import Any

Progress = Callable[[int], object]
"""Called with the number of items just finished, such as ``tqdm.update``."""


def progress_bar(title: str, total: int | None, *, done: int = 0, unit: str = "row", hidden: bool = False) -> Any:
    """Return a bar with counts and the time left: live on a terminal, one line every ten seconds in a log.

    The environment variable ``SEMCON_BAR`` gives a worker process the terminal line of its bar.
    """
    from tqdm import tqdm

    live = sys.stderr.isatty()
    seconds, line = (0.1, os.environ.get("SEMCON_BAR")) if live else (10.0, "0")  # a log takes no cursor movements
    at = None if line is None else int(line)
    options = {"mininterval": seconds, "leave": False, "position": at, "disable": hidden}
    return tqdm(desc=title, total=total, initial=done, unit=unit, **options)
