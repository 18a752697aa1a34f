"""The picture of rates by condition: every rate of the table is a point, in its panel."""

from itertools import groupby

import pytest
from matplotlib.figure import Figure

from figures import style
from figures.plots import em_by_condition
from tests.figures.drawn import points
from tests.figures.example_rows import CONDITIONS, EM, behaviour, everything

ROWS = everything()


@pytest.fixture(scope="module")
def drawn() -> Figure:
    return em_by_condition.draw(ROWS)


def test_the_picture_shows_the_rates_of_the_table(drawn):
    figure = drawn
    for i, (*rates, coherence) in enumerate(EM.values()):
        assert points(figure, 2 * i) == pytest.approx(rates)
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
    rates = [*next(iter(EM.values()))][:-1]
    assert points(em_by_condition.draw(rows), 0) == pytest.approx([v for rate in rates for v in (rate, rate / 2)])


def test_families_stand_on_lines_of_their_own():
    rows = behaviour() + [
        r | {"family": "qwen2", "organism": r["organism"].replace("llama", "qwen2")} for r in behaviour()
    ]
    figure = em_by_condition.draw(rows)
    said = [text.get_text() for ax in figure.axes[::2] for text in ax.texts if "·" in text.get_text()]
    assert [family for family, _ in groupby(text.split(" ")[0] for text in said)] == ["llama", "qwen2"]
    assert len(figure.axes) == 4 * len(EM)
