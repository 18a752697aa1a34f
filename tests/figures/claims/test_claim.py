"""Bounds compare as they are written, and verdicts are those of intervals: of one case, or of the mean of several."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from figures.bounds import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, held
from figures.claims.claim import Bound, Case, Claim, Finding, corrected, hold, multiplicity
from figures.claims.pooling import Measured, pooled

NUMBERS = st.floats(-2, 2)


def cases(*values: Any) -> list[Case]:
    return [Case(f"case {i}", {"": None if v is None else {"value": v}}, str(v)) for i, v in enumerate(values)]


def from_values(source: Any) -> list[Case]:
    return cases(*source)


def finding(bound: Bound, *values: Any, **more) -> Finding:
    (only,) = Claim("EM {}", from_values, (bound,), **more).findings(values)
    return only


@given(NUMBERS, st.floats(0, 1), NUMBERS)
def test_one_number_is_held_with_its_interval(value, half, limit):
    row = {"value": value, "ci_low": value - half, "ci_high": value + half}
    claim = Claim("EM {}", lambda _: [Case("one", {"": row}, "")], (Bound("≥", limit),))
    (above,) = claim.findings(None)
    expected = CONFIRMED if value - half >= limit else REFUTED if value + half < limit else INCONCLUSIVE
    assert above.verdict == claim.verdict(Case("", {"": row}, "")) == expected
    opposite = {CONFIRMED: REFUTED, REFUTED: CONFIRMED, INCONCLUSIVE: INCONCLUSIVE}
    assert held("<", limit, value - half, value + half) == opposite[expected]


@pytest.mark.parametrize(
    ("bound", "text"),
    [(Bound("≥", 0.122), "≥ 12.2 %"), (Bound("≤", 0.01), "≤ 1 %"), (Bound(">", 0.754, unit=""), "> 0.754")],
)
def test_a_statement_writes_its_bound(bound, text):
    assert finding(bound, 0.5).statement == f"EM {text}"


def test_an_undefined_number_satisfies_no_bound():
    assert {finding(Bound(d, 0.5), "").verdict for d in ("≥", "≤", ">", "<")} == {REFUTED}
    assert finding(Bound("≥", 0.5), 0.9, "").verdict == REFUTED


@given(st.lists(NUMBERS, min_size=2), NUMBERS)
def test_a_claim_shows_the_worst_of_several_and_is_decided_by_their_mean(values, limit):
    for bound, worst, name in ((Bound("≥", limit), min(values), "lowest"), (Bound("≤", limit), max(values), "highest")):
        result = finding(bound, *values)
        mean = pooled([Measured(v, v, v, str(i)) for i, v in enumerate(values)])
        assert result.verdict == held(bound.direction, limit, mean.low, mean.high)
        assert result.worst == f"{name}: case {values.index(worst)} {worst}"
        assert result.row is not None and (result.row["value"], result.row["ci_high"]) == (mean.value, mean.high)


def test_holms_p_is_over_all_claims_of_a_page_and_changes_no_verdict():
    claims = [
        Claim("EM {}", lambda _, v=v: [Case("", {"": v}, "")], (Bound("≥", 0.5),))
        for v in ({"value": 0.6, "ci_low": 0.51, "ci_high": 0.69}, {"value": 0.9, "ci_low": 0.8, "ci_high": 1.0})
    ]
    before = hold([*claims, Claim("none", lambda _: [], (Bound("≥", 0),))], None)
    after = corrected(before)
    assert [f.verdict for f in after] == [f.verdict for f in before] == [CONFIRMED, CONFIRMED, OPEN]
    first, second, none = (f.p for f in after)
    assert none is None and first is not None and first == before[0].p and first < 0.05
    assert before[1].p is not None and second == pytest.approx(2 * before[1].p)
    assert "Of 2 claims here with an interval 2 are decided, and 2 of these stand" in multiplicity(after)


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
