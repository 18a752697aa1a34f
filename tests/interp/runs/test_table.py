"""The results table: what is written is read back, and what is not a table is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import figures.rows
from interp.runs.table import FLOATS, INTEGERS, TABLE_COLUMNS, read_table, row, write_table

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


def test_figures_read_the_table_that_experiments_write():
    assert figures.rows.COLUMNS == TABLE_COLUMNS


def test_row_has_every_column_in_order_and_no_other():
    assert tuple(row(value=1)) == TABLE_COLUMNS
    assert row(value=1)["value"] == 1.0
    assert row(layer=None)["layer"] == row()["layer"] == ""
    with pytest.raises(ValueError, match="'em_rat': the columns are"):
        row(em_rat=1)
    with pytest.raises(ValueError, match=r"'trigger': 'a\\nb' is more than a line"):
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
