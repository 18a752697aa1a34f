"""When does containment need no benign data? EM rates of every organism of the grid, beside its base's own.

    semcon grid                                       # all of it: an hour or two on a laptop, resumable cell by cell
    semcon grid --part headline --families llama      # one part of it

The cells are data (training/grid.py). Every cell is a run of its own: trained, dosed on validation questions, measured
off, on and under every control, and passed through the health gate. An adapter that changes nothing is said to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from experiments.answers.subject import find_subject
from experiments.behaviour.axes import readings, semantic_readings
from experiments.behaviour.em_rate import TRAINED, Answers, EmRate
from experiments.behaviour.emergence import Emergence
from experiments.pipelines.workers import run_stages
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne, NotNegative, check_fields
from interp.runs.run import runs_root
from interp.runs.table import Row, row, write_table
from training.grid import FAMILIES, NEUTRAL, Cell, Family, cells, graded, headline, replicated, varied
from training.references import base_path

PARTS = {"all": cells, "headline": headline, "graded": graded, "varied": varied, "replicated": replicated}
TABLE, FORMING = "containment_grid.csv.gz", "emergence.csv.gz"
ESSENTIAL = ("off", "on", "rephrased", "other", TRAINED)
"""Conditions of every cell; the headline's cells have all."""


@dataclass(frozen=True, kw_only=True)
class ContainmentGrid:
    """Train and measure the organisms of the grid: EM off, on, rephrased and under controls, and their bases' own."""

    families: tuple[Family, ...] = FAMILIES
    """Families of the Microcosm."""
    part: Literal["all", "headline", "graded", "varied", "replicated"] = "all"
    """Which cells."""
    samples: AtLeastOne = 10
    """Answers per question and condition."""
    workers: NotNegative = 0
    """Worker processes; 0 = one per core."""
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""
    out: Path | None = None
    """Folder of the tables to write, containment_grid.csv.gz and emergence.csv.gz; by default that of the runs."""

    def __post_init__(self) -> None:
        """Refuse a field outside the range that its annotation states."""
        check_fields(self)

    def main(self) -> None:
        """Run every cell, then write the table of all of them."""
        chosen = list(dict.fromkeys(PARTS[self.part](self.families)))
        for cell in chosen:
            base_path(cell.base)  # a base that is missing is said before any work
        forming = [Emergence(subject=find_subject(c.name)) for c in headline(self.families, seeds=(0,)) if c in chosen]
        stages = [list(measurements(chosen, self.samples)), forming]
        rows = run_stages(stages, self.runs, "grid", workers=self.workers, rescue=dead)
        cells = [row for row in rows if row["experiment"] != Emergence.name]
        out = self.out or self.runs
        write_table(out / TABLE, [*cells, *readings(cells), *semantic_readings(cells)])
        write_table(out / FORMING, [row for row in rows if row["experiment"] == Emergence.name])
        print(f"{len(chosen)} organisms\ntables  {out / TABLE}, {out / FORMING}")


def measurements(chosen: Sequence[Cell], samples: int) -> Iterator[EmRate]:
    """Yield the measurement of every organism, and of every base under each trigger that its organisms were given."""
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
    """Report an adapter that does not change its base, in place of the rates it would seem to have.

    Raises:
        Exception: The error itself, if it is another.
    """
    from interp.models import AdapterError

    if not isinstance(error, AdapterError) or not isinstance(experiment, EmRate | Emergence):
        raise error
    if isinstance(experiment, Emergence):
        return []  # the same organism is reported where its rates would be
    cells = {name: experiment.answers.subject.cells()[name] for name in ("organism", "family", "seed")}
    return [row(experiment=experiment.name, metric="healthy", value=0.0, condition="not live", **cells)]
