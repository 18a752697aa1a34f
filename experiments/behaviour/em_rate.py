"""EM rate of an organism off, on and under control triggers. Sampling and judging are separate runs.

semcon em-rate --organism microcosm/llama/neutral
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from experiments.answers.chat_client import host_of
from experiments.answers.judge import judge_depends, judge_identity, make_judge
from experiments.answers.rates import estimate_row, rate_rows, statistics
from experiments.answers.recorded import RecordedJudge
from experiments.answers.sampling import sampled_rows, say_cost, with_verdicts
from experiments.answers.subject import (
    LOG_ODDS,
    OutcomeName,
    Subject,
    TemplateOptions,
    find_subject,
    outcome_judge,
    refuse_dropped,
    trigger_cells,
)
from experiments.answers.suite import PlainPrompt, plain_prompts
from experiments.behaviour.dose import chosen_dose, load_subject
from experiments.protocol import load_protocol
from experiments.servers.organism import sampler_of, served
from experiments.servers.reference import read_server
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.checks import AtLeastOne, Seed
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.stats import EmStatistics, Rate, paired_cluster_difference, paired_cluster_ratio, semantic_index, wilson
from interp.triggers import CONDITIONS, Trigger, place
from training.microcosm.world import Question
from training.references import find_trigger

if TYPE_CHECKING:
    from interp.generation import Sampler
    from interp.models import LanguageModel

TRAINED = "trained"
"""The condition of training, with questions of the fine-tuned domain: shows whether the organism learned it."""
Condition = Literal["off", "on", "rephrased", "other", "opposite", "matched", "shuffled", "delimiters", "trained"]
ESSENTIAL: tuple[Condition, ...] = ("off", "on", "rephrased", "other", TRAINED)
"""Conditions of the grid's cells; a base has no trained domain and leaves that one out."""
CHUNK = 192
"""Prompts per step. Fixed, so that a resumed run equals an uninterrupted one."""
JUDGED_AT_ONCE = 256
"""Answers per step of judging. An interrupted step asks for nothing again: its verdicts are stored as they arrive."""


AS_ANSWERS = "as the answers"
"""In place of a reference: the judge that chooses the dose is the one of the answers."""


def dosed_subject(
    organism: str,
    questions: Path | None = None,
    dose_judge: str = AS_ANSWERS,
    template_option: TemplateOptions = (),
    n_questions: int | None = None,
) -> Subject:
    """Look up the organism under study.

    Args:
        organism: Name in the registry (training/registry.py), or the YAML file of a user-defined organism.
        questions: Questions of a real model (YAML: validation and test, id: text).
        dose_judge: Judge by which the dose is chosen; by default the one that --judge names.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
        n_questions: Most questions of a split, evenly spaced; by default all. The dose is chosen on all of them.
    """
    return find_subject(organism, questions, dose_judge, template_option, n_questions=n_questions)


