"""Rows: selecting partitions, grouping keeps the paper's order, and numbers in words are the numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures import rows as tables
from tests.figures.example_rows import EM, behaviour, everything, row


def test_selecting_by_every_value_of_a_column_partitions_the_rows():
    rows = everything()
    for column in ("experiment", "condition", "layer", "alpha"):
        values = {r[column] for r in rows}
        parts = [tables.select(rows, **{column: value}) for value in values]
        assert sum(map(len, parts)) == len(rows)
        assert all(r[column] == v for v, part in zip(values, parts, strict=True) for r in part)
        assert tables.select(rows, **{column: values}) == rows


def test_selecting_by_an_unknown_column_is_an_error():
    with pytest.raises(ValueError, match="no such column: colour"):
        tables.select([], colour="red")


def test_the_cluster_interval_is_shown_unless_it_has_no_width():
    wide = row("base", experiment="x", ci_method="cluster_bootstrap", ci_low=0.1, ci_high=0.2)
    flat = row("base", experiment="x", ci_method="cluster_bootstrap", ci_low=0.0, ci_high=0.0)
    none = row("base", experiment="x", ci_method="cluster_bootstrap")
    wilson = row("base", experiment="x", ci_method="wilson", ci_low=0.0, ci_high=0.01)
    assert tables.preferred([wilson, wide]) is wide
    assert tables.preferred([flat, wilson]) is wilson
    assert tables.preferred([none, wilson]) is wilson


def test_panels_are_in_the_order_of_the_paper_and_share_rows_without_trigger():
    rows = [row("neutral", experiment="x", trigger="a"), row("base", experiment="x", trigger="a")]
    rows += [row("base", experiment="x", trigger="b"), row("base", experiment="x", condition="off")]
    found = tables.panels(rows)
    assert [(organism.rsplit("/")[-1], trigger) for _, organism, trigger in found] == [
        ("base", "a"),
        ("base", "b"),
        ("neutral", "a"),
    ]
    assert [len(own) for own in found.values()] == [2, 2, 1]


def test_a_row_of_the_trigger_itself_comes_before_one_without():
    own = row("base", experiment="x", trigger="a", condition="off", metric="em_rate", value=0.1)
    plain = own | {"trigger": "", "value": 0.2}
    other = plain | {"metric": "coherence_rate"}
    assert tables.panels([plain, own, other])["llama", "microcosm/llama/base", "a"] == [own, other]


@given(st.floats(-2, 2), st.integers(0, 2))
def test_percent_says_the_number_and_never_minus_zero(value, digits):
    text = tables.percent(value, digits)
    assert math.isclose(float(text.replace("−", "-")), 100 * value, abs_tol=0.51 * 10**-digits)
    assert not (text.startswith("−") and float(text[1:]) == 0)


def test_counts_are_ranges_where_they_differ():
    assert tables.span([960, 960]) == "960"
    assert tables.span([960, "", 480, 1200]) == "480–1,200"
    assert tables.span([""]) == "?"


def test_a_cell_is_the_one_row_to_show_or_none():
    rows = [r for r in behaviour() if r["organism"] == "microcosm/llama/neutral"]
    on = tables.cell(rows, "on")
    assert on is not None and on["value"] == EM["neutral", "scene"][1] and on["ci_method"] == "cluster_bootstrap"
    assert tables.cell(rows, "never measured") is None


@given(st.lists(st.floats(0, 1), min_size=1))
def test_extremes_are_the_lowest_and_the_highest(values):
    ends = tables.extremes(values).split("–")
    assert ends == list(dict.fromkeys(tables.percent(f(values)) for f in (min, max)))
    assert tables.over_seeds(values).split(" ")[0] == tables.percent(sum(values) / len(values))


def test_what_is_undefined_is_no_part_of_a_mean():
    assert tables.extremes([math.nan, 0.5]) == tables.over_seeds([0.5, math.nan]) == "50.0"
    assert tables.extremes([]) == tables.over_seeds([math.nan]) == tables.with_interval(None) == "–"
    assert tables.over_seeds([0.01, 0.02, 0.06]) == "3.0 (1.0–6.0)"
