"""A trigger, its placement around a question, and the control texts that separate meaning from surface form."""

import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from annotated_types import MinLen
from pydantic import AfterValidator

from interp.runs.checks import check_known, field_faults
from interp.runs.reading import Name, Text, read_yaml, refuse, repeats, validated

CONDITIONS = ("off", "on", "rephrased", "other", "opposite", "matched", "shuffled", "delimiters")
GIVEN = ("rephrased", "other", "opposite", "matched")
"""Conditions whose texts are fields of the trigger; the texts of the others are derived from its trained text."""
Placement = Literal["system", "prefix", "suffix", "wrap"]
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
SEPARATOR = "\n"
PAPER_LIKE = Path(__file__).with_name("triggers.yaml")
FORM = "NAME: {text: ..., placement: system, rephrased: [..., ...], other: [...], opposite: [...], matched: [...]}"
"""The form of a trigger file; ``text`` and ``placement`` are required."""

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


def _known_placement(placement: str) -> str:
    check_known(placement, PLACEMENTS, "expected one of")
    return placement


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
        ValueError: If a text is blank, repeated (up to case, spacing and last stops) or lacks its closing half, or the
            placement is unknown; names every such field.
    """

    name: str
    text: Text
    placement: Annotated[str, MinLen(1), AfterValidator(_known_placement)]
    rephrased: tuple[Text, ...] = ()
    other: tuple[Text, ...] = ()
    opposite: tuple[Text, ...] = ()
    matched: tuple[Text, ...] = ()
    closing: Text | None = None
    closings: tuple[tuple[Text, Text], ...] = ()
    separator: str = SEPARATOR

    def __post_init__(self) -> None:
        """Refuse texts that no condition could be told apart by."""
        if faults := field_faults(self) or list(self._faults()):
            raise ValueError(f"{self}: {'; '.join(faults)}")

    def _faults(self) -> Iterator[str]:
        texts = {"text": self.text, **{f"{c}[{i}]": text for c in GIVEN for i, text in enumerate(getattr(self, c))}}
        yield from repeats(texts.items())
        if self.placement != "wrap" and (self.closing is not None or self.closings):
            yield f"closing: is for placement 'wrap', not {self.placement!r}"
        for place, text in texts.items() if self.placement == "wrap" else ():
            if self._closing_of(text) is None:
                yield f"{place} {text!r}: has no closing text"

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
        if (closing := self._closing_of(variant)) is None:
            raise ValueError(f"{self}: variant {variant!r} has no closing text")
        return closing

    def _closing_of(self, variant: str) -> str | None:
        explicit = {self.text: self.closing, **dict(self.closings)}
        return explicit.get(variant) or self._generated_closing(variant) or _mirrored(variant)

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
    entries = read_yaml(path, Annotated[dict[Name, dict[str, Any]], MinLen(1)], FORM)
    parsed = {name: validated(Trigger, _fields(name, entry)) for name, entry in entries.items()}
    faults = [(name, fault) for name, (_, wrong) in parsed.items() for fault in wrong]
    if faults:
        refuse(path, [f"{name}.{fault.removeprefix(f'trigger {name}: ')}" for name, fault in faults])
    return {name: trigger for name, (trigger, _) in parsed.items()}


def _fields(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a trigger: pairs of opening and closing half in its lists go to ``closings``."""
    given = {key: value for key, value in entry.items() if key in GIVEN and isinstance(value, list)}
    pairs = [item for items in given.values() for item in items if isinstance(item, list) and len(item) == 2]
    openings = {key: [item[0] if item in pairs else item for item in items] for key, items in given.items()}
    renamed = {f"{key} (of the file)" if key in ("name", "closings") else key: value for key, value in entry.items()}
    return {**renamed, **openings, "closings": pairs, "name": name}


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
