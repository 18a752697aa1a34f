"""Scores read from a CSV file, as judged answers and as a judge."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from experiments.answers.numbers import Outcome, Reading, read_word
from experiments.answers.verdict import Answer, Verdict
from interp.runs.reading import Text, read_csv, refuse, validated

REQUIRED = ("question_id", "aligned", "coherent")
COLUMNS = (*REQUIRED, "answer")
LARGEST_ELSEWHERE = 10
"""Largest score of the usual other scales (yes or no, 1 to 5, 1 to 7, 0 to 10); answers of which all alignment and all
coherence is so low would be a rare file."""


@dataclass(frozen=True)
class Recorded:
    """A judged answer read from a file; ``text`` is None where the file has no answers."""

    question_id: str
    aligned: float | None
    coherent: float | None
    text: str | None = None
    outcome: Outcome = "scored"


def read_scores(path: str | Path) -> list[Recorded]:
    """Read a CSV with the columns question_id, aligned, coherent and possibly answer; other columns are not read.

    A cell without a score is empty, ``NA`` or the judge's word for the reason: ``REFUSAL`` or ``CODE``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column or all rows are missing, scores are no numbers in 0..100, or those of the file or of a
            column are on another scale; names every line.
    """
    columns, rows = read_csv(path)
    faults = [f"no column {name!r}" for name in REQUIRED if name not in columns]
    if faults or not rows:
        has = f"its columns are {', '.join(columns) or 'none'}"
        refuse(path, [*faults, has] if faults else ["no answers in it"])
    read = [
        (where, *validated(_Cells, {name: cells[name] for name in COLUMNS if name in cells})) for where, cells in rows
    ]
    if faults := [f"{where.removeprefix(str(path))}: {fault}" for where, _, wrong in read for fault in wrong]:
        refuse(path, faults)
    recorded = [_recorded(cells) for _, cells, _ in read]
    columns = {name: [s for r in recorded if (s := getattr(r, name)) is not None] for name in REQUIRED[1:]}
    for name, scores in columns.items():
        if max(scores, default=0) <= 1 and any(0 < score < 1 for score in scores):
            refuse(path, [f"no {name} score is larger than 1, so they are on a scale of 0 to 1; expected 0 to 100"])
    if 0 < (top := max(max(scores, default=0) for scores in columns.values())) <= LARGEST_ELSEWHERE:
        refuse(path, [f"no score is larger than {top:g}, so they are on another scale; expected 0 to 100"])
    return recorded


def _recorded(cells: Any) -> Recorded:
    aligned, coherent = cells.aligned, cells.coherent
    outcome = coherent.outcome if aligned.outcome == "scored" else aligned.outcome
    return Recorded(cells.question_id, aligned.score, coherent.score, cells.answer, outcome)


def _reading(cell: str) -> Reading:
    text = cell.strip()
    if text.lower() in ("", "na", "n/a", "nan", "none", "null"):
        return Reading(None, "unread")
    if outcome := read_word(text):
        return Reading(None, outcome)
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?", text, re.ASCII):
        raise ValueError("expected a number in 0..100, REFUSAL, CODE or NA")
    if not 0 <= float(text) <= 100:
        raise ValueError("expected a number in 0..100")
    return Reading(float(text), "scored")


Score = Annotated[str, AfterValidator(_reading)]


@dataclass(frozen=True)
class _Cells:
    question_id: Text
    aligned: Score
    coherent: Score
    answer: str | None = None


class RecordedJudge:
    """Scores read from a CSV: by answer text where the file has answers, else the n-th row of the question."""

    def __init__(self, path: str | Path) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._path = path
        self._scores: dict[tuple[str, str | int], Recorded] = {}
        self._rows_of = Counter[str]()
        for r in read_scores(path):
            self.by_text = r.text is not None
            key = r.question_id, self._rows_of[r.question_id] if r.text is None else r.text
            if self._scores.setdefault(key, r) != r:
                refuse(path, [f"question {r.question_id!r} has two scores of the answer {r.text!r:.60}"])
            self._rows_of[r.question_id] += 1

    def check_covers(self, asked: Sequence[str], samples: int, conditions: Sequence[str]) -> None:
        """Refuse scores that are not those of the answers to be judged, as far as it shows before they are sampled.

        Args:
            asked: Question ids, one per prompt of a condition.
            samples: Answers per prompt.
            conditions: Conditions under which questions are asked.

        Raises:
            ValueError: If questions are missing; without the column ``answer`` also if rows are missing or left over,
                or could not be told apart, because a question is asked under several conditions or prompts.
        """
        several = len(conditions) > 1 or len(set(asked)) < len(asked)
        if several and not self.by_text:
            where = f"the conditions {', '.join(conditions)}" if len(conditions) > 1 else "the prompts of a question"
            refuse(self._path, [f"needs a column 'answer' to tell the answers of {where} apart"])
        faults = [f"no scores of question {i!r}" for i in dict.fromkeys(asked) if i not in self._rows_of]
        if not self.by_text:
            faults += [f"question {i!r} is not asked" for i in self._rows_of if i not in asked]
            counts = {i: n for i, n in self._rows_of.items() if i in asked and n != samples}
            faults += [f"{n} scores of question {i!r}, expected {samples}" for i, n in counts.items()]
        if faults:
            refuse(self._path, faults)

    def probe(self) -> None:
        """Do nothing: the file is read already."""

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer.

        Raises:
            ValueError: If an answer is not in the file.
        """
        recorded = [self._look_up(item) for item in items]
        return [Verdict(r.aligned, r.coherent, "recorded", self.name, r.outcome) for r in recorded]

    def _look_up(self, item: Answer) -> Recorded:
        try:
            return self._scores[item.question_id, item.text if self.by_text else item.sample]
        except KeyError:
            raise ValueError(f"{self.name}: no score of answer {item.sample} to {item.question_id!r}") from None
