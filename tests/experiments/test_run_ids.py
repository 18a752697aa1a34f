"""The run ids of the committed tables are those that the code derives now, from the experiments that it runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.behaviour.dose_preference import PreferenceDose
from experiments.behaviour.preference import PERMUTED, Preference
from experiments.pipelines.mechanism import TABLES, Mechanism
from experiments.pipelines.pocket import Pocket
from experiments.spec import identity
from interp.runs.run import run_id
from interp.runs.table import read_table
from training.definition import Sft

DATA = Path(__file__).parents[2] / "figures" / "data"
PLANNED = [experiment for stage in Mechanism().stages() for experiment in stage]
PAIRS = [(table, name) for table, names in TABLES.items() for name in names if name in {e.name for e in PLANNED}]
"""(table, experiment); ``across`` is not among them, because it is computed from the tables of other runs."""


@pytest.mark.parametrize(("table", "experiment"), PAIRS)
def test_the_run_ids_of_a_committed_table_are_derived_again(table, experiment):
    (path,) = DATA.glob(f"{table}*")
    committed = {r["run_id"] for r in read_table(path) if r["experiment"] == experiment}
    assert committed == {run_id(e.name, **identity(e)) for e in PLANNED if e.name == experiment}


@pytest.mark.pocket
@pytest.mark.skipif(not (DATA / "pocket.csv.gz").is_file(), reason="no table of the present questions yet")
def test_the_run_ids_of_the_pocket_table_are_among_those_that_the_code_derives():
    plan = Pocket(seeds=(0, 1, 2), axis=True, patching=True)
    mechanisms = (e for stage in plan.mechanisms() for e in stage)
    every = (*plan.doses(), *plan.preferences(), *plan.neighbours(), *plan.promptable(), *mechanisms)
    derived = {run_id(e.name, **identity(e)) for e in every}
    assert {r["run_id"] for r in read_table(DATA / "pocket.csv.gz")} <= derived


FIRST = Sft(doses=(5, 10, 20, 30, 40), learning_rate=3e-4, batch=8, save_every=20, share_prefix=True)
"""Settings of the first registration, with 80 rows."""
FIRST_CONDITIONS = Preference.conditions[: Preference.conditions.index("permuted")]


@pytest.mark.pocket
def test_the_run_ids_of_the_first_references_are_derived_with_their_file_and_settings():
    plan = Pocket(seeds=(0, 1, 2))
    derived = {run_id(e.name, **_of_first(e)) for e in (*plan.doses(), *plan.preferences())}
    assert {r["run_id"] for r in read_table(DATA / "pocket_permuted.csv.gz")} <= derived


def _of_first(experiment: PreferenceDose | Preference) -> dict[str, Any]:
    """Return what names a run of the first registration: its references, its settings, its conditions."""
    subject: Any = experiment.subject
    subject = replace(subject, organism=replace(subject.organism, rows=80, sft=FIRST))
    experiment = replace(experiment, subject=subject)
    if isinstance(experiment, Preference) and experiment.conditions == Preference.conditions:
        experiment = replace(experiment, conditions=FIRST_CONDITIONS)
    named = identity(experiment)
    return {**named, "inputs": {**named["inputs"], "choices": PERMUTED}}
