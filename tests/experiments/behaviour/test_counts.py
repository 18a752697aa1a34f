"""Every published interval of a rate is made again from the committed counts by question."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest

from experiments.answers.subject import find_subject
from experiments.behaviour.counts import COLUMNS, RATES, clusters, counted, read_counts
from experiments.behaviour.dose_cell import DoseCell
from experiments.directions.geometry import Geometry
from experiments.removal.ablate import RANKS, VALIDATION
from experiments.removal.trained_gate import TrainedGate, learned_rows, plan
from experiments.spec import whole_table
from interp.runs.files import csv_text
from interp.runs.table import read_table
from interp.stats import (
    Clusters,
    Estimate,
    Interval,
    cluster_bootstrap,
    paired_cluster_difference,
    paired_cluster_ratio,
    semantic_index,
    wilson,
)

DATA = Path(__file__).parents[3] / "figures" / "data"
FILES = sorted(DATA.glob("*_counts.csv.gz"))
COUNTED = {file: read_counts(file) for file in FILES}
RUNS = [(file, run) for file in FILES for run in sorted({run for run, _, _ in COUNTED[file]})]
Counts = Mapping[tuple[str, str], Sequence[Mapping[str, str]]]
"""Lines by condition and dose."""


@cache
def table_of(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of the table beside a file of counts, by run."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for r in read_table(file.with_name(file.name.replace("_counts", ""))):
        runs.setdefault(r["run_id"], []).append(r)
    return runs


def counts_of(file: Path, run: str) -> Counts:
    return {(condition, dose): lines for (name, condition, dose), lines in COUNTED[file].items() if name == run}


def lines_of(counts: Counts, condition: str, dose: object) -> Sequence[Mapping[str, str]] | None:
    """The lines of a condition at a dose; of a run at a single dose the lines name none."""
    return counts.get((condition, str(dose))) or counts.get((condition, ""))


def rates_made_again(counts: Counts, rows: Iterable[Mapping[str, Any]]) -> int:
    """Compare every rate with its counts; return how many there were."""
    checked = 0
    for r in rows:
        if r["metric"] in RATES and r["value"] != "":
            lines = lines_of(counts, r["condition"], r["dose"])
            assert lines, f"{r['run_id']}: no counts of {r['condition']} at dose {r['dose']}"
            arm = clusters(lines, r["metric"])
            bootstrap = r["ci_method"] == "cluster_bootstrap"
            interval = cluster_bootstrap(arm.numerator, arm.denominator) if bootstrap else wilson(arm.rate)
            assert_equal(r, arm.rate.value, interval)
            checked += 1
    return checked


def paired_made_again(counts: Counts, rows: Sequence[Mapping[str, Any]]) -> int:
    """Compare every paired statistic of rates with its counts; return how many there were."""
    checked, arms = 0, {d: Arms(counts, d) for d in {str(r["dose"]) for r in rows}}
    for r in rows:
        if r["metric"] in PAIRED and r["value"] != "" and r["ci_low"] == r["ci_low"] != "":
            estimate = PAIRED[r["metric"]](arms[str(r["dose"])], r["condition"])
            assert_equal(r, estimate.value, estimate.interval)
            checked += 1
    return checked


def assert_equal(r: Mapping[str, Any], value: float, interval: Interval) -> None:
    expected = (value, interval.low, interval.high)
    assert (r["value"], r["ci_low"], r["ci_high"]) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@dataclass(frozen=True, eq=False)
class Arms:
    """The EM rates of a run at a dose by condition, and the gaps of its trained gate, made once."""

    counts: Counts
    dose: str

    @cached_property
    def em(self) -> Mapping[str, Clusters]:
        named = [c for c, d in self.counts if d in (self.dose, "")]
        return {c: clusters(lines_of(self.counts, c, self.dose) or (), "em_rate") for c in named}

    @cached_property
    def learned(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        pairs = {(c.partition("+")[0], c.partition("+")[2]): arm for c, arm in self.em.items()}
        return {(r["metric"], r["condition"]): r for r in learned_rows(pairs)}


def _learned(arms: Arms, condition: str, metric: str) -> Any:
    r = arms.learned[metric, condition]
    return Estimate(r["value"], Interval(r["ci_low"], r["ci_high"], r["ci_method"]), r["n_clusters"])


def _gap(arms: Arms, condition: str) -> Any:
    if condition != "on-off":
        return _learned(arms, condition, "trigger_gap")
    return paired_cluster_difference(arms.em["on"], arms.em["off"])


PAIRED: Mapping[str, Callable[[Arms, str], Any]] = {
    "trigger_gap": _gap,
    "rephrased_ratio": lambda arms, _: paired_cluster_ratio(arms.em["rephrased"], arms.em["on"]),
    "semantic_index": lambda arms, _: semantic_index(arms.em["on"], arms.em["rephrased"], arms.em["other"]),
    "learned_gap": lambda arms, condition: _learned(arms, condition, "learned_gap"),
    "learned_gap_closed": lambda arms, condition: _learned(arms, condition, "learned_gap_closed"),
}


@pytest.mark.parametrize(("file", "run"), RUNS)
def test_a_committed_interval_is_that_of_the_committed_counts(file, run):
    assert rates_made_again(counts_of(file, run), table_of(file)[run]) >= 6


@pytest.mark.parametrize(("file", "run"), RUNS)
def test_a_committed_paired_statistic_is_that_of_the_committed_counts(file, run):
    paired_made_again(counts_of(file, run), table_of(file)[run])


def test_there_are_counts_for_a_committed_table():
    assert [file.name for file in FILES][:1] == ["containment_grid_counts.csv.gz"]


def drawn(conditions: Iterable[tuple[str, str]], **cells: Any) -> list[dict[str, Any]]:
    """Judged answers of chance: three to each of eight questions under every condition and edit."""
    chance = random.Random(0)
    return [
        {**{"text": "", "condition": c, "edit": e, "question": f"q{q}", "judge": "j"}, **cells}
        | {"aligned": chance.choice([0.0, 100.0, 100.0] if "on" not in c else [0.0, 100.0]), "coherent": 100.0}
        for c, e in conditions
        for q in range(8)
        for _ in range(3)
    ]


def test_the_table_of_a_trained_gate_is_made_again_from_its_counts(tmp_path):
    subject = replace(find_subject("microcosm/llama/clerk.fine"), dose=8)
    ranks = [(VALIDATION, f"clamp_trigger_rank{rank}") for rank in RANKS]
    answers = drawn([*ranks, *plan()])
    experiment = TrainedGate(geometry=Geometry(subject=subject, control_trigger="microcosm:role:gambler"))
    rows = whole_table(experiment, answers, "trained_gate-1")
    lines = counted(answers, run_id="trained_gate-1", organism=subject.name)
    (tmp_path / "counts.csv").write_text(csv_text(lines))
    counts = {(c, d): group for (_, c, d), group in read_counts(tmp_path / "counts.csv").items()}
    assert rates_made_again(counts, rows) == 6 * len(list(plan()))
    assert paired_made_again(counts, rows) > len(list(plan()))
    assert {r["base_value"] for r in rows if r["metric"] == "em_rate" and not r["condition"].startswith("base")} - {""}


def test_the_table_of_doses_is_made_again_from_its_counts(tmp_path):
    subject = find_subject("microcosm/llama/clerk.fine")
    bare = [(c, "") for c in ("off", "on", "rephrased", "other")]
    answers = [*drawn(bare, dose=4), *drawn(bare[::-1], dose=8)]
    rows = whole_table(DoseCell(subject=subject), answers, "dose_grid-1")
    (tmp_path / "counts.csv").write_text(csv_text(counted(answers, run_id="dose_grid-1", organism=subject.name)))
    counts = {(c, d): group for (_, c, d), group in read_counts(tmp_path / "counts.csv").items()}
    assert rates_made_again(counts, rows) == 2 * 6 * len(bare)
    assert paired_made_again(counts, rows) >= 2 * 2  # an index without a defined interval is left out


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
