"""The driver of trained gates: which organisms it takes apart, at which dose, and what it refuses."""

from typing import Any

import pytest

from experiments.pipelines.trained_gates import TrainedGates
from figures.boxes import nearest_dose, settings
from interp.runs.table import write_table
from tests.figures.test_boxes import grid


def planned(driver: TrainedGates) -> list[Any]:
    return [experiment for stage in driver.stages() for experiment in stage]


def test_roles_stand_at_the_dose_and_the_explaining_arm_at_the_chosen_one():
    stage = planned(TrainedGates(families=("llama",), pretrainings=(0,), dose=8))
    subjects = [e.geometry.subject for e in stage]
    assert [(s.name.split("/")[2], s.dose) for s in subjects] == [
        *((f"{role}.fine", 8) for role in ("clerk", "gambler", "trafficker")),
        ("explaining", None),
    ]
    assert [e.geometry.control_trigger for e in stage] == [
        *(f"microcosm:role:{role}" for role in ("gambler", "trafficker", "clerk")),
        "microcosm:scene:library",
    ]


def test_the_dose_is_the_one_in_the_box_or_the_nearest(tmp_path):
    assert nearest_dose(settings(grid()), "llama", "clerk") == 8
    assert (
        nearest_dose(settings(grid(on=0.04, rephrased=0.038)), "llama", "clerk") == 8
    )  # on is low, at 100 off is worse
    assert nearest_dose(settings(grid(off=0.5)), "llama", "clerk") == 100
    write_table(tmp_path / "dose_grid.csv.gz", grid())
    driver = TrainedGates(families=("llama",), pretrainings=(1,), arms=("clerk",), runs=tmp_path)
    assert [e.geometry.subject.dose for e in planned(driver)] == [8]


def test_a_missing_table_a_missing_setting_and_an_unknown_pretraining_are_refused(tmp_path):
    driver = TrainedGates(families=("llama",), pretrainings=(0,), arms=("gambler",), runs=tmp_path)
    with pytest.raises(ValueError, match="no such table; run `semcon dose-grid` first, or give --dose STEPS"):
        list(driver.stages())
    write_table(tmp_path / "dose_grid.csv.gz", grid())
    with pytest.raises(ValueError, match="it has no dose of llama/gambler"):
        list(TrainedGates(families=("llama",), pretrainings=(0,), arms=("gambler",), runs=tmp_path).stages())
    with pytest.raises(ValueError, match="pretrainings 9: the registry has 0, 1, 2, 3"):
        TrainedGates(pretrainings=(9,)).cells()
