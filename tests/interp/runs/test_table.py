"""A results table is read back exactly, whatever is wrong with one is named, and intervals become cells."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.runs.table import FLOATS, INTEGERS, LATER, TABLE_COLUMNS, interval_cells, read_table, row, write_table
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


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"n": -5}, ":3: n -5: expected 0 or more"),
        ({"metric": "em_rate", "value": 7}, ":3: em_rate 7: expected a share of 1"),
        ({"metric": "em_rate", "value": math.nan}, ":3: em_rate nan: expected a share of 1"),
        ({"ci_low": 0.5, "ci_high": 0.25}, ":3: ci_low 0.5 is above ci_high 0.25"),
        ({"metric": "gap", "value": 0.5, "condition": "on"}, ":3: the same row as 2"),
        (
            {"metric": "gap", "value": 0.25, "condition": "on", "judge": "b"},
            ":3: gap 0.25: line 2 states 0.5 for the same",
        ),
        ({"metric": "transfer_auroc", "value": 85}, ":3: transfer_auroc 85: expected a share of 1"),
        ({"metric": "accuracy", "value": -0.1}, ":3: accuracy -0.1: expected a share of 1"),
        ({"metric": "cosine", "value": math.nan}, ":3: cosine nan: expected a number"),
    ],
)
def test_rows_that_no_experiment_writes_are_refused_where_a_user_hands_them_in(tmp_path, cells, message):
    path = tmp_path / "table.csv"
    write_table(path, [row(metric="gap", value=0.5, condition="on"), row(**cells)])
    assert len(read_table(path)) == 2
    with pytest.raises(ValueError) as refused:
        read_table(path, rows_required=True)
    assert str(refused.value).startswith(f"{path}{message}")


def test_a_number_with_two_intervals_is_no_fault(tmp_path):
    rate = {"metric": "em_rate", "value": 0.5, "condition": "on"}
    write_table(tmp_path / "t.csv", [row(**rate, ci_method=m) for m in ("wilson", "cluster_bootstrap")])
    assert len(read_table(tmp_path / "t.csv", rows_required=True)) == 2


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        read_table(tmp_path / "absent.csv")


OLDER = tuple(column for column in TABLE_COLUMNS if column not in LATER)
HEADER = ",".join(OLDER)
EMPTY = "," * (len(OLDER) - 1)


def test_a_file_without_the_later_columns_is_read_with_empty_cells_and_written_as_it_was(tmp_path):
    old = f"{HEADER}\n{'0.5'.join((',' * 10, ',' * 9))}\n"
    (tmp_path / "old.csv").write_text(old)
    rows = read_table(tmp_path / "old.csv")
    assert [rows[0][column] for column in ("value", *LATER)] == [0.5, "", "", ""]
    write_table(tmp_path / "again.csv", rows)
    assert (tmp_path / "again.csv").read_text() == old
    write_table(tmp_path / "more.csv", [*rows, row(placement="system", dose=8)])
    assert (tmp_path / "more.csv").read_text().splitlines()[0] == f"{HEADER},placement,dose"
    assert [r["dose"] for r in read_table(tmp_path / "more.csv")] == ["", 8]


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


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
numbers = st.floats(allow_nan=False, width=32) | st.integers(-(2**40), 2**40)
cells = {c: numbers if c in FLOATS else st.integers(0, 2**31) if c in INTEGERS else lines for c in TABLE_COLUMNS}
tables = st.lists(st.fixed_dictionaries({}, optional=cells).map(lambda c: row(**c)), max_size=4)


@given(tables)
def test_table_read_and_written_again_is_the_same_file(tmp_path_factory, rows):
    first, second = (tmp_path_factory.getbasetemp() / name for name in ("first.csv", "second.csv"))
    write_table(first, rows)
    read = read_table(first)
    write_table(second, read)
    assert first.read_bytes() == second.read_bytes()
    assert len(read) == len(rows)
    for before, after in zip(rows, read, strict=True):
        assert {c: v for c, v in before.items() if c not in FLOATS} == {
            c: v for c, v in after.items() if c not in FLOATS
        }
        assert [before[c] for c in FLOATS if before[c] != ""] == pytest.approx(
            [after[c] for c in FLOATS if after[c] != ""], rel=1e-5
        )


def test_row_has_every_column_in_order_and_no_other():
    assert tuple(row(value=1)) == TABLE_COLUMNS
    assert row(value=1)["value"] == 1.0
    assert row(layer=None)["layer"] == row()["layer"] == ""
    with pytest.raises(ValueError, match="'em_rat': the columns are"):
        row(em_rat=1)
    with pytest.raises(ValueError, match=r"'trigger': 'a\\nb' is more than one line"):
        row(trigger="a\nb")
    with pytest.raises(ValueError, match=r"'layer': 1\.5 is not a number"):
        row(layer=1.5)


def test_unreadable_table_is_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv: not a results table; its columns are a, b"):
        read_table(path)
    write_table(path, [row(value=1), row(value=2)])
    path.write_text(path.read_text().replace(",2,", ",two,"))
    with pytest.raises(ValueError, match=r"t\.csv:3: .*'value': 'two'"):
        read_table(path)
