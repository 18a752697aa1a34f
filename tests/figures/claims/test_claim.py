"""Bounds compare as they are written, and a claim is confirmed only if every case satisfies every bound."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.claims.claim import CONFIRMED, OPEN, REFUTED, Bound, Case, Claim, Finding, hold

NUMBERS = st.floats(-2, 2)


def cases(*values: Any) -> list[Case]:
    return [Case(f"case {i}", {"": None if v is None else {"value": v}}, str(v)) for i, v in enumerate(values)]


def from_values(source: Any) -> list[Case]:
    return cases(*source)


def finding(bound: Bound, *values: float | None, **more) -> Finding:
    (only,) = Claim("EM {}", from_values, (bound,), **more).findings(values)
    return only


@given(NUMBERS, NUMBERS)
def test_a_bound_compares_as_it_is_written(value, limit):
    rows = {"": {"value": value}}
    assert Bound("≥", limit).holds(rows) is (value >= limit) is not Bound("<", limit).holds(rows)
    assert Bound("≤", limit).holds(rows) is (value <= limit) is not Bound(">", limit).holds(rows)


@pytest.mark.parametrize(
    ("bound", "text"),
    [(Bound("≥", 0.122), "≥ 12.2 %"), (Bound("≤", 0.01), "≤ 1 %"), (Bound(">", 0.754, unit=""), "> 0.754")],
)
def test_a_statement_writes_its_bound(bound, text):
    assert finding(bound, 0.5).statement == f"EM {text}"


def test_an_undefined_number_satisfies_no_bound():
    assert {Bound(d, 0.5).holds({"": {"value": ""}}) for d in ("≥", "≤", ">", "<")} == {False}


@given(st.lists(NUMBERS, min_size=2), NUMBERS)
def test_a_claim_holds_if_it_holds_for_all_and_shows_the_worst(values, limit):
    for bound, worst, name in ((Bound("≥", limit), min(values), "lowest"), (Bound("≤", limit), max(values), "highest")):
        result = finding(bound, *values)
        holds = sum(bound.holds({"": {"value": value}}) is True for value in values)
        assert result.verdict == (CONFIRMED if holds == len(values) else REFUTED)
        assert result.row == {"value": worst}
        assert result.subject.endswith(f", {name} of {len(values)}; holds for {holds}")


def test_a_claim_without_cases_is_open_and_so_is_a_case_without_its_row():
    assert finding(Bound("≥", 0)) == Finding("EM ≥ 0 %", "not measured", "–", OPEN)
    assert finding(Bound("≥", 0), None, each=True).verdict == OPEN


def test_every_case_by_itself_and_another_verdict_where_a_bound_fails():
    claim = Claim("EM {}", from_values, (Bound("≥", 0.5),), each=True, otherwise=OPEN)
    assert [f.verdict for f in hold([claim], (0.4, 0.6))] == [OPEN, CONFIRMED]


def test_two_bounds_are_both_needed():
    bounds = (Bound("≤", 0.01, "off"), Bound("≥", 0.5, "on"))
    rows = [{"off": {"value": off}, "on": {"value": on}} for off in (0.0, 0.1) for on in (0.9, 0.1)]
    claim = Claim("contained", lambda _: [Case("", row, "") for row in rows], bounds, each=True)
    assert [f.verdict for f in claim.findings(None)] == [CONFIRMED, REFUTED, REFUTED, REFUTED]
