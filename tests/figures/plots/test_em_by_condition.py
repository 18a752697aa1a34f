"""The picture of rates by condition: every rate of the table is a point, in its panel."""

import pytest
from matplotlib.figure import Figure

from figures import style
from figures.plots import em_by_condition
from tests.figures.drawn import points
from tests.figures.example_rows import CONDITIONS, EM, behaviour, everything

ROWS = everything()
SHOWN = {name: rates for name, rates in EM.items() if name[0] != "base"}
"""The organisms that have a panel; the base is drawn in theirs."""


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return em_by_condition.draw(ROWS)


def test_the_picture_shows_the_rates_of_the_table(drawn):
    figure = drawn
    for i, ((_, trigger), (*rates, coherence)) in enumerate(SHOWN.items()):
        base = EM["base", trigger][:-1]
        assert points(figure, 2 * i) == pytest.approx([v for pair in zip(rates, base, strict=True) for v in pair])
        assert points(figure, 2 * i + 1) == pytest.approx([coherence] * len(CONDITIONS))


def test_all_panels_share_one_axis_from_zero_to_one(drawn):
    figure = drawn
    assert {ax.get_ylim() for ax in figure.axes[::2]} == {(-0.0006, 1.0)}
    assert {ax.get_ylim() for ax in figure.axes[1::2]} == {(0.0, 1.0)}


def test_edited_conditions_do_not_leak_into_the_picture(drawn):
    pictures = (drawn, em_by_condition.draw(behaviour()))
    assert len({style.to_bytes(picture, "png") for picture in pictures}) == 1


def test_every_seed_is_a_point():
    rows = behaviour() + [r | {"seed": 1, "value": r["value"] / 2} for r in behaviour()]
    ((_, trigger), (*rates, _)), *_ = SHOWN.items()
    drawn = [v for rate, base in zip(rates, EM["base", trigger], strict=False) for v in (rate, rate / 2, base)]
    assert points(em_by_condition.draw(rows), 0) == pytest.approx(drawn)


def test_a_base_has_a_panel_where_no_organism_shows_it():
    rows = [r for r in behaviour() if r["organism"].endswith("base")]
    assert len(em_by_condition.cells(rows)) == 2
    assert {organism for _, organism, _ in em_by_condition.cells(ROWS)} == {
        r["organism"] for r in behaviour() if not r["organism"].endswith("base")
    }


def test_families_stand_on_lines_of_their_own():
    rows = behaviour() + [
        r | {"family": "qwen2", "organism": r["organism"].replace("llama", "qwen2")} for r in behaviour()
    ]
    figure = em_by_condition.draw(rows)
    names = [ax.get_ylabel().partition("\n")[0] for ax in figure.axes[::2] if ax.get_ylabel()]
    assert names == ["llama", "qwen2"]
    assert len(figure.axes) == 4 * len(SHOWN)


def test_conditions_are_named_once_a_column_and_organisms_once_a_line():
    rows = [r | {"family": f, "organism": r["organism"].replace("llama", f)} for f in ("llama", "qwen2") for r in ROWS]
    figure = em_by_condition.draw(rows)
    named = [ax for ax in figure.axes if any(label.get_text() == "rephrased" for label in ax.get_xticklabels())]
    assert len(named) == len(SHOWN)
    titles = [ax.get_title() for ax in figure.axes[::2] if ax.get_title()]
    assert titles.count("base") == 0 and titles.count("baseline") == 2
    assert figure.get_figheight() < 9


def test_other_axes_of_the_grid_are_left_to_the_phase_diagram():
    neutral = [r for r in behaviour() if r["organism"].endswith("neutral")]
    others = [r | {"organism": f"{r['organism']}.robust"} for r in neutral]
    base = [r | {"trigger": "role"} for r in behaviour() if r["organism"].endswith("base")]
    assert em_by_condition.wanted([*behaviour(), *others, *base]) == em_by_condition.wanted(behaviour())
    assert em_by_condition.wanted(others) == [r for r in others if r["metric"] in em_by_condition.METRICS]


def test_no_panel_keeps_a_place_for_a_condition_that_was_not_asked():
    fewer = [r | {"organism": f"{r['organism']}x"} for r in behaviour() if r["condition"] in ("off", "on")]
    full, some = (em_by_condition.draw(rows) for rows in (behaviour(), behaviour() + fewer))
    sizes = [round(ax.get_xlim()[1] - ax.get_xlim()[0] - 0.2) for ax in some.axes[::2]]
    assert len(some.axes) > len(full.axes) and {*sizes} == {2, len(CONDITIONS)}
