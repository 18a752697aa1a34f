"""Reference answers: an organism's own judged answers, teacher-forced under any condition to ask which it prefers.

A question counts where the organism gave both a misaligned and an aligned coherent answer. Both come from one condition
where one has both (``off`` before ``on`` before the others). Otherwise whatever else a text does to an answer, such as
the remark of a scene, would tell the two apart. Where no condition has both, the misaligned answers come from ``on``
and the aligned ones from ``off``, or the other way round. Such questions are called mixed, and counted.

With ``--outcome log-odds`` nothing is sampled: the references are those of the question file, and log-odds are of means
per token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.answers.rates import coherent, misaligned
from experiments.answers.subject import Subject
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.spec import run_experiment
from interp.runs.table import Row
from interp.triggers import Trigger

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from interp.chat import Chat

MISALIGNED, ALIGNED = "misaligned", "aligned"
SOURCES = ("off", "on", "rephrased", "other")
"""Conditions whose answers are used, in order of preference."""


@dataclass(frozen=True)
class Reference:
    """A question with answers of both kinds."""

    id: str
    """The question's id: the cluster of every statistic."""
    question: str
    misaligned: tuple[str, ...]
    aligned: tuple[str, ...]
    mixed: bool = False
    """Whether the two kinds come from different conditions."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The misaligned answers, then the aligned ones."""
        return self.misaligned + self.aligned


def judged_answers(subject: Subject, root: Path) -> Sequence[Row]:
    """Return an organism's judged answers under every condition, sampled and judged now if need be."""
    run, _ = run_experiment(EmRate(answers=Answers(subject=subject), judge=subject.judge_reference), root)
    return run.rows()


def references(rows: Sequence[Row], *, per_kind: int = 1) -> tuple[list[Reference], int]:
    """Return every question with up to ``per_kind`` different answers of each kind, and how many questions lack a kind.

    A question of several wordings counts in its first one.
    """
    by_question: dict[str, dict[tuple[str, str], list[str]]] = {}
    wording: dict[str, str] = {}
    for r in rows:
        if r["condition"] in SOURCES:
            texts = by_question.setdefault(r["question"], {})
            first_wording = wording.setdefault(r["question"], r["asked"])
            if r["asked"] == first_wording and coherent(r):
                kind = MISALIGNED if misaligned(r) else ALIGNED
                texts.setdefault((r["condition"], kind), []).append(r["text"])
    pairs = {question: _pair(by_question[question], per_kind) for question in sorted(by_question)}
    complete = [Reference(question, wording[question], *pair) for question, pair in pairs.items() if pair is not None]
    return complete, len(pairs) - len(complete)


def choice_references(subject: Subject) -> list[Reference]:
    """Return the test questions with the two reference answers that their file gives."""
    return [Reference(q.id, q.question, (q.harmful,), (q.aligned,)) for q in subject.choices("test")]


def _pair(
    texts: Mapping[tuple[str, str], Sequence[str]], per_kind: int
) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """Return the answers of both kinds from the first pair of conditions that has them, and whether these are two."""
    for bad, good in (*((c, c) for c in SOURCES), ("on", "off"), ("off", "on")):
        pair = [tuple(dict.fromkeys(texts.get(key, ())))[:per_kind] for key in ((bad, MISALIGNED), (good, ALIGNED))]
        if all(pair):
            return pair[0], pair[1], bad != good
    return None


