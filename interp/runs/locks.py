"""A lock that one process holds while it writes, also on a file system without locks.

The kernel's lock ends with its process. Where the file system has none, a file beside it that only one process can
create takes its place; it names the host and the process. One that was left by a process of this host is taken over;
one of another host has to be deleted by hand: nobody here can know whether its process has ended.
"""

import errno
import fcntl
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What ``flock`` answers on a file system without locks."""
_PAUSE = 0.2  # seconds between two attempts to create the file


@dataclass(frozen=True)
class Lock:
    """A lock that is held until it is closed, or its process ends."""

    file: IO[bytes]
    substitute: Path | None = None
    """The file that stands for the lock, on a file system without locks."""

    def close(self) -> None:
        """Release the lock."""
        if self.substitute and not self.file.closed:
            self.substitute.unlink(missing_ok=True)
        self.file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def locked(path: Path, *, wait: bool = False) -> Lock:
    """Open the lock file ``path``, which is created, under an exclusive lock; see ``hold``."""
    return hold(path.open("ab"), path, wait=wait)


def hold(file: IO[bytes], path: Path, *, wait: bool = False) -> Lock:
    """Lock an open file for this process alone; closing the lock closes the file.

    Args:
        file: The open file.
        path: Its path.
        wait: Wait until another process releases the lock.

    Raises:
        ValueError: If another process holds the lock and ``wait`` is False; the file is then closed.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return Lock(file)
    except BlockingIOError as error:
        file.close()
        raise ValueError(f"{path.parent}: another process is writing here") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            file.close()
            raise
    substitute = path.with_name(f".{path.name.lstrip('.')}.held")
    while not _created(substitute):
        if not wait:
            file.close()
            who = f"another process is writing here ({_owner(substitute)})"
            raise ValueError(f"{substitute}: {who}; if it has ended, delete this file")
        time.sleep(_PAUSE)
    return Lock(file, substitute)


def _created(path: Path) -> bool:
    """Create the file that stands for a lock, after moving one aside whose process has ended."""
    owner = _owner(path)
    if owner and _has_ended(owner):
        aside = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.rename(aside)
        except FileNotFoundError:  # another process was faster
            return False
        if aside.read_text() != owner:  # the other process has created its own in between
            aside.rename(path)
            return False
        aside.unlink()
    try:
        with path.open("x") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        return False
    return True


def _owner(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _has_ended(owner: str) -> bool:
    host, _, process = owner.rpartition(" ")
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
