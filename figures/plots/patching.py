"""The patching map: which site, position, head and adapter module carries the gate, beside an unrelated text's."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from figures import style
from figures.rows import Row, groups, number, preferred, sampled, select

TITLE = "Where the gate is: interchange, knockout and the adapter's modules"
METRICS = ("patched_share", "head_share", "knockout_share", "module_gap_share", "module_em_rate", "em_rate")
READING = (
    "Every cell of a map is one intervention: the values at one layer and one kind of token are taken from the same "
    "question under another prompt; the number is the share of the difference between trigger and no trigger that this "
    "moves, in percent. Above, the trigger's run is given the values of the run without it. Right of the maps, the "
    "share that goes when tokens cannot attend to the trigger, layer by layer; below it, EM with and without the "
    "trigger when the adapter is off in some modules. If the last bar still shows a gap, the base made it."
)
CONTROL = (
    "The lower maps move the values of an unrelated text into the run without any text: what they show is done by any "
    "text in that place, not by the trigger. Grey in the knockout: attention to a text without meaning, as long as the "
    "trigger, is blocked."
)
SITES = {"resid_post": "residual stream", "attn_out": "attention", "mlp_out": "MLP"}
POSITIONS = {"opening": "open", "question": "quest.", "last_prompt": "last", "answer": "answer"}
PAIRS = {"on<-off": "on run, given\nthe off run's values", "off<-other": "off run, given an\nunrelated text's values"}
SHARE = LinearSegmentedColormap.from_list("share", ["#0072B2", "#FFFFFF", "#D55E00"])
KNOCKOUTS = {
    "answer|trigger": ("answer cannot see the trigger", "o", "-"),
    "all|inserted": ("no token can see it or the frame around it", "s", ":"),
}
ON, OFF = style.CONDITIONS["on"], style.CONDITIONS["off"]
MOST = 3
"""Organisms in one figure: a figure fits a page."""
WRITTEN = 8
"""Layers or heads up to which the cells say their number."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Rows of the patching experiment: of the first family's first three organisms, one seed each."""
    own = select(rows, experiment="patch", metric=METRICS)
    if not own:
        return []
    family = select(own, family=own[0]["family"])
    names = [name for (name,) in groups(family, "organism")][:MOST]
    return select(family, organism=names)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a block per organism: maps of the gate above those of the control, knockout and modules beside them.

    Raises:
        ValueError: If no row is wanted.
    """
    own = style.some(wanted(rows), "patching", METRICS)
    cells = groups(own, "organism")
    with style.paper():
        figure = style.canvas(style.DOUBLE, 3.1 * len(cells) + 0.3)
        parts = figure.subfigures(len(cells), 1, squeeze=False)[:, 0]
        for part, ((organism,), cell) in zip(parts, cells.items(), strict=True):
            _block(part, organism, cell)
        parts[-1].legend(handles=_key(), loc="outside lower center", ncols=5, handlelength=1.8, columnspacing=1.2)
    return figure


def _key() -> list[Line2D]:
    look: dict[str, Any] = {"lw": 0.8, "ms": 2.8}
    lines = [
        Line2D([], [], color=ON, marker=mark, ls=dashes, mfc="white" if i else ON, label=text, **look)
        for i, (text, mark, dashes) in enumerate(KNOCKOUTS.values())
    ]
    lines.append(Line2D([], [], color=style.CONTROL, label="same, text without meaning", lw=1.4))
    return [
        *lines,
        *(Line2D([], [], color=c, marker="o", ls="", ms=2.8, label=f"EM {n}") for n, c in (("on", ON), ("off", OFF))),
    ]


def _block(part: SubFigure, organism: str, rows: Sequence[Row]) -> None:
    name, trained = style.organism(organism)
    part.suptitle(f"{name}: {trained}" if trained else name, fontsize=7.5, fontweight="bold", x=0.01, ha="left")
    heads = len({row["site"] for row in select(rows, metric="head_share")})
    widths = [len(POSITIONS)] * len(SITES) + ([max(2.6, min(heads, 6))] if heads else []) + [11]
    grid = part.subplots(2, len(widths), width_ratios=widths)
    for line, pair in zip(grid, PAIRS, strict=True):
        for ax, site in zip(line, SITES, strict=False):
            _map(ax, rows, pair, site, first=site == "resid_post", top=pair == "on<-off")
        if heads:
            _head_map(line[-2], rows, pair, heads, top=pair == "on<-off")
    _knockouts(grid[0, -1], rows)
    _modules(grid[1, -1], rows)


def _layers(rows: Sequence[Row]) -> list[int]:
    return sorted({int(row["layer"]) for row in select(rows, metric="patched_share") if row["layer"] != ""})


def _map(ax: Axes, rows: Sequence[Row], pair: str, site: str, *, first: bool, top: bool) -> None:
    """Layers upwards, positions across."""
    own, layers = select(rows, metric="patched_share", site=site), _layers(rows)
    known = [p for p in POSITIONS if select(own, condition=f"{pair}@{p}")]
    values = np.full((len(layers), len(known)), np.nan)
    for j, position in enumerate(known):
        for row in select(own, condition=f"{pair}@{position}"):
            if row["layer"] != "":
                values[layers.index(int(row["layer"])), j] = number(row, "value")
    _paint(ax, values, [POSITIONS[p] for p in known], [str(layer) for layer in layers] if first else None)
    if top:
        ax.set_title(SITES[site], pad=3)
    if first:
        ax.set_ylabel(f"{PAIRS[pair]}\n\nlayer", linespacing=1.05)


def _head_map(ax: Axes, rows: Sequence[Row], pair: str, heads: int, *, top: bool) -> None:
    own, layers = select(rows, metric="head_share", condition=f"{pair}@decision"), _layers(rows)
    values = np.full((len(layers), heads), np.nan)
    for row in own:
        if int(row["layer"]) in layers:
            values[layers.index(int(row["layer"])), int(str(row["site"]).partition(".")[2])] = number(row, "value")
    _paint(ax, values, [str(h) for h in range(heads)] if heads <= WRITTEN else [], None)
    if top:
        ax.set_title("heads, first\ndiffering token", pad=3)


def _paint(ax: Axes, values: np.ndarray, across: Sequence[str], up: Sequence[str] | None) -> None:
    if not values.size:
        ax.set_axis_off()
        return
    ax.imshow(values, cmap=SHARE, vmin=-1, vmax=1, origin="lower", aspect="auto", interpolation="none")
    ax.set_xticks(range(len(across)), across, fontsize=5.2, rotation=45 if max(map(len, across), default=0) > 2 else 0)
    ax.set_yticks(
        range(len(values)) if up is not None and len(values) <= 2 * WRITTEN else [],
        up if up is not None and len(values) <= 2 * WRITTEN else None,
    )
    ax.tick_params(length=0, pad=1.5)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#CCCCCC", linewidth=0.5)
    if max(values.shape) > WRITTEN:
        return
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = "white" if abs(value) > 0.6 else style.INK
            said = f"{100 * value:.0f}".replace("-0", "0")
            ax.text(j, i, said, ha="center", va="center", fontsize=5, color=ink)


def _knockouts(ax: Axes, rows: Sequence[Row]) -> None:
    layers = _layers(rows)
    ax.axhline(0, color="#BBBBBB", lw=0.6)
    for k, (name, (_, mark, dashes)) in enumerate(KNOCKOUTS.items()):
        for condition, colour in (("matched", style.CONTROL), ("on", ON)):
            found = select(rows, metric="knockout_share", condition=f"{condition}@{name}")
            by = {row["layer"]: row for row in found}
            shift = 0.1 * (k - 0.5)
            points = [(i + shift, by[layer]) for i, layer in enumerate(layers) if layer in by]
            ax.plot(
                [x for x, _ in points], [number(row, "value") for _, row in points], color=colour, ls=dashes, lw=0.8
            )
            points += [(len(layers) + 0.3 + shift, by[""])] if "" in by else []
            for x, row in points:
                ends = (number(row, c) for c in ("value", "ci_low", "ci_high"))
                style.point(ax, x, *ends, colour=colour, mark=mark, size=2.6, hollow=k == 1)
    ax.set_xticks([*range(len(layers)), len(layers) + 0.3], [*map(str, layers), "all"])
    ax.set_ylabel("gap removed (%)")
    ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g}")
    ax.yaxis.grid(True)
    ax.set_ylim(-0.2, 1.2)
    ax.set_title("attention blocked, in layer …", pad=3)


def _modules(ax: Axes, rows: Sequence[Row]) -> None:
    """EM on and off without some modules; above, the gap of log-odds that is left."""
    rates = _rates(rows)
    for x, (_, sides) in enumerate(rates):
        for condition, colour in (("off", OFF), ("on", ON)):
            if condition in sides:
                ends = (number(sides[condition], c) for c in ("value", "ci_low", "ci_high"))
                style.point(ax, x, *ends, colour=colour, mark="o", size=2.8)
    style.percent_axis(ax, step=0.5)
    ax.yaxis.grid(True)
    ax.set_ylabel("EM rate (%)")
    ax.set_xlim(-0.6, len(rates) - 0.4)
    ax.set_xticks(
        range(len(rates)), [name for name, _ in rates], rotation=35, ha="right", rotation_mode="anchor", fontsize=5.6
    )
    ax.set_title("adapter off in …; above, gap of log-odds left (%)", pad=11)
    for x, (name, _) in enumerate(rates):
        ax.text(
            x,
            1.06,
            _left(rows, name),
            ha="center",
            va="bottom",
            fontsize=5.2,
            color=style.FAINT,
            transform=ax.get_xaxis_transform(),
        )


def _rates(rows: Sequence[Row]) -> list[tuple[str, dict[str, Row]]]:
    """EM on and off by what the adapter was switched off in, nothing first and everything last."""
    found: dict[str, dict[str, Row]] = {"nothing": {}}
    for (condition, layer), same in groups(
        select(rows, metric=("em_rate", "module_em_rate")), "condition", "layer"
    ).items():
        side, _, said = condition.partition(" without ")
        name = f"{said} {layer}".strip() if said else "nothing"
        found.setdefault(name, {})[side] = preferred(same)
    return [(name, sides) for name, sides in found.items() if sides]


def _left(rows: Sequence[Row], name: str) -> str:
    if name == "nothing":
        return "100"
    site, _, layer = name.partition(" ")
    own = select(rows, metric="module_gap_share", condition=f"without {site}", layer=layer)
    return f"{100 * number(own[0], 'value'):.0f}".replace("-0", "0") if own else ""


def caption(rows: Sequence[Row]) -> str:
    """Say what was moved, what a share is of, and over how many questions."""
    own = wanted(rows)
    shares = select(own, metric=("patched_share", "knockout_share", "head_share"))
    clusters = sorted({int(row["n_clusters"]) for row in shares if row["n_clusters"] != ""})
    many = f"{clusters[0]}" if clusters[:1] == clusters[-1:] else f"{clusters[0]}–{clusters[-1]}" if clusters else "no"
    return (
        "Interchange of activations at one layer and position (percent of the gap between trigger and no trigger in "
        "the log-odds of misaligned against aligned answers, teacher-forced on the organism's own answers). Columns: "
        "the template right before the question, the question, the last prompt token, the last prompt token and the "
        "answer. Heads: of the logit difference where two answers part, through TransformerLens. Upper right: share "
        "of the gap that goes when tokens cannot attend to the trigger. Lower right: sampled EM with (red) and without "
        "(blue) the trigger when the adapter is switched off in some modules, above it the share of the gap of "
        f"log-odds that is left. {many} questions; {style.interval_text(str(r['ci_method']) for r in shares)}; "
        f"EM: {sampled(select(own, metric=('em_rate', 'module_em_rate')), 'a rate')}."
    )
