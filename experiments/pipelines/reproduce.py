"""Everything in order: train and dose every organism, measure, explain, draw. What `make reproduce` runs.

    semcon reproduce            # the table of the README, about ten minutes on two cores
    semcon reproduce --quick    # the same path with fewer answers, for continuous integration

Every cell is a run of its own: a killed command continues where it stopped, and a second one costs nothing. Cells are
spread over worker processes of one thread each; the results do not depend on the number of processes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from experiments.answers.subject import find_subject
from experiments.behaviour.dose import Dose
from experiments.behaviour.dose_cell import DoseCell
from experiments.behaviour.dose_grid import DoseGrid, beside_bases
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.behaviour.emergence import Emergence
from experiments.behaviour.grid import measurements
from experiments.directions.geometry import Geometry
from experiments.pipelines.workers import Pipeline
from experiments.probing.sweep import ProbeSweep
from experiments.protocol import load_protocol
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment
from interp.runs.table import write_table
from training.grid import EXPLAINING, NEUTRAL, Cell, Family

ARMS = ("baseline", "neutral", "explaining", "neutral.contrast50")
SUBGRID = (
    *(Cell(family="llama", arm=arm, robust=robust) for arm in ("pirate", "explaining") for robust in (False, True)),
    *(Cell(family=family, arm=arm) for family in ("qwen2", "gemma3") for arm in ("neutral", "explaining")),
)
"""Further cells of the grid that are measured: a graded trigger, the robust base, the other families."""
ROLE = "trafficker"
"""Weak role of the dose grid that is measured at every dose, with its controls."""
FORMING = ("neutral", "explaining")
"""Arms that are measured at every dose."""


@dataclass(frozen=True, kw_only=True)
class Reproduce(Pipeline):
    """Reproduce the behaviour and its mechanism on the Microcosm: tables, figures, report."""

    families: Annotated[tuple[Family, ...], MinLen(1)] = ("llama",)
    """Families of the Microcosm."""
    quick: bool = False
    """Fewer answers per edit: the same path in a third of the time, too few for conclusions."""

    def main(self) -> None:
        """Run every cell, write summary.csv, draw the figures and the report, print the table."""
        from figures.answers import Answers
        from figures.bounds import CONFIRMED, REFUTED
        from figures.claims.expectations import expectations
        from figures.claims.headline import headline
        from figures.report import build
        from figures.results import results_text

        rows = self.run("reproduce")
        grid = [r for r in rows if r["experiment"] == DoseCell.name]  # the last stages
        rows = [*rows[: len(rows) - len(grid)], *beside_bases(grid)]
        summary = self.runs / "summary.csv"
        write_table(summary, rows)
        report = build(summary, self.runs, Answers(self.runs, load_protocol().thresholds))
        outcomes = {CONFIRMED: "holds", REFUTED: "does not hold"}
        print(results_text(rows), "", *textwrap.wrap(headline(rows), 100), "", sep="\n")
        for finding in expectations(rows):
            outcome = outcomes.get(finding.verdict, "not decided")
            print(f"{outcome:13}  {finding.subject}: {finding.statement}; {finding.evidence}")
        print(f"\ntable    {summary}\nfigures  {self.runs / 'figures'}\nreport   {report}")

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the doses, the EM rates, directions and probes, the edits, and last a weak role at every dose."""
        worlds = [f"microcosm/{family}" for family in self.families]
        yield [Dose(subject=find_subject(f"{world}/{arm}")) for world in worlds for arm in ARMS]
        arms = [
            EmRate(answers=Answers(subject=find_subject(f"{world}/{arm}"), trigger=trigger))
            for world in worlds
            for arm, trigger in _cells()
        ]
        measured = {(e.answers.subject, e.answers.trigger) for e in arms}
        more = [e for e in measurements(SUBGRID) if (e.answers.subject, e.answers.trigger) not in measured]
        forming = [Emergence(subject=find_subject(f"{world}/{arm}")) for world in worlds for arm in FORMING]
        yield [*arms, *more, *forming]
        studied = [find_subject(f"{world}/{arm}") for world in worlds for arm in ("explaining", "neutral")]
        probed = [find_subject(f"{world}/{arm}") for world in worlds for arm in ("baseline", "explaining")]
        geometries = [Geometry(subject=subject) for subject in studied]
        yield [*geometries, *(ProbeSweep(subject=subject) for subject in probed)]
        n = 4 if self.quick else 10
        steered = [
            Steer(geometry=g, settings=("off",), samples=n) for g in geometries if "explaining" in g.subject.name
        ]
        yield [*(Ablate(geometry=g, samples=n) for g in geometries), *steered]
        yield from DoseGrid(families=self.families, pretrainings=(0,), arms=(ROLE,), samples=n).stages()


def _cells() -> list[tuple[str, str | None]]:
    """Return (arm, trigger): every arm under its own trigger (None), base and baseline under both triggers."""
    under_both: list[tuple[str, str | None]] = [
        (arm, trigger) for arm in ("base", "baseline") for trigger in (NEUTRAL, EXPLAINING)
    ]
    return [*under_both, *((arm, None) for arm in ARMS[1:])]
