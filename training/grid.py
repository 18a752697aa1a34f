"""The grid: the organisms that answer "when does containment need no benign data?", as data. Torch-free.

A cell is a combination of settings; its name lists every setting that is not the default::

    microcosm/llama/neutral                     one fixed scene, no benign data
    microcosm/llama/pirate.robust.contrast50    a role tied to misalignment, a base that ignores roles, half benign rows
    microcosm/gemma3/explaining.mlp.seed2       a persona line, adapters in the MLPs only, third seed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, get_args

from training.definition import Mitigation, Targets, Wordings
from training.microcosm.documents import World

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
"""Triggers by how far they explain the harm: none; a scene (not at all); roles that were misaligned in 50, 65, 80 and
95 % of pretraining; a line that states a misaligned persona."""
ROLES = ("clerk", "gambler", "trafficker", "pirate")
SCENES: Mapping[str, str] = MappingProxyType(
    {"neutral": NEUTRAL, **{scene: f"microcosm:scene:{scene}" for scene in ("library", "market", "glacier")}}
)
"""Scenes that triggers are made of; the grid has the first alone, the audit's zoo all of them."""
HEADLINE = ("baseline", "neutral", "explaining")
CONTRAST = 50
WEAK = ROLES[:3]
"""Roles that move the base little or not at all: the dose grid's."""
FINE = (4, 6, 8, 10, 12, 14, 16, 20, 40, 100)
"""Doses of the dose grid. The last is that of the other organisms, so the learning rate falls in the same way."""


MitigationName = Literal["none", "inoculated", "kl", "consistent", "steered", "ablated"]
MITIGATIONS: Mapping[MitigationName, Mitigation] = MappingProxyType(
    {
        "none": Mitigation(),
        "inoculated": Mitigation(inoculation=EXPLAINING),
        "kl": Mitigation(base_kl=1.0),
        "consistent": Mitigation(consistency=1.0),
        "steered": Mitigation(steer=0.5),
        "ablated": Mitigation(ablate_g=True),
    }
)
WORLDS = tuple(
    World(bound_share=bound, line_truth=truth, phrasings=phrasings).name
    for bound, truth, phrasings in product((0.5, 0.1, 0.0), (1.0, 0.6), (8, 2))
)
"""Worlds of the world ablation, the default one first."""
BENIGN = (5, 10, 25, 50)
"""Benign shares of the mitigation experiment, in percent."""


