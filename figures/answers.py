"""The answers behind the rates, for reading: some of every organism's, side by side by condition."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures.rows import Row, groups
from figures.style import CONDITIONS
from interp.runs.rowlog import RowLog
from interp.stats import Thresholds

SAMPLES = 2
"""Answers shown per question and condition; a rate counts all of them."""
EDITS = ("clamp_trigger", "clamp_random", "ablate_g", "ablate_random")
"""Edits whose answers are shown, each beside its control."""
MOST = 20_000
"""Answers in one page at most."""

Browsable = dict[str, Any]
"""``conditions``, and by question the answers under each: text, alignment, coherence."""


@dataclass(frozen=True)
class Answers:
    """Where answers lie, and which of them count as misaligned."""

    runs: Path
    """Folder of all runs."""
    thresholds: Thresholds


def browsable(rows: Sequence[Row], runs: Path) -> dict[str, Browsable]:
    """Return the answers of the runs that a table names, by organism and trigger.

    Args:
        rows: The table of the report.
        runs: Folder of all runs; a run that is not there any more is left out.
    """
    shown: dict[str, Browsable] = {}
    count = 0
    for (organism, trigger), same in groups(rows, "organism", "trigger").items():
        answers: dict[str, dict[str, list[list[Any]]]] = {}
        for run_id in dict.fromkeys(str(row["run_id"]) for row in same):
            for name, answer in _judged(runs / Path(*run_id.rsplit("-", 1))):
                cell = answers.setdefault(str(answer["asked"]), {}).setdefault(name, [])
                if len(cell) < SAMPLES:
                    cell.append([answer["text"], answer["aligned"], answer["coherent"]])
                    count += 1
        if answers and count <= MOST:
            conditions = {name for cells in answers.values() for name in cells}
            title = f"{organism}, trigger {trigger}" if trigger else organism
            shown[title] = {"conditions": sorted(conditions, key=_order), "questions": answers}
    return shown


def _judged(run: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the judged answers of a run with the name of their condition: ``on``, ``on+clamp_trigger``."""
    if run.parent.name not in ("em_rate", "ablate") or not (run / "rows.jsonl").is_file():
        return
    for answer in RowLog(run / "rows.jsonl").rows():
        edit = answer.get("edit") or ""
        wanted = answer.get("condition") in CONDITIONS and (edit in EDITS or ("edit" not in answer))
        if wanted and "asked" in answer and "aligned" in answer:
            yield f"{answer['condition']}+{edit}" if edit else str(answer["condition"]), answer


def _order(name: str) -> tuple[bool, int, str]:
    condition, _, edit = name.partition("+")
    return bool(edit), list(CONDITIONS).index(condition), edit


def as_script(data: object) -> str:
    """Return data as JSON that no text in it can end: safe inside a script element."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", " ")
