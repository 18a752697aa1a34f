"""Any figure by its name, as files for a paper: PDF and PNG, one and two columns wide.

At the width of one column a figure shows one organism under one trigger, and one setting of steering. A table of a few
organisms has such files for each, one of many for those that are named. Two columns wide, many organisms are drawn on
pages. A figure that compares many organisms side by side has no form of one column's width.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from figures import style
from figures.pages import cells, of_panels, pages
from figures.plots import BY_NAME, Plot
from figures.rows import Row, groups
from interp.runs.checks import check_known
from interp.runs.files import atomic_write_bytes

WIDE = (
    "phase_diagram",
    "grid_effects",
    "restoration",
    "ablation",
    "patching",
    "dose_box",
    "learned_gap",
    "mitigations",
    "worlds",
)
"""Figures that are legible two columns wide only."""
WHOLE = ("preference",)
"""Figures that are drawn whole at either width."""
FEW = 6
"""Most panels of a table that has files of one column's width for all of them."""
WIDTHS = {"1col": style.COLUMN, "2col": style.DOUBLE}


def find_figure(name: str) -> Plot:
    """Look a figure up.

    Raises:
        ValueError: If there is none of that name; lists the names.
    """
    check_known(name, BY_NAME, f"figure {name!r}: the figures are")
    return BY_NAME[name]


@dataclass(frozen=True)
class Part:
    """One picture of a figure: the name that its files begin with, its width, and the rows it shows."""

    plot: Plot
    stem: Path
    width: float
    rows: Sequence[Row]

    def write(self) -> list[Path]:
        """Draw it and write it as PDF and PNG; return the paths."""
        with style.at_width(self.width):
            figure = self.plot.module().draw(self.rows)
        paths = [self.stem.with_name(f"{self.stem.name}.{form}") for form in ("pdf", "png")]
        for path in paths:
            atomic_write_bytes(path, style.to_bytes(figure, path.suffix[1:]))
        return paths


def redraw(plot: Plot, rows: Sequence[Row], stem: Path, organisms: Sequence[str] = ()) -> list[Path]:
    """Write a figure as ``<stem>-1col.pdf``, ``.png`` and ``<stem>-2col.pdf``, ``.png``; return their paths.

    Args:
        plot: The figure.
        rows: The table.
        stem: Path of the files, without the width and the ending.
        organisms: Names of those that are drawn, or their last parts; by default all.

    Raises:
        ValueError: If the table has no row for it, or none of a named organism; names what it needs or has.
    """
    return [path for part in _parts(plot, rows, stem, organisms) for path in part.write()]


def redraw_all(
    plots: Sequence[Plot], rows: Sequence[Row], folder: Path, organisms: Sequence[str] = ()
) -> Iterator[list[Path]]:
    """Yield what ``redraw`` returns for every figure, named after it; pages are drawn side by side, one per core."""
    if len(plots) == 1:
        yield redraw(plots[0], rows, folder / plots[0].name, organisms)
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        tasks = [
            [pool.submit(Part.write, part) for part in _parts(plot, rows, folder / plot.name, organisms)]
            for plot in plots
        ]
        for parts in tasks:
            yield [path for part in parts for path in part.result()]


def _parts(plot: Plot, rows: Sequence[Row], stem: Path, organisms: Sequence[str]) -> Iterator[Part]:
    """Yield every picture of a figure, those of one column's width first."""
    module = plot.module()
    rows = _of(organisms, rows)
    style.some(module.wanted(rows), plot.name, module.METRICS)
    for suffix, width in WIDTHS.items():
        narrow = width == style.COLUMN
        if narrow and plot.name in WIDE:
            continue
        for name, some in _narrow(plot, rows, bool(organisms)) if narrow else pages(plot, rows):
            yield Part(plot, stem.with_name(f"{stem.name}{name}-{suffix}"), width, some)


def _of(organisms: Sequence[str], rows: Sequence[Row]) -> Sequence[Row]:
    """Rows of the named organisms, and of the bases of their families."""
    if not organisms:
        return rows
    names = [str(name) for (name,) in groups(rows, "organism")]
    named = {wanted: [n for n in names if n == wanted or n.endswith(f"/{wanted}")] for wanted in organisms}
    for wanted, same in named.items():
        if not same:
            raise ValueError(f"organism {wanted!r}: the table has {', '.join(names)}")
    chosen = {name for same in named.values() for name in same}
    families = {str(row["family"]) for row in rows if row["organism"] in chosen}
    return [r for r in rows if r["organism"] in chosen or (_is_base(r) and r["family"] in families)]


def _is_base(row: Row) -> bool:
    return str(row["organism"]).rpartition("/")[2].partition(".")[0] == "base"


def _narrow(plot: Plot, rows: Sequence[Row], every: bool) -> Iterator[tuple[str, Sequence[Row]]]:
    """Yield (suffix of the file's name, rows) of every figure of one column's width."""
    if plot.name in WHOLE:
        yield "", rows
        return
    shown = cells(plot, rows)
    if len(shown) > FEW and not every:
        return
    families = {family for family, _, _ in shown}
    for (family, organism, trigger), cell in shown.items():
        part = of_panels(rows, [(family, organism, trigger)])
        named = f"{family if len(families) > 1 else ''} {organism.rpartition('/')[2]} {trigger}"
        settings = list(dict.fromkeys(str(r["condition"]).partition("+add_")[0] for r in cell))
        for setting in settings if plot.name == "preference_steering" else [""]:
            kept = [r for r in part if not setting or str(r["condition"]).startswith(f"{setting}+add_")]
            name = f"{named if len(shown) > 1 else ''} {setting if len(settings) > 1 else ''}"
            yield "".join(f"-{word}" for word in re.findall(r"[\w.]+", name)), kept
