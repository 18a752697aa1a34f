"""The table's form, and runs that are reused, resumed and byte for byte the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.registry import REGISTRY
from experiments.spec import run_experiment
from interp.runs.run import Run
from interp.runs.table import FLOATS, INTEGERS, TABLE_COLUMNS, read_table, row, write_table
from tests.experiments.coin import Coin

ROOT = Path(__file__).parents[2]

lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]))
numbers = st.floats(allow_nan=False, width=32) | st.integers(-(2**40), 2**40)
cells = {c: numbers if c in FLOATS else st.integers(0, 2**31) if c in INTEGERS else lines for c in TABLE_COLUMNS}
tables = st.lists(st.fixed_dictionaries({}, optional=cells).map(lambda c: row(**c)), max_size=4)


# --- table ---


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


# --- runs ---


def test_second_run_is_reused(tmp_path):
    run, table = run_experiment(Coin(), tmp_path)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.path.iterdir()}
    again, reused = run_experiment(Coin(), tmp_path)
    assert (again.run_id, reused) == (run.run_id, table)
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in run.path.iterdir()} == before
    assert table[0]["run_id"] == run.run_id
    assert table[0]["n"] == 60


def test_same_config_is_the_same_table_in_another_folder(tmp_path):
    tables = [(run_experiment(Coin(), tmp_path / name)[0].path / "table.csv").read_bytes() for name in "ab"]
    assert tables[0] == tables[1]


def test_resumed_run_is_the_uninterrupted_run(tmp_path):
    whole = run_experiment(Coin(), tmp_path / "whole")[0].path
    with Run.open(tmp_path / "probe", "coin", {}) as run:
        chunks = list(Coin().rows(run))
    for done in range(len(chunks) + 1):
        root = tmp_path / str(done)
        killed = Run.open(
            root, "coin", Coin(), version=run_experiment(Coin(), tmp_path / "whole")[0].manifest["version"]
        )
        for chunk in chunks[:done]:
            killed.append(chunk)
        killed.close()
        resumed = run_experiment(Coin(), root)[0].path
        for name in ("rows.jsonl", "table.csv", "config.json"):
            assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_kill_9_and_again_is_the_uninterrupted_run(tmp_path):
    script = (
        "import sys; from tests.experiments.coin import Coin; from experiments.spec import run_experiment;"
        "run_experiment(Coin(pause=0.05), sys.argv[1])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not (rows := [*tmp_path.glob("coin/*/rows.jsonl")]) or len(rows[0].read_bytes().splitlines()) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (rows[0].parent / "table.csv").exists()
    resumed, table = run_experiment(Coin(pause=0.05), tmp_path)
    assert resumed.path == rows[0].parent
    whole, expected = run_experiment(Coin(pause=0.05), tmp_path / "whole")
    assert table == expected
    assert (resumed.path / "rows.jsonl").read_bytes() == (whole.path / "rows.jsonl").read_bytes()


def test_other_input_is_another_run(tmp_path):
    notes = tmp_path / "notes"
    ids = []
    for text in ("one", "two", "one"):
        notes.write_text(text)
        ids.append(run_experiment(Coin(notes=notes), tmp_path)[0].run_id)
    assert ids[0] == ids[2] != ids[1]


def test_table_changed_by_hand_is_noticed(tmp_path):
    run, _ = run_experiment(Coin(), tmp_path)
    path = run.path / "table.csv"
    path.write_text(path.read_text().replace("0.", "0.9"))
    with pytest.raises(ValueError, match=r"table\.csv: changed since the run finished"):
        run_experiment(Coin(), tmp_path)


def test_empty_table_is_refused(tmp_path):
    class Silent(Coin):
        def table(self, rows, run_id):
            return []

    with pytest.raises(ValueError, match="coin made an empty table of 60 rows"):
        run_experiment(Silent(), tmp_path)


# --- registry ---


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_names_what_is_there(name):
    assert callable(REGISTRY[name].load())


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"experiments\.nowhere:Nothing: not in this installation"):
        type(REGISTRY["score"])("experiments.nowhere:Nothing", "").load()
    with pytest.raises(ValueError, match=r"experiments\.spec:Nothing: not in this installation"):
        type(REGISTRY["score"])("experiments.spec:Nothing", "").load()
