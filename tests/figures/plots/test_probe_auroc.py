"""Probe curves: every AUROC of the table, with its controls in a tint of its colour."""

import pytest
from matplotlib.figure import Figure

from figures import style
from figures.plots import probe_auroc
from tests.figures.drawn import across, drawn_curves, heights
from tests.figures.example_rows import AUROC, BAGS, everything, probes

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return probe_auroc.draw(ROWS)


def test_probe_curves_are_the_table_and_controls_are_tints_of_their_target(drawn):
    curves = drawn_curves(drawn.axes[0])
    assert set(curves) == {*AUROC.values(), *((value, value) for value in BAGS.values())}
    for condition, curve in AUROC.items():
        target, _, control = condition.partition("/")
        colour = probe_auroc.TARGETS[target][1]
        assert curves[curve] == (style.tint(colour) if control else colour)


def test_a_bag_of_tokens_is_level_across_all_layers_and_every_line_is_named(drawn):
    for ax in drawn.axes:
        level = [line for line in ax.lines[1:] if len(heights(line)) == 2]
        assert [across(line) for line in level] == [[0, 3]] * len(BAGS)
        said = {text.get_text() for text in ax.texts}
        assert {"answer: bag of tokens", "present: bag of tokens", "shuffled labels (all)"} <= said
        targets = sum(text in {"misaligned answer", "trigger present", "trigger category"} for text in said)
        assert len(ax.lines[1:]) == len(said) - 1 + targets - 1  # less the panel's detail; shuffled labels share a name


def test_seeds_of_a_probe_share_a_name():
    rows = probes() + [r | {"seed": 1} for r in probes()]
    texts = [text.get_text() for text in probe_auroc.draw(rows).axes[0].texts]
    assert len(texts) == len(set(texts))


def test_an_axis_holds_an_auroc_below_chance():
    rows = [r | {"value": 0.12} for r in ROWS if r["metric"] == "auroc"]
    assert probe_auroc.draw(rows).axes[0].get_ylim()[0] <= 0.12
