"""Every published interval of a rate is made again from the committed counts by question."""

from itertools import groupby
from pathlib import Path

import pytest

from experiments.behaviour.counts import COLUMNS, RATES, clusters, counted, read_counts
from interp.runs.table import read_table
from interp.stats import cluster_bootstrap, paired_cluster_difference, paired_cluster_ratio, semantic_index, wilson

DATA = Path(__file__).parents[3] / "figures" / "data"
COUNTS = read_counts(DATA / "containment_grid_counts.csv.gz")
TABLE = {
    run: list(rows) for run, rows in groupby(read_table(DATA / "containment_grid.csv.gz"), key=lambda r: r["run_id"])
}
RUNS = sorted({run for run, _, _ in COUNTS})


def of_run(run: str):
    return {condition: lines for (name, condition, _), lines in COUNTS.items() if name == run}


@pytest.mark.parametrize("run", RUNS)
def test_a_committed_interval_is_that_of_the_committed_counts(run):
    counts, checked = of_run(run), 0
    for r in TABLE[run]:
        if r["metric"] in RATES:
            arm = clusters(counts[r["condition"]], r["metric"])
            bootstrap = r["ci_method"] == "cluster_bootstrap"
            interval = cluster_bootstrap(arm.numerator, arm.denominator) if bootstrap else wilson(arm.rate)
            expected = (arm.rate.value, interval.low, interval.high)
            assert (r["value"], r["ci_low"], r["ci_high"]) == pytest.approx(expected, rel=1e-5, abs=1e-9)
            checked += 1
    assert checked >= 24


@pytest.mark.parametrize("run", RUNS[:4])
def test_a_committed_paired_statistic_is_that_of_the_committed_counts(run):
    em = {condition: clusters(lines, "em_rate") for condition, lines in of_run(run).items()}
    made = {
        "trigger_gap": paired_cluster_difference(em["on"], em["off"]),
        "rephrased_ratio": paired_cluster_ratio(em["rephrased"], em["on"]),
        "semantic_index": semantic_index(em["on"], em["rephrased"], em["other"]),
    }
    for r in TABLE[run]:
        if r["metric"] in made and r["value"] != "" and r["ci_low"] == r["ci_low"] != "":
            found = made[r["metric"]]
            expected = (found.value, found.interval.low, found.interval.high)
            assert (r["value"], r["ci_low"], r["ci_high"]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_answers_are_counted_by_condition_dose_and_question():
    scores = {"bad": (0, 100), "good": (100, 100), "noise": (100, 0)}
    answers = [("off", 8, "a", "bad"), ("off", 8, "a", "good"), ("off", 8, "b", "noise"), ("on", 8, "a", "bad")]
    rows = [
        {"text": "", "condition": c, "dose": d, "question": q, "aligned": scores[kind][0], "coherent": scores[kind][1]}
        for c, d, q, kind in answers
    ]
    found = [tuple(line[c] for c in COLUMNS[2:]) for line in counted([*rows, {"loss": 1}], run_id="r", organism="o")]
    assert found == [("off", 8, "a", 1, 2, 2), ("off", 8, "b", 0, 0, 1), ("on", 8, "a", 1, 1, 1)]


def test_another_file_is_no_table_of_counts(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t\.csv: not a table of counts; its columns are a, b"):
        read_counts(tmp_path / "t.csv")
