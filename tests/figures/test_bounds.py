"""A verdict is confirmed, refuted or inconclusive as the interval lies; a difference has the widths of both."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.bounds import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, held, minus, row_held
from tests.figures.example_rows import near

NUMBERS = st.floats(-2, 2)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_opposite_directions_give_opposite_verdicts(a, b, limit):
    low, high = min(a, b), max(a, b)
    opposite = {CONFIRMED: REFUTED, REFUTED: CONFIRMED, INCONCLUSIVE: INCONCLUSIVE}
    for direction, other in (("≥", "<"), ("≤", ">")):
        verdict = held(direction, limit, low, high)
        assert held(other, limit, low, high) == opposite[verdict]
        assert (verdict == INCONCLUSIVE) <= (low <= limit <= high)


def test_an_interval_that_touches_the_limit_is_on_the_side_that_includes_it():
    assert [held(d, 0.5, 0.5, 0.9) for d in ("≥", ">", "≤", "<")] == [CONFIRMED, INCONCLUSIVE, INCONCLUSIVE, REFUTED]


def test_no_row_decides_nothing_and_no_number_refutes():
    assert row_held(None, "≥", 0) == OPEN
    assert row_held({"value": "", "ci_low": "", "ci_high": ""}, "≥", 0) == REFUTED
    assert row_held({"value": 0.3, "ci_low": "", "ci_high": ""}, "≥", 0.2) == CONFIRMED


@given(NUMBERS, st.floats(0, 1), NUMBERS, st.floats(0, 1))
def test_a_difference_has_the_root_of_the_summed_squares_of_both_widths(x, a, y, b):
    same = {"experiment": "em_rate", "metric": "em_rate", "condition": "off"}
    found = minus(near("neutral", x, a, "wilson", **same), near("base", y, b, "wilson", **same))
    assert found["value"] == x - y and found["organism"].endswith("neutral")
    assert found["ci_high"] - found["value"] == pytest.approx(math.hypot(a, b), abs=1e-9)
    assert found["value"] - found["ci_low"] == pytest.approx(math.hypot(a, b), abs=1e-9)
