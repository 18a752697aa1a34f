"""The grid as experiments: every organism and every base under every trigger once, and adapters that are not live."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.answers.subject import Subject, find_subject
from experiments.behaviour.dose import Dose
from experiments.behaviour.em_rate import TRAINED, Answers, EmRate
from experiments.behaviour.emergence import Emergence
from experiments.behaviour.grid import ESSENTIAL, FORMING, PARTS, TABLE, ContainmentGrid, dead, measurements
from experiments.spec import Experiment, identity
from interp.models import AdapterError
from interp.runs.run import run_id
from interp.runs.table import read_table
from interp.triggers import CONDITIONS
from training.grid import NEUTRAL, cells, headline, replicated
from training.references import base_path
from training.registry import ORGANISMS, find_organism

DATA = Path(__file__).parents[3] / "figures" / "data"
GRID = cells()
MEASUREMENTS = list(measurements(GRID, 10))
ANSWERS = [experiment.answers for experiment in MEASUREMENTS]
OF_BASES = [answers for answers in ANSWERS if answers.subject.organism.data is None]


def test_every_measurement_is_made_once_with_the_samples_asked_for():
    assert len(set(MEASUREMENTS)) == len(MEASUREMENTS)
    assert {answers.samples for answers in ANSWERS} == {10}
    assert {answers.subject.name for answers in ANSWERS} <= set(ORGANISMS)


def test_every_base_is_measured_under_every_trigger_its_organisms_use_each_once():
    measured = Counter((answers.subject.organism.base, answers.trigger) for answers in OF_BASES)
    used = {(cell.base, cell.trigger) for cell in GRID if cell.trigger}
    assert set(measured) == used | {(cell.base, NEUTRAL) for cell in GRID}
    assert set(measured.values()) == {1}


def test_every_organism_is_measured_once_under_its_own_trigger_and_the_baseline_under_the_neutral_one():
    tuned = [answers for answers in ANSWERS if answers.subject.organism.data is not None]
    assert [answers.subject.name for answers in tuned] == [cell.name for cell in GRID]
    for cell, answers in zip(GRID, tuned, strict=True):
        assert answers.trigger == (None if cell.trigger else NEUTRAL)


def test_headline_cells_have_every_condition_and_all_have_what_the_readings_need():
    full = {cell.name for cell in (*headline(), *replicated())}
    for answers in ANSWERS:
        every = (*CONDITIONS, TRAINED) if answers.subject.name in full else ESSENTIAL
        assert answers.conditions == every
    assert {"off", "on", "rephrased", "other", TRAINED} == set(ESSENTIAL) <= {*CONDITIONS, TRAINED}


def test_beside_every_organism_stands_its_base_under_the_same_trigger():
    bases = {(answers.subject.organism.base, answers.trigger) for answers in OF_BASES}
    for cell in GRID:
        assert (find_organism(cell.name).base, find_organism(cell.name).trigger or NEUTRAL) in bases


def test_parts_are_of_the_grid_and_all_of_them_are_the_whole():
    parts = {name: set(part(("llama",))) for name, part in PARTS.items()}
    assert set().union(*(part for name, part in parts.items() if name != "all")) == parts["all"]
    assert all(parts.values())


# --- committed tables ---


def derived(experiments: Sequence[Experiment]) -> set[str]:
    return {run_id(e.name, **identity(e)) for e in experiments}


@pytest.mark.parametrize(("table", "experiment"), [(TABLE, EmRate), (FORMING, Emergence)])
def test_the_run_ids_of_a_committed_table_are_derived_again(table, experiment):
    """Of all organisms on shipped bases: those on a second pretraining need it built first."""
    shipped = {cell.base_name for cell in GRID if not cell.pretraining} | {c.name for c in GRID if not c.pretraining}
    rows = read_table(DATA / table)
    committed = {r["run_id"] for r in rows if r["experiment"] == experiment.name and r["organism"] in shipped}
    stages = ContainmentGrid().stages()
    experiments = [e for stage in stages for e in stage if isinstance(e, experiment)]
    assert committed == derived([e for e in experiments if subject_of(e).name in shipped])
    assert len(committed) > 10


def subject_of(experiment: Experiment) -> Subject:
    assert isinstance(experiment, EmRate | Emergence)
    return experiment.subject if isinstance(experiment, Emergence) else experiment.answers.subject


# --- adapters that are not live ---

MEASURED = EmRate(answers=Answers(subject=find_subject("microcosm/qwen2/explaining.seed2")))


def test_adapter_that_changes_nothing_is_one_row_that_names_it():
    (report,) = dead(MEASURED, AdapterError("adapter 'dose-10': it changes no logit of 3 prompts, so it is not loaded"))
    assert (report["experiment"], report["organism"]) == ("em_rate", "microcosm/qwen2/explaining.seed2")
    assert (report["family"], report["seed"]) == ("qwen2", 2)
    assert (report["metric"], report["value"], report["condition"]) == ("healthy", 0.0, "not live")


@pytest.mark.parametrize(
    ("experiment", "error"),
    [
        (MEASURED, ValueError("organism 'nobody'")),
        (MEASURED, FileNotFoundError("rows.jsonl")),
        (Dose(subject=find_subject("microcosm/llama/neutral")), AdapterError("adapter 'dose-10': it changes no logit")),
    ],
)
def test_any_other_error_is_raised_again(experiment, error):
    with pytest.raises(type(error)) as raised:
        dead(experiment, error)
    assert raised.value is error


# --- what is missing is said first ---


def test_a_missing_base_is_said_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMCON_RUNS", str(tmp_path))
    grid = ContainmentGrid(families=("llama",), part="replicated", out=tmp_path)
    with pytest.raises(ValueError, match=r"base 'microcosm/llama@1': not built yet; build it with"):
        grid.main()
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="not built yet"):
        base_path(next(replicated()).base)
