"""Hypotheses of the pocket scale: confirmed in every seed, refuted in any, open otherwise."""

from pathlib import Path

import pytest

from figures.claims.claim import CONFIRMED, OPEN, REFUTED
from figures.claims.pocket import HYPOTHESES, hypotheses
from figures.claims.pocket_again import AGAIN, hypotheses_again
from tests.figures.example_rows import row

P1 = HYPOTHESES[0].text


def shift(arm: str, value: float, *, seed: int = 0, half: float = 0.1, metric="log_odds_shift", condition="off"):
    ends = {"ci_low": value - half, "ci_high": value + half, "n": 72}
    name = f"pocket/smollm2/{arm}" + f".seed{seed}" * bool(seed)
    cells = {"experiment": "preference", "organism": name, "seed": seed, "metric": metric, "condition": condition}
    return row(arm, value=value, **ends, **cells)


def verdicts(*rows):
    return {finding.statement[:2]: finding.verdict for finding in hypotheses(rows)}


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ((0.5,), CONFIRMED),
        ((0.5, 0.4), CONFIRMED),
        ((0.5, 0.05), REFUTED),
        ((0.5, 0.15), OPEN),
        ((0.15, 0.05), REFUTED),
    ],
)
def test_one_verdict_over_all_seeds(values, verdict):
    rows = [shift("baseline", value, seed=seed) for seed, value in enumerate(values)]
    assert verdicts(*rows)["P1"] == verdict
    (finding, *_) = hypotheses(rows)
    assert all(f"seed {seed}" in finding.evidence for seed in range(len(values)))


def test_a_seed_in_which_the_numbers_were_not_measured_decides_nothing():
    growth = shift("contrast50", 0.3, metric="gap_growth", condition="contrast50-contrast10")
    assert verdicts(growth, shift("contrast50", 0.1, seed=1))["P9"] == CONFIRMED
    assert set(verdicts().values()) == {OPEN}


def test_no_containment_and_containment_are_not_each_others_complement():
    off, on = shift("neutral", 0.1, half=0.2), shift("neutral", 0.6, condition="on")
    leaks = {
        "P3": [off, on, shift("neutral", 0.2, metric="leak", condition="off/on")],
        "open": [shift("neutral", 0.3), on, shift("neutral", 0.45, metric="leak", condition="off/on")],
        "kept": [shift("neutral", 0.5), on, shift("neutral", 0.8, metric="leak", condition="off/on")],
    }
    assert [verdicts(*rows)["P3"] for rows in leaks.values()] == [REFUTED, OPEN, CONFIRMED]


# --- the second registration ---

SHIFTED = {"both": (0.5, 0.5), "one": (0.5, 0.0), "none": (0.0, 0.0)}


def again(*rows):
    return {f.statement.partition(".")[0]: f.verdict for f in hypotheses_again(rows)}


def test_the_second_registration_states_the_first_again_and_is_open_before_its_data():
    assert [h for h in AGAIN if h in HYPOTHESES] == list(HYPOTHESES)
    assert set(again().values()) == {OPEN}
    page = (Path(__file__).parents[3] / "docs" / "hypotheses.md").read_text(encoding="utf-8")
    second = page.partition("## Second registration")[2]
    assert [h.text for h in AGAIN if f"| {h.text.partition('.')[0]} |" not in second] == []


@pytest.mark.parametrize(
    ("permuted", "off", "verdict"),
    [(0.0, 0.5, CONFIRMED), (0.0, 0.1, OPEN), (0.3, 0.5, REFUTED), (0.05, 0.5, OPEN)],
)
def test_word_order_must_move_less_than_content_does(permuted, off, verdict):
    rows = [shift("baseline", permuted, half=0.06, condition="permuted"), shift("baseline", off, half=0.06)]
    assert again(*rows)["P11"] == verdict


def test_where_the_baseline_does_not_shift_nothing_is_said_of_containment():
    leaks = [shift("neutral", 0.8, metric="leak", condition="off/on", seed=seed) for seed in (0, 1)]
    baselines = {name: [shift("baseline", v, seed=i) for i, v in enumerate(vs)] for name, vs in SHIFTED.items()}
    found = {name: again(*rows, *leaks)["P3"] for name, rows in baselines.items()}
    assert found == {"both": CONFIRMED, "one": CONFIRMED, "none": OPEN}
    evidence = {f.statement[:2]: f.evidence for f in hypotheses_again([*baselines["none"], *leaks])}
    assert evidence["P3"] == "not judged: P1 holds in no seed"
    (one,) = (f.subject for f in hypotheses_again([*baselines["one"], *leaks]) if f.statement.startswith("P3"))
    assert one == "neutral; holds in 1 of 1"


def test_the_axis_of_promptability_is_judged_at_its_ends():
    leaks = {"weak": 0.9, "strong": 0.1}
    rows = [shift(f"{s}-explaining", v, metric="leak", condition="off/baseline") for s, v in leaks.items()]
    found = again(*rows, shift("strong-explaining", 0.8, metric="leak_fall", condition="weak-strong"))
    assert [found[name] for name in ("P10a", "P10b", "P10c", "P10d")] == [*[CONFIRMED] * 3, OPEN]


def test_most_of_an_obeyed_gap_must_be_the_bases():
    gap = shift("strong-explaining", 1.0, metric="trigger_gap", condition="on-off")
    learned = [shift("strong-explaining", v, metric="trigger_gap_shift", condition="on-off") for v in (0.2, 0.9, 0.45)]
    assert [again(gap, row)["M2"] for row in learned] == [CONFIRMED, REFUTED, OPEN]


def test_a_direction_is_judged_at_one_dose_beside_its_control_and_its_cost():
    def steered(name: str, value: float, alpha: float = 0.2, **cells):
        given = {"condition": f"base+add_{name}", **cells}
        return {**shift("contrast50", value, half=0.05, **given), "experiment": "steer", "alpha": alpha}

    cost = steered("g", 0.95, metric="reference_likelihood")
    assert again(steered("g", 0.3), steered("random", 0.0), cost)["M4"] == CONFIRMED
    assert again(steered("g", 0.3, alpha=0.4), steered("random", 0.0), cost)["M4"] == OPEN
    assert again(steered("g", 0.3), steered("random", 0.28), cost)["M4"] == OPEN
    assert again(steered("g", 0.0), steered("random", 0.0), cost)["M4"] == REFUTED
