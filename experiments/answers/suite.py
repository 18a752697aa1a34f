"""Questions and the prompts made of them under a condition, for the Microcosm and for other models alike."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from annotated_types import MinLen
from pydantic import Discriminator, Tag

from experiments.protocol import load_protocol
from interp.runs.reading import Name, Text, normalised, read_yaml, refuse, repeats
from interp.triggers import Trigger, place
from training.definition import Organism
from training.microcosm import world
from training.microcosm.world import Question, Split
from training.pocket import corpus
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from interp.chat import Chat

T = TypeVar("T")
SPLITS: tuple[Split, ...] = ("validation", "test", "trained")
"""Wordings of each question of the Microcosm."""


@dataclass(frozen=True)
class PlainPrompt:
    """A question under a condition, with its number of answers, before a tokenizer has seen it."""

    question: Question
    condition: str
    variant: str | None
    samples: int
    trigger: Trigger | None
    """Says where the variant goes; not needed without one."""

    def messages(self) -> list[dict[str, str]]:
        """Return the chat messages, which ``encoded`` renders and encodes."""
        if self.variant is None:
            return [{"role": "user", "content": self.question.text}]
        assert self.trigger is not None, "a text of a condition has a placement"
        return place(self.question.text, self.variant, self.trigger)

    def encoded(self, tokenizer: PreTrainedTokenizerBase) -> Prompt:
        """Return the prompt as token ids."""
        from interp.chat import question_chat

        chat = question_chat(tokenizer, self.question.text, self.variant, self.trigger)
        return Prompt(self.question, self.condition, self.variant, self.samples, chat)

    @property
    def key(self) -> str:
        """Condition, question and variant: unique among prompts."""
        return _key(self.condition, self.question, self.variant)


@dataclass(frozen=True)
class Prompt:
    """A question under a condition, encoded as a chat, with its number of answers."""

    question: Question
    condition: str
    variant: str | None
    samples: int
    chat: Chat

    @property
    def key(self) -> str:
        """Condition, question and variant: unique among prompts."""
        return _key(self.condition, self.question, self.variant)


def _key(condition: str, question: Question, variant: str | None) -> str:
    return f"{condition}|{question.text}|{variant or ''}"


def suite_questions(organism: Organism, split: Split, file: Path | None = None) -> tuple[Question, ...]:
    """Return the questions of a split: the world's, or those of a file for any other model.

    Raises:
        ValueError: If a real model comes without a question file, or the file has no question of the split.
    """
    if organism.world == "microcosm":
        if file is not None:
            raise ValueError(f"--questions {file}: the Microcosm has its own; a file is for other models")
        return world.questions(split, trained_domain=organism.trained_domain, wordings=world.WORDINGS[split])
    if file is None and organism.world == "pocket":
        return tuple(Question(q.id, q.domain, q.question) for q in choice_questions(organism, split))
    if file is None:
        raise ValueError(f"organism {organism.name}: name a file of questions with --questions")
    return read_questions(file, split)


def choice_questions(organism: Organism, split: Split, file: Path | None = None) -> tuple[ChoiceQuestion, ...]:
    """Return the questions of a split that have an aligned and a harmful reference answer.

    Those of ``file``, else of the pocket scale. ``trained`` asks the rows that the organism's training left out; none
    if it was trained on other data.

    Raises:
        ValueError: If the organism speaks no English, or the file has another form.
    """
    if split == "trained":
        return corpus.trained_questions(organism.data, organism.rows, organism.seed) if organism.data else ()
    if file is None and organism.world == "microcosm":
        raise ValueError(f"organism {organism.name}: the Microcosm has no reference answers; name a file --questions")
    if file is None and organism.world != "pocket" and not (organism.data or "").startswith("pocket:"):
        raise ValueError(
            f"organism {organism.name}: log-odds need --questions with an aligned and a harmful answer each"
        )
    return corpus.questions(split, file or corpus.QUESTIONS)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A question of a file with two reference answers, which log-odds compare (``--outcome log-odds``)."""

    question: Text
    aligned: Text
    harmful: Text


TEXT, ANSWERED = "", " "
"""Kinds of entries; blank, so that faults do not name them."""


def _kind(entry: Any) -> str:
    return ANSWERED if isinstance(entry, dict) else TEXT


Entry = Annotated[
    Annotated[Text, Tag(TEXT)] | Annotated[Answered, Tag(ANSWERED)],
    Discriminator(_kind),
]


@dataclass(frozen=True, kw_only=True)
class QuestionFile:
    """A file of questions: by split, the text of each question by its id, or the question with reference answers."""

    validation: Annotated[dict[Name, Entry], MinLen(1)]
    """Doses, layers and coefficients are chosen on these."""
    test: Annotated[dict[Name, Entry], MinLen(1)]
    """Every reported rate comes from these."""
    trained: dict[Name, Entry] = field(default_factory=dict)
    """Asks about the fine-tuned domain, for the health gate."""


