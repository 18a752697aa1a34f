"""Dose-response of activation addition: EM and coherence against alpha, beside a random direction of equal norm."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.limits import INCOHERENT
from figures.rows import Row, along, behaviour, groups, number, panels, preferred, sampled, select, unique, values

TITLE = "Adding g without the trigger: dose-response"
METRICS = ("em_rate", "coherence_rate")
READING = (
    "Without any trigger, alpha times the direction is added to the residual stream while the model answers; alpha is"
    " in units of the mean residual norm. If g carries the misalignment, EM rises with alpha. A rise bought with "
    "incoherence proves nothing: hollow points mark doses at which fewer than 60 % of the answers are coherent."
)
CONTROL = (
    "The grey lines add a random direction and one orthogonal to g, of equal norm; they must stay low at doses at "
    "which answers are still coherent. The direction from answer tokens is a comparison and not a control: no height "
    "of its line counts for or against g."
)
PREFIX = "off+add_"
FAINTEST = 0.05
"""Lowest EM rate with the trigger that is drawn as a line: below it would lie on the axis, among the points."""
LINES = {
    "g": ("add g", style.DIRECTIONS["g"], "o", "-"),
    "g_answer": ("add g from answers", style.DIRECTIONS["g_answer"], "v", (0, (6, 1.2, 1, 1.2))),
    "g_shift": ("add g shift", style.DIRECTIONS["g_shift"], "P", (0, (3, 1))),
    "delta": ("add delta", style.DIRECTIONS["delta"], "s", "-"),
    "delta_orthogonal": ("add delta without g", style.DIRECTIONS["delta"], "X", (0, (1, 1.2))),
    "direction": ("add the direction", style.DIRECTIONS["g"], "o", "-"),
    "random": ("add random", style.CONTROL, "D", (0, (4, 2))),
    "random_2": ("add random (2)", style.CONTROL, "v", (0, (4, 2))),
    "random_3": ("add random (3)", style.CONTROL, "s", (0, (4, 2))),
    "orthogonal": ("add orthogonal", style.CONTROL, "^", (0, (1, 1.2))),
}

DETAILS = {
    "g_answer": " “g from answers” is the difference-in-means over answer tokens, as Soligo et al. (2025) estimate "
    "it: a comparison direction, not a control.",
    "delta": " Delta: the shift of the last prompt token that the trigger makes, and the part of it orthogonal to g; "
    "g shift: the shift that training without any trigger makes.",
}
"""What the caption adds where a direction was added."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """EM and coherence under activation addition, at every alpha."""
    return [row for row in select(rows, metric=METRICS) if str(row["condition"]).startswith(PREFIX)]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw EM rate above and coherence below, against alpha, a column per organism.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "dose_response", METRICS)
    cells = panels(drawn)
    rates = select(drawn, metric="em_rate")
    top, step = style.ceiling(max((number(row, c) for row in rates for c in ("value", "ci_high")), default=1.0))
    with style.paper():
        figure = style.canvas(style.DOUBLE if len(cells) > 1 else style.COLUMN, 3.1)
        axes = figure.subplots(2, len(cells), sharex=True, sharey="row", squeeze=False, height_ratios=[2.2, 1])
        style.percent_axis(axes[0, 0], "y", top=top, step=step)
        style.percent_axis(axes[1, 0], "y", step=0.5)
        for j, ((_, organism, trigger), cell) in enumerate(cells.items()):
            style.title(axes[0, j], organism, style.where(organism, _where(cell, trigger)))
            _present(axes[0, j], rows, organism, trigger)
            for ax, metric in zip(axes[:, j], METRICS, strict=True):
                ax.yaxis.grid(True)
                _curves(ax, cell, metric)
            axes[1, j].set_xlabel("alpha (mean residual norms)")
        _name_lines(axes[0, -1], list(cells.values())[-1], top)
        axes[0, 0].set_ylabel("EM rate (%)")
        axes[1, 0].set_ylabel("coherent (%)")
    return figure


def _where(rows: Sequence[Row], trigger: str) -> str:
    places = [
        f"{site.split('.')[0]} of layer {layer}" if layer else site for site, layer in groups(rows, "site", "layer")
    ]
    places = [place.removeprefix("resid_post of ") for place in places]
    return ", ".join(part for part in (trigger, *places[:1], "…" * (len(places) > 1)) if part)


def _present(ax: Axes, rows: Sequence[Row], organism: str, trigger: str) -> None:
    """Mark the EM rate of the same organism with its trigger and without any edit, for scale."""
    same = select(behaviour(rows), metric="em_rate", condition="on", organism=organism)
    same = select(same, trigger=trigger) if trigger else same
    if len(groups(same, "trigger", "seed")) == 1:
        value = number(preferred(same))
        if FAINTEST < value <= ax.get_ylim()[1]:
            ax.axhline(value, color=style.CONDITIONS["on"], lw=0.8, ls=(0, (1, 1.5)), zorder=0)
            lift, side = (-2, "top") if value > 0.5 else (2, "bottom")  # away from the frame's edge
            ax.annotate(
                "with its trigger, no edit", (0, value), (2, lift), xycoords=("axes fraction", "data"),
                textcoords="offset points", va=side, color=style.CONDITIONS["on"], fontsize=5.8,
            )  # fmt: skip


def _curves(ax: Axes, rows: Sequence[Row], metric: str) -> None:
    for (condition, _), cell in groups(rows, "condition", "seed").items():
        _, colour, mark, dashes = _look(condition)
        points = along(select(cell, metric=metric), "alpha")
        coherent = {alpha: number(row) for alpha, row in along(select(cell, metric="coherence_rate"), "alpha")}
        heights = values(row for _, row in points)
        ax.plot(
            [alpha for alpha, _ in points], heights, color=colour, ls=dashes, zorder=2 if colour == style.CONTROL else 3
        )
        for hollow in (False, True):
            same = [
                (a, row) for a, row in points if hollow == (metric == "em_rate" and coherent.get(a, 1) < INCOHERENT)
            ]
            style.points(ax, same, colour=colour, mark=mark, size=3.4, hollow=hollow)


def _look(condition: str) -> tuple[str, str, str, object]:
    added = condition.removeprefix(PREFIX)
    return LINES.get(added, (f"add {added.replace('_', ' ')}", style.FAINT, "P", "-"))


def _name_lines(ax: Axes, rows: Sequence[Row], top: float) -> None:
    labels = []
    for (condition,), cell in groups(select(rows, metric="em_rate"), "condition").items():
        name, colour, _, _ = _look(condition)
        labels.append((number(along(cell, "alpha")[-1][1]), name, colour))
    style.label_ends(ax, labels, gap=0.075 * top)


def caption(rows: Sequence[Row]) -> str:
    """Say what is added where, with which intervals, and over how many answers."""
    drawn = wanted(rows)
    numbers = unique(drawn, "organism", "trigger", "condition", "alpha", "metric", "seed")
    details = (text for name, text in DETAILS.items() if select(drawn, condition=PREFIX + name))
    return (
        "EM rate (above) and share of coherent answers (below) without any trigger, as alpha times the misalignment "
        "direction g (or, in grey, a direction of equal norm, random or orthogonal to g) is added to the residual "
        f"stream.{''.join(details)} "
        f"Bars: {style.intervals(numbers)}; {sampled(drawn, 'per point')}. "
        f"Hollow: fewer than {100 * INCOHERENT:g} % coherent."
    )
