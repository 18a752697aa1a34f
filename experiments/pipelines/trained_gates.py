"""The gates that training makes, taken apart: weak roles at doses inside the paper's box, on several pretrainings.

    semcon trained-gate --families llama --pretrainings 0 --dose 8     # a part at a dose of yours; resumable
    semcon trained-gate                                                # doses from the table of `semcon dose-grid`

Beside the weak roles stands the explaining arm, at the dose chosen on validation questions. The hypotheses were written
before: docs/hypotheses-microcosm.md, 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen

from experiments.answers.subject import Subject, find_subject
from experiments.behaviour.counts import write_counts
from experiments.behaviour.dose_grid import TABLE as DOSE_GRID
from experiments.directions.geometry import Geometry
from experiments.gate.patch import Patch
from experiments.pipelines.workers import Pipeline
from experiments.removal.trained_gate import TrainedGate
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne, NotNegative, check_known
from interp.runs.table import read_table, write_table
from training.grid import ARMS, WEAK, Cell, gated
from training.references import base_path

TABLE, COUNTS = "trained_gate.csv.gz", "trained_gate_counts.csv.gz"
Arm = Literal["clerk", "gambler", "trafficker", "explaining"]


@dataclass(frozen=True, kw_only=True)
class TrainedGates(Pipeline):
    """The learned gap of weak roles and of the explaining arm, and the share of it that every edit closes."""

    pretrainings: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0, 1, 2, 3)
    """Seeds of the bases' pretraining; all but 0 are built with `semcon microcosm --seed N --no-robust`."""
    arms: Annotated[tuple[Arm, ...], MinLen(1)] = (*WEAK, "explaining")  # type: ignore[assignment]
    """Triggers: weak roles, and the line that states a misaligned persona."""
    dose: AtLeastOne | None = None
    """Training steps of the weak roles' adapters; by default the dose inside the paper's box, or nearest to it."""
    doses: Path | None = None
    """Table of `semcon dose-grid` that the doses are read from; by default dose_grid.csv.gz in the folder of runs."""
    samples: AtLeastOne = 10
    """Answers per question, condition and edit."""
    patching: bool = False
    """Also run `semcon patch` on the first pretraining: the map, and the adapter module by module."""
    out: Path | None = None
    """Folder of the tables trained_gate.csv.gz and trained_gate_counts.csv.gz; by default the folder of all runs."""

    def main(self) -> None:
        """Run every organism, then write the table and the counts."""
        for cell in self.cells():
            base_path(cell.base)  # a missing base is reported before any work
        stages = list(self.stages())
        rows, out = self.run("trained gates"), self.out or self.runs
        gates = [e for stage in stages for e in stage if isinstance(e, TrainedGate)]
        write_table(out / TABLE, rows)
        write_counts(out / COUNTS, gates, self.runs)
        print(f"{len(gates)} organisms\ntables  {out / TABLE}, {out / COUNTS}")

    def cells(self) -> list[Cell]:
        """Return the organisms.

        Raises:
            ValueError: If a pretraining is not in the registry.
        """
        known = {cell.pretraining for cell in gated()}
        for seed in self.pretrainings:
            check_known(seed, sorted(known), f"pretrainings {seed}: the registry has")
        return [cell for cell in gated(self.families, self.pretrainings) if cell.arm in self.arms]

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the experiment of every organism, and the patching maps of the first pretraining."""
        yield [TrainedGate(geometry=self.geometry(cell), samples=self.samples) for cell in self.cells()]
        if self.patching:
            first = [cell for cell in self.cells() if cell.pretraining == self.pretrainings[0]]
            yield [Patch(subject=self.subject(cell)) for cell in first]

    def geometry(self, cell: Cell) -> Geometry:
        """Return the directions of an organism; of a role, another weak role's feature is the control."""
        other = ARMS[WEAK[(WEAK.index(cell.arm) + 1) % len(WEAK)]] if cell.arm in WEAK else None
        return Geometry(subject=self.subject(cell), control_trigger=other)

    def subject(self, cell: Cell) -> Subject:
        """Return an organism, of a weak role at the dose given or read from the dose grid."""
        subject = find_subject(cell.name)
        return replace(subject, dose=self.dose or self._nearest(cell)) if cell.arm in WEAK else subject

    def _nearest(self, cell: Cell) -> int:
        from figures.boxes import nearest_dose  # the rules of the box stand with the claims about it

        return nearest_dose(self._settings, cell.family, cell.arm)

    @cached_property
    def _settings(self) -> list:
        from figures.boxes import settings

        table = self.doses or self.runs / DOSE_GRID
        if not table.is_file():
            raise ValueError(f"doses {table}: no such table; run `semcon dose-grid` first, or give --dose STEPS")
        return settings(read_table(table))
