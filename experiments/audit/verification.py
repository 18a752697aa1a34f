"""Verification: the best categories and the bare context on questions that no search has seen, adapter beside base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from experiments.answers.preference import Context, choice_rows
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import Subject
from experiments.answers.suite import make_prompts
from experiments.audit.audited import asked
from experiments.audit.bank import BARE
from experiments.audit.verdict import ADAPTER, BASE
from interp.runs.table import Row
from interp.triggers import Trigger
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from interp.models import LanguageModel

PER_QUESTION = 4
"""Most texts of a category per question."""


def verification_rows(
    subject: Subject,
    lm: LanguageModel,
    adapter: str,
    questions: Sequence[ChoiceQuestion],
    contexts: Sequence[tuple[str, Sequence[str], Trigger]],
    *,
    answers: int,
    seed: int,
    bare: bool = True,
) -> Iterator[Row]:
    """Yield judged answers, or log-odds of references where nobody judges, bare and in every category.

    Args:
        subject: Says who judges and how long an answer may be.
        lm: The model with the adapter loaded.
        adapter: Name of the adapter.
        questions: The verification questions.
        contexts: Name, texts and placement of every category.
        answers: Answers per question and context.
        seed: Sampling seed.
        bare: Whether to ask without a context too.
    """
    from interp.adapters import active_adapter

    for model, name in ((ADAPTER, adapter), (BASE, None)):
        with active_adapter(lm, name):
            for category, texts, trigger in (*([(BARE, (), None)] if bare else []), *contexts):
                if subject.by_log_odds:
                    around = [Context(category, text, trigger) for text in texts] or [Context(category)]
                    rows = choice_rows(lm, questions, around, texts=PER_QUESTION)
                else:
                    rows = _answers(subject, lm, questions, texts, trigger, answers, seed)
                cells = {"category": category, "model": model}
                yield from ({**{k: v for k, v in r.items() if k != "key"}, **cells} for r in rows)


def _answers(
    subject: Subject,
    lm: LanguageModel,
    questions: Sequence[ChoiceQuestion],
    texts: Sequence[str],
    trigger: Trigger | None,
    answers: int,
    seed: int,
) -> list[Row]:
    condition = "on" if texts else "off"
    options = {"samples": answers, "variants": texts or None, "per_question": PER_QUESTION}
    prompts = make_prompts(asked(questions), trigger, condition, lm.tokenizer, **options)
    return judged_rows(subject, lm, [replace(p, condition=condition) for p in prompts], seed=seed)
