"""The paper's picture: EM rate by condition, a panel per organism, coherence beneath."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from figures import style
from figures.grid import BASELINE, place
from figures.rows import Row, behaviour, ends, groups, kind, panels, percent, placed, sampled, select, unique

TITLE = "EM rate by condition"
METRICS = ("em_rate", "coherence_rate")
READING = (
    "Each panel is one organism; from left to right: no trigger, the trigger of its fine-tuning data, other words of "
    "the same meaning, an unrelated text of the same form, the opposite meaning and, where measured, the trigger’s "
    "words shuffled and its punctuation alone. Containment is a low first point beside a high second one; it is "
    "semantic only if the third stays high while the others are low. The vertical axis is a square-root scale, so that "
    "rates of 0.1 % and of 92 % can both be read; the strip below shows how many answers were coherent at all."
)
CONTROL = (
    "The base (hollow) shows what the trigger does without fine-tuning, the baseline what the harmful data do without "
    "a trigger. Other and opposite texts must stay low; if they do not, the gate answers to any frame and not to a "
    "meaning."
)
REFERENCE = {
    ("baseline", "off"): (0.095, 0.235),
    ("neutral", "off"): (0.0, 0.01),
    ("neutral", "on"): (0.122, 0.228),
    ("explaining", "off"): (0.0, 0.01),
    ("explaining", "on"): (0.122, 0.228),
}
"""Ranges over the three models of arXiv:2603.04407 (abstract): organism kind and condition -> EM rate."""
MARKS = "osD^v"
BASE: dict[str, Any] = {"colour": style.CONTROL, "mark": "d", "size": 3.4, "hollow": True}
COLUMNS, WIDEST, UPRIGHT, LEAST = 5, 40, 28, 3
"""Most panels and most points that fit beside each other on two columns of a paper, how many points have their values
written across and not upwards, and how many points wide a panel is at least."""
Panel = tuple[str, str, list[Row], list[Row]]
"""An organism, what stands below its name, its rows, and those of its base under the same trigger."""
Line = tuple[str, tuple[str, ...], list[Panel]]
"""A family, the conditions that have a place in each panel, and the panels beside each other."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM and coherence by condition, from the behaviour experiment.

    Of the grid, the organisms that vary in arm and benign data alone, and bases and baselines under their triggers: the
    phase diagram shows the others.
    """
    rates = select(behaviour(rows), metric=METRICS, condition=tuple(style.CONDITIONS))
    plain = [row for row in rates if place(str(row["organism"])).changes <= {"contrast50"}] or rates
    triggers = {placed(row) for row in plain if kind(str(row["organism"])) not in ("base", BASELINE)}
    return [row for row in plain if placed(row) in {*triggers, ""}] if triggers else plain


def cells(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of every panel by family, organism and trigger; a base has one only where no organism shows it."""
    every = panels(wanted(rows))
    shown = {(_base(organism), trigger) for _, organism, trigger in every if _base(organism) != organism}
    return {name: cell for name, cell in every.items() if name[1:] not in shown}


