"""Steering by log-odds: every dose of every direction is drawn, in the organism and in its base."""

from figures.plots import preference_steering
from tests.figures.drawn import points
from tests.figures.example_rows import STEERED_PREFERENCES, preferences, steered_preferences


def test_every_dose_is_drawn_in_the_organism_and_in_its_base():
    figure = preference_steering.draw([*preferences(), *steered_preferences()])
    assert len(figure.axes) == 4
    for i, metric in enumerate(preference_steering.METRICS):
        for j, setting in enumerate(("off", "base")):
            curves = [c[metric] for name, c in STEERED_PREFERENCES.items() if name.startswith(f"{setting}+")]
            drawn = {round(value, 6) for value in points(figure, 2 * i + j)}
            assert drawn >= {value for curve in curves for value in curve}
