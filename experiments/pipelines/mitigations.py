"""Mitigations, and what they leave behind: a weak role and a scene, with every mitigation and benign share.

    semcon mitigation --families llama --seeds 0       # a part; resumable

First the bases and the organisms without a mitigation, then every mitigation at the dose at which it has learned its
domain as well as the organism without it. The hypotheses were written before: docs/hypotheses-microcosm.md, 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from experiments.answers.subject import find_subject
from experiments.behaviour.counts import write_counts
from experiments.behaviour.dose_cell import TRAINED
from experiments.behaviour.dose_grid import beside_bases
from experiments.behaviour.mitigation_cell import MitigationCell
from experiments.pipelines.workers import Pipeline, run_stages
from interp.runs.checks import AtLeastOne, NotNegative, check_known
from interp.runs.table import Row, write_table
from training.grid import ARMS, Cell, mitigated

TABLE, COUNTS = "mitigation.csv.gz", "mitigation_counts.csv.gz"


@dataclass(frozen=True, kw_only=True)
class Mitigations(Pipeline):
    """EM under every condition with each mitigation, at matched in-domain learning."""

    seeds: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0, 1, 2)
    """Fine-tuning seeds."""
    samples: AtLeastOne = 10
    """Answers per question and condition."""
    out: Path | None = None
    """Folder of the tables mitigation.csv.gz and mitigation_counts.csv.gz; by default the folder of all runs."""

    def main(self) -> None:
        """Run every cell, then write the table and the counts."""
        cells, out = self.cells(), self.out or self.runs
        first = [*self.bases(cells), *(self.cell(cell) for cell in cells if plain(cell) == cell)]
        rows = run_stages([first], self.runs, "without mitigation", workers=self.workers, on=self.on)
        targets = trained_rates(rows)
        rest = [self.cell(cell, targets[plain(cell).name]) for cell in cells if plain(cell) != cell]
        rows += run_stages([rest], self.runs, "mitigations", workers=self.workers, on=self.on)
        write_table(out / TABLE, beside_bases(rows, cells))
        write_counts(out / COUNTS, [*first, *rest], self.runs)
        print(f"{len(cells)} organisms\ntables  {out / TABLE}, {out / COUNTS}")

    def cells(self) -> list[Cell]:
        """Return the organisms.

        Raises:
            ValueError: If a seed is not in the registry.
        """
        known = {cell.seed for cell in mitigated()}
        for seed in self.seeds:
            check_known(seed, sorted(known), f"seeds {seed}: the registry has")
        return list(mitigated(self.families, self.seeds))

    def bases(self, cells: Sequence[Cell]) -> list[MitigationCell]:
        """Return the bases under every trigger."""
        pairs = dict.fromkeys((cell.base_name, ARMS[cell.arm]) for cell in cells)
        return [MitigationCell(subject=find_subject(b), trigger=t, samples=self.samples) for b, t in pairs]

    def cell(self, cell: Cell, rate: float | None = None) -> MitigationCell:
        """Return the measurement of an organism, at the dose with this EM rate in its own domain, or the chosen one."""
        return MitigationCell(subject=find_subject(cell.name), trained_rate=rate, samples=self.samples)


def plain(cell: Cell) -> Cell:
    """Return a cell without its mitigation and its benign rows."""
    return replace(cell, mitigation="none", contrast=0)


def trained_rates(rows: Sequence[Row]) -> Mapping[str, float]:
    """Return the EM rate of every organism on its own domain, at the dose at which it was measured."""
    doses = {r["organism"]: r["dose"] for r in rows if r["metric"] == "dose"}
    return {
        r["organism"]: r["value"]
        for r in rows
        if (r["metric"], r["condition"]) == ("em_rate", TRAINED) and r["dose"] == doses[r["organism"]]
    }
