"""Pages of a figure: of a table with many organisms each shows one family, and no more panels than fit a page."""

import math
from collections.abc import Iterator, Sequence

from figures.plots import Plot
from figures.rows import Row, kind, panels, placed

Cells = dict[tuple[str, str, str], list[Row]]


def cells(plot: Plot, rows: Sequence[Row]) -> Cells:
    """The rows of a figure's panels by family, organism and trigger."""
    module = plot.module()
    return module.cells(rows) if hasattr(module, "cells") else panels(module.wanted(rows))


def pages(plot: Plot, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Yield (name of the page, rows) of every page; the name is empty if there is only one."""
    every = cells(plot, rows) if plot.page else {}
    if len(every) <= plot.page:
        yield "", rows
        return
    for family in dict.fromkeys(family for family, _, _ in every):
        names = [name for name in every if name[0] == family]
        length = math.ceil(len(names) / math.ceil(len(names) / plot.page))
        for start in range(0, len(names), length):
            number = f"-{start // length + 1}" if len(names) > length else ""
            yield f"-{family}{number}", of_panels(rows, names[start : start + length])


def of_panels(rows: Sequence[Row], names: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Rows of some panels, and of the base of their family under the same triggers."""
    shown = {(family, organism, part) for family, organism, trigger in names for part in (trigger, "")}
    beside = {(family, part) for family, _, trigger in names for part in (trigger, "")}

    def belongs(row: Row) -> bool:
        family, organism, trigger = str(row["family"]), str(row["organism"]), placed(row)
        base = kind(organism).partition(".")[0] == "base" and (family, trigger) in beside
        return base or (family, organism, trigger) in shown

    return [row for row in rows if belongs(row)]
