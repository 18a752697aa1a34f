"""README and docs say what the committed tables say, every claim has its verdict, and every picture is drawn."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from figures.claims.claim import AFTER, BEFORE, CONFIRMED, INCONCLUSIVE, OPEN, REFUTED
from figures.claims.microcosm.page import EXPERIMENTS
from figures.markdown.claims import findings_csv
from figures.markdown.documents import (
    LATER,
    TABLES,
    audit_table,
    audit_texts,
    every_finding,
    read_tables,
    registered,
    texts,
)
from figures.markdown.table import renewed
from figures.plots import FIGURES
from interp.runs.table import write_table

ROOT = Path(__file__).parents[3]
DATA = ROOT / "figures" / "data"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def tables():
    return read_tables(DATA)


@pytest.fixture(scope="module")
def findings(tables):
    return every_finding(tables)


def _measured():
    return [name for name in LATER if (DATA / f"{name}.csv.gz").is_file()]


@pytest.mark.parametrize("name", (*TABLES, *_measured()))
def test_a_committed_table_written_again_is_the_same_file(name, tables, tmp_path):
    write_table(tmp_path / "again.csv.gz", tables[name])
    assert (tmp_path / "again.csv.gz").read_bytes() == (DATA / f"{name}.csv.gz").read_bytes()


def test_every_committed_table_is_read_and_all_but_counts_are_under_two_megabytes():
    counted = ("containment_grid", *(name for name in _measured() if name in EXPERIMENTS))
    tables = {"findings.csv", *(f"{name}.csv.gz" for name in (*TABLES, *_measured()))}
    others = {"audit.csv.gz", "plan.csv"} & {path.name for path in DATA.iterdir()}  # have columns of their own
    assert {path.name for path in DATA.iterdir()} == {*tables, *others, *(f"{name}_counts.csv.gz" for name in counted)}
    assert sum(path.stat().st_size for path in DATA.iterdir() if path.name in tables) < 2_000_000


def test_the_pages_say_what_the_tables_say_and_each_table_stands_on_one(tables):
    content, places = {**texts(tables), **audit_texts(audit_table(DATA))}, Counter()
    for page in PAGES:
        text, names = renewed(page, content)
        assert text == page.read_text(encoding="utf-8"), page
        places.update(names)
    assert places == dict.fromkeys(content, 1)


def test_every_picture_is_in_the_gallery_and_on_a_page():
    known = (*TABLES, *_measured())
    drawn = {name for figure in FIGURES for name, table in figure.pictures().items() if table in known}
    assert {path.stem for path in (ROOT / "figures" / "gallery").glob("*.png")} == drawn
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in drawn if f"figures/gallery/{name}.png" not in text] == []


def test_every_claim_is_measured_and_findings_csv_is_that_of_the_tables(findings):
    both = [finding for part in findings for finding in part]
    assert [finding.statement for finding in both if finding.row is None] == []
    every = [*both, *registered(read_tables(DATA), audit_table(DATA))]
    assert findings_csv(every) == (DATA / "findings.csv").read_text(encoding="utf-8")


def test_findings_csv_says_verdict_and_time_of_every_claim():
    with (DATA / "findings.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["verdict"] for line in lines} == {CONFIRMED, REFUTED, INCONCLUSIVE, OPEN}
    assert {line["written"] for line in lines} == {BEFORE, AFTER}


def test_claims_that_the_data_do_not_bear_out_are_kept(findings):
    verdicts = {finding.statement: finding.verdict for finding in findings[1]}
    (together,) = (v for statement, v in verdicts.items() if "must be read together" in statement)
    (words,) = (v for statement, v in verdicts.items() if "reads more than words" in statement)
    assert (together, words) == (INCONCLUSIVE, REFUTED)
