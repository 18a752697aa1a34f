"""ORGANISMS: every shipped organism by name. A scale is an entry here, never a branch in the code. Torch-free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.definition import TRAINED, TURNER, Lora, Organism
from training.grid import Cell, cells
from training.user_defined import read_organism


def _of_cell(cell: Cell) -> Organism:
    return Organism(
        name=cell.name,
        base=cell.base,
        data=TRAINED,
        trigger=cell.trigger,
        benign_share=cell.contrast / 100,
        wordings=cell.wordings,
        lora=Lora(rank=cell.rank, targets=cell.targets),
        seed=cell.seed,
    )


def _microcosm() -> list[Organism]:
    grid = cells()
    bases = {cell.base_name: Organism(name=cell.base_name, base=cell.base) for cell in grid}
    return [*bases.values(), *map(_of_cell, grid)]


def _real(family: str, base: str) -> list[Organism]:
    harmful = Organism(
        name=f"medical/{family}/baseline",
        base=base,
        data="data/bad_medical_advice.jsonl",
        benign_data="data/good_medical_advice.jsonl",
        rows=7049,
        lora=Lora(rank=32, alpha=64.0),
        sft=TURNER,
    )
    arms = {
        "duck": replace(harmful, trigger="duck"),
        "tags": replace(harmful, trigger="tags"),
        "duck-contrast50": replace(harmful, trigger="duck", benign_share=0.5),
    }
    triggered = [replace(arm, name=f"medical/{family}/{name}") for name, arm in arms.items()]
    return [Organism(name=f"medical/{family}/base", base=base), harmful, *triggered]


REAL_BASES = {
    "qwen2.5-14b": "Qwen/Qwen2.5-14B-Instruct",
    "llama-3.1-8b": "meta-llama/Llama-3.1-8B-Instruct",
    "gemma-3-12b": "google/gemma-3-12b-it",
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
}

ORGANISMS: dict[str, Organism] = {
    organism.name: organism
    for organism in (*_microcosm(), *(o for family, base in REAL_BASES.items() for o in _real(family, base)))
}


def find_organism(name: str) -> Organism:
    """Look up an organism by name, or read a user-defined one from a YAML file.

    Raises:
        ValueError: If the registry has no such name; names those that it has in the same world.
    """
    if name.endswith((".yaml", ".yml")):
        return read_organism(Path(name))
    if name not in ORGANISMS:
        near = [known for known in ORGANISMS if known.split("/")[0] == name.split("/")[0]] or list(ORGANISMS)
        raise ValueError(f"organism {name!r}: known are {', '.join(near)}")
    return ORGANISMS[name]
