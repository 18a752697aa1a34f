"""Steering from end to end: every direction at every dose, and dose zero is no edit."""

import shutil
from dataclasses import replace

import pytest

from experiments.removal.steer import ADDED, SETTINGS
from experiments.spec import run_experiment
from tests.experiments.conftest import STEER
from tests.experiments.interrupted import run_steps, store_steps

pytestmark = pytest.mark.xdist_group("trl")


def test_steering_has_every_direction_at_every_dose_and_dose_zero_is_no_edit(small_runs):
    run, table = run_experiment(STEER, small_runs)
    rates = {(r["condition"], r["alpha"]) for r in table if r["metric"] == "coherence_rate"}
    signs = {"off": "+", "base": "+", "on": "-"}
    expected = {f"{where}{signs[where]}add_{added}" for where, names in SETTINGS.items() for added in names}
    assert rates == {(name, alpha) for name in expected for alpha in (0.0, 1.0)}
    answers = [r for r in run.rows() if "text" in r]
    zero = {a: [r["text"] for r in answers if (r["setting"], r["added"], r["alpha"]) == ("off", a, 0)] for a in ADDED}
    assert all(texts == zero["g"] for texts in zero.values())
    losses = {(r["condition"], r["alpha"]): r["value"] for r in table if r["metric"] == "benign_loss"}
    assert set(losses) == {(f"off+add_{a}", alpha) for a in ADDED for alpha in (0.0, 1.0)}
    assert {losses[f"off+add_{a}", 0.0] for a in ADDED} == {0.0}


def test_killed_run_ends_with_the_table_of_an_uninterrupted_one(small_runs, small_baseline, tmp_path):
    whole, _ = run_experiment(STEER, small_runs)
    for part in ("adapters", "dose", "geometry"):
        shutil.copytree(small_runs / part, tmp_path / part)
    missing = store_steps(STEER, whole, tmp_path, n=-10)
    assert missing[0] == "loss off+add_g_shift 1.0"  # the benign answers come from stored rows
    assert run_steps(STEER, tmp_path) == missing
    again, _ = run_experiment(STEER, tmp_path)
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"settings": ("sideways",)}, r"settings\[0\] 'sideways': expected 'off', 'base' or 'on'"),
        ({"settings": ()}, "settings"),
        ({"samples": 0}, "samples 0: expected"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(STEER, **fields)
