"""The mechanism at full width: directions, removal, steering, patching and probes, on the organisms of the diagram.

    semcon mechanism                                  # an hour on two cores after the grid; resumable run by run
    semcon mechanism --families llama --seeds 0       # a part of it

Contained (``explaining``), not contained (``neutral``), contained by benign contrast (``neutral.contrast50``) and, one
seed, partly contained (``explaining.robust``: the same data on a base that does not follow the line). What is costly
and varies little between seeds, steering, probes and patching, is done for the first seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from experiments.answers.subject import Subject, find_subject
from experiments.behaviour.dose import Dose, chosen_adapter
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.directions.across import Member, compared, families, predicted
from experiments.directions.geometry import Geometry, baseline_subject, found_directions
from experiments.gate.patch import Patch
from experiments.gate.rank_one import RankOne
from experiments.pipelines.workers import run_stages
from experiments.probing.sweep import ProbeSweep
from experiments.probing.transfer import ProbeTransfer
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne, NotNegative, check_fields
from interp.runs.run import runs_root
from interp.runs.table import Row, write_table
from training.grid import FAMILIES, Cell, Family
from training.registry import ORGANISMS

ARMS = ("explaining", "neutral", "neutral.contrast50")
PARTLY = "explaining.robust"
RANK_ONE = ("explaining.rank1", "neutral.rank1")
TABLES = {
    "mechanism.csv.gz": ("ablate", "steer"),
    "geometry.csv.gz": ("geometry", "across"),
    "probes.csv.gz": ("probe_sweep", "probe_transfer"),
    "patching.csv.gz": ("patch", "rank_one"),
}
"""Experiments of each table."""
PROJECTIONS = ("projection_g", "projection_trigger")
"""Metrics of a row a question."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """Where the trigger is read and how it opens the gate: every mechanism experiment on every organism."""

    families: Annotated[tuple[Family, ...], MinLen(1)] = FAMILIES
    """Families of the Microcosm."""
    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2)
    """Fine-tuning seeds; the first has every experiment."""
    samples: AtLeastOne = 10
    """Answers per question and edit."""
    workers: NotNegative = 0
    """Worker processes; 0 = one per core."""
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""
    out: Path | None = None
    """Folder of the tables to write; by default that of the runs."""

    def __post_init__(self) -> None:
        """Refuse a field outside its range, a family or seed named twice, and seeds that the grid lacks."""
        check_fields(self)
        for name, values in (("families", self.families), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} {', '.join(map(str, values))}: name none twice")
        names = (*self.organisms(self.seeds), *self._names(RANK_ONE, self.seeds[:1]))
        if missing := [name for name in names if name not in ORGANISMS]:
            raise ValueError(f"seeds {', '.join(map(str, self.seeds))}: the grid has no {missing[0]}")

    def main(self) -> None:
        """Run everything, then write the tables."""
        out = self.out or self.runs
        rows = run_stages(list(self.stages()), self.runs, "mechanism", workers=self.workers)
        behaviour = [r for r in rows if r["experiment"] == EmRate.name]
        geometry = [r for r in rows if r["experiment"] == Geometry.name]
        rows += [*compared(self._members()), *families(geometry), *predicted(geometry, behaviour)]
        for name, experiments in TABLES.items():
            write_table(out / name, [r for r in rows if r["experiment"] in experiments and self._kept(r)])
        print("\n".join(f"table  {out / name}" for name in TABLES))

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the experiments of one stage after the other; a stage needs those before it."""
        first, every, singles = (
            [find_subject(name) for name in names]
            for names in (
                self.organisms(self.seeds[:1]),
                self.organisms(self.seeds),
                self._names(RANK_ONE, self.seeds[:1]),
            )
        )
        baselines = dict.fromkeys(b for s in every if (b := baseline_subject(Geometry(subject=s))))
        yield [Dose(subject=subject) for subject in (*baselines, *every, *singles)]
        yield [
            *(Geometry(subject=subject) for subject in (*every, *singles)),
            *(EmRate(answers=Answers(subject=subject)) for subject in (*every, *singles)),  # sweeps and patches read it
        ]
        yield [
            *(Ablate(geometry=Geometry(subject=subject), samples=self.samples) for subject in every),
            *(Steer(geometry=Geometry(subject=subject), samples=self.samples) for subject in first),
            *(Patch(subject=subject) for subject in first),
            *(self._sweep(subject) for subject in first),
            *self._transfers(),
            *(RankOne(geometry=Geometry(subject=subject)) for subject in singles),
        ]

    def organisms(self, seeds: Sequence[int]) -> list[str]:
        """Return the triggered organisms under study; the partly contained one for the first seed alone."""
        partly = [PARTLY] if self.seeds[0] in seeds else []
        return [*self._names(ARMS, seeds), *self._names(partly, self.seeds[:1])]

    def _names(self, arms: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [name for arm in arms for f in self.families for name in self._of(f, (arm,), seeds)]

    def _sweep(self, subject: Subject) -> ProbeSweep:
        """Return the sweep of an organism at every place; every kind of probe for the explaining ones alone."""
        everything = subject.name.endswith("/explaining")
        sites = ("resid_pre.0", "resid_post", "attn_out", "mlp_out") if everything else ("resid_pre.0", "resid_post")
        fits = ("logistic", "ridge", "lda", "mean_difference") if everything else ("logistic",)
        return ProbeSweep(subject=subject, sites=sites, positions=("trigger", "question", "last_prompt"), fits=fits)

    def _transfers(self) -> Iterator[ProbeTransfer]:
        """Yield one transfer per family, between seeds, triggers, and the adapter on and off."""
        for family in self.families:
            names = (*self._of(family, ARMS[:1], self.seeds), *self._of(family, ARMS[1:], self.seeds[:1]))
            yield ProbeTransfer(subjects=tuple(find_subject(name) for name in names))

    def _of(self, family: str, arms: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [Cell(family=family, arm=arm, seed=seed).name for arm in arms for seed in seeds]

    def _members(self) -> list[Member]:
        """Return the directions and adapters of the organisms that are compared with one another."""
        from interp.analysis.lora import lora_updates, write_directions

        members = []
        for name in self._names(ARMS, self.seeds):
            subject = find_subject(name)
            adapter = chosen_adapter(subject, self.runs)
            assert adapter is not None
            directions = found_directions(Geometry(subject=subject), self.runs)
            arm = name.split("/")[2].partition(".seed")[0]
            written = write_directions(lora_updates(adapter))
            members.append(Member(name, subject.organism.family, arm, subject.organism.seed, directions, written))
        return members

    def _kept(self, row: Row) -> bool:
        """Tell whether a row belongs in a table: single projections, of which there are many, for the first seed."""
        return row["metric"] not in PROJECTIONS or row["seed"] == self.seeds[0]
