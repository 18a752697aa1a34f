"""A results table is read back exactly, whatever is wrong with one is named, and intervals become cells."""

import math

import pytest

from interp.runs.table import TABLE_COLUMNS, interval_cells, read_table, row, write_table
from interp.stats import Interval


def test_a_finite_interval_is_three_cells_of_a_row():
    cells = interval_cells(Interval(0.1, 0.4, "wilson"))
    assert cells == {"ci_low": 0.1, "ci_high": 0.4, "ci_method": "wilson"}
    assert row(**cells)["ci_method"] == "wilson"


@pytest.mark.parametrize(("low", "high"), [(math.nan, math.nan), (0.0, math.inf), (-math.inf, 0.0), (math.nan, 1.0)])
def test_an_interval_without_finite_ends_has_no_cells(low: float, high: float):
    assert interval_cells(Interval(low, high, "cluster_bootstrap")) == {}


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_a_table_is_the_same_compressed_or_not(tmp_path, name):
    rows = [row(experiment="e", value=0.25, layer=3), row(organism="a, b", alpha=-1)]
    write_table(tmp_path / name, rows)
    assert read_table(tmp_path / name) == rows


def test_a_table_of_no_rows_is_refused_where_rows_are_required(tmp_path):
    write_table(tmp_path / "empty.csv", [])
    assert read_table(tmp_path / "empty.csv") == []
    with pytest.raises(ValueError, match=r"empty\.csv: the table has a header and no rows"):
        read_table(tmp_path / "empty.csv", rows_required=True)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv: no such table"):
        read_table(tmp_path / "absent.csv")


HEADER = ",".join(TABLE_COLUMNS)
EMPTY = "," * (len(TABLE_COLUMNS) - 1)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"bad\.csv: not a results table; its columns are none; it lacks experiment, organism"),
        (HEADER.replace(",value", "") + "\n", r"bad\.csv: not a results table; .*; it lacks value$"),
        (HEADER + ",extra\n", r"bad\.csv: not a results table; .*, extra; want exactly those of TABLE_COLUMNS"),
        (
            f"{HEADER}\n{'many'.join((',' * 10, ',' * 9))}\n",
            r"bad\.csv:2: table column 'value': 'many' is not a number",
        ),
        (f"{HEADER}\n{EMPTY}\n{'1.5'.join((',' * 6, ',' * 13))}\n", r"bad\.csv:3: table column 'layer': '1\.5' is not"),
        (f"{HEADER}\na,b\n", r"bad\.csv:2: 2 cells under a header of 20"),
        (f"{HEADER}\n{EMPTY},\n", r"bad\.csv:2: 21 cells under a header of 20"),
    ],
)
def test_a_malformed_table_is_named_with_its_fault(tmp_path, text, fault):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=fault):
        read_table(path)
