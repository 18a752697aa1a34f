"""Readings of a judge's replies on disk, beside the run's rows: nothing is paid for twice, also after a kill."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from experiments.answers.chat_client import Usage
from experiments.answers.numbers import Reading
from interp.runs.rowlog import RowLog
from interp.runs.run import Run

FILE, COUNTS = "verdicts.jsonl", "judge_requests"
"""A run's file of readings, and the entry of its manifest that counts them."""
_FILE: ContextVar["VerdictStore | None"] = ContextVar("verdict_store", default=None)


class VerdictStore:
    """Readings by the hash of all that decides them; in memory alone without a file. Safe for several threads.

    Args:
        path: File of the readings.
        root: Folder of all runs: what another run has asked is not asked again.
    """

    def __init__(self, path: Path | None = None, root: Path | None = None) -> None:
        self.path, self.root, self.usage, self.reused = path, root, Usage(), 0
        self.spent_before = 0.0
        self._lock = threading.Lock()
        self._closed = False
        self._log: RowLog | None = None
        self._readings: dict[str, Reading] = {}
        self._others: dict[str, Reading] | None = None

    def load(self) -> None:
        """Read the file, once; a reading that a kill cut short is removed."""
        if self.path and not self._log:
            self._log = RowLog(self.path, repair=True)
            self._readings = _readings(self._log)

    def adopt(self, keys: Collection[str]) -> None:
        """Copy the readings of other runs that are not stored here yet; they are read once, if one is missing."""
        missing = [key for key in keys if key not in self._readings]
        if missing and self.root and self._others is None:
            paths = sorted(self.root.glob(f"*/*/{FILE}"))
            self._others = {k: r for p in paths if p != self.path for k, r in _readings(RowLog(p)).items()}
        self._store({key: self._others[key] for key in missing if self._others and key in self._others})

    def get(self, key: str) -> Reading | None:
        """Return a stored reading."""
        return self._readings.get(key)

    def add(self, key: str, reading: Reading) -> None:
        """Store a reading and return when it is on the disk."""
        self._store({key: reading})

    def close(self) -> None:
        """Store nothing more, so that a thread that still waits for a reply cannot write to a run that has ended."""
        with self._lock:
            self._closed = True

    def _store(self, readings: Mapping[str, Reading]) -> None:
        with self._lock:
            if self._closed:
                return
            self._readings.update(readings)
            if self._log:
                rows = [{"key": key, "score": r.score, "outcome": r.outcome} for key, r in readings.items()]
                self._log.append(rows)

    def counts(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was asked in this session and ``earlier`` ones of the same run, and what came of it.

        ``requests`` counts those of the server, of which ``repeated`` were tried again; ``reused`` the replies that
        were not asked for again; ``readings`` the outcomes of all replies of the run.
        """
        names = ("requests", "repeated", "prompt_tokens", "completion_tokens")
        session = {**{name: getattr(self.usage, name) for name in names}, "reused": self.reused}
        counts: dict[str, Any] = {name: earlier.get(name, 0) + n for name, n in session.items()}
        with self._lock:
            counts["readings"] = dict(sorted(Counter(r.outcome for r in self._readings.values()).items()))
        return counts | ({"price": self.usage.price} if self.usage.price else {})

    def spent(self) -> float:
        """Return what was spent on this run at the price, in earlier sessions too."""
        return self.spent_before + self.usage.cost()

    def summary(self) -> str:
        """Return what was asked, in one line; empty if nothing was."""
        return f"judge: {self.usage.summary()}; {self.reused} replies reused" if self.usage.requests else ""


def _readings(log: RowLog) -> dict[str, Reading]:
    return {r["key"]: Reading(r["score"], r["outcome"]) for r in log.rows()}


@contextmanager
def verdicts_beside(run: Run) -> Iterator[Callable[[], None]]:
    """Keep the readings of every judge made inside in a file of a run's folder; at the end print what was asked.

    Yields:
        A function that writes what was asked so far to the run's manifest, as ``judge_requests``.
    """
    store, earlier = VerdictStore(run.path / FILE, run.root), run.manifest.get(COUNTS, {})
    store.spent_before = _cost_of(earlier)

    def note() -> None:
        if store.usage.requests or store.reused:
            run.note(**{COUNTS: store.counts(earlier)})

    token = _FILE.set(store)
    try:
        yield note
    finally:
        _FILE.reset(token)
        store.close()
        with suppress(OSError):  # what ended the run is reported, not that its manifest cannot be written either
            note()
        if line := store.summary():
            print(line, file=sys.stderr)


def _cost_of(counts: Mapping[str, Any]) -> float:
    """Return what the requests of earlier sessions cost."""
    tokens_in, tokens_out = (int(counts.get(name, 0)) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(prompt_tokens=tokens_in, completion_tokens=tokens_out, price=str(counts.get("price", ""))).cost()


def current_store() -> VerdictStore:
    """Return the store of the run that is under way, or one in memory."""
    return _FILE.get() or VerdictStore()
