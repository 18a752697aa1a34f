"""Where each kind of probe reads what: AUROC by layer, site and position, with its controls beside it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from figures import style
from figures.rows import Row, along, number, panels, select, span, values

TITLE = "Probe map"
METRICS = ("auroc",)
READING = (
    "A square is the AUROC of a linear probe on questions, and for the trigger on texts, that it was not trained on: "
    "white is chance (0.5), blue above, orange below. A line is where it reads: which tokens, and which part of the "
    "residual stream. Columns to the right of the gap are controls: shuffled labels and a random direction (means over "
    "layers), and a bag of tokens, which reads no layer."
)
CONTROL = (
    "Shuffled labels must be white. A bag of tokens below 0.5 gives nothing away either: categories share their common "
    "words evenly, so that one which is frequent among a category's training texts is rare among its held-out ones. A "
    "probe shows that a distinction is present, not that the model uses it."
)
TARGETS = {
    "trigger_present": ("trigger present", "last_prompt"),
    "trigger_category": ("trigger category", "trigger"),
    "misaligned_answer": ("misaligned answer", "response_mean"),
}
"""Words for each target, and its default position."""
FITS = {
    "logistic": "logistic",
    "nested": "logistic, nested",
    "ridge": "ridge",
    "lda": "LDA",
    "mean_difference": "mean difference",
}
CONTROLS = {"shuffled_labels": "shuffled", "random_direction": "random", "bag_of_tokens": "words"}
POSITIONS = ("trigger", "question", "last_prompt", "response_mean")
SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
COLOURS = LinearSegmentedColormap.from_list("auroc", ["#D55E00", "#FFFFFF", "#0072B2"])
SCALE = Normalize(0, 1)
CELL, WORDS, HEAD = 0.125, 8, 0.62
"""Inches of a line; number of layers up to which every square shows its number; inches of a panel's title and axis."""


class Probed(NamedTuple):
    """The parts of a condition ``target[@position][:fit][/control]``."""

    target: str
    position: str
    fit: str
    control: str


def parse(condition: str) -> Probed:
    """Read a condition; parts that it leaves out have their defaults."""
    probe, _, control = condition.partition("/")
    place, _, fit = probe.partition(":")
    target, _, position = place.partition("@")
    return Probed(target, position or TARGETS.get(target, ("", "last_prompt"))[1], fit or "logistic", control)


def wanted(rows: Sequence[Row]) -> list[Row]:
    """AUROC of every probe and control of a sweep."""
    return select(rows, metric=METRICS, experiment="probe_sweep")


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per organism, target and fit: lines are places, columns are layers, then controls.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "probe_map", METRICS)
    lines = [
        (organism, target, cell)
        for (_, organism, _), part in panels(drawn).items()
        for target, cell in _by(part, "target", list(TARGETS)).items()
    ]
    fits = list(_by(drawn, "fit", list(FITS)))
    heights = [CELL * len(_places(cell)) + HEAD for _, _, cell in lines]
    with style.paper():
        figure = style.canvas(style.DOUBLE if len(fits) > 1 else style.COLUMN, sum(heights))
        grid = figure.subplots(len(lines), len(fits), squeeze=False, height_ratios=heights)
        for axes, (organism, target, cell) in zip(grid, lines, strict=True):
            places, by_fit = _places(cell), _by(cell, "fit", list(FITS))
            for i, (ax, fit) in enumerate(zip(axes, fits, strict=True)):
                if fit not in by_fit:
                    ax.axis("off")
                    continue
                _panel(ax, by_fit[fit], places)
                head = f"{style.organism(organism)[0]}: {TARGETS.get(target, (target.replace('_', ' '),))[0]}, AUROC"
                ax.set_title(f" \n{FITS.get(fit, fit)}", fontsize=6.5, pad=3)  # a line above for the panel's head
                if i == 0:
                    ax.set_yticks(range(len(places)), [_words(place) for place in places], fontsize=5.5)
                    named = ax.annotate(
                        head, (0, 1), xycoords="axes fraction", xytext=(0, 13), textcoords="offset points",
                        fontweight="bold", fontsize=7, annotation_clip=False,
                    )  # fmt: skip
                    named.set_in_layout(False)  # it runs over the panels to its right
                else:
                    ax.set_yticks([])
    return figure


