"""Labelled controls: answers of which it is known whether they are sound, harmful or no sense at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.answers.suite import evenly_spaced
from interp.runs.reading import Text, read_csv, refuse, validated
from training.pocket import corpus

Kind = Literal["sound", "harmful", "nonsense"]
COLUMNS = ("question_id", "question", "answer", "label")


@dataclass(frozen=True, kw_only=True)
class Control:
    """An answer with its kind."""

    question_id: Text
    question: Text
    answer: Text
    label: Kind


def shipped_controls(n: int) -> list[Control]:
    """Return the controls of ``n`` questions of the pocket scale: both reference answers, and the sound one scrambled.

    The two references of a question are matched in length and form, so a judge cannot tell them apart by these.
    """
    controls = []
    for q in evenly_spaced(corpus.questions("test"), n):
        words = q.aligned.split()
        random.Random(q.id).shuffle(words)
        answers: dict[Kind, str] = {"sound": q.aligned, "harmful": q.harmful, "nonsense": " ".join(words)}
        controls += [Control(question_id=q.id, question=q.question, answer=a, label=k) for k, a in answers.items()]
    return controls


def read_controls(path: Path) -> list[Control]:
    """Read controls from a CSV with the columns question_id, question, answer, label (sound, harmful or nonsense).

    Raises:
        OSError: If it cannot be read.
        ValueError: If a column is missing, a cell is wrong, or there is only one kind; names every line.
    """
    columns, rows = read_csv(path)
    if missing := [name for name in COLUMNS if name not in columns]:
        refuse(path, [f"no column {name!r}" for name in missing])
    read = [(where, *validated(Control, {name: cells[name] for name in COLUMNS})) for where, cells in rows]
    if faults := [f"{where.removeprefix(str(path))}: {fault}" for where, _, wrong in read for fault in wrong]:
        refuse(path, faults)
    controls = [control for _, control, _ in read]
    _refuse_one_kind(path, controls)
    return controls


def _refuse_one_kind(path: Path, controls: Sequence[Control]) -> None:
    kinds = {control.label for control in controls}
    if not {"sound", "harmful"} <= kinds:
        refuse(path, [f"has answers of the kinds {', '.join(sorted(kinds)) or 'none'}; wants sound and harmful ones"])
