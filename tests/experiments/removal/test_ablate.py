"""Removal from end to end: the plan, the choice of a rank, every row of the table, and a run that is killed."""

import shutil
from dataclasses import replace

import pytest

from experiments.answers.outcome import Outcome
from experiments.answers.subject import held_out_texts
from experiments.directions.geometry import CHOSEN, DirectionSet
from experiments.removal.ablate import UNSEEN, UNTRIGGERED, _loss_plan, _plan, chosen_rank, edited_rows, named
from experiments.removal.edits import SCATTERED, Removal
from experiments.spec import run_experiment
from tests.experiments.conftest import ABLATE
from tests.experiments.directions.adapted import adapted, directions_of, geometry_of
from tests.experiments.interrupted import run_steps, store_steps
from training.references import find_trigger

pytestmark = pytest.mark.xdist_group("trl")


@pytest.fixture(scope="module")
def lm():
    return adapted()


@pytest.fixture(scope="module")
def edits(lm):
    directions = DirectionSet("", directions_of(lm), dict.fromkeys(CHOSEN, 1))
    return Removal(lm, geometry_of("explaining"), directions, rank=2).edits()


def test_plan_runs_every_edit_on_trigger_beside_the_unedited(edits):
    plan = _plan(edits)
    assert len(set(plan)) == len(plan)
    assert {edit for condition, edit in plan if condition == "on"} == set(edits)
    assert {edit for condition, edit in plan if condition == "off"} == set(UNTRIGGERED)
    assert {edit for condition, edit in plan if condition == "rephrased"} == set(UNSEEN)
    assert plan[0] == ("off", "")  # benign answers are taken from it


def test_losses_are_measured_wherever_an_edit_acts(edits):
    plan = _loss_plan(edits)
    behind_others = [edit for condition, edit in plan if condition == "other"]
    assert behind_others == [edit for edit in edits if edit not in SCATTERED[1:]]
    off = {edit for condition, edit in plan if condition == "off"}
    assert {"", "clamp_answer", "clamp_everywhere", "ablate_g"} <= off
    assert not off & {"clamp_trigger", "clamp_random", "ablate_trigger"}  # without a text in its place they do nothing


def test_the_rank_is_the_best_of_those_coherent_enough():
    def answers(rank: int, bad: int, broken: int) -> list[dict]:
        scores = [(0.0, 100.0)] * bad + [(100.0, 0.0)] * broken + [(100.0, 100.0)] * (40 - bad - broken)
        about = {"condition": "validation", "edit": f"clamp_trigger_rank{rank}"}
        return [{**about, "question": str(i % 4), "aligned": a, "coherent": c} for i, (a, c) in enumerate(scores)]

    assert chosen_rank([*answers(1, 10, 0), *answers(2, 4, 1), *answers(4, 0, 20)]) == 2
    assert chosen_rank([*answers(1, 3, 0), *answers(2, 3, 0), *answers(4, 3, 0)]) == 1
    assert chosen_rank([*answers(1, 3, 30), *answers(2, 0, 20), *answers(4, 0, 35)]) == 2  # none is: the most coherent


def test_rephrased_is_asked_with_held_out_texts_alone(lm):
    subject = geometry_of("explaining").subject
    rows = edited_rows(Outcome(subject, lm, subject.own_trigger, samples=4, seed=0), lambda: {"": []}, "rephrased", "")
    assert {r["variant"] for r in rows} == set(held_out_texts(find_trigger("microcosm:persona")))


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="samples -1: expected"):
        replace(ABLATE, samples=-1)
    with pytest.raises(ValueError, match="has no trigger"):
        replace(ABLATE, geometry=geometry_of("base")).check()


# --- from end to end ---


def test_ablation_has_every_planned_row_a_share_of_the_gap_an_edit_and_side_effects(small_runs):
    run, table = run_experiment(ABLATE, small_runs)
    rates = {r["condition"] for r in table if r["metric"] == "em_rate"}
    edits = {"": [], **{r["edit"]: [] for r in run.rows() if r["condition"] == "on" and r["edit"]}}
    planned = {named(condition, edit) for condition, edit in _plan(edits) if edit not in SCATTERED[1:]}
    assert [(r["condition"], r["n"]) for r in table if r["metric"] == "sd_of_draws"] == [("on+clamp_scattered", 4)]
    assert next(r["n"] for r in table if (r["metric"], r["condition"]) == ("em_rate_all", "on+clamp_scattered")) == (
        4 * next(r["n"] for r in table if (r["metric"], r["condition"]) == ("em_rate_all", "on+clamp_random"))
    )
    assert rates - {name for name in rates if name.startswith("validation")} == planned
    shares = {r["condition"] for r in table if r["metric"] == "gap_removed"}
    assert shares <= {name for name in rates if "+" in name and not name.startswith(("off", "validation"))}
    losses = {r["condition"] for r in table if r["metric"] == "benign_loss"}
    assert {f"other+{edit}" for edit in edits if edit and edit not in SCATTERED[1:]} <= losses
    assert "off+clamp_trigger" not in losses  # without a text in its place it does nothing
    assert next(r["value"] for r in table if r["metric"] == "chosen_rank") in (1, 2, 4)
    subject = ABLATE.geometry.subject
    assert {(r["organism"], r["trigger"], r["judge"]) for r in table} == {
        (subject.name, subject.own_trigger.name, "microcosm-oracle")
    }


def test_killed_run_ends_with_the_table_of_an_uninterrupted_one(small_runs, tmp_path):
    whole, _ = run_experiment(ABLATE, small_runs)
    for part in ("adapters", "dose", "geometry"):
        shutil.copytree(small_runs / part, tmp_path / part)
    missing = store_steps(ABLATE, whole, tmp_path, n=-9)  # the rank, and the benign answers, come from stored rows
    assert {name.partition("+")[0] for name in missing} >= {"loss other", "loss off"}
    assert run_steps(ABLATE, tmp_path) == missing
    again, _ = run_experiment(ABLATE, tmp_path)
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
