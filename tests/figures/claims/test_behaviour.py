"""Claims about the behaviour: decided by the worst row, open without rows, with the run that measured them."""

import csv
import io

import pytest

from figures.claims.claim import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, Finding, hold
from figures.claims.registry import BEHAVIOUR, claims
from figures.claims.selectors import Tables
from figures.markdown.claims import findings_csv
from figures.rows import number
from tests.figures.example_rows import effects, emergence, measured, rate

KINDS = ("explaining", "explaining.seed1", "explaining.seed2")


def contained(*offs: float):
    rows = []
    for kind, off in zip(KINDS, offs, strict=True):
        rows += measured(kind, (off, 0.9, 0.85, 0.01))
        for condition in ("off", "on", "rephrased"):
            rows += rate(kind, 0.97, metric="coherence_rate", condition=condition, experiment="em_rate", trigger="t")
    rows += measured("base", (0.0, 0.4, 0.4, 0.0))
    return rows


def held(rows) -> list[Finding]:
    return hold(claims(BEHAVIOUR), Tables.of(rows))


def about(rows, part: str) -> Finding:
    return next(finding for finding in held(rows) if part in finding.statement)


def test_a_claim_about_several_is_held_against_their_mean_and_shows_the_worst():
    every = ((0.001, 0.002, 0.003), (0.3, 0.3, 0.3), (0.001, 0.3, 0.003))
    good, bad, mixed = (about(contained(*offs), "EM off ≤ 1 %") for offs in every)
    assert (good.verdict, bad.verdict, mixed.verdict) == (CONFIRMED, REFUTED, INCONCLUSIVE)
    assert bad.row is not None and number(bad.row) == pytest.approx(0.3)
    assert mixed.worst.startswith("highest: llama/explaining.seed1, off 30.0 [")
    assert mixed.subject.startswith("3 organisms, 1 pretraining")


def test_an_unhealthy_organism_is_no_part_of_a_claim():
    rows = [*contained(0, 0, 0), *measured("explaining.pre1", (0.5, 0.9, 0.85, 0.01), healthy=False)]
    assert about(rows, "EM off ≤ 1 %").subject.startswith("3 organisms, 1 pretraining")


def test_a_claim_without_rows_is_open():
    finding = about(contained(0, 0, 0), "robust base does not")
    assert (finding.verdict, finding.row, finding.subject) == (OPEN, None, "not measured")


def test_the_base_own_rate_is_that_of_the_organisms_base():
    finding = about(contained(0, 0, 0), "already moves with that line")
    assert finding.row is not None
    assert finding.row["organism"] == "microcosm/llama/base"
    assert finding.verdict == CONFIRMED


def test_findings_csv_names_the_run_of_every_measured_claim():
    found = held([*contained(0, 0, 0), *effects(), *emergence()])
    lines = list(csv.DictReader(io.StringIO(findings_csv([f for f in found if not f.statement.startswith("Axis")]))))
    assert {"statement", "value", "ci_low", "ci_high", "verdict", "written", "run_id"} <= set(lines[0])
    for line in lines:
        assert line["verdict"] in (CONFIRMED, REFUTED, INCONCLUSIVE, OPEN)
        assert (line["value"] == "") == (line["about"] == "not measured")
        assert (line["run_id"] == "") == (line["value"] == "")


def test_effect_of_an_axis_says_its_organisms_and_the_treatments_of_the_model():
    found = [finding for finding in held(effects()) if finding.statement.startswith("Axis")]
    assert found
    assert {finding.subject for finding in found} == {"3 organisms at this level; 40 treatments"}
    assert {finding.verdict for finding in found} <= {CONFIRMED, OPEN}
