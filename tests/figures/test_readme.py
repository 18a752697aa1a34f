"""The README's tables are those of the committed tables, and its pictures are all drawn."""

from pathlib import Path

import pytest

from figures.markdown.readme import PICTURES, TABLES, every_claim, read_tables, renew_readme
from interp.runs.table import write_table

ROOT = Path(__file__).parents[2]
DATA = ROOT / "figures" / "data"


@pytest.fixture(scope="module")
def tables():
    return read_tables(DATA)


@pytest.mark.parametrize("name", TABLES)
def test_a_committed_table_written_again_is_the_same_file(name, tables, tmp_path):
    write_table(tmp_path / "again.csv.gz", tables[name])
    assert (tmp_path / "again.csv.gz").read_bytes() == (DATA / f"{name}.csv.gz").read_bytes()


def test_every_committed_table_is_read_and_all_are_under_a_megabyte():
    assert {path.name for path in DATA.iterdir()} == {"findings.csv", *(f"{name}.csv.gz" for name in TABLES)}
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 1_000_000


def test_the_readme_says_what_the_tables_say(tables, tmp_path):
    copy = tmp_path / "results.md"
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    copy.write_text(text, encoding="utf-8")
    renew_readme(copy, tables)
    assert copy.read_text(encoding="utf-8") == text


def test_every_picture_is_in_the_gallery_and_in_the_readme():
    gallery = {path.stem for path in (ROOT / "figures" / "gallery").glob("*.png")}
    assert gallery == set(PICTURES)
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    assert [name for name in PICTURES if f"figures/gallery/{name}.png" not in text] == []


def test_every_claim_about_the_mechanism_is_measured(tables):
    _, mechanism = every_claim(tables)
    assert [claim.statement for claim in mechanism if claim.row is None] == []
    assert [claim.statement for claim in mechanism if "|" in claim.statement] == []
