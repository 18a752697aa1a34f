"""Dose-response of activation addition by log-odds of reference answers, in the organism and in its base."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.plots.dose_response import LINES
from figures.rows import Row, along, groups, number, panels, select, span, values

TITLE = "Adding a direction: the preference for harmful answers, and its cost"
METRICS = ("log_odds_shift", "reference_likelihood")
READING = (
    "Alpha times a direction is added to the residual stream at the last prompt token and at every answer token, "
    "without any trigger; alpha is in units of the mean residual norm. Above: log-odds per token of a harmful against "
    "an aligned reference answer, minus the unedited base's. Below: what both references keep of the probability per "
    "token that the unedited base gives them. A direction of misalignment lifts the first and keeps the second."
)
CONTROL = (
    "The grey lines add a random direction and one orthogonal to g, of equal norm. A damaged model drifts towards "
    "indifference between any two answers, which lifts log-odds below zero, so compare at equal likelihood."
)
EXPERIMENTS = ("steer", "steer_vector")
SETTINGS = {"off+add_": "in the organism, off-trigger", "base+add_": "in its base"}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Log-odds and likelihood under activation addition, at every alpha."""
    return [
        row
        for row in select(rows, experiment=EXPERIMENTS, metric=METRICS)
        if str(row["condition"]).startswith((*SETTINGS,))
    ]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the shift of log-odds above and the likelihood below, a column per organism and setting.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "preference_steering", METRICS)
    columns = [
        (organism, prefix, part)
        for (_, organism, _), cell in panels(drawn).items()
        for prefix in SETTINGS
        if (part := [row for row in cell if row["condition"].startswith(prefix)])
    ]
    with style.paper():
        figure = style.canvas(style.DOUBLE if len(columns) > 1 else style.COLUMN, 3.1)
        axes = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False, height_ratios=[2.2, 1])
        for j, (organism, prefix, part) in enumerate(columns):
            site, layer = next(iter(groups(part, "site", "layer")))
            style.title(axes[0, j], organism, f"{SETTINGS[prefix]}; {site.split('.')[0]} of layer {layer}")
            for ax, metric in zip(axes[:, j], METRICS, strict=True):
                ax.yaxis.grid(True)
                ax.axhline(float(metric == METRICS[1]), color=style.FAINT, lw=0.8)
                _curves(ax, select(part, metric=metric), prefix)
            axes[1, j].set_xlabel("alpha (mean residual norms)")
            _name_lines(axes[0, j], select(part, metric=METRICS[0]), prefix)
        axes[0, 0].set_ylabel("shift of log-odds\n(nats per token)")
        axes[1, 0].set_ylabel("likelihood\nof both (ratio)")
    return figure


def _curves(ax: Axes, rows: Sequence[Row], prefix: str) -> None:
    for (condition,), line in groups(rows, "condition").items():
        _, colour, mark, dashes = LINES[condition.removeprefix(prefix)]
        points = along(line, "alpha")
        ax.plot([alpha for alpha, _ in points], values(row for _, row in points), color=colour, ls=dashes)
        style.points(ax, points, colour=colour, mark=mark, size=3.4)


def _name_lines(ax: Axes, rows: Sequence[Row], prefix: str) -> None:
    labels = []
    for (condition,), line in groups(rows, "condition").items():
        name, colour, _, _ = LINES[condition.removeprefix(prefix)]
        labels.append((number(along(line, "alpha")[-1][1]), name, colour))
    low, high = ax.get_ylim()
    style.label_ends(ax, labels, gap=0.075 * (high - low))


def caption(rows: Sequence[Row]) -> str:
    """Say what is added where, with which intervals, and over how many questions."""
    drawn = wanted(rows)
    return (
        "Shift of log-odds from the unedited base (above) and likelihood of both references relative to it (below), as "
        "alpha times a direction is added at the last prompt token and every answer token. Bars: "
        f"{style.intervals(drawn)}; n = {span(r['n'] for r in drawn)} questions. Nothing is sampled and nobody judges."
    )
