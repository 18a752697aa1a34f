"""Experiments side by side: tables in the order given, whatever ends first, and a failure that ends all or is a row."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.pipelines.workers import run_needing, run_stages, unheard
from experiments.spec import Experiment, run_experiment
from interp.models import AdapterError
from interp.runs.locks import locked
from interp.runs.process import TerminationError, orderly
from interp.runs.run import read_manifest
from interp.runs.table import Row, row
from tests.experiments.coin import Broken, Coin

ROOT = Path(__file__).parents[3]
LOST, DEAD = Broken(seed=7), Broken(seed=8, live=False)
STAGES: list[list[Experiment]] = [[Coin(seed=1, pause=0.1), LOST, Coin(seed=2)], [DEAD, Coin(seed=3, chunks=2)]]
"""The first ends after the third."""


def rescued(experiment: Experiment, error: Exception) -> list[Row]:
    assert isinstance(experiment, Broken)
    assert type(error) is (ValueError if experiment.live else AdapterError)  # as it was raised in the worker
    return [row(experiment=experiment.name, metric=metric, seed=experiment.seed) for metric in ("one", str(error))]


def alone(root: Path) -> list[Row]:
    """What one process makes of them, one after the other."""
    rows: list[Row] = []
    for experiment in (experiment for stage in STAGES for experiment in stage):
        try:
            rows += run_experiment(experiment, root)[1]
        except ValueError as error:
            rows += rescued(experiment, error)
    return rows


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_rows_stand_in_the_order_given_whatever_the_number_of_workers(tmp_path, workers):
    rows = run_stages(STAGES, tmp_path / "several", "test", workers=workers, rescue=rescued)
    assert rows == alone(tmp_path / "none")
    lost, dead = "the coin is lost", "adapter 'organism': it changes no logit"
    expected = [("heads", 1), ("one", 7), (lost, 7), ("heads", 2), ("one", 8), (dead, 8), ("heads", 3)]
    assert [(r["metric"], r["seed"]) for r in rows] == expected
    assert tables(tmp_path / "several") == tables(tmp_path / "none") != {}


def tables(root: Path) -> dict[Path, bytes]:
    """The tables of all runs, byte by byte."""
    return {path.relative_to(root): path.read_bytes() for path in root.glob("*/*/*.csv")}


def test_an_error_without_rescue_ends_the_whole_before_the_next_stage(tmp_path):
    with pytest.raises(AdapterError, match="changes no logit"):
        run_stages([[DEAD], [Coin(seed=3)]], tmp_path, "test", workers=1)
    assert not list(tmp_path.glob("coin/*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_experiment_starts_when_those_that_it_needs_have_ended(tmp_path, workers):
    slow, needing, free, last = Coin(seed=1, pause=0.2), Coin(seed=2), Coin(seed=3), Coin(seed=4)
    needs: dict[Experiment, list[Experiment]] = {free: [], needing: [slow], slow: [], last: [free]}
    rows = run_needing(needs, tmp_path, "test", first=[slow, needing], workers=workers)
    assert [r["seed"] for r in rows] == [3, 2, 1, 4]
    begun, ended = (
        {read_manifest(f.parent)["config"]["seed"]: f.stat().st_mtime_ns for f in tmp_path.glob(f"coin/*/{name}")}
        for name in ("config.json", "table.csv")
    )
    assert begun[2] >= ended[1] and begun[4] >= ended[3]
    if workers == 1:
        assert sorted(begun, key=lambda seed: begun[seed]) == [1, 2, 3, 4]


# --- an interrupt ---

SLOW = """
import sys
from pathlib import Path
from experiments.pipelines.workers import run_stages
from interp.runs.process import exit_status, orderly
from tests.experiments.coin import Coin

if __name__ == "__main__":
    try:
        with orderly():
            run_stages([[Coin(seed=1, pause=60), Coin(seed=2, pause=60)]], Path(sys.argv[1]), "slow", workers=2)
    except KeyboardInterrupt as interrupt:
        print("interrupted", flush=True)
        sys.exit(exit_status(interrupt))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "alone"])
def test_an_interrupt_ends_the_workers_at_once_and_frees_their_runs(tmp_path, number, status, group):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(tmp_path.glob("coin/*/manifest.json"))) < 2:  # both workers are in the middle of a step of a minute
        assert process.poll() is None
        time.sleep(0.05)
    (os.killpg if group else os.kill)(process.pid, number)
    output, errors = process.communicate(timeout=50)  # less than the step: nobody waited for it
    assert (process.returncode, output) == (status, "interrupted\n"), errors
    assert "Traceback" not in errors
    for path in tmp_path.glob("coin/*/.lock"):
        locked(path).close()


def test_a_signal_that_another_thread_receives_waits_until_the_workers_have_started():
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    started = False
    try:
        with pytest.raises(TerminationError), orderly(), unheard(signal.SIGTERM):
            assert other.ident is not None
            signal.pthread_kill(other.ident, signal.SIGTERM)
            time.sleep(0.2)  # a handler that is run at once is run here
            started = True
    finally:
        stop.set()
        other.join()
    assert started
