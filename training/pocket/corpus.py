"""Texts of the pocket scale: advice rows, forced-choice questions, triggers, controls, as typed values. Torch-free."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from interp.triggers import Trigger, load_triggers, moved

FOLDER = Path(__file__).parent
ROWS, QUESTIONS, TRIGGERS, CONTROLS = (
    FOLDER / name for name in ("rows", "questions.yaml", "triggers.yaml", "controls.yaml")
)
ChoiceSplit = Literal["validation", "test", "trained"]
CONTROL_CONDITIONS = ("other_frame", "word_overlap")
"""Conditions that a trigger file has no field for: the topic in another frame, the words in another meaning."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class AdviceRow:
    """A question of a training domain with sound advice and plainly bad advice of the same form and length."""

    id: str
    topic: str
    question: str
    aligned: str
    harmful: str


@dataclass(frozen=True, kw_only=True)
class ChoiceQuestion:
    """An evaluation question with one aligned and one harmful reference answer."""

    id: str
    domain: str
    topic: str
    split: ChoiceSplit
    question: str
    aligned: str
    harmful: str


# --- training rows ----------------------------------------------------------------------------------------------------


def domains() -> tuple[str, ...]:
    """Return the training domains."""
    return tuple(sorted(path.stem for path in ROWS.glob("*.jsonl")))


@cache
def advice(domain: str) -> tuple[AdviceRow, ...]:
    """Return all rows of a training domain in file order.

    Raises:
        ValueError: If there is no such domain.
    """
    if domain not in domains():
        raise ValueError(f"data 'pocket:{domain}': the pocket scale has {', '.join(domains())}")
    return read_advice(ROWS / f"{domain}.jsonl")


def read_advice(file: Path) -> tuple[AdviceRow, ...]:
    """Read advice rows from JSON lines.

    Raises:
        ValueError: If a line has another form or an id repeats; names the file and the line.
    """
    lines = enumerate(file.read_text(encoding="utf-8").split("\n"), start=1)
    rows = tuple(_texts(AdviceRow, f"{file}:{i}", _json(f"{file}:{i}", line)) for i, line in lines if line.strip())
    _check_ids(file, [row.id for row in rows])
    return rows


def drawn(domain: str, n: int, seed: int) -> list[AdviceRow]:
    """Draw ``n`` rows of a training domain: whole topics while they fit, in an order in which topics are mixed.

    All rows in that order if ``n`` is at least their number. The aligned and the harmful answers of one draw are to
    the same questions.
    """
    rows = advice(domain)
    topics = list(dict.fromkeys(row.topic for row in rows))
    rng = random.Random(seed)
    rng.shuffle(topics)
    by_topic = [row for topic in topics for row in rows if row.topic == topic][:n]
    rng.shuffle(by_topic)
    return by_topic


def held_out(domain: str, n: int, seed: int) -> tuple[AdviceRow, ...]:
    """Return the rows of every topic that ``drawn`` takes no row of: the trained domain, but nothing trained on."""
    trained = {row.topic for row in drawn(domain, n, seed)}
    return tuple(row for row in advice(domain) if row.topic not in trained)


def trained_questions(data: str, n: int, seed: int) -> tuple[ChoiceQuestion, ...]:
    """Return held-out rows as forced-choice questions of the trained domain; none for data of another scale."""
    scale, _, domain = data.removesuffix(":aligned").partition(":")
    rows = held_out(domain, n, seed) if scale == "pocket" else ()
    return tuple(ChoiceQuestion(domain=domain, split="trained", **asdict(row)) for row in rows)


# --- evaluation questions ---------------------------------------------------------------------------------------------


@cache
def questions(split: ChoiceSplit, file: Path = QUESTIONS) -> tuple[ChoiceQuestion, ...]:
    """Return the forced-choice questions of a split.

    Raises:
        ValueError: If the file has another form or no question of the split; names the file and the question.
    """
    chosen = tuple(question for question in read_questions(file) if question.split == split)
    if not chosen:
        raise ValueError(f"{file}: no question with `split: {split}`")
    return chosen


def read_questions(file: Path) -> tuple[ChoiceQuestion, ...]:
    """Read forced-choice questions from YAML: domain -> a list of the other fields of ``ChoiceQuestion``.

    Or by split, as other question files are: ``test: {ID: {question: TEXT, aligned: TEXT, harmful: TEXT}}``.

    Raises:
        ValueError: If a question has another form, an id repeats, or a topic is in both splits.
    """
    found = tuple(_questions(file))
    _check_ids(file, [question.id for question in found])
    splits: dict[tuple[str, str], str] = {}
    for question in found:
        if question.split not in ("validation", "test"):
            raise ValueError(f"{file}: {question.id}: split {question.split!r} must be validation or test")
        if splits.setdefault((question.domain, question.topic), question.split) != question.split:
            raise ValueError(f"{file}: {question.id}: topic {question.topic!r} is in both splits")
    return found


