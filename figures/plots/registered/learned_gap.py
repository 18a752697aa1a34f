"""Trained gates: the share of the learned gap that every edit closes, by role and family."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.claims.pooling import Mean, pooled_rows
from figures.grid import place
from figures.limits import FEW
from figures.plots.registered import FAMILIES, LOOKS
from figures.rows import Row, groups, number, sampled, select

TITLE = "What carries a gate that training made"
EXPERIMENT = "trained_gate"
METRICS = ("learned_gap_closed", "learned_gap")
READING = (
    "The learned gap is the gap (EM with the trigger minus without) less the base's own. A point is the share of it "
    "that an edit closes: at 100 % the organism's gap is the base's under the same edit. Organisms whose learned gap "
    "is not clearly above 5 points are left out: there is nothing to close."
)
CONTROL = (
    "Grey names: another role's feature, the trigger tokens moved equally far at random, and random directions. What "
    "they close is not the edit's own doing. The base has had every edit too."
)
EDITS = {
    "clamp_trigger": "trigger's feature clamped",
    "clamp_other": "another role's feature clamped",
    "clamp_scattered": "trigger tokens scattered as far",
    "clamp_random": "random directions clamped",
    "clamp_g": "g clamped at the last prompt token",
    "clamp_g_random": "random direction clamped there",
    "ablate_g_all": "g ablated at every token",
    "ablate_random_all": "random direction ablated everywhere",
}
CONTROLS = ("clamp_other", "clamp_scattered", "clamp_random", "clamp_g_random", "ablate_random_all")
LEFT, RIGHT = -0.35, 1.35
"""Ends of the axis; an interval that goes on beyond one ends in an arrow."""
STEP = 0.22
"""Distance of roles on one line, in lines."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """The learned gap of trained gates, and the share of it that edits close."""
    return select(rows, experiment=EXPERIMENT, metric=METRICS)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per family, a line per edit, a mark per role.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "learned_gap", METRICS)
    cells: dict[tuple[str, str], list[Row]] = {}
    for (organism,), same in groups(drawn, "organism").items():
        if any(number(gap, "ci_low") > FEW for gap in select(same, metric="learned_gap", condition="on-off")):
            cells.setdefault((place(organism).family, place(organism).arm), []).extend(same)
    families = [f for f in FAMILIES if any(family == f for family, _ in cells)]
    with style.paper():
        figure = style.canvas(style.DOUBLE, 2.9)
        axes = figure.subplots(1, len(families), squeeze=False, sharey=True)[0]
        for ax, family in zip(axes, families, strict=True):
            _panel(ax, {arm: cells[family, arm] for arm in LOOKS if (family, arm) in cells})
            style.heading(ax, FAMILIES[family], "")
        axes[0].set_yticks(range(len(EDITS)), list(EDITS.values()))
        for label, edit in zip(axes[0].get_yticklabels(), EDITS, strict=True):
            label.set_color(style.FAINT if edit in CONTROLS else style.INK)
        axes[0].invert_yaxis()
        figure.legend(handles=_key(), loc="outside lower center", ncols=4)
    return figure


def _panel(ax: Axes, arms: dict[str, list[Row]]) -> None:
    for edge in (0.0, 1.0):
        ax.axvline(edge, color=style.BAND, lw=0.8, zorder=0)
    for arm, rows in arms.items():
        k, (colour, mark, _) = list(LOOKS).index(arm), LOOKS[arm]
        for line, edit in enumerate(EDITS):
            if mean := pooled_rows(rows, "learned_gap_closed", f"on-off+{edit}"):
                _point(ax, mean, line + STEP * (k - 1), colour, mark)
    ax.set_xlim(LEFT, RIGHT)
    ax.set_xticks([0, 0.5, 1], ["0", "50", "100"])
    ax.set_xlabel("learned gap closed (%)")


def _point(ax: Axes, mean: Mean, y: float, colour: str, mark: str) -> None:
    low, high = max(mean.low, LEFT), min(mean.high, RIGHT)
    ax.plot([low, high], [y, y], color=colour, lw=0.8)
    for end, cut, arrow in ((LEFT, mean.low < LEFT, "<"), (RIGHT, mean.high > RIGHT, ">")):
        if cut:
            ax.plot(end, y, arrow, color=colour, ms=2.6, mew=0, clip_on=False)
    ax.plot(min(max(mean.value, LEFT), RIGHT), y, mark, color=colour, ms=3)


def _key() -> list[Line2D]:
    roles = [Line2D([], [], color=c, marker=m, ms=3, lw=0.8, label=text) for c, m, text in LOOKS.values()]
    return [*roles, Line2D([], [], color=style.FAINT, marker=">", ms=2.6, mew=0, lw=0.8, label="goes on")]


def caption(rows: Sequence[Row]) -> str:
    """Say what a point is, and over how many pretrainings and answers."""
    return (
        "Means over the pretrainings of a family, up to four, with their 95 % intervals; arrows: cut at "
        f"−35 and 135 %; {sampled(wanted(rows), 'a rate')}."
    )
