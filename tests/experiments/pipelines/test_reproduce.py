"""From one command to one table: what runs in which order, and a kill in the middle that leaves no trace in it."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.behaviour.dose import Dose
from experiments.behaviour.dose_cell import DoseCell
from experiments.behaviour.em_rate import EmRate
from experiments.behaviour.emergence import Emergence
from experiments.behaviour.grid import measurements
from experiments.directions.geometry import Geometry
from experiments.pipelines.reproduce import ARMS, ROLE, SUBGRID, Reproduce
from experiments.probing.sweep import ProbeSweep
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import run_experiment
from interp.runs.table import read_table, write_table
from tests.experiments.pipelines.processes import HANGS, children, wait_until
from tests.experiments.pipelines.reduced import TRAINED, Reduced
from training.grid import ARMS as ARMS_OF_GRID
from training.grid import EXPLAINING, FAMILIES, NEUTRAL, Family, cells
from training.registry import ORGANISMS

ROOT = Path(__file__).parents[3]


def organism_of(experiment) -> str:
    for inner in ("answers", "geometry"):
        experiment = getattr(experiment, inner, experiment)
    return experiment.subject.name


# --- the stages ---


def test_stages_train_first_and_measure_every_organism():
    dose, behaviour, *_ = stages = list(Reproduce().stages())
    trained = {f"microcosm/llama/{arm}" for arm in ARMS}
    assert {type(e) for e in dose} == {Dose}
    assert {organism_of(e) for e in dose} == trained
    assert {type(e) for e in behaviour} == {EmRate, Emergence}
    assert {organism_of(e) for e in behaviour} >= {*trained, "microcosm/llama/base"}
    for arm in ("base", "baseline"):  # what has no trigger of its own is measured under both
        assert {(f"microcosm/llama/{arm}", trigger) for trigger in (NEUTRAL, EXPLAINING)} <= set(measured())
    everything = [e for stage in stages for e in stage]
    assert {type(e) for e in everything} == {Dose, EmRate, Emergence, Geometry, ProbeSweep, Steer, Ablate, DoseCell}
    assert len(set(everything)) == len(everything)
    assert {organism_of(e) for e in everything} <= set(ORGANISMS)


def test_one_weak_role_is_measured_at_every_dose_with_its_controls():
    *_, bases, organisms = Reproduce().stages()
    under = [(organism_of(e), e.used_reference()) for e in bases if isinstance(e, DoseCell)]
    assert under == [("microcosm/llama/base", ARMS_OF_GRID[ROLE])]
    names = ("baseline", ROLE, f"{ROLE}.aligned")
    assert [organism_of(e) for e in organisms] == [f"microcosm/llama/{name}.fine" for name in names]


def measured() -> list[tuple[str, str | None]]:
    """Organisms with the trigger they are measured under."""
    sampled = [e.answers for stage in Reproduce().stages() for e in stage if isinstance(e, EmRate)]
    return [(answers.subject.name, answers.trigger or answers.subject.organism.trigger) for answers in sampled]


def test_subgrid_is_of_the_grid_and_measured_with_every_base_beside_it():
    assert set(SUBGRID) <= set(cells())
    assert {cell.family for cell in SUBGRID} == set(FAMILIES)
    for cell in SUBGRID:
        assert {(cell.name, cell.trigger), (cell.base_name, cell.trigger)} <= set(measured())


def test_no_organism_is_measured_twice_under_a_trigger():
    assert [pair for pair, n in Counter(measured()).items() if n > 1] == []


def test_every_stage_needs_only_stages_before_it():
    seen: set = set()
    for stage in Reproduce().stages():
        for experiment in stage:
            needed = getattr(experiment, "geometry", None)
            assert needed is None or needed in seen
        seen |= set(stage)


def test_quick_runs_the_same_classes_on_the_same_organisms_with_fewer_answers():
    quick, full = ([e for stage in Reproduce(quick=q).stages() for e in stage] for q in (True, False))
    assert Counter((type(e), organism_of(e)) for e in quick) == Counter((type(e), organism_of(e)) for e in full)
    fewer, most = ([e.samples for e in planned if isinstance(e, Ablate | Steer)] for planned in (quick, full))
    assert all(a < b for a, b in zip(fewer, most, strict=True))


def test_families_are_run_alike():
    families: tuple[tuple[Family, ...], ...] = (("llama",), ("llama", "qwen2"))
    one, two = ([len(stage) for stage in Reproduce(families=f).stages()] for f in families)
    shared = [0, len(list(measurements(SUBGRID))), 0, 0, 0, 0]  # the sub-grid stands once, less what is measured anyway
    for alone, both, once in zip(one, two, shared, strict=True):
        assert 2 * alone - 2 * once <= both <= 2 * alone  # it holds cells of both families


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"families": ()}, "families (): expected at least 1 item"),
        ({"families": ("llama", "foo")}, "families[1] 'foo': expected 'llama', 'qwen2' or 'gemma3'"),
        ({"families": ("llama", "llama")}, "families 'llama': given twice"),
        ({"workers": -1}, "workers -1: expected greater than or equal to 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError) as raised:
        Reproduce(**settings)
    assert str(raised.value).startswith(message)


# --- kill -9 ---


def start(root: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.experiments.pipelines.reduced", str(root), "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_an_interrupted_command_ends_with_one_line_and_no_process_left(tmp_path):
    command = [sys.executable, "-m", "tests.torture.command", str(tmp_path), "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for send, number, status, word in (
        (os.killpg, signal.SIGINT, 130, "interrupted"),
        (os.kill, signal.SIGINT, 130, "interrupted"),
        (os.killpg, signal.SIGTERM, 143, "terminated"),
        (os.kill, signal.SIGTERM, 143, "terminated"),
    ):
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        wait_until(lambda process=process: len(children(process)) > 1 or process.poll() is not None)
        workers = children(process)
        send(process.pid, number)
        errors = process.communicate(timeout=HANGS)[1].decode()
        lines = [line for line in re.split(r"[\r\n]+", errors) if line.startswith("semcon")]
        assert process.returncode == status, errors
        assert lines == [f"semcon: {word}; run the same command again to continue"] and "Traceback" not in errors
        wait_until(lambda workers=workers: not any(worker.exists() for worker in workers))


def test_killed_reproduction_ends_with_the_table_of_an_uninterrupted_one(tmp_path, monkeypatch):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(killed)
    wait_until(lambda: any(killed.glob("answers/*/rows.jsonl")) or process.poll() is not None)
    workers = children(process)
    process.kill()
    output = process.communicate(timeout=HANGS)[0].decode()  # ends with the last worker
    assert process.returncode == -signal.SIGKILL, output
    assert not (killed / "summary.csv").exists()
    wait_until(lambda: not any(worker.exists() for worker in workers))  # they are not told, and hold locks

    again = start(killed)
    output = again.communicate(timeout=HANGS)[0].decode()
    assert again.returncode == 0, output
    assert (killed / "report.html").exists()

    monkeypatch.setitem(ORGANISMS, TRAINED.name, TRAINED)
    stages = Reduced().stages()
    write_table(whole / "summary.csv", [r for stage in stages for e in stage for r in run_experiment(e, whole)[1]])
    assert (killed / "summary.csv").read_bytes() == (whole / "summary.csv").read_bytes()
    assert {r["experiment"] for r in read_table(whole / "summary.csv")} == {"dose", "em_rate"}
