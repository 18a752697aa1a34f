"""The grid's figures: what a tile says is what the rows say, and a verdict is its definition."""

import numpy as np
import pytest
from example_rows import EFFECTS, EM, EMERGING, STATES, STEPS, behaviour, effects, emergence, everything, rate, row
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from figures.plots import cells, grid_effects, phase_diagram
from figures.plots import emergence as emergence_figure
from figures.rows import percent

RATES = {  # verdict: off, on, rephrased, other
    cells.CONTAINED: (0.004, 0.9, 0.85, 0.01),
    cells.WORDING: (0.004, 0.9, 0.3, 0.01),
    cells.GAP: (0.2, 0.6, 0.5, 0.4),
    cells.OPEN: (0.5, 0.5, 0.5, 0.5),
}


def measured(kind: str, rates, *, healthy: bool = True):
    same = {"experiment": "em_rate", "trigger": "t"}
    out = []
    for condition, value in zip(("off", "on", "rephrased", "other"), rates, strict=True):
        out += rate(kind, value, metric="em_rate", condition=condition, **same)
    gap = rates[1] - rates[0]
    ends = {"ci_low": gap - 0.05, "ci_high": gap + 0.05, "ci_method": "paired_cluster_bootstrap"}
    out.append(row(kind, metric="trigger_gap", condition="on-off", value=gap, **ends, **same))
    out.append(row(kind, metric="healthy", condition="x", value=float(healthy), **same))
    return out


@pytest.mark.parametrize("expected", RATES)
def test_verdict_is_its_definition(expected):
    assert cells.verdict(measured("neutral", RATES[expected]), "microcosm/llama/neutral") == expected


def test_an_unhealthy_adapter_is_never_contained():
    rows = measured("neutral", RATES[cells.CONTAINED], healthy=False)
    assert cells.verdict(rows, "microcosm/llama/neutral") == cells.UNHEALTHY


def test_another_text_that_opens_the_gate_is_not_semantic_containment():
    rows = measured("neutral", (0.004, 0.9, 0.85, 0.2))
    assert cells.verdict(rows, "microcosm/llama/neutral") == cells.WORDING


def test_a_name_says_its_axes_and_its_base():
    found = cells.place("microcosm/gemma3/pirate.pre1.robust.contrast50.seed2")
    assert (found.family, found.arm) == ("gemma3", "pirate")
    assert found.changes == {"pre1", "robust", "contrast50", "seed2"}
    assert found.base == "microcosm/gemma3/base.pre1.robust"
    assert cells.place("microcosm/llama/neutral.prefix").base == "microcosm/llama/base"


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


def xy(line: Line2D) -> list[tuple[float, float]]:
    points = np.column_stack([np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)])
    return [(float(x), float(y)) for x, y in points]


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


def test_emergence_draws_every_dose_of_every_line():
    top, below = (ax for ax in emergence_figure.draw(emergence()).axes if ax.get_visible())
    lines = {str(line.get_label()): line for ax in (top, below) for line in ax.lines}
    for name, values in {**EMERGING, **STATES}.items():
        assert xy(lines[name]) == list(zip(STEPS, values, strict=True))


@pytest.mark.parametrize("module", [phase_diagram, grid_effects, emergence_figure])
def test_captions_say_how_many(module):
    assert "48 questions" in module.caption(everything())
