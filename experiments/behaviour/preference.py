"""The behaviour without a judge: log-odds of harmful against aligned references in every context, adapter against base.

semcon preference --organism pocket/smollm2/neutral
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from experiments.answers.preference import (
    BASE,
    ORGANISM,
    Context,
    choice_rows,
    contexts,
    preference_table,
)
from experiments.answers.subject import LOG_ODDS, Subject, TemplateOptions, find_subject, refuse_dropped, trigger_cells
from experiments.behaviour.dose import ADAPTER, chosen_adapter, dose_folders
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger
from training.data import comparison_trigger
from training.definition import Organism
from training.loading import load_organism
from training.pocket.corpus import CONTROLS, QUESTIONS, TRIGGERS, ChoiceQuestion, neighbours

if TYPE_CHECKING:
    from interp.models import LanguageModel

TRAINED, WORD_ORDER = "trained", "permuted"
PERMUTED = QUESTIONS.with_name("questions_permuted.yaml")
"""The first references: pairs of mostly the same words in another order. A control: what word order alone does."""
NEIGHBOURS = {
    "neighbours": "off",
    "neighbours_on": "on",
    "neighbours_rephrased": "rephrased",
    "neighbours_other": "other",
}
"""Contexts in which rows of the domains that were not trained are asked: more sensitive than the matched references,
and open to surface cues, since their answers are worded as freely as the training rows."""
_OF_THE_DATA = {TRAINED, *NEIGHBOURS}
"""Conditions whose questions depend on what was trained on, so that arms do not share their base's rows."""
Condition = Literal[
    "off",
    "on",
    "rephrased",
    "other",
    "opposite",
    "matched",
    "shuffled",
    "delimiters",
    "other_frame",
    "word_overlap",
    "trained",
    "permuted",
    "neighbours",
    "neighbours_on",
    "neighbours_rephrased",
    "neighbours_other",
]


def choice_subject(organism: str, questions: Path | None = None, template_option: TemplateOptions = ()) -> Subject:
    """Look up the organism under study.

    Args:
        organism: Name in the registry (training/registry.py), or the YAML file of a user-defined organism.
        questions: Questions with references (YAML, see training/pocket/questions.yaml); by default those of that file.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
    """
    return find_subject(organism, questions, LOG_ODDS, template_option)


