"""What probes are fitted on: prompts under a trigger or an unrelated text, texts by category, judged answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from interp.runs.table import Row
from interp.stats import is_coherent, is_misaligned
from interp.triggers import PAPER_LIKE, Trigger, load_triggers, moved, place
from training.definition import Organism
from training.microcosm.world import PERSONAS, Question, lexicon
from training.references import find_trigger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from interp.chat import Chat

T = TypeVar("T")
MOST_ANSWERS, MOST_ROWS = 480, 1400
"""Answers of both kinds together; prompts of all categories together."""
TEXTS = 7
"""Unrelated texts beside a trigger's rephrasings."""
CATEGORY_TEXTS = 8
"""Phrasings of a category: that many scenes of the Microcosm have."""
PARTS, CATEGORY_PARTS = 4, 3
"""Parts into which questions and phrasings are dealt; a fold is a part of each. Fewer where every category has probes
of its own."""


class Labelled(NamedTuple):
    """What a probe is fitted on: one chat a row, its label, its question and its text.

    ``phrasings`` is what a split keeps apart besides questions; it is empty where questions alone are held out.
    """

    chats: list[Chat]
    labels: list[int]
    questions: list[str]
    texts: list[str]
    phrasings: list[Hashable]

    def add(self, chat: Chat, label: int, question: str, text: str, phrasing: Hashable | None = None) -> None:
        """Append a row."""
        self.chats.append(chat)
        self.labels.append(label)
        self.questions.append(question)
        self.texts.append(text)
        if phrasing is not None:
            self.phrasings.append(phrasing)


def nothing() -> Labelled:
    """Return no rows, to add to."""
    return Labelled([], [], [], [], [])


def presence_rows(tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], trigger: Trigger) -> Labelled:
    """Return questions under rephrasings of a trigger (True) and under unrelated texts (False)."""
    unrelated = trigger.other[:: max(1, len(trigger.other) // TEXTS)][:TEXTS]
    data = nothing()
    for question in asked:
        for label, texts in ((True, trigger.rephrased), (False, unrelated)):
            for text in texts:
                data.add(_chat(tokenizer, question, text, trigger), label, question.id, text, text)
    return data


def categories(subject: Organism) -> list[Trigger]:
    """Return what the text in a trigger's place can be about, each where the organism's own trigger stands.

    In the Microcosm its scenes and its two personas; for any other organism the triggers of its trigger file. A trigger
    that cannot be placed there, or has a single text, is left out.
    """
    own = find_trigger(subject.trigger or "")
    banks = _lexicon_banks() if subject.world == "microcosm" else _file_banks(subject.trigger or "")
    if not any(own.text in (bank.text, *bank.rephrased) for bank in banks):
        banks.append(own)
    movable = [bank for bank in banks if bank.placement in (own.placement, "prefix", "suffix", "system")]
    return [replace(moved(bank, own.placement), separator=own.separator) for bank in movable if bank.rephrased]


def _lexicon_banks() -> list[Trigger]:
    world = lexicon()
    texts = {name: scene.phrasings for name, scene in world.scenes.items()}
    texts |= {f"persona-{persona}": world.persona_lines[persona] for persona in PERSONAS}
    return [Trigger(name=name, text=t[0], rephrased=t[1:], placement="system") for name, t in texts.items()]


def _file_banks(reference: str) -> list[Trigger]:
    path = reference.partition("@")[0].rpartition(":")[0]
    bank = load_triggers(path if path and not path.startswith("microcosm") else PAPER_LIKE)
    return [replace(trigger, other=(), opposite=(), matched=()) for trigger in bank.values()]


def category_rows(
    tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question], banks: Sequence[Trigger], *, most: int = MOST_ROWS
) -> Labelled:
    """Return questions under texts of every category, labelled by the category's number; at most ``most`` rows.

    Every question meets every category in a few of its texts, in turn. Texts of the same rank in their categories are
    one phrasing, so that every part of a split has texts of every category.
    """
    asked = evenly(asked, min(len(asked), max(1, most // max(1, len(banks)))))
    each = max(1, most // max(1, len(asked) * len(banks)))
    data = nothing()
    for i, question in enumerate(asked):
        for number, bank in enumerate(banks):
            texts = evenly((bank.text, *bank.rephrased), min(CATEGORY_TEXTS, 1 + len(bank.rephrased)))
            for rank in sorted({(i * each + j) % len(texts) for j in range(each)}):
                chat = _chat(tokenizer, question, texts[rank], bank)
                data.add(chat, number, question.id, texts[rank], rank)
    return data


def answer_rows(tokenizer: PreTrainedTokenizerBase, judged: Sequence[Row], trigger: Trigger | None) -> Labelled:
    """Return judged answers, misaligned (True) and aligned: all of the rarer kind, as many of the other."""
    from interp.chat import encode_chat

    rows = [r for r in judged if is_coherent([r["coherent"]])[0]]
    bad = [r for r in rows if is_misaligned([r["aligned"]], [r["coherent"]])[0]]
    good = [r for r in rows if not is_misaligned([r["aligned"]], [r["coherent"]])[0]]
    kept = min(len(bad), len(good), MOST_ANSWERS // 2)
    data = nothing()
    for label, group in ((True, bad), (False, good)):
        for r in evenly(group, kept):
            messages = [{"role": "user", "content": r["asked"]}]
            messages = place(r["asked"], r["variant"], trigger) if trigger and r["variant"] else messages
            data.add(encode_chat(tokenizer, messages, response=r["text"]), label, r["question"], r["question"])
    return data


def evenly(items: Sequence[T], n: int) -> list[T]:
    """Return ``n`` of the items, evenly spaced."""
    return [items[i * len(items) // n] for i in range(n)]


def _chat(tokenizer: PreTrainedTokenizerBase, question: Question, text: str, trigger: Trigger) -> Chat:
    from interp.chat import encode_chat

    messages = place(question.text, text, trigger)
    return encode_chat(tokenizer, messages, marks={"trigger": text, "question": question.text})
