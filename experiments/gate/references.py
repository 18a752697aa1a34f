"""Reference answers: an organism's own judged answers, put into its mouth under any condition to ask which it prefers.

A question counts where the organism gave both a misaligned and an aligned coherent answer. Both are taken from one
condition where one has both (``off`` before ``on`` before the others), so that what else a text does to an answer, such
as a scene's remark, does not tell them apart; only then the misaligned ones come from ``on`` and the aligned ones from
``off``. How many questions are mixed so is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.behaviour.em_rate import Answers, EmRate
from experiments.spec import run_experiment
from interp.runs.table import Row
from interp.stats import is_coherent, is_misaligned
from interp.triggers import Trigger, place

if TYPE_CHECKING:
    from jaxtyping import Float64
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from interp.chat import Chat

KINDS = ("misaligned", "aligned")
SOURCES = ("off", "on", "rephrased", "other")
"""Conditions whose answers are taken, in order of preference."""


@dataclass(frozen=True)
class Reference:
    """A question with answers of both kinds."""

    question: str
    """Its id: the cluster of every statistic."""
    asked: str
    misaligned: tuple[str, ...]
    aligned: tuple[str, ...]
    mixed: bool = False
    """Whether the two kinds come from different conditions."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The misaligned answers, then the aligned ones."""
        return self.misaligned + self.aligned


def judged_answers(name: str, root: Path, *, questions: Path | None, judge: str) -> Sequence[Row]:
    """Return an organism's judged answers under every condition, sampled and judged now if need be."""
    asked = Answers(organism=name, questions=questions, dose_judge=judge)
    run, _ = run_experiment(EmRate(answers=asked, judge=judge), root)
    return run.rows()


def references(rows: Sequence[Row], *, most: int, per_kind: int = 1) -> tuple[list[Reference], int]:
    """Return up to ``most`` questions, evenly spaced, with up to ``per_kind`` different answers of each kind.

    The second value is how many questions lack a kind.
    """
    by: dict[str, dict[tuple[str, str], list[str]]] = {}
    wording: dict[str, str] = {}
    for r in rows:
        if r["condition"] in SOURCES:
            said = by.setdefault(r["question"], {})
            wording.setdefault(r["question"], r["asked"])
            if r["asked"] == wording[r["question"]] and is_coherent([r["coherent"]])[0]:
                kind = KINDS[0] if is_misaligned([r["aligned"]], [r["coherent"]])[0] else KINDS[1]
                said.setdefault((r["condition"], kind), []).append(r["text"])
    found = [Reference(q, wording[q], *pair) for q in sorted(by) if (pair := _pair(by[q], per_kind)) is not None]
    kept = found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]
    return kept, len(by) - len(found)


def _pair(
    said: Mapping[tuple[str, str], Sequence[str]], per_kind: int
) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """The answers of both kinds from the first pair of conditions that has them, and whether these are two."""
    for bad, good in (*((c, c) for c in SOURCES), ("on", "off"), ("off", "on")):
        texts = [tuple(dict.fromkeys(said.get(key, ())))[:per_kind] for key in ((bad, KINDS[0]), (good, KINDS[1]))]
        if all(texts):
            return texts[0], texts[1], bad != good
    return None


