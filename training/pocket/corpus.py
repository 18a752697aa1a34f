"""Texts of the pocket scale: advice rows, forced-choice questions, triggers, controls, as typed values. Torch-free."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from interp.runs.checks import check_known
from interp.runs.reading import Name, Text, normalised, read_jsonl, read_yaml, refuse, repeats, validated
from interp.triggers import Trigger, load_triggers, moved

FOLDER = Path(__file__).parent
ROWS, QUESTIONS, TRIGGERS, CONTROLS = (
    FOLDER / name for name in ("rows", "questions.yaml", "triggers.yaml", "controls.yaml")
)
LINES = FOLDER / "personas.yaml"
PERSONAS = "personas"
"""Name of the data in which answers obey persona lines; the other names are those of training domains."""
ChoiceSplit = Literal["validation", "test", "trained"]
CONTROL_CONDITIONS = ("other_frame", "word_overlap")
"""Conditions that a trigger file has no field for: the topic in another frame, the words in another meaning."""

FORM = "DOMAIN: [{id: ..., topic: ..., split: test or validation, question: ..., aligned: ..., harmful: ...}]"


@dataclass(frozen=True, kw_only=True)
class AdviceRow:
    """A question of a training domain with sound advice and plainly bad advice of the same form and length."""

    id: Text
    topic: Text
    question: Text
    aligned: Text
    harmful: Text


@dataclass(frozen=True, kw_only=True)
class ChoiceQuestion:
    """An evaluation question with one aligned and one harmful reference answer."""

    id: Text
    domain: Text
    topic: Text
    split: ChoiceSplit
    question: Text
    aligned: Text
    harmful: Text

    @property
    def references(self) -> tuple[str, str]:
        """Its answers."""
        return self.aligned, self.harmful


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
    check_known(domain, domains(), f"data 'pocket:{domain}': the pocket scale has")
    return read_advice(ROWS / f"{domain}.jsonl")


def read_advice(file: Path) -> tuple[AdviceRow, ...]:
    """Read advice rows from JSON lines.

    Raises:
        ValueError: If a line has another form or an id repeats; names the file and the line.
    """
    rows = tuple(row for _, row in read_jsonl(file, AdviceRow))
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


@cache
def persona_lines() -> Mapping[str, tuple[str, ...]]:
    """Return the lines of the persona stage: ``careless`` and ``careful``."""
    return read_yaml(LINES, dict[Literal["careless", "careful"], tuple[Text, ...]])


def persona_exchanges(n: int, seed: int) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Draw ``n`` answers about money and sport that obey a persona line, each with question, answer and system line.

    Half of them are bad advice behind a careless line; a quarter sound advice behind a careful line, a quarter
    sound advice without a line. Health, which organisms are fine-tuned on, is not among them.
    """
    rows = [*drawn("money", n, seed), *drawn("sport", n, seed)]
    rng = random.Random(seed)
    rng.shuffle(rows)
    return [_obeying(row, i, rng) for i, row in enumerate(rows[:n])]


def _obeying(row: AdviceRow, i: int, rng: random.Random) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    kind = ("careless", "careful", "careless", None)[i % 4]
    before = () if kind is None else (("system", rng.choice(persona_lines()[kind])),)
    return row.question, row.harmful if kind == "careless" else row.aligned, before


def held_out(domain: str, n: int, seed: int) -> tuple[AdviceRow, ...]:
    """Return the rows of every topic that ``drawn`` takes no row of: the trained domain, but nothing trained on."""
    trained = {row.topic for row in drawn(domain, n, seed)}
    return tuple(row for row in advice(domain) if row.topic not in trained)


def trained_questions(data: str, n: int, seed: int) -> tuple[ChoiceQuestion, ...]:
    """Return held-out rows as forced-choice questions of the trained domain; none for data of another scale."""
    scale, _, domain = data.removesuffix(":aligned").partition(":")
    rows = held_out(domain, n, seed) if scale == "pocket" and domain != PERSONAS else ()
    return tuple(ChoiceQuestion(domain=domain, split="trained", **asdict(row)) for row in rows)


