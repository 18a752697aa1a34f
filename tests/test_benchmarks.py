"""The benchmarks run and write their table; no test looks at a time."""

import csv
import math
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import gpu
from benchmarks.models import SHAPES
from benchmarks.table import COLUMNS, LESS_IS_BETTER, RESULTS, Row, as_text, markdown, read, renewed, write
from benchmarks.timing import peak_memory, race

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "benchmarks" / "results.csv"
CASES = ("record", "sampling", "store write", "store read", "hook overhead", "probe")


def check_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        rows = list(reader)
    for row in rows:
        ours, peer, ratio = (float(row[name]) for name in ("ours", "peer", "ratio"))
        assert row["unit"] and row["peer_name"]
        if row["unit"] in RESULTS:
            assert 0 <= ours <= 1.0001 and 0 <= peer <= 1.0001
        else:
            assert ours > 0 and peer > 0
            assert math.isclose(ratio, peer / ours if row["unit"] in LESS_IS_BETTER else ours / peer, rel_tol=1e-4)
        assert int(row["threads"]) in (1, 2)
        assert isinstance(getattr(torch, row["dtype"]), torch.dtype)
        assert row["case"].startswith((*CASES, "forced choice", "LoRA step"))
    assert {prefix for prefix in CASES if not any(row["case"].startswith(prefix) for row in rows)} == set()
    keys = [(row["case"], row["dtype"], row["peer_name"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return rows


def test_a_quick_run_writes_every_case(tmp_path: Path):
    out = tmp_path / "new" / "results.csv"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = check_table(out)
    assert {row["dtype"] for row in rows} >= {"float32", "bfloat16"}
    assert {row["machine"] for row in rows if platform.node() in row["machine"]} == set()
    assert all(row["peer_name"] in done.stdout for row in rows)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="no table is published")
def test_the_published_table_has_every_case():
    check_table(PUBLISHED)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_script_of_real_shapes_runs_tiny(shape: str, tmp_path: Path):
    out = tmp_path / "gpu.csv"
    assert gpu.main(["--shape", shape, "--dry-run", "--out", str(out)]) == 0
    rows = read(out)
    assert tuple(rows[0]) == COLUMNS
    assert [row["case"].split(",")[0].split()[0] for row in rows] == [
        "record",
        "record",
        "sampling",
        "sampling",
        "lora",
    ]
    assert all(shape in row["case"] and float(row["ratio"]) > 0 for row in rows)


def test_real_shapes_have_the_published_numbers_of_parameters():
    billions = {}
    for shape, (kind, sizes) in SHAPES.items():
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(kind(**sizes))
        billions[shape] = round(sum(p.numel() for p in model.parameters()) / 1e9, 2)
    assert billions == {"llama-8b": 8.03, "qwen-14b": 14.77}


def test_sides_take_turns_after_one_untimed_round():
    turns, cleared, seen = [], [], {}
    entrants = {name: lambda name=name: turns.append(name) or name for name in "ab"}
    seconds = race(entrants, 2, check=seen.update, before=lambda: cleared.append(len(turns)))
    assert turns == ["a", "b", "a", "b", "b", "a"]
    assert cleared == list(range(6))
    assert seen == {"a": "a", "b": "b"}
    assert set(seconds) == {"a", "b"}


def test_a_failed_check_stops_the_race():
    def check(results: dict[str, object]) -> None:
        raise RuntimeError(f"different work: {results}")

    with pytest.raises(RuntimeError, match="different work"):
        race({"a": lambda: 1, "b": lambda: 2}, 1, check=check)


def test_ratio_above_one_means_ours_is_better():
    fast = Row(case="record", ours=4, peer=2, peer_name="p", unit="MB/s", dtype="float32")
    small = Row(case="record", ours=2, peer=4, peer_name="p", unit="MB", dtype="float32")
    assert fast.ratio == small.ratio == 2
    assert tuple(fast.cells()) == COLUMNS
    assert "2.00" in as_text([fast, small])


def test_an_unchanged_result_has_ratio_one():
    never = Row(case="sampling", ours=0, peer=0, peer_name="p", unit="EM rate", dtype="bfloat16")
    assert never.ratio == 1
    assert Row(case="sampling", ours=0.5, peer=0, peer_name="p", unit="EM rate", dtype="bfloat16").ratio == math.inf


def test_the_readme_shows_the_strongest_peer_of_each_pair_of_dtypes(tmp_path: Path):
    def row(ours: float, peer: float, name: str) -> Row:
        return Row(case="record", ours=ours, peer=peer, peer_name=name, unit="prompts/s", dtype="bfloat16")

    rows = [row(4, 1, "slow, bfloat16"), row(4, 2, "fast, bfloat16"), row(4, 5, "fast, float32")]
    write([row.cells() for row in rows], tmp_path / "results.csv")
    shown = markdown(read(tmp_path / "results.csv"))
    assert "slow" not in shown
    assert "| 2.00 | fast, bfloat16 |" in shown and "| 0.80 | fast, float32 |" in shown


def test_one_case_measured_again_takes_the_place_of_its_rows(tmp_path: Path):
    def row(case: str, ours: float, peer: str = "p") -> Row:
        return Row(case=case, ours=ours, peer=1, peer_name=peer, unit="MB/s", dtype="float32")

    path = tmp_path / "results.csv"
    write([row("record", 1).cells(), row("store write", 2).cells(), row("probe", 3).cells()], path)
    write(renewed(path, [row("store write", 5), row("store write", 6, "q")]), path)
    cells = [(r["case"], float(r["ours"]), float(r["ratio"]), r["peer_name"]) for r in read(path)]
    assert cells == [
        ("record", 1, 1, "p"),
        ("store write", 5, 5, "p"),
        ("probe", 3, 3, "p"),
        ("store write", 6, 6, "q"),
    ]


def test_peak_memory_sees_what_is_freed_again():
    peak = peak_memory(lambda: torch.ones(25_000_000).sum())
    assert peak is None or 90 < peak < 200
