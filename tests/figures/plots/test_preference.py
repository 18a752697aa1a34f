"""The pocket scale's figure: every shift is drawn in its panel, and the base's own response beside it."""

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
