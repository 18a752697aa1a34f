"""Experiments as tasks of a Ray cluster: one task per run, in a folder of runs that every node shares.

A run has its results under its hash, and continues where it stopped. So a task of a lost node is simply started again
on another one: what it had finished is read, never measured twice. Ray itself schedules, retries and watches the nodes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from experiments.spec import Experiment, run_experiment
from interp.runs.provenance import package_versions
from interp.runs.table import Row

RETRIES = 5
"""How often a run is started again whose node or process was lost. Its own errors are reported, never tried again."""
LOCAL = "local"
"""In place of an address: a cluster of this machine alone, which ends with the command."""
PATIENCE = 5.0
"""Seconds to wait for the cluster's head to answer."""
NODE_PATIENCE = 120.0
"""Seconds for a node to start a process and look for the folder of runs."""
PASSED_ON = "SEMCON_"
"""Environment variables that reach the nodes. Keys of judges do not: they belong to the nodes' own environment."""


class Tasks:
    """Experiments as tasks of a cluster; used as ``workers.Workers`` is."""

    def __init__(self, root: Path, address: str | None, gpus: float) -> None:
        self.root, self.gpus = root.resolve(), gpus
        self.running: dict[Any, int] = {}
        _connect(address)
        try:
            _check_gpus(gpus)
            _check_nodes(self.root)
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> Tasks:
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()  # ends the tasks that still run: they continue another time

    def free(self) -> int:
        """Return how many experiments can start at once: Ray itself lets tasks wait for room."""
        return sys.maxsize

    def start(self, number: int, experiment: Experiment) -> None:
        """Start an experiment as a task."""
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=RETRIES, retry_exceptions=False)(_cell)
        self.running[task.remote(experiment, str(self.root), str(Path.cwd()), _environment())] = number

    def ended(self) -> tuple[int, list[Row] | Exception]:
        """Wait until an experiment ends; return its number, and its table or error."""
        (done, *_), _ = ray.wait(list(self.running))
        return self.running.pop(done), _result(done)


def _result(done: Any) -> list[Row] | Exception:
    try:
        return ray.get(done)
    except RayError as error:
        raise OSError(
            f"a run was lost {RETRIES + 1} times with its node or process, maybe for lack of memory ({_line(error)}); "
            "the same command continues"
        ) from error


def _cell(experiment: Experiment, root: str, folder: str, environment: dict[str, str]) -> list[Row] | Exception:
    """Run an experiment on a node; return its table, or its error as it was raised."""
    _settle(folder, environment)
    try:
        return run_experiment(experiment, Path(root), wait=True)[1]
    except Exception as error:
        return error


def _settle(folder: str, environment: dict[str, str]) -> None:
    """Make a process of a node like a worker process: folder, environment, one thread, no bars."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    os.chdir(folder)
    os.environ.update(environment)
    torch.set_num_threads(1)
    disable_progress_bar()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def _connect(address: str | None) -> None:
    """Join a cluster, or start one on this machine.

    Raises:
        ValueError: If there is none, or it does not answer.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    if where.startswith("ray://"):
        raise ValueError(f"--ray-address {where}: expected HOST:PORT of the head, from a machine of the cluster")
    if where not in ("auto", LOCAL):
        _check_reachable(where)
    with _own_signals():
        try:
            dashboard = False if where == LOCAL else None  # a cluster that is there has its own, or none
            ray.init(where, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
        except Exception as error:  # Ray raises plain ones too
            if where == "auto":
                hint = "start one with `ray start --head`, or name --ray-address HOST:PORT or local"
                raise ValueError(f"--executor ray: no Ray cluster on this machine; {hint}") from error
            raise ValueError(f"--ray-address {where}: {_line(error)}") from error


def _check_reachable(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"--ray-address {address}: no cluster answers there ({_line(error)})") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the command's handler of SIGTERM, which Ray replaces."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)


def _check_gpus(gpus: float) -> None:
    most = max((node["Resources"].get("GPU", 0) for node in _alive()), default=0)
    if gpus > most:
        raise ValueError(f"--gpus-per-run {gpus:g}: no node of the cluster has more than {most:g}")


def _check_nodes(root: Path) -> None:
    """Refuse a node that does not see the folder of runs, or has other packages than this machine.

    Raises:
        ValueError: If there is one; names it.
    """
    root.mkdir(parents=True, exist_ok=True)
    mark, text = root / f".shared-{token_hex(8)}", token_hex(16)
    mark.write_text(text)
    try:
        seen = {node["NodeID"]: _on(node, _look).remote(str(mark), str(Path.cwd())) for node in _alive()}
        for node in _alive():
            if node["NodeID"] in seen:
                _judge(node["NodeManagerAddress"], seen[node["NodeID"]], text, root)
    finally:
        mark.unlink(missing_ok=True)


def _judge(name: str, answer: Any, text: str, root: Path) -> None:
    try:
        read, folder, versions = ray.get(answer, timeout=NODE_PATIENCE)
    except GetTimeoutError as error:
        raise ValueError(f"--executor ray: node {name} did not answer in {NODE_PATIENCE:g} seconds") from error
    except RayError as error:
        raise ValueError(f"--executor ray: node {name} cannot run the suite ({_line(error)})") from error
    if read != text:
        raise ValueError(f"{root}: node {name} does not see this folder of runs; it must be one that all nodes share")
    if not folder:
        raise ValueError(f"{Path.cwd()}: node {name} does not see this folder; start the command from a shared one")
    if other := {p: v for p, v in package_versions().items() if versions.get(p) != v}:
        package, version = next(iter(other.items()))
        raise ValueError(f"--executor ray: node {name} has {package} {versions.get(package, 'not')}, not {version}")


def _look(mark: str, folder: str) -> tuple[str | None, bool, dict[str, str]]:
    """Return, on a node, what it reads of a marked file, whether it sees a folder, and its packages."""
    path = Path(mark)
    return path.read_text() if path.is_file() else None, Path(folder).is_dir(), package_versions()


def _on(node: dict[str, Any], function: Callable[..., Any]) -> Any:
    here: Any = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(function)


def _alive() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _line(error: BaseException) -> str:
    """Return the last line of an error's message: of a task it is the error, without the trace on the node."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
