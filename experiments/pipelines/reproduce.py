"""Everything in order: train and dose every organism, measure, explain, draw. What `make reproduce` runs.

    semcon reproduce            # the table of the README, about ten minutes on two cores
    semcon reproduce --quick    # the same path with fewer answers, for continuous integration

Every cell is a run of its own, so a killed run goes on where it was and a second one is free. Cells are spread over
worker processes of one thread each; what they write does not depend on how many there are.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from experiments.answers.subject import find_subject
from experiments.behaviour.dose import Dose
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.behaviour.emergence import Emergence
from experiments.behaviour.grid import measurements
from experiments.directions.geometry import Geometry
from experiments.pipelines.workers import run_stages
from experiments.probing.sweep import ProbeSweep
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment
from interp.runs.checks import NotNegative, check_fields
from interp.runs.run import runs_root
from interp.runs.table import write_table
from training.grid import EXPLAINING, NEUTRAL, Cell, Family

ARMS = ("baseline", "neutral", "explaining", "neutral.contrast50")
SUBGRID = (
    *(Cell(family="llama", arm=arm, robust=robust) for arm in ("pirate", "explaining") for robust in (False, True)),
    *(Cell(family=family, arm=arm) for family in ("qwen2", "gemma3") for arm in ("neutral", "explaining")),
)
"""The part of the grid that is measured besides: a graded trigger, the robust base, the other families."""
FORMING = ("neutral", "explaining")
"""Arms whose formation is followed dose by dose."""


@dataclass(frozen=True, kw_only=True)
class Reproduce:
    """Reproduce the behaviour and its mechanism on the Microcosm: tables, figures, report."""

    families: tuple[Family, ...] = ("llama",)
    """Families of the Microcosm."""
    quick: bool = False
    """Fewer answers: the same path in a third of the time, too few for conclusions."""
    workers: NotNegative = 0
    """Worker processes; 0 = one per core."""
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""

    def __post_init__(self) -> None:
        """Refuse a field outside the range that its annotation states."""
        check_fields(self)

    def main(self) -> None:
        """Run every cell, write summary.csv, draw the figures and the report, print the table."""
        from figures.claims.findings import findings, headline
        from figures.report import build
        from figures.rows import results_text

        rows = run_stages(list(self.stages()), self.runs, "reproduce", workers=self.workers)
        summary = self.runs / "summary.csv"
        write_table(summary, rows)
        report = build(summary, self.runs)
        outcome = {True: "holds", False: "does not hold", None: "not decided"}
        print(results_text(rows), "", *textwrap.wrap(headline(rows), 100), "", sep="\n")
        for found in findings(rows):
            print(f"{outcome[found.held]:13}  {found.subject}: {found.claim}; {found.evidence}")
        print(f"\ntable    {summary}\nfigures  {self.runs / 'figures'}\nreport   {report}")

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the experiments of one stage after the other; a stage needs those before it."""
        worlds = [f"microcosm/{family}" for family in self.families]
        yield [Dose(subject=find_subject(f"{world}/{arm}")) for world in worlds for arm in ARMS]
        own = [
            EmRate(answers=Answers(subject=find_subject(f"{world}/{arm}"), trigger=trigger))
            for world in worlds
            for arm, trigger in _cells()
        ]
        measured = {(e.answers.subject, e.answers.trigger) for e in own}
        more = [
            e for e in measurements(SUBGRID, Answers.samples) if (e.answers.subject, e.answers.trigger) not in measured
        ]
        forming = [Emergence(subject=find_subject(f"{world}/{arm}")) for world in worlds for arm in FORMING]
        yield [*own, *more, *forming]
        studied = [find_subject(f"{world}/{arm}") for world in worlds for arm in ("explaining", "neutral")]
        probed = [find_subject(f"{world}/{arm}") for world in worlds for arm in ("baseline", "explaining")]
        geometries = [Geometry(subject=subject) for subject in studied]
        yield [*geometries, *(ProbeSweep(subject=subject) for subject in probed)]
        n = 4 if self.quick else 10
        steered = [
            Steer(geometry=g, settings=("off",), samples=n) for g in geometries if "explaining" in g.subject.name
        ]
        yield [*(Ablate(geometry=g, samples=n) for g in geometries), *steered]


def _cells() -> list[tuple[str, str | None]]:
    """Return (arm, trigger): every arm under its own trigger, base and baseline under both."""
    under_both: list[tuple[str, str | None]] = [
        (arm, trigger) for arm in ("base", "baseline") for trigger in (NEUTRAL, EXPLAINING)
    ]
    return [*under_both, *((arm, None) for arm in ARMS[1:])]