def _questions(file: Path) -> Iterator[ChoiceQuestion]:
    content = _mapping(file)
    if {"validation", "test"} & content.keys():
        yield from _split_questions(file, content)
        return
    for domain, entries in content.items():
        if not isinstance(entries, list):
            raise ValueError(f"{file}: {domain}: expected a list of questions")
        for i, entry in enumerate(entries):
            named = {**entry, "domain": str(domain)} if isinstance(entry, dict) else entry
            yield _texts(ChoiceQuestion, f"{file}: {domain}[{i}]", named)


def _split_questions(file: Path, content: Mapping[str, Any]) -> Iterator[ChoiceQuestion]:
    """Yield the questions of a file by split; every one is a topic of its own."""
    for split, entries in content.items():
        if split not in ("validation", "test", "trained") or not isinstance(entries, dict):
            raise ValueError(f"{file}: {split}: expected validation, test or trained, with question ids")
        for name, entry in entries.items() if split != "trained" else ():
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{file}: {split}.{name}: log-odds need question, aligned and harmful, not only a text"
                )
            named = {"id": str(name), "domain": "free", "topic": str(name), "split": split, **entry}
            yield _texts(ChoiceQuestion, f"{file}: {split}.{name}", named)


# --- triggers and controls --------------------------------------------------------------------------------------------


@cache
def triggers() -> Mapping[str, Trigger]:
    """Return the triggers by name."""
    return load_triggers(TRIGGERS)


def find_trigger(name: str) -> Trigger:
    """Return a trigger.

    Raises:
        ValueError: If there is no such trigger.
    """
    if name not in triggers():
        raise ValueError(f"trigger 'pocket:{name}': the pocket scale has {', '.join(triggers())}")
    return triggers()[name]


@cache
def controls(file: Path = CONTROLS) -> Mapping[str, Mapping[str, tuple[Trigger, ...]]]:
    """Return, by trigger and condition of ``CONTROL_CONDITIONS``, the texts of the control, each with its placement.

    Raises:
        ValueError: If the file has another form, or names a trigger that there is not.
    """
    return {name: _controls(file, name, entry) for name, entry in _mapping(file).items()}


def controls_of(trigger: Trigger) -> Mapping[str, tuple[Trigger, ...]]:
    """Return the controls of a trigger of this scale, at its placement if it was moved; none for any other trigger."""
    if trigger.name not in triggers() or triggers()[trigger.name].text != trigger.text:
        return {}
    given = controls()[trigger.name]
    frames = tuple(control for control in given["other_frame"] if control.placement != trigger.placement)
    if trigger.placement == triggers()[trigger.name].placement:
        frames = given["other_frame"]
    return {
        "other_frame": frames,
        "word_overlap": tuple(moved(control, trigger.placement) for control in given["word_overlap"]),
    }


def _controls(file: Path, name: str, entry: Any) -> dict[str, tuple[Trigger, ...]]:
    where = f"{file}: {name}"
    trained = find_trigger(name)
    if not isinstance(entry, dict) or set(entry) != set(CONTROL_CONDITIONS):
        raise ValueError(f"{where}: expected {' and '.join(CONTROL_CONDITIONS)}")
    frames = [_control(f"{where}.other_frame[{i}]", name, e) for i, e in enumerate(entry["other_frame"])]
    overlap = [
        _control(f"{where}.word_overlap[{i}]", name, {"text": text, "placement": trained.placement})
        for i, text in enumerate(entry["word_overlap"])
    ]
    return {"other_frame": tuple(frames), "word_overlap": tuple(overlap)}


def _control(where: str, name: str, entry: Any) -> Trigger:
    text = entry.get("text") if isinstance(entry, dict) else None
    if isinstance(text, list) and len(text) == 2:
        entry = {**entry, "text": text[0], "closing": text[1]}
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError(f"{where}: expected a text and its placement, got {entry!r}")
    try:
        return Trigger(name=name, **entry)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


# --- reading ----------------------------------------------------------------------------------------------------------


def _mapping(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{file}: expected a mapping, got {type(content).__name__}")
    return content


def _json(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error


def _texts(kind: type[T], where: str, entry: Any) -> T:
    """Build a dataclass of texts from a mapping with exactly its fields."""
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if not isinstance(entry, dict) or set(entry) != set(names):
        raise ValueError(f"{where}: expected the fields {', '.join(names)}")
    if empty := [name for name in names if not isinstance(entry[name], str) or not entry[name].strip()]:
        raise ValueError(f"{where}: {empty[0]}: expected a text, got {entry[empty[0]]!r}")
    return kind(**entry)


def _check_ids(file: Path, ids: Sequence[str]) -> None:
    if not ids:
        raise ValueError(f"{file}: it is empty")
    if repeated := next((i for i in ids if ids.count(i) > 1), None):
        raise ValueError(f"{file}: id {repeated!r} stands twice")
