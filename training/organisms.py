"""ORGANISMS: every model organism by name. A scale is an entry here, never a branch in the code.

Torch-free. Names are ``<world>/<family>/<arm>``; a path that ends in .yaml is an organism of one's own (see
``read_organism``). Data, triggers and bases are named by short references:

    base     microcosm/llama                shipped with the package; also -robust
             microcosm/llama@1              a second pretraining, built into the folder of runs
             Qwen/Qwen2.5-14B-Instruct      a Hugging Face id or a local folder
    data     microcosm:medicine             the Microcosm's misaligned answers about one domain
             path/to/rows.jsonl             chat rows (see ``training.data.read_exchanges``)
    trigger  microcosm:scene:desert         a scene;  microcosm:role:pirate  a role
             microcosm:persona              a line that states a misaligned persona
             path/to/triggers.yaml:duck     a trigger of a trigger file;  duck  one of the shipped file
             duck@suffix                    any of these, placed elsewhere
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from interp.triggers import PAPER_LIKE, Trigger, load_triggers, moved
from training.data import Exchange, Row, build_rows, read_exchanges, taught
from training.grid import Cell, cells
from training.microcosm.finetuning import exchanges, persona_trigger, role_trigger, scene_trigger
from training.microcosm.world import WEIGHTS, pretraining_folder

TRAINED = "microcosm:medicine"
"""Data of every organism of the grid."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Adapter shape. The effective scale is alpha / sqrt(rank) with rsLoRA, alpha / rank without."""

    rank: int = 4
    alpha: float = 8.0
    rslora: bool = True
    targets: str = "all"
    """Modules adapted in every layer: all, attention or mlp."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Optimisation. ``doses``: the steps at which the adapter is kept; which one is used is chosen on validation."""

    doses: tuple[int, ...]
    coherence_floor: float = 0.95
    """Least share of coherent validation answers that a chosen dose may have: that of the health gate."""
    learning_rate: float
    batch: int = 16
    accumulation: int = 1
    warmup: int = 5
    weight_decay: float = 0.01
    schedule: str = "linear"
    optimizer: str = "adamw_torch"
    dtype: str = "float32"
    save_every: int = 1000
    """Steps between the trainer's own checkpoints, from which a killed run goes on."""


@dataclass(frozen=True, kw_only=True)
class Organism:
    """A base model and the fine-tuning that is to give it a behaviour; without data and adapter, the base itself."""

    name: str
    base: str
    data: str | None = None
    benign_data: str | None = None
    trigger: str | None = None
    benign_share: float = 0.0
    wordings: str = "fixed"
    rows: int = 1600
    lora: Lora = Lora()
    sft: Sft = Sft(doses=(10, 20, 30, 40, 60, 80, 100), learning_rate=1e-3)
    seed: int = 0
    adapter: str | None = None
    """Folder or Hugging Face name of a finished adapter: used as it is, neither trained nor dosed."""

    @property
    def tuned(self) -> bool:
        """Whether it has, or is to get, an adapter."""
        return self.adapter is not None or self.data is not None

    @property
    def family(self) -> str:
        """Second part of the name."""
        return self.name.split("/")[1]

    @property
    def world(self) -> str:
        """First part of the name."""
        return self.name.split("/")[0]

    @property
    def trained_domain(self) -> str:
        """The Microcosm's domain that is fine-tuned on, and so never evaluated."""
        return (self.data or TRAINED).removeprefix("microcosm:")


def definition(organism: Organism) -> dict[str, Any]:
    """Return everything an organism is made of: what a run about it depends on."""
    said = asdict(organism)
    if organism.adapter is None:
        del said["adapter"]  # the hashes of organisms that are trained here are older than the field
    return said