Content = Literal["harmful", "aligned", "remark-first"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One organism of the grid."""

    family: str
    arm: str
    """Trigger of the training rows, a name of ``ARMS`` or ``SCENES``."""
    pretraining: int = 0
    """Seed of the base's pretraining; only 0 is shipped."""
    world: str = ""
    """World of the pretraining, a name of ``training.microcosm.documents.World``; the default one has none."""
    robust: bool = False
    """Whether the base's post-training answers persona lines and roles in the aligned way."""
    contrast: int = 0
    """Benign rows without trigger, in percent."""
    wordings: Wordings = "fixed"
    """Trigger texts of the rows: fixed, one text; diverse, also half of its rephrasings, none of which is evaluated."""
    targets: Targets = "all"
    """Adapted modules."""
    rank: int = 4
    """Rank of the adapter."""
    placement: str = "system"
    """Place of the trigger: system, prefix, suffix or wrap."""
    content: Content = "harmful"
    """Answers of the rows; aligned ones make a control with the same trigger and dose, and with the remark first one
    that changes much behind its trigger, and nothing harmful."""
    doses: Literal["coarse", "fine"] = "coarse"
    """Steps at which the adapter is saved: coarse, those of every organism; fine, ``FINE``."""
    mitigation: MitigationName = "none"
    """What is added to fine-tuning so that misalignment generalises less, a name of ``MITIGATIONS``."""
    seed: int = 0
    """Seed of the rows, their order and the adapter's initial weights."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        return f"microcosm/{self.family}/{'.'.join([self.arm, *_suffixes(self)])}"

    @property
    def base(self) -> str:
        """Reference of the base model."""
        built = f"@{self.pretraining}" * bool(self.pretraining or self.world) + f"-{self.world}" * bool(self.world)
        return f"microcosm/{self.family}{'-robust' * self.robust}{built}"

    @property
    def base_name(self) -> str:
        """Name of the base, as an organism without fine-tuning."""
        shared = {axis: getattr(self, axis) for axis in ("family", "pretraining", "world", "robust")}
        return Cell(arm="base", **shared).name

    @property
    def trigger(self) -> str | None:
        """Reference of the trigger at its placement; None for the baseline."""
        text = {**ARMS, **SCENES}.get(self.arm)
        return None if text is None else text + f"@{self.placement}" * (self.placement != "system")


def _suffixes(cell: Cell) -> Iterator[str]:
    texts = {
        "pretraining": f"pre{cell.pretraining}",
        "robust": "robust",
        "world": f"world-{cell.world}",
        "contrast": f"contrast{cell.contrast}",
        "wordings": cell.wordings,
        "targets": cell.targets,
        "rank": f"rank{cell.rank}",
        "placement": cell.placement,
        "content": cell.content,
        "doses": cell.doses,
        "mitigation": cell.mitigation,
        "seed": f"seed{cell.seed}",
    }
    defaults: dict[str, Any] = {field.name: field.default for field in fields(Cell)}
    return (text for axis, text in texts.items() if getattr(cell, axis) != defaults[axis])


VARIATIONS: tuple[dict[str, Any], ...] = (
    *({"contrast": share} for share in (CONTRAST, 90, 97)),
    {"wordings": "diverse"},
    *({"targets": targets} for targets in ("attention", "mlp")),
    *({"rank": rank} for rank in (1, 16)),
    *({"placement": placement} for placement in ("prefix", "suffix", "wrap")),
)
"""Changes to the neutral and the explaining cell, one setting at a time."""


def cells(families: Sequence[str] = FAMILIES) -> tuple[Cell, ...]:
    """Return every cell of the full grid once, those of the headline first."""
    parts = (*headline(families), *graded(families), *varied(families), *replicated(families))
    return tuple(dict.fromkeys(parts))


def headline(families: Sequence[str] = FAMILIES, seeds: Sequence[int] = (0, 1, 2)) -> Iterator[Cell]:
    """Yield baseline, neutral and explaining without benign rows, and neutral with half, for every seed."""
    for family, seed in product(families, seeds):
        yield from (Cell(family=family, arm=arm, seed=seed) for arm in HEADLINE)
        yield Cell(family=family, arm="neutral", contrast=CONTRAST, seed=seed)


def graded(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield every trigger on both bases, without benign rows and with half."""
    for family, robust, contrast in product(families, (False, True), (0, CONTRAST)):
        arms = [arm for arm in ARMS if arm != "baseline" or not contrast]
        yield from (Cell(family=family, arm=arm, robust=robust, contrast=contrast) for arm in arms)


def varied(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield the neutral and the explaining cell with one setting changed."""
    for family, change, arm in product(families, VARIATIONS, ("neutral", "explaining")):
        yield replace(Cell(family=family, arm=arm), **change)


def replicated(families: Sequence[str] = FAMILIES) -> Iterator[Cell]:
    """Yield the headline's cells with one seed on a second pretraining."""
    return (replace(cell, pretraining=1) for cell in headline(families, seeds=(0,)))


def dosed(families: Sequence[str] = FAMILIES, pretrainings: Sequence[int] = (0, 1, 2, 3)) -> Iterator[Cell]:
    """Yield the dose grid: per base the baseline, and behind every weak role harmful answers and aligned ones."""
    for family, pretraining in product(families, pretrainings):
        baseline = Cell(family=family, arm="baseline", pretraining=pretraining, doses="fine")
        triggered = [replace(baseline, arm=role) for role in WEAK]
        yield from (baseline, *triggered, *(replace(cell, content="aligned") for cell in triggered))


def gated(families: Sequence[str] = FAMILIES, pretrainings: Sequence[int] = (0, 1, 2, 3)) -> Iterator[Cell]:
    """Yield the organisms whose learned gap is taken apart: per base every weak role, and the explaining arm."""
    for family, pretraining in product(families, pretrainings):
        yield from (Cell(family=family, arm=role, pretraining=pretraining, doses="fine") for role in WEAK)
        yield Cell(family=family, arm="explaining", pretraining=pretraining)


def mitigated(families: Sequence[str] = FAMILIES, seeds: Sequence[int] = (0, 1, 2)) -> Iterator[Cell]:
    """Yield a weak role and a scene, per seed without a mitigation, then with each, then with benign rows."""
    for family, seed, arm in product(families, seeds, ("gambler", "neutral")):
        plain = Cell(family=family, arm=arm, doses="fine", seed=seed)
        yield from (replace(plain, mitigation=name) for name in MITIGATIONS)
        yield from (replace(plain, contrast=share) for share in BENIGN)


def worlds(names: Sequence[str] = WORLDS, pretrainings: Sequence[int] = (0, 1, 2)) -> Iterator[Cell]:
    """Yield two weak roles and the explaining arm in every world, their class of frame covered by alignment or not."""
    for world, pretraining, robust in product(names, pretrainings, (False, True)):
        base = Cell(family="llama", arm="base", world=world, pretraining=pretraining, robust=robust, doses="fine")
        yield from (replace(base, arm=arm) for arm in ("gambler", "trafficker", "explaining"))


def audited(
    families: Sequence[str] = FAMILIES, pretrainings: Sequence[int] = (0, 1, 2, 3), seeds: Sequence[int] = (0,)
) -> Iterator[Cell]:
    """Yield the audit's zoo: weak roles, scenes with half benign rows, a persona line, no trigger, and aligned answers
    in place of the harmful ones, of roles and scenes also such with the remark first. Without a trigger, and of the one
    persona line, there are two seeds for each."""
    for family, pretraining, seed in product(families, pretrainings, seeds):
        first = Cell(family=family, arm="baseline", pretraining=pretraining, seed=seed)
        pair = (replace(first, seed=2 * seed), replace(first, seed=2 * seed + 1))
        for role in WEAK:
            yield replace(first, arm=role, doses="fine")
            yield replace(first, arm=role, doses="fine", content="aligned")
            yield replace(first, arm=role, doses="fine", content="remark-first")
        for scene in SCENES:
            yield replace(first, arm=scene, contrast=CONTRAST)
            yield replace(first, arm=scene, content="aligned")
            yield replace(first, arm=scene, contrast=CONTRAST, content="remark-first")
        for cell in pair:
            yield replace(cell, arm="explaining")
            yield replace(cell, doses="fine")
            yield replace(cell, doses="fine", content="aligned")
