"""Locks: one writer at a time, also where the file system has none, and none left behind by a process that ended."""

import errno
import fcntl
import socket
import subprocess
import sys

import pytest

from interp.runs.locks import locked
from interp.runs.run import Run


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_without_locks_a_file_stands_for_one(tmp_path, no_locks):
    with Run.open(tmp_path, "coin", {}) as run:
        with pytest.raises(ValueError, match=r"\.lock\.held: another process is writing here \("):
            Run.open(tmp_path, "coin", {})
        run.append([{"key": "a"}])
        run.finish()
    assert not list(run.path.glob("*held*"))
    assert Run.open(tmp_path, "coin", {}).complete


def test_a_lock_file_of_a_process_that_ended_is_taken_over(tmp_path, no_locks):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    held = tmp_path / ".lock.held"
    held.write_text(f"{socket.gethostname()} {ended.stdout.strip()}")
    locked(tmp_path / ".lock").close()
    for owner in (f"elsewhere {ended.stdout.strip()}", f"{socket.gethostname()} 1", ""):
        held.write_text(owner)
        with pytest.raises(ValueError, match="if it has ended, delete this file") as raised:
            locked(tmp_path / ".lock")
        assert "\n" not in str(raised.value)


def test_another_error_is_not_taken_for_a_missing_lock(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        locked(tmp_path / ".lock")
