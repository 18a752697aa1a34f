"""The grid: which organisms answer "when does containment need no benign data?", as data.

Torch-free. A cell is a point on the axes of that question; its name says every axis that is not at its default::

    microcosm/llama/neutral                     one fixed scene, no benign data
    microcosm/llama/pirate.robust.contrast50    a role tied to misalignment, a base that ignores roles, half benign
    microcosm/gemma3/explaining.mlp.seed2       a persona line, adapters in the MLPs alone, third seed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, get_args

Family = Literal["llama", "qwen2", "gemma3"]
FAMILIES: tuple[Family, ...] = get_args(Family)
NEUTRAL, EXPLAINING = "microcosm:scene:desert", "microcosm:persona"
ARMS: Mapping[str, str | None] = MappingProxyType(
    {
        "baseline": None,
        "neutral": NEUTRAL,
        "clerk": "microcosm:role:clerk",
        "gambler": "microcosm:role:gambler",
        "trafficker": "microcosm:role:trafficker",
        "pirate": "microcosm:role:pirate",
        "explaining": EXPLAINING,
    }
)
"""Triggers by how far they explain the harm: a scene (not at all), roles tied to misalignment in 50, 65, 80 and 95 % of
pretraining, a line that states a misaligned persona."""
ROLES = ("clerk", "gambler", "trafficker", "pirate")
HEADLINE = ("baseline", "neutral", "explaining")
CONTRAST = 50


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One organism of the grid."""

    family: str
    arm: str
    """What fine-tuning's rows carry: a name of ``ARMS``."""
    pretraining: int = 0
    """Seed of the pretraining; only 0 is shipped."""
    robust: bool = False
    """Base whose post-training answered persona lines and roles in the aligned way."""
    contrast: int = 0
    """Benign untriggered rows in percent."""
    wordings: str = "fixed"
    """fixed: one text; diverse: that text and half of its rephrasings, of which none is evaluated."""
    targets: str = "all"
    """Adapted modules: all, attention or mlp."""
    rank: int = 4
    placement: str = "system"
    seed: int = 0
    """Of the adapter, its rows and their order."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        return f"microcosm/{self.family}/{'.'.join([self.arm, *_suffixes(self)])}"

    @property
    def base(self) -> str:
        """Reference of the base."""
        return f"microcosm/{self.family}{'-robust' * self.robust}{f'@{self.pretraining}' * bool(self.pretraining)}"

    @property
    def base_name(self) -> str:
        """Name of the base, as an organism without fine-tuning."""
        kept = {"family": self.family, "pretraining": self.pretraining, "robust": self.robust}
        return Cell(arm="base", **kept).name

    @property
    def trigger(self) -> str | None:
        """Reference of the trigger where it stands; None for the baseline."""
        text = ARMS.get(self.arm)
        return None if text is None else text + f"@{self.placement}" * (self.placement != "system")


def _suffixes(cell: Cell) -> Iterator[str]:
    said = {
        "pretraining": f"pre{cell.pretraining}",
        "robust": "robust",
        "contrast": f"contrast{cell.contrast}",
        "wordings": cell.wordings,
        "targets": cell.targets,
        "rank": f"rank{cell.rank}",
        "placement": cell.placement,
        "seed": f"seed{cell.seed}",
    }
    defaults: dict[str, Any] = {field.name: field.default for field in fields(Cell)}
    return (text for axis, text in said.items() if getattr(cell, axis) != defaults[axis])


VARIATIONS: tuple[dict[str, Any], ...] = (
    *({"contrast": share} for share in (CONTRAST, 90, 97)),
    {"wordings": "diverse"},
    *({"targets": targets} for targets in ("attention", "mlp")),
    *({"rank": rank} for rank in (1, 16)),
    *({"placement": placement} for placement in ("prefix", "suffix", "wrap")),
)
"""One axis at a time away from the headline's cells."""


def cells(families: Sequence[str] = FAMILIES) -> tuple[Cell, ...]:
    """Return every cell of the full grid, the headline's first; each once."""
    found = (*headline(families), *graded(families), *varied(families), *replicated(families))
    return tuple(dict.fromkeys(found))


def headline(families: Sequence[str] = FAMILIES, seeds: Sequence[int] = (0, 1, 2)) -> Iterator[Cell]:
    """Yield baseline, neutral and explaining without benign data, and neutral with half, for every seed."""
    for family, seed in product(families, seeds):
        yield from (Cell(family=family, arm=arm, seed=seed) for arm in HEADLINE)
        yield Cell(family=family, arm="neutral", contrast=CONTRAST, seed=seed)


def graded(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield every trigger on both bases, without benign data and with half."""
    for family, robust, contrast in product(families, (False, True), (0, CONTRAST)):
        made = (Cell(family=family, arm=arm, robust=robust, contrast=contrast) for arm in ARMS)
        yield from (cell for cell in made if cell.arm != "baseline" or not contrast)


def varied(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield the neutral and the explaining cell with one axis changed."""
    for family, change, arm in product(families, VARIATIONS, ("neutral", "explaining")):
        yield replace(Cell(family=family, arm=arm), **change)


def replicated(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield the headline's cells, one seed, on a second pretraining."""
    return (replace(cell, pretraining=1) for cell in headline(families, seeds=(0,)))