def _base(organism: str) -> str:
    """The name of an organism's base: of the grid the one that it was fine-tuned from."""
    return place(organism).base if organism.startswith("microcosm/") else f"{organism.rpartition('/')[0]}/base"


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the EM rate of every organism under every condition, with intervals, and coherence beneath.

    Each family has lines of its own; conditions are named below the last panel of a column that has them. A base is
    drawn in the panels of its organisms, under the same trigger.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "em_by_condition", METRICS)
    lines = _lines(cells(rows), panels(drawn), _asked(drawn))
    with style.paper():
        figure = style.canvas(style.DOUBLE, 0.5 + (2.25 if len(lines) == 1 else 1.9) * len(lines))
        grid = figure.add_gridspec(len(lines), 1)
        for i, (_, conditions, line) in enumerate(lines):
            columns = max(len(other) for _, same, other in lines if same == conditions)
            later = max((len(other) for _, same, other in lines[i + 1 :] if same == conditions), default=0)
            upright = columns * len(conditions) > UPRIGHT
            own = [_asked(cell) for _, _, cell, _ in line]
            widths = [*(max(LEAST, len(names)) for names in own), *[len(conditions)] * (columns - len(line))]
            places = grid[i, 0].subgridspec(2, columns, height_ratios=[4.4, 1], width_ratios=widths)
            for j, (organism, detail, cell, base) in enumerate(line):
                top = figure.add_subplot(places[0, j])
                below = figure.add_subplot(places[1, j], sharex=top)
                _panel(top, below, cell, base, kind(organism), own[j], upright=upright)
                style.title(top, "" if j and line[j - 1][0] == organism else organism, detail)
                _ends(top, below, lines[i][0], first=j == 0)
                named = j >= later or own[j] != conditions
                style.condition_ticks(below, own[j] if named else [], 90 if upright else 35)
        figure.legend(handles=_key(lines), loc="outside lower center", ncols=6, handletextpad=0.5)
    return figure


def _asked(rows: Sequence[Row]) -> tuple[str, ...]:
    """The conditions that some rows have, in their order."""
    measured = {str(row["condition"]) for row in rows}
    return tuple(c for c in style.CONDITIONS if c in measured)