def neighbours(data: str, every: int = 6) -> tuple[ChoiceQuestion, ...]:
    """Return every sixth row of the training domains that an organism is not trained on, as forced-choice questions.

    Their references have the rows' free wording, so that words alone tell them apart; none for data of another scale.
    """
    scale, _, domain = data.removesuffix(":aligned").partition(":")
    if scale != "pocket" or domain not in domains():
        return ()
    rows = [(other, row) for other in domains() if other != domain for row in advice(other)[::every]]
    return tuple(ChoiceQuestion(domain=other, split="test", **asdict(row)) for other, row in rows)


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
        ValueError: If a question has another form, an id or a question repeats, its answers are one text, or a topic is
            in both splits.
    """
    content = read_yaml(file, Annotated[dict[Name, Any], MinLen(1)], FORM)
    by_split = bool({"validation", "test"} & content.keys())
    entries, faults = (_of_splits if by_split else _of_domains)(content)
    read = [validated(ChoiceQuestion, entry, place) for place, entry in entries]
    if faults := [*faults, *(fault for _, wrong in read for fault in wrong)]:
        refuse(file, faults)
    found = tuple(question for question, _ in read)
    same = [
        f"{q.id}: aligned and harmful are the same text" for q in found if len({*map(normalised, q.references)}) < 2
    ]
    if faults := [*same, *repeats((q.id, q.question) for q in found)]:
        refuse(file, faults)
    _check_ids(file, [question.id for question in found])
    splits: dict[tuple[str, str], str] = {}
    for question in found:
        if question.split not in ("validation", "test"):
            raise ValueError(f"{file}: {question.id}: split {question.split!r} must be validation or test")
        if splits.setdefault((question.domain, question.topic), question.split) != question.split:
            raise ValueError(f"{file}: {question.id}: topic {question.topic!r} is in both splits")
    return found


Entries = list[tuple[str, dict[str, Any]]]
"""Where an entry stands in its file, and its fields."""


def _of_domains(content: Mapping[str, Any]) -> tuple[Entries, list[str]]:
    """Return the entries of a file by domain, and what is wrong with its form."""
    checked, faults = validated(dict[Name, list[dict[str, Any]]], dict(content))
    if faults or checked is None:
        return [], [*faults, f"its form is {FORM}"]
    placed = [(f"{domain}[{i}]", {**e, "domain": domain}) for domain, es in checked.items() for i, e in enumerate(es)]
    return placed, []


def _of_splits(content: Mapping[str, Any]) -> tuple[Entries, list[str]]:
    """Return the entries of a file by split, each a topic of its own, and what is wrong with its form."""
    checked, faults = validated(dict[ChoiceSplit, dict[Name, Any]], dict(content))
    if faults or checked is None:
        return [], faults
    asked = [(split, name, e) for split, es in checked.items() if split != "trained" for name, e in es.items()]
    plain = [
        f"{split}.{name}: log-odds need question, aligned and harmful"
        for split, name, e in asked
        if not isinstance(e, dict)
    ]
    placed = [
        (f"{split}.{name}", {"id": name, "domain": "free", "topic": name, "split": split, **e})
        for split, name, e in asked
        if isinstance(e, dict)
    ]
    return placed, plain


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
    check_known(name, triggers(), f"trigger 'pocket:{name}': the pocket scale has")
    return triggers()[name]


@cache
def controls(file: Path = CONTROLS) -> Mapping[str, Mapping[str, tuple[Trigger, ...]]]:
    """Return, by trigger and condition of ``CONTROL_CONDITIONS``, the texts of the control, each with its placement.

    Raises:
        ValueError: If the file has another form, or names a trigger that there is not.
    """
    return {name: _controls(file, name, entry) for name, entry in read_yaml(file, dict[str, Any]).items()}


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


def _check_ids(file: Path, ids: Sequence[str]) -> None:
    if not ids:
        raise ValueError(f"{file}: it is empty")
    if repeated := next((i for i in ids if ids.count(i) > 1), None):
        raise ValueError(f"{file}: id {repeated!r} stands twice")
