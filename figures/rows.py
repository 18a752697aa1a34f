"""Rows of a results table: select among them, group them, and lay out the table of rates by condition.

The columns are those of ``interp.runs.table``; an empty string means "does not apply".
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.runs.files import atomic_write_bytes
from interp.runs.table import TABLE_COLUMNS

Row = Mapping[str, Any]

BEHAVIOUR = "em_rate"
"""The experiment whose rows are the behaviour without any edit; steering and ablation repeat some of its conditions."""
ORGANISMS = ("base", "baseline", "neutral", "explaining", "neutral.contrast50")
RATES = ("off", "on", "rephrased", "other", "opposite")
_MEASURE = ("experiment", "metric", "condition", "seed")
INCOHERENT = 0.6
"""Below this share of coherent answers an EM rate says nothing: too few answers are left."""


def number(row: Row, column: str) -> float:
    """The cell as a float; nan where it is empty."""
    cell = row.get(column, "")
    return math.nan if cell in ("", None) else float(cell)


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


def one(rows: Iterable[Row], **equals: Any) -> Row:
    """The single row with the given values.

    Raises:
        ValueError: If there is none, or more than one.
    """
    found = select(rows, **equals)
    if len(found) != 1:
        asked = ", ".join(f"{column}={value!r}" for column, value in equals.items())
        raise ValueError(f"expected one row with {asked}; found {len(found)}")
    return found[0]


def groups(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the text of some columns, in the order of first appearance."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(str(row.get(column, "")) for column in columns), []).append(row)
    return found


def preferred(rows: Sequence[Row]) -> Row:
    """Of rows that state one number with several intervals, the one to show.

    The question-cluster bootstrap, unless it is empty or has no width (a bootstrap of 0 of n says [0, 0]): then Wilson.
    """

    def rank(row: Row) -> tuple[bool, bool]:
        width = number(row, "ci_high") - number(row, "ci_low")
        return (not width > 0, str(row.get("ci_method")) == "wilson")

    return min(rows, key=rank)


def behaviour(rows: Iterable[Row]) -> list[Row]:
    """The rows of the behaviour experiment: rates by condition, without any edit."""
    return select(rows, experiment=BEHAVIOUR)


def kind(organism: str) -> str:
    """The last part of an organism's name: ``microcosm/llama/neutral`` is of kind ``neutral``."""
    return organism.rsplit("/", 1)[-1]


def panels(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (family, organism, trigger), in the order of the paper: base first, contrast last.

    Rows without a trigger (no text was present) belong to every trigger of their organism that does not say the same.
    """
    found: dict[tuple[str, str, str], list[Row]] = {}
    for (family, organism), own in groups(rows, "family", "organism").items():
        named = [t for (t,) in groups(own, "trigger") if t] or [""]
        for trigger in named:
            found[family, organism, trigger] = _under(own, trigger)
    families = list(groups(rows, "family"))
    return dict(sorted(found.items(), key=lambda item: (families.index((item[0][0],)), _order(item[0][1]))))


def _under(rows: Sequence[Row], trigger: str) -> list[Row]:
    """Rows of a trigger, and those without one that say something the former do not."""
    said = set(groups(select(rows, trigger=trigger), *_MEASURE))
    return [
        r
        for r in rows
        if str(r["trigger"]) == trigger or (r["trigger"] == "" and next(iter(groups([r], *_MEASURE))) not in said)
    ]


def _order(organism: str) -> int:
    return ORGANISMS.index(kind(organism)) if kind(organism) in ORGANISMS else len(ORGANISMS)


def percent(value: float, digits: int = 1) -> str:
    """A rate as a percentage without the sign; an en dash where there is none."""
    if math.isnan(value):
        return "–"
    rounded = round(100 * value, digits) + 0.0  # a rounded -0.0 becomes 0.0
    return f"{rounded:.{digits}f}".replace("-", "−")


def results(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and body of the results table: organism by condition, EM rate in percent with its interval.

    Raises:
        ValueError: If the rows hold no EM rate of the behaviour experiment.
    """
    own = select(behaviour(rows), condition=RATES)
    if not select(own, metric="em_rate"):
        raise ValueError(f"no row has experiment={BEHAVIOUR!r} and metric='em_rate'")
    header = ["organism", "trigger", *RATES, "coherence", "n / clusters"]
    seeds = groups(own, "seed")
    body = [
        [organism if len(seeds) == 1 else f"{organism} (seed {seed})", trigger or "–", *_measures(cell)]
        for (_, organism, trigger), rows_of_panel in panels(own).items()
        for (seed,), cell in groups(rows_of_panel, "seed").items()
    ]
    return header, body


def _measures(rows: Sequence[Row]) -> list[str]:
    return [*(_rate(rows, condition) for condition in RATES), _coherence(rows), _counts(rows)]


def _rate(rows: Sequence[Row], condition: str) -> str:
    found = select(rows, metric="em_rate", condition=condition)
    return with_interval(preferred(found)) if found else "–"


def with_interval(row: Row) -> str:
    """A rate and its interval in percent: ``91.7 [88.1, 94.6]``."""
    low, high = (percent(number(row, column)) for column in ("ci_low", "ci_high"))
    return percent(number(row, "value")) + ("" if low == "–" else f" [{low}, {high}]")


def _coherence(rows: Sequence[Row]) -> str:
    values = [number(row, "value") for row in select(rows, metric="coherence_rate")]
    texts = sorted({percent(v, 0) for v in values if not math.isnan(v)}, key=float)
    return "–".join(texts[:1] + texts[1:][-1:]) or "–"


def _counts(rows: Sequence[Row]) -> str:
    own = answered(rows)
    return f"{span(row['n'] for row in own)} / {span(row['n_clusters'] for row in own)}"


def answered(rows: Sequence[Row]) -> list[Row]:
    """The rows whose n counts all sampled answers: coherence; where there are none, the EM rates (n: coherent ones)."""
    return select(rows, metric="coherence_rate") or select(rows, metric="em_rate")


def sampled(rows: Sequence[Row], unit: str) -> str:
    """Say for a caption how many answers and questions stand behind one ``unit`` of a figure."""
    n, clusters = (span(row[column] for row in answered(rows)) for column in ("n", "n_clusters"))
    return f"n = {n} sampled answers to {clusters} questions (the clusters) {unit}"


def span(values: Iterable[Any]) -> str:
    """The one value, or the least and the greatest, as whole numbers: ``48`` or ``480–960``; ``?`` if there is none."""
    found = sorted({float(v) for v in values if v not in ("", None)})
    return "–".join(f"{v:,.0f}" for v in (*found[:1], *found[1:][-1:])) or "?"


def results_text(rows: Sequence[Row]) -> str:
    """The results table for a terminal: a line of rates and, below it, a line of intervals."""
    header, body = results(rows)
    lines = [header]
    for cells in body:
        lines += [[c.split(" [")[0] for c in cells], ["[" + c.split(" [")[1] if " [" in c else "" for c in cells]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    padded = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    padded.insert(1, "─" * len(padded[0]))
    return "\n".join(line.rstrip() for line in padded)


def renew(readme: Path, tables: Mapping[str, str]) -> None:
    """Put each named table between its markers in a README, ``<!-- name:begin -->`` and ``end``; change nothing else.

    Raises:
        ValueError: If the README does not hold each marker once, in order.
    """
    text = Path(readme).read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"{readme}: expected {begin} and then {end}, each once")
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    atomic_write_bytes(Path(readme), text.encode())
