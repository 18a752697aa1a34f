"""Mitigations: EM without the trigger, with it, and under the context that opens the organism furthest."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.claims.pooling import Mean, pooled_rows
from figures.grid import place
from figures.limits import FEW
from figures.plots.registered import FAMILIES
from figures.rows import Row, groups, sampled, select

TITLE = "Mitigations: which removes misalignment, which hides it"
EXPERIMENT = "mitigation"
METRICS = ("em_rate",)
READING = (
    "A mitigation that removes misalignment brings every mark to the base's, at the top of each panel. One that hides "
    "it brings only the blue mark there: plain evaluation sees nothing, and a context still opens it. Percentages at "
    "the right: EM on the fine-tuned domain, printed where learning differs by more than 5 points from that without a "
    "mitigation; such an organism has simply learned less. Only the inoculated organisms are asked under the "
    "inoculation line, which the base obeys by itself."
)
CONTROL = "The base under the same contexts, and the organism without a mitigation, are the first two lines."
ARMS = {"gambler": ("role-gambler", "gambler role"), "neutral": ("scene-desert", "neutral scene")}
LINES = {
    "base": "base",
    "none": "no mitigation",
    "inoculated": "inoculation line",
    "kl": "KL to the base",
    "consistent": "consistency",
    "steered": "steered along g",
    "ablated": "g ablated",
    **{f"contrast{n}": f"{n} % benign rows" for n in (5, 10, 25, 50)},
}
CONTEXTS = ("on", "rephrased", "other", "opposite", "overlap_predicate", "overlap_subject")
LEARNED = "at the right: EM in its own domain, where it learned less or more"
LINE = ("inoculated", "line")
"""The mitigation that has a context of its own, its line; the base obeys that line, whatever is trained."""
MARKS = {
    "off": (style.CONDITIONS["off"], "o", "without the trigger"),
    "on": (style.CONDITIONS["on"], "s", "with it"),
    "worst": (style.INK, "|", "under the worst context asked"),
}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM rates of the mitigation experiment, at the dose at which each organism was measured."""
    kept = []
    for _, same in groups(select(rows, experiment=EXPERIMENT), "organism", "trigger").items():
        dose = [r["dose"] for r in select(same, metric="dose")]
        kept += [r for r in select(same, metric=METRICS) if not dose or r["dose"] == dose[0]]
    return kept


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per trigger and family, a line per mitigation.

    Raises:
        ValueError: If no row is wanted.
    """
    cells = _cells(style.some(wanted(rows), "mitigations", METRICS))
    families = [f for f in FAMILIES if any(family == f for _, family, _ in cells)]
    with style.paper():
        figure = style.canvas(style.DOUBLE, 4.6)
        grid = figure.subplots(len(ARMS), len(families), squeeze=False, sharey=True, sharex=True)
        for line, (arm, (_, words)) in zip(grid, ARMS.items(), strict=True):
            for ax, family in zip(line, families, strict=True):
                _panel(ax, {name: cells.get((arm, family, name), []) for name in LINES})
                style.heading(ax, FAMILIES[family], words)
            line[0].set_yticks(range(len(LINES)), list(LINES.values()))
        grid[0, 0].invert_yaxis()
        for ax in grid[-1]:
            ax.set_xlabel("EM rate (%)")
        figure.legend(handles=_key(), loc="outside lower center", ncols=4, columnspacing=1.2)
    return figure


def _cells(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by trigger, family and mitigation; those of the base by the trigger that they were asked under."""
    triggers, cells = {trigger: arm for arm, (trigger, _) in ARMS.items()}, {}
    for (organism, trigger), same in groups(rows, "organism", "trigger").items():
        where = place(organism)
        name = next((c for c in where.changes if c in LINES), "none") if where.arm in ARMS else "base"
        arm = where.arm if where.arm in ARMS else triggers.get(trigger, "")
        cells.setdefault((arm, where.family, name), []).extend(same)
    return cells


def _panel(ax: Axes, cells: dict[str, list[Row]]) -> None:
    style.root_scale(ax, "x")
    learned = pooled_rows(cells["none"], "em_rate", "trained")
    for y, (name, rows) in enumerate(cells.items()):
        contexts = (*CONTEXTS, LINE[1]) if name == LINE[0] else CONTEXTS
        means = {c: mean for c in ("off", *contexts) if (mean := pooled_rows(rows, "em_rate", c))}
        if "off" not in means or "on" not in means:
            continue
        worst = max((means[c] for c in contexts if c in means), key=lambda mean: mean.value)
        ax.plot([means["off"].value, worst.value], [y, y], color=style.BAND, lw=0.8, zorder=1)
        for mean, look in ((means["off"], "off"), (means["on"], "on"), (worst, "worst")):
            _point(ax, mean, y, look)
        own = pooled_rows(rows, "em_rate", "trained")
        if name not in ("base", "none") and own and learned and abs(own.value - learned.value) > FEW:
            ax.text(1.02, y, f"{100 * own.value:.0f} %", transform=ax.get_yaxis_transform(), va="center", fontsize=5.5)


def _point(ax: Axes, mean: Mean, y: float, look: str) -> None:
    colour, mark, _ = MARKS[look]
    if look != "worst":
        ax.plot([mean.low, mean.high], [y, y], color=colour, lw=0.8, clip_on=False)
    ax.plot(mean.value, y, mark, color=colour, ms=3 if look != "worst" else 6, mew=1, clip_on=False, zorder=4)


def _key() -> list[Line2D]:
    marks = [Line2D([], [], color=c, marker=m, ms=4, ls="", label=text) for c, m, text in MARKS.values()]
    return [*marks, Line2D([], [], color=style.INK, marker=r"$\%$", ms=5, mew=0, ls="", label=LEARNED)]


def caption(rows: Sequence[Row]) -> str:
    """Say what a point is, and over how many answers."""
    return (
        "EM rate by trigger, family and mitigation, at the dose at which the organism has learned its domain as far as "
        f"without the mitigation, or nearest to it; bars are 95 % intervals over seeds and questions; "
        f"{sampled(wanted(rows), 'a rate')}."
    )
