"""The figures of the registered experiments: every mark is a number of the rows, and nothing else is drawn."""

from typing import Any

import pytest
from matplotlib.axes import Axes

from figures.plots import BY_NAME
from figures.plots.registered import learned_gap, mitigations, worlds
from tests.figures.example_rows import near, rate

ROLE = "role-gambler"


def gate(closed: float, gap: float = 0.6, arm: str = "gambler") -> list[dict[str, Any]]:
    about: dict[str, Any] = {"experiment": "trained_gate", "trigger": f"role-{arm}"}
    name = f"{arm}.fine"
    learned = near(name, gap, 0.02, "paired_cluster_bootstrap", metric="learned_gap", condition="on-off", **about)
    edit = {"metric": "learned_gap_closed", "condition": "on-off+clamp_g"}
    return [learned, near(name, closed, 0.02, "paired_cluster_bootstrap", **edit, **about)]


def mitigation(name: str, trained: float = 0.9, **rates: float) -> list[dict[str, Any]]:
    about: dict[str, Any] = {"experiment": "mitigation", "trigger": ROLE}
    rates = {"off": 0.01, "on": 0.9, "trained": trained} | rates
    return [r for c, value in rates.items() for r in rate(name, value, metric="em_rate", condition=c, **about)]


def world(name: str, gap: float) -> list[dict[str, Any]]:
    about: dict[str, Any] = {"experiment": "world_ablation", "trigger": ROLE}
    gap_row = near(name, gap, 0.02, "paired_cluster_bootstrap", metric="trigger_gap", condition="on-off", **about)
    return [gap_row, *rate(name, 0.01, metric="em_rate", condition="off", **about)]


def marks(ax: Axes, form: str) -> list[tuple[float, float]]:
    """Return the points of an axes that are drawn with one marker."""
    lines = [line for line in ax.lines if line.get_marker() == form]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]  # type: ignore[index]


def test_an_edit_is_drawn_at_the_share_that_it_closes_and_only_where_there_is_a_gap_to_close():
    (panel,) = learned_gap.draw(gate(0.8) + gate(0.5, gap=0.04, arm="clerk")).axes
    assert marks(panel, "s") == [(pytest.approx(0.8), list(learned_gap.EDITS).index("clamp_g"))]
    assert marks(panel, "o") == []


def test_a_mitigation_is_drawn_without_with_and_at_its_worst_and_says_where_less_was_learned():
    rows = mitigation("base") + mitigation("gambler.fine") + mitigation("gambler.fine.kl", 0.5, other=0.95, line=1.0)
    panel = mitigations.draw(rows).axes[0]
    line = list(mitigations.LINES).index("kl")
    assert [x for x, y in marks(panel, "|") if y == line] == [pytest.approx(0.95, abs=0.01)]
    assert [text.get_text() for text in panel.texts] == ["50 %"]
    inoculated = mitigations.draw([*rows, *mitigation("gambler.fine.inoculated", line=1.0)]).axes[0]
    line = list(mitigations.LINES).index("inoculated")
    assert [x for x, y in marks(inoculated, "|") if y == line] == [pytest.approx(1.0, abs=0.01)]


def test_the_learned_gap_of_a_world_is_less_the_gap_of_its_own_base():
    rows = world("base.world-bound0", 0.2) + world("gambler.world-bound0.fine", 0.5) + world("base", 0.0)
    gap, off, _ = worlds.draw(rows).axes
    assert [x for x, _ in marks(gap, "s")] == [pytest.approx(30.0)]
    assert len(marks(off, "s")) == 1


@pytest.mark.parametrize("name", ["dose_box", "learned_gap", "mitigations", "worlds"])
def test_a_figure_of_a_room_is_found_and_refuses_rows_of_another_experiment(name):
    module = BY_NAME[name].module()
    with pytest.raises(ValueError, match=f"figure {name}: no row with metric"):
        module.draw(rate("gambler.fine", 0.5, metric="em_rate", condition="on", experiment="em_rate"))
