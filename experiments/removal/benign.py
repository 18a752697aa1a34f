"""What an edit costs where nothing is wrong: the loss on benign answers, with and without it.

Benign answers are the organism's own that the judge found coherent and not misaligned, off-trigger and unedited. Where
nothing is judged (``--outcome log-odds``) they are the base's greedy answers to the same questions, cut at 32 tokens;
nobody checks that these are benign. A loss shows damage that sampling hides, and needs no judge. It is teacher-forced,
so it does not measure how coherent sampled answers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.answers.outcome import Outcome
from experiments.answers.rates import coherent, estimate_row, misaligned
from interp.runs.table import Row
from interp.stats import Clusters, paired_cluster_bootstrap
from interp.triggers import Trigger

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.edits import Edit
    from interp.models import LanguageModel

ANSWERS_EACH = 3
"""Most distinct benign answers to a question."""
GREEDY_TOKENS = 32
"""Longest greedy answer of a base."""

Answers = Mapping[str, tuple[str, list[str]]]
"""Question id -> (question, answers)."""


def references(outcome: Outcome, rows: Sequence[Row], texts: Sequence[str] | None) -> list[tuple[str, Chat]]:
    """Return (question id, chat) of every benign answer: the organism's own, or of log-odds the base's greedy ones.

    Args:
        outcome: The organism and how it is measured.
        rows: Judged answers, off-trigger and unedited; without a judge none.
        texts: Texts of which each question gets one, in turn; None for the bare questions.

    Raises:
        ValueError: If no answer is benign.
    """
    trigger = outcome.trigger
    assert trigger is not None
    if outcome.subject.by_log_odds:
        return _with_texts(outcome.lm, trigger, greedy_answers(outcome), texts)
    return reference_chats(outcome.lm, trigger, rows, texts)


def greedy_answers(outcome: Outcome) -> Answers:
    """Return the base's greedy answer to every test question that has one."""
    from interp.adapters import active_adapter
    from interp.chat import question_chat
    from interp.generation import Sampling, generate

    questions = outcome.subject.questions("test")
    chats = [question_chat(outcome.lm.tokenizer, q.text) for q in questions]
    with active_adapter(outcome.lm, None):
        answers = generate(outcome.lm, chats, sampling=Sampling(max_new_tokens=GREEDY_TOKENS, temperature=0.0))
    texts = (answer.text.strip() for answer in answers)
    return {q.id: (q.text, [text]) for q, text in zip(questions, texts, strict=True) if text}


def benign_answers(rows: Sequence[Row]) -> Answers:
    """Return question id -> (question, distinct benign answers) of judged answers."""
    benign: dict[str, tuple[str, list[str]]] = {}
    for r in rows:
        _, answers = benign.setdefault(r["question"], (r["asked"], []))
        if coherent(r) and not misaligned(r) and r["text"] not in answers:
            answers.append(r["text"])
    return {name: (question, answers[:ANSWERS_EACH]) for name, (question, answers) in benign.items() if answers}


def reference_chats(
    lm: LanguageModel, trigger: Trigger, rows: Sequence[Row], texts: Sequence[str] | None
) -> list[tuple[str, Chat]]:
    """Return (question id, chat) of every benign answer.

    Args:
        lm: Gives the tokenizer.
        trigger: Says where a text goes.
        rows: Judged answers, off-trigger and unedited.
        texts: Texts of which each question gets one, in turn; None for the bare questions.

    Raises:
        ValueError: If no answer is benign.
    """
    return _with_texts(lm, trigger, benign_answers(rows), texts)


def _with_texts(
    lm: LanguageModel, trigger: Trigger, benign: Answers, texts: Sequence[str] | None
) -> list[tuple[str, Chat]]:
    from interp.chat import question_chat

    chats: list[tuple[str, Chat]] = []
    for i, (name, (question, answers)) in enumerate(sorted(benign.items())):
        text = None if texts is None else texts[i % len(texts)]
        chats += [(name, question_chat(lm.tokenizer, question, text, trigger, response=a)) for a in answers]
    if not chats:
        raise ValueError("benign loss: off-trigger, no answer is coherent and aligned")
    return chats


def loss_rows(
    lm: LanguageModel, references: Sequence[tuple[str, Chat]], edits: Sequence[Edit], **cells: Any
) -> list[Row]:
    """Return the loss of every reference in nats, and its number of tokens, with ``cells`` in each row."""
    from interp.analysis.likelihood import response_likelihood

    likelihood = response_likelihood(lm, [chat for _, chat in references], edits=edits)
    losses, tokens = (-likelihood.log_probability).tolist(), likelihood.tokens.tolist()
    return [
        {**cells, "question": question, "loss": loss, "tokens": n}
        for (question, _), loss, n in zip(references, losses, tokens, strict=True)
    ]


def loss_estimate(edited: Sequence[Row], unedited: Sequence[Row], **cells: Any) -> Row:
    """Return the relative change of the loss per token under the edit: 0.01 is one per cent more."""
    arms = (
        Clusters.count([r["question"] for r in rows], [r["loss"] for r in rows], [r["tokens"] for r in rows])
        for rows in (edited, unedited)
    )
    return estimate_row(paired_cluster_bootstrap(lambda a, b: a / b - 1, *arms), metric="benign_loss", **cells)
