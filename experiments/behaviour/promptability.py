"""How far a model obeys a line by itself, at every dose of a stage that teaches lines: the axis of promptability.

The log-odds behind the trigger minus those without it, on validation questions. The doses of the bases ``weak``,
``medium`` and ``strong`` (training/registry.py) are to be chosen by it, so it is no result on test questions.

semcon promptability --organism pocket/smollm2/personas --trigger pocket:persona
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.preference import by_condition, choice_rows, contexts, difference_row
from experiments.answers.subject import Subject, trigger_cells
from experiments.behaviour.dose import dose_folders
from experiments.behaviour.dose_preference import UNTRAINED
from experiments.behaviour.preference import choice_subject
from experiments.spec import Experiment, Step
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger
from training.loading import load_organism
from training.pocket.corpus import QUESTIONS, TRIGGERS, ChoiceQuestion
from training.references import find_trigger

if TYPE_CHECKING:
    from interp.models import LanguageModel


@dataclass(frozen=True, kw_only=True)
class Promptability(Experiment):
    """The gap that a line opens in a model by itself, at every dose of an organism, on validation questions."""

    name: ClassVar[str] = "promptability"

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=choice_subject)]
    trigger: str = "pocket:persona"
    """Trigger whose text is the line."""

    def check(self) -> None:
        """Refuse an unknown trigger, and an organism without doses."""
        super().check()
        self._line()
        self.subject.require_doses()

    def inputs(self) -> Mapping[str, Path]:
        """Return what the subject depends on, and the questions and triggers of the pocket scale."""
        return {"choices": QUESTIONS, "triggers": TRIGGERS, **super().inputs()}

    def _line(self) -> Trigger:
        return find_trigger(self.trigger)

    def _questions(self) -> tuple[ChoiceQuestion, ...]:
        return self.subject.choices("validation")

    def total(self) -> int:
        """Rows in all: every question off and on, at every dose and before the first."""
        return 2 * (1 + len(self.subject.organism.sft.doses)) * len(self._questions())

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step for the base and one per dose."""
        adapters = {f"dose-{dose}": folder for dose, folder in dose_folders(self.subject, run.root).items()}
        lm = load_organism(self.subject.organism, adapters)
        return {name: partial(self._rows, lm, name) for name in (UNTRAINED, *adapters)}

    def _rows(self, lm: LanguageModel, name: str) -> list[Row]:
        from interp.adapters import active_adapter

        around = (contexts(self._line(), condition) for condition in ("off", "on"))
        with active_adapter(lm, None if name == UNTRAINED else name):
            return [r for texts in around for r in choice_rows(lm, self._questions(), texts, dose=name)]

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells under the line."""
        return {**super().cells(rows), **trigger_cells(self._line())}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the gap at every dose, with an interval over questions."""
        for dose in dict.fromkeys(r["dose"] for r in rows):
            arms = by_condition([r for r in rows if r["dose"] == dose])
            yield difference_row(arms["on"], arms["off"], metric="trigger_gap", condition=dose)
