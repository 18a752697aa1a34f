"""How a server that samples answers is named: its address, and options after commas.

http://localhost:8000/v1
https://node7:8000/v1,model=duck,workers=64,timeout=900,key=VLLM_KEY
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le

from experiments.answers.chat_client import OPENAI, host_of, is_local
from interp.runs.reading import validated


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that samples."""

    url: str
    """Address, up to but without ``/completions``."""
    model: str = ""
    """Name of the model on the server; empty to look for the organism's base or adapter in the server's list."""
    workers: Annotated[int, Ge(1), Le(1024)] = 64
    """Requests at once: the server makes batches of them."""
    timeout: Annotated[float, Gt(0), Le(36000)] = 900.0
    """Seconds before a request is tried again."""
    attempts: Annotated[int, Ge(1), Le(1000)] = 14
    """Attempts per answer; with pauses of at most 60 s about eight minutes: a server may start anew meanwhile."""
    pause: Annotated[float, Gt(0), Le(600)] = 1.0
    """Seconds before the second attempt; doubles up to 60."""
    key: str = ""
    """Environment variable that holds the key; empty for a server that wants none."""

    @property
    def identity(self) -> str:
        """How it stands in a run's config: the address and the speed change no answer, another model does."""
        return self.model or "server"


OPTIONS = ("model", "workers", "timeout", "attempts", "pause", "key")


def read_server(reference: str) -> Server:
    """Read a reference.

    Raises:
        ValueError: If it is no address, or an option is unknown, repeated or out of range.
    """
    url, *words = reference.split(",")
    pairs = [(name, value) for name, _, value in (word.partition("=") for word in words)]
    names = [name for name, _ in pairs]
    host = host_of(url)
    if unknown := next((name for name in names if name not in OPTIONS or names.count(name) > 1), None):
        raise ValueError(
            f"server {host}: option {unknown!r} is unknown or given twice; options are {', '.join(OPTIONS)}"
        )
    texts = {"model", "key"}
    values = {name: value if name in texts else _number(host, name, value) for name, value in pairs}
    server, faults = validated(Server, {"url": url, **values})
    if faults:
        raise ValueError(f"server {host}: {'; '.join(faults)}")
    if not server.key and not is_local(url) and host == OPENAI:
        raise ValueError(f"server {host}: name its key with key=VARIABLE")
    return server


def _number(host: str, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"server {host}: option {name} {text!r}: expected a number") from None
    return int(number) if number.is_integer() and name in ("workers", "attempts") else number
