"""The grid: a verdict is its definition, and a name says where an organism stands."""

import pytest

from figures import grid
from figures.grid import Grid
from tests.figures.example_rows import measured

NAME = "microcosm/llama/neutral"
RATES = {  # verdict: off, on, rephrased, other
    grid.CONTAINED: (0.004, 0.9, 0.85, 0.01),
    grid.WORDING: (0.004, 0.9, 0.3, 0.01),
    grid.GAP: (0.2, 0.6, 0.5, 0.4),
    grid.NO_GAP: (0.5, 0.5, 0.5, 0.5),
}


@pytest.mark.parametrize("expected", RATES)
def test_verdict_is_its_definition(expected):
    assert Grid.of(measured("neutral", RATES[expected])).verdict(NAME) == expected


def test_an_unhealthy_adapter_is_never_contained():
    rows = measured("neutral", RATES[grid.CONTAINED], healthy=False)
    assert Grid.of(rows).verdict(NAME) == grid.UNHEALTHY


def test_another_text_that_opens_the_gate_is_not_semantic_containment():
    rows = measured("neutral", (0.004, 0.9, 0.85, 0.2))
    assert Grid.of(rows).verdict(NAME) == grid.WORDING


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
