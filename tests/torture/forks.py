"""Commands in forks of this process: started, killed, and read once they have ended."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.experiments.answers.judge_server import server

_FORK: Any = get_context("fork")


@dataclass(frozen=True)
class Child:
    """A command that runs in a process group of its own."""

    process: Any
    log: Path
    """What it writes to the standard error."""

    def ended(self, seconds: float) -> bool:
        """Wait so long for the command to end; tell whether it has."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def kill(self, group: bool = True) -> None:
        """Kill the command and, if ``group``, its workers."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.join()

    def finish(self) -> tuple[int, str]:
        """Wait for the command; return its exit status and what it wrote to the standard error."""
        self.process.join()
        return self.process.exitcode, self.log.read_text(errors="replace")


def fork(log: Path, main: Callable[[list[str]], int], words: list[str], largest: int | None = None) -> Child:
    """Start a command; if ``largest`` is given, no file can grow beyond so many bytes."""
    process = _FORK.Process(target=_command, args=(log, main, words, largest))
    process.start()
    with contextlib.suppress(OSError):  # here as well as there: a kill can come before it has done so itself
        os.setpgid(process.pid, process.pid)
    return Child(process, log)


def _command(log: Path, main: Callable[[list[str]], int], words: list[str], largest: int | None) -> None:
    os.setpgid(0, 0)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    status = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def served(reply: Callable[..., Any]) -> Iterator[str]:
    """Serve a judge from a fork; yield its address."""
    near, far = _FORK.Pipe()
    process = _FORK.Process(target=_serve, args=(far, reply), daemon=True)
    process.start()
    try:
        yield near.recv()
    finally:
        process.kill()


def _serve(pipe: Any, reply: Callable[..., Any]) -> None:
    with server(reply) as (url, requests):
        pipe.send(url)
        while not signal.sigtimedwait([], 60):
            requests.clear()


@contextmanager
def mounted(folder: Path) -> Iterator[Path | None]:
    """Mount a small disk in memory; None where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    try:
        yield None if done.returncode else folder
    finally:
        if not done.returncode:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, option: str) -> None:
    """Change the size of a disk in memory, or whether it can be written."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)
