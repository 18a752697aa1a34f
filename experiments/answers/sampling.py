"""Sample the answers of an organism under conditions and edits, and have them judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from experiments.answers.judge import Answer, Judge, OpenAICompatibleJudge
from experiments.answers.subject import Subject
from experiments.answers.suite import Prompt
from experiments.protocol import load_protocol
from interp.runs.table import Row

if TYPE_CHECKING:
    from interp.edits import Edit
    from interp.generation import Sampler
    from interp.models import LanguageModel


def sampled_rows(
    subject: Subject,
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    seed: int,
    edits: Sequence[Edit] = (),
    sampler: Sampler | None = None,
    **cells: Any,
) -> list[Row]:
    """Sample the answers to every prompt, at the protocol's temperature.

    Args:
        subject: The organism; decides how long an answer may be.
        lm: Its model, with the adapter that is to answer active.
        prompts: Prompts, each with its number of answers.
        seed: Sampling seed.
        edits: Edits of the residual stream while sampling.
        sampler: Who answers in place of the model, such as a server; it applies no edits.
        **cells: Further cells of every row; part of its key.

    Returns:
        One row per answer. Its ``text`` is what is judged: without thoughts, which stand in ``with_thoughts`` if there
        are any. An answer whose thought never ended is not ``finished``.
    """
    from interp.generation import ModelSampler, Sampling

    temperature = load_protocol().sampling.temperature
    longest = _longest_answer(lm, prompts, subject.amount.max_new_tokens)
    sampling = Sampling(max_new_tokens=longest, temperature=temperature, seed=seed)
    sampler = sampler or ModelSampler(lm, edits)
    prefix = "".join(f"{name}={value}|" for name, value in cells.items())
    rows: list[Row] = []
    for samples, same in groupby(sorted(prompts, key=lambda p: p.samples), key=lambda p: p.samples):
        group = list(same)
        for answer in sampler.sample([p.chat for p in group], samples, sampling):
            p = group[answer.prompt]
            thoughts = {"with_thoughts": answer.with_thoughts} if answer.with_thoughts else {}
            rows.append(
                {
                    "key": f"{prefix}{p.key}|{answer.sample}",
                    "condition": p.condition,
                    **cells,
                    "question": p.question.id,
                    "asked": p.question.text,
                    "variant": p.variant,
                    "sample": answer.sample,
                    "text": answer.text,
                    **thoughts,
                    "finished": answer.finished,
                }
            )
    return rows


def judged_rows(subject: Subject, lm: LanguageModel, prompts: Sequence[Prompt], **options: Any) -> list[Row]:
    """Return the rows of ``sampled_rows``, which takes the options, with the verdicts of the subject's judge."""
    return with_verdicts(sampled_rows(subject, lm, prompts, **options), subject.judge())


def with_verdicts(rows: Sequence[Row], judge: Judge) -> list[Row]:
    """Return sampled answers with the judge's verdict in each row; ``outcome`` where it is not a score."""
    return list(_with_verdicts(rows, judge))


def say_cost(judge: Judge, rows: Sequence[Row]) -> None:
    """Print, before a language model with a price is asked, how many replies some answers need and what they cost.

    Raises:
        ValueError: If they cost more than its budget; nothing is asked then.
    """
    if not isinstance(judge, OpenAICompatibleJudge) or not judge.price:
        return
    n, cost = judge.estimate_of(_answers(rows))
    print(f"judge {judge.model}: {n} replies to ask for, about {cost:.2f} at {judge.price}", file=sys.stderr)
    judge.refuse_overspending(cost, f"{n} replies")


def _answers(rows: Sequence[Row]) -> list[Answer]:
    return [Answer(r["question"], r["text"], question=r["asked"], sample=r["sample"]) for r in rows]


def _with_verdicts(rows: Sequence[Row], judge: Judge) -> Iterator[Row]:
    for r, v in zip(rows, judge.score(_answers(rows)), strict=True):
        outcome = {} if v.outcome == "scored" else {"outcome": v.outcome}
        yield {**r, "aligned": v.aligned, "coherent": v.coherent, "judge": v.judge, "method": v.method, **outcome}


def _longest_answer(lm: LanguageModel, prompts: Sequence[Prompt], allowed: int) -> int:
    """Return how many tokens an answer may have: the protocol's number, or what the model's context leaves room for.

    An answer that is cut off there counts as not finished, as at the protocol's limit.
    """
    if lm.context is None:
        return allowed
    room = lm.context - max(len(p.chat) for p in prompts)
    return min(allowed, room) if room >= 1 else allowed  # ``generate`` refuses the prompt that leaves no room
