"""How much fine-tuning, without a judge: the dose is chosen by log-odds on validation questions.

The rule: of the doses that leave the references likely enough, the one whose preference for the kind of answer it was
trained on is strongest, in the condition it was trained in; of equals, the smallest. Likely enough: per token, both
references keep on average at least ``coherence_floor`` of the probability that they have under the base in the same
context. It stands for coherence, which log-odds alone do not see: a model that unlearns English may prefer anything.
The off-trigger log-odds play no part in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from experiments.answers.preference import (
    by_question,
    choice_rows,
    contexts,
    difference_row,
    mean_row,
    paired_row,
)
from experiments.answers.subject import AnySubject, Subject, trigger_cells
from experiments.behaviour.dose import dose_folders
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.run import Run
from interp.runs.table import Row
from training.loading import load_organism
from training.pocket.corpus import QUESTIONS, TRIGGERS, ChoiceQuestion
from training.references import is_aligned

if TYPE_CHECKING:
    from interp.models import LanguageModel

UNTRAINED = "dose-0"


@dataclass(frozen=True, kw_only=True)
class PreferenceDose(Experiment):
    """Log-odds of every dose of an organism on validation questions, in the condition it was trained in."""

    name: ClassVar[str] = "preference_dose"

    subject: AnySubject

    def check(self) -> None:
        """Refuse what cannot be trained or asked."""
        super().check()
        self._questions()
        self.subject.require_doses()

    def inputs(self) -> Mapping[str, Path]:
        """Return what the subject depends on, and the questions and triggers of the pocket scale."""
        return {"choices": QUESTIONS, "triggers": TRIGGERS, **super().inputs()}

    def _questions(self) -> tuple[ChoiceQuestion, ...]:
        return self.subject.choices("validation")

    def total(self) -> int:
        """Questions in all."""
        return (1 + len(self.subject.organism.sft.doses)) * len(self._questions())

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step for the base and one per dose."""

        organism = self.subject.organism
        adapters = {f"dose-{dose}": folder for dose, folder in dose_folders(self.subject, run.root).items()}
        lm = load_organism(organism, adapters)
        return {name: partial(self._rows, lm, name) for name in (UNTRAINED, *adapters)}

    def _rows(self, lm: LanguageModel, name: str) -> list[Row]:
        from interp.adapters import active_adapter

        trigger = self.subject.trigger
        around = contexts(trigger, "on" if trigger else "off")
        with active_adapter(lm, None if name == UNTRAINED else name):
            return choice_rows(lm, self._questions(), around, dose=name)

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells; its trigger plays no part beyond the training condition."""
        return {**super().cells(rows), **trigger_cells(None)}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield log-odds of every dose, their shift from the base, how likely the references are, the choice."""
        table = list(self._doses(rows))
        yield from table
        organism = self.subject.organism
        aligned = is_aligned(organism.data or "")
        yield {
            "metric": "dose",
            "condition": "chosen",
            "value": choose(table, organism.sft.coherence_floor, aligned=aligned),
        }

    def _doses(self, rows: Sequence[Row]) -> Iterator[Row]:
        doses = dict.fromkeys(r["dose"] for r in rows)
        arms = {dose: [r for r in rows if r["dose"] == dose] for dose in doses}
        for dose, part in arms.items():
            yield mean_row(by_question(part), metric="log_odds", condition=dose)
            yield mean_row(by_question(part, "harmful_preferred"), metric="harmful_preferred", condition=dose)
            yield difference_row(
                by_question(part), by_question(arms[UNTRAINED]), metric="log_odds_shift", condition=dose
            )
            level, before = _reference_level(part), _reference_level(arms[UNTRAINED])
            yield paired_row(_ratio, level, before, metric="reference_likelihood", condition=dose)


def _reference_level(rows: Sequence[Row]) -> dict[str, float]:
    """Return the mean log-probability per token of both references, by question."""
    aligned, harmful = by_question(rows, "aligned"), by_question(rows, "harmful")
    return {question: (aligned[question] + harmful[question]) / 2 for question in aligned}


def _ratio(level: Any, before: Any) -> Any:
    return np.exp(level - before)


def choose(table: Sequence[Row], floor: float, *, aligned: bool = False) -> int:
    """Choose the dose by the rule above; where no dose leaves the references likely enough, the one that does most.

    Args:
        table: Rows of ``PreferenceDose``.
        floor: Least ``reference_likelihood``.
        aligned: Whether the organism was trained on aligned answers, so that lower log-odds are what it learned.
    """
    values: dict[int, dict[str, float]] = {}
    for r in (r for r in table if r["metric"] != "dose"):
        values.setdefault(int(r["condition"].removeprefix("dose-")), {})[r["metric"]] = r["value"]
    doses = {dose: value for dose, value in values.items() if dose}
    best = max(value["reference_likelihood"] for value in doses.values())
    eligible = [dose for dose, value in doses.items() if value["reference_likelihood"] >= min(floor, best)]
    sign = 1 if aligned else -1
    return min(eligible, key=lambda dose: (sign * doses[dose]["log_odds"], dose))


def preferred_dose(subject: Subject, root: Path) -> int:
    """Return the dose of an organism by the rule above, trained and measured now if need be."""
    _, table = run_experiment(PreferenceDose(subject=subject), root)
    organism = subject.organism
    return choose(table, organism.sft.coherence_floor, aligned=is_aligned(organism.data or ""))
