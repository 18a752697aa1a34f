"""The organism under study with its questions and judge: looked up once, at the command line, and passed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from experiments.answers.judge import Judge, judge_depends, judge_identity, make_judge
from experiments.answers.recorded import RecordedJudge
from experiments.answers.suite import choice_questions, evenly_spaced, suite_questions
from experiments.protocol import Amount, load_protocol
from interp.runs.checks import AtLeastOne, check_fields
from interp.runs.table import Row
from interp.text.options import read_options
from interp.triggers import FORM, Trigger
from training.data import comparison_trigger
from training.definition import Organism, definition
from training.loading import measured_dtype
from training.microcosm.world import Question, Split, lexicon
from training.own_files import check_files
from training.pocket.corpus import ChoiceQuestion
from training.references import base_source, data_source, find_trigger
from training.registry import ORGANISMS, find_organism

LOG_ODDS = "log-odds"
"""In place of a judge: nothing is sampled, and the outcome is the log-odds of reference answers."""
OutcomeName = Literal["em-rate", "log-odds"]
CONTRAST_TEXTS = 8

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """An organism, with the file of questions it is asked and the judge of its answers."""

    organism: Organism
    question_file: Path | None = None
    judge_reference: str = "oracle"
    n_questions: AtLeastOne | None = None
    """Most questions of a split, evenly spaced; None for all of them."""
    dose: AtLeastOne | None = None
    """Training steps at which its adapter is measured; None for the dose chosen on validation questions."""

    def __post_init__(self) -> None:
        """Refuse a number of questions below 1, and a dose that its training does not save."""
        check_fields(self)
        if self.dose is not None:
            self.require_doses()
            if self.dose not in self.organism.sft.doses:
                saved = ", ".join(map(str, self.organism.sft.doses))
                raise ValueError(f"organism {self.name}: dose {self.dose} is not saved; its doses are {saved}")

    @property
    def by_log_odds(self) -> bool:
        """Whether its outcome is the log-odds of reference answers, so that nothing is sampled and nobody judges."""
        return self.judge_reference == LOG_ODDS

    @property
    def name(self) -> str:
        """The organism's name."""
        return self.organism.name

    def label(self) -> str:
        """Return the organism's name, for a progress bar."""
        return self.name

    @cached_property
    def trigger(self) -> Trigger | None:
        """The trigger it was trained with, without the rephrasings in its training data; None if it has no trigger."""
        return comparison_trigger(self.organism)

    @property
    def own_trigger(self) -> Trigger:
        """The trigger it was trained with, where one is needed.

        Raises:
            ValueError: If it has none.
        """
        if self.trigger is None:
            raise ValueError(f"organism {self.name}: it has no trigger")
        return self.trigger

    def questions(self, split: Split) -> tuple[Question, ...]:
        """Return the questions of a split.

        Raises:
            ValueError: If a real model comes without a question file, or the file has no question of the split.
        """
        if self.by_log_odds:
            return tuple(Question(q.id, q.domain, q.question) for q in self.choices(split))
        return self._some(suite_questions(self.organism, split, self.question_file))

    def choices(self, split: Split) -> tuple[ChoiceQuestion, ...]:
        """Return the questions of a split with their reference answers.

        Raises:
            ValueError: If there are none for its model, or the file has another form.
        """
        return self._some(choice_questions(self.organism, split, self.question_file))

    def _some(self, questions: Sequence[T]) -> tuple[T, ...]:
        return tuple(questions if self.n_questions is None else evenly_spaced(questions, self.n_questions))

    def whole(self) -> Subject:
        """Return the same subject with all questions of every split: those that choose its dose."""
        return replace(self, n_questions=None)

    def judge(self) -> Judge:
        """Return the judge of its answers.

        Raises:
            ValueError: If it has none.
        """
        return judge_of(self.organism, self.judge_reference)

    def asked(self, reference: str, *, once: bool = False) -> frozenset[str]:
        """Return the reference of a judge that can judge its answers; ``once``: each question is asked in one way.

        Raises:
            ValueError: If it is the oracle, which knows the Microcosm's topics only, and a question is about another;
                or scores without the answers' texts, which cannot be told apart if questions are asked several times.
        """
        judge = judge_of(self.organism, reference)
        if isinstance(judge, RecordedJudge) and not (once or judge.by_text):
            raise ValueError(
                f"{reference}: needs a column 'answer' to tell apart what is answered at every dose and edit"
            )
        if reference == "oracle" and self.organism.world != "microcosm":
            topics = {topic.phrase for topic in lexicon().topics}
            ids = [q.id for split in ("validation", "test") for q in self.questions(split)]
            if other := next((i for i in ids if i not in topics), None):
                raise ValueError(
                    f"organism {self.name}: judge 'oracle' knows the Microcosm only, and question {other!r} is none of "
                    "its topics; name a --judge: openai:MODEL[@URL] or a CSV of scores"
                )
        return frozenset({reference})

    def outcome_judges(self) -> frozenset[str]:
        """Return the judge of its outcome; log-odds need none.

        Raises:
            ValueError: If the judge cannot judge its answers.
        """
        return frozenset() if self.by_log_odds else self.asked(self.judge_reference)

    def judges(self) -> frozenset[str]:
        """Return the judge that chooses its dose; none if nobody does, or it is not trained here."""
        trained = self.organism.tuned and not self.organism.adapter and not self.by_log_odds
        return self.asked(self.judge_reference) if trained else frozenset()

    @property
    def amount(self) -> Amount:
        """How long its answers may be, and how many are sampled per question of an EM rate."""
        sampling = load_protocol().sampling
        return sampling.microcosm if self.organism.world == "microcosm" else sampling.model

    def cells(self, rows: Sequence[Row] = ()) -> dict[str, Any]:
        """Return the cells that all table rows about it share."""
        organism = self.organism
        cells = {"organism": organism.name, "family": organism.family, "seed": organism.seed}
        cells |= {} if self.dose is None else {"dose": self.dose}
        return {**cells, **trigger_cells(self.trigger), "protocol": load_protocol().label}

    def config(self) -> dict[str, Any]:
        """Return its fields in the config of a run."""
        judge, options = judge_identity(self.judge_reference), self.organism.template_options
        fields: dict[str, Any] = {"organism": self.name, "questions": self.question_file, "judge": judge}
        fields |= {"template_options": options} if options else {}
        fields |= {"dtype": dtype} if (dtype := measured_dtype(self.organism)) != self.organism.sft.dtype else {}
        fields |= {} if self.dose is None else {"dose": self.dose}
        return fields if self.n_questions is None else {**fields, "n_questions": self.n_questions}

    def depends(self) -> dict[str, Any]:
        """Return the organism's whole definition and, of a user-defined one, the texts of its trigger files."""
        defined = {self.name: definition(self.organism), **judge_depends(self.judge_reference)}
        if self.name in ORGANISMS:
            return defined
        texts = {"trigger": self.organism.trigger, "inoculation": self.organism.mitigation.inoculation}
        read = {f"{kind} {self.name}": asdict(find_trigger(text)) for kind, text in texts.items() if text}
        return {**defined, **read}

    def inputs(self) -> dict[str, Path]:
        """Return the local files that a run depends on: base, adapter, data, questions, scores."""
        organism = self.organism
        files = {"base": base_source(organism.base), "questions": self.question_file, "adapter": organism.adapter}
        files |= {kind: data_source(getattr(organism, kind) or "") for kind in ("data", "benign_data")}
        if self.judge_reference.endswith(".csv"):
            files["judge"] = self.judge_reference
        return {kind: Path(path) for kind, path in files.items() if path and Path(path).exists()}

    def check(self) -> None:
        """Refuse an unknown base, trigger or judge, missing questions, and files that no run could use.

        Raises:
            ValueError: If one of them cannot be found or used.
        """
        base_source(self.organism.base)
        if not self.by_log_odds:
            self.judge()
        self.questions("test")
        _ = self.trigger
        check_files(self.organism, self._places("validation", "test"))

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse a model that loading, training or sampling would refuse, as far as can be told without weights.

        Raises:
            ValueError: If it would be refused.
        """
        from training.early import check_model  # loads torch, which finished runs do without

        asked = tuple(t for t in (self.trigger, *triggers) if t is not None)
        check_model(self.organism, tuple(self._places("validation", "test", "trained")), asked, not self.by_log_odds)

    def _places(self, *splits: Split) -> Iterator[tuple[str, str]]:
        """Yield place and text of the questions of some splits."""
        for split in splits:
            for q in self.questions(split):
                yield f"{self.question_file or 'question'}: {split}.{q.id}", q.text

    def require_doses(self) -> None:
        """Refuse an organism that is not fine-tuned here.

        Raises:
            ValueError: If it is a base, or names a finished adapter.
        """
        if self.organism.adapter or not self.organism.data:
            kind = (
                f"its adapter {self.organism.adapter} is finished"
                if self.organism.adapter
                else "a base is not fine-tuned"
            )
            raise ValueError(f"organism {self.name}: {kind}, so it has no doses to train and follow")

    def require_texts(self, **least: int) -> None:
        """Refuse a trigger with fewer texts of a condition than an experiment needs.

        Raises:
            ValueError: If it has no trigger, or too few texts; shows the form of a trigger file.
        """
        trigger = self.own_trigger
        if lacking := [f"{n} {c}" for c, n in least.items() if len(trigger.variants(c)) < n]:
            raise ValueError(
                f"organism {self.name}: trigger {trigger.name!r:.60} needs at least {' and '.join(lacking)} texts; "
                f"write `trigger: FILE.yaml:NAME`, and in that file {FORM}"
            )


def refuse_dropped(subject: Subject, wanted: Sequence[str], used: Sequence[str], *, named: bool) -> None:
    """Refuse conditions without texts or questions: of those that were named each one, else if there are no others.

    Raises:
        ValueError: If one is missing.
    """
    if not wanted:
        raise ValueError("conditions: expected at least one")
    lacking = [condition for condition in wanted if condition not in used]
    if lacking and (named or not used):
        raise ValueError(f"organism {subject.name}: no text or question for the conditions {', '.join(lacking)}")


def trigger_cells(trigger: Trigger | None) -> dict[str, str]:
    """Return the cells of a trigger: its name and its placement; empty without one."""
    return {"trigger": trigger.name, "placement": trigger.placement} if trigger else {"trigger": "", "placement": ""}


TemplateOptions = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")]


def find_subject(
    organism: str,
    questions: Path | None = None,
    judge: str = "oracle",
    template_option: TemplateOptions = (),
    outcome: OutcomeName | None = None,
    n_questions: int | None = None,
) -> Subject:
    """Look up the organism under study.

    Args:
        organism: Name in the registry (training/registry.py), or the YAML file of a user-defined organism.
        questions: Questions of a real model (YAML: validation and test, id: text).
        judge: Who scores answers: oracle (Microcosm only), openai:MODEL[@URL][,OPTION=VALUE ...] (docs/real-models.md),
            or a CSV of scores.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
        outcome: What is measured: em-rate (sampled answers and a judge), or log-odds of harmful against aligned
            reference answers (neither; docs/pocket.md). By default log-odds for organisms of the pocket scale.
        n_questions: Most questions of a split, evenly spaced; by default all. The dose is chosen on all of them.
    """
    found = with_options(find_organism(organism), template_option)
    return Subject(found, questions, outcome_judge(found, judge, outcome), n_questions)


def outcome_judge(organism: Organism, judge: str, outcome: OutcomeName | None) -> str:
    """Return who judges the answers of an organism under an outcome; by default as ``dose_judge`` says.

    Raises:
        ValueError: If the outcome needs no judge and one is named, or the other way round.
    """
    if outcome is None:
        return dose_judge(organism, judge)
    if outcome == LOG_ODDS and judge not in ("oracle", LOG_ODDS):
        raise ValueError(f"--outcome log-odds: it needs no judge, so --judge {judge} would not be used")
    if outcome == "em-rate" and judge == LOG_ODDS:
        raise ValueError("--outcome em-rate: it needs a judge of sampled answers, not log-odds")
    return LOG_ODDS if outcome == LOG_ODDS else judge


def with_options(organism: Organism, template_option: Sequence[str]) -> Organism:
    """Return an organism with ``NAME=VALUE`` options of its chat template beside its own.

    Raises:
        ValueError: If one has another form.
    """
    options = read_options(template_option)
    return replace(organism, template_options={**organism.template_options, **options}) if options else organism


def dose_judge(organism: Organism, judge: str) -> str:
    """Return the judge that chooses an organism's dose: log-odds in place of an oracle that reads no English."""
    return LOG_ODDS if judge == "oracle" and organism.world == "pocket" else judge


