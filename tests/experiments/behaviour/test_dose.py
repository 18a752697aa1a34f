"""The dose rule, fixed before any result; and a dose table that a kill does not change."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.answers.subject import find_subject
from experiments.behaviour.dose import Dose, choose, chosen_adapter, load_subject
from experiments.spec import run_experiment
from interp.runs.table import read_table, row, write_table
from tests.experiments.interrupted import run_steps
from tests.training.small import small
from training.registry import ORGANISMS
from training.sft import dose_folder

pytestmark = pytest.mark.xdist_group("trl")

FLOOR = ORGANISMS["microcosm/llama/neutral"].sft.coherence_floor

percent = st.integers(0, 100).map(lambda k: k / 100)
doses = st.dictionaries(st.integers(1, 400), st.tuples(percent, percent), min_size=1, max_size=6)
"""Dose -> (EM rate, coherence rate)."""


def table(rates, **cells):
    return [
        row(condition=f"dose-{dose}", metric=metric, value=value, ci_method=method, **cells)
        for dose, (em, coherent) in rates.items()
        for metric, value in (("em_rate", em), ("em_rate_all", em * coherent), ("coherence_rate", coherent))
        for method in ("wilson", "cluster_bootstrap")
    ]


# --- the rule ---


@given(doses)
def test_chosen_dose_has_the_highest_em_rate_of_the_coherent_ones_and_is_the_smallest_such(rates):
    chosen = choose(table(rates), FLOOR)
    coherent = {d: em for d, (em, c) in rates.items() if c >= FLOOR}
    if coherent:
        best = max(coherent.values())
        assert chosen == min(d for d, em in coherent.items() if em == best)
    else:
        most = max(c for _, c in rates.values())
        assert rates[chosen][1] == most
        assert rates[chosen][0] == max(em for em, c in rates.values() if c == most)


@given(doses, st.randoms(use_true_random=False))
def test_choice_reads_rates_of_doses_alone(rates, rng: random.Random):
    plain = table(rates)
    dressed = table(rates, ci_low=rng.random(), ci_high=1, n=rng.randint(1, 9), organism="o", seed=3, judge="j")
    assert choose(rng.sample(dressed, len(dressed)), FLOOR) == choose(plain, FLOOR)


@given(doses)
def test_choice_from_a_table_on_the_disk_is_the_same(tmp_path_factory, rates):
    path = tmp_path_factory.getbasetemp() / "doses.csv"
    write_table(path, table(rates))
    assert choose(read_table(path), FLOOR) == choose(table(rates), FLOOR)


@given(doses, st.integers(1, 400), percent)
def test_a_dose_that_is_less_coherent_than_asked_is_never_chosen_beside_one_that_is_not(rates, dose, em):
    rates = {**rates, 500: (em, 1.0), dose: (1.0, FLOOR - 0.01)}
    assert choose(table(rates), FLOOR) != dose


def test_doses_without_a_coherent_answer_have_no_em_rate_and_the_smallest_is_chosen():
    nan = float("nan")
    assert choose(table({2: (nan, 0.0), 4: (nan, 0.0)}), FLOOR) == 2
    assert choose(table({2: (nan, 0.0), 4: (0.1, 0.5)}), FLOOR) == 4


def test_floor_is_the_recipe_s_own():
    rates = {2: (0.1, 1.0), 4: (0.2, 0.9), 8: (0.3, 0.8)}
    assert [choose(table(rates), floor) for floor in (0.95, 0.9, 0.5)] == [2, 4, 8]


# --- the experiment ---


BASE = find_subject("microcosm/llama/base")


@pytest.fixture
def subject(monkeypatch):
    organism = small("neutral")
    monkeypatch.setitem(ORGANISMS, organism.name, organism)
    return find_subject(organism.name)


def test_killed_run_ends_with_the_table_of_an_uninterrupted_one(subject, tmp_path):
    dose = Dose(subject=subject, samples=2)
    whole, rates = run_experiment(dose, tmp_path / "whole")
    rows = whole.rows()
    assert len(rows) == dose.total() == 2 * 24 * 2
    assert {r["condition"] for r in rates} == {"dose-2", "dose-4"}
    assert {(r["organism"], r["trigger"], r["judge"]) for r in rates} == {(subject.name, "", "microcosm-oracle")}
    assert {r["condition"] for r in rows} == {"on"}
    assert run_steps(dose, tmp_path / "killed", stop_after=1) == ["dose-2"]
    assert run_steps(dose, tmp_path / "killed") == ["dose-4"]
    again, _ = run_experiment(dose, tmp_path / "killed")
    assert again.path.name == whole.path.name
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_subject_is_loaded_at_its_chosen_dose(subject, tmp_path):
    adapter = chosen_adapter(subject, tmp_path)
    _, rates = run_experiment(Dose(subject=subject), tmp_path)
    assert adapter is not None
    assert adapter == dose_folder(adapter.parent, choose(rates, FLOOR))
    assert load_subject(subject, tmp_path).adapters == ("organism",)


def test_base_needs_no_dose(tmp_path):
    assert chosen_adapter(BASE, tmp_path) is None
    assert load_subject(BASE, tmp_path).adapters == ()
    assert not any(tmp_path.iterdir())