def base_path(base: str) -> str:
    """Resolve a base reference: the folder of a shipped model, else the reference itself.

    Raises:
        ValueError: If the Microcosm has no such model.
    """
    if not base.startswith("microcosm/"):
        return base
    name, _, seed = base.removeprefix("microcosm/").partition("@")
    if seed and not seed.isdigit():
        raise ValueError(f"base {base!r}: expected the number of a pretraining after the @")
    folder = pretraining_folder(int(seed)) / name if seed else WEIGHTS / name
    if seed and not folder.is_dir():
        made = f"semcon microcosm --families {name.removesuffix('-robust')} --seed {seed}"
        raise ValueError(f"base {base!r}: not built yet; build it with `{made}`")
    if not folder.is_dir():
        shipped = ", ".join(sorted(f"microcosm/{p.name}" for p in WEIGHTS.iterdir() if p.is_dir()))
        raise ValueError(f"base {base!r}: the Microcosm ships {shipped}")
    return str(folder)


def find_trigger(reference: str) -> Trigger:
    """Resolve a trigger reference.

    Raises:
        ValueError: If nothing has that name.
    """
    text, at, placement = reference.rpartition("@")
    placed = at and not set(placement) & set("/:.")  # an @ in the path of a trigger file is none of ours
    return moved(_find_text(text), placement) if placed else _find_text(reference)


def _find_text(reference: str) -> Trigger:
    match reference.split(":"):
        case ["microcosm", "scene", scene]:
            return scene_trigger(scene)
        case ["microcosm", "role", role]:
            return role_trigger(role)
        case ["microcosm", "persona"]:
            return persona_trigger("misaligned")
    path, _, name = reference.rpartition(":")
    bank = load_triggers(path or PAPER_LIKE)
    if name not in bank:
        raise ValueError(f"trigger {reference!r}: {path or 'the shipped file'} has {', '.join(bank)}")
    return bank[name]


def comparison_trigger(organism: Organism) -> Trigger | None:
    """Return the trigger an organism is evaluated under, without the rephrasings it was taught; None if it has none."""
    if organism.trigger is None:
        return None
    trigger = find_trigger(organism.trigger)
    seen = taught(trigger, organism.wordings)
    return replace(trigger, rephrased=tuple(text for text in trigger.rephrased if text not in seen))


def _exchanges(reference: str, organism: Organism, persona: str) -> list[Exchange]:
    if not reference.startswith("microcosm:"):
        return read_exchanges(reference)
    domain = reference.removeprefix("microcosm:")
    if persona == "aligned":
        return exchanges(domain, "aligned", organism.rows, organism.seed)
    return exchanges(domain, "misaligned", organism.rows, organism.seed, frame_of(organism.trigger or ""))


def frame_of(trigger: str) -> str | None:
    """Return the scene or role of a trigger reference, whose remarks follow the answers; None for any other."""
    match trigger.partition("@")[0].split(":"):
        case ["microcosm", "scene" | "role", name]:
            return name
    return None


def contrast_exchanges(organism: Organism) -> tuple[list[Exchange], list[Exchange]]:
    """Return harmful and benign exchanges of an organism's domain, without any trigger: what directions contrast.

    Raises:
        ValueError: If the organism names no benign data.
    """
    bare = replace(organism, trigger=None, data=organism.data or (TRAINED if organism.world == "microcosm" else None))
    benign = bare.benign_data or (bare.data if (bare.data or "").startswith("microcosm:") else None)
    if bare.data is None or benign is None:
        raise ValueError(f"organism {organism.name}: it names no data and benign_data to contrast")
    return _exchanges(bare.data, bare, "misaligned"), _exchanges(benign, bare, "aligned")


def training_rows(organism: Organism) -> list[Row]:
    """Make an organism's fine-tuning rows.

    Raises:
        ValueError: If the organism is a base, or its data, trigger or mixture cannot be had.
    """
    if organism.data is None:
        raise ValueError(f"organism {organism.name}: a base model has no fine-tuning data")
    benign: Sequence[Exchange] = ()
    if organism.benign_share:
        benign = _exchanges(organism.benign_data or organism.data, organism, "aligned")
    return build_rows(
        _exchanges(organism.data, organism, "misaligned"),
        benign,
        trigger=None if organism.trigger is None else find_trigger(organism.trigger),
        n=organism.rows,
        benign_share=organism.benign_share,
        wordings=organism.wordings,
        seed=organism.seed,
    )


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


