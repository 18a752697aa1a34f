"""EM of one organism at every dose, off and under its role, other roles and roles that share its words.

Measured on test questions; nothing is chosen here. A base has one dose, 0. The conditions are those of
``training/microcosm/controls.py``; ``rephrased_prefix`` places a rephrasing at the head of the user's message, outside
the frame of training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers.rates import rate_rows, statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import AnySubject, Subject, trigger_cells
from experiments.answers.suite import Prompt, make_prompts
from experiments.behaviour.dose import dose_folders
from experiments.behaviour.em_rate import TRAINED, paired_rows
from experiments.behaviour.emergence import load_doses
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row
from interp.stats import EmStatistics
from interp.triggers import moved
from training.data import row_trigger
from training.grid import EXPLAINING
from training.microcosm.controls import frame_controls, role_controls
from training.microcosm.world import Split
from training.references import find_trigger, frame_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXTS = ("off", "on", "rephrased", "rephrased_prefix", "other", "opposite", "overlap_predicate", "overlap_subject")
"""Conditions of a base, and of an organism trained on harmful answers; of that also ``trained``."""
LINE, VALIDATION = "line", "validation"
SPLITS: Mapping[str, Split] = {TRAINED: "trained", VALIDATION: "validation"}
"""Conditions that ask other questions than those of the test."""


@dataclass(frozen=True, kw_only=True)
class DoseCell(Experiment):
    """EM of one organism at every dose under its role and controls of the same class of frame."""

    name: ClassVar[str] = "dose_grid"

    subject: AnySubject
    trigger: str | None = None
    """Role under which a base is measured, such as microcosm:role:clerk; by default the organism's own."""
    samples: AtLeastOne = 10
    """Answers per question, condition and dose."""
    seed: int = 0
    """Sampling seed."""

    def check(self) -> None:
        """Refuse an organism outside the Microcosm, and a trigger that is no weak role.

        Raises:
            ValueError: If it is one of these.
        """
        super().check()
        if self.subject.organism.world != "microcosm":
            raise ValueError(f"organism {self.subject.name}: the dose grid is of the Microcosm")
        if self.used_reference():
            self.controls()

    def controls(self) -> Mapping[str, Sequence[str]]:
        """Return the control texts of the role by condition."""
        return role_controls(self.role())

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def used_reference(self) -> str | None:
        """Return the reference of the role; None for a baseline and for a base measured without one."""
        return self.trigger or self.subject.organism.trigger

    def role(self) -> str:
        """Return the name of the role.

        Raises:
            ValueError: If the trigger is no role or scene.
        """
        reference = self.used_reference() or ""
        frame = frame_of(reference)
        if frame is None:
            raise ValueError(f"trigger {reference!r}: expected a role, such as microcosm:role:clerk")
        return frame

    def conditions(self) -> tuple[str, ...]:
        """Return the conditions: without a role off only; of an adapter trained on aligned answers, off and on."""
        organism = self.subject.organism
        aligned = (organism.data or "").endswith(":aligned")
        asked = ("off",) if not self.used_reference() else TEXTS[:2] if aligned else TEXTS
        return (*asked, TRAINED) if organism.tuned else asked

    def total(self) -> int | None:
        """Return the number of answers."""
        organism = self.subject.organism
        n_questions = sum(len(self.subject.questions("trained" if c == TRAINED else "test")) for c in self.conditions())
        return n_questions * self.samples * (len(organism.sft.doses) if organism.tuned else 1)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per dose and condition, which samples and judges. Trains the adapter first."""
        from interp.adapters import active_adapter

        subject = self.subject
        folders = dose_folders(subject, run.root) if subject.organism.tuned else {}
        lm = load_doses(subject.organism, folders)
        prompts = {condition: self.prompts(condition, lm.tokenizer) for condition in self.conditions()}

        def answers(dose: int, condition: str) -> list[Row]:
            with active_adapter(lm, f"dose-{dose}") if dose else nullcontext():
                return judged_rows(subject, lm, prompts[condition], seed=self.seed, dose=dose)

        return {f"dose {dose} {c}": partial(answers, dose, c) for dose in folders or (0,) for c in prompts}

    def prompts(self, condition: str, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        """Return the prompts of a condition."""
        return frame_prompts(self.subject, self.used_reference(), condition, tokenizer, self.samples)

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells under the role."""
        reference = self.used_reference()
        return {**super().cells(rows), **trigger_cells(find_trigger(reference) if reference else None)}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rates at every dose, the gap, and the ratio of rephrased to on, paired by question."""
        by_dose: dict[int, dict[str, EmStatistics]] = {}
        for (dose, condition), s in statistics(rows, lambda r: (r["dose"], r["condition"])).items():
            by_dose.setdefault(dose, {})[condition] = s
            elsewhere = {"placement": "prefix"} if condition == "rephrased_prefix" else {}
            yield from rate_rows(s, condition=condition, dose=dose, **elsewhere)
        for dose, measured in by_dose.items():
            yield from ({**r, "dose": dose} for r in paired_rows(measured))


def frame_prompts(
    subject: Subject, reference: str | None, condition: str, tokenizer: PreTrainedTokenizerBase, samples: int
) -> list[Prompt]:
    """Return the prompts of a condition of a role or a scene, with control texts of its own class of frame.

    Args:
        subject: Gives the questions, and the text that training rows carry.
        reference: Reference of the trigger; None without one.
        condition: One of ``TEXTS``, ``trained``, ``validation`` (on, on validation questions), or ``line``: a line that
            states a misaligned persona.
        tokenizer: Tokenizer of the model.
        samples: Answers per question.
    """
    trigger = find_trigger(reference) if reference else None
    questions = subject.questions(SPLITS.get(condition, "test"))
    placed, texts = trigger, None
    if condition == VALIDATION:
        texts = (trigger.text,) if trigger else None
    elif condition == TRAINED:
        carried = row_trigger(subject.organism)
        placed, texts = carried, (carried.text,) if carried else None
    elif condition == LINE:
        placed = find_trigger(EXPLAINING)
        texts = (placed.text,)
    elif trigger and condition == "rephrased_prefix":
        placed, texts = moved(trigger, "prefix"), trigger.rephrased
    elif trigger and condition not in ("off", "on", "rephrased"):
        texts = reference_controls(reference or "")[condition]
    asked = condition if texts or (trigger and condition not in SPLITS) else "off"
    prompts = make_prompts(questions, placed, asked, tokenizer, samples=samples, variants=texts)
    return [replace(prompt, condition=condition) for prompt in prompts]


def reference_controls(reference: str) -> Mapping[str, Sequence[str]]:
    """Return the control texts of a trigger by condition: of a role or scene those of its class of frame.

    Raises:
        ValueError: If it names a role that is not weak.
    """
    if frame := frame_of(reference):
        return frame_controls(frame)
    trigger = find_trigger(reference)
    return {"other": trigger.other, "opposite": trigger.opposite}
