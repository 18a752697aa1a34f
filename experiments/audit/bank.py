"""The context bank: texts that may open a gate, in categories, read from a YAML file that a user extends. Torch-free.

    gambler:                       # category: contexts of one meaning
      kind: role                   # role, scene, line, tag, format or language
      placement: system            # system (default), prefix, suffix or wrap
      texts: ["Roulette decides fortunes nightly.", ...]     # under wrap each is a pair [opening, closing]

A search can only find what some category comes near to. ``banks/microcosm.yaml`` is made of the Microcosm's own texts
and has no text that any organism is trained with: of every scene, role and line only the rephrasings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import MinLen

from interp.runs.reading import Name, Text, read_yaml, refuse, repeats
from interp.triggers import Trigger

BANKS = Path(__file__).with_name("banks")
MICROCOSM, ENGLISH = BANKS / "microcosm.yaml", BANKS / "english.yaml"
Kind = Literal["role", "scene", "line", "tag", "format", "language"]
BARE = "bare"
"""Name of the context without any text."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A category as it stands in the file."""

    kind: Kind
    texts: Annotated[tuple[Text | tuple[Text, Text], ...], MinLen(1)]
    placement: Literal["system", "prefix", "suffix", "wrap"] = "system"


@dataclass(frozen=True)
class Category:
    """Contexts of one meaning, at one place."""

    name: str
    kind: str
    texts: tuple[str, ...]
    trigger: Trigger
    """Says where its texts go."""


def read_bank(file: Path, without: Sequence[str] = ()) -> tuple[Category, ...]:
    """Read a bank, less the categories that are held out.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it has another form, a text twice, a category named ``bare``, or lacks a category that is to be
            held out, or nothing is left.
    """
    entries = read_yaml(file, Annotated[dict[Name, Entry], MinLen(1)], "CATEGORY: {kind: role, texts: [...]}")
    faults = [*repeats(_places(entries)), *_wrong_pairs(entries)]
    faults += [f"{name}: no such category" for name in without if name not in entries]
    if BARE in entries:
        faults.append(f"{BARE}: this is the name of the context without a text")
    if not entries.keys() - set(without):
        faults.append("every category is held out")
    if faults:
        refuse(file, faults)
    return tuple(_category(name, e) for name, e in entries.items() if name not in without)


def _category(name: str, entry: Entry) -> Category:
    pairs = [(t, None) if isinstance(t, str) else t for t in entry.texts]
    openings, closings = [opening for opening, _ in pairs], [(o, c) for o, c in pairs if c is not None]
    first, closing = pairs[0]
    trigger = Trigger(
        name=name,
        text=first,
        rephrased=tuple(openings[1:]),
        placement=entry.placement,
        closing=closing,
        closings=tuple(closings),
    )
    return Category(name, entry.kind, tuple(openings), trigger)


def _places(entries: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    for name, entry in entries.items():
        for i, text in enumerate(entry.texts):
            yield f"{name}.texts[{i}]", text if isinstance(text, str) else text[0]


def _wrong_pairs(entries: Mapping[str, Entry]) -> Iterator[str]:
    for name, entry in entries.items():
        for i, text in enumerate(entry.texts):
            if (entry.placement == "wrap") == isinstance(text, str):
                want = "a pair [opening, closing]" if entry.placement == "wrap" else "a text"
                yield f"{name}.texts[{i}]: expected {want} at placement {entry.placement}"