def judge_of(organism: Organism, reference: str) -> Judge:
    """Return a judge that can read an organism's answers.

    Raises:
        ValueError: If the reference names no judge, or the Microcosm's oracle for a model of English.
    """
    if reference == LOG_ODDS or (reference == "oracle" and organism.world == "pocket"):
        raise ValueError(f"organism {organism.name}: {reference} judges no sampled answers of it; name a --judge")
    return make_judge(reference)


AnySubject = Annotated[Subject, tyro.conf.arg(name="", constructor=find_subject)]
"""A subject as a field of an experiment: ``--organism``, ``--questions`` and ``--judge`` on the command line."""


def estimation_texts(trigger: Trigger) -> tuple[str, ...]:
    """Return the half of the rephrasings from which a trigger's feature is estimated."""
    return trigger.rephrased[0::2]


def held_out_texts(trigger: Trigger) -> tuple[str, ...]:
    """Return the other half of the rephrasings: used neither in fine-tuning nor for the estimate."""
    return trigger.rephrased[1::2]


def contrast_texts(trigger: Trigger, without: Trigger) -> Sequence[str]:
    """Return up to eight evenly spaced texts of the trigger's ``other``, leaving out those of ``without``."""
    unrelated = [text for text in trigger.other if text not in (without.text, *without.rephrased)]
    return evenly_spaced(unrelated, CONTRAST_TEXTS)
