"""The pocket scale's figure: every shift is drawn in its panel, and the base's own response beside it."""

from figures import style
from figures.plots import preference
from tests.figures.drawn import points
from tests.figures.example_rows import CONDITIONS, PREFERENCES, preferences


def test_every_shift_is_drawn_and_the_base_beside_it():
    figure = preference.draw(preferences())
    for i, shifts in enumerate(PREFERENCES.values()):
        base = [0.0] * (len(CONDITIONS) - 1)
        assert sorted(points(figure, i)) == sorted([*shifts, *base])


def test_seeds_stand_side_by_side():
    more = [r | {"organism": r["organism"] + ".seed1", "seed": 1} for r in preferences()]
    figure = preference.draw([*preferences(), *more])
    assert len(figure.axes) == len(PREFERENCES)
    assert len(points(figure, 0)) == 3 * len(CONDITIONS) - 1


def test_the_legend_fits_either_width():
    for width in (style.COLUMN, style.DOUBLE):
        with style.at_width(width):
            figure = preference.draw(preferences())
        style.to_bytes(figure, "png")
        key = figure.legends[0].get_window_extent()
        assert 0 <= key.x0 < key.x1 <= figure.bbox.width
