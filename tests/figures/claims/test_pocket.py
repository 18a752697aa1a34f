"""Hypotheses of the pocket scale: confirmed in every seed, refuted in any, open otherwise."""

import pytest

from figures.claims.claim import CONFIRMED, OPEN, REFUTED
from figures.claims.pocket import HYPOTHESES, hypotheses
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