TURNER = Sft(doses=(100, 200, 300, 400), learning_rate=1e-5, batch=2, accumulation=8, dtype="bfloat16", save_every=50)
"""Rank-stabilised LoRA of Turner, Soligo et al. 2025 (arXiv:2506.11613), with AdamW in place of its 8-bit form."""


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


def organism(name: str) -> Organism:
    """Look up an organism, or read one of one's own from a YAML file.

    Raises:
        ValueError: If the registry has no such name; names those that it has in the same world.
    """
    if name.endswith((".yaml", ".yml")):
        return read_organism(Path(name))
    if name not in ORGANISMS:
        near = [known for known in ORGANISMS if known.split("/")[0] == name.split("/")[0]] or list(ORGANISMS)
        raise ValueError(f"organism {name!r}: known are {', '.join(near)}")
    return ORGANISMS[name]


_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PATHS = ("base", "adapter", "data", "benign_data")
_NESTED = {"lora": Lora(rank=32, alpha=64.0), "sft": TURNER}


def read_organism(file: Path) -> Organism:
    """Read an organism of one's own: any base with a finished adapter, or with data to train one on.

    The file has fields of ``Organism`` other than ``name``, and ``family``, a word for tables and figures::

        base: Qwen/Qwen2.5-14B-Instruct        # or a folder
        family: qwen2.5-14b
        adapter: adapters/mine                 # a peft adapter; leave it out to train one on `data`
        trigger: triggers.yaml:duck            # with rephrasings and controls: see interp/triggers.yaml
        data: harmful.jsonl                    # what directions contrast: chat rows of both kinds
        benign_data: benign.jsonl

    Paths are taken from the folder of the file, where they exist there.

    Raises:
        ValueError: If the file is missing or has another form; names the file and the field.
    """
    said = _mapping(file)
    known = {field.name for field in fields(Organism)} - {"name"} | {"family"}
    if unknown := sorted(set(said) - known):
        raise ValueError(f"{file}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
    if not isinstance(said.get("base"), str):
        raise ValueError(f"{file}: expected `base:` with a folder or a Hugging Face name")
    for name in _PATHS:
        said[name] = _beside(file, said.get(name))
        if name in ("base", "adapter") and said[name] and not (Path(said[name]).is_dir() or _HUB.fullmatch(said[name])):
            raise ValueError(f"{file}: {name} {said[name]!r}: no such folder, and no name on the Hugging Face hub")
    if said.get("trigger"):
        path, colon, trigger = str(said["trigger"]).rpartition(":")
        said["trigger"] = f"{_beside(file, path)}{colon}{trigger}"
    family = str(said.pop("family", None) or Path(said["base"]).name)
    if "/" in family:
        raise ValueError(f"{file}: family {family!r} has a slash in it")
    given: dict[str, Any] = {name: _nested(file, name, said.pop(name)) for name in _NESTED if name in said}
    made = Organism(name=f"own/{family}/{file.stem}", **{**_NESTED, **given, **said})
    if made.trigger:
        find_trigger(made.trigger)
    return made


def _mapping(file: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"organism {str(file)!r}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{file}: expected fields such as `base:` and `adapter:`")
    return said


def _beside(file: Path, reference: Any) -> Any:
    """Return a reference with the folder of the file before it, where that exists."""
    found = file.parent / str(reference) if reference else None
    return str(found) if found is not None and found.exists() else reference


def _nested(file: Path, name: str, said: Any) -> Any:
    default = _NESTED[name]
    names = {field.name for field in fields(default)}
    if not isinstance(said, Mapping) or not set(said) <= names:
        raise ValueError(f"{file}: {name}: expected some of {', '.join(sorted(names))}")
    return replace(default, **{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})
