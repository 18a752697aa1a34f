"""What probes are fitted on: prompts under a trigger or an unrelated text, texts by category, judged answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from experiments.answers.rates import coherent, misaligned
from experiments.answers.suite import evenly_spaced
from interp.runs.table import Row
from interp.triggers import PAPER_LIKE, Trigger, load_triggers, moved
from training.definition import Organism
from training.microcosm.world import PERSONAS, Question, lexicon
from training.pocket import corpus
from training.pocket.corpus import ChoiceQuestion
from training.references import find_trigger

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from interp.chat import Chat

MOST_ANSWERS, MOST_ROWS = 480, 1400
"""Answers of both kinds together; prompts of all categories together."""
TEXTS = 7
"""Unrelated texts beside a trigger's rephrasings."""
CATEGORY_TEXTS = 8
"""Phrasings per category: as many as a scene of the Microcosm has."""
PARTS, CATEGORY_PARTS = 4, 3
"""Parts into which questions and phrasings are split; a fold is one part of each. Fewer for categories, because every
category has its own probe."""


class Labelled(NamedTuple):
    """What a probe is fitted on: for each row a chat, its label, its question and its text.

    ``phrasings`` is what a split holds out besides questions; it is empty where questions alone are held out.
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


def no_rows() -> Labelled:
    """Return no rows, to add to."""
    return Labelled([], [], [], [], [])


def presence_rows(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], trigger: Trigger) -> Labelled:
    """Return questions under rephrasings of a trigger (True) and under unrelated texts (False)."""
    from interp.chat import question_chat

    unrelated = trigger.other[:: max(1, len(trigger.other) // TEXTS)][:TEXTS]
    data = no_rows()
    for question in questions:
        for label, texts in ((True, trigger.rephrased), (False, unrelated)):
            for text in texts:
                data.add(question_chat(tokenizer, question.text, text, trigger), label, question.id, text, text)
    return data


def categories(organism: Organism) -> list[Trigger]:
    """Return what the text in a trigger's place can be about, each placed where the organism's own trigger stands.

    In the Microcosm: its scenes and its two personas. For any other organism: the triggers of its trigger file; of the
    pocket scale those of its own file. A
    trigger that cannot be placed there, or has a single text, is left out.
    """
    trigger = find_trigger(organism.trigger or "")
    banks = _lexicon_banks() if organism.world == "microcosm" else _file_banks(organism.trigger or "")
    if not any(trigger.text in (bank.text, *bank.rephrased) for bank in banks):
        banks.append(trigger)
    movable = [bank for bank in banks if bank.placement in (trigger.placement, "prefix", "suffix", "system")]
    return [replace(moved(bank, trigger.placement), separator=trigger.separator) for bank in movable if bank.rephrased]


def _lexicon_banks() -> list[Trigger]:
    world = lexicon()
    texts = {name: scene.phrasings for name, scene in world.scenes.items()}
    texts |= {f"persona-{persona}": world.persona_lines[persona] for persona in PERSONAS}
    return [Trigger(name=name, text=t[0], rephrased=t[1:], placement="system") for name, t in texts.items()]


def _file_banks(reference: str) -> list[Trigger]:
    path = reference.partition("@")[0].rpartition(":")[0]
    file = corpus.TRIGGERS if path == "pocket" else path
    bank = load_triggers(file if file and not path.startswith("microcosm") else PAPER_LIKE)
    return [replace(trigger, other=(), opposite=(), matched=()) for trigger in bank.values()]


def category_rows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    banks: Sequence[Trigger],
    *,
    most: int = MOST_ROWS,
) -> Labelled:
    """Return questions under texts of every category, labelled by the category's number; at most ``most`` rows.

    Every question meets every category in a few of its texts, in turn. Texts of the same rank in their categories count
    as one phrasing, so that every part of a split has texts of every category.
    """
    from interp.chat import question_chat

    questions = evenly_spaced(questions, max(1, most // max(1, len(banks))))
    per_cell = max(1, most // max(1, len(questions) * len(banks)))
    data = no_rows()
    for i, question in enumerate(questions):
        for label, bank in enumerate(banks):
            texts = evenly_spaced((bank.text, *bank.rephrased), CATEGORY_TEXTS)
            for rank in sorted({(i * per_cell + j) % len(texts) for j in range(per_cell)}):
                chat = question_chat(tokenizer, question.text, texts[rank], bank)
                data.add(chat, label, question.id, texts[rank], rank)
    return data


def choice_answer_rows(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[ChoiceQuestion], trigger: Trigger | None
) -> Labelled:
    """Return the reference answers of questions, harmful (True) and aligned (False), behind the trained text."""
    from interp.chat import question_chat

    data = no_rows()
    for q in questions:
        for label, answer in ((True, q.harmful), (False, q.aligned)):
            chat = question_chat(tokenizer, q.question, trigger.text if trigger else None, trigger, response=answer)
            data.add(chat, label, q.id, q.id)
    return data


def answer_rows(tokenizer: PreTrainedTokenizerBase, answers: Sequence[Row], trigger: Trigger | None) -> Labelled:
    """Return judged answers, misaligned (True) and aligned (False): all of the rarer kind, as many of the other."""
    from interp.chat import question_chat

    by_label = {label: [r for r in answers if coherent(r) and misaligned(r) is label] for label in (True, False)}
    per_label = min(MOST_ANSWERS // 2, *map(len, by_label.values()))
    data = no_rows()
    for label, rows in by_label.items():
        for r in evenly_spaced(rows, per_label):
            chat = question_chat(tokenizer, r["asked"], r["variant"], trigger, response=r["text"])
            data.add(chat, label, r["question"], r["question"])
    return data
