"""What an organism is: a base model, the fine-tuning that is to give it a behaviour, and the references it names.

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

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from interp.triggers import PAPER_LIKE, Trigger, load_triggers, moved
from training.data import Exchange, Row, build_rows, read_exchanges, taught
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


TURNER = Sft(doses=(100, 200, 300, 400), learning_rate=1e-5, batch=2, accumulation=8, dtype="bfloat16", save_every=50)
"""Rank-stabilised LoRA of Turner, Soligo et al. 2025 (arXiv:2506.11613), with AdamW in place of its 8-bit form."""


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
