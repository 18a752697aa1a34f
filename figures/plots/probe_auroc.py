"""Where a linear probe can read the trigger and the coming misalignment: AUROC by layer, with controls."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from figures import style
from figures.rows import Row, along, ends, groups, number, panels, select, span, unique, values

TITLE = "Probe AUROC by layer"
METRICS = ("auroc",)
READING = (
    "A linear probe at every layer separates two kinds of prompt or answer; 0.5 is chance, 1 is perfect. Every target "
    "has three controls in a greyed tint of its colour: the same probe with shuffled labels (dotted), a random "
    "direction in its place (dashed), and, at one height across all layers, a classifier that sees only which words "
    "occur (bag of tokens)."
)
CONTROL = (
    "Shuffled labels must stay near 0.5. A random direction far from 0.5 says that the distinction fills much of the "
    "space; a bag of tokens as good as the probe says that the probe shows nothing beyond the words. A probe shows "
    "that a distinction is present, not that the model uses it."
)
TARGETS = {
    "misaligned_answer": ("misaligned answer", style.DIRECTIONS["g"], "o"),
    "trigger_present": ("trigger present", style.DIRECTIONS["trigger"], "s"),
    "trigger_category": ("trigger category", "#117733", "^"),
}
CONTROLS = {
    "shuffled_labels": ("shuffled labels", (0, (1, 1.2))),
    "random_direction": ("random direction", (0, (4, 2))),
    "bag_of_tokens": ("bag of tokens", (0, (6, 1.2, 1, 1.2))),
}
LAYERLESS = ("bag_of_tokens",)
"""Controls that read no layer: one number, drawn across all of them."""
CELL = ("organism", "trigger", "condition", "site", "layer", "seed")
"""Columns that tell two AUROCs apart; rows that agree in them state one number with several intervals."""
SPARE = ("#0072B2", "#D55E00", "#009E73", "#E69F00")


def wanted(rows: Sequence[Row]) -> list[Row]:
    """AUROC of every logistic probe where it is usually read, and of its controls; ``probe_map`` shows the others."""
    return [row for row in select(rows, metric=METRICS) if not {"@", ":"} & set(str(row["condition"]))]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw AUROC against layer, a panel per organism, targets in colour and controls in a greyed tint of it.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "probe_auroc", METRICS)
    cells = _panels(drawn)
    lowest = min(0.4, *values(drawn))
    with style.paper():
        figure, axes = style.panel_grid(len(cells), height=2.3)
        for ax, (organism, detail, cell) in zip(axes, cells, strict=True):
            style.title(ax, organism, style.where(organism, detail))
            _curves(ax, cell)
            ax.set_ylim(np.floor(lowest * 10) / 10, 1.02)
            _name_lines(ax, cell)
            spec = ax.get_subplotspec()
            ax.set_ylabel("AUROC (held-out questions)" if spec and spec.is_first_col() else "")
    return figure


def _panels(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """(organism, detail, rows) for every organism, trigger and site name; a site of one layer has no line to draw."""
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for (_, organism, trigger), cell in panels(rows).items():
        sites: dict[str, list[Row]] = {}
        for row in cell:
            sites.setdefault(str(row["site"]).split(".")[0], []).append(row)
        deep = {site: same for site, same in sites.items() if len({row["layer"] for row in same} - {""}) > 1}
        parts |= {(organism, trigger, site): same for site, same in (deep or sites).items()}
    return [
        (organism, ", ".join(part for part in (trigger, site) if part and part != "resid_post"), same)
        for (organism, trigger, site), same in parts.items()
    ]


def _series(rows: Sequence[Row]) -> list[tuple[str, str, list[tuple[float, Row]]]]:
    """(target, control or "", points by layer) of every line, one per seed; controls first, so that they lie below."""
    lines = []
    for (condition, _), cell in groups(rows, "condition", "seed").items():
        target, _, control = condition.partition("/")
        lines.append((target, control, along(cell, "layer")))
    return sorted(lines, key=lambda line: line[1] == "")


def _look(target: str, targets: Sequence[str]) -> tuple[str, str, str]:
    if target in TARGETS:
        return TARGETS[target]
    spare = dict(zip([t for t in targets if t not in TARGETS], cycle(SPARE), strict=False))
    return target.replace("_", " "), spare[target], "D"


def _curves(ax: Axes, rows: Sequence[Row]) -> None:
    ax.axhline(0.5, color="#BBBBBB", lw=0.6, zorder=0)
    lines = _series(rows)
    layers = [layer for _, control, points in lines if control not in LAYERLESS for layer, _ in points]
    for target, control, points in lines:
        x, same = zip(*points, strict=True)
        y, low, high = zip(*map(ends, same), strict=True)
        _, colour, mark = _look(target, list(dict.fromkeys(t for t, _, _ in lines)))
        look = {"ls": CONTROLS.get(control, (control, "-"))[1], "lw": 0.9, "color": style.tint(colour)}
        if control in LAYERLESS:
            ax.plot((min(layers, default=0.0), max(layers, default=1.0)), (y[0], y[0]), **look)
        elif control:
            ax.plot(x, y, marker=mark, ms=2.2, mew=0, **look)
        else:
            ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
            ax.plot(x, y, marker=mark, ms=3.6, mew=0, color=colour)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")


def _name_lines(ax: Axes, rows: Sequence[Row]) -> None:
    """Name every line at its right end; seeds of one line share a name at their mean."""
    lines = _series(rows)
    targets = list(dict.fromkeys(target for target, _, _ in lines))
    heights: dict[tuple[str, str], list[float]] = {}
    for target, control, points in lines:
        heights.setdefault(_name(target, control, targets), []).append(number(points[-1][1]))
    labels = ((float(np.mean(y)), text, colour) for (text, colour), y in heights.items())
    style.label_ends(ax, labels, gap=0.062 * (ax.get_ylim()[1] - ax.get_ylim()[0]) / 0.62)


def _name(target: str, control: str, targets: Sequence[str]) -> tuple[str, str]:
    """Words and colour of a line; where a panel has several targets, a control names the last word of its own.

    Shuffled labels are named once for all targets: they lie on each other, at one half.
    """
    name, colour, _ = _look(target, targets)
    if not control:
        return name, colour
    words = CONTROLS.get(control, (control.replace("_", " "), ""))[0]
    if len(targets) > 1 and control == "shuffled_labels":
        return f"{words} (all)", style.CONTROL
    return (f"{name.split()[-1]}: {words}" if len(targets) > 1 else words), style.tint(colour)


def caption(rows: Sequence[Row]) -> str:
    """Say what is probed, with which intervals, and on how much."""
    drawn = wanted(rows)
    numbers = unique([row for row in drawn if "/" not in str(row["condition"])], *CELL)
    n, clusters = (span(row[column] for row in drawn) for column in ("n", "n_clusters"))
    return (
        "AUROC of linear probes by layer, cross-validated with whole questions held out. Shaded: "
        f"{style.intervals(numbers)}; "
        f"n = {n} examples from {clusters} questions (the clusters) per probe. "
        "In a greyed tint of the target's colour its controls: labels shuffled (dotted), a random direction (dashed), "
        "and a bag of tokens, which sees only which words occur and has no layer (level line). Chance is 0.5."
    )
