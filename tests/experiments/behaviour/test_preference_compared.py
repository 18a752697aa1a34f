"""Comparisons of the pocket scale's hypotheses, on shifts whose answer is known."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from experiments.behaviour.preference_compared import Measured, compared
from training.registry import find_organism


def measured(arm: str, shifts: Mapping[str, float], seed: int = 0) -> Measured:
    """An organism whose shift is the same for every question but for a part that pairing cancels."""
    organism = replace(find_organism(f"pocket/smollm2/{arm}"), seed=seed)
    rows = [
        {
            "model": model,
            "condition": condition,
            "question": f"q{i}",
            "log_odds": i + (shift if model == "organism" else 0),
        }
        for model in ("organism", "base")
        for condition, shift in shifts.items()
        for i in range(4)
    ]
    return Measured.of(organism, f"preference-{arm}", rows)


def values(*every: Measured):
    return {(r["organism"].split("/")[-1], r["seed"], r["metric"], r["condition"]): r["value"] for r in compared(every)}


ARM = {"off": 0.25, "on": 1.0, "rephrased": 0.75, "other": 0.5, "opposite": 0.5}


def test_contexts_of_one_organism():
    found = values(measured("contrast50", ARM))
    assert found["contrast50", 0, "leak", "off/on"] == pytest.approx(0.25)
    assert found["contrast50", 0, "base_gap", "on-off"] == 0
    assert found["contrast50", 0, "opened", "opposite/rephrased"] == pytest.approx(0.5)
    assert found["contrast50", 0, "frame_over_meaning", "other"] == pytest.approx(0.0)


def test_organisms_of_one_seed_are_compared_with_its_baseline_and_not_with_another():
    arms = [
        measured("baseline", {"off": 0.5, "on": 0.5}),
        measured("contrast50", ARM),
        measured("contrast10", {"off": 0.5, "on": 0.75}),
    ]
    found = values(*arms, measured("contrast50", ARM, seed=1))
    assert found["contrast50", 0, "leak", "off/baseline"] == pytest.approx(0.5)
    assert found["contrast10", 0, "leak", "off/baseline"] == pytest.approx(1.0)
    assert found["contrast50", 0, "gap_growth", "contrast50-contrast10"] == pytest.approx(0.5)
    assert {key[2:] for key in found if key[1] == 1} == {
        ("leak", "off/on"),
        ("base_gap", "on-off"),
        ("opened", "opposite/rephrased"),
        ("frame_over_meaning", "other"),
    }
    assert not [key for key in found if key[0] == "baseline"]


def test_arms_on_a_base_of_their_own_are_compared_with_the_baseline_on_that_base():
    offs = {"weak-explaining": 0.9, "weak-baseline": 1.0, "strong-explaining": 0.25, "strong-baseline": 0.5}
    kinds = [measured(arm.partition("-")[2], {"off": off}) for arm, off in offs.items()]
    arms = [
        replace(m, organism=replace(m.organism, name=f"pocket/smollm2/{arm}"))
        for arm, m in zip(offs, kinds, strict=True)
    ]
    found = values(measured("baseline", {"off": 9.0}), *arms)
    assert found["weak-explaining", 0, "leak", "off/baseline"] == pytest.approx(0.9)
    assert found["strong-explaining", 0, "leak", "off/baseline"] == pytest.approx(0.5)
    assert found["strong-explaining", 0, "leak_fall", "weak-strong"] == pytest.approx(0.4)
    assert ("strong-explaining", 0, "leak_fall", "weak-strong") not in values(*arms[:3])
    still = replace(arms[3], shifts={"off": dict.fromkeys(arms[3].shifts["off"], 0.0)})
    assert not [key for key in values(*arms[:3], still) if key[0] == "strong-explaining" and "baseline" in key[3]]


def test_what_was_not_measured_is_not_compared():
    assert values(measured("neutral", {"off": 0.1})) == {}
