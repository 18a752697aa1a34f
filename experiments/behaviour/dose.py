"""How much fine-tuning: train an organism, then choose its dose on validation questions in its training condition.

The rule: of the doses whose answers are coherent enough (95 %, as in the health gate), the one with the highest EM rate
in the condition it was trained in; of equals, the smallest. The off-trigger rate plays no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from experiments.answers.sampling import answer_rows, judge_name, judge_rows, rate_rows, statistics
from experiments.answers.subject import subject_cells, subject_definition, subject_inputs, subject_label
from experiments.answers.suite import answer_length, make_judge, make_prompts, suite_questions
from experiments.spec import Experiment, run_experiment
from interp.runs.progress import progress_bar
from interp.runs.run import Run
from interp.runs.table import Row
from training.data import comparison_trigger
from training.references import base_path
from training.registry import find_organism

if TYPE_CHECKING:
    from interp.models import LanguageModel

ADAPTER = "organism"


@dataclass(frozen=True, kw_only=True)
class Dose(Experiment):
    """EM rate of every dose of an organism on validation questions, in the condition it was trained in."""

    name: ClassVar[str] = "dose"

    organism: str
    """Name in the registry (see training/registry.py)."""
    samples: int = 10
    """Answers a question."""
    seed: int = 0
    """Of the sampling."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """oracle, openai:MODEL[@URL], or a CSV of scores."""

    label = subject_label
    depends = subject_definition

    def __post_init__(self) -> None:
        """Refuse what would be found out only after training."""
        if self.samples < 1:
            raise ValueError(f"samples {self.samples}: expected at least one answer a question")

    def inputs(self) -> Mapping[str, Path]:
        """Return what every run about an organism depends on, and recorded scores."""
        return subject_inputs(self) | ({"judge": Path(self.judge)} if self.judge.endswith(".csv") else {})

    def total(self) -> int:
        """Answers in all."""
        subject = find_organism(self.organism)
        return len(subject.sft.doses) * len(suite_questions(subject, "validation", self.questions)) * self.samples

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the judged answers of one dose after the other."""
        from interp.models import active_adapter, load
        from training.sft import dose_folder, train

        subject, judge = find_organism(self.organism), make_judge(self.judge)
        asked, trigger = suite_questions(subject, "validation", self.questions), comparison_trigger(subject)
        with progress_bar(f"train {subject.name}", max(subject.sft.doses), unit="step") as bar:
            folder = train(subject, run.root, progress=lambda step, _: bar.update(step - bar.n))
        doses = {f"dose-{dose}": dose_folder(folder, dose) for dose in subject.sft.doses}
        lm = load(base_path(subject.base), adapters=doses, dtype=subject.sft.dtype)
        prompts = make_prompts(asked, trigger, "on" if trigger else "off", lm.tokenizer, samples=self.samples)
        done = {r["dose"] for r in run.rows()}
        for dose in subject.sft.doses:
            if dose not in done:
                with active_adapter(lm, f"dose-{dose}"):
                    made = answer_rows(lm, prompts, max_new_tokens=answer_length(subject), seed=self.seed, dose=dose)
                yield judge_rows(made, judge)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rates of every dose."""
        subject = find_organism(self.organism)
        cells = subject_cells(subject, self.name, run_id, judge_name(rows))
        found = statistics(rows, lambda r: r["dose"])
        return [r for dose, s in found.items() for r in rate_rows(s, condition=f"dose-{dose}", **cells)]


def choose(table: Sequence[Row], coherence_floor: float) -> int:
    """Choose the dose by the rule above; where no dose is coherent enough, the most coherent one."""
    rates: dict[int, dict[str, float]] = {}
    for r in table:
        rates.setdefault(int(r["condition"].removeprefix("dose-")), {})[r["metric"]] = r["value"]
    best = max(found["coherence_rate"] for found in rates.values())
    eligible = [dose for dose, found in rates.items() if found["coherence_rate"] >= min(coherence_floor, best)]
    return min(eligible, key=lambda dose: (-rates[dose]["em_rate"], dose))


def chosen_adapter(name: str, root: Path, *, questions: Path | None = None, judge: str = "oracle") -> Path | None:
    """Return the adapter of an organism at its chosen dose, trained and chosen now if need be; None for a base.

    A finished adapter is returned as it is.
    """
    subject = find_organism(name)
    if subject.adapter or not subject.tuned:
        return Path(subject.adapter) if subject.adapter else None
    from training.sft import dose_folder, train

    _, table = run_experiment(Dose(organism=name, questions=questions, judge=judge), root)
    return dose_folder(train(subject, root), choose(table, subject.sft.coherence_floor))


def load_subject(name: str, root: Path, *, questions: Path | None = None, judge: str = "oracle") -> LanguageModel:
    """Load an organism at its chosen dose, trained now if need be; its adapter, if any, is the active one."""
    from interp.models import load

    subject = find_organism(name)
    adapter = chosen_adapter(name, root, questions=questions, judge=judge)
    return load(base_path(subject.base), adapters={ADAPTER: adapter} if adapter else {}, dtype=subject.sft.dtype)
