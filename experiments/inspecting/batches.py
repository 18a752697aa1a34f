"""Requests that come one by one and are answered together, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")
R = TypeVar("R")
PAUSE = 0.02
"""Seconds that the first request of a batch waits for those that come with it."""


@dataclass(eq=False)
class _Waiting:
    """A request without a reply yet, or with its reply or the error in its place."""

    item: Any
    done: bool = False
    reply: Any = None
    error: Exception | None = None


@dataclass(eq=False)
class Batches(Generic[T, R]):
    """Answers all requests that wait in one call, in another thread, so that the next ones can gather meanwhile.

    Args:
        together: Returns the replies to several requests, in their order. What it raises, all of them raise.
    """

    together: Callable[[Sequence[T]], Sequence[R]]
    _waiting: list[_Waiting] = field(default_factory=list)

    @cached_property
    def _turn(self) -> anyio.Lock:
        return anyio.Lock()

    async def ask(self, item: T) -> R:
        """Return the reply to one request, answered together with all others that wait when its turn comes."""
        own = _Waiting(item)
        self._waiting.append(own)
        try:
            async with self._turn:
                if not own.done:
                    await anyio.sleep(PAUSE)
                    await self._answer(list(self._waiting))
        finally:
            if own in self._waiting:
                self._waiting.remove(own)
        if own.error is not None:
            raise own.error
        return own.reply

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            replies = await anyio.to_thread.run_sync(self.together, [w.item for w in batch])
            for waiting, reply in zip(batch, replies, strict=True):
                waiting.reply = reply
        except Exception as error:
            for waiting in batch:
                waiting.error = error
        for waiting in batch:
            waiting.done = True
            if waiting in self._waiting:
                self._waiting.remove(waiting)
