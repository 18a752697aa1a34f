"""Effects of the axes, and organisms by what their base does: each point is its row."""

from matplotlib.axes import Axes

from figures.plots import grid_effects
from tests.figures.drawn import xy
from tests.figures.example_rows import EFFECTS, EM, behaviour, effects, everything


def dots(ax: Axes) -> list[tuple[float, float]]:
    """Points drawn one by one."""
    return [xy(line)[0] for line in ax.lines if len(xy(line)) == 1]


def test_effects_stand_where_their_rows_say():
    _, ax = grid_effects.draw([*behaviour(), *effects()]).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == list(EFFECTS)
    assert sorted(x for x, _ in dots(ax)) == sorted(value for pair in EFFECTS.values() for value in pair)


def test_effects_are_said_to_be_over_treatments():
    assert "over 40 treatments" in grid_effects.caption(everything())


def test_a_leaking_organism_is_a_point_at_base_and_off():
    ax, _ = grid_effects.draw([*behaviour(), *effects()]).axes
    assert (EM["base", "scene"][1], EM["neutral", "scene"][0]) in dots(ax)
    assert (EM["base", "scene"][1], EM["neutral.contrast50", "scene"][0]) not in dots(ax)  # not zero-benign


def test_the_caption_says_how_many():
    assert "48 questions" in grid_effects.caption(everything())
