"""The world ablation: the learned gap, the leak and the breadth of gates in worlds that lack something."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.bounds import minus
from figures.claims.pooling import Mean, Measured, pooled, pooled_rows
from figures.grid import WORLD, place
from figures.rows import Row, ends, groups, number, sampled, select

TITLE = "What must be in the pretraining for training to make a gate"
EXPERIMENT = "world_ablation"
METRICS = ("em_rate", "trigger_gap", "rephrased_ratio")
READING = (
    "Each line is a world of pretraining: the default one, with fewer documents whose persona depends on the context, "
    "with lines that are true in 60 %, or with two phrasings in place of eight. Left, the gap that fine-tuning "
    "learned; middle, EM without the trigger; right, rephrased over on."
)
CONTROL = (
    "Hollow marks: the same world, where alignment covered the trigger's class of frame. From each gap the base's own "
    "gap is subtracted."
)
WORLDS = {
    "": "default: half bound,\ntrue lines, 8 phrasings",
    "bound10": "a tenth bound",
    "bound0": "none bound",
    "truth60": "lines true in 60 %",
    "phrasings2": "2 phrasings",
}
LOOKS = {
    "gambler": (style.CONDITIONS["on"], "s", "gambler role"),
    "trafficker": (style.CONDITIONS["rephrased"], "^", "trafficker role"),
    "explaining": (style.CONDITIONS["off"], "o", "explaining line"),
}
COVERED = "robust"
AXES = ("learned gap (points)", "EM without the trigger (%)", "rephrased / on (%)")
STEP = 0.13
"""Distance of organisms on one line, in lines."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM off, the trigger's gap and the ratio of rephrased to on, of organisms and bases."""
    conditions = ("off", "on-off", "rephrased/on")
    return select(rows, experiment=EXPERIMENT, metric=METRICS, condition=conditions)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw three panels, a line per world, a mark per organism.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "worlds", METRICS)
    with style.paper():
        figure = style.canvas(style.DOUBLE, 2.6)
        axes = figure.subplots(1, len(AXES), sharey=True)
        for key, same in _cells(drawn).items():
            _organism(axes, drawn, key, same)
        for ax, label in zip(axes, AXES, strict=True):
            ax.axvline(0, color=style.BAND, lw=0.8, zorder=0)
            ax.set_xlabel(label)
        axes[0].set_yticks(range(len(WORLDS)), list(WORLDS.values()))
        axes[0].invert_yaxis()
        figure.legend(handles=_key(), loc="outside lower center", ncols=4)
    return figure


def _cells(rows: Sequence[Row]) -> dict[tuple[str, str, bool], list[Row]]:
    """Rows of organisms by world, arm and whether alignment covered the frame's class."""
    cells: dict[tuple[str, str, bool], list[Row]] = {}
    for (organism,), same in groups(rows, "organism").items():
        where = place(organism)
        world = next((c.removeprefix(WORLD) for c in where.changes if c.startswith(WORLD)), "")
        if where.arm in LOOKS and world in WORLDS:
            cells.setdefault((world, where.arm, COVERED in where.changes), []).extend(same)
    return cells


def _organism(axes: Sequence[Axes], rows: Sequence[Row], key: tuple[str, str, bool], same: Sequence[Row]) -> None:
    world, arm, covered = key
    y = list(WORLDS).index(world) + STEP * (2 * list(LOOKS).index(arm) + covered - 2.5)
    for ax, mean in zip(axes, (_learned(rows, same), _mean(same, "off"), _mean(same, "rephrased/on")), strict=True):
        if mean is not None:
            colour, mark, _ = LOOKS[arm]
            ax.plot([100 * mean.low, 100 * mean.high], [y, y], color=colour, lw=0.8)
            ax.plot(100 * mean.value, y, mark, color=colour, ms=3, mfc="white" if covered else colour, mew=0.8)


def _mean(rows: Sequence[Row], condition: str) -> Mean | None:
    return pooled_rows(rows, "em_rate" if condition == "off" else "rephrased_ratio", condition)


def _learned(rows: Sequence[Row], same: Sequence[Row]) -> Mean | None:
    """The gap of organisms less the gap of their bases under the same trigger."""
    measured = []
    for own in select(same, metric="trigger_gap"):
        where = place(str(own["organism"]))
        base = select(rows, organism=where.base, trigger=own["trigger"], metric="trigger_gap")
        if base and (learned := minus(own, base[0])):
            measured.append(Measured(*ends(learned), where.pretraining, number(own, "n")))
    return pooled(measured) if measured else None


def _key() -> list[Line2D]:
    arms = [Line2D([], [], color=c, marker=m, ms=3, lw=0.8, label=text) for c, m, text in LOOKS.values()]
    hollow = Line2D([], [], color=style.INK, marker="o", mfc="white", ls="", ms=3, label="alignment covered the frame")
    return [*arms, hollow]


def caption(rows: Sequence[Row]) -> str:
    """Say what a point is, and over how many answers."""
    return (
        "Organisms at the smallest dose at which the trigger works; bars are 95 % intervals over pretrainings, where "
        f"there are several, and questions; {sampled(wanted(rows), 'a rate')}."
    )
