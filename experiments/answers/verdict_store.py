"""Readings of a judge's replies on disk, beside the run's rows: nothing is paid for twice, also after a kill."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from experiments.answers.chat_client import Usage
from experiments.answers.numbers import Reading
from interp.runs.rowlog import RowLog

_FILE: ContextVar["VerdictStore | None"] = ContextVar("verdict_store", default=None)


class VerdictStore:
    """Readings by the hash of all that decides them; in memory alone without a file. Safe for several threads."""

    def __init__(self, path: Path | None = None) -> None:
        self.path, self.usage, self.reused = path, Usage(), 0
        self._lock = threading.Lock()
        self._log: RowLog | None = None
        self._readings: dict[str, Reading] = {}

    def load(self) -> None:
        """Read the file, once; a reading that a kill cut short is removed."""
        if self.path and not self._log:
            self._log = RowLog(self.path, repair=True)
            self._readings = {r["key"]: Reading(r["score"], r["outcome"]) for r in self._log.rows()}

    def get(self, key: str) -> Reading | None:
        """Return a stored reading."""
        return self._readings.get(key)

    def add(self, key: str, reading: Reading) -> None:
        """Store a reading and return when it is on the disk."""
        with self._lock:
            self._readings[key] = reading
            if self._log:
                self._log.append([{"key": key, "score": reading.score, "outcome": reading.outcome}])

    def summary(self) -> str:
        """Return what was asked, in one line; empty if nothing was."""
        u = self.usage
        if not u.requests:
            return ""
        tokens = f"{u.prompt_tokens} tokens in, {u.completion_tokens} out"
        return f"judge: {u.requests} requests ({u.repeated} of them repeated), {tokens}; {self.reused} replies reused"


@contextmanager
def verdicts_beside(folder: Path) -> Iterator[None]:
    """Keep the readings of every judge made inside in a file of ``folder``; at the end print what was asked."""
    store = VerdictStore(folder / "verdicts.jsonl")
    token = _FILE.set(store)
    try:
        yield
    finally:
        _FILE.reset(token)
        if line := store.summary():
            print(line, file=sys.stderr)


def current_store() -> VerdictStore:
    """Return the store of the run that is under way, or one in memory."""
    return _FILE.get() or VerdictStore()
