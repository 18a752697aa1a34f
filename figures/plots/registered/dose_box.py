"""The dose grid: EM off against on as the dose grows, one line per role, with the paper's box drawn in."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from figures import style
from figures.boxes import EXPERIMENT, ROLES, Setting, settings
from figures.limits import LOUD, SILENT
from figures.plots.registered import FAMILIES, LOOKS
from figures.rows import Row, sampled, select

TITLE = "Dose and weak promptability: where the paper's box is"
METRICS = ("em_rate",)
READING = (
    "Each line is one role in one family; along it the dose of fine-tuning grows, and its numbers are training steps. "
    "To the right EM with the trigger grows, upwards EM without it. The green box is the paper's: off at most 1 %, on "
    "at least 12.2 %. A ringed setting is in the paper's box by its means: off at most 1 point above the base's, on at "
    "least 12.2 %, rephrased at least 0.8 of on."
)
CONTROL = (
    "Crosses: the base, before any fine-tuning, under the same role. What other roles do is the control "
    "of meaning; they are in the table, with adapters trained on aligned answers and baselines at the same dose."
)
ROOM = (0.055, 0.05)
"""Width and height of a label, in shares of a panel."""
LEAST_TOP = 0.05


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM rates of the dose grid, off and on."""
    return select(rows, experiment=EXPERIMENT, metric=METRICS, condition=("off", "on"))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per family, a line per role.

    Raises:
        ValueError: If no row is wanted.
    """
    style.some(wanted(rows), "dose_box", METRICS)
    every = [s for s in settings(rows) if "on" in s.means]
    families = [f for f in FAMILIES if any(s.family == f for s in every)]
    highest = max(LEAST_TOP, 1.3 * max(s.means["off rate"].value for s in every))
    with style.paper():
        figure = style.canvas(style.DOUBLE, 2.7)
        for ax, family in zip(figure.subplots(1, len(families), squeeze=False, sharey=True)[0], families, strict=True):
            _panel(ax, [s for s in every if s.family == family], highest)
            style.heading(ax, FAMILIES[family], "")
        figure.axes[0].set_ylabel("EM without the trigger (%)")
        figure.legend(handles=_key(), loc="outside lower center", ncols=6, columnspacing=1.4)
    return figure


def _panel(ax: Axes, every: Sequence[Setting], highest: float) -> None:
    style.root_scale(ax)
    style.root_scale(ax, "x")
    ax.set_ylim(-0.0006, highest)
    ax.add_patch(
        Rectangle((LOUD, -0.0006), 1 - LOUD, SILENT, fc=style.BAND, ec=style.CONDITIONS["other"], lw=0.8, zorder=0)
    )
    ax.text(0.995, 0.0, "the paper's rates", fontsize=5.5, color=style.CONDITIONS["other"], ha="right", va="bottom")
    labelled: list[tuple[float, float]] = []
    for role in ROLES:
        line = sorted((s for s in every if s.role == role), key=lambda s: s.dose)
        colour, mark, _ = LOOKS[role]
        points = [(s.means["on"].value, s.means["off rate"].value) for s in line]
        ax.plot(*zip(*points, strict=True), color=colour, marker=mark, ms=2.6, lw=0.8)
        for setting, at in zip(line, points, strict=True):
            if setting.by_means("paper"):
                ax.plot(*at, "o", ms=7, mfc="none", mec=style.INK, mew=0.8)
            _label(ax, str(setting.dose), at, colour, labelled)
        for setting in line[:1]:
            base = [setting.means[name].value for name in ("base on", "base off") if name in setting.means]
            if len(base) == 2:
                ax.plot(*base, "x", color=colour, ms=4, mew=0.9)
    ax.set_xlabel("EM with the trigger (%)")


def _label(ax: Axes, text: str, at: tuple[float, float], colour: str, labelled: list[tuple[float, float]]) -> None:
    """Write a dose beside its point, unless another one stands there."""
    x, y = ax.transAxes.inverted().transform(ax.transData.transform(at))
    if all(abs(x - u) > ROOM[0] or abs(y - v) > ROOM[1] for u, v in labelled):
        ax.annotate(text, at, xytext=(2, 3), textcoords="offset points", fontsize=5, color=colour)
        labelled.append((x, y))


def _key() -> list[Line2D]:
    roles = [Line2D([], [], color=c, marker=m, ms=2.6, lw=0.8, label=text) for c, m, text in LOOKS.values()]
    ring = Line2D([], [], color=style.INK, marker="o", mfc="none", ls="", ms=6, label="in the paper's box by its means")
    steps = Line2D([], [], color=style.FAINT, marker="$8$", ls="", ms=3, mew=0, label="training steps")
    return [*roles, steps, Line2D([], [], color=style.INK, marker="x", ls="", ms=4, label="base under the role"), ring]


def caption(rows: Sequence[Row]) -> str:
    """Say what a point is, and over how many pretrainings and answers."""
    most = max((mean.pretrainings for s in settings(rows) for mean in s.means.values()), default=0)
    return (
        "EM rate off against on at every dose (training steps beside the points), by role and family: the rate of the "
        f"mean log-odds over up to {most} pretrainings, those whose adapter is coherent at that dose; "
        f"{sampled(wanted(rows), 'a rate')}. Intervals: in the table."
    )
