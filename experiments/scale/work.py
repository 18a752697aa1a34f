"""Units of work: tokens trained, read and sampled, answers judged, bytes kept; and what a unit of each costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from experiments.scale.machines import Assumptions

ROW_BYTES, REPLY_BYTES = 450, 140
"""Of a row beside its text, and of a stored reply of a judge."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one stage does with one organism."""

    trained_tokens: float = 0
    read_tokens: float = 0
    """Tokens of forward passes over given texts."""
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

    @property
    def tokens(self) -> float:
        """All tokens that the model is given or writes."""
        return self.trained_tokens + self.read_tokens + self.sampled_tokens


def read(prompts: float, given: Assumptions, *, text: bool = False, answer: float = 0) -> Work:
    """Return the reading of prompts, with or without a text beside the question, each with an answer of some length."""
    return Work(read_tokens=prompts * (_length(given, text) + answer))


def compared(
    questions: float,
    given: Assumptions,
    *,
    text: bool = False,
    edited: bool = False,
    texts: int = 1,
    begins: bool = False,
) -> Work:
    """Return the scoring of both reference answers behind a prompt that is read once.

    Without edits, what the prompts have in common before the question is read once for each text.

    Args:
        questions: Questions, each with its two references.
        given: Lengths.
        text: Whether a text stands beside the question.
        edited: Whether the stream is edited.
        texts: Different texts, among which the questions are shared out.
        begins: Whether the text stands before the question, so that it is part of the common beginning.
    """
    references = 2 * (given.texts.reference - 1)  # the last token of an answer predicts nothing that is scored
    scored = questions * references
    if edited:
        return replace(read(questions, given, text=text, answer=references), scored_tokens=scored)
    opening = given.texts.opening + (given.texts.trigger if text and begins else 0)
    once = questions * (_length(given, text) - opening + references) + min(texts, questions) * opening
    return Work(read_tokens=once, scored_tokens=scored)


def sampled(questions: float, each: int, given: Assumptions, *, text: bool = False, texts: int = 1) -> Work:
    """Return the sampling and judging of answers; a prompt is read once for all of its answers.

    Args:
        questions: Questions.
        each: Answers per question.
        given: Lengths.
        text: Whether a text stands beside the question.
        texts: Different texts per question, over which its answers are shared out.
    """
    lengths, answers = given.texts, questions * each
    asked = lengths.judge + lengths.question + lengths.sampled_answer
    stored = answers * (2 * lengths.sampled_answer * lengths.bytes_per_token + 2 * ROW_BYTES + 2 * REPLY_BYTES)
    return Work(
        read_tokens=questions * min(texts, each) * _length(given, text),
        sampled_tokens=answers * lengths.sampled_answer,
        answers=answers,
        judge_requests=2 * answers,
        judge_tokens=2 * answers * asked,
        disk_bytes=stored,
    )


def _length(given: Assumptions, text: bool) -> float:
    return given.texts.prompt if text else given.texts.bare
