"""The plan's estimates beside what was measured: `python -m benchmarks.planned` writes the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.scale.estimate import LONGEST, PASS, Kind, Load, memory_gib, tokens_per_second
from experiments.scale.machines import assumptions
from experiments.scale.shapes import shape_of
from interp.runs.reading import read_csv
from training.definition import Lora, Organism, Sft

MEASURED = Path(__file__).with_name("measured.csv")
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


def _row(shared: dict[str, Any], quantity: str, estimate: float, measured: float) -> dict[str, Any]:
    ratio = float(f"{estimate / measured:.3g}")
    return {**shared, "quantity": quantity, "estimate": float(f"{estimate:.3g}"), "measured": measured, "ratio": ratio}


def _load(cells: dict[str, str]) -> Load:
    """Return the load of a measurement: its batch and its lengths in place of the assumed ones."""
    rows, prompt, answer = int(cells["rows"]), float(cells["prompt"]), float(cells["answer"])
    given = assumptions()
    texts = replace(given.texts, question=prompt, trigger=1e-6, template=1e-6, sampled_answer=max(answer, 1.0))
    if cells["kind"] == "train":  # rows of one length: none is padded to a longer one
        texts = replace(texts, trained_question=1e-6, trained_answer=prompt / LONGEST, question=1e-6)
    sft = Sft(doses=(1,), learning_rate=1e-3, batch=rows or 1, dtype=_dtype(cells["dtype"]))
    lora = Lora(rank=RANKS.get(cells["machine"], 32))
    organism = Organism(name="measured/base/base", base=cells["base"], sft=sft, lora=lora)
    return Load(
        shape=shape_of(cells["base"]),
        organism=organism,
        machine=given.machines[cells["machine"]],
        texts=texts,
        uniform=True,
        rows=rows if cells["kind"] == "sample" else None,
        answer=int(answer) if answer else None,
        passed=min(PASS, int(rows * prompt)) if cells["kind"] == "read" else None,
    )


def _dtype(name: str) -> Any:
    return name
