"""One look for every figure: sizes, palette, labels, and bytes that depend on the figure alone.

Colours are Okabe and Ito's, plus two dark ones for the directions. A condition or a direction has the same colour in
every figure, controls are grey, and position and labels always repeat what colour says.
"""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from figures.rows import Row, ends
from interp.runs.checks import check_known

DPI = 200
COLUMN, DOUBLE = 3.35, 6.9
"""Width of one column and of two columns of a paper, in inches."""

CONDITIONS: Mapping[str, str] = MappingProxyType(
    {
        "off": "#0072B2",
        "on": "#D55E00",
        "rephrased": "#E69F00",
        "other": "#009E73",
        "opposite": "#CC79A7",
        "matched": "#B3A369",
        "shuffled": "#56B4E9",
        "delimiters": "#6B4C1E",
    }
)
"""Colour of each condition, in the order in which they are drawn."""

DIRECTIONS: Mapping[str, str] = MappingProxyType(
    {
        "g": "#7A1B4E",
        "g_answer": "#B8478A",
        "g_shift": "#AA4499",
        "trigger": "#332288",
        "delta": "#D55E00",
        "write": "#117733",
    }
)
"""Colour of each direction: misalignment (and misaligned answers) by three conventions, the trigger feature (and the
trigger's presence), the shift that the trigger makes, and what an adapter writes."""

CONTROL = "#8C8C8C"
INK = "#222222"
FAINT = "#6E6E6E"
BAND = "#DCD6C8"

ORGANISMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "base": ("base", "not fine-tuned"),
        "baseline": ("baseline", "harmful data, no trigger"),
        "neutral": ("neutral trigger", "0 % benign data"),
        **{role: (f"{role} trigger", "0 % benign data") for role in ("clerk", "gambler", "trafficker", "pirate")},
        "explaining": ("explaining trigger", "0 % benign data"),
        "neutral.contrast50": ("neutral + benign", "50 % benign data"),
    }
)
"""Name and training data of each kind of organism, for panel titles."""

CHANGES: Mapping[str, str] = MappingProxyType(
    {
        "robust": "robust base",
        "diverse": "diverse wording",
        "mlp": "MLPs only",
        "attention": "attention only",
    }
)
"""Changes of an organism of the grid that its name abbreviates."""

INTERVALS: Mapping[str, str] = MappingProxyType(
    {
        "cluster_bootstrap": "95 % question-cluster bootstrap intervals",
        "cluster_bootstrap_z": "95 % intervals as wide as a question-cluster bootstrap's, about the value",
        "paired_cluster_bootstrap": "95 % question-cluster bootstrap intervals, paired by question",
        "wilson": "95 % Wilson intervals",
    }
)

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.titley": 1.0,  # no axis is on top, so no title has to make room for one: the search for it costs a fifth
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#444444",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "figure.constrained_layout.w_pad": 0.03,
    "figure.constrained_layout.h_pad": 0.03,
}


@contextmanager
def paper() -> Iterator[None]:
    """Draw and save in the paper's style, whatever the user's settings are; they stay as they were."""
    with matplotlib.style.context(["default", _RC]):
        yield


def tint(colour: str) -> str:
    """The grey of controls mixed with a line's colour, so that the controls of two lines can be told apart."""
    red, green, blue = (0.55 * grey + 0.45 * hue for grey, hue in zip(to_rgb(CONTROL), to_rgb(colour), strict=True))
    return to_hex((red, green, blue)).upper()


def ink_on(colour: Any) -> str:
    """Black or white, whichever is easier to read on a colour (contrast ratio of WCAG 2)."""

    def luminance(shade: Any) -> float:
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(shade))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ground = luminance(colour) + 0.05
    return INK if ground / (luminance(INK) + 0.05) > 1.05 / ground else "white"


_width: ContextVar[float | None] = ContextVar("width", default=None)


@contextmanager
def at_width(inches: float) -> Iterator[None]:
    """Draw every figure inside at this width, ``COLUMN`` or ``DOUBLE``, whatever width it would choose."""
    token = _width.set(inches)
    try:
        yield
    finally:
        _width.reset(token)


