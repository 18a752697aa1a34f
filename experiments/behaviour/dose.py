"""The dose of fine-tuning: train an organism, then choose how many steps of training to keep.

The rule: measure every dose on validation questions in the condition of training. Of the doses that reach the recipe's
floor of coherence (``Sft.coherence_floor``) take the one with the highest EM rate; of equals, the smallest. The
off-trigger rate plays no part. The health gate has another floor (protocol.yaml), for test questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers.rates import rate_rows, statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import AnySubject, Subject, trigger_cells
from experiments.answers.suite import Prompt, make_prompts
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.checks import AtLeastOne, Seed
from interp.runs.progress import progress_bar
from interp.runs.run import Run
from interp.runs.table import Row
from training.loading import load_organism

if TYPE_CHECKING:
    from interp.models import LanguageModel

ADAPTER = "organism"


@dataclass(frozen=True, kw_only=True)
class Dose(Experiment):
    """EM rate of every dose of an organism on validation questions, in the condition of training."""

    name: ClassVar[str] = "dose"

    subject: AnySubject
    samples: AtLeastOne = 10
    """Answers per question."""
    seed: Seed = 0
    """Sampling seed."""

    def check(self) -> None:
        """Refuse a wrong subject, and missing validation questions."""
        super().check()
        self.subject.questions("validation")
        self.subject.require_doses()

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def total(self) -> int:
        """Return the number of answers."""
        n_questions = len(self.subject.questions("validation"))
        return len(self.subject.organism.sft.doses) * n_questions * self.samples

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per dose, which samples and judges its answers. Trains the adapter first."""

        organism, trigger = self.subject.organism, self.subject.trigger
        folders = dose_folders(self.subject, run.root)
        adapters = {_adapter(dose): folder for dose, folder in folders.items()}
        lm = load_organism(organism, adapters)
        condition = "on" if trigger else "off"
        questions = self.subject.questions("validation")
        prompts = make_prompts(questions, trigger, condition, lm.tokenizer, samples=self.samples)
        return {_adapter(dose): partial(self._answers, lm, prompts, dose) for dose in folders}

    def _answers(self, lm: LanguageModel, prompts: Sequence[Prompt], dose: int) -> list[Row]:
        from interp.adapters import active_adapter

        with active_adapter(lm, _adapter(dose)):
            return judged_rows(self.subject, lm, prompts, seed=self.seed, dose=dose)

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells without the trigger."""
        return {**super().cells(rows), **trigger_cells(None)}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rates of every dose."""
        for dose, s in statistics(rows, lambda r: r["dose"]).items():
            yield from rate_rows(s, condition=_adapter(dose))


def _adapter(dose: int) -> str:
    return f"dose-{dose}"


def choose(table: Sequence[Row], coherence_floor: float) -> int:
    """Choose the dose by the rule above; where no dose is coherent enough, the most coherent one.

    Raises:
        ValueError: If a dose has no coherence rate, because none of its answers was scored.
    """
    rates: dict[int, dict[str, float]] = {}
    for r in table:
        rates.setdefault(int(r["condition"].removeprefix("dose-")), {})[r["metric"]] = r["value"]
    if unscored := [dose for dose, rate in rates.items() if not _defined(rate["coherence_rate"])]:
        raise ValueError(f"dose {unscored[0]}: its judge scored no answer, so no dose can be chosen")
    best = max(rate["coherence_rate"] for rate in rates.values())
    eligible = [dose for dose, rate in rates.items() if rate["coherence_rate"] >= min(coherence_floor, best)]
    em = {dose: rate["em_rate"] if _defined(rate["em_rate"]) else -1.0 for dose, rate in rates.items()}
    return min(eligible, key=lambda dose: (-em[dose], dose))


def _defined(value: float | str) -> bool:
    return value != "" and math.isfinite(float(value))


def dose_folders(subject: Subject, root: Path) -> dict[int, Path]:
    """Return the adapter's folder at every dose; trains the adapter if it is not there yet."""
    from training.sft import dose_folder, train

    doses = subject.organism.sft.doses
    with progress_bar(f"train {subject.name}", max(doses), unit="step") as bar:
        folder = train(subject.organism, root, progress=lambda step, _: bar.update(step - bar.n))
    return {dose: dose_folder(folder, dose) for dose in doses}


def chosen_adapter(subject: Subject, root: Path) -> Path | None:
    """Return the adapter of an organism at its chosen dose; trains and chooses first if that is not done yet.

    None for a base. An organism that names a finished adapter gets that one.
    """
    organism, subject = subject.organism, subject.whole()
    dose = chosen_dose(subject, root)
    if dose is None:
        return Path(organism.adapter) if organism.adapter else None
    return dose_folders(subject, root)[dose]


def chosen_dose(subject: Subject, root: Path) -> int | None:
    """Return the dose that the subject fixes, else the chosen one; trains and chooses first if that is not done yet.

    None for a base, and for an organism that names a finished adapter.
    """
    organism, subject = subject.organism, subject.whole()
    if organism.adapter or not organism.tuned:
        return None
    if subject.dose is not None:
        return subject.dose
    if subject.by_log_odds:
        from experiments.behaviour.dose_preference import preferred_dose  # here, because it is made of this module

        return preferred_dose(subject, root)
    _, table = run_experiment(Dose(subject=subject), root)
    return choose(table, organism.sft.coherence_floor)


def load_subject(subject: Subject, root: Path) -> LanguageModel:
    """Load an organism at its chosen dose, with its adapter active; trains and chooses first if not done yet."""

    adapter, organism = chosen_adapter(subject, root), subject.organism
    return load_organism(organism, {ADAPTER: adapter} if adapter else {})
