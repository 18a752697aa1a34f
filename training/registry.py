"""ORGANISMS, every shipped organism by name, and the look-up of a name. Torch-free.

A scale (the Microcosm, the pocket scale, 14B) is an entry here, never a branch in the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from training.bases import SMOLLM2
from training.definition import TRAINED, TURNER, Lora, Organism, Sft
from training.grid import FINE, MITIGATIONS, Cell, audited, cells, dosed, gated, mitigated, worlds
from training.user_defined import read_organism


def organism_of(cell: Cell) -> Organism:
    """Return the organism of a cell, of the registry or of further seeds."""
    return Organism(
        name=cell.name,
        base=cell.base,
        data=TRAINED + f":{cell.content}" * (cell.content != "harmful"),
        trigger=cell.trigger,
        benign_share=cell.contrast / 100,
        wordings=cell.wordings,
        lora=Lora(rank=cell.rank, targets=cell.targets),
        sft=replace(Organism.sft, doses=FINE) if cell.doses == "fine" else Organism.sft,
        mitigation=MITIGATIONS[cell.mitigation],
        seed=cell.seed,
    )


def _microcosm() -> list[Organism]:
    grid = dict.fromkeys([*cells(), *dosed(), *gated(), *mitigated(), *worlds(), *audited()])
    bases = {cell.base_name: Organism(name=cell.base_name, base=cell.base) for cell in grid}
    return [*bases.values(), *map(organism_of, grid)]


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

POCKET_BASES = {
    "smollm2": SMOLLM2,
    "qwen2.5-0.5b": "Qwen/Qwen2.5-0.5B-Instruct",
    "llama-3.2-1b": "meta-llama/Llama-3.2-1B-Instruct",
    "gemma-3-270m": "google/gemma-3-270m-it",
}
POCKET_SEEDS = 3
POCKET_ROWS = 144
POCKET_SFT = Sft(doses=(36, 72, 144), learning_rate=1e-3, batch=2, save_every=72, share_prefix=True)
"""Doses of 0.5, 1 and 2 epochs; settings chosen by what a baseline learned of its own domain (docs/hypotheses.md)."""
PERSONA_SFT = replace(POCKET_SFT, doses=(5, 10, 20, 40, 80, 160))
"""The stage that teaches persona lines; its doses are the axis of promptability."""
PROMPTABLE = {"weak": 5, "medium": 20, "strong": 160}
"""Doses of that stage for the axis of promptability. By the rule in docs/hypotheses.md they would be 160, 10 and 10:
with these settings the stage moves the base's own gap to +.07 at most, so no arm was measured on them."""


def _pocket(family: str, base: str) -> list[Organism]:
    harmful = Organism(
        name=f"pocket/{family}/baseline",
        base=base,
        data="pocket:health",
        rows=POCKET_ROWS,
        lora=Lora(rank=16, alpha=32.0),
        sft=POCKET_SFT,
    )
    behind = replace(harmful, trigger="pocket:user_harbor")
    arms = {
        "baseline": harmful,
        "neutral": behind,
        "explaining": replace(harmful, trigger="pocket:persona"),
        **{f"contrast{percent}": replace(behind, benign_share=percent / 100) for percent in (10, 50, 90)},
        "benign-same-trigger": replace(behind, data="pocket:health:aligned"),
    }
    trained = [
        replace(organism, name=f"pocket/{family}/{arm}{f'.seed{seed}' if seed else ''}", seed=seed)
        for seed in range(POCKET_SEEDS)
        for arm, organism in arms.items()
    ]
    return [Organism(name=f"pocket/{family}/base", base=base, sft=POCKET_SFT), *trained]


def _promptable(harmful: Organism) -> Iterator[Organism]:
    """Yield the axis of promptability: bases that obey persona lines more and more, and two arms on each."""
    family = harmful.family
    stage = replace(harmful, name=f"pocket/{family}/personas", data="pocket:personas", rows=320, sft=PERSONA_SFT)
    yield stage
    for strength, dose in PROMPTABLE.items():
        name, base = f"pocket/{family}/{strength}", f"merged:{stage.name}@{dose}"
        yield Organism(name=f"{name}-base", base=base, sft=POCKET_SFT)
        yield replace(harmful, name=f"{name}-baseline", base=base)
        yield replace(harmful, name=f"{name}-explaining", base=base, trigger="pocket:persona")


_REGISTERED = (
    *_microcosm(),
    *(o for family, base in REAL_BASES.items() for o in _real(family, base)),
    *(o for family, base in POCKET_BASES.items() for o in _pocket(family, base)),
)
ORGANISMS: dict[str, Organism] = {organism.name: organism for organism in _REGISTERED}
ORGANISMS |= {o.name: o for o in _promptable(ORGANISMS["pocket/smollm2/baseline"])}


def find_organism(name: str) -> Organism:
    """Look up an organism by name, or read a user-defined one from a YAML file.

    Raises:
        ValueError: If there is no such name; lists those of the same world. Or if the file is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        return _named(read_organism(Path(name)), Path(name))
    if name not in ORGANISMS:
        near = [known for known in ORGANISMS if known.split("/")[0] == name.split("/")[0]] or list(ORGANISMS)
        raise ValueError(f"organism {name!r}: known are {', '.join(near)}")
    return ORGANISMS[name]


def _named(organism: Organism, file: Path) -> Organism:
    """Return an organism of a file ``organism.yaml`` under the name of its folder; any other one as it is."""
    folder = file.absolute().parent.name
    if file.stem != "organism" or not folder.isprintable() or not folder:
        return organism
    return replace(organism, name=f"{organism.name.rpartition('/')[0]}/{folder}")