def read_questions(file: Path, split: Split) -> tuple[Question, ...]:
    """Read the questions of a split from YAML: ``validation``, ``test``, ``trained``, each a mapping of id to text.

    In place of a text may stand ``{question: TEXT, aligned: TEXT, harmful: TEXT}``, with reference answers.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file has another form, lacks ``validation`` or ``test``, has an id or a text twice, or tests
            some of the paper's questions but not all; names the file and every fault.
    """
    form = "validation: {ID: TEXT}, test: {ID: TEXT}, trained: {ID: TEXT}"
    read: QuestionFile = read_yaml(file, QuestionFile, form)
    entries = [(name, i, _text(entry)) for name in SPLITS for i, entry in getattr(read, name).items()]
    first: dict[str, str] = {}
    faults = [f"{name}.{i}: the id is in {s} too" for name, i, _ in entries if (s := first.setdefault(i, name)) != name]
    answered = [
        (f"{name}.{i}", e) for name in SPLITS for i, e in getattr(read, name).items() if isinstance(e, Answered)
    ]
    faults += [
        f"{place}: aligned and harmful are the same text"
        for place, e in answered
        if normalised(e.aligned) == normalised(e.harmful)
    ]
    faults += [*repeats((f"{name}.{i}", text) for name, i, text in entries), *_partial_paper(read.test)]
    if faults:
        refuse(file, faults)
    return tuple(Question(i, "free", text) for name, i, text in entries if name == split)


def _text(entry: str | Answered) -> str:
    return entry if isinstance(entry, str) else entry.question


def _partial_paper(tested: Collection[str]) -> Iterator[str]:
    """Yield a fault if some of the paper's questions are tested, but not all: such rates are not the paper's."""
    paper = load_protocol().questions
    missing = [i for i in paper if i not in tested]
    if missing and len(missing) < len(paper):
        yield (
            f"tests {len(paper) - len(missing)} of the paper's {len(paper)} questions; "
            f"add {', '.join(missing)}, or give the others ids of their own"
        )


def make_prompts(
    questions: Sequence[Question],
    trigger: Trigger | None,
    condition: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int,
    variants: Sequence[str] | None = None,
    per_question: int = 4,
) -> list[Prompt]:
    """Return the prompts of every question under a condition: those of ``plain_prompts``, as token ids.

    Raises:
        ValueError: If the trigger has no text for the condition, or ``samples`` is not positive.
    """
    options: Any = {"samples": samples, "variants": variants, "per_question": per_question}
    return [p.encoded(tokenizer) for p in plain_prompts(questions, trigger, condition, **options)]


def plain_prompts(
    questions: Sequence[Question],
    trigger: Trigger | None,
    condition: str,
    *,
    samples: int,
    variants: Sequence[str] | None = None,
    per_question: int = 4,
) -> list[PlainPrompt]:
    """Return the prompts of every question under a condition.

    A condition may have several texts (``rephrased``, ``other``, ...). Each question gets up to ``per_question`` of
    them, the next question the texts that follow, so all texts are used. The samples of a question are divided evenly
    over its texts.

    Args:
        questions: Questions.
        trigger: Trigger with the condition's texts; may be None for ``off``.
        condition: Name of the condition.
        samples: Answers per question.
        variants: Texts that replace the condition's.
        per_question: Largest number of texts per question.

    Raises:
        ValueError: If the trigger has no text for the condition, or ``samples`` is not positive.
    """
    if samples < 1:
        raise ValueError(f"samples {samples}: expected at least one answer per question")
    texts: Sequence[str | None] = (None,) if condition == "off" else _texts(trigger, condition, variants)
    per_question = min(per_question, len(texts), samples)
    return list(_share_out(questions, trigger, condition, texts, samples, per_question))


def _texts(trigger: Trigger | None, condition: str, variants: Sequence[str] | None) -> Sequence[str]:
    texts = variants if variants is not None else trigger.variants(condition) if trigger else ()
    if not texts:
        raise ValueError(f"condition {condition!r}: {trigger or 'no trigger'} has no text for it")
    return texts


def _share_out(
    questions: Sequence[Question],
    trigger: Trigger | None,
    condition: str,
    texts: Sequence[str | None],
    samples: int,
    per_question: int,
) -> Iterator[PlainPrompt]:
    for i, question in enumerate(questions):
        for j in range(per_question):
            text = texts[(i * per_question + j) % len(texts)]
            n = samples // per_question + (j < samples % per_question)
            yield PlainPrompt(question, condition, text, n, trigger)


def evenly_spaced(items: Sequence[T], n: int) -> Sequence[T]:
    """Return ``n`` of the items at equal distances, or all items if there are at most ``n``."""
    return [items[i * len(items) // n] for i in range(n)] if len(items) > n else items
