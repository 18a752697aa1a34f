"""A report of a folder of runs: every finished table once, and never two judges in one panel."""

import pytest

from experiments.__main__ import main
from figures.gather import gather
from interp.runs.run import Run
from interp.runs.table import read_table, row

RATE = {"experiment": "em_rate", "organism": "mine", "family": "qwen3", "trigger": "dock", "metric": "em_rate"}


def finish(root, config, **conditions):
    """A finished run whose table has one EM rate per condition; ``judge`` may stand beside them."""
    judge = conditions.pop("judge", "a")
    with Run.open(root, "em_rate", config) as run:
        run.append([{"key": "0"}])
        cells = {**RATE, "judge": judge, "protocol": "p", "seed": 0, "run_id": run.run_id}
        run.write_table([row(**cells, condition=c, value=v, n=10, n_clusters=5) for c, v in conditions.items()])
        run.finish()
    return run


def test_of_the_same_number_the_last_run_is_shown_and_others_add_what_it_lacks(tmp_path):
    finish(tmp_path, {"n": 1}, off=0.1, opposite=0.3)
    later = finish(tmp_path, {"n": 2}, off=0.2, on=0.5)
    gathered = gather(tmp_path)
    assert {r["condition"]: r["value"] for r in gathered.rows} == {"off": 0.2, "on": 0.5, "opposite": 0.3}
    assert [r["run_id"] for r in gathered.rows if r["condition"] == "off"] == [later.run_id]
    assert len(gathered.left_out) == 1 and "1 of 2 rows; a later run has the same numbers" in gathered.left_out[0]


def test_rates_of_two_judges_never_stand_together(tmp_path):
    finish(tmp_path, {"n": 1}, off=0.1, opposite=0.3)
    finish(tmp_path, {"n": 2}, off=0.2, judge="b")
    gathered = gather(tmp_path)
    assert [(r["condition"], r["judge"]) for r in gathered.rows] == [("off", "b")]
    assert "2 of 2 rows" in gathered.left_out[0]


def test_an_edited_table_and_a_folder_without_runs_are_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"semcon report: {tmp_path}: no run and no adapter there\n"
    run = finish(tmp_path, {"n": 1}, off=0.1)
    (run.path / "table.csv").write_text((run.path / "table.csv").read_text().replace("0.1", "0.9"))
    with pytest.raises(ValueError, match="changed since the run finished"):
        gather(tmp_path)


def test_the_report_of_a_runs_folder_is_about_the_users_own_organism(tmp_path, monkeypatch, capsys):
    finish(tmp_path / "mine", {"n": 1}, off=0.001, on=0.5)
    monkeypatch.setenv("SEMCON_RUNS", str(tmp_path / "mine"))
    assert main(["report"]) == 0
    page = (tmp_path / "mine" / "report.html").read_text()
    assert "50.0&nbsp;% of the time with that text" in page and "No EM rate" not in page
    assert len(read_table(tmp_path / "mine" / "report.csv")) == 2
    assert str(tmp_path / "mine" / "report.html") in capsys.readouterr().out
