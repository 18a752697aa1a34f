"""Ask many things of a server at once, each exactly once, and lose no reply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from experiments.answers.chat_client import ChatClient, StoppedError

T = TypeVar("T")
Ask = Callable[[ChatClient, str, T], None]
"""Asks one thing and stores the reply before it returns."""


def ask_all(
    client: ChatClient,
    missing: Mapping[str, T],
    ask: Ask[T],
    *,
    workers: int,
    bar: AbstractContextManager[Any],
    close: Callable[[], None],
    progress: Callable[[int], object] | None = None,
) -> None:
    """Ask several at once, in threads that end with the process: Ctrl-C waits for no reply.

    After any other failure what is under way is still stored, because it is paid for.

    Args:
        client: Client of the server; closed by the caller.
        missing: What to ask, by key.
        ask: Asks for one of them.
        workers: Requests at once.
        bar: Progress bar of all of them.
        close: Called when the process is interrupted, so that no late reply is written to a run that has ended.
        progress: Called with the number of replies that just came.
    """
    waiting: SimpleQueue[tuple[str, T]] = SimpleQueue()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    for item in missing.items():
        waiting.put(item)
    with bar as shown:
        work = partial(_work, client, waiting, ended, ask)
        threads = [Thread(target=work, daemon=True) for _ in range(min(workers, len(missing)))]
        for thread in threads:
            thread.start()
        try:
            for _ in missing:
                if error := ended.get():
                    raise error
                shown.update(1)
                if progress:
                    progress(1)
        except Exception:
            client.stop.set()
            for thread in threads:
                thread.join()
            raise
        except BaseException:
            client.stop.set()
            close()
            raise


def _work(
    client: ChatClient,
    waiting: SimpleQueue[tuple[str, T]],
    ended: SimpleQueue[BaseException | None],
    ask: Ask[T],
) -> None:
    """Ask until nothing waits or another request has failed for good."""
    while not (waiting.empty() or client.stop.is_set()):
        try:
            key, thing = waiting.get_nowait()
            ask(client, key, thing)
            ended.put(None)
        except (Empty, StoppedError):  # another thread was faster, or has put the reason
            return
        except BaseException as error:
            client.stop.set()
            ended.put(error)