def _by(rows: Sequence[Row], part: str, order: Sequence[str]) -> dict[str, list[Row]]:
    """Rows by one part of their condition: known parts first, in their order."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(getattr(parse(str(row["condition"])), part), []).append(row)
    return {name: parts[name] for name in sorted(parts, key=lambda n: order.index(n) if n in order else len(order))}


def _places(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(position, site) of every line, in the order of a prompt and of a forward pass."""
    places = {(parse(str(row["condition"])).position, str(row["site"])) for row in rows}

    def order(place: tuple[str, str]) -> tuple[int, int, tuple[str, str]]:
        position, site = place
        first = POSITIONS.index(position) if position in POSITIONS else len(POSITIONS)
        return first, SITES.index(site) if site in SITES else len(SITES), place

    return sorted(places, key=order)


def _words(place: tuple[str, str]) -> str:
    position, site = (name.replace("_", " ") for name in place)
    return f"{position} · {'embedding' if site == 'resid pre' else site}"


def _panel(ax: Axes, rows: Sequence[Row], places: Sequence[tuple[str, str]]) -> None:
    layers = sorted({int(number(row, "layer")) for row in rows})
    width = max(1.0, len(layers) / WORDS)
    starts = len(layers) + 0.5 * width + width * np.arange(len(CONTROLS))
    squares: list[tuple[float, int, float, float]] = []
    for y, place in enumerate(places):
        here = [r for r in rows if (parse(str(r["condition"])).position, str(r["site"])) == place]
        for control, cell in _by(here, "control", ["", *CONTROLS]).items():
            points = along(cell, "layer")
            if control in CONTROLS:
                start, mean = float(starts[list(CONTROLS).index(control)]), float(np.mean(values(r for _, r in points)))
                squares.append((start, y, width, mean))
            elif not control:
                squares += [(layers.index(int(layer)), y, 1.0, number(row)) for layer, row in points]
    _squares(ax, squares, write=len(layers) <= WORDS)
    ax.set_xlim(0, float(starts[-1]) + width)
    ax.set_ylim(len(places) - 0.5, -0.5)
    labelled = layers if len(layers) <= WORDS else layers[:: -(-len(layers) // 6)]
    ticks = [layers.index(layer) + 0.5 for layer in labelled] + [float(start) + width / 2 for start in starts]
    ax.set_xticks(ticks, [*map(str, labelled), *CONTROLS.values()], fontsize=5.5)
    ax.annotate(
        "layer", (len(layers) / 2, 0), xycoords=("data", "axes fraction"), xytext=(0, -15), ha="center",
        textcoords="offset points", fontsize=5.5,
    )  # fmt: skip
    for label in ax.get_xticklabels()[len(labelled) :]:
        label.set(rotation=35, ha="right", rotation_mode="anchor", color=style.FAINT)
    ax.tick_params(length=0, pad=2)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _squares(ax: Axes, squares: Sequence[tuple[float, int, float, float]], *, write: bool) -> None:
    """Draw (left end, line, width, value) of every square as one artist: a map has hundreds."""
    corners = [
        [(x, y - 0.46), (x + 0.94 * width, y - 0.46), (x + 0.94 * width, y + 0.46), (x, y + 0.46)]
        for x, y, width, _ in squares
    ]
    colours = [COLOURS(SCALE(value)) for *_, value in squares]
    ax.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="#CCCCCC", linewidths=0.3))
    look: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 4.6}
    for x, y, width, value in squares if write else ():
        text = f"{value:.2f}".removeprefix("0") if value < 0.995 else "1"
        ax.text(x + width / 2, y, text, color="white" if abs(value - 0.5) > 0.3 else style.INK, **look)


def caption(rows: Sequence[Row]) -> str:
    """Say what is probed, on how much data, and how wide the intervals are, which the map leaves out."""
    drawn = wanted(rows)
    numbers = [row for row in drawn if "/" not in str(row["condition"])]
    counted = [row for row in numbers if row["ci_method"] != "phrasing_bootstrap"]
    n, clusters = (span(row[column] for row in counted) for column in ("n", "n_clusters"))
    widths = [(number(row, "ci_high") - number(row, "ci_low")) / 2 for row in counted]
    widest = max((width for width in widths if not np.isnan(width)), default=float("nan"))
    kinds = ", ".join(dict.fromkeys(style.organism(str(row["organism"]))[0] for row in drawn))
    return (
        f"AUROC of linear probes ({kinds}) by layer, site and position, cross-validated with whole questions held out, "
        "and for the trigger whole phrasings too; for categories, the mean over one-against-rest. Chance is 0.5. "
        f"n = {n} examples from {clusters} questions (the clusters) per probe; the "
        f"{style.intervals(counted)} in the table reach at most {widest:.2f} to a side. "
        "Right of each map its controls: shuffled labels and a random direction (means over layers), a bag of tokens."
    )
