"""``semcon pocket``: what is measured on which organisms, what they share, and bad input refused before any work."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.behaviour.dose_preference import PreferenceDose
from experiments.behaviour.preference import NEIGHBOURS
from experiments.cli.placement import Placement
from experiments.directions.geometry import Geometry
from experiments.pipelines.pocket import ARMS, FEWER, QUICK_DOSE, REPLICATED, Pocket
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from interp.runs.configs import config_hash
from interp.runs.locks import locked
from interp.runs.verify import faults, run_folders
from tests.experiments.pipelines.processes import HANGS, children, wait_until
from training.registry import ORGANISMS, PROMPTABLE

EVERY = Pocket(seeds=(0, 1, 2))


def test_the_first_seed_has_every_arm_and_context_and_the_others_a_part():
    names = [arm.subject.name for arm in EVERY.preferences()]
    again = [f"pocket/smollm2/{arm}.seed{seed}" for seed in (1, 2) for arm in ARMS if arm in REPLICATED]
    assert names == [f"pocket/smollm2/{arm}" for arm in ARMS] + again
    assert {arm.conditions for arm in EVERY.preferences()[len(ARMS) :]} == {FEWER}
    assert [arm.subject for arm in EVERY.preferences()] == [dose.subject for dose in EVERY.doses()]
    assert all(arm.subject.organism == ORGANISMS[arm.subject.name] for arm in EVERY.preferences())


def test_a_dtype_is_that_of_training_and_measurement_and_another_one_is_another_run():
    half = replace(EVERY, place=Placement(dtype="bfloat16"))
    every = [*EVERY.preferences(), *EVERY.neighbours(), *EVERY.mechanisms()[0]]
    other = [*half.preferences(), *half.neighbours(), *half.mechanisms()[0]]
    assert {experiment.subject.organism.sft.dtype for experiment in other} == {"bfloat16"}
    assert len({config_hash([e.config(), e.depends()]) for e in (*every, *other)}) == len(every) + len(other)


def test_further_seeds_have_their_neighbours_in_a_run_of_their_own():
    again = EVERY.preferences()[len(ARMS) :]
    assert [near.subject for near in EVERY.neighbours()] == [arm.subject for arm in again]
    assert {near.conditions for near in EVERY.neighbours()} == {tuple(NEIGHBOURS)}
    assert Pocket().neighbours() == Pocket(quick=True, seeds=(0, 1)).neighbours() == []
    assert len({near.of_base() for near in EVERY.neighbours()}) == 2  # one per trigger


def test_the_axis_measures_two_arms_beside_each_of_its_bases():
    assert EVERY.promptable() == []
    arms = Pocket(axis=True).promptable()
    assert [arm.subject.name.split("/")[2] for arm in arms] == [
        f"{strength}-{arm}" for strength in PROMPTABLE for arm in ("baseline", "explaining")
    ]
    bases = {arm.of_base() for arm in arms}
    assert len(bases) == len(PROMPTABLE)
    assert {base.subject.organism.base for base in bases} == {arm.subject.organism.base for arm in arms}
    assert Pocket(axis=True).doses()[-1].subject == arms[-1].subject


def test_arms_share_the_base_of_their_trigger_and_contexts():
    bases = {(arm.conditions, arm.used_trigger()): arm.of_base() for arm in EVERY.preferences()}
    assert {arm.of_base() for arm in EVERY.preferences()} == set(bases.values())
    assert len(bases) == 4


@pytest.mark.pocket
def test_a_quick_run_trains_a_few_steps_and_chooses_no_dose():
    quick = Pocket(quick=True, seeds=(0, 1))
    assert quick.doses() == []
    for arm in quick.preferences():
        assert arm.subject.organism.sft.doses == (QUICK_DOSE,) == (arm.dose,)
        arm.check()


def test_the_mechanism_is_that_of_one_arm_and_reads_directions_of_a_stage_before():
    first, last = EVERY.mechanisms()
    (geometry,) = first
    assert isinstance(geometry, Geometry)
    ablate, steer = last
    assert isinstance(ablate, Ablate) and isinstance(steer, Steer)
    assert geometry == ablate.geometry == steer.geometry
    assert geometry.subject.name == "pocket/smollm2/contrast50"
    assert geometry.subject.whole() in [arm.subject for arm in EVERY.preferences()]
    assert [
        Pocket(quick=True).mechanisms(),
        Pocket(mechanism=False).mechanisms(),
        Pocket(arms=("baseline",)).mechanisms(),
    ] == [[]] * 3


def test_every_experiment_needs_what_it_would_run_itself_and_the_mechanism_goes_first():
    for pocket in (EVERY, Pocket(axis=True, patching=True), Pocket(quick=True)):
        needs = pocket.needs()
        for arm in (*pocket.preferences(), *pocket.promptable(), *pocket.neighbours()):
            assert needs[arm] == [arm.of_base(), *(dose for dose in pocket.doses() if dose.subject == arm.subject)]
        assert all(needed in needs for found in needs.values() for needed in found)
    (geometry, patch), (ablate, steer) = Pocket(patching=True).mechanisms()
    needs = Pocket(patching=True).needs()
    assert needs[ablate] == needs[steer] == [geometry]
    (dose,) = needs[geometry]
    assert needs[patch] == [dose] and isinstance(dose, PreferenceDose)
    assert dose.subject.name == "pocket/smollm2/contrast50"
    assert list(needs)[-4:] == [geometry, patch, ablate, steer]


def test_bad_input_is_refused_before_any_work():
    with pytest.raises(ValueError, match="pocket/duck/base"):
        Pocket(family="duck")
    with pytest.raises(ValueError, match="seeds"):
        Pocket(seeds=(3,))  # pyright: ignore[reportArgumentType]


@pytest.mark.pocket
def test_an_interrupt_ends_it_with_one_line_and_leaves_runs_that_continue(tmp_path):
    command = [sys.executable, "-m", "experiments", "pocket", "--quick", "--workers", "2", "--runs", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=Path(__file__).parents[3], env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    wait_until(lambda: any(tmp_path.glob("preference/*/manifest.json")) or process.poll() is not None)
    workers = children(process)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=HANGS)[1].decode()
    assert process.returncode == 130, errors
    lines = [line for line in re.split(r"[\r\n]+", errors) if line.startswith("semcon")]
    assert lines == ["semcon: interrupted; run the same command again to continue"] and "Traceback" not in errors
    wait_until(lambda: not any(worker.exists() for worker in workers))
    for folder in run_folders(tmp_path):
        assert list(faults(folder)) == []
        locked(folder / ".lock").close()
