"""The phase diagram: what a tile says is what the rows say."""

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from figures.plots import phase_diagram
from figures.rows import percent
from tests.figures.example_rows import EM, behaviour, everything


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_a_tile_says_off_on_and_the_base_own_rate():
    figure = phase_diagram.draw(behaviour())
    plain, mixed = figure.axes
    neutral, explaining = EM["neutral", "scene"], EM["explaining", "persona"]
    own = percent(EM["base", "persona"][1], 0)
    assert f"{percent(neutral[0])} | {percent(neutral[1], 0)}" in texts(plain)
    assert f"{percent(explaining[0])} | {percent(explaining[1], 0)}" in texts(plain)
    assert f"base {own}" in texts(plain)
    assert any(text.startswith(percent(EM["neutral.contrast50", "scene"][0])) for text in texts(mixed))


def test_only_contained_tiles_are_framed():
    plain = phase_diagram.draw(behaviour()).axes[0]
    framed = [p for p in plain.patches if isinstance(p, Rectangle) and p.get_linewidth() > 1]
    assert len(framed) == 1  # explaining; neutral leaks


def test_the_caption_says_how_many():
    assert "48 questions" in phase_diagram.caption(everything())
