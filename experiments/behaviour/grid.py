"""When does containment need no benign data? EM rates of every organism of the grid and of its base.

    semcon grid                                       # the whole grid: an hour or two on a laptop, resumable
    semcon grid --part headline --families llama      # one part of it

The cells are data (training/grid.py). Every cell is a run of its own: the organism is trained, its dose is chosen on
validation questions, its EM rate is measured off, on and under every control, and it passes through the health gate.
An adapter that does not change its base is reported as "not live".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from experiments.answers.subject import find_subject
from experiments.behaviour.axes import readings, semantic_readings
from experiments.behaviour.counts import write_counts
from experiments.behaviour.em_rate import ESSENTIAL, Answers, EmRate
from experiments.behaviour.emergence import Emergence
from experiments.pipelines.workers import Pipeline
from experiments.spec import Experiment, identity
from interp.runs.checks import AtLeastOne
from interp.runs.run import run_id
from interp.runs.table import Row, row, write_table
from training.grid import NEUTRAL, Cell, cells, graded, headline, replicated, varied
from training.references import base_path

PARTS = {"all": cells, "headline": headline, "graded": graded, "varied": varied, "replicated": replicated}
TABLE, COUNTS, FORMING = "containment_grid.csv.gz", "containment_grid_counts.csv.gz", "emergence.csv.gz"


@dataclass(frozen=True, kw_only=True)
class ContainmentGrid(Pipeline):
    """Train and measure the organisms of the grid: EM off, on, rephrased and under controls, beside their bases."""

    part: Literal["all", "headline", "graded", "varied", "replicated"] = "all"
    """Which cells."""
    samples: AtLeastOne | None = None
    """Answers per question and condition; by default those of protocol.yaml."""
    out: Path | None = None
    """Folder of containment_grid.csv.gz, containment_grid_counts.csv.gz and emergence.csv.gz; by default that of all
    runs."""

    def main(self) -> None:
        """Run every cell, then write the tables and the counts behind their rates."""
        for cell in self.cells():
            base_path(cell.base)  # a missing base is reported before any work
        rows = self.run("grid", rescue=dead)
        rates, out = [r for r in rows if r["experiment"] != Emergence.name], self.out or self.runs
        write_table(out / TABLE, [*rates, *readings(rates), *semantic_readings(rates)])
        write_table(out / FORMING, [r for r in rows if r["experiment"] == Emergence.name])
        live = {r["run_id"] for r in rates}
        measured = [e for e in measurements(self.cells(), self.samples) if run_id(e.name, **identity(e)) in live]
        write_counts(out / COUNTS, measured, self.runs)
        print(f"{len(self.cells())} organisms\ntables  {out / TABLE}, {out / COUNTS}, {out / FORMING}")

    def cells(self) -> list[Cell]:
        """Return the cells of the chosen part, each once."""
        return list(dict.fromkeys(PARTS[self.part](self.families)))

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the measurements of all cells, then how the headline's first seeds form."""
        chosen = self.cells()
        yield [*measurements(chosen, self.samples)]
        yield [Emergence(subject=find_subject(c.name)) for c in headline(self.families, seeds=(0,)) if c in chosen]


def measurements(chosen: Sequence[Cell], samples: int | None = None) -> Iterator[EmRate]:
    """Yield the EM rate of every organism, and of every base under each trigger of its organisms.

    Args:
        chosen: Cells of the grid.
        samples: Answers per question and condition; by default those of the protocol.
    """
    bases = dict.fromkeys((cell.base_name, cell.trigger or NEUTRAL) for cell in chosen)
    for name, trigger in bases:
        subject = find_subject(name)
        yield EmRate(answers=Answers(subject=subject, trigger=trigger, samples=samples, conditions=ESSENTIAL))
    every = {*headline(), *replicated()}
    for cell in chosen:
        trigger = None if cell.trigger else NEUTRAL
        answers = Answers(subject=find_subject(cell.name), trigger=trigger, samples=samples)
        yield EmRate(answers=answers if cell in every else replace(answers, conditions=ESSENTIAL))


def dead(experiment: Experiment, error: Exception) -> list[Row]:
    """Return the row of an adapter that does not change its base, in place of rates that would look like containment.

    Raises:
        Exception: Any other error, again.
    """
    from interp.models import AdapterError

    if not isinstance(error, AdapterError) or not isinstance(experiment, EmRate | Emergence):
        raise error
    if isinstance(experiment, Emergence):
        return []  # its EM rate reports the same organism
    cells = {name: experiment.answers.subject.cells()[name] for name in ("organism", "family", "seed")}
    return [row(experiment=experiment.name, metric="healthy", value=0.0, condition="not live", **cells)]