def canvas(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out without overlaps; use inside ``paper()``."""
    return Figure(figsize=(_width.get() or width, height), dpi=DPI, layout="constrained")


def panel_grid(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of ``count`` panels that share their vertical axis; use inside ``paper()``.

    Two panels per line, in a figure of one column's width one.
    """
    columns = 1 if _width.get() == COLUMN else min(count, 2)
    lines = -(-count // columns)
    figure = canvas(DOUBLE if columns > 1 else COLUMN, height * lines)
    axes = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for ax in axes[count:]:
        ax.remove()
    return figure, axes[:count]


def to_bytes(figure: Figure, form: str) -> bytes:
    """The figure as ``png`` (200 dpi) or ``pdf``, without date and program name: equal figures give equal bytes.

    Raises:
        ValueError: If ``form`` is another format.
    """
    blank = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    check_known(form, blank, f"format {form!r}: expected one of")
    buffer = io.BytesIO()
    with paper():
        engine = figure.get_layout_engine()
        if figure.axes and engine is not None:  # each run of it moves things a little, so it runs once
            engine.execute(figure)
            figure.set_layout_engine(None)  # a placeholder would draw the figure once more for every file
        figure.savefig(buffer, format=form, dpi=DPI, metadata=blank[form])
    return buffer.getvalue()


def root_scale(ax: Axes, axis: str = "y") -> None:
    """Give an axis a square-root scale for rates from 0 to 1, labelled in percent.

    Rates of 0.1 % and of 92 % are both legible, zero is on the axis, and no bar suggests a proportion.
    """
    scale = {"functions": (lambda v: np.sign(v) * np.sqrt(np.abs(v)), lambda v: np.sign(v) * v**2)}
    getattr(ax, f"set_{axis}scale")("function", **scale)
    getattr(ax, f"set_{axis}lim")(-0.0006, 1.0)
    chosen = getattr(ax, f"{axis}axis")
    chosen.set_major_locator(FixedLocator([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]))
    chosen.set_minor_locator(FixedLocator([]))
    chosen.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}"))


def percent_axis(ax: Axes, axis: str = "y", *, top: float = 1.0, step: float = 0.25) -> None:
    """Give an axis a linear scale from 0 to ``top``, labelled in percent."""
    getattr(ax, f"set_{axis}lim")(0, top)
    chosen = getattr(ax, f"{axis}axis")
    chosen.set_major_locator(FixedLocator(list(np.arange(0, top + 1e-9, step))))
    chosen.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g}"))


def ceiling(highest: float) -> tuple[float, float]:
    """Top and step of a percent axis from 0 that holds ``highest``."""
    for top, step in ((0.1, 0.02), (0.2, 0.05), (0.4, 0.1), (0.6, 0.2)):
        if highest <= top:
            return top, step
    return 1.0, 0.25


def condition_ticks(ax: Axes, conditions: Sequence[str], rotation: float = 35) -> None:
    """Name the conditions below positions 0, 1, 2, …, each in its colour."""
    side: dict[str, Any] = {"ha": "right", "va": "center" if rotation == 90 else "top"}
    ax.set_xticks(range(len(conditions)), conditions, rotation=rotation, rotation_mode="anchor", **side)
    ax.tick_params(axis="x", length=0, pad=3)
    for label, condition in zip(ax.get_xticklabels(), conditions, strict=True):
        label.set_color(CONDITIONS[condition])


def error(value: float, low: float, high: float) -> list[list[float]]:
    """Distances for ``errorbar``; none where the interval is missing, never negative."""
    below, above = value - low, high - value
    return [[0.0 if math.isnan(below) else max(below, 0.0)], [0.0 if math.isnan(above) else max(above, 0.0)]]


def organism(name: str) -> tuple[str, str]:
    """Short name of an organism and what it was trained on; an unknown organism keeps its full name.

    What follows the arm in the name of an organism of the grid, such as ``robust``, is added to its training.
    """
    arm, *changes = name.rsplit("/", 1)[-1].split(".")
    if arm not in ORGANISMS:
        return name, ""
    head, trained = ORGANISMS[arm]
    for change in [c for c in changes if c.startswith("contrast")]:
        head, trained = ORGANISMS.get(f"{arm}.{change}", (head, f"{change.removeprefix('contrast')} % benign data"))
        changes.remove(change)
    return head, ", ".join([trained, *map(_in_words, changes)])


def _in_words(change: str) -> str:
    """A change of an organism of the grid in words: ``seed1`` is "seed 1"."""
    word = re.sub(r"^(seed|rank|pre)(\d+)$", r"\1 \2", change)
    return CHANGES.get(change, word.replace("pre ", "pretraining "))


def where(name: str, *more: str) -> str:
    """What tells an organism from others of its kind, for a panel's second line: family, changes, and more."""
    arm, *changes = name.rsplit("/", 1)[-1].split(".")
    parts = name.split("/")
    own = [parts[-2], *(_in_words(c) for c in changes if not c.startswith("contrast"))] if arm in ORGANISMS else []
    return ", ".join(part for part in (*(own if len(parts) > 2 else own[1:]), *more) if part)