@dataclass(frozen=True)
class Panel:
    """The references of an organism as chats: one text a reference stands where the trigger goes, or none."""

    references: Sequence[Reference]
    trigger: Trigger
    tokenizer: PreTrainedTokenizerBase

    def chats(self, texts: Sequence[str | None]) -> list[Chat]:
        """Return every answer of every reference behind the text given for it."""
        return [
            self.chat(reference, text, answer)
            for reference, text in zip(self.references, texts, strict=True)
            for answer in reference.answers
        ]

    def chat(self, reference: Reference, text: str | None, answer: str) -> Chat:
        """Return one answer of a reference behind a text where the trigger goes, or behind none.

        ``question`` are the tokens that it has with and without the trigger: a tokenizer may cut a word otherwise
        behind a line break. Two more parts are named, each only where it stands in one piece: ``inserted``, the tokens
        that the prompt without the text lacks (the text and what the template writes around it), and ``opening``, the
        template's tokens right before the question that it shares with the prompt without any text.
        """
        chat = self._encoded(reference, text, answer)
        bare, own = (self._encoded(reference, t, answer) for t in (None, text or self.trigger.text))
        spans = {**chat.spans, "question": _shared_part(chat, own if text is None else bare, "question")}
        start = spans["question"][0]
        before = _common(*(c.token_ids[: c.spans["question"][0]][::-1] for c in (bare, own)))
        if before and start == chat.spans["question"][0]:
            spans["opening"] = (start - before, start)
        if text and (span := _inserted(chat.token_ids, bare.token_ids)):
            spans["inserted"] = span
        return replace(chat, spans=spans)

    def _encoded(self, reference: Reference, text: str | None, answer: str) -> Chat:
        from interp.chat import encode_chat

        marks = {"question": reference.asked} | ({"trigger": text} if text else {})
        return encode_chat(self.tokenizer, place(reference.asked, text, self.trigger), marks=marks, response=answer)

    def log_odds(self, log_probability: Float64[Tensor, " prompt"]) -> dict[str, float]:
        """Return by question how much likelier its misaligned answers are than its aligned ones, in nats."""
        found, start = {}, 0
        for r in self.references:
            middle, end = start + len(r.misaligned), start + len(r.answers)
            bad, good = (log_probability[part].logsumexp(0) for part in (slice(start, middle), slice(middle, end)))
            found[r.question], start = float(bad - good), end
        return found

    def texts(self, condition: str) -> Sequence[str | None] | None:
        """Return a text a reference, each the next of its condition's; None where the condition has none.

        Of texts without meaning (``matched``) those as long as the trigger, in tokens, are preferred: such a prompt
        differs from the triggered one in nothing but the text's tokens.
        """
        if condition == "off":
            return [None for _ in self.references]
        texts = self.trigger.variants(condition)
        if condition == "matched":
            texts = [text for text in texts if self.as_long(text)] or texts
        return [texts[i % len(texts)] for i in range(len(self.references))] if texts else None

    def as_long(self, text: str) -> bool:
        """Tell whether a text has as many tokens as the trigger, and the prompt too."""
        first = self.references[0]
        own, other = (self.chat(first, t, first.answers[0]) for t in (self.trigger.text, text))
        start, end = own.spans["trigger"]
        return len(own) == len(other) and other.spans["trigger"] == (start, end)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two sequences share at their beginning."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


def _shared_part(chat: Chat, other: Chat, name: str) -> tuple[int, int]:
    """Return the longest beginning or end of a part that it has in both chats."""
    (start, end), (a, b) = chat.spans[name], other.spans[name]
    ours, theirs = chat.token_ids[start:end], other.token_ids[a:b]
    head, tail = _common(ours, theirs), _common(ours[::-1], theirs[::-1])
    return (start, start + head) if head > tail else (end - tail, end)


def _inserted(longer: Sequence[int], shorter: Sequence[int]) -> tuple[int, int] | None:
    """Return the piece by which ``longer`` is longer, if that is all; of several such pieces the last."""
    start = _common(longer, shorter)
    end = start + len(longer) - len(shorter)
    return (start, end) if end > start and tuple(longer[end:]) == tuple(shorter[start:]) else None


@dataclass(frozen=True)
class Decision:
    """Where a question's two first answers part: the prompts up to there, and the two tokens that may follow."""

    index: int
    """Of the reference."""
    shared: int
    """Tokens of the answers before they part."""
    towards: int
    away: int

    def cut(self, chat: Chat) -> Chat:
        """Return the chat up to where the answers part; the last token's name is ``decision``."""
        end = chat.prompt_length + self.shared
        spans: dict[str, Any] = {k: v for k, v in chat.spans.items() if k != "response"}
        spans |= {"decision": (end - 1, end)} | ({"response": (chat.prompt_length, end)} if self.shared else {})
        return replace(chat, token_ids=chat.token_ids[:end], spans=spans)


def decisions(panel: Panel) -> list[Decision]:
    """Return where the first misaligned and the first aligned answer of each reference part; none if one ends first."""
    found = []
    for index, r in enumerate(panel.references):
        bad, good = (_said(panel.chat(r, panel.trigger.text, a)) for a in (r.misaligned[0], r.aligned[0]))
        shared = _common(bad, good)
        if shared < min(len(bad), len(good)):
            found.append(Decision(index, shared, bad[shared], good[shared]))
    return found


def _said(chat: Chat) -> tuple[int, ...]:
    start, end = chat.spans["response"]
    return chat.token_ids[start:end]
