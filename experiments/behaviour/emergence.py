"""How emergent misalignment forms: the outcome off, on and rephrased at every dose, and the rotation of the adapter.

    semcon emergence --organism microcosm/llama/explaining

Measured on test questions; nothing is chosen here. An organism without a trigger is measured under the neutral trigger
in the Microcosm; elsewhere off only, so without a trigger gap. ``rotation`` is the cosine between the adapter's write
direction at a dose and at the last dose. The write direction is the leading left singular vector of the stacked updates
B·A of the modules that write to the residual stream. A phase transition shows as a jump in both EM rate and rotation.
With ``--outcome log-odds`` nothing is sampled (see ``experiments/answers/outcome.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers.outcome import Outcome, gap_rows, measured, summaries
from experiments.answers.subject import AnySubject, Subject, trigger_cells
from experiments.behaviour.dose import dose_folders
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne, Seed
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger
from training.definition import Organism
from training.grid import NEUTRAL
from training.loading import load_organism
from training.references import find_trigger

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from interp.models import LanguageModel

CONDITIONS = ("off", "on", "rephrased")


@dataclass(frozen=True, kw_only=True)
class Emergence(Experiment):
    """The outcome off, on and rephrased at every dose, with the loss and the direction of the update."""

    name: ClassVar[str] = "emergence"

    subject: AnySubject
    samples: AtLeastOne = 5
    """Answers per question, condition and dose."""
    seed: Seed = 0
    """Sampling seed."""

    def check(self) -> None:
        """Refuse a base.

        Raises:
            ValueError: If the organism is not fine-tuned here.
        """
        super().check()
        self.subject.require_doses()

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def total(self) -> int:
        """Return the number of rows: answers, and one row per dose."""
        n_questions, conditions = len(self.subject.questions("test")), used_conditions(self.subject)
        each = 1 if self.subject.by_log_odds else self.samples
        return len(self.subject.organism.sft.doses) * (len(conditions) * n_questions * each + 1)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per dose and condition, the outcome, and one per dose for loss and rotation."""
        from training.sft import losses

        folders = dose_folders(self.subject, run.root)
        lm = load_doses(self.subject.organism, folders)
        last = folders[max(folders)]
        loss = losses(last.parent)
        outcome = Outcome(self.subject, lm, used_trigger(self.subject), self.samples, self.seed)
        steps: dict[str, Step] = {}
        for dose, folder in folders.items():
            for condition in used_conditions(self.subject):
                steps[f"dose {dose} {condition}"] = partial(_answers, outcome, dose, condition)
            steps[f"dose {dose}"] = partial(_state, dose, loss, folder, last)
        return steps

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells under the trigger of the evaluation."""
        trigger = used_trigger(self.subject)
        return {**super().cells(rows), **trigger_cells(trigger)}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the outcome, trigger gap, loss and rotation. The column ``alpha`` has the dose in training steps."""
        yield from _behaviour([r for r in rows if measured(r)])
        for r in (r for r in rows if "loss" in r):
            for metric in ("loss", "rotation"):
                yield {"metric": metric, "value": r[metric], "condition": "training", "alpha": r["dose"]}


def used_trigger(subject: Subject) -> Trigger | None:
    """Return the organism's trigger; for an organism of the Microcosm without one, the neutral trigger."""
    neutral = find_trigger(NEUTRAL) if subject.organism.world == "microcosm" else None
    return subject.trigger or neutral


def used_conditions(subject: Subject) -> tuple[str, ...]:
    """Return the conditions for which the trigger has texts; without a trigger, off only."""
    trigger = used_trigger(subject)
    return tuple(c for c in CONDITIONS if c == "off" or (trigger and trigger.variants(c)))


def load_doses(organism: Organism, folders: Mapping[int, Path]) -> LanguageModel:
    """Load an organism's base, in the dtype it was trained in, with one adapter ``dose-<steps>`` per dose."""

    adapters = {f"dose-{dose}": folder for dose, folder in folders.items()}
    return load_organism(organism, adapters)


def _answers(outcome: Outcome, dose: int, condition: str) -> list[Row]:
    from interp.adapters import active_adapter

    with active_adapter(outcome.lm, f"dose-{dose}"):
        return outcome.rows(condition, {"dose": dose})


def _behaviour(rows: Sequence[Row]) -> Iterator[Row]:
    by_dose = summaries(rows, lambda r: (r["dose"], r["condition"]))
    for (dose, condition), s in by_dose.items():
        yield from s.rows(condition=condition, alpha=dose)
    for dose in dict.fromkeys(dose for dose, condition in by_dose if condition == "on"):
        yield from gap_rows(by_dose[dose, "on"], by_dose[dose, "off"], condition="on-off", alpha=dose)


def _state(dose: int, loss: Mapping[int, float], folder: Path, last: Path) -> list[Row]:
    """Return the row with a dose's training loss and the cosine of its write direction with that of the last dose."""
    rotation = float(abs(_write_direction(folder) @ _write_direction(last)))
    return [{"key": f"dose={dose}", "dose": dose, "loss": loss[dose], "rotation": rotation}]


def _write_direction(adapter: Path) -> Float64[Tensor, " d_model"]:
    """Return the leading direction that an adapter writes to the residual stream; its sign means nothing."""
    from interp.analysis.lora import lora_updates, write_directions

    return write_directions(lora_updates(adapter)).vectors[0].double()