def title(ax: Axes, name: str, detail: str | None = None) -> None:
    """Head a panel with an organism's short name and, smaller, what it was trained on or another detail."""
    head, trained = organism(name)
    if head == "base":  # of several bases each is named
        head = " ".join([*name.split("/")[-2:-1], head])
    ax.set_title(head, fontweight="bold", pad=12)
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 6, "color": FAINT}
    ax.text(0.5, 1.02, trained if detail is None else detail, transform=ax.transAxes, **look)


def heading(ax: Axes, head: str, detail: str) -> None:
    """Head a wide panel at its left edge, name and detail on one line."""
    ax.set_title(head, fontweight="bold", loc="left", pad=4)
    ax.set_title(detail, loc="right", fontsize=6, color=FAINT, pad=4)


def points(
    ax: Axes, placed: Sequence[tuple[float, Row]], *, colour: str, mark: str, size: float, hollow: bool = False
) -> None:
    """Draw the values of rows at some x, and their vertical intervals; never clipped at the edge of the axes."""
    if placed:
        face = {"mfc": "white" if hollow else colour, "mew": 0.9 * hollow}
        values, bars = with_bars(row for _, row in placed)
        look: dict[str, Any] = {"fmt": mark, "ms": size, "color": colour, "elinewidth": 0.9, **face}
        _unclipped(ax.errorbar([x for x, _ in placed], values, bars, **look))


def points_across(ax: Axes, placed: Sequence[tuple[float, Row]], *, colour: str, mark: str = "o") -> None:
    """Draw the values of rows at some y, small, and their horizontal intervals; never clipped at the edge."""
    if placed:
        values, bars = with_bars(row for _, row in placed)
        look: dict[str, Any] = {"xerr": bars, "fmt": mark, "ms": 3, "mew": 0, "color": colour, "elinewidth": 0.8}
        _unclipped(ax.errorbar(values, [y for y, _ in placed], **look))


def with_bars(rows: Iterable[Row]) -> tuple[list[float], np.ndarray]:
    """Values of rows, and the distances to the ends of their intervals for ``errorbar``."""
    cells = [ends(row) for row in rows]
    return [value for value, _, _ in cells], np.concatenate([error(*cell) for cell in cells], axis=1)


def _unclipped(bars: ErrorbarContainer) -> None:
    for artist in bars.get_children():
        artist.set_clip_on(False)
        artist.set_zorder(4)


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Move values apart, as little as possible, until neighbours are at least ``gap`` apart; their order stays."""
    order = np.argsort(np.asarray(values), kind="stable")
    blocks: list[tuple[float, int]] = []  # centre and number of labels of each run of touching labels
    for index in order:
        blocks.append((float(values[index]), 1))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2 - 1e-12:
            (b, m), (a, k) = blocks.pop(), blocks.pop()
            blocks.append(((a * k + b * m) / (k + m), k + m))
    placed = [centre + gap * (i - (size - 1) / 2) for centre, size in blocks for i in range(size)]
    out = [0.0] * len(placed)
    for position, index in zip(placed, order, strict=True):
        out[int(index)] = position
    return out


def below(values: Sequence[float], top: float, gap: float) -> list[float]:
    """Move the highest values down to ``top``, and those below them as far as needed to stay ``gap`` apart."""
    out = list(values)
    for index in np.argsort(-np.asarray(values), kind="stable"):
        out[int(index)] = min(out[int(index)], top)
        top = out[int(index)] - gap
    return out


def label_ends(ax: Axes, labels: Iterable[tuple[float, str, str]], *, gap: float) -> None:
    """Name lines at their right end; ``labels`` are (height in data units, text, colour), ``gap`` apart, none above."""
    known = list(labels)
    heights = below(spread([y for y, _, _ in known], gap), max(ax.get_ylim()), gap)
    for (_, text, colour), y in zip(known, heights, strict=True):
        ax.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", color=colour, fontsize=6.5, annotation_clip=False,
        )  # fmt: skip


def interval_text(methods: Iterable[str]) -> str:
    """Name the intervals that the bars show: ``95 % question-cluster bootstrap intervals``."""
    names = sorted({m for m in methods if m})
    if names == ["cluster_bootstrap", "wilson"]:
        return f"{INTERVALS['cluster_bootstrap']} (Wilson's where all or none count and a bootstrap has no width)"
    return " and ".join(INTERVALS.get(m, f"95 % {m} intervals") for m in names) or "no intervals"


def intervals(rows: Iterable[Row]) -> str:
    """Name the intervals of some rows."""
    return interval_text(str(row["ci_method"]) for row in rows)


def some(rows: Sequence[Row], figure: str, metrics: Iterable[str]) -> Sequence[Row]:
    """The rows, if there are any.

    Raises:
        ValueError: If there is none; names the figure and the metrics it needs.
    """
    if not rows:
        raise ValueError(f"figure {figure}: no row with metric {' or '.join(metrics)}")
    return rows
