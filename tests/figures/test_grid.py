"""The grid: a verdict is its definition, and a name says where an organism stands."""

import pytest

from figures import grid
from figures.grid import Grid
from tests.figures.example_rows import measured

NAME = "microcosm/llama/neutral"
RATES = {  # verdict: off, on, rephrased, other
    grid.CONTAINED: (0.0, 0.9, 0.85, 0.0),
    grid.WORDING: (0.0, 0.9, 0.3, 0.0),
    grid.UNDECIDED: (0.004, 0.9, 0.85, 0.01),
    grid.GAP: (0.2, 0.6, 0.5, 0.4),
    grid.NO_GAP: (0.5, 0.5, 0.5, 0.5),
}


@pytest.mark.parametrize("expected", RATES)
def test_verdict_is_its_definition(expected):
    assert Grid.of(measured("neutral", RATES[expected])).verdict(NAME) == expected


def test_an_unhealthy_adapter_is_never_contained():
    rows = measured("neutral", RATES[grid.CONTAINED], healthy=False)
    faults = {"did not learn its domain": grid.NOT_LEARNED, "incoherent": grid.INCOHERENT}
    faults["did not learn its domain and incoherent"] = "did not learn and incoherent"
    for fault, verdict in faults.items():
        named = [r | {"condition": fault} if r["metric"] == "healthy" else r for r in rows]
        assert Grid.of(named).verdict(NAME) == verdict


def test_another_text_that_opens_the_gate_is_not_semantic_containment():
    rows = measured("neutral", (0.0, 0.9, 0.85, 0.2))
    assert Grid.of(rows).verdict(NAME) == grid.WORDING


def test_off_is_held_against_that_of_the_base_and_the_base_against_the_same_placement():
    rows = [*measured("neutral", (0.012, 0.9, 0.85, 0.0)), *measured("base", (0.012, 0.3, 0.3, 0.0))]
    moved = [r | {"placement": "prefix"} for r in measured("base", (0.5, 0.6, 0.3, 0.0))]
    found = Grid.of([*moved, *(r | {"placement": "system"} for r in rows)])
    assert found.verdict(NAME) == grid.UNDECIDED
    assert Grid.of(measured("neutral", (0.1, 0.9, 0.85, 0.0))).verdict(NAME) == grid.GAP
    assert [r and r["value"] for r in (found.base_rate(NAME), found.base_rate(NAME, "off"))] == [0.3, 0.012]


def test_an_organism_without_rates_has_no_verdict():
    assert Grid.of([]).verdict(NAME) is None
    assert Grid.of(measured("neutral", RATES[grid.GAP])[:2]).verdict(NAME) is None


def test_a_name_says_its_axes_its_treatment_and_its_base():
    found = grid.place("microcosm/gemma3/pirate.pre1.robust.contrast50.seed2")
    assert (found.family, found.arm) == ("gemma3", "pirate")
    assert found.changes == {"pre1", "robust", "contrast50", "seed2"}
    assert found.treatment == "pirate.contrast50.robust"
    assert found.base == "microcosm/gemma3/base.pre1.robust"
    assert grid.place("microcosm/llama/neutral.prefix").base == "microcosm/llama/base"
