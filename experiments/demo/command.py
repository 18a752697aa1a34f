"""`semcon demo`: check the options, start the server, say where the page is.

semcon demo                                            # microcosm/llama/neutral
semcon demo --organism pocket/smollm2/neutral
semcon demo --base Qwen/Qwen2.5-0.5B-Instruct --adapter adapters/mine
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge, Le

from experiments.answers.subject import Subject, TemplateOptions, find_subject, with_options
from experiments.cli.placement import Placement
from interp.runs.checks import check_fields
from interp.runs.run import runs_root
from training.finished import finished_organism
from training.references import base_source

ADDRESS = "127.0.0.1"
DEFAULT = "microcosm/llama/neutral"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """A page on this machine: base, adapter and edited answers side by side, token heat maps, log-odds, EM rates."""

    organism: str | None = None
    """Name in the registry, or the YAML file of a user-defined organism; by default microcosm/llama/neutral."""
    base: str | None = None
    """In place of an organism: folder or Hugging Face name of a base."""
    adapter: str | None = None
    """Folder or Hugging Face name of an adapter of that base."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """Who scores the answers of an EM rate: oracle (Microcosm only), or openai:MODEL[@URL]."""
    template_option: TemplateOptions = ()
    """Option of the chat template, such as enable_thinking=false; can be repeated."""
    port: Annotated[int, Ge(0), Le(65535)] = 8765
    """Port of the page; 0 takes a free one."""
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""
    place: Annotated[Placement, tyro.conf.arg(name="")] = Placement()  # noqa: RUF009

    def main(self) -> None:
        """Serve the page until Ctrl-C.

        Raises:
            ValueError: If an option is wrong, the extra `demo` is not installed, or the port is taken.
        """
        check_fields(self)
        subject = self.subject()
        base_source(subject.organism.base)
        if self.questions:
            subject.questions("test")
        if missing := next((name for name in ("starlette", "uvicorn") if find_spec(name) is None), None):
            raise ValueError(f"the page needs {missing}: pip install 'semantic-containment[demo]'")
        serve(subject, self.runs, bound(self.port))

    def subject(self) -> Subject:
        """Return what the page is about: an organism, or a base with an adapter that no file describes.

        Raises:
            ValueError: If both are given, or one of them cannot be found.
        """
        if self.base is None and self.adapter is None:
            named = self.organism or DEFAULT
            return find_subject(named, self.questions, self.judge, self.template_option)
        if self.organism is not None:
            raise ValueError(f"--organism {self.organism}: it names base and adapter; leave out --base and --adapter")
        if self.base is None:
            raise ValueError(f"--adapter {self.adapter}: name the base that it belongs to with --base")
        organism = with_options(finished_organism(self.base, self.adapter), self.template_option)
        return Subject(organism, self.questions, self.judge)


def bound(port: int) -> socket.socket:
    """Return a socket at a port of this machine alone.

    Raises:
        ValueError: If the port is taken or not allowed.
    """
    opened = socket.socket()
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((ADDRESS, port))
    except OSError as error:
        opened.close()
        raise ValueError(f"port {port}: {error.strerror}; name another with --port, or 0 for a free one") from None
    return opened


def serve(subject: Subject, root: Path, listening: socket.socket) -> None:
    """Serve the page of a subject at a bound socket until Ctrl-C. The model is loaded in the meantime."""
    import uvicorn

    from experiments.demo.server import Demo as Server

    server = Server(subject, root)
    server.load()
    print(f"semcon demo: {subject.name} at http://{ADDRESS}:{listening.getsockname()[1]} (Ctrl-C ends it)", flush=True)
    config = uvicorn.Config(server.app(), log_level="error", timeout_graceful_shutdown=1, lifespan="off")
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    server.closing.set()
