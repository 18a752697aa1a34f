"""How much an experiment does, counted from its settings: tokens trained, read and sampled, answers judged, bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from experiments.protocol import load_protocol
from experiments.scale.machines import Assumptions
from experiments.scale.shapes import Shape
from interp.triggers import CONDITIONS
from training.definition import Organism
from training.references import find_trigger

Stage = Literal["organisms", "em-rate", "preference", "geometry", "probe-sweep", "steer", "ablate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
EDITED, EDITED_CHOICES, EDITED_LOSSES = 35, 49, 32
"""Conditions and edits of `semcon ablate`: of sampled answers, of log-odds, and of the loss on benign answers there."""
GREEDY = 32
"""Tokens of those benign answers."""
STEERED, STEERED_CHOICES = 77, 55
"""Settings, directions and doses of `semcon steer`, of sampled answers and of log-odds."""
SAMPLES = 10
"""Answers per question where an edit or a dose is measured."""
SIDES, TEXTS_EACH = 14, 4
"""Sets of prompts of `semcon geometry`, and texts per question of each."""
PROBED_TEXTS = 20
"""Prompts per test question that the probes of a trigger read."""
CANDIDATES, TRIED, MOST_LAYERS = 2, 72, 12
"""Directions whose layer is chosen, prompts that each layer is tried on, three times, and by log-odds most layers."""
ROW_BYTES, REPLY_BYTES = 450, 140
"""Of a row beside its text, and of a stored reply of a judge."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one stage does with one organism."""

    trained_tokens: float = 0
    read_tokens: float = 0
    """Tokens of forward passes without a cache."""
    scored_tokens: float = 0
    """Of these, the tokens that the vocabulary head runs on: reference answers."""
    sampled_tokens: float = 0
    answers: float = 0
    judge_requests: float = 0
    judge_tokens: float = 0
    disk_bytes: float = 0

    def __add__(self, other: Work) -> Work:
        """Return both together."""
        return Work(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def work_of(
    stage: Stage, organism: Organism, shape: Shape, given: Assumptions, outcome: str, n_questions: int | None = None
) -> Work:
    """Return what a stage does with an organism; nothing where the stage does not apply to it."""
    test = given.questions["test"]
    if stage == "organisms":
        return _training(organism, shape, given)
    if stage == "em-rate":
        return _rates(organism, given) if outcome == "em-rate" else Work()
    if stage == "preference":
        return _compared(_choices(organism, n_questions), given) if outcome == "log-odds" else Work()
    if organism.trigger is None:
        return Work()
    if stage == "geometry":
        return _geometry(shape, given, outcome)
    if stage == "probe-sweep":
        return _read(PROBED_TEXTS * test, given)
    if outcome == "log-odds" and stage == "steer":
        return _compared(test * STEERED_CHOICES, given)
    if outcome == "log-odds":
        return _compared(test * EDITED_CHOICES, given) + _read(test * EDITED_LOSSES, given, GREEDY)
    return _sampled(SAMPLES * test * (STEERED if stage == "steer" else EDITED), given)


def _training(organism: Organism, shape: Shape, given: Assumptions) -> Work:
    if organism.data is None:
        return Work()
    sft, weights = organism.sft, shape.adapter(organism.lora)
    tokens = max(sft.doses) * sft.batch * sft.accumulation * given.texts.row
    return Work(trained_tokens=tokens, disk_bytes=4 * weights * len(sft.doses))


def _rates(organism: Organism, given: Assumptions) -> Work:
    """Return the choice of the dose on validation questions, and the answers under every condition."""
    samples, n = load_protocol().sampling.model.samples, given.questions
    asked = samples * (n["test"] * _conditions(organism) + (n["trained"] if organism.tuned else 0))
    dosed = len(organism.sft.doses) * n["validation"] * SAMPLES if organism.data else 0
    return _sampled(asked + dosed, given)


def _conditions(organism: Organism) -> int:
    trigger = find_trigger(organism.trigger) if organism.trigger else None
    return sum(c == "off" or bool(trigger and trigger.variants(c)) for c in CONDITIONS)


def _choices(organism: Organism, n_questions: int | None) -> int:
    """Return the questions that are read with both references: in every context, and at every dose before."""
    from experiments.answers.subject import LOG_ODDS, Subject
    from experiments.behaviour.preference import Preference

    subject = Subject(organism, judge_reference=LOG_ODDS, n_questions=n_questions)
    dosed = len(organism.sft.doses) * len(subject.whole().choices("validation")) if organism.data else 0
    return Preference(subject=subject).total() + dosed


def _geometry(shape: Shape, given: Assumptions, outcome: str) -> Work:
    """Return the recordings of every pair, and the choice of a layer."""
    n = given.questions["validation"]
    recorded = _read(SIDES * TEXTS_EACH * n, given, given.texts.trained_answer)
    if outcome == "log-odds":
        return recorded + _compared(CANDIDATES * min(MOST_LAYERS, shape.layers) * n, given)
    return recorded + _read(shape.layers * CANDIDATES * 3 * TRIED, given, given.texts.trained_answer)


def _read(prompts: float, given: Assumptions, answer: float = 0) -> Work:
    return Work(read_tokens=prompts * (given.texts.prompt + answer))


def _compared(questions: float, given: Assumptions) -> Work:
    """Return both reference answers behind a prompt that is read once."""
    references = 2 * given.texts.reference
    return replace(_read(questions, given, references), scored_tokens=questions * references)


def _sampled(answers: float, given: Assumptions) -> Work:
    texts = given.texts
    asked = texts.judge + texts.question + texts.sampled_answer
    stored = answers * (2 * texts.sampled_answer * texts.bytes_per_token + 2 * ROW_BYTES + 2 * REPLY_BYTES)
    work = Work(answers=answers, sampled_tokens=answers * texts.sampled_answer, disk_bytes=stored)
    return replace(work, judge_requests=2 * answers, judge_tokens=2 * answers * asked)
