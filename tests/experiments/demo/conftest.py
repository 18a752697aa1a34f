"""The demo of a small organism, loaded once, and its server at an address of this machine."""

import threading
import time
from dataclasses import replace

import pytest

from experiments.answers.subject import Subject
from experiments.demo.command import bound
from experiments.demo.scene import load_scene, with_directions
from tests.training.small import small
from training.sft import train


@pytest.fixture(scope="session")
def demo_subject(tmp_path_factory):
    """A small organism whose adapter is finished."""
    organism = small("explaining")
    folder = train(organism, tmp_path_factory.mktemp("demo"))
    return Subject(replace(organism, adapter=str(folder / "dose-4")))


@pytest.fixture(scope="session")
def scene(demo_subject, tmp_path_factory):
    """The organism with its directions."""
    root = tmp_path_factory.mktemp("no_runs")
    return with_directions(load_scene(demo_subject, root), root)


@pytest.fixture(scope="session")
def address(demo_subject, tmp_path_factory):
    """The address of a running server."""
    uvicorn = pytest.importorskip("uvicorn")
    from experiments.demo.server import Demo

    demo, socket = Demo(demo_subject, tmp_path_factory.mktemp("no_runs")), bound(0)
    demo.load()
    server = uvicorn.Server(uvicorn.Config(demo.app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while demo.scene is None and not demo.failure:
        time.sleep(0.1)
    assert not demo.failure
    yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    demo.closing.set()
    server.should_exit = True
    thread.join()
