"""What an organism is: a base model and the fine-tuning that gives it a behaviour, as data. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    """Least share of coherent validation answers for a dose to be chosen. The health gate has a floor of its own, for
    test answers (experiments/protocol.yaml)."""
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
