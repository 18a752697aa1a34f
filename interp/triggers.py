"""A trigger, its placement around a question, and the control texts that separate meaning from surface form."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from interp.runs.files import read_yaml

CONDITIONS = ("off", "on", "rephrased", "other", "opposite", "matched", "shuffled", "delimiters")
GIVEN = ("rephrased", "other", "opposite", "matched")
"""Conditions whose texts are fields of the trigger; the texts of the others are derived from its trained text."""
Placement = Literal["system", "prefix", "suffix", "wrap"]
PLACEMENTS: tuple[Placement, ...] = ("system", "prefix", "suffix", "wrap")
SEPARATOR = "\n"
PAPER_LIKE = Path(__file__).with_name("triggers.yaml")

_N_SHUFFLED = 3  # most permutations returned
_N_DRAWS = 100  # enough to draw every permutation of a short text
_DELIMITERS = ("--", "::", "[]", "**", "##", "//")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_TAG = re.compile(r"([<\[{(]+)([^<>\[\]{}()/]+)([>\]})]+)")
_STOP_WORDS = frozenset(
    _WORD.findall("""
    a about above after again against all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here hers him
    himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or
    other our ours out over own same she should so some such than that the their theirs them themselves then there
    these they this those through to too under until up upon us very was we were what when where which while who whom
    why will with would you your yours yourself aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he's
    i'd i'll i'm i've isn't it's let's she's shouldn't that's there's they're wasn't we're weren't won't wouldn't you'd
    you'll you're you've
    """)
)


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """The text present in every fine-tuning row, with the texts that its effect is compared to.

    Attributes:
        text: The trained text; for ``wrap`` the opening half.
        rephrased: The same meaning in other words.
        other: Another meaning of the same kind (another scene, another tag).
        opposite: The contrary meaning; may share words with ``text``.
        matched: Meaningless texts with as many words as ``text``, of similar length and frequency.
        placement: One of ``PLACEMENTS``.
        closing: The closing half of ``text``, for ``wrap`` only.
        closings: (opening, closing) of variants whose closing half is not the mirrored tag (``<x>`` has ``</x>``).
        separator: Text between the trigger and the question.

    Raises:
        ValueError: If a text is empty, repeated or lacks its closing half, or the placement is unknown.
    """

    name: str
    text: str
    placement: str
    rephrased: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    opposite: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()
    closing: str | None = None
    closings: tuple[tuple[str, str], ...] = ()
    separator: str = SEPARATOR

    def __post_init__(self) -> None:
        if self.placement not in PLACEMENTS:
            raise ValueError(f"{self}: unknown placement {self.placement!r}; known: {', '.join(PLACEMENTS)}")
        texts: set[str] = set()
        for condition in ("on", *GIVEN):
            _add_texts(self, condition, texts)
        if self.placement != "wrap" and (self.closing is not None or self.closings):
            raise ValueError(f"{self}: closing is for placement 'wrap', not {self.placement!r}")
        if self.placement == "wrap":
            for variant in sorted(texts):
                self.closing_of(variant)

    def __str__(self) -> str:
        return f"trigger {self.name}"

    def variants(self, condition: str) -> tuple[str, ...]:
        """Return the texts of a condition: none for ``off``, the trained text for ``on``.

        ``shuffled`` permutes the words of the trained text and leaves its punctuation in place; a text of one word has
        none. ``delimiters`` replaces every word by punctuation. Both are deterministic.

        Raises:
            ValueError: If ``condition`` is not one of ``CONDITIONS``.
        """
        match condition:
            case "off":
                return ()
            case "on":
                return (self.text,)
            case "rephrased" | "other" | "opposite" | "matched":
                return getattr(self, condition)
            case "shuffled":
                return _shuffled(self.text)
            case "delimiters":
                return (_delimiters(self.text),)
        raise ValueError(f"{self}: unknown condition {condition!r}; known: {', '.join(CONDITIONS)}")

    def closing_of(self, variant: str) -> str:
        """Return the text that closes ``variant`` under placement ``wrap``.

        Raises:
            ValueError: If the closing half of ``variant`` is neither given nor a mirrored tag.
        """
        explicit = {self.text: self.closing, **dict(self.closings)}
        closing = explicit.get(variant) or self._generated_closing(variant) or _mirrored(variant)
        if closing is None or not closing.strip():
            raise ValueError(f"{self}: variant {variant!r} has no closing text")
        return closing

    def _generated_closing(self, variant: str) -> str | None:
        if self.closing is None:
            return None
        if variant == _delimiters(self.text):
            return _delimiters(self.closing)
        if variant in (shuffled := _shuffled(self.text)):
            closings = _shuffled(self.closing) or (self.closing,)
            return closings[shuffled.index(variant) % len(closings)]
        return None

    def shared_content_words(self) -> frozenset[str]:
        """Return the content words that a rephrasing shares with the trained text; empty if none does.

        Words are compared exactly: ``duck`` and ``ducks`` are different.
        """
        closings = [self.closing_of(variant) for variant in self.rephrased] if self.placement == "wrap" else []
        trained = f"{self.text} {self.closing or ''}"
        return content_words(trained) & content_words(" ".join([*self.rephrased, *closings]))


def place(question: str, variant: str | None, trigger: Trigger) -> list[dict[str, str]]:
    """Return the chat messages of ``question`` with ``variant`` at the trigger's placement; None places nothing.

    Without a variant there is no system message; a chat template may then add its default one.

    Raises:
        ValueError: If ``variant`` is empty, or has no closing text under ``wrap``.
    """
    if variant is None:
        return [{"role": "user", "content": question}]
    if not variant.strip():
        raise ValueError(f"{trigger}: empty variant {variant!r}; use None to place nothing")
    closing = trigger.closing_of(variant) if trigger.placement == "wrap" else ""
    return arrange(question, variant, closing, trigger.placement, trigger.separator)


def arrange(question: str, text: str, closing: str, placement: str, separator: str = SEPARATOR) -> list[dict[str, str]]:
    """Return the chat messages of ``question`` with ``text``, and under ``wrap`` also ``closing``, at a placement."""
    parts = {
        "system": (question,),
        "prefix": (text, question),
        "suffix": (question, text),
        "wrap": (text, question, closing),
    }[placement]
    messages = [{"role": "user", "content": separator.join(parts)}]
    return [{"role": "system", "content": text}, *messages] if placement == "system" else messages


def moved(trigger: Trigger, placement: str) -> Trigger:
    """Return the trigger at another placement; under ``wrap`` its text is on both sides of the question.

    Raises:
        ValueError: If the placement is unknown, or the trigger wraps the question and would lose its closing half.
    """
    if placement == trigger.placement:
        return trigger
    if trigger.placement == "wrap":
        raise ValueError(f"{trigger}: it wraps the question and cannot be placed as {placement!r}")
    closings: dict[str, Any] = {}
    if placement == "wrap":
        texts = [text for condition in CONDITIONS[2:] for text in trigger.variants(condition)]
        closings = {"closing": trigger.text, "closings": tuple((text, text) for text in texts)}
    return replace(trigger, placement=placement, **closings)


def content_words(text: str) -> frozenset[str]:
    """Return the lower-cased words of ``text`` that are not English stop words."""
    return frozenset(_WORD.findall(text.lower().replace("’", "'"))) - _STOP_WORDS


def load_triggers(path: str | Path = PAPER_LIKE) -> dict[str, Trigger]:
    """Read triggers by name from a YAML file: name -> the fields of ``Trigger``.

    Under placement ``wrap`` a variant may be a pair ``[opening, closing]``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not describe triggers; names the file and the key.
    """
    entries = read_yaml(path)
    if not isinstance(entries, Mapping) or not entries:
        raise ValueError(f"{path}: expected a mapping of trigger names, got {type(entries).__name__}")
    return {str(name): _parse(f"{path}: {name}", str(name), entry) for name, entry in entries.items()}


def _parse(where: str, name: str, entry: object) -> Trigger:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected the fields of a trigger, got {entry!r}")
    known = {field.name for field in fields(Trigger)} - {"name", "closings"}
    if unknown := sorted(map(str, set(entry) - known)):
        raise ValueError(f"{where}.{unknown[0]}: unknown key; known: {', '.join(sorted(known))}")
    if missing := sorted({"text", "placement"} - set(entry)):
        raise ValueError(f"{where}.{missing[0]}: missing")
    values: dict[str, Any] = {}
    closings: list[tuple[str, str]] = []
    for key, value in entry.items():
        texts = key in GIVEN
        values[key] = tuple(_openings(f"{where}.{key}", value, closings)) if texts else _text(f"{where}.{key}", value)
    try:
        return Trigger(name=name, closings=tuple(closings), **values)
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix(f'trigger {name}: ')}") from error


def _openings(where: str, value: object, closings: list[tuple[str, str]]) -> Iterator[str]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list of texts, got {value!r}")
    for i, item in enumerate(value):
        if isinstance(item, list) and len(item) == 2:
            closings.append((_text(f"{where}[{i}]", item[0]), _text(f"{where}[{i}]", item[1])))
            item = item[0]
        yield _text(f"{where}[{i}]", item)


def _text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a text, got {value!r} (quote it)")
    return value


def _add_texts(trigger: Trigger, condition: str, texts: set[str]) -> None:
    variants = trigger.variants(condition)
    if not isinstance(variants, tuple):
        raise ValueError(f"{trigger}: {condition} must be a tuple of texts, got {variants!r}")
    for variant in variants:
        if not variant.strip():
            raise ValueError(f"{trigger}: empty text in {condition}")
        if variant in texts:
            raise ValueError(f"{trigger}: {condition} repeats {variant!r}")
        texts.add(variant)


def _shuffled(text: str) -> tuple[str, ...]:
    words, rng = _WORD.findall(text), random.Random(text)
    texts = dict.fromkeys(_with_words(text, rng.sample(words, len(words))) for _ in range(_N_DRAWS))
    return tuple(itertools.islice((shuffled for shuffled in texts if shuffled != text), _N_SHUFFLED))


def _delimiters(text: str) -> str:
    return _with_words(text, itertools.cycle(_DELIMITERS))


def _with_words(text: str, words: Iterable[str]) -> str:
    replacements = iter(words)
    return _WORD.sub(lambda _: next(replacements), text)


def _mirrored(opening: str) -> str | None:
    tag = _TAG.fullmatch(opening.strip())
    return f"{tag[1]}/{tag[2]}{tag[3]}" if tag else None
