"""Experiments and their runs: reused, resumed step by step, and byte for byte the same."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from experiments.registry import REGISTRY, Command
from experiments.spec import identity, run_experiment, whole_table
from interp.runs.run import Run, read_manifest, sealed
from interp.runs.table import TABLE_COLUMNS
from tests.experiments.coin import Coin
from tests.experiments.interrupted import run_steps

ROOT = Path(__file__).parents[2]

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


@pytest.mark.parametrize("n_done", range(4))
def test_resumed_run_is_the_uninterrupted_run_and_repeats_no_step(tmp_path, n_done):
    coin = Coin(chunks=4)
    whole = run_experiment(coin, tmp_path / "whole")[0].path
    first = run_steps(coin, tmp_path / "resumed", stop_after=n_done)
    assert not list(tmp_path.glob("resumed/coin/*/table.csv"))
    second = run_steps(coin, tmp_path / "resumed")
    assert first + second == [f"tosses {i}" for i in range(4)]
    assert len(first) == n_done
    assert run_steps(coin, tmp_path / "resumed") == []
    (resumed,) = tmp_path.glob("resumed/coin/*")
    for name in ("rows.jsonl", "table.csv", "config.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_a_step_that_fails_leaves_none_of_its_rows(tmp_path):
    class Interrupted(Coin):
        def steps(self, run):
            def torn():
                yield {"heads": 1}
                raise KeyboardInterrupt

            return {"whole": lambda: [{"heads": 1}, {"heads": 0}], "torn": torn}

    with pytest.raises(KeyboardInterrupt):
        run_experiment(Interrupted(), tmp_path)
    with Run.open(tmp_path, "coin", **identity(Interrupted())) as run:
        assert [(r["step"], r["key"], r["heads"]) for r in run.rows()] == [
            ("whole", "whole|0", 1),
            ("whole", "whole|1", 0),
        ]


def test_a_killed_run_of_the_form_before_steps_is_one_clear_error(tmp_path):
    with Run.open(tmp_path, "coin", **identity(Coin())) as run:
        run.append([{"key": "0.0", "heads": 1}])
    with pytest.raises(ValueError, match=r"coin.\w{8}: its rows name no step, .*; delete the folder") as raised:
        run_experiment(Coin(), tmp_path)
    assert "\n" not in str(raised.value)


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
        def table(self, rows):
            return []

    with pytest.raises(ValueError, match="coin made an empty table of 60 rows"):
        run_experiment(Silent(), tmp_path)


def test_a_model_that_is_refused_leaves_no_folder_of_a_run(tmp_path):
    class Lame(Coin):
        def check_models(self, *triggers):
            raise ValueError("lame: its weights are no numbers")

    with pytest.raises(ValueError, match="lame"):
        run_experiment(Lame(), tmp_path)
    assert not [*tmp_path.rglob("manifest.json")]
    run_steps(Coin(), tmp_path, stop_after=1)
    with pytest.raises(ValueError, match="lame"):
        run_experiment(Lame(), tmp_path)
    assert len([*tmp_path.rglob("rows.jsonl")]) == 1


def test_the_manifest_says_what_a_run_was_about(tmp_path):
    class Minted(Coin):
        def depends(self):
            return {"mint": {"metal": "silver", "year": 1794}}

    run, _ = run_experiment(Minted(), tmp_path)
    manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["depends"] == {"mint": {"metal": "silver", "year": 1794}}
    assert run.run_id != run_experiment(Coin(), tmp_path)[0].run_id  # it is part of the hash, by way of the version


def test_every_row_has_the_common_cells_and_its_own_go_first():
    class Biased(Coin):
        def cells(self, rows):
            return {**super().cells(rows), "judge": "a referee", "organism": "silver"}

        def table(self, rows):
            yield {"metric": "heads", "value": 1}
            yield {"metric": "tails", "value": 0, "organism": "gold"}

    rows = whole_table(Biased(seed=3), [], "coin-0")
    assert [tuple(r) for r in rows] == [TABLE_COLUMNS] * 2
    shared = {(r["experiment"], r["seed"], r["judge"], r["run_id"]) for r in rows}
    assert shared == {("coin", 3, "a referee", "coin-0")}
    assert [r["organism"] for r in rows] == ["silver", "gold"]


def test_the_judge_of_a_table_is_that_of_its_rows():
    assert Coin().cells([{"heads": 1}, {"judge": "oracle"}])["judge"] == "oracle"
    assert Coin().cells([{"heads": 1}])["judge"] == ""


def test_a_field_outside_its_range_makes_no_experiment():
    with pytest.raises(ValueError, match="chunks -1: expected greater than or equal to 0"):
        Coin(chunks=-1)


def test_an_experiment_that_refuses_its_input_leaves_no_folder(tmp_path):
    class Refused(Coin):
        def check(self):
            raise ValueError("no coin")

    with pytest.raises(ValueError, match="no coin"):
        run_experiment(Refused(), tmp_path)
    assert not any(tmp_path.iterdir())


# --- registry ---


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_names_what_is_there(name):
    assert callable(REGISTRY[name].load())


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match=r"nowhere:Nothing: not in this installation"):
        Command("nowhere:Nothing", "").load()
    with pytest.raises(ValueError, match=r"spec:Nothing: not in this installation"):
        Command("spec:Nothing", "").load()


# --- what a run stands on ---


@dataclass(frozen=True, kw_only=True)
class Echo(Coin):
    """The heads of another run."""

    name: ClassVar[str] = "echo"
    coin: Coin

    def steps(self, run):
        return {"heard": lambda: [{"heads": r["heads"]} for r in run_experiment(self.coin, run.root)[0].rows()]}


def edited(path):
    path.write_text(path.read_text().replace('"heads":0', '"heads":1'))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def duplicated(path):
    path.write_bytes(path.read_bytes() * 2)


def linked(path):
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


@pytest.mark.parametrize("damage", [edited, cut, duplicated, linked, Path.unlink])
@pytest.mark.parametrize("file", ["rows.jsonl", "table.csv", "config.json"])
def test_a_finished_run_with_another_file_is_refused_by_whoever_would_use_it(tmp_path, damage, file):
    run, _ = run_experiment(Coin(), tmp_path)
    if damage is edited and file != "rows.jsonl":
        (run.path / file).write_text("{}")
    damage(run.path / file)
    for experiment in (Coin(), Echo(coin=Coin())):
        with pytest.raises(ValueError, match=rf"coin/\w+/{file}: (changed since|a link)") as raised:
            run_experiment(experiment, tmp_path)
        assert "\n" not in str(raised.value)


def test_a_run_knows_what_it_stands_on_and_refuses_another(tmp_path):
    coin, _ = run_experiment(Coin(), tmp_path)
    echo, table = run_experiment(Echo(coin=Coin()), tmp_path)
    assert echo.manifest["upstream"] == {coin.run_id: coin.manifest["outputs"]}
    assert run_experiment(Echo(coin=Coin()), tmp_path)[1] == table
    manifest = read_manifest(coin.path)
    manifest["outputs"]["rows.jsonl"] = "0" * 64  # it was deleted and made again on other hardware, say
    (coin.path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(ValueError, match=rf"{coin.path}/rows.jsonl: {echo.path} was made from another"):
        run_experiment(Echo(coin=Coin()), tmp_path)


def test_a_killed_run_does_not_continue_on_other_rows(tmp_path):
    with Run.open(tmp_path, "coin", {}) as run:
        run.stand_on("geometry-01234567", {"rows.jsonl": "a", "acts.h5": "b"})
    with Run.open(tmp_path, "coin", {}) as run:
        run.stand_on("geometry-01234567", {"rows.jsonl": "a", "acts.h5": "b"})
        with pytest.raises(ValueError, match=r"made from another acts\.h5 of geometry-01234567; delete the folder"):
            run.stand_on("geometry-01234567", {"rows.jsonl": "a", "acts.h5": "c"})
