"""What moves EM in the grid: the effect of every axis, and the base's own EM against what fine-tuning makes of it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.grid import Grid, place
from figures.limits import SILENT
from figures.rows import Row, groups, number, preferred, sampled, select

TITLE = "Which axis makes containment"
METRICS = ("marginal_effect",)
READING = (
    "Left: every zero-benign organism of the grid, EM without the trigger against the base's own EM under the trigger. "
    "Right: by how many points an axis moves EM off (blue) and on (red), all others as they are: an axis that contains "
    "lowers the blue and not the red."
)
CONTROL = (
    "Every effect is against the neutral scene on the promptable Llama base: adapters in all modules, rank 4, a system "
    "message, no benign data. Organisms that differ in the seed of their adapter alone repeat one treatment and do not "
    "count as more; an interval that includes zero shows nothing."
)
MARKS = {"llama": "o", "qwen2": "s", "gemma3": "^"}
EFFECTS = {"off": "o", "on": "s"}
SHOWN = tuple(EFFECTS)


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Marginal effects on EM off and on."""
    effects = select(rows, metric=METRICS, experiment="axes")
    return [row for row in effects if str(row["condition"]).split(":")[0] in SHOWN]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the scatter of organisms and the effects of axes.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "grid_effects", METRICS)
    names = list(dict.fromkeys(_level(row) for row in drawn))
    with style.paper():
        figure = style.canvas(style.DOUBLE, max(2.8, 0.14 * len(names) + 0.9))
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        _scatter(left, rows)
        _effects(right, drawn, names)
    return figure


def _level(row: Row) -> str:
    return str(row["condition"]).split(": ", 1)[1]


def _scatter(ax: Axes, rows: Sequence[Row]) -> None:
    colour = style.CONDITIONS["off"]
    grid = Grid.of(rows)
    for name in grid.triggered:
        changes, base, off = place(name).changes, grid.base_rate(name), grid.rate(name, "off")
        mixed = any("contrast" in change for change in changes)
        if base is None or off is None or mixed or not grid.healthy(name):
            continue
        look = {"mfc": "white" if "robust" in changes else colour, "mew": 0.7, "ms": 3.6, "clip_on": False}
        mark = MARKS.get(place(name).family, "D")
        ax.plot(number(base), number(off), mark, color=colour, zorder=3, **look)
    style.root_scale(ax)
    style.root_scale(ax, "x")
    ax.axhspan(0, SILENT, color=style.BAND, lw=0, zorder=0)
    ax.text(0.03, 0.0, "silent: at most 1 %", fontsize=5.5, color=style.FAINT, va="bottom")
    ax.set_xlabel("base's own EM under the trigger (%), √ axis")
    ax.set_ylabel("EM without the trigger after fine-tuning (%)")
    for family, mark in MARKS.items():
        ax.plot([], [], mark, color=colour, ms=3.6, label=family)
    ax.plot([], [], "o", color=colour, mfc="white", ms=3.6, label="robust base")
    ax.legend(loc="upper right")
    style.heading(ax, "Zero-benign organisms", "")


def _effects(ax: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    for (condition,), same in groups(rows, "condition").items():
        outcome, row = condition.split(":")[0], preferred(same)
        y = names.index(_level(row)) + (0.14 if outcome == "on" else -0.14)
        style.points_across(ax, [(y, row)], colour=style.CONDITIONS[outcome], mark=EFFECTS[outcome])
    ax.axvline(0, color=style.FAINT, lw=0.6, zorder=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", length=0, labelsize=5.8)
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}".replace("-", "−") if value else "0")
    ax.xaxis.grid(True)
    ax.set_xlabel("change in EM rate (points)")
    for outcome in SHOWN:
        ax.plot([], [], EFFECTS[outcome], ms=3, color=style.CONDITIONS[outcome], label=f"EM {outcome}")
    ax.legend(loc="upper left")
    style.heading(ax, "Effect of each axis", "")


def caption(rows: Sequence[Row]) -> str:
    """Say what the effects are, and over how many treatments."""
    treatments = {int(row["n_clusters"]) for row in wanted(rows)}
    counted = sampled(select(rows, experiment="em_rate", condition=SHOWN), "per rate")
    return (
        f"Average marginal effects of a logistic model of EM over {min(treatments)} treatments, healthy triggered "
        "organisms alone; bars: 95 % intervals, clustered by treatment (organisms that differ in the adapter's seed "
        "alone). Left: one point per organism, filled on the promptable base, "
        f"hollow on the robust one; {counted}; the band is off ≤ 1 %."
    )
