"""Every mechanism experiment on the organisms of the phase diagram: directions, removal, steering, patching, probes.

    semcon mechanism                                  # an hour on two cores after the grid; resumable run by run
    semcon mechanism --families llama --seeds 0       # a part of it

The organisms: contained (``explaining``), not contained (``neutral``), contained by benign contrast
(``neutral.contrast50``) and, for one seed, partly contained (``explaining.robust``: the same data on a base that does
not follow the persona line). Steering, probes and patching are costly and vary little between seeds, so they are run
for the first seed only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from experiments.pipelines.workers import Pipeline
from experiments.probing.sweep import ProbeSweep
from experiments.probing.transfer import ProbeTransfer
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment
from interp.runs.checks import AtLeastOne
from interp.runs.table import Row, write_table
from training.grid import Cell
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
"""Metrics that have one row per question."""


@dataclass(frozen=True, kw_only=True)
class Mechanism(Pipeline):
    """Where the trigger is read and how it opens the gate: every mechanism experiment on every organism."""

    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0, 1, 2)
    """Fine-tuning seeds; the first has every experiment."""
    samples: AtLeastOne = 10
    """Answers per question and edit."""
    out: Path | None = None
    """Folder of the tables to write; by default the folder of all runs."""

    def __post_init__(self) -> None:
        """Refuse a field outside its range, a value named twice, and seeds that the grid lacks."""
        super().__post_init__()
        names = (*self.organisms(self.seeds), *self._names(RANK_ONE, self.seeds[:1]))
        if missing := [name for name in names if name not in ORGANISMS]:
            raise ValueError(f"seeds {', '.join(map(str, self.seeds))}: the grid has no {missing[0]}")

    def main(self) -> None:
        """Run everything, then write the tables."""
        out = self.out or self.runs
        rows = self.run("mechanism")
        behaviour = [r for r in rows if r["experiment"] == EmRate.name]
        geometry = [r for r in rows if r["experiment"] == Geometry.name]
        rows += [*compared(self._members()), *families(geometry), *predicted(geometry, behaviour)]
        for name, experiments in TABLES.items():
            write_table(out / name, [r for r in rows if r["experiment"] in experiments and self._tabled(r)])
        print("\n".join(f"table  {out / name}" for name in TABLES))

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield the doses, then directions and EM rates, then everything that reads them."""
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
            *(EmRate(answers=Answers(subject=subject)) for subject in (*every, *singles)),  # read by sweeps and patches
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
        """Return the triggered organisms under study; the partly contained one only with the first seed."""
        partly = [PARTLY] if self.seeds[0] in seeds else []
        return [*self._names(ARMS, seeds), *self._names(partly, self.seeds[:1])]

    def _names(self, arms: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [name for arm in arms for f in self.families for name in self._of(f, (arm,), seeds)]

    def _sweep(self, subject: Subject) -> ProbeSweep:
        """Return the sweep of an organism; only explaining ones are swept at every site with every kind of probe."""
        everything = subject.name.endswith("/explaining")
        sites = ("resid_pre.0", "resid_post", "attn_out", "mlp_out") if everything else ("resid_pre.0", "resid_post")
        fits = ("logistic", "ridge", "lda", "mean_difference") if everything else ("logistic",)
        return ProbeSweep(subject=subject, sites=sites, positions=("trigger", "question", "last_prompt"), fits=fits)

    def _transfers(self) -> Iterator[ProbeTransfer]:
        """Yield one transfer per family: between seeds, between triggers, and between adapter on and off."""
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
            write = write_directions(lora_updates(adapter))
            members.append(Member(name, subject.organism.family, arm, subject.organism.seed, directions, write))
        return members

    def _tabled(self, row: Row) -> bool:
        """Tell whether a row belongs in a table; the many projections of single questions only for the first seed."""
        return row["metric"] not in PROJECTIONS or row["seed"] == self.seeds[0]
