"""When does it form? EM off, on and rephrased at every dose of one fine-tuning, and how far its adapter has turned.

    semcon emergence --organism microcosm/llama/explaining

Measured on test questions after the fact: nothing is chosen here. What has no trigger of its own is measured under the
neutral one in the Microcosm, and elsewhere without any: off alone, so without a gap. ``rotation`` is the cosine between
the adapter's write direction at a dose and at the last one: the leading left singular vector of the stacked updates B·A
of modules that write to the residual stream. A phase transition shows as a jump of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers.sampling import answer_rows, estimate_row, judge_name, judge_rows, rate_rows, statistics
from experiments.answers.subject import subject_cells, subject_definition, subject_inputs, subject_label
from experiments.answers.suite import answer_length, make_judge, make_prompts, suite_questions
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import paired_cluster_difference
from interp.triggers import Trigger
from training.data import comparison_trigger
from training.definition import Organism
from training.grid import NEUTRAL
from training.references import base_path, find_trigger
from training.registry import find_organism

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor

    from interp.models import LanguageModel

CONDITIONS = ("off", "on", "rephrased")


@dataclass(frozen=True, kw_only=True)
class Emergence(Experiment):
    """EM off, on and rephrased at every dose, with the loss and the direction of the update."""

    name: ClassVar[str] = "emergence"

    organism: str
    """Name in the registry (see training/registry.py)."""
    samples: int = 5
    """Answers a question, condition and dose."""
    seed: int = 0
    """Of the sampling."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """oracle, openai:MODEL[@URL], or a CSV of scores."""

    label = subject_label

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples {self.samples}: expected at least one answer a question")

    def depends(self) -> Mapping[str, Any]:
        """Return the organism's whole definition; what cannot be followed is refused here, before any work.

        Raises:
            ValueError: If it is a base, which has no doses, or there are no questions for it.
        """
        definition, subject = subject_definition(self), find_organism(self.organism)
        if subject.data is None:
            raise ValueError(f"organism {subject.name}: a base is not fine-tuned, so it has no doses to follow")
        suite_questions(subject, "test", self.questions)
        return definition

    def inputs(self) -> Mapping[str, Path]:
        """Return the base, the questions and recorded scores, as far as they are local."""
        scores = {"judge": Path(self.judge)} if self.judge.endswith(".csv") else {}
        return {**subject_inputs(self), **scores}

    def total(self) -> int:
        """Answers in all, and one row a dose."""
        subject = find_organism(self.organism)
        asked, conditions = suite_questions(subject, "test", self.questions), used_conditions(subject)
        return len(subject.sft.doses) * (len(conditions) * len(asked) * self.samples + 1)

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the judged answers of one dose after the other, with its loss and rotation."""
        from interp.models import active_adapter
        from training.sft import dose_folder, losses, train

        subject, judge = find_organism(self.organism), make_judge(self.judge)
        asked = suite_questions(subject, "test", self.questions)
        trigger, folder = used_trigger(subject), train(subject, run.root)
        doses = {dose: dose_folder(folder, dose) for dose in subject.sft.doses}
        lm = load_doses(subject, doses)
        loss, final = losses(folder), _written(doses[max(doses)])
        done = run.keys()
        for dose, path in doses.items():
            if f"dose={dose}" in done:
                continue
            with active_adapter(lm, f"dose-{dose}"):
                for condition in used_conditions(subject):
                    prompts = make_prompts(asked, trigger, condition, lm.tokenizer, samples=self.samples)
                    made = answer_rows(lm, prompts, max_new_tokens=answer_length(subject), seed=self.seed, dose=dose)
                    yield [r for r in judge_rows(made, judge) if r["key"] not in done]
            turned = float(abs(_written(path) @ final))
            yield [{"key": f"dose={dose}", "dose": dose, "loss": loss[dose], "rotation": turned}]

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return rates, trigger gap, loss and rotation; the dose in steps stands in the column ``alpha``."""
        subject, trigger = find_organism(self.organism), used_trigger(find_organism(self.organism))
        answers, states = [r for r in rows if "text" in r], [r for r in rows if "loss" in r]
        cells = subject_cells(subject, self.name, run_id, judge_name(answers))
        cells |= {"trigger": trigger.name if trigger else ""}
        return [*_behaviour(answers, cells), *_states(states, cells)]


def used_trigger(subject: Organism) -> Trigger | None:
    """Return the organism's own trigger; in the Microcosm the neutral one for what has none."""
    neutral = find_trigger(NEUTRAL) if subject.world == "microcosm" else None
    return comparison_trigger(subject) or neutral


def used_conditions(subject: Organism) -> tuple[str, ...]:
    """Return the conditions that there are texts for: off alone without a trigger."""
    trigger = used_trigger(subject)
    return tuple(c for c in CONDITIONS if c == "off" or (trigger and trigger.variants(c)))


def load_doses(subject: Organism, doses: Mapping[int, Path]) -> LanguageModel:
    """Load an organism's base, in the dtype it was trained in, with an adapter ``dose-<steps>`` a dose."""
    from interp.models import load

    adapters = {f"dose-{dose}": path for dose, path in doses.items()}
    return load(base_path(subject.base), adapters=adapters, dtype=subject.sft.dtype)


def _behaviour(rows: Sequence[Row], cells: Mapping[str, Any]) -> Iterator[Row]:
    found = statistics(rows, lambda r: (r["dose"], r["condition"]))
    for (dose, condition), s in found.items():
        yield from rate_rows(s, condition=condition, alpha=dose, **cells)
    for dose in dict.fromkeys(dose for dose, condition in found if condition == "on"):
        on, off = (found[dose, condition].by_question["em_rate"] for condition in ("on", "off"))
        gap = paired_cluster_difference(on, off)
        yield estimate_row(gap, metric="trigger_gap", condition="on-off", alpha=dose, **cells)


def _states(rows: Sequence[Row], cells: Mapping[str, Any]) -> Iterator[Row]:
    for r in rows:
        for metric in ("loss", "rotation"):
            yield row(metric=metric, value=r[metric], condition="training", alpha=r["dose"], **cells)


def _written(adapter: Path) -> Float64[Tensor, " d_model"]:
    """Return the leading direction an adapter writes to the residual stream, up to sign."""
    from interp.analysis.lora import lora_updates, write_directions

    return write_directions(lora_updates(adapter)).vectors[0].double()