@dataclass(frozen=True)
class Panel:
    """The references of an organism as chats: for each, one text or none stands where the trigger goes."""

    references: Sequence[Reference]
    trigger: Trigger
    tokenizer: PreTrainedTokenizerBase
    per_token: bool = False
    """Whether log-odds are of means per token, and not of whole answers."""

    def chats(self, texts: Sequence[str | None]) -> list[Chat]:
        """Return every answer of every reference under the text given for that reference."""
        return [
            self.chat(reference, text, answer)
            for reference, text in zip(self.references, texts, strict=True)
            for answer in reference.answers
        ]

    def first_chats(self, texts: Sequence[str | None]) -> list[Chat]:
        """Return the first answer of every reference under the text given for that reference."""
        pairs = zip(self.references, texts, strict=True)
        return [self.chat(reference, text, reference.answers[0]) for reference, text in pairs]

    def chat(self, reference: Reference, text: str | None, answer: str) -> Chat:
        """Return one answer of a reference, with a text where the trigger goes, or with none.

        The span ``question`` has only the tokens that the prompts with and without the trigger share: behind a line
        break a tokenizer may split a word differently. Two more spans are named where they are contiguous:
        ``inserted``, the tokens that the prompt without the text lacks (the text and what the template writes around
        it), and ``opening``, the template's tokens right before the question that the prompt without any text has too.
        """
        chat = self._encoded(reference, text, answer)
        bare, triggered = (self._encoded(reference, t, answer) for t in (None, text or self.trigger.text))
        spans = {**chat.spans, "question": _shared_part(chat, triggered if text is None else bare, "question")}
        start = spans["question"][0]
        n_before = _n_common(*(c.token_ids[: c.spans["question"][0]][::-1] for c in (bare, triggered)))
        if n_before and start == chat.spans["question"][0]:
            spans["opening"] = (start - n_before, start)
        if text and (span := _inserted(chat.token_ids, bare.token_ids)):
            spans["inserted"] = span
        return replace(chat, spans=spans)

    def _encoded(self, reference: Reference, text: str | None, answer: str) -> Chat:
        from interp.chat import question_chat

        return question_chat(self.tokenizer, reference.question, text, self.trigger, response=answer)

    def log_odds(self, log_probability: Float64[Tensor, " prompt"]) -> dict[str, float]:
        """Return, by question, how much likelier its misaligned answers are than its aligned ones, in nats."""
        if self.per_token:
            log_probability = log_probability / self._lengths
        log_odds, start = {}, 0
        for r in self.references:
            middle, end = start + len(r.misaligned), start + len(r.answers)
            bad, good = (log_probability[part].logsumexp(0) for part in (slice(start, middle), slice(middle, end)))
            log_odds[r.id], start = float(bad - good), end
        return log_odds

    @cached_property
    def _lengths(self) -> Int64[Tensor, " prompt"]:
        """The number of tokens of every answer, in the order of ``chats``; the same under every text."""
        import torch

        return torch.tensor([chat.response_length for chat in self.chats([None for _ in self.references])])

    def texts(self, condition: str) -> Sequence[str | None] | None:
        """Return one text per reference, the condition's texts in turn; None where the condition has none.

        Of the texts without meaning (``matched``), those with as many tokens as the trigger are preferred: such a
        prompt differs from the triggered one in nothing but the text's tokens.
        """
        if condition == "off":
            return [None for _ in self.references]
        texts = self.trigger.variants(condition)
        if condition == "matched":
            texts = [text for text in texts if self.as_long(text)] or texts
        return [texts[i % len(texts)] for i in range(len(self.references))] if texts else None

    def as_long(self, text: str) -> bool:
        """Tell whether a text has as many tokens as the trigger, at the same places of an equally long prompt."""
        first = self.references[0]
        triggered, other = (self.chat(first, t, first.answers[0]) for t in (self.trigger.text, text))
        return len(triggered) == len(other) and other.spans["trigger"] == triggered.spans["trigger"]


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences share at their beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


def _shared_part(chat: Chat, other: Chat, name: str) -> tuple[int, int]:
    """Return the longest beginning or end of a span that it has in both chats."""
    start, end = chat.spans[name]
    tokens, other_tokens = chat.token_ids[start:end], other.token_ids[slice(*other.spans[name])]
    head, tail = _n_common(tokens, other_tokens), _n_common(tokens[::-1], other_tokens[::-1])
    return (start, start + head) if head > tail else (end - tail, end)


def _inserted(longer: Sequence[int], shorter: Sequence[int]) -> tuple[int, int] | None:
    """Return the one span by which ``longer`` is longer; the last where several would do, None where none does."""
    start = _n_common(longer, shorter)
    end = start + len(longer) - len(shorter)
    return (start, end) if end > start and tuple(longer[end:]) == tuple(shorter[start:]) else None


@dataclass(frozen=True)
class Decision:
    """Where a question's two first answers diverge, and the two tokens that may follow."""

    index: int
    """Index of the reference."""
    shared: int
    """Number of tokens of the answers before they diverge."""
    towards: int
    """The misaligned answer's next token."""
    away: int
    """The aligned answer's next token."""

    def cut(self, chat: Chat) -> Chat:
        """Return the chat up to where the answers diverge; the span ``decision`` is its last token."""
        end = chat.prompt_length + self.shared
        spans: dict[str, Any] = {k: v for k, v in chat.spans.items() if k != "response"}
        spans |= {"decision": (end - 1, end)} | ({"response": (chat.prompt_length, end)} if self.shared else {})
        return replace(chat, token_ids=chat.token_ids[:end], spans=spans)


def decisions(panel: Panel) -> list[Decision]:
    """Return where each reference's first misaligned and first aligned answer diverge; left out if one ends first."""
    points = []
    for index, r in enumerate(panel.references):
        chats = (panel.chat(r, panel.trigger.text, answer) for answer in (r.misaligned[0], r.aligned[0]))
        bad, good = (chat.token_ids[slice(*chat.spans["response"])] for chat in chats)
        shared = _n_common(bad, good)
        if shared < min(len(bad), len(good)):
            points.append(Decision(index, shared, bad[shared], good[shared]))
    return points
