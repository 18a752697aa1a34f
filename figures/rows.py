"""Rows of a results table: select among them, group them, and write their numbers.

The columns are those of ``interp.runs.table``; an empty string means "does not apply".
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from interp.runs.table import TABLE_COLUMNS

Row = Mapping[str, Any]

BEHAVIOUR = "em_rate"
"""The experiment whose rows are the behaviour without any edit; steering and ablation repeat some of its conditions."""
ORGANISMS = ("base", "baseline", "neutral", "explaining", "neutral.contrast50")
_MEASURE = ("experiment", "metric", "condition", "seed")


def number(row: Row, column: str = "value") -> float:
    """The cell as a float; nan where it is empty."""
    cell = row.get(column, "")
    return math.nan if cell in ("", None) else float(cell)


def values(rows: Iterable[Row]) -> list[float]:
    """The values of some rows."""
    return [number(row) for row in rows]


def ends(row: Row) -> tuple[float, float, float]:
    """The value of a row and the two ends of its interval."""
    return number(row, "value"), number(row, "ci_low"), number(row, "ci_high")


def select(rows: Iterable[Row], **equals: Any) -> list[Row]:
    """The rows whose columns equal the given values; a tuple, list or set means any of them.

    Raises:
        ValueError: If a keyword is not a column.
    """
    unknown = set(equals) - set(TABLE_COLUMNS)
    if unknown:
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}; the columns are {', '.join(TABLE_COLUMNS)}")
    wanted = {c: {str(v) for v in (value if _many(value) else (value,))} for c, value in equals.items()}
    return [row for row in rows if all(str(row.get(c, "")) in values for c, values in wanted.items())]


def _many(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str)


def groups(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the text of some columns, in the order of first appearance."""
    parts: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(str(row.get(column, "")) for column in columns), []).append(row)
    return parts


def preferred(rows: Sequence[Row]) -> Row:
    """Of rows that state one number with several intervals, the one to show.

    The question-cluster bootstrap, unless it is empty or has no width (of 0 of n answers it is [0, 0]): then Wilson.
    """

    def rank(row: Row) -> tuple[bool, bool]:
        width = number(row, "ci_high") - number(row, "ci_low")
        return (not width > 0, str(row.get("ci_method")) == "wilson")

    return min(rows, key=rank)


def unique(rows: Iterable[Row], *columns: str) -> list[Row]:
    """The preferred row of each group; ``columns`` are those that tell two numbers apart."""
    return [preferred(same) for same in groups(rows, *columns).values()]


def along(rows: Iterable[Row], column: str) -> list[tuple[float, Row]]:
    """The row to show at every value of a column, in the column's order: by layer, dose or step."""
    points = [(number(same[0], column), preferred(same)) for same in groups(rows, column).values()]
    return sorted(points, key=lambda point: point[0])


def cell(rows: Sequence[Row], condition: str, metric: str = "em_rate") -> Row | None:
    """The row of a condition, with the interval to show; None if the table lacks it."""
    same = select(rows, condition=condition, metric=metric)
    return preferred(same) if same else None


def behaviour(rows: Iterable[Row]) -> list[Row]:
    """The rows of the behaviour experiment: rates by condition, without any edit."""
    return select(rows, experiment=BEHAVIOUR)


def kind(organism: str) -> str:
    """The last part of an organism's name: ``microcosm/llama/neutral`` is of kind ``neutral``."""
    return organism.rsplit("/", 1)[-1]


def arm(row: Row) -> str:
    """The kind of a row's organism without its seed: ``neutral.contrast50`` of ``llama/neutral.contrast50.seed1``."""
    return kind(str(row["organism"])).partition(".seed")[0]


def placed(row: Row) -> str:
    """The trigger of a row, with its placement where that is not the system message."""
    usual = row["placement"] in ("", "system") or not row["trigger"]
    return str(row["trigger"]) if usual else f"{row['trigger']}@{row['placement']}"


def panels(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (family, organism, trigger), in the order of the paper: base first, contrast last.

    A trigger outside the system message names its placement: ``scene-desert@prefix``. Rows without a trigger (no text
    was present) belong to every trigger of their organism, unless that trigger has a row for the same measurement.
    """
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for (family, organism), same in groups(rows, "family", "organism").items():
        for trigger in list(dict.fromkeys(filter(None, map(placed, same)))) or [""]:
            parts[family, organism, trigger] = _under(same, trigger)
    families = list(groups(rows, "family"))
    return dict(sorted(parts.items(), key=lambda item: (families.index((item[0][0],)), _order(item[0][1]))))


def _under(rows: Sequence[Row], trigger: str) -> list[Row]:
    """Rows of a trigger, and those without one that measure something else."""
    measured = set(groups((r for r in rows if placed(r) == trigger), *_MEASURE))
    return [
        r
        for r in rows
        if placed(r) == trigger or (r["trigger"] == "" and next(iter(groups([r], *_MEASURE))) not in measured)
    ]


def _order(organism: str) -> int:
    return ORGANISMS.index(kind(organism)) if kind(organism) in ORGANISMS else len(ORGANISMS)


def percent(value: float, digits: int = 1) -> str:
    """A rate as a percentage without the sign; an en dash where there is none."""
    if math.isnan(value):
        return "–"
    rounded = round(100 * value, digits) + 0.0  # a rounded -0.0 becomes 0.0
    return f"{rounded:.{digits}f}".replace("-", "−")


def with_interval(row: Row | None) -> str:
    """A rate and its interval in percent: ``91.7 [88.1, 94.6]``; an en dash for a missing row."""
    value, low, high = map(percent, ends(row)) if row else ("–", "–", "–")
    return value + ("" if low == "–" else f" [{low}, {high}]")


def extremes(values: Iterable[float], digits: int = 1) -> str:
    """The lowest and the highest of some rates in percent, ``10.7–32.7``; one number where they are the same."""
    numbers = [value for value in values if not math.isnan(value)]
    return "–".join(dict.fromkeys(percent(f(numbers), digits) for f in (min, max))) if numbers else "–"


def over_seeds(values: Iterable[float], digits: int = 1) -> str:
    """The mean of some rates in percent, with the lowest and the highest in brackets: ``3.0 (1.0–6.0)``."""
    numbers = [value for value in values if not math.isnan(value)]
    ends_shown = extremes(numbers, digits)
    return (percent(fmean(numbers), digits) + (f" ({ends_shown})" if "–" in ends_shown else "")) if numbers else "–"


def answered(rows: Sequence[Row]) -> list[Row]:
    """The rows whose n counts all sampled answers: coherence; where there are none, the EM rates (n: coherent ones)."""
    return select(rows, metric="coherence_rate") or select(rows, metric="em_rate")


def sampled(rows: Sequence[Row], unit: str) -> str:
    """Say for a caption how many answers and questions stand behind one ``unit`` of a figure."""
    n, clusters = (span(row[column] for row in answered(rows)) for column in ("n", "n_clusters"))
    return f"n = {n} sampled answers to {clusters} questions (the clusters) {unit}"


def span(values: Iterable[Any]) -> str:
    """The one value, or the least and the greatest, as whole numbers: ``48`` or ``480–960``; ``?`` if there is none."""
    numbers = sorted({float(v) for v in values if v not in ("", None)})
    return "–".join(f"{v:,.0f}" for v in (*numbers[:1], *numbers[1:][-1:])) or "?"


def counts(rows: Sequence[Row]) -> str:
    """Answers a cell and questions: ``480 / 48``."""
    same = answered(rows)
    return f"{span(row['n'] for row in same)} / {span(row['n_clusters'] for row in same)}"
