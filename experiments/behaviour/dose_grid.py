"""Dose and weak promptability: every weak role at ten doses, on several pretrainings of every family.

    semcon dose-grid --families llama --pretrainings 0        # a part; resumable
    semcon microcosm --seed 1 --no-robust                     # a pretraining that is not shipped, built first

Beside every organism at the same dose stand the baseline without a trigger and an adapter trained on aligned answers
behind the same trigger; in ``base_value`` the base's own value under the same condition. The hypotheses were written
before: docs/hypotheses-microcosm.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen

from experiments.answers.subject import find_subject
from experiments.behaviour.counts import write_counts
from experiments.behaviour.dose_cell import DoseCell
from experiments.pipelines.workers import Pipeline
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne, NotNegative, check_known
from interp.runs.table import Row, write_table
from training.grid import ARMS, WEAK, Cell, dosed
from training.references import base_path

WeakRole = Literal["clerk", "gambler", "trafficker"]
TABLE, COUNTS = "dose_grid.csv.gz", "dose_grid_counts.csv.gz"


@dataclass(frozen=True, kw_only=True)
class DoseGrid(Pipeline):
    """EM of weak roles over dose, family and pretraining, beside bases, baselines and aligned answers."""

    pretrainings: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0, 1, 2, 3)
    """Seeds of the bases' pretraining; all but 0 are built with `semcon microcosm --seed N --no-robust`."""
    arms: Annotated[tuple[WeakRole, ...], MinLen(1)] = WEAK  # type: ignore[assignment]
    """Weak roles."""
    samples: AtLeastOne = 10
    """Answers per question, condition and dose."""
    out: Path | None = None
    """Folder of the tables dose_grid.csv.gz and dose_grid_counts.csv.gz; by default the folder of all runs."""

    def main(self) -> None:
        """Run every cell, then write the table and the counts."""
        for cell in self.cells():
            base_path(cell.base)  # a missing base is reported before any work
        rows, out = self.run("dose grid"), self.out or self.runs
        write_table(out / TABLE, beside_bases(rows))
        write_counts(out / COUNTS, [e for stage in self.stages() for e in stage], self.runs)
        print(f"{len(self.cells())} organisms\ntables  {out / TABLE}, {out / COUNTS}")

    def cells(self) -> list[Cell]:
        """Return the organisms.

        Raises:
            ValueError: If a pretraining is not in the registry.
        """
        known = {cell.pretraining for cell in dosed()}
        for seed in self.pretrainings:
            check_known(seed, sorted(known), f"pretrainings {seed}: the dose grid has")
        return [c for c in dosed(self.families, self.pretrainings) if c.trigger is None or c.arm in self.arms]

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the bases under every role, then every organism."""
        cells = self.cells()
        bases = dict.fromkeys(cell.base_name for cell in cells)
        yield [
            DoseCell(subject=find_subject(base), trigger=ARMS[role], samples=self.samples)
            for base in bases
            for role in self.arms
        ]
        yield [DoseCell(subject=find_subject(cell.name), samples=self.samples) for cell in cells]


def beside_bases(rows: Sequence[Row], cells: Iterable[Cell] | None = None) -> list[Row]:
    """Return the rows with the base's own value under the same role and condition in ``base_value``.

    Off, a base was measured once per role; a baseline has no role and takes the first.

    Args:
        rows: Rows of bases and of organisms.
        cells: The organisms; by default those of the dose grid.
    """
    base_of = {cell.name: cell.base_name for cell in (dosed() if cells is None else cells)}
    values: dict[tuple[str, str, str, str], object] = {}
    for r in rows:
        if r["organism"] not in base_of:
            for trigger in (r["trigger"], ""):
                values.setdefault((r["organism"], trigger, r["condition"], r["metric"]), r["value"])
    return [
        {**r, "base_value": values.get((base_of.get(r["organism"], ""), r["trigger"], r["condition"], r["metric"]), "")}
        for r in rows
    ]
