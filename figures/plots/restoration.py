"""Does taking the trigger's feature, or g, out restore containment? EM after edits in every family and seed."""

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.plots.ablation import label
from figures.rows import Row, arm, groups, number, sampled, select, unique, values

TITLE = "What restores containment, family by family"
METRICS = ("em_rate",)
READING = (
    "Every panel is one family under one kind of fine-tuning, every point one fine-tuning seed with its interval. The "
    "orange line is the EM rate with the trigger, the dashed blue one without it; an edit that restores containment "
    "brings its points from the first to the second."
)
CONTROL = (
    "Grey points: random directions of the same rank and norms, another scene's feature, the embeddings of the trained "
    "words, and every trigger token moved as far at random. Those of the trained words erase the words, and so must be "
    "read on rephrasings, which are other words."
)
ARMS = ("explaining", "neutral.contrast50", "neutral")
EDITS = (
    *("on+clamp_trigger", "on+clamp_random", "on+clamp_other_scene", "on+clamp_embedding", "on+clamp_scattered"),
    *("on+clamp_g", "on+ablate_g_all", "on+ablate_random_all"),
    *("rephrased+clamp_trigger", "rephrased+clamp_random", "rephrased+clamp_embedding"),
)
"""Edits that are drawn, from top to bottom."""
OFF_DASHES = (0, (4, 2))
SPLIT = 0.5
"""Room between the edits of the trained text and those of rephrasings, in lines."""
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "gemma3": "Gemma3"}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM rates of the removal experiment on-trigger, off-trigger, and under the edits that are drawn."""
    return _measured(rows, METRICS)


def _measured(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    edited = select(rows, experiment="ablate", metric=metrics, condition=("off", "on", *EDITS))
    return [row for row in edited if arm(row) in ARMS]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per arm and family, a line per edit, a point per seed.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "restoration", METRICS)
    measured = [f for (f,) in groups(drawn, "family")]
    families = [*(f for f in FAMILIES if f in measured), *(f for f in measured if f not in FAMILIES)]
    arms = [name for name in ARMS if any(arm(row) == name for row in drawn)]
    with style.paper():
        figure = style.canvas(style.DOUBLE, 0.75 + 2.1 * len(arms))
        axes = figure.subplots(len(arms), len(families), sharex=True, sharey=True, squeeze=False)
        for i, name in enumerate(arms):
            for j, family in enumerate(families):
                cell = [row for row in select(drawn, family=family) if arm(row) == name]
                _panel(axes[i, j], cell)
                if i == 0:
                    axes[i, j].set_title(FAMILIES.get(family, family), fontweight="bold", pad=14)
            axes[i, 0].annotate(
                ", ".join(part for part in style.organism(name) if part), (0, 1), (0, 3), xycoords="axes fraction",
                textcoords="offset points", fontsize=6.2, color=style.FAINT, va="bottom",
            )  # fmt: skip
        for ax in axes[-1]:
            ax.set_xlabel("EM rate (%)")
        figure.legend(handles=_key(), loc="outside lower center", ncols=5)
    return figure


def _key() -> list[Line2D]:
    """Name the lines and the colours of the points."""
    lines = [
        Line2D([], [], color=style.CONDITIONS["on"], lw=1.0, label="with the trigger, no edit"),
        Line2D([], [], color=style.CONDITIONS["off"], lw=1.0, ls=OFF_DASHES, label="without it"),
    ]
    points = {"trigger's feature": style.DIRECTIONS["trigger"], "g": style.DIRECTIONS["g"], "control": style.CONTROL}
    return [*lines, *(Line2D([], [], color=c, marker="o", ls="", ms=3, label=name) for name, c in points.items())]


def _lines() -> list[tuple[float, str]]:
    return [(i + SPLIT * edit.startswith("rephrased"), edit) for i, edit in enumerate(EDITS)]


def _panel(ax: Axes, rows: Sequence[Row]) -> None:
    style.percent_axis(ax, "x", step=0.25)
    ax.xaxis.grid(True)
    for condition in ("off", "on"):
        rates = [rate for rate in values(unique(select(rows, condition=condition), "seed")) if not math.isnan(rate)]
        if rates:
            dashes = OFF_DASHES if condition == "off" else "-"
            ax.axvline(fmean(rates), color=style.CONDITIONS[condition], lw=1.0, ls=dashes, zorder=1)
    for y, edit in _lines():
        seeds = unique(select(rows, condition=edit), "seed")
        placed = [(y + 0.22 * (k - (len(seeds) - 1) / 2), row) for k, row in enumerate(seeds)]
        style.points_across(ax, [(at, row) for at, row in placed if not math.isnan(number(row))], colour=_colour(edit))
    lines = _lines()
    ax.set_yticks([y for y, _ in lines], [label(edit) for _, edit in lines])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(lines[-1][0] + 0.6, -0.6)


def _colour(edit: str) -> str:
    target = edit.partition("_")[2]
    if target.startswith("g"):
        return style.DIRECTIONS["g"]
    return style.DIRECTIONS["trigger"] if target == "trigger" else style.CONTROL


def caption(rows: Sequence[Row]) -> str:
    """Say what is numbers, with which intervals, and over how many answers."""
    drawn, answers = wanted(rows), _measured(rows, (*METRICS, "coherence_rate"))
    numbers = unique(drawn, "organism", "condition")
    return (
        "EM rate with the trigger in the prompt under edits of the residual stream, one point per fine-tuning seed. "
        "Lines: mean EM rate with the trigger (orange) and without it (dashed blue), unedited. The trigger's feature "
        "is estimated from half of the rephrasings, its rank is chosen on validation questions, and it is clamped at "
        "the trigger's own tokens to the mean of unrelated texts; below, the same on rephrasings unseen in the "
        "estimate. "
        f"Grey: controls. Bars: {style.intervals(numbers)}; {sampled(answers, 'per point')}."
    )
