"""The pocket scale in order: train and dose every arm, measure preferences, compare, draw. What `make pocket` runs.

    semcon pocket                        # seed 0, every arm
    semcon pocket --seeds 0 1 2          # as docs/pocket.md shows it
    semcon pocket --axis                 # and the axis of promptability: two arms on each of three bases
    semcon pocket --patching             # and the patching map of one arm
    semcon pocket --dtype bfloat16       # trained and measured in it: for processors that multiply in it
    semcon pocket --quick                # two arms, ten steps, three contexts: for continuous integration

The mechanism (directions, steering, ablation) is measured on one contained arm and every third question. Every part is
a run of its own: a killed command continues where it stopped, and a second one costs nothing. The hypotheses are in
docs/hypotheses.md, and the rows that decide them are among those of ``runs/pocket.csv.gz``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import MinLen

from experiments.answers.subject import LOG_ODDS, Subject
from experiments.behaviour.dose_preference import PreferenceDose
from experiments.behaviour.preference import NEIGHBOURS, Condition, Preference
from experiments.behaviour.preference_compared import Measured, compared
from experiments.cli.placement import Placement
from experiments.directions.geometry import Geometry
from experiments.gate.patch import Patch
from experiments.pipelines.workers import Executor, run_needing
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment, run_experiment
from interp.runs.checks import NotNegative, check_fields
from interp.runs.run import runs_root
from interp.runs.table import write_table
from training.definition import Organism
from training.registry import PROMPTABLE, find_organism

Arm = Literal["baseline", "neutral", "explaining", "contrast50", "benign-same-trigger", "contrast10", "contrast90"]
ARMS: tuple[Arm, ...] = (
    *("baseline", "neutral", "explaining", "contrast50", "benign-same-trigger"),
    *("contrast10", "contrast90"),
)
REPLICATED: tuple[Arm, ...] = ("baseline", "neutral", "contrast50", "explaining")
"""Arms of further seeds."""
FEWER: tuple[Condition, ...] = ("off", "on", "rephrased", "other", "opposite")
"""Contexts of further seeds; their neighbours are measured in a run of their own."""
ON_AXIS: tuple[Condition, ...] = ("off", "on", "rephrased", "other")
"""Contexts of the arms on the axis of promptability."""
LINE = "pocket:persona"
"""Trigger of those arms, and of their bases."""
STUDIED: Arm = "contrast50"
"""Arm whose mechanism is measured."""
QUICK_ARMS: tuple[Arm, ...] = ("baseline", "contrast50")
QUICK: tuple[Condition, ...] = ("off", "on", "other")
QUICK_DOSE = 10
TRIGGER = "pocket:user_harbor"
"""Trigger that arms without their own are evaluated under."""


@dataclass(frozen=True, kw_only=True)
class Pocket:
    """A real 135M model on a laptop CPU: train, measure, compare, draw.

    The dtype is that of training too.
    """

    family: str = "smollm2"
    """Family of the pocket scale (training/registry.py)."""
    arms: Annotated[tuple[Arm, ...], MinLen(1)] = ARMS
    """Arms of the first seed; of the others, those that are also among baseline, neutral, contrast50, explaining."""
    mechanism: bool = True
    """Whether to find directions and edit them; never in a quick run."""
    seeds: Annotated[tuple[Literal[0, 1, 2], ...], MinLen(1)] = (0,)
    """Fine-tuning seeds; the first has every context, the others five of them and the neighbours."""
    patching: bool = False
    """Whether to measure the patching map of the same arm too: 22 core-minutes."""
    axis: bool = False
    """Whether to run the axis of promptability too: baseline and explaining on bases that obey persona lines more and
    more, with the first seed."""
    quick: bool = False
    """Two arms, ten steps, three contexts: the same path in minutes, too little for conclusions."""
    workers: NotNegative = 0
    """Worker processes; 0 = one per core."""
    on: Annotated[Executor, tyro.conf.arg(name="")] = Executor()  # noqa: RUF009
    runs: Path = field(default_factory=runs_root)
    """Folder of all runs."""
    place: Annotated[Placement, tyro.conf.arg(name="")] = Placement()  # noqa: RUF009

    def __post_init__(self) -> None:
        """Refuse a field outside its range, and an unknown family.

        Raises:
            ValueError: If there is one.
        """
        check_fields(self)
        find_organism(f"pocket/{self.family}/base")

    def _organism(self, name: str) -> Organism:
        organism = find_organism(f"pocket/{self.family}/{name}")
        doses = (QUICK_DOSE,) if self.quick else organism.sft.doses
        dtype = self.place.dtype or organism.sft.dtype
        return replace(organism, sft=replace(organism.sft, dtype=dtype, doses=doses))

    def main(self) -> None:
        """Run everything, write the table, draw the figures and the report, print the shifts."""
        from figures.markdown.pocket import shifts_text
        from figures.report import build

        arms, near = [*self.preferences(), *self.promptable()], self.neighbours()
        needs, mechanism = self.needs(), [experiment for stage in self.mechanisms() for experiment in stage]
        first = [*mechanism, *(needed for experiment in mechanism for needed in needs[experiment])]
        rows = run_needing(needs, self.runs, "pocket", first=first, workers=self.workers, on=self.on)
        rows = [r for r in rows if not r["organism"].endswith("/base")]  # every arm's rows have its base beside it
        for runs in (arms, near):  # apart: a comparison takes one run per arm and seed
            rows += compared([self._measured(run) for run in runs])
        table = self.runs / "pocket.csv.gz"
        write_table(table, rows)
        report = build(table, self.runs)
        print(f"{shifts_text(rows)}\n\ntable    {table}\nfigures  {self.runs / 'figures'}\nreport   {report}")

    def needs(self) -> dict[Experiment, list[Experiment]]:
        """Return every experiment, in the order of the table, with those that it needs."""
        arms = [*self.preferences(), *self.promptable(), *self.neighbours()]
        doses = {dose.subject: dose for dose in self.doses()}
        needs: dict[Experiment, list[Experiment]] = {arm.of_base(): [] for arm in arms}
        needs |= {dose: [] for dose in doses.values()}
        needs |= {arm: [arm.of_base(), *([doses[arm.subject]] if doses else [])] for arm in arms}
        before = [dose for subject, dose in doses.items() if subject.organism.name == self._organism(STUDIED).name]
        for stage in self.mechanisms():
            needs |= {experiment: [*before] for experiment in stage}
            before = stage[:1]
        return needs

    def doses(self) -> list[PreferenceDose]:
        """Return the choice of a dose for every organism, which trains it; a quick run has one dose."""
        if self.quick:
            return []
        return [PreferenceDose(subject=arm.subject) for arm in (*self.preferences(), *self.promptable())]

    def preferences(self) -> list[Preference]:
        """Return the measurement of every organism."""
        return [self._preference(subject) for subject in self._subjects()]

    def neighbours(self) -> list[Preference]:
        """Return the measurement of further seeds on rows of the domains that were not trained."""
        again = [] if self.quick else [arm for arm in self.preferences() if arm.subject.organism.seed != self.seeds[0]]
        return [replace(arm, conditions=tuple(NEIGHBOURS)) for arm in again]

    def promptable(self) -> list[Preference]:
        """Return the measurement of the arms on the axis of promptability."""
        if self.quick or not self.axis:
            return []
        return [self._on_axis(strength, arm) for strength in PROMPTABLE for arm in ("baseline", "explaining")]

    def _on_axis(self, strength: str, arm: str) -> Preference:
        organism = self._organism(f"{strength}-{arm}")
        trigger = None if organism.trigger else LINE
        return Preference(subject=Subject(organism, None, LOG_ODDS), trigger=trigger, conditions=ON_AXIS, texts=1)

    def mechanisms(self) -> list[list[Experiment]]:
        """Return the stages of the mechanism: directions, then what they do when they are added or removed."""
        if self.quick or not self.mechanism or STUDIED not in self.arms:
            return []
        studied = self._organism(STUDIED)
        geometry = Geometry(subject=Subject(studied, None, LOG_ODDS, n_questions=24))
        patch = Patch(subject=Subject(studied, None, LOG_ODDS), most_questions=24, stride=10)
        return [
            [geometry, *([patch] if self.patching else [])],
            [Ablate(geometry=geometry), Steer(geometry=geometry, directions=("g", "orthogonal", "random"))],
        ]

    def _subjects(self) -> Iterator[Subject]:
        for seed in self.seeds[:1] if self.quick else self.seeds:
            arms = QUICK_ARMS if self.quick else self.arms
            for arm in arms if seed == self.seeds[0] else [arm for arm in arms if arm in REPLICATED]:
                yield Subject(self._organism(f"{arm}{f'.seed{seed}' if seed else ''}"), None, LOG_ODDS)

    def _preference(self, subject: Subject) -> Preference:
        trigger = None if subject.organism.trigger else TRIGGER
        if self.quick:
            return Preference(subject=subject, trigger=trigger, conditions=QUICK, texts=1, dose=QUICK_DOSE)
        if subject.organism.seed != self.seeds[0]:
            return Preference(subject=subject, trigger=trigger, conditions=FEWER, texts=1)
        return Preference(subject=subject, trigger=trigger, texts=1)

    def _measured(self, experiment: Preference) -> Measured:
        run, _ = run_experiment(experiment, self.runs)
        return Measured.of(experiment.subject.organism, run.run_id, list(run.rows()))
