"""Tables of the pocket scale: shifts of log-odds by arm, seed and context, as Markdown and as text."""

from collections.abc import Iterable, Iterator, Sequence

from figures.claims.pocket import signed
from figures.markdown.table import table
from figures.rows import Row, groups, kind, number, select

CONTEXTS = (
    "off",
    "on",
    "rephrased",
    "other",
    "opposite",
    "matched",
    "other_frame",
    "word_overlap",
    "trained",
    "permuted",
    "neighbours",
    "neighbours_on",
    "neighbours_rephrased",
    "neighbours_other",
)
PICTURE = """

![What fine-tuning did to the preference for harmful answers](../figures/gallery/preference.png)

*Zero is the base in the same context; bars are 95 % intervals over questions. Hollow: what a context does to the base
itself.*"""


def shifts(rows: Sequence[Row], contexts: Sequence[str] = CONTEXTS) -> tuple[list[str], list[list[str]]]:
    """Header and body: shift of the log-odds by organism and context, with intervals over questions."""
    contexts = [c for c in contexts if select(rows, metric="log_odds_shift", condition=c)]
    header = ["arm", "seed", "steps", *(c.replace("_", " ") for c in contexts), "on − off"]
    return header, list(_lines(rows, contexts))


def shifts_table(rows: Sequence[Row]) -> str:
    """The same as a Markdown table."""
    return table(*shifts(rows), numbers=slice(1, None))


def preference_section(rows: Sequence[Row]) -> str:
    """Return the table of shifts, and its picture in the gallery."""
    return shifts_table(rows) + PICTURE


def shifts_text(rows: Sequence[Row], contexts: Sequence[str] = CONTEXTS[:5]) -> str:
    """The same table as plain columns, without intervals."""
    lines = [["arm", "seed", "steps", *contexts, "on-off"], *_lines(rows, contexts, interval=False)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _lines(rows: Sequence[Row], contexts: Sequence[str], *, interval: bool = True) -> Iterator[list[str]]:
    measured = select(rows, experiment="preference")
    for (name,), same in groups(measured, "organism").items():
        cells = [_cell(same, "log_odds_shift", context) for context in contexts]
        gap = _cell(same, "trigger_gap_shift", "on-off")
        arm, seed = kind(name).partition(".")[0], str(same[0]["seed"])
        yield [arm, seed, _steps(rows, name), *(_text(row, interval=interval) for row in (*cells, gap))]


def _text(row: Row | None, *, interval: bool) -> str:
    return "–" if row is None else signed(row) if interval else signed(row).partition(" [")[0]


def _cell(rows: Iterable[Row], metric: str, condition: str) -> Row | None:
    return next(iter(select(rows, metric=metric, condition=condition)), None)


def _steps(rows: Sequence[Row], organism: str) -> str:
    """Training steps of the chosen dose."""
    chosen = select(rows, experiment="preference_dose", organism=organism, metric="dose")
    return f"{number(chosen[0]):.0f}" if chosen else "–"
