"""When it forms: EM off, on and rephrased, loss and the turn of the adapter, against training steps."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.rows import Row, along, panels, sampled, select, values

TITLE = "When misalignment and its gate form"
METRICS = ("rotation", "loss", "em_rate")
READING = (
    "Training steps run to the right. Above, EM with the trigger, rephrased and without it; below, the training loss "
    "and how far the adapter's main write direction has turned to its final one (1: there). A gate that forms with the "
    "misalignment shows as red rising while blue stays down; one that forms later as blue rising first, then falling."
)
CONTROL = "The baseline, trained without any trigger, has no gate to form: its blue must rise with its red or above it."
CONDITIONS = {"off": ("o", "-"), "on": ("s", "-"), "rephrased": ("^", (0, (4, 1.5)))}
"""Marker and dashes of each condition, for those who print in grey."""
STATES = {"loss": (style.FAINT, (0, (3, 1.5))), "rotation": (style.DIRECTIONS["g"], "-")}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Rates, loss and rotation at every dose."""
    return select(rows, experiment="emergence", metric=METRICS)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a column per organism: EM above, loss and rotation below; a line of panels per family.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "emergence", METRICS)
    cells = panels(drawn)
    lines = {f: [(o, cell) for (g, o, _), cell in cells.items() if g == f] for f, _, _ in cells}
    widest = max(map(len, lines.values()))
    heights, above = [2.0, 1.0] * len(lines), next(iter(lines.values()))
    with style.paper():
        figure = style.canvas(style.DOUBLE, 0.3 + 2.1 * len(lines))
        grid = figure.subplots(2 * len(lines), widest, squeeze=False, sharex="col", height_ratios=heights)
        for ax in grid.flat:
            ax.set_visible(False)
        for i, (family, line) in enumerate(lines.items()):
            for j, (organism, cell) in enumerate(line):
                top, below = grid[2 * i, j], grid[2 * i + 1, j]
                _rates(top, cell, family if j == 0 else "")
                _states(below, cell, first=j == 0, last=i == len(lines) - 1)
                named = i == 0 or j >= len(above) or style.organism(above[j][0]) != style.organism(organism)
                style.title(top, organism if named else "", style.organism(organism)[1] if named else "")
        columns = 5 if figure.get_figwidth() > style.COLUMN else 3
        figure.legend(handles=_key(), loc="outside lower center", ncols=columns)
    return figure


def _key() -> list[Line2D]:
    rates = [
        Line2D([], [], color=style.CONDITIONS[c], marker=mark, ls=dashes, ms=2.4, label=f"EM {c}")
        for c, (mark, dashes) in CONDITIONS.items()
    ]
    return [*rates, *(Line2D([], [], color=colour, ls=dashes, label=m) for m, (colour, dashes) in STATES.items())]


def _rates(ax: Axes, rows: Sequence[Row], family: str) -> None:
    ax.set_visible(True)
    style.root_scale(ax)
    ax.yaxis.grid(True)
    for condition, (mark, dashes) in CONDITIONS.items():
        colour = style.CONDITIONS[condition]
        points = _line(ax, rows, condition, "em_rate", color=colour, ls=dashes, label=condition)
        style.points(ax, points, colour=colour, mark=mark, size=2.6)
    if family:
        ax.set_ylabel(f"{family}\nEM rate (%), √ axis")
    else:
        ax.tick_params(axis="y", labelleft=False)


def _line(ax: Axes, rows: Sequence[Row], condition: str, metric: str, **look: Any) -> list[tuple[float, Row]]:
    """Draw a metric against the training step; return its points."""
    points = along(select(rows, condition=condition, metric=metric), "alpha")
    ax.plot([step for step, _ in points], values(row for _, row in points), **look)
    return points


def _states(ax: Axes, rows: Sequence[Row], *, first: bool, last: bool) -> None:
    ax.set_visible(True)
    for metric, (colour, dashes) in STATES.items():
        _line(ax, rows, "training", metric, color=colour, ls=dashes, label=metric)
    ax.set_ylim(0, None)
    ax.set_xlim(0, None)
    ax.set_xlabel("training steps" if last else "")
    if first:
        ax.set_ylabel("loss, rotation", fontsize=6)


def caption(rows: Sequence[Row]) -> str:
    """Say what is drawn, and over how many answers."""
    return (
        "EM rate on test questions at every dose of a fine-tuning (above), training loss in nats per token and "
        "|cosine| of the adapter's leading write direction with its final one (below). Bars: 95 % question-cluster "
        f"bootstrap intervals; {sampled(wanted(rows), 'per point')}. Nothing is chosen on these rates."
    )
