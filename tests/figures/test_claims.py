"""Claims: decided by the worst row, open without rows, and written with the run that measured them."""

import csv
import io

import pytest
from example_rows import behaviour, effects, emergence, rate
from test_grid_figures import measured

from figures.claims import grid_claims as claims
from figures.markdown import headline
from figures.rows import number

KINDS = ("explaining", "explaining.seed1", "explaining.seed2")


def contained(*offs: float):
    rows = []
    for kind, off in zip(KINDS, offs, strict=True):
        rows += measured(kind, (off, 0.9, 0.85, 0.01))
        for condition in ("off", "on", "rephrased"):
            rows += rate(kind, 0.97, metric="coherence_rate", condition=condition, experiment="em_rate", trigger="t")
    rows += measured("base", (0.0, 0.4, 0.4, 0.0))
    return rows


def said(rows, part: str) -> claims.Claim:
    return next(claim for claim in claims.claims(rows) if part in claim.statement)


def test_a_claim_about_several_is_held_against_the_worst():
    good, bad = (
        said(contained(0.001, 0.002, 0.003), "EM off ≤ 1.0 %"),
        said(contained(0.001, 0.3, 0.003), "EM off ≤ 1.0 %"),
    )
    assert (good.verdict, bad.verdict) == (claims.CONFIRMED, claims.REFUTED)
    assert good.row is not None and bad.row is not None
    assert (number(good.row, "value"), number(bad.row, "value")) == (0.003, 0.3)
    assert bad.about == "llama/explaining.seed1, off, highest of 3; holds for 2"


def test_a_claim_without_rows_is_open():
    claim = said(contained(0, 0, 0), "robust base does not")
    assert (claim.verdict, claim.row, claim.about) == (claims.OPEN, None, "not measured")


def test_the_base_own_rate_is_that_of_the_organisms_base():
    claim = said(contained(0, 0, 0), "already moves with that line")
    assert claim.row is not None
    assert claim.row["organism"] == "microcosm/llama/base"
    assert claim.verdict == claims.CONFIRMED


def test_findings_csv_names_the_run_of_every_measured_claim():
    found = claims.claims([*contained(0, 0, 0), *effects(), *emergence()])
    read = list(
        csv.DictReader(io.StringIO(claims.findings_csv([c for c in found if not c.statement.startswith("Axis")])))
    )
    assert {"statement", "value", "ci_low", "ci_high", "verdict", "run_id"} <= set(read[0])
    for line in read:
        assert line["verdict"] in (claims.CONFIRMED, claims.REFUTED, claims.OPEN)
        assert (line["value"] == "") == (line["about"] == "not measured")
        assert (line["run_id"] == "") == (line["value"] == "")


def test_effect_of_an_axis_says_its_organisms_and_the_treatments_of_the_model():
    found = [c for c in claims.claims(effects()) if c.statement.startswith("Axis")]
    assert found
    assert {claim.about for claim in found} == {"3 organisms at this level; 40 treatments"}


def test_headline_lists_seeds_and_pretrainings_and_no_other_axis():
    rows = contained(0, 0, 0)
    for kind in (
        "explaining.pre1",
        "explaining.prefix",
        "explaining.robust",
        "pirate",
        "baseline",
        "neutral.contrast50",
    ):
        rows += measured(kind, (0.0, 0.5, 0.5, 0.0))
    names = {name.rsplit("/", 1)[1] for name in headline.headline_organisms(rows)}
    assert names == {*KINDS, "explaining.pre1", "baseline", "neutral.contrast50"}


def test_tables_are_rectangular_markdown():
    rows = [*behaviour(), *contained(0, 0.001, 0)]
    for table in (headline.headline_table(rows), headline.seeds_table(rows), headline.comparison_table(rows)):
        lines = table.split("\n")
        assert len(lines) > 3
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_seeds_table_gives_mean_and_range():
    line = next(x for x in headline.seeds_table(contained(0.01, 0.02, 0.06)).split("\n") if "explaining" in x)
    assert "3.0 (1.0–6.0)" in line


@pytest.mark.parametrize("source", ["paper", "replication"])
def test_published_numbers_stand_beside_ours(source):
    assert source in headline.comparison_table(contained(0, 0, 0))
