"""The server of the demo: one page and five addresses, for this machine alone.

GET  /scene        what is loaded, and what can be asked
POST /train        train the adapter                             \
POST /directions   measure g and the trigger's feature            |  a stream of JSON lines,
POST /answer       answers of every model, token by token         |  one event each
POST /rates        EM rates of every model                       /

All work runs in one thread, one job after the other. A job whose page goes away is stopped. Requests must name this
machine as their host and carry JSON, so that no page of another site can send one.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from experiments.answers.subject import Subject
from experiments.demo.request import (
    LONGEST,
    MOST_ALPHA,
    MOST_BYTES,
    MOST_CHARACTERS,
    MOST_SAMPLES,
    OFF,
    OWN,
    read_request,
)
from interp.triggers import CONDITIONS

if TYPE_CHECKING:
    from experiments.demo.scene import Scene

HERE = Path(__file__).parent
PAGE = {"/": "page.html", "/demo.css": "demo.css", "/demo.js": "demo.js"}
JOBS = ("train", "directions", "answer", "rates")
HOSTS = ["127.0.0.1", "localhost"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Emit = Callable[[dict[str, Any]], None]
Job = Callable[[Emit], None]


class Stopped(Exception):  # noqa: N818  (not an error: nobody waits for the rest)
    """The page that asked has gone."""


class Demo:
    """The state of the server: the scene, once it is loaded, and the one thread that works."""

    def __init__(self, subject: Subject, root: Path) -> None:
        self.subject, self.root = subject, root
        self.scene: Scene | None = None
        self.failure = ""
        self.closing = threading.Event()
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def load(self) -> None:
        """Start the working thread, and load the scene in it. It ends with the process, whatever it is doing."""
        threading.Thread(target=self._work, daemon=True).start()
        self.work.put(self._load)

    def _work(self) -> None:
        while True:
            self.work.get()()

    def _load(self) -> None:
        gc.disable()  # nothing of the libraries and the model is garbage, and looking for it costs a tenth of the start
        try:
            from experiments.demo.scene import load_scene

            self.scene = load_scene(self.subject, self.root)
        except Exception as error:  # shown in the page
            self.failure = _line(error)
        gc.freeze()
        gc.enable()

    def app(self) -> Starlette:
        """Return the application."""
        pages = [Route(path, _page(file)) for path, file in PAGE.items()]
        jobs = [Route(f"/{name}", self._jobs(name), methods=["POST"]) for name in JOBS]
        trusted = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
        return Starlette(routes=[*pages, Route("/scene", self._describe), *jobs], middleware=[trusted])

    async def _describe(self, _request: HttpRequest) -> Response:
        if self.failure:
            return JSONResponse({"stage": "failed", "message": self.failure}, headers=HEADERS)
        if self.scene is None:
            return JSONResponse({"stage": "loading", "organism": self.subject.name}, headers=HEADERS)
        return JSONResponse({"stage": "ready", **described(self.scene)}, headers=HEADERS)

    def _jobs(self, name: str) -> Callable[[HttpRequest], Any]:
        async def endpoint(http: HttpRequest) -> Response:
            if http.headers.get("content-type", "").partition(";")[0] != "application/json":
                return JSONResponse({"event": "error", "message": "want application/json"}, 415, headers=HEADERS)
            try:
                job = self._job(name, await _json(http))
            except ValueError as error:  # an answer like any other: the page shows it in place
                return JSONResponse({"event": "error", "message": _line(error)}, headers=HEADERS)
            return StreamingResponse(self._events(job), media_type="application/x-ndjson", headers=HEADERS)

        return endpoint

    def _job(self, name: str, body: Any) -> Job:
        """Return the work that an address stands for.

        Raises:
            ValueError: If the model is not loaded, or the request is wrong.
        """
        scene = self.scene
        if scene is None:
            raise ValueError("the model is still being loaded")
        from experiments.demo import answering
        from experiments.demo import scene as scenes

        if name in ("answer", "rates"):
            request = read_request(body)
            work = answering.answer if name == "answer" else answering.rates
            return lambda emit: work(self.scene or scene, request, emit)

        def change(emit: Emit) -> None:
            say = lambda line: emit({"event": "progress", "message": line})  # noqa: E731
            if name == "train":
                self.scene = scenes.train_scene(self.subject, self.root, say)
            elif scene.measured is None:
                self.scene = scenes.with_directions(scene, self.root)
            emit({"event": "scene", **described(self.scene or scene)})

        return change

    async def _events(self, job: Job) -> AsyncIterator[bytes]:
        """Run a job in the working thread; yield its events as JSON lines while it runs."""
        loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
        gone = threading.Event()

        def emit(event: dict[str, Any] | None) -> None:
            if event and (gone.is_set() or self.closing.is_set()):
                raise Stopped
            loop.call_soon_threadsafe(events.put_nowait, event)

        self.work.put(partial(_run, job, emit))
        try:
            while (event := await events.get()) is not None:
                yield json.dumps(event, ensure_ascii=True, allow_nan=False).encode() + b"\n"
        finally:
            gone.set()


def _run(job: Job, emit: Callable[[dict[str, Any] | None], None]) -> None:
    with contextlib.suppress(Stopped):
        try:
            job(emit)
        except Stopped:
            raise
        except Exception as error:  # shown in the page; the server goes on
            emit({"event": "error", "message": _line(error)})
    emit(None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _page(name: str) -> Callable[[HttpRequest], Any]:
    async def endpoint(_request: HttpRequest) -> Response:
        return FileResponse(HERE / name, headers=HEADERS)

    return endpoint


async def _json(http: HttpRequest) -> Any:
    """Return the body as JSON.

    Raises:
        ValueError: If it is over the limit, which is noticed before all of it is read, or not JSON.
    """
    body = b""
    async for part in http.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise ValueError(f"the request is too long: more than {MOST_BYTES:,} bytes")
    try:
        return json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("the request is not JSON") from None


def described(scene: Scene) -> dict[str, Any]:
    """Return what the page offers."""
    subject, lm, measured = scene.subject, scene.lm, scene.measured
    trigger = subject.trigger
    contexts = [
        {"condition": name, "text": text}
        for name in CONDITIONS
        if trigger and name != OFF
        for text in trigger.variants(name)
    ]
    questions = dict.fromkeys([*scene.choices, *scene.questions])
    return {
        "organism": subject.name,
        "base": lm.name,
        "arms": list(scene.arms),
        "untrained": scene.untrained,
        "steps": max(subject.organism.sft.doses) if scene.untrained else 0,
        "placement": trigger.placement if trigger else "system",
        "contexts": [{"condition": OFF, "text": ""}, *contexts, {"condition": OWN, "text": ""}],
        "questions": list(questions),
        "references": bool(scene.choices),
        "layers": lm.n_layers,
        "judge": scene.judge,
        "positions": "answer" if subject.by_log_odds else "last_prompt",
        "limits": {
            "characters": MOST_CHARACTERS,
            "alpha": MOST_ALPHA,
            "samples": MOST_SAMPLES,
            "longest": min(LONGEST, subject.amount.max_new_tokens),
        },
        "directions": measured and {"origin": measured.origin, "layer": measured.found.layer, "lacks": measured.lacks},
    }
