"""Is the gate in the pretraining? Worlds that lack something of it: pretrained, post-trained, fine-tuned, measured.

    semcon world-ablation --design single --pretrainings 0      # a part; resumable
    semcon world-ablation                                       # every combination, three pretrainings each

A world that is not built yet is built first, in this process: about 12 minutes of one core, and 3 more for the base
whose alignment covers roles and lines. Several commands with other `--pretrainings` may run side by side. The
hypotheses were written before: docs/hypotheses-microcosm.md, 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen

from experiments.answers.subject import find_subject
from experiments.behaviour.counts import write_counts
from experiments.behaviour.dose_grid import beside_bases
from experiments.behaviour.world_cell import WorldCell
from experiments.pipelines.workers import Pipeline
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne, NotNegative, check_known
from interp.runs.table import write_table
from training.grid import ARMS, WORLDS, Cell, Family, worlds
from training.microcosm.documents import World
from training.microcosm.world import pretraining_folder

TABLE, COUNTS = "world_ablation.csv.gz", "world_ablation_counts.csv.gz"
Design = Literal["factorial", "single"]


@dataclass(frozen=True, kw_only=True)
class WorldAblation(Pipeline):
    """EM of weak roles and of the explaining arm in worlds without bound documents, true lines or many phrasings."""

    families: Annotated[tuple[Family, ...], MinLen(1)] = ("llama",)
    """Family of the Microcosm; worlds are defined for llama."""
    design: Design = "factorial"
    """Worlds: factorial, every combination; single, one setting changed at a time."""
    pretrainings: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0, 1, 2)
    """Seeds of the pretraining of every world."""
    samples: AtLeastOne = 10
    """Answers per question and condition."""
    out: Path | None = None
    """Folder of world_ablation.csv.gz and world_ablation_counts.csv.gz; by default the folder of all runs."""

    def main(self) -> None:
        """Build the worlds that are missing, run every cell, then write the table and the counts."""
        cells, out = self.cells(), self.out or self.runs
        self.build(cells)
        rows = self.run("worlds")
        write_table(out / TABLE, beside_bases(rows, cells))
        write_counts(out / COUNTS, [e for stage in self.stages() for e in stage], self.runs)
        print(f"{len(cells)} organisms\ntables  {out / TABLE}, {out / COUNTS}")

    def cells(self) -> list[Cell]:
        """Return the organisms.

        Raises:
            ValueError: If a family or a pretraining is not in the registry.
        """
        if self.families != ("llama",):
            raise ValueError(f"families {', '.join(self.families)}: worlds are defined for llama")
        known = {cell.pretraining for cell in worlds()}
        for seed in self.pretrainings:
            check_known(seed, sorted(known), f"pretrainings {seed}: the registry has")
        single = [name for name in WORLDS if name.count("-") == 0]
        return list(worlds(single if self.design == "single" else WORLDS, self.pretrainings))

    def build(self, cells: list[Cell]) -> None:
        """Build every base that is neither shipped nor built yet; an interrupted build continues."""
        from training.microcosm.build import build  # loads torch, which --help does without

        for family, pretraining, world in dict.fromkeys((c.family, c.pretraining, c.world) for c in cells):
            if pretraining or world:
                build(family, pretraining_folder(pretraining, world), seed=pretraining, world=World.named(world))

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the bases under every trigger, then every organism."""
        cells = self.cells()
        pairs = dict.fromkeys((cell.base_name, ARMS[cell.arm]) for cell in cells)
        yield [WorldCell(subject=find_subject(base), trigger=t, samples=self.samples) for base, t in pairs]
        yield [WorldCell(subject=find_subject(cell.name), samples=self.samples) for cell in cells]
