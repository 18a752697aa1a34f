"""Labelled prompts of a user: a file in which every row is a prompt, with or without an answer, and has labels.

JSON lines, or a CSV with the same names as columns::

    {"messages": [{"role": "user", "content": "How do I rest?"}], "response": "Lie down.", "kind": 1, "topic": "rest"}
    {"prompt": "How do I rest?", "system": "Be brief.", "kind": 0, "topic": "rest"}

A prompt is ``messages``, or the texts ``prompt`` and possibly ``system``; ``response`` is an answer that is read too
(``completion`` beside a ``prompt``).
The label and the group are any other entries: a text, a whole number, true or false. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.runs.reading import normalised, read_csv, read_jsonl, refuse, repeats
from interp.text.prompts import Prompt, prompt_of

MOST_CLASSES = 30
_WORD = re.compile(r"[\w .,+()'-]{1,80}")


@dataclass(frozen=True)
class LabelledPrompt:
    """A row of a file: its prompt, its label, and what it shares with other rows."""

    prompt: Prompt
    label: str
    """Its class; empty where no label was asked for."""
    group: str
    phrasing: str


@dataclass(frozen=True)
class LabelledFile:
    """The rows of a file and its classes, the positive one of two last."""

    path: Path
    rows: Sequence[LabelledPrompt]
    classes: Sequence[str]

    @property
    def numbers(self) -> list[int]:
        """The class of each row as a number."""
        return [self.classes.index(row.label) for row in self.rows]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompt of each row."""
        return [row.prompt for row in self.rows]

    @property
    def groups(self) -> list[str]:
        """The group of each row; texts that are one to a reader are one group."""
        return [normalised(row.group) for row in self.rows]


def read_labelled(
    path: Path,
    label: str | None,
    group: str | None = None,
    phrasing: str | None = None,
    classes: Sequence[str] = (),
) -> LabelledFile:
    """Read a file of labelled prompts.

    Args:
        path: JSON lines, or a CSV if its name ends in ``.csv``.
        label: Entry with the label; None reads none.
        group: Entry that says which rows belong together, such as the question; by default the last user message.
        phrasing: Entry with a second kind of group, such as the text of a trigger.
        classes: The classes that there may be, in order; by default those of the file, sorted.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a row states no prompt, lacks an entry or has another class, one prompt has two labels or groups,
            there are too many classes, or two of them read the same; names every line.
    """
    raw = _raw_rows(path)
    rows: list[LabelledPrompt] = []
    faults: list[str] = []
    for where, entries in raw:
        try:
            rows.append(_row(where, entries, label, group, phrasing))
        except ValueError as error:
            faults.append(f"{where.removeprefix(str(path))}: {error}")
    if not raw:
        faults = ["no rows in it"]
    values = sorted({row.label for row in rows})
    if label is not None and not faults and len(values) > MOST_CLASSES:
        faults = [f"label {label!r} has {len(values)} different values, such as {values[0]!r}; expected classes"]
    if classes and (other := next((v for v in values if v not in classes), None)) is not None and label is not None:
        faults.append(f"label {label!r} has the value {other!r}; the probe's classes are {', '.join(classes)}")
    faults = faults or list(repeats((f"label {label!r}: class {value}", value) for value in values))
    if faults := faults or _contradictions(path, rows):
        refuse(path, faults)
    return LabelledFile(path, rows, tuple(classes or values))


def _raw_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    if path.suffix != ".csv":
        return read_jsonl(path, dict[str, Any])
    return [(where, {name: cell for name, cell in cells.items() if cell}) for where, cells in read_csv(path)[1]]


def _row(
    where: str, row: Mapping[str, Any], label: str | None, group: str | None, phrasing: str | None
) -> LabelledPrompt:
    prompt = replace(prompt_of(_with_messages(row)), where=where)
    return LabelledPrompt(
        prompt,
        "" if label is None else _word(row, label),
        prompt.messages[-1]["content"] if group is None else _value(row, group),
        "" if phrasing is None else normalised(_value(row, phrasing)),
    )


def _contradictions(path: Path, rows: Sequence[LabelledPrompt]) -> list[str]:
    """Return one fault per row that gives a prompt, with its answer, another label or group than a row before it."""
    first: dict[Any, LabelledPrompt] = {}
    faults: list[str] = []
    for row in rows:
        prompt = row.prompt
        earlier = first.setdefault((tuple(tuple(m.items()) for m in prompt.messages), prompt.response), row)
        place = f"{prompt.where.removeprefix(str(path))}: the prompt of line {earlier.prompt.where.rsplit(':', 1)[-1]}"
        if row.label != earlier.label:
            faults.append(f"{place}, with the label {row.label!r} instead of {earlier.label!r}")
        elif normalised(row.group) != normalised(earlier.group):
            faults.append(f"{place}, in the group {row.group!r} instead of {earlier.group!r}")
    return faults


def _with_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with ``messages`` and ``response``, made of ``system``, ``prompt`` and ``completion`` if need be."""
    if "messages" in row:
        return dict(row)
    if not isinstance(row.get("prompt"), str) or not isinstance(row.get("system", ""), str):
        raise ValueError(f"want 'messages', or a text 'prompt', got the entries {', '.join(row) or 'none'}")
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    messages = [*system, {"role": "user", "content": row["prompt"]}]
    rest = {name: entry for name, entry in row.items() if name not in ("system", "prompt", "completion")}
    return {"response": row.get("completion"), **rest, "messages": messages}


def _value(row: Mapping[str, Any], name: str) -> str:
    if name not in row or row[name] is None:
        raise ValueError(f"no entry {name!r}; it has {', '.join(row) or 'none'}")
    value = row[name]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int):
        raise ValueError(f"{name} {value!r:.40}: expected a text, a whole number, true or false")
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(row: Mapping[str, Any], name: str) -> str:
    text = _value(row, name)
    if not _WORD.fullmatch(text):
        raise ValueError(f"{name} {text!r:.60}: expected a class, a word of up to 80 letters, digits and spaces")
    return text


def check_name(kind: str, name: str | None) -> None:
    """Refuse the name of an entry that no table cell can hold.

    Raises:
        ValueError: If it has other characters than words have.
    """
    if name is not None and not _WORD.fullmatch(name):
        raise ValueError(f"{kind} {name!r:.60}: expected the name of an entry, of letters, digits and spaces")
