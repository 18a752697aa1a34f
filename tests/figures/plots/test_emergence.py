"""Emergence: every dose of every line is drawn."""

from figures.plots import emergence
from tests.figures.drawn import xy
from tests.figures.example_rows import EMERGING, STATES, STEPS, everything
from tests.figures.example_rows import emergence as emergence_rows


def test_emergence_draws_every_dose_of_every_line():
    top, below = (ax for ax in emergence.draw(emergence_rows()).axes if ax.get_visible())
    lines = {str(line.get_label()): line for ax in (top, below) for line in ax.lines}
    for name, values in {**EMERGING, **STATES}.items():
        assert xy(lines[name]) == list(zip(STEPS, values, strict=True))


def test_the_caption_says_how_many():
    assert "48 questions" in emergence.caption(everything())