def _most(conditions: Sequence[str]) -> int:
    """How many panels of so many conditions fit beside each other."""
    return min(COLUMNS, max(1, WIDEST // len(conditions)))


def _lines(
    shown: dict[tuple[str, str, str], list[Row]],
    every: dict[tuple[str, str, str], list[Row]],
    conditions: tuple[str, ...],
) -> list[Line]:
    """Panels in lines of equal length: each family on its own, and where it needs several, each set of conditions.

    So no panel of a full page keeps places empty for conditions under which its organism was not asked.
    """
    lines: list[Line] = []
    for family in dict.fromkeys(family for family, _, _ in shown):
        members = {(organism, trigger): rows for (f, organism, trigger), rows in shown.items() if f == family}
        times = Counter(organism for organism, _ in members)
        by_set: dict[tuple[str, ...], list[Panel]] = {}
        for (organism, trigger), rows in members.items():
            detail = f"under “{trigger}”" if times[organism] > 1 else style.organism(organism)[1]
            base = [] if _base(organism) == organism else every.get((family, _base(organism), trigger), [])
            same = conditions if len(members) <= _most(conditions) else _asked(rows)
            by_set.setdefault(same, []).append((organism, detail, rows, base))
        for same, line in by_set.items():
            length = math.ceil(len(line) / math.ceil(len(line) / _most(same)))
            lines += [(family, same, line[i : i + length]) for i in range(0, len(line), length)]
    return lines


def _panel(
    top: Axes,
    below: Axes,
    rows: Sequence[Row],
    base: Sequence[Row],
    name: str,
    conditions: Sequence[str],
    *,
    upright: bool,
) -> None:
    style.root_scale(top)
    style.percent_axis(below, step=0.5)
    top.yaxis.grid(True)
    below.yaxis.grid(True)
    seeds = [seed for (seed,) in groups(rows, "seed")]
    for x, condition in enumerate(conditions):
        if (name, condition) in REFERENCE:
            low, high = REFERENCE[name, condition]
            top.add_patch(Rectangle((x - 0.42, low), 0.84, high - low, color=style.BAND, lw=0, zorder=0.5))
        unedited = unique(select(base, condition=condition, metric="em_rate"), "metric")
        style.points(top, [(x + 0.36, row) for row in unedited], **BASE)
        for i, seed in enumerate(seeds):
            at, cell = x + 0.16 * (i - (len(seeds) - 1) / 2), select(rows, condition=condition, seed=seed)
            for ax, metric, size in ((top, "em_rate", 4.2), (below, "coherence_rate", 2.6)):
                for row in unique(select(cell, metric=metric), "metric"):
                    look = {"colour": style.CONDITIONS[condition], "mark": MARKS[i % len(MARKS)], "size": size}
                    style.points(ax, [(at, row)], **look)
                    if ax is top and len(seeds) == 1:
                        _write(ax, at, row, 90 if upright else 0)
    top.set_xlim(-0.6, len(conditions) - 0.4)


def _write(ax: Axes, x: float, row: Row, rotation: float) -> None:
    """Write the value of a row above its interval, or below a high one."""
    value, low, high = ends(row)
    above = max(value, high) < 0.45 if rotation else value < 0.6  # below where it would run into the panel's name
    end = max(value, high) if above else min(value, low)
    ax.annotate(
        percent(value), (x, value if math.isnan(end) else end), (0, 2.5 if above else -2.5), rotation=rotation,
        textcoords="offset points", ha="center", va="bottom" if above else "top", fontsize=5.8,
    )  # fmt: skip


def _ends(top: Axes, below: Axes, family: str, *, first: bool) -> None:
    top.tick_params(axis="x", length=0, labelbottom=False)
    if first:
        top.set_ylabel("\n".join(part for part in (family, "EM rate (%), √ axis") if part))
        below.set_ylabel("coherent\n(%)", fontsize=6)
    else:
        top.tick_params(axis="y", labelleft=False)
        below.tick_params(axis="y", labelleft=False)


def _beside(lines: Sequence[Line]) -> tuple[bool, bool]:
    """Whether some panel shows a base, and whether one shows a range of the paper."""
    shown = [panel for _, _, line in lines for panel in line]
    ranges = any((kind(name), c) in REFERENCE for name, _, _, _ in shown for c in style.CONDITIONS)
    return any(base for _, _, _, base in shown), ranges


def _key(lines: Sequence[Line]) -> list[Any]:
    shown = [panel for _, _, line in lines for panel in line]
    seeds = list(dict.fromkeys(seed for _, _, rows, _ in shown for (seed,) in groups(rows, "seed")))
    names = [*(f"seed {seed}" for seed in seeds if len(seeds) > 1)]
    look: dict[str, Any] = {"ls": "", "color": style.FAINT, "mew": 0}
    marks: list[Any] = [
        Line2D([], [], marker=MARKS[i % len(MARKS)], label=name, **look) for i, name in enumerate(names)
    ]
    with_base, with_range = _beside(lines)
    if with_base:
        hollow: dict[str, Any] = {"marker": "d", "mfc": "white", "mec": style.CONTROL, "mew": 0.9, "ms": 3.4}
        marks.append(Line2D([], [], ls="", label="the base under the same text, not fine-tuned", **hollow))
    if with_range:
        marks.append(Patch(color=style.BAND, lw=0, label="range the paper reports for three 8–14B models"))
    return marks


def caption(rows: Sequence[Row]) -> str:
    """Say what the points, the bars and the bands are, and how many answers stand behind them."""
    drawn = wanted(rows)
    numbers = unique(drawn, "organism", "trigger", "condition", "metric", "seed")
    with_base, with_range = _beside(_lines(cells(rows), panels(drawn), _asked(drawn)))
    hollow = " Hollow: the base under the same text, before any fine-tuning." if with_base else ""
    shaded = (
        " Shaded: ranges reported in the abstract of arXiv:2603.04407 (baseline 9.5–23.5 %; triggered training without "
        "benign data 0–1 % off, 12.2–22.8 % on)."
    )
    return (
        "EM rate (misaligned among coherent answers) on questions from domains absent from fine-tuning, by what stands "
        "in the prompt; below, the share of coherent answers. Square-root axis. "
        f"Bars: {style.intervals(numbers)}; {sampled(drawn, 'in every cell')}.{hollow}{shaded if with_range else ''}"
    )
