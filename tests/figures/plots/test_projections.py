"""Projections: every question is a point, at the site that separates on from off."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures import style
from figures.plots import projections
from tests.figures.drawn import heights
from tests.figures.example_rows import CLUSTERS, CONDITIONS, everything

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return projections.draw(ROWS)


def test_the_projections_of_every_question_are_drawn(drawn):
    figure = drawn
    for ax in figure.axes:
        dots = [line for line in ax.lines if line.get_marker() == "o"]
        assert [len(heights(line)) for line in dots] == [CLUSTERS] * len(CONDITIONS)
        assert [to_hex(line.get_color()).upper() for line in dots] == [style.CONDITIONS[c] for c in CONDITIONS]


def test_projections_show_the_site_that_separates_on_from_off():
    blurred = [r | {"layer": 0, "value": float(i % 7)} for i, r in enumerate(ROWS) if "projection" in r["metric"]]
    assert {r["layer"] for r in projections.wanted([*blurred, *ROWS])} == {2}
    assert "furthest apart" in projections.caption([*blurred, *ROWS])
    assert "furthest apart" not in projections.caption(ROWS)


def test_constant_projections_are_drawn():
    rows = [r | {"value": 1.0} for r in ROWS if "projection" in r["metric"]]
    assert style.to_bytes(projections.draw(rows), "png")
