"""Sampled answers on disk as they come from a server: nothing is asked for twice after a kill."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from interp.runs.rowlog import RowLog

FILE = "answers.jsonl"


@dataclass(frozen=True)
class Sampled:
    """An answer as the server gave it: its text, its token ids if the server shows them, and whether it ended."""

    text: str
    token_ids: tuple[int, ...]
    ended: bool


class AnswerStore:
    """Answers by the hash of all that decides them; safe for several threads.

    Args:
        path: File of the answers; None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._log = RowLog(path, repair=True) if path else None
        self._lock, self._closed = threading.Lock(), False
        rows = self._log.rows() if self._log else []
        self._answers = {r["key"]: Sampled(r["text"], tuple(r["token_ids"]), r["ended"]) for r in rows}

    def get(self, key: str) -> Sampled | None:
        """Return a stored answer."""
        return self._answers.get(key)

    def add(self, key: str, answer: Sampled) -> None:
        """Store an answer and return when it is on the disk."""
        with self._lock:
            if self._closed or key in self._answers:
                return
            self._answers[key] = answer
            if self._log:
                cells = {"text": answer.text, "token_ids": list(answer.token_ids), "ended": answer.ended}
                self._log.append([{"key": key, **cells}])

    def close(self) -> None:
        """Store nothing more, so that a thread that still waits cannot write to a run that has ended."""
        with self._lock:
            self._closed = True

    def __len__(self) -> int:
        return len(self._answers)
