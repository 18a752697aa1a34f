"""Where prompts lie along g and along the trigger feature, question by question."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.rows import Row, groups, panels, select, span, values

TITLE = "Projections onto the two directions"
METRICS = ("projection_g", "projection_trigger")
READING = (
    "Each point is one question, placed by the projection of its residual stream onto a direction, in units of the "
    "mean residual norm; the shape is the distribution, the bar its mean. A semantic gate puts rephrased beside on, "
    "and other and opposite beside off."
)
CONTROL = (
    "Other and opposite texts: they lengthen the prompt as the trigger does and mean something else. Projection alone"
    " is not evidence that the model uses the direction; that is what the two interventions below test."
)
AXES = {"projection_g": "along g", "projection_trigger": "along trigger feature"}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Projections of prompts, one per question and condition, at the site chosen for each panel."""
    projections = select(rows, metric=METRICS, condition=tuple(style.CONDITIONS))
    return [row for panel in panels(projections).values() for row in _chosen(panel)]


def _chosen(rows: Sequence[Row]) -> list[Row]:
    """The rows of one site and layer: where on and off lie furthest apart along g, in standard deviations."""
    return max(groups(rows, "site", "layer").values(), key=_separation, default=[])


def _separation(rows: Sequence[Row]) -> float:
    on, off = (np.array(values(select(rows, metric=METRICS[0], condition=c))) for c in ("on", "off"))
    if min(len(on), len(off)) < 2:
        return 0.0
    deviation = np.sqrt((on.var(ddof=1) + off.var(ddof=1)) / 2)
    return float(abs(on.mean() - off.mean()) / deviation) if deviation else 0.0


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the distribution over questions of both projections, by condition, a column per organism.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "projections", METRICS)
    conditions = [c for c in style.CONDITIONS if select(drawn, condition=c)]
    columns = panels(drawn)
    metrics = [m for m in METRICS if select(drawn, metric=m)]
    with style.paper():
        width = style.DOUBLE if len(columns) > 1 else style.COLUMN
        figure = style.canvas(width, 0.5 + 1.55 * len(metrics))
        axes = figure.subplots(len(metrics), len(columns), sharex=True, sharey="row", squeeze=False)
        for j, ((_, organism, _), cell) in enumerate(columns.items()):
            style.title(axes[0, j], organism, style.where(organism, _where(cell[0])))
            for i, metric in enumerate(metrics):
                _strips(axes[i, j], select(cell, metric=metric), conditions)
            style.condition_ticks(axes[-1, j], conditions)
        for i, metric in enumerate(metrics):
            axes[i, 0].set_ylabel(f"{AXES[metric]}\n(mean residual norms)")
    return figure


def _where(row: Row) -> str:
    site = f"{str(row['site']).split('.')[0]} of layer {row['layer']}".removeprefix("resid_post of ")
    return f"{row['trigger']}, {site}" if row["trigger"] else site


def _strips(ax: Axes, rows: Sequence[Row], conditions: Sequence[str]) -> None:
    ax.axhline(0, color="#BBBBBB", lw=0.6, zorder=0)
    for x, condition in enumerate(conditions):
        heights, colour = np.array(values(select(rows, condition=condition))), style.CONDITIONS[condition]
        if not len(heights):
            continue
        _half_violin(ax, x, heights, colour)
        ax.plot(x - 0.08 - 0.24 * _jitter(len(heights)), heights, "o", ms=1.8, mew=0, color=colour, alpha=0.55)
        ax.hlines(heights.mean(), x - 0.36, x + 0.36, color=style.INK, lw=1.0, zorder=3)
    ax.set_xlim(-0.6, len(conditions) - 0.4)
    ax.tick_params(axis="x", length=0)


def _half_violin(ax: Axes, x: float, heights: np.ndarray, colour: str) -> None:
    """Draw a kernel density (Scott's bandwidth) to the right of ``x``, scaled to a fixed width."""
    deviation = float(heights.std(ddof=1)) if len(heights) > 1 else 0.0
    if not deviation:
        return
    width = deviation * len(heights) ** -0.2
    grid = np.linspace(heights.min() - 2 * width, heights.max() + 2 * width, 160)
    density = np.exp(-0.5 * ((grid[:, None] - heights) / width) ** 2).sum(1)
    ax.fill_betweenx(grid, x, x + 0.36 * density / density.max(), color=colour, alpha=0.35, lw=0)


def _jitter(n: int) -> np.ndarray:
    """Offsets that fill [0, 1) evenly and depend on n alone (the golden-ratio sequence)."""
    return (np.arange(n) * 0.6180339887498949) % 1.0


def caption(rows: Sequence[Row]) -> str:
    """Say what a point is, at which site, and how many questions there are."""
    drawn = wanted(rows)
    places = sorted({f"{str(row['site']).split('.')[0]} of layer {row['layer']}" for row in drawn})
    count = span(len(cell) for cell in groups(drawn, "organism", "trigger", "condition", "metric", "seed").values())
    chosen = " (the site where on and off are furthest apart along g)" if len(_sites(rows)) > 1 else ""
    return (
        f"Projection of the residual stream onto the misalignment direction g and the trigger feature at "
        f"{', '.join(places)}{chosen}, in units of the mean residual norm there. Each point is one question "
        f"(n = {count} questions per condition); black bars are means, no intervals are shown."
    )


def _sites(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    return groups(select(rows, metric=METRICS), "site", "layer")
