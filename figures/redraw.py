"""Any figure by its name, as files for a paper: PDF and PNG, one and two columns wide.

At the width of one column a figure shows one organism under one trigger, and one setting of steering: where the table
has several, each has files of its own. A figure that compares many organisms side by side has no such form: it is drawn
two columns wide only.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from figures import style
from figures.plots import BY_NAME, Plot
from figures.rows import Row, panels
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
WIDTHS = {"1col": style.COLUMN, "2col": style.DOUBLE}


def find_figure(name: str) -> Plot:
    """Look a figure up.

    Raises:
        ValueError: If there is none of that name; lists the names.
    """
    if name not in BY_NAME:
        raise ValueError(f"figure {name!r}: the figures are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def redraw(plot: Plot, rows: Sequence[Row], stem: Path) -> list[Path]:
    """Write a figure as ``<stem>-1col.pdf``, ``.png`` and ``<stem>-2col.pdf``, ``.png``; return their paths.

    Raises:
        ValueError: If the table has no row for it; names the metrics that it needs.
    """
    module = plot.module()
    wanted = style.some(module.wanted(rows), plot.name, module.METRICS)
    paths: list[Path] = []
    for suffix, width in WIDTHS.items():
        if width == style.COLUMN and plot.name in WIDE:
            continue
        for part, some in _parts(plot, wanted, rows, width):
            with style.at_width(width):
                figure = module.draw(some)
            for form in ("pdf", "png"):
                path = stem.with_name(f"{stem.name}{part}-{suffix}.{form}")
                atomic_write_bytes(path, style.to_bytes(figure, form))
                paths.append(path)
    return paths


def _parts(plot: Plot, wanted: Sequence[Row], rows: Sequence[Row], width: float) -> Iterator[tuple[str, Sequence[Row]]]:
    """Yield (suffix of the file's name, rows): all rows, or at one column's width those of each organism."""
    if width == style.DOUBLE or plot.name in WHOLE:
        yield "", rows
        return
    cells = panels(wanted)
    for (_, organism, trigger), cell in cells.items():
        part = [r for r in rows if r["organism"] == organism and r["trigger"] in ("", trigger.partition("@")[0])]
        named = f"{organism.rpartition('/')[2]} {trigger}" if len(cells) > 1 else ""
        settings = list(dict.fromkeys(str(r["condition"]).partition("+add_")[0] for r in cell))
        for setting in settings if plot.name == "preference_steering" else [""]:
            kept = [r for r in part if not setting or str(r["condition"]).startswith(f"{setting}+add_")]
            name = f"{named} {setting if len(settings) > 1 else ''}"
            yield "".join(f"-{word}" for word in re.findall(r"[\w.]+", name)), kept
