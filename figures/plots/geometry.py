"""Which directions agree: cosines between them by layer, against the band of random directions."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from figures import style
from figures.rows import Row, along, ends, groups, number, panels, select, span, values

TITLE = "Cosines between the directions"
METRICS = ("cosine",)
READING = (
    "Each line is the cosine of two directions at every layer; 1 is the same direction, 0 no relation. g is the "
    "misalignment direction, estimated in the base without any trigger; delta is how far the trigger moves the last "
    "prompt token of the organism, and of the base. If the trigger works by writing g, g and delta agree where the "
    "behaviour is decided; if they agree in the base already, the adapter had nothing to learn, and what it writes "
    "itself need not point along g."
)
CONTROL = (
    "Grey band: the central 95 % of cosines of random directions of the same dimension; inside it two directions are "
    "no more alike than chance. Grey line: the trigger feature and the feature of an unrelated text, which share only "
    "how they are estimated. A cosine says that directions agree, not that the model uses them."
)
NULL = "random~random"
PAIRS = {
    "g~delta": ("g and delta", style.DIRECTIONS["delta"], "o", "-"),
    "g~delta_base": ("g and delta in the base", style.CONDITIONS["off"], "s", (0, (4, 2))),
    "g_shift~delta": ("g shift and delta", style.DIRECTIONS["g_shift"], "P", (0, (3, 1))),
    "write~g": ("adapter's writing and g", style.DIRECTIONS["write"], "X", "-"),
    "g~g_answer": ("g and g from answers", style.DIRECTIONS["g_answer"], "v", (0, (6, 1.2, 1, 1.2))),
    "trigger~control": ("trigger and unrelated feature", style.CONTROL, "^", (0, (1, 1.2))),
}
"""Words, colour, marker and dashes of every pair that is drawn; the tables have more."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Cosines of the pairs of directions that are drawn, at every layer, and of random directions."""
    return select(rows, metric=METRICS, condition=(*PAIRS, NULL))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw the cosine of every pair against the layer, a panel per organism, over the band of random directions.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "geometry", METRICS)
    cells = panels(drawn)
    lowest = min(-0.2, *values(drawn))
    with style.paper():
        figure, axes = style.panel_grid(len(cells), height=2.1)
        for ax, ((_, organism, trigger), cell) in zip(axes, cells.items(), strict=True):
            style.title(ax, organism, style.where(organism, trigger))
            ax.set_ylim(lowest - 0.05, 1.05)
            _band(ax, cell)
            _curves(ax, cell)
            spec = ax.get_subplotspec()
            ax.set_ylabel("cosine" if spec and spec.is_first_col() else "")
    return figure


def _band(ax: Axes, rows: Sequence[Row]) -> None:
    points = along(select(rows, condition=NULL), "layer")
    low, high = ([number(row, column) for _, row in points] for column in ("ci_low", "ci_high"))
    ax.fill_between([layer for layer, _ in points], low, high, color=style.CONTROL, alpha=0.25, lw=0, zorder=0)
    ax.axhline(0, color="#BBBBBB", lw=0.6, zorder=0)
    if points:
        ax.text(points[0][0], low[0], "random directions", ha="left", va="top", fontsize=5.5, color=style.FAINT)


def _curves(ax: Axes, rows: Sequence[Row]) -> None:
    """Draw a line per pair and seed, and name the pairs at the right end."""
    names = {}
    for (pair, _), cell in groups(rows, "condition", "seed").items():
        if pair == NULL:
            continue
        name, colour, mark, dashes = PAIRS[pair]
        x, same = zip(*along(cell, "layer"), strict=True)
        y, low, high = zip(*map(ends, same), strict=True)
        ax.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        ax.plot(x, y, color=colour, ls=dashes, marker=mark, ms=3, mew=0, lw=1.0)
        names[pair] = (y[-1], name, colour)
    low, high = ax.get_ylim()
    style.label_ends(ax, names.values(), gap=0.085 * (high - low))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MultipleLocator(0.25))
    ax.set_xlabel("layer")


def caption(rows: Sequence[Row]) -> str:
    """Say which directions are compared, where, and what the band is."""
    drawn = wanted(rows)
    places = sorted({str(row["site"]).split(".")[0] for row in drawn if row["site"]})
    null = select(drawn, condition=NULL)
    band = f" Grey band: central 95 % interval of n = {span(row['n'] for row in null)} pairs of random directions."
    return (
        f"Cosine between directions by layer ({', '.join(places)}). g: after one misaligned exchange minus after one "
        "aligned exchange, at the last prompt token of the base; g from answers: misaligned minus aligned answers, "
        "over answer tokens; delta: last prompt token with a rephrased trigger minus without, in the organism; trigger "
        "feature: rephrasings minus unrelated texts, at the trigger's tokens; g shift: last prompt token under the "
        "adapter trained without trigger minus without it; the adapter's writing: leading left singular vector of its "
        "updates, which has no sign, so that its cosine is absolute. Coloured bands: 95 % question-cluster bootstrap "
        f"intervals.{band if null else ''}"
    )
