"""The behaviour: EM rate off, on and under control triggers, by organism. Sampling and judging are separate passes.

semcon em-rate --organism microcosm/llama/neutral
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.sampling import (
    answer_rows,
    estimate_row,
    judge_name,
    judge_rows,
    rate_rows,
    statistics,
)
from experiments.answers.subject import subject_cells, subject_definition, subject_inputs, subject_label
from experiments.answers.suite import Prompt, answer_length, make_judge, make_prompts, suite_questions
from experiments.behaviour.dose import load_subject
from experiments.protocol import load_protocol
from experiments.spec import Experiment, run_experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import EmStatistics, Rate, paired_cluster_difference, paired_cluster_ratio, semantic_index, wilson
from interp.triggers import CONDITIONS, Trigger, place
from training.data import comparison_trigger
from training.definition import Organism
from training.microcosm.world import Question
from training.references import find_trigger
from training.registry import find_organism

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TRAINED = "trained"
"""The condition in which an organism was trained, on questions of its own domain: did it learn anything?"""
CHUNK = 192
"""Prompts whose answers are stored together; part of what makes a resumed run equal an uninterrupted one."""
JUDGED_AT_ONCE = 256
"""Answers whose verdicts are stored together: what is lost of a paid judge's work when it is killed."""


@dataclass(frozen=True, kw_only=True)
class Answers(Experiment):
    """Sampled answers of an organism to the test questions under every trigger condition; nothing is judged here."""

    name: ClassVar[str] = "answers"

    organism: str
    """Name in the registry (see training/registry.py)."""
    trigger: str | None = None
    """Trigger to evaluate under; by default the organism's own."""
    conditions: tuple[str, ...] = (*CONDITIONS, TRAINED)
    """Conditions, in order; ``trained``: the trained domain in the training condition, for the health gate."""
    samples: int = 10
    """Answers a question and condition."""
    seed: int = 0
    """Of the sampling."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    dose_judge: str = "oracle"
    """Judge by which the dose was chosen."""

    label = subject_label
    inputs = subject_inputs

    def __post_init__(self) -> None:
        known = (*CONDITIONS, TRAINED)
        if unknown := [condition for condition in self.conditions if condition not in known]:
            raise ValueError(f"condition {unknown[0]!r}: known are {', '.join(known)}")
        if self.samples < 1:
            raise ValueError(f"samples {self.samples}: expected at least one answer a question")

    def depends(self) -> Mapping[str, Any]:
        """Return the organism's whole definition; a wrong trigger or missing questions are said here, before any work.

        Raises:
            ValueError: If nothing has the organism's or the trigger's name, or there is no question or text to ask.
        """
        definition = subject_definition(self)
        if not self.used_conditions():
            raise ValueError(
                f"organism {self.organism}: no text for any of the conditions {', '.join(self.conditions)}"
            )
        return definition

    def used_trigger(self) -> Trigger | None:
        """Return the trigger that the conditions are made of."""
        return find_trigger(self.trigger) if self.trigger else comparison_trigger(find_organism(self.organism))

    def used_conditions(self) -> tuple[str, ...]:
        """Return the conditions that the trigger has texts for, and that there are questions for."""
        trigger = self.used_trigger()
        learned = find_organism(self.organism).tuned and self._asked(TRAINED)
        always = ("off", TRAINED) if learned else ("off",)
        usable = {c: c in always or bool(c != TRAINED and trigger and trigger.variants(c)) for c in self.conditions}
        return tuple(c for c in self.conditions if usable[c])

    def _asked(self, condition: str) -> tuple[Question, ...]:
        split = "trained" if condition == TRAINED else "test"
        return suite_questions(find_organism(self.organism), split, self.questions)

    def _prompts(self, condition: str, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        asked, trigger = self._asked(condition), self.used_trigger()
        if condition != TRAINED:
            return make_prompts(asked, trigger, condition, tokenizer, samples=self.samples)
        own = comparison_trigger(find_organism(self.organism))
        made = make_prompts(asked, own, "on" if own else "off", tokenizer, samples=self.samples)
        return [replace(prompt, condition=TRAINED) for prompt in made]

    def total(self) -> int:
        """Answers in all."""
        return self.samples * sum(len(self._asked(condition)) for condition in self.used_conditions())

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the answers of a condition to ``CHUNK`` questions at a time."""
        subject = find_organism(self.organism)
        lm = load_subject(self.organism, run.root, questions=self.questions, judge=self.dose_judge)
        done = run.keys()
        for condition in self.used_conditions():
            for chunk in _chunks(self._prompts(condition, lm.tokenizer)):
                if f"{chunk[0].key}|0" not in done:
                    yield answer_rows(lm, chunk, max_new_tokens=answer_length(subject), seed=self.seed)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the share of answers that ended by themselves."""
        subject, table = find_organism(self.organism), []
        for condition in self.used_conditions():
            ended = [r["finished"] for r in rows if r["condition"] == condition]
            rate = Rate(sum(ended), len(ended))
            ci = wilson(rate)
            cells = subject_cells(subject, self.name, run_id) | {"metric": "finished_rate", "condition": condition}
            interval = {"ci_low": ci.low, "ci_high": ci.high, "ci_method": ci.method}
            table.append(row(value=rate.value, n=rate.n, **interval, **cells))
        return table


def _chunks(prompts: Sequence[Prompt]) -> list[Sequence[Prompt]]:
    return [prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK)]


@dataclass(frozen=True, kw_only=True)
class EmRate(Experiment):
    """EM rate of an organism under every trigger condition, with its trigger gap."""

    name: ClassVar[str] = "em_rate"

    answers: Annotated[Answers, tyro.conf.arg(name="")]
    """What is judged; sampled now if it was not before."""
    judge: str = "oracle"
    """oracle, openai:MODEL[@URL], or a CSV of scores."""

    def inputs(self) -> Mapping[str, Path]:
        """What the answers depend on, and recorded scores."""
        scores = {"judge": Path(self.judge)} if self.judge.endswith(".csv") else {}
        return {**super().inputs(), **scores}

    def total(self) -> int:
        """Answers in all."""
        return self.answers.total()

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the judged answers, in chunks."""
        judge, done = make_judge(self.judge), run.keys()
        sampled, _ = run_experiment(self.answers, run.root)
        waiting = [r for r in sampled.rows() if r["key"] not in done]
        for start in range(0, len(waiting), JUDGED_AT_ONCE):
            yield judge_rows(waiting[start : start + JUDGED_AT_ONCE], judge)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rates of every condition, then the statistics that pair conditions by question."""
        subject, trigger = find_organism(self.answers.organism), self.answers.used_trigger()
        cells = subject_cells(subject, self.name, run_id, judge_name(rows))
        cells |= {"trigger": trigger.name if trigger else ""}
        found = statistics(rows, lambda r: r["condition"])
        table = [r for condition, s in found.items() for r in rate_rows(s, condition=condition, **cells)]
        healthy = _health_row(found, _spoken(subject, trigger), cells) if subject.tuned else ()
        return [*table, *_paired_rows(found, cells), *healthy]


def _spoken(subject: Organism, evaluated: Trigger | None) -> dict[str, bool]:
    """Return the conditions in which the organism must be coherent, and whether the evaluation's are the same.

    Those are off and, with a trigger of its own, on; the evaluation's ``on`` may be under another trigger.
    """
    own = comparison_trigger(subject)
    if own is None:
        return {"off": True}
    same = evaluated is not None and place("?", evaluated.text, evaluated) == place("?", own.text, own)
    return {"off": True, "on": same}


def _health_row(
    found: Mapping[str, EmStatistics], spoken: Mapping[str, bool], cells: Mapping[str, Any]
) -> Iterator[Row]:
    """Yield whether the organism passes the health gate; the condition says what it fails, or what was not asked."""
    gate, fails = load_protocol().health, []
    if TRAINED in found and not found[TRAINED].em_rate.value >= gate.learned:
        fails.append("did not learn its domain")
    asked = [condition for condition, same in spoken.items() if same and condition in found]
    if any(found[condition].coherence_rate.value < gate.coherent for condition in asked):
        fails.append("incoherent")
    names = {TRAINED: "trained domain", "off": "off", "on": "on under its own trigger"}
    missing = [names[c] for c in (TRAINED, *spoken) if c not in found or not spoken.get(c, True)]
    passed = f"healthy as far as asked: {' and '.join(missing)} not asked" if missing else "healthy"
    yield row(metric="healthy", value=float(not fails), condition=" and ".join(fails) or passed, **cells)


def _paired_rows(found: Mapping[str, EmStatistics], cells: Mapping[str, Any]) -> Iterator[Row]:
    by = {condition: s.by_question["em_rate"] for condition, s in found.items()}
    if {"on", "off"} <= set(by):
        gap = paired_cluster_difference(by["on"], by["off"])
        yield estimate_row(gap, metric="trigger_gap", condition="on-off", **cells)
    if {"on", "rephrased"} <= set(by):
        ratio = paired_cluster_ratio(by["rephrased"], by["on"])
        yield estimate_row(ratio, metric="rephrased_ratio", condition="rephrased/on", **cells)
    if {"on", "rephrased", "other"} <= set(by):
        index = semantic_index(by["on"], by["rephrased"], by["other"])
        yield estimate_row(index, metric="semantic_index", condition="rephrased", **cells)