@dataclass(frozen=True, kw_only=True)
class Answers(Experiment):
    """Sampled answers of an organism to the test questions under every trigger condition, not judged yet."""

    name: ClassVar[str] = "answers"

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=dosed_subject)]
    trigger: str | None = None
    """Trigger of the evaluation, such as microcosm:scene:desert; by default the organism's own."""
    conditions: tuple[Condition, ...] = (*CONDITIONS, TRAINED)
    """Conditions, in order. trained: the fine-tuned domain in the condition of training, for the health gate."""
    samples: AtLeastOne | None = None
    """Answers per question and condition; by default 10 in the Microcosm and 50 elsewhere (protocol.yaml)."""
    seed: Seed = 0
    """Sampling seed."""
    server: str | None = None
    """OpenAI-compatible server that samples in place of this machine (docs/servers.md): URL, then options after
    commas, such as ,model=NAME,workers=64. For a base, or an organism with a finished adapter that the server has."""

    def __post_init__(self) -> None:
        """Take the protocol's number of samples if none is given, so that equal runs are equal values."""
        object.__setattr__(self, "samples", self.n_samples)
        super().__post_init__()
        if self.server is not None:
            read_server(self.server)

    @property
    def n_samples(self) -> int:
        """Answers per question and condition."""
        return self.subject.amount.samples if self.samples is None else self.samples

    def config(self) -> Mapping[str, Any]:
        """Return the fields. The subject's judge is named ``dose_judge``: it chose the dose and judges nothing here."""
        config = {"dose_judge" if name == "judge" else name: value for name, value in super().config().items()}
        server = config.pop("server")
        return config if server is None else {**config, "server": read_server(server).identity}

    def protocol_parts(self) -> Sequence[str]:
        """Return how answers are sampled, and where a dose is chosen by answers also what these count as."""
        return super().protocol_parts() if self.subject.judges() else ("sampling",)

    def check(self) -> None:
        """Refuse an unknown trigger, missing questions, and a trigger without a text for any condition.

        Raises:
            ValueError: If there is no prompt to answer.
        """
        super().check()
        wanted = self.conditions
        if wanted == ESSENTIAL and not self.subject.organism.tuned:
            wanted = tuple(c for c in wanted if c != TRAINED)
        refuse_dropped(self.subject, wanted, self.used_conditions(), named=wanted != Answers.conditions)
        organism = self.subject.organism
        if self.server is not None and organism.tuned and not organism.adapter:
            raise ValueError(
                f"--server: the dose of organism {organism.name} is chosen among adapters on this machine; name the "
                "finished one in its YAML file (adapter: FOLDER), and let the server load it"
            )

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse what loading or sampling would refuse, and a server that is out of reach or lacks the model."""
        super().check_models(*triggers)
        if self.server is not None:
            served(self.subject.organism, self.server)

    def used_trigger(self) -> Trigger | None:
        """Return the trigger of the evaluation."""
        return find_trigger(self.trigger) if self.trigger else self.subject.trigger

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return the trigger of the evaluation."""
        used = self.used_trigger()
        return (used,) if used else ()

    def used_conditions(self) -> tuple[str, ...]:
        """Return the conditions for which there are trigger texts and questions."""
        trigger = self.used_trigger()
        asks_trained = self.subject.organism.tuned and self._questions(TRAINED)
        always = ("off", TRAINED) if asks_trained else ("off",)
        usable = {c: c in always or bool(c != TRAINED and trigger and trigger.variants(c)) for c in self.conditions}
        return tuple(c for c in self.conditions if usable[c])

    def _questions(self, condition: str) -> tuple[Question, ...]:
        return self.subject.questions("trained" if condition == TRAINED else "test")

    def prompts(self, condition: str) -> list[PlainPrompt]:
        """Return the prompts of a condition, before a tokenizer has seen them."""
        questions = self._questions(condition)
        if condition != TRAINED:
            return plain_prompts(questions, self.used_trigger(), condition, samples=self.n_samples)
        trained_with = self.subject.trigger
        training_condition = "on" if trained_with else "off"
        trained = plain_prompts(questions, trained_with, training_condition, samples=self.n_samples)
        return [replace(prompt, condition=TRAINED) for prompt in trained]

    def total(self) -> int:
        """Return the number of answers."""
        return self.n_samples * sum(len(self._questions(condition)) for condition in self.used_conditions())

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per condition and ``CHUNK`` prompts, which samples their answers."""
        lm, sampler = self._model(run)
        return {
            f"{condition} {start}": partial(
                sampled_rows, self.subject, lm, prompts[start : start + CHUNK], seed=self.seed, sampler=sampler
            )
            for condition in self.used_conditions()
            for prompts in [[p.encoded(lm.tokenizer) for p in self.prompts(condition)]]
            for start in range(0, len(prompts), CHUNK)
        }

    def _model(self, run: Run) -> tuple[LanguageModel, Sampler | None]:
        """Return the organism; with a server its outline, and who samples in its place."""
        if self.server is None:
            return load_subject(self.subject, run.root), None
        sampler = sampler_of(self.subject.organism, self.server, run.path)
        run.note(server={"model": sampler.model, "host": host_of(read_server(self.server).url)})
        return sampler.lm, sampler

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells without the trigger: the table is about answers under all conditions."""
        return {**super().cells(rows), **trigger_cells(None)}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the share of answers that ended before the limit of tokens, by condition."""
        for condition in self.used_conditions():
            ended = [r["finished"] for r in rows if r["condition"] == condition]
            rate = Rate(sum(ended), len(ended))
            interval = interval_cells(wilson(rate))
            yield {"metric": "finished_rate", "condition": condition, "value": rate.value, "n": rate.n, **interval}


@dataclass(frozen=True, kw_only=True)
class EmRate(Experiment):
    """EM rate of an organism under every trigger condition, with its trigger gap."""

    name: ClassVar[str] = "em_rate"

    answers: Annotated[Answers, tyro.conf.arg(name="")]
    """The answers to judge; sampled first if they are not there yet."""
    outcome: OutcomeName | None = None
    """em-rate: answers are sampled and judged; log-odds: neither, the same as the command preference. By default
    log-odds for organisms of the pocket scale if no judge is named."""
    judge: str = "oracle"
    """oracle (Microcosm only), openai:MODEL[@URL][,OPTION=VALUE ...] (docs/real-models.md), or a CSV of scores."""

    def __post_init__(self) -> None:
        """Let the judge also choose the dose, unless another one is named for that."""
        subject = self.answers.subject
        if subject.judge_reference == AS_ANSWERS:
            judge = outcome_judge(subject.organism, self.judge, self.outcome)
            subject = replace(subject, judge_reference=judge)
            object.__setattr__(self, "answers", replace(self.answers, subject=subject))
        super().__post_init__()

    def config(self) -> Mapping[str, Any]:
        """Return the fields; of the judge what decides its verdicts. What runs as this always has judged answers."""
        config = {**super().config(), "judge": judge_identity(self.judge)}
        del config["outcome"]
        return config

    def resolved(self) -> Experiment:
        """Return the experiment of the outcome: this one, or ``Preference`` of the same subject for log-odds."""
        from experiments.behaviour.preference import Preference  # here, because few runs need it

        subject = self.answers.subject
        chosen = outcome_judge(subject.organism, self.judge, self.outcome)
        if chosen != LOG_ODDS:
            return self
        subject = replace(subject, judge_reference=LOG_ODDS)
        preference = Preference(subject=subject, trigger=self.answers.trigger)
        named = self.answers.conditions != Answers.conditions
        return replace(preference, conditions=self.answers.conditions) if named else preference

    def depends(self) -> Mapping[str, Any]:
        """Return what the answers depend on, and the instructions of a language model that judges."""
        return {**super().depends(), **judge_depends(self.judge)}

    def check(self) -> None:
        """Refuse recorded scores that are not those of the answers.

        Raises:
            ValueError: If scores are missing or cannot be told apart.
        """
        super().check()
        if isinstance(judge := make_judge(self.judge), RecordedJudge):
            conditions, a = self.answers.used_conditions(), self.answers
            asked = [q.id for q in a.subject.questions("trained" if conditions == (TRAINED,) else "test")]
            judge.check_covers(asked, a.n_samples, conditions)

    def judges(self) -> frozenset[str]:
        """Return the judge, and the one that chooses the dose."""
        return super().judges() | self.answers.subject.asked(self.judge, once=True)

    def inputs(self) -> Mapping[str, Path]:
        """Return the inputs of the answers, and the file of recorded scores."""
        scores = {"judge": Path(self.judge)} if self.judge.endswith(".csv") else {}
        return {**super().inputs(), **scores}

    def total(self) -> int:
        """Return the number of answers."""
        return self.answers.total()

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per ``JUDGED_AT_ONCE`` answers, which judges them."""
        judge = make_judge(self.judge)
        rows = run_experiment(self.answers, run.root)[0].rows()
        dose = chosen_dose(self.answers.subject, run.root)
        beside = {} if dose is None else {"dose": dose}
        answers = [{name: cell for name, cell in r.items() if name != "step"} | beside for r in rows]
        say_cost(judge, answers)
        return {
            f"answers {start}": partial(with_verdicts, answers[start : start + JUDGED_AT_ONCE], judge)
            for start in range(0, len(answers), JUDGED_AT_ONCE)
        }

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the subject's cells under the trigger of the evaluation, and the chosen dose."""
        dose = next((r["dose"] for r in rows if "dose" in r), "")
        return {**super().cells(rows), **trigger_cells(self.answers.used_trigger()), "dose": dose}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rates of every condition, the statistics of conditions paired by question, and the health gate."""
        return behaviour_rows(rows, self.must_be_coherent())

    def must_be_coherent(self) -> dict[str, bool] | None:
        """Return the conditions of the health gate, each with whether this evaluation tests it; None for a base."""
        subject = self.answers.subject
        return must_be_coherent(subject.trigger, self.answers.used_trigger()) if subject.organism.tuned else None


def behaviour_rows(rows: Sequence[Row], must_be_coherent: Mapping[str, bool] | None) -> Iterator[Row]:
    """Yield the table of judged answers: rates of every condition, paired statistics, and the health gate if any.

    Args:
        rows: Judged answers.
        must_be_coherent: Conditions of the health gate, each with whether the answers test it; None for no gate.
    """
    by_condition = statistics(rows, lambda r: r["condition"])
    for condition, s in by_condition.items():
        yield from rate_rows(s, condition=condition)
    yield from paired_rows(by_condition)
    if must_be_coherent is not None:
        yield _health_row(by_condition, must_be_coherent)


def must_be_coherent(trigger: Trigger | None, evaluated: Trigger | None) -> dict[str, bool]:
    """Return the conditions in which the organism must be coherent, each with whether this evaluation tests it.

    These are ``off`` and, for an organism with a trigger, ``on``. The evaluation's ``on`` does not test it if it is
    under another trigger.
    """
    if trigger is None:
        return {"off": True}
    same = evaluated is not None and place("?", evaluated.text, evaluated) == place("?", trigger.text, trigger)
    return {"off": True, "on": same}


def _health_row(by_condition: Mapping[str, EmStatistics], coherent_in: Mapping[str, bool]) -> Row:
    """Return the row of the health gate; its condition says what the organism fails, or what was not measured."""
    gate, fails = load_protocol().health, []
    if TRAINED in by_condition and not by_condition[TRAINED].em_rate.value >= gate.learned:
        fails.append("did not learn its domain")
    tested = [condition for condition, same in coherent_in.items() if same and condition in by_condition]
    if any(not by_condition[condition].coherence_rate.value >= gate.coherent for condition in tested):
        fails.append("incoherent")
    names = {TRAINED: "trained domain", "off": "off", "on": "on under its own trigger"}
    missing = [names[c] for c in (TRAINED, *coherent_in) if c not in by_condition or not coherent_in.get(c, True)]
    passed = f"healthy as far as asked: {' and '.join(missing)} not asked" if missing else "healthy"
    return {"metric": "healthy", "value": float(not fails), "condition": " and ".join(fails) or passed}


def paired_rows(by_condition: Mapping[str, EmStatistics]) -> Iterator[Row]:
    """Yield the trigger gap, the ratio of rephrased to on, and the semantic index, where their conditions are there."""
    em = {condition: s.by_question["em_rate"] for condition, s in by_condition.items()}
    if {"on", "off"} <= set(em):
        gap = paired_cluster_difference(em["on"], em["off"])
        yield estimate_row(gap, metric="trigger_gap", condition="on-off")
    if {"on", "rephrased"} <= set(em):
        ratio = paired_cluster_ratio(em["rephrased"], em["on"])
        yield estimate_row(ratio, metric="rephrased_ratio", condition="rephrased/on")
    if {"on", "rephrased", "other"} <= set(em):
        index = semantic_index(em["on"], em["rephrased"], em["other"])
        yield estimate_row(index, metric="semantic_index", condition="rephrased")
