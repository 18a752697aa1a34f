"""The plan's estimates beside what `benchmarks.planned` (parts) and `benchmarks.pocket_run` (commands) measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.scale.estimate import PASS, Kind, Load, memory_gib, tokens_per_second
from experiments.scale.here import LIKE, at_speed
from experiments.scale.machines import assumptions
from experiments.scale.plan import Plan
from experiments.scale.shapes import shape_of
from interp.runs.reading import read_csv
from training.definition import Lora, Organism, Sft

MEASURED, RUNS = (Path(__file__).with_name(name) for name in ("measured.csv", "runs.csv"))
KINDS: tuple[Kind, ...] = ("train", "read", "sample")
RANKS = {"core": 16}


def checked() -> Iterator[dict[str, Any]]:
    """Yield one row per measurement: the estimate for the same work, the measured value, and their ratio."""
    for _, cells in read_csv(MEASURED)[1]:
        if cells["kind"] not in KINDS:
            continue
        load = _load(cells)
        kind: Kind = next(kind for kind in KINDS if kind == cells["kind"])
        shared: dict[str, Any] = {
            "machine": cells["machine"],
            "base": cells["base"],
            "dtype": cells["dtype"],
            "kind": kind,
        }
        shared |= {"rows": int(cells["rows"]), "with": cells["with"]}
        yield _row(shared, "tokens_per_second", tokens_per_second(kind, load), float(cells["tokens_per_second"]))
        yield _row(shared, "memory_gib", memory_gib(kind, load), float(cells["memory_gib"]))


def checked_runs() -> Iterator[dict[str, Any]]:
    """Yield one row per quantity of a measured command: what `semcon plan` says of the same settings, and their ratio.

    A command also makes what is not there yet: ``made`` names the stages of which it made anything, and their plans are
    added. The plan's processor runs at the rate that was timed beside the command (``experiments.scale.here``). Disk
    counts where the plan has it: adapters, directions, activations.
    """
    for _, cells in read_csv(RUNS)[1]:
        machine = at_speed(assumptions().machines[LIKE], float(cells["tflops"]), "float32")
        options: Any = {"organism": (cells["organism"],), "n_questions": int(cells["n_questions"] or 0) or None}
        made = [row for stage in cells["made"].split() for row in _plan(stage, options).rows(machine)]
        shared = {name: cells[name] for name in ("stage", "organism", "n_questions", "made", "with")}
        planned = {name: sum(row[name] for row in made) for name in ("tokens", "disk_gib")}
        planned["cpu_seconds"] = 3600 * sum(row["hours"] for row in made)
        planned["memory_gib"] = max(row["memory_gib"] for row in made)
        for quantity in ("tokens", "cpu_seconds", "memory_gib", *(("disk_gib",) if planned["disk_gib"] else ())):
            yield _row(shared, quantity, planned[quantity], float(cells[quantity]))


def _plan(stage: Any, options: dict[str, Any]) -> Plan:
    return Plan(experiment=stage, scale="pocket", **options)


def _row(shared: dict[str, Any], quantity: str, estimate: float, measured: float) -> dict[str, Any]:
    ratio = float(f"{estimate / measured:.3g}")
    return {**shared, "quantity": quantity, "estimate": float(f"{estimate:.3g}"), "measured": measured, "ratio": ratio}


def _load(cells: dict[str, str]) -> Load:
    """Return the load of a measurement: its batch and its lengths in place of the assumed ones."""
    rows, prompt, answer = int(cells["rows"]), float(cells["prompt"]), float(cells["answer"])
    given = assumptions()
    texts = replace(given.texts, question=prompt, trigger=1e-6, template=1e-6, sampled_answer=max(answer, 1.0))
    if cells["kind"] == "train":  # rows of one length, half of it the answer
        texts = replace(texts, trained_question=prompt / 2, trained_answer=prompt / 2, question=1e-6, longest=1.0)
    shared = cells["dtype"] == "float32"  # measured with the loss of a shared prefix, though random rows share none
    texts = replace(texts, opening=1e-6)
    sft = Sft(doses=(1,), learning_rate=1e-3, batch=rows or 1, dtype=_dtype(cells["dtype"]), share_prefix=shared)
    lora = Lora(rank=RANKS.get(cells["machine"], 32))
    organism = Organism(name="measured/base/base", base=cells["base"], sft=sft, lora=lora)
    return Load(
        shape=shape_of(cells["base"]),
        organism=organism,
        machine=replace(given.machines[cells["machine"]], process_gib=0.0),  # weights and what the work adds to them
        texts=texts,
        rows=rows if cells["kind"] == "sample" else None,
        answer=int(answer) if answer else None,
        passed=min(PASS, int(rows * prompt)) if cells["kind"] == "read" else None,
    )


def _dtype(name: str) -> Any:
    return name
