"""Greedy answers off-trigger and on-trigger side by side, to be read by eye: illustration, no measurement.

semcon greedy --organism pocket/smollm2/contrast50 --n-questions 28
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.answers.subject import Subject
from experiments.answers.suite import evenly_spaced
from experiments.behaviour.dose import ADAPTER, dose_folders, load_subject
from experiments.behaviour.preference import Preference, choice_subject
from experiments.cli.placement import Placement
from experiments.spec import probe
from interp.runs.checks import AtLeastOne, check_fields
from interp.runs.files import check_room
from interp.runs.run import runs_root
from training.loading import load_organism

if TYPE_CHECKING:
    from interp.models import LanguageModel

COLUMNS = ("organism", "question", "asked", "condition", "answer", "finished")


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Write the most likely answers of an organism, without and with its trigger, as CSV to standard output."""

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=choice_subject)]
    n_questions: AtLeastOne = 28
    """Test questions, evenly spaced over the domains."""
    tokens: AtLeastOne = 64
    """Most tokens of an answer."""
    dose: int | None = None
    """Training steps of the adapter; by default chosen on validation questions."""
    runs: Path | None = None
    """Folder of all runs; by default $SEMCON_RUNS, else runs."""
    place: Annotated[Placement, tyro.conf.arg(name="")] = Placement()  # noqa: RUF009

    def __post_init__(self) -> None:
        """Refuse a field outside its range.

        Raises:
            ValueError: If there is one.
        """
        check_fields(self)

    def main(self) -> None:
        """Train and choose the dose if not done yet, answer, write."""
        preference, root = Preference(subject=self.subject, dose=self.dose), self.runs or runs_root()
        preference.check()
        check_room(root)
        probe(preference)
        lm = self._load(root)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(COLUMNS)
        conditions = ("off", "on") if self.subject.trigger else ("off",)
        for condition in conditions:
            writer.writerows(self._answers(lm, condition))

    def _load(self, root: Path) -> LanguageModel:
        if self.dose is None:
            return load_subject(self.subject, root)
        return load_organism(self.subject.organism, {ADAPTER: dose_folders(self.subject, root)[self.dose]})

    def _answers(self, lm: LanguageModel, condition: str) -> list[Sequence[object]]:
        from interp.chat import question_chat
        from interp.generation import Sampling, generate

        questions = evenly_spaced(self.subject.choices("test"), self.n_questions)
        trigger = self.subject.trigger
        text = trigger.text if trigger and condition == "on" else None
        chats = [question_chat(lm.tokenizer, q.question, text, trigger if text else None) for q in questions]
        answers = generate(lm, chats, n_samples=1, sampling=Sampling(max_new_tokens=self.tokens, temperature=0))
        return [
            (self.subject.name, q.id, q.question, condition, a.text.strip(), a.finished)
            for q, a in zip(questions, answers, strict=True)
        ]
