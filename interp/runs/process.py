"""A command as a process: it prints on any terminal, and SIGTERM stops it as Ctrl-C does."""

import io
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143
"""Exit status after Ctrl-C and after SIGTERM."""
BAD_INPUT = 2
"""Exit status after bad input."""


class TerminationError(KeyboardInterrupt):
    """SIGTERM arrived: the command ends as after Ctrl-C, with another exit status."""


def exit_status(interrupt: KeyboardInterrupt) -> int:
    """Return the exit status of a command that was interrupted or terminated."""
    return TERMINATED if isinstance(interrupt, TerminationError) else INTERRUPTED


def one_line(error: Exception) -> str:
    """Return an error's message as one line; of a file error, the file's name and the problem."""
    text = str(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split())


def refuse_repeated(words: Sequence[str], repeatable: Collection[str] = ()) -> None:
    """Refuse an option that a command line gives twice, of which the last would count.

    Args:
        words: The command line.
        repeatable: Options that may be given several times.

    Raises:
        ValueError: If there is one.
    """
    names = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    if twice := next((name for i, name in enumerate(names) if name in names[:i] and name not in repeatable), None):
        raise ValueError(f"{twice}: given twice")


@contextmanager
def orderly() -> Iterator[None]:
    """Raise ``TerminationError`` on SIGTERM; print a character that the terminal cannot show as a question mark."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set a handler
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(*_: object) -> NoReturn:
    raise TerminationError