@dataclass(frozen=True, kw_only=True)
class Preference(Experiment):
    """Log-odds of harmful against aligned references under every trigger condition, beside the base's."""

    name: ClassVar[str] = "preference"

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=choice_subject)]
    trigger: str | None = None
    """Trigger to evaluate under; by default the organism's own."""
    conditions: tuple[Condition, ...] = (
        *("off", "on", "rephrased", "other", "opposite", "matched", "other_frame", "word_overlap"),
        *("trained", "permuted", "neighbours", "neighbours_on", "neighbours_rephrased", "neighbours_other"),
    )
    """Conditions, in order. ``trained``: held-out rows of the trained domain in the training condition; ``permuted``:
    off, with references that differ in word order alone (training/pocket/questions_permuted.yaml); ``neighbours``: off,
    and in three more contexts, with rows of the training domains that the organism was not trained on."""
    texts: AtLeastOne = 2
    """Texts of a condition that each question is asked with; over all questions every text is used."""
    dose: int | None = None
    """Training steps of the adapter; by default chosen on validation questions."""

    def check(self) -> None:
        """Refuse a missing base, questions without references, a dose that there is not, or no condition at all.

        Raises:
            ValueError: If there is nothing to measure.
        """
        organism = self.subject.organism
        super().check()
        if self.dose is not None and self.dose not in self._doses():
            doses = ", ".join(map(str, self._doses())) or "none"
            raise ValueError(f"organism {organism.name}: dose {self.dose}: its doses are {doses}")
        used = self.used_conditions()
        named = self.conditions != Preference.conditions
        refuse_dropped(self.subject, self.conditions, used, named=named)

    def inputs(self) -> Mapping[str, Path]:
        """Return what the subject depends on, and the texts of the pocket scale."""
        files = {"choices": QUESTIONS, "triggers": TRIGGERS, "controls": CONTROLS, **super().inputs()}
        return files | ({"permuted": PERMUTED} if WORD_ORDER in self.conditions else {})

    def _doses(self) -> tuple[int, ...]:
        organism = self.subject.organism
        return organism.sft.doses if organism.tuned and not organism.adapter else ()

    def _reference(self) -> str | None:
        """Return the reference of the trigger to evaluate under."""
        return self.trigger or self.subject.organism.trigger

    def used_trigger(self) -> Trigger | None:
        """Return the trigger that the conditions are made of, less the rephrasings that the organism was taught."""
        return comparison_trigger(replace(self.subject.organism, trigger=self._reference()))

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return the trigger of the evaluation."""
        used = self.used_trigger()
        return (used,) if used else ()

    def used_conditions(self) -> tuple[str, ...]:
        """Return the conditions that there are texts and questions for."""
        return tuple(c for c in self.conditions if self._contexts(c) and self._questions(c))

    def _contexts(self, condition: str) -> tuple[Context, ...]:
        if condition == WORD_ORDER:
            return (Context(WORD_ORDER),)
        if condition in NEIGHBOURS:
            asked = contexts(self.used_trigger(), NEIGHBOURS[condition])
            return tuple(replace(c, condition=condition) for c in asked)
        if condition != TRAINED:
            return contexts(self.used_trigger(), condition)
        own = self.subject.trigger
        return tuple(replace(c, condition=TRAINED) for c in contexts(own, "on" if own else "off"))

    def _questions(self, condition: str) -> tuple[ChoiceQuestion, ...]:
        if condition == WORD_ORDER:  # of the pocket scale's own questions only
            own = self.subject.question_file is None
            return replace(self.subject, question_file=PERMUTED).choices("test") if own else ()
        if condition in NEIGHBOURS:
            return neighbours(self.subject.organism.data or "")
        return self.subject.choices("trained" if condition == TRAINED else "test")

    @property
    def models(self) -> int:
        """How many models are measured: the organism and its base, or a base alone."""
        return 2 if self.subject.organism.tuned else 1

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Return the number of questions and of texts of every condition."""
        return {c: (len(self._questions(c)), len(self._contexts(c))) for c in self.used_conditions()}

    def total(self) -> int:
        """Rows in all, those of the base included."""
        return self.models * sum(n * min(self.texts, texts) for n, texts in self.sizes().values())

    def of_base(self) -> Preference:
        """Return the same experiment on the base: one run for all its arms, whatever their seed and dose."""
        organism = self.subject.organism
        name = f"{organism.world}/{organism.family}/base"
        fields = {"base": organism.base, "wordings": organism.wordings, "sft": organism.sft}
        base = Organism(name=name, template_options=organism.template_options, **fields)
        subject = replace(self.subject, organism=base)
        conditions = self.conditions if self.conditions == Preference.conditions else self._without_trained()
        return replace(self, subject=subject, trigger=self._reference(), dose=None, conditions=conditions)

    def _without_trained(self) -> tuple[Condition, ...]:
        return tuple(condition for condition in self.conditions if condition != TRAINED)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return a step for the rows of the base and one per condition."""
        lm = self._load(run.root)
        conditions = self.used_conditions()
        steps = {c: partial(self._rows, lm, c, ORGANISM) for c in conditions}
        if not self.subject.organism.tuned:
            return steps
        if set(conditions) - _OF_THE_DATA:
            steps = {BASE: partial(self._base_rows, run.root), **steps}
        return steps | {f"base {c}": partial(self._rows, lm, c, BASE) for c in conditions if c in _OF_THE_DATA}

    def _load(self, root: Path) -> LanguageModel:

        organism = self.subject.organism
        dosed = dose_folders(self.subject, root)[self.dose] if self.dose is not None else None
        adapter = dosed or chosen_adapter(self.subject, root)
        return load_organism(organism, {ADAPTER: adapter} if adapter else {})

    def _rows(self, lm: LanguageModel, condition: str, model: str) -> list[Row]:
        from interp.adapters import active_adapter

        around = self._contexts(condition)
        adapter = ADAPTER if model == ORGANISM and self.subject.organism.tuned else None
        with active_adapter(lm, adapter):
            return choice_rows(lm, self._questions(condition), around, texts=self.texts, model=model)

    def _base_rows(self, root: Path) -> list[Row]:
        run, _ = run_experiment(self.of_base(), root)
        return [{**{k: v for k, v in r.items() if k not in ("key", "step")}, "model": BASE} for r in run.rows()]

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells under the trigger of the evaluation; nothing is judged."""
        trigger = self.used_trigger()
        return {**super().cells(rows), **trigger_cells(trigger), "judge": LOG_ODDS}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield log-odds, their shift from the base, the share that prefers harm, and the gaps between conditions."""
        yield from preference_table(rows)
