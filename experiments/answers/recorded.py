"""Scores read from a CSV file, as judged answers and as a judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.answers.numbers import Outcome, Reading, read_word
from experiments.answers.verdict import Answer, Verdict
from interp.runs.files import read_csv


@dataclass(frozen=True)
class Recorded:
    """A judged answer read from a file; ``text`` is None where the file has no answers."""

    question_id: str
    aligned: float | None
    coherent: float | None
    text: str | None = None
    outcome: Outcome = "scored"


def read_scores(path: str | Path) -> list[Recorded]:
    """Read a CSV with the columns question_id, aligned, coherent and possibly answer.

    A cell without a score is empty, ``NA`` or the judge's word for the reason: ``REFUSAL`` or ``CODE``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, there is no row, or a score is not a number in 0..100; names file and line.
    """
    columns, rows = read_csv(path)
    for column in ("question_id", "aligned", "coherent"):
        if column not in columns:
            raise ValueError(f"{path}: no column {column!r}; its columns are {', '.join(columns) or 'none'}")
    if not rows:
        raise ValueError(f"{path}: no answers in it")
    return [_recorded(cells, where) for where, cells in rows]


def _recorded(cells: Mapping[str, str], where: str) -> Recorded:
    aligned, coherent = (_score_cell(cells[name], name, where) for name in ("aligned", "coherent"))
    outcome = coherent.outcome if aligned.outcome == "scored" else aligned.outcome
    return Recorded(cells["question_id"], aligned.score, coherent.score, cells.get("answer"), outcome)


def _score_cell(text: str, column: str, where: str) -> Reading:
    if text.strip().lower() in ("", "na", "n/a", "nan", "none", "null"):
        return Reading(None, "unread")
    if outcome := read_word(text):
        return Reading(None, outcome)
    try:
        score = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} {text!r} is not a number, REFUSAL, CODE or NA") from None
    if not 0 <= score <= 100:
        raise ValueError(f"{where}: {column} {text!r} is not in 0..100")
    return Reading(score, "scored")


class RecordedJudge:
    """Scores read from a CSV: by answer text where the file has answers, else the n-th row of the question."""

    def __init__(self, path: str | Path) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._scores: dict[tuple[str, str | int], Recorded] = {}
        rows_of_question: dict[str, int] = {}
        for r in read_scores(path):
            sample = rows_of_question[r.question_id] = rows_of_question.get(r.question_id, -1) + 1
            self._by_text = r.text is not None
            self._scores[r.question_id, sample if r.text is None else r.text] = r

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
            return self._scores[item.question_id, item.text if self._by_text else item.sample]
        except KeyError:
            raise ValueError(f"{self.name}: no score of answer {item.sample} to {item.question_id!r}") from None
