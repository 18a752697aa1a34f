"""Dose-response: every dose of the table; incoherent ones are hollow."""

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures import style
from figures.plots import dose_response
from tests.figures.drawn import heights
from tests.figures.example_rows import STEERED, everything, steering

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return dose_response.draw(ROWS)


def test_the_dose_response_is_the_table_and_incoherent_doses_are_hollow(drawn):
    top, below = (drawn.axes[i] for i in (1, 3))
    marks = [line for line in top.lines if line.get_marker() == "o"]
    placed = {(height, to_hex(line.get_markerfacecolor()) == "#ffffff") for line in marks for height in heights(line)}
    assert placed == {(rate, coherence < 0.6) for rate, coherence in zip(*STEERED["off+add_g"], strict=True)}
    coherent = [height for line in below.lines if line.get_marker() == "o" for height in heights(line)]
    assert coherent == pytest.approx(STEERED["off+add_g"][1])


def test_the_direction_from_answers_is_a_comparison_and_not_a_control(drawn):
    colours = {t.get_text(): to_hex(t.get_color()).upper() for t in drawn.axes[1].texts}
    assert colours["add g from answers"] == style.DIRECTIONS["g_answer"]
    assert colours["add random"] == colours["add orthogonal"] == style.CONTROL
    assert "not a control" in dose_response.caption(ROWS)
    without = [r for r in ROWS if r["condition"] != "off+add_g_answer"]
    assert "answer tokens" not in dose_response.caption(without)


def test_every_direction_that_is_added_has_a_name_and_a_colour_of_its_own_kind(drawn):
    colours = {t.get_text(): to_hex(t.get_color()).upper() for t in drawn.axes[1].texts}
    named = {f"off+add_{name}": words for name, (words, *_) in dose_response.LINES.items()}
    assert {named[condition] for condition in STEERED} <= set(colours)
    assert colours["add delta"] == colours["add delta without g"] == style.DIRECTIONS["delta"]
    assert colours["add g shift"] == style.DIRECTIONS["g_shift"]
    without = [r for r in ROWS if "delta" not in str(r["condition"])]
    assert "orthogonal to g;" in dose_response.caption(ROWS) and "orthogonal to g;" not in dose_response.caption(
        without
    )


def test_the_dose_response_stands_without_the_behaviour_rows():
    assert style.to_bytes(dose_response.draw(steering()), "pdf")
