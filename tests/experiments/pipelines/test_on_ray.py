"""A grid on a real Ray cluster of two nodes, of which one is killed in the middle: the tables of one process."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from secrets import token_hex

import pytest

from experiments.pipelines.workers import Executor, run_stages
from experiments.spec import Experiment, run_experiment
from interp.models import AdapterError
from interp.runs.table import Row, row, write_table
from tests.experiments.coin import Broken, Coin

ROOT = Path(__file__).parents[3]
LOST = Broken(seed=7, live=False)
STAGES: list[list[Experiment]] = [
    [*(Coin(seed=seed, chunks=4, pause=0.5) for seed in range(6)), LOST],
    [Coin(seed=9, chunks=2)],
]


@pytest.fixture(scope="module", autouse=True)
def environment():
    """Set what Ray reads when it is imported: servers on the loopback, no usage statistics, a folder of its own."""
    folder = tempfile.mkdtemp(prefix="ray")  # its sockets need a short path
    (Path(folder) / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", token_hex(32))  # else one would be written into the home folder
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as there: every address is 127.0.0.1
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, without a dashboard."""
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed (pip install '.[ray]')")
    handler = signal.getsignal(signal.SIGTERM)
    here = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    nodes = utils.Cluster(initialize_head=True, head_node_args=here)
    nodes.add_node(**here)
    signal.signal(signal.SIGTERM, handler)  # a node replaces it
    yield nodes
    nodes.shutdown()


def rescued(experiment: Experiment, error: Exception) -> list[Row]:
    assert experiment == LOST and type(error) is AdapterError  # as it was raised on the node
    return [row(experiment=experiment.name, metric=str(error))]


def serial(root: Path) -> list[Row]:
    rows: list[Row] = []
    for experiment in (experiment for stage in STAGES for experiment in stage):
        try:
            rows += run_experiment(experiment, root)[1]
        except AdapterError as error:
            rows += rescued(experiment, error)
    return rows


def unfinished(root: Path) -> set[Path]:
    """The runs that a node is in the middle of."""
    runs = {path.parent for path in root.glob("coin/*/rows*")}
    return {run for run in runs if not (run / "table.csv").exists()}


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
def test_what_a_cluster_cannot_do_is_refused_before_any_work(cluster, tmp_path):
    from experiments.pipelines import on_ray

    with pytest.raises(ValueError, match="--gpus-per-run 1: no node of the cluster has more than 0"):
        run(cluster, tmp_path, gpus_per_run=1)
    on_ray._connect(cluster.address)
    try:
        answer = on_ray._on(on_ray._alive()[1], on_ray._look)
        elsewhere = answer.remote(str(tmp_path / "only here"), str(tmp_path))
        with pytest.raises(ValueError, match=rf"^{tmp_path}: node n1 does not see this folder of runs; it must be one"):
            on_ray._judge("n1", elsewhere, "text", tmp_path)
        (tmp_path / "mark").write_text("text")
        with pytest.raises(ValueError, match="node n1 does not see this folder; start the command from a shared one"):
            on_ray._judge("n1", answer.remote(str(tmp_path / "mark"), str(tmp_path / "none")), "text", tmp_path)
    finally:
        on_ray.ray.shutdown()
    assert not list(tmp_path.glob("coin/*"))


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
def test_a_node_is_killed_and_the_tables_are_those_of_one_process(cluster, tmp_path):
    root, killed = tmp_path / "cluster", []

    def kill_a_node() -> None:
        while len(unfinished(root)) < 2:  # one on each node, which has one core
            time.sleep(0.02)
            if done.is_set():
                return
        killed.extend(unfinished(root))
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    done, other = threading.Event(), threading.Thread(target=kill_a_node)
    other.start()
    try:
        rows = run(cluster, root)
    finally:
        done.set()
        other.join()
    assert len(killed) == 2
    assert not unfinished(root) and len(list(root.glob("coin/*/table.csv"))) == 7
    assert not list(root.glob(".shared-*"))
    write_table(tmp_path / "cluster.csv", rows)
    write_table(tmp_path / "serial.csv", serial(tmp_path / "serial"))
    assert (tmp_path / "cluster.csv").read_bytes() == (tmp_path / "serial.csv").read_bytes()
    for table in (tmp_path / "serial").glob("coin/*/table.csv"):
        assert (root / table.relative_to(tmp_path / "serial")).read_bytes() == table.read_bytes()


def run(cluster, root: Path, **options) -> list[Row]:
    on = Executor(executor="ray", ray_address=cluster.address, **options)
    return run_stages(STAGES, root, "test", on=on, rescue=rescued)


def test_ray_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="--executor ray: Ray is not installed; pip install"):
        run_stages(STAGES, tmp_path, "test", on=Executor(executor="ray"))


@pytest.mark.cluster
@pytest.mark.xdist_group("cluster")
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:9", "no cluster answers there"),
        ("head", "no cluster answers there"),
        ("head:x", "no cluster answers there"),
        ("ray://head:10001", "expected HOST:PORT of the head, from a machine of the cluster"),
    ],
)
def test_an_address_without_a_cluster_is_refused(tmp_path, address, message):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match=rf"--ray-address {address}: {message}"):
        run_stages(STAGES, tmp_path, "test", on=Executor(executor="ray", ray_address=address))


def test_options_of_another_executor_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--ray-address: needs --executor ray"):
        Executor(ray_address="head:6379")
    with pytest.raises(ValueError, match="--gpus-per-run: needs --executor ray"):
        Executor(gpus_per_run=1)
    with pytest.raises(ValueError, match="--workers 2: a cluster has as many as its nodes have cores"):
        run_stages(STAGES, tmp_path, "test", workers=2, on=Executor(executor="ray"))
