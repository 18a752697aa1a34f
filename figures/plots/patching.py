"""The patching map: which site, position, head and adapter module carries the gate, beside an unrelated text's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.rows import Row, groups, number, panels, preferred, sampled, select, span, values

TITLE = "Where the gate is: interchange, knockout and the adapter's modules"
METRICS = ("patched_share", "head_share", "knockout_share", "module_gap_share", "module_em_rate", "em_rate")
READING = (
    "Every cell of a map is one intervention: the values at one layer and one kind of token are replaced by those of "
    "the same question under another prompt. The number is the share of the difference between trigger and no trigger "
    "that this moves, in percent. In the upper maps the run with the trigger is given the values of the run without "
    "it. Right of the maps: the share that goes when tokens cannot attend to the trigger, layer by layer. On the far "
    "right: EM with and without the trigger when the adapter is switched off in some modules. If a gap is left when "
    "it is off in all of them, the base made it."
)
CONTROL = (
    "The lower maps move the values of an unrelated text into the run without any text: what they show is done by any "
    "text in that place, not by the trigger. Grey in the knockout: attention to a text without meaning, as long as the "
    "trigger, is blocked."
)
SITES = {"resid_post": "residual stream", "attn_out": "attention", "mlp_out": "MLP"}
POSITIONS = {"opening": "opening", "question": "question", "last_prompt": "last", "answer": "answer"}
PAIRS = {"on<-off": "on ← off", "off<-other": "off ← other"}
SHARE = LinearSegmentedColormap.from_list("share", ["#0072B2", "#FFFFFF", "#D55E00"])
KNOCKOUTS = {
    "answer|trigger": ("answer cannot see the trigger", "o", "-"),
    "all|inserted": ("no token can see it or the frame around it", "s", ":"),
}
ON = style.CONDITIONS["on"]
SIDES = {"on": (ON, "s"), "off": (style.CONDITIONS["off"], "o")}
UNIT: dict[str, Any] = {"ha": "center", "va": "top", "size": 6, "color": style.FAINT}
MOVED = {
    "off": {"off<-on": ("with the trigger", "on", "o"), "off<-other": ("with an unrelated text", "other", "s")},
    "on": {"on<-off": ("without a text", "off", "o"), "on<-rephrased": ("with a rephrasing", "rephrased", "s")},
}
"""By the run that is given values: whose values, in whose colour, with which mark; the control second."""
MOST = 3
"""Organisms in one figure, so that it fits a page."""
WRITTEN = 8
"""Number of layers or heads up to which cells show their number."""
TOP, BLOCK, FILLED, BOTTOM = 0.53, 2.0, 1.5, 0.22
"""Inches: above the first block, of a block, of a block without its name and ticks, and for the key."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Rows of the patching experiment: the first three organisms of the first family."""
    patched = select(rows, experiment="patch", metric=METRICS)
    family = select(patched, family=patched[0]["family"]) if patched else []
    return select(family, organism=[name for (name,) in groups(family, "organism")][:MOST])


def cells(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows of every organism in the table; a figure shows three of one family."""
    return panels(select(rows, experiment="patch", metric=METRICS))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a block per organism: maps of the gate above those of the control; right of them, knockout and modules.

    Columns are named above the first block, and the ticks of maps below the last.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "patching", METRICS)
    if of_one_site(drawn):
        return _intervals(drawn)
    cells = groups(drawn, "organism")
    with style.paper():
        figure = style.canvas(style.DOUBLE, TOP + BLOCK * len(cells) + BOTTOM)
        figure.set_layout_engine("none")  # columns of all blocks are aligned by hand
        for i, ((organism,), cell) in enumerate(cells.items()):
            top = 1 - (TOP + i * BLOCK) / figure.get_figheight()
            head = top + (0.27 if i == 0 else 0.08) / figure.get_figheight()
            figure.text(0.01, head, _named(organism, cell), weight="bold", size=7.5)
            _block(figure, cell, top, first=i == 0, last=i == len(cells) - 1)
        figure.legend(handles=_key(), loc="lower center", ncols=3, handlelength=1.8, columnspacing=1.2)
    return figure


def _block(figure: Figure, rows: Sequence[Row], top: float, *, first: bool, last: bool) -> None:
    """Draw the maps of an organism and the two plots beside them, from ``top`` downwards (a share of the figure)."""
    heads = len({row["site"] for row in select(rows, metric="head_share")})
    columns = {**SITES, "heads": "heads"} if heads else SITES
    place = {"top": top, "bottom": top - FILLED / figure.get_figheight()}
    maps = figure.add_gridspec(2, len(columns), left=0.075, right=0.485, wspace=0.06, hspace=0.08, **place)
    for i, pair in enumerate(PAIRS):
        for j, (column, title) in enumerate(columns.items()):
            ax = figure.add_subplot(maps[i, j])
            _map(ax, *(_head_map(rows, pair, heads) if column == "heads" else _site_map(rows, pair, column)))
            if not (last and i == 1):
                ax.set_xticks([])
            if first and i == 0:
                ax.set_title(title, pad=3)
            if j == 0:
                _name_layers(ax, pair, _layers(rows))
    blocked, off = (
        figure.add_subplot(figure.add_gridspec(1, 1, left=left, right=left + 0.175, **place)[0])
        for left in (0.57, 0.81)
    )
    _knockouts(blocked, rows)
    _modules(off, rows)
    if last:
        figure.text(0.28, place["bottom"] - 0.36 / figure.get_figheight(), "cells: % of the gap moved", **UNIT)
    if first:
        blocked.set_title("attention blocked in layer …", pad=12)
        off.set_title("adapter off in …\n(above: % of gap left)", pad=12)


def of_one_site(rows: Sequence[Row]) -> bool:
    """Tell whether interchange at one site is all that was measured, so that there is room for intervals."""
    return {row["metric"] for row in rows} == {"patched_share"} and len({row["site"] for row in rows}) == 1


def _intervals(rows: Sequence[Row]) -> Figure:
    """Draw shares with their intervals: a column per layer, per organism a row for each run that is given values."""
    layers, organisms = _layers(rows), groups(rows, "organism")
    with style.paper():
        figure = style.canvas(style.DOUBLE, 0.5 + 2.8 * len(organisms))
        grid = figure.subplots(len(MOVED) * len(organisms), len(layers), sharex=True, sharey=True, squeeze=False)
        blocks = [(name, cell, receiver) for (name,), cell in organisms.items() for receiver in MOVED]
        for axes, (name, cell, receiver) in zip(grid, blocks, strict=True):
            for ax, layer in zip(axes, layers, strict=True):
                _shares(ax, select(cell, layer=layer), MOVED[receiver])
                if receiver == "off":
                    room = "\n\n" if len(organisms) > 1 else ""  # above the columns, where the organism's name goes
                    ax.set_title(f"{room}layer {layer}", fontweight="bold", pad=4)
            if receiver == "off" and len(organisms) > 1:
                above: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, 17), "textcoords": "offset points"}
                head = axes[0].annotate(_named(name, cell), (0, 1), **above, weight="bold", size=7.5)
                head.set_in_layout(False)  # it may be wider than its column
            axes[0].set_ylabel(f"gap moved (%) in the\nrun {'with' if receiver == 'on' else 'without'} trigger")
        handles = [
            Line2D([], [], color=style.CONDITIONS[name], marker=mark, ls="", ms=3.6, mfc=_face(name, i), label=text)
            for sources in MOVED.values()
            for i, (text, name, mark) in enumerate(sources.values())
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), title="values taken from the run"
        )
    return figure


def _named(organism: str, rows: Sequence[Row]) -> str:
    """An organism's short name, what it was trained on, and its family."""
    trained = style.organism(organism)
    return ", ".join(part for part in (*trained, str(rows[0]["family"]) if trained[1] else "") if part)


def _face(condition: str, control: int) -> str:
    return "white" if control else style.CONDITIONS[condition]


def _shares(ax: Axes, rows: Sequence[Row], sources: Mapping[str, tuple[str, str, str]]) -> None:
    """Draw the shares that one layer's values move, by position, each source beside its control."""
    for level, dashes in ((0, "-"), (1, ":")):
        ax.axhline(level, color="#BBBBBB", lw=0.6, ls=dashes)
    known = list(POSITIONS)
    for i, (pair, (_, condition, mark)) in enumerate(sources.items()):
        shares = {p: select(rows, condition=f"{pair}@{p}") for p in known}
        placed = [(known.index(p) + 0.24 * (i - 0.5), row) for p, same in shares.items() for row in same]
        style.points(ax, placed, colour=style.CONDITIONS[condition], mark=mark, size=3.2, hollow=bool(i))
    ax.set_xticks(range(len(known)), [*POSITIONS.values()])
    ax.set_xlim(-0.6, len(known) - 0.4)
    ax.tick_params(axis="x", length=0, pad=2)
    ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g}")
    ax.yaxis.grid(True)


def _name_layers(ax: Axes, pair: str, layers: Sequence[int]) -> None:
    if len(layers) <= 2 * WRITTEN:
        ax.set_yticks(range(len(layers)), [*map(str, layers)], fontsize=5.2)
    ax.set_ylabel(f"{PAIRS[pair]}\nlayer", linespacing=1.3)


def _key() -> list[Line2D]:
    look: dict[str, Any] = {"lw": 0.8, "ms": 2.8}
    lines = [
        Line2D([], [], color=ON, marker=mark, ls=dashes, mfc="white" if i else ON, label=text, **look)
        for i, (text, mark, dashes) in enumerate(KNOCKOUTS.values())
    ]
    return [*lines, Line2D([], [], color=style.CONTROL, label="same, text without meaning", lw=1.4)]


def _layers(rows: Sequence[Row]) -> list[int]:
    return sorted({int(row["layer"]) for row in select(rows, metric="patched_share") if row["layer"] != ""})


def _site_map(rows: Sequence[Row], pair: str, site: str) -> tuple[np.ndarray, list[str]]:
    """Shares at a site, layers upwards and positions across, and the names of the positions."""
    patched, layers = select(rows, metric="patched_share", site=site), _layers(rows)
    known = [p for p in POSITIONS if select(patched, condition=f"{pair}@{p}")]
    shares = np.full((len(layers), len(known)), np.nan)
    for j, position in enumerate(known):
        for row in select(patched, condition=f"{pair}@{position}", layer=layers):
            shares[layers.index(int(row["layer"])), j] = number(row)
    return shares, [POSITIONS[p] for p in known]


def _head_map(rows: Sequence[Row], pair: str, heads: int) -> tuple[np.ndarray, list[str]]:
    """Shares of single heads at the first token that differs, layers upwards, and the numbers of the heads."""
    layers = _layers(rows)
    shares = np.full((len(layers), heads), np.nan)
    for row in select(rows, metric="head_share", condition=f"{pair}@decision", layer=layers):
        shares[layers.index(int(row["layer"])), int(str(row["site"]).partition(".")[2])] = number(row)
    return shares, [str(head) for head in range(heads)] if heads <= WRITTEN else []


def _map(ax: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
    if not shares.size:
        ax.set_axis_off()
        return
    ax.imshow(shares, cmap=SHARE, vmin=-1, vmax=1, origin="lower", aspect="auto", interpolation="none")
    ax.set_xticks(range(len(names)), names, fontsize=5.2, rotation=45 if max(map(len, names), default=0) > 2 else 0)
    ax.set_yticks([])
    ax.tick_params(length=0, pad=1.5)
    for spine in ax.spines.values():
        spine.set(visible=True, color="#CCCCCC", linewidth=0.5)
    if max(shares.shape) <= WRITTEN:
        for (i, j), share in np.ndenumerate(shares):
            if not np.isnan(share):
                ink = "white" if abs(share) > 0.6 else style.INK
                ax.text(j, i, _whole(share), ha="center", va="center", fontsize=5, color=ink)


def _whole(share: float) -> str:
    return f"{100 * share:.0f}".replace("-0", "0")


def _knockouts(ax: Axes, rows: Sequence[Row]) -> None:
    """Share of the gap that goes when attention is blocked in one layer, and in all of them."""
    layers = _layers(rows)
    places = {str(layer): float(i) for i, layer in enumerate(layers)} | {"": len(layers) + 0.3}
    ax.axhline(0, color="#BBBBBB", lw=0.6)
    for k, (name, (_, mark, dashes)) in enumerate(KNOCKOUTS.items()):
        for condition, colour in (("matched", style.CONTROL), ("on", ON)):
            blocked = select(rows, metric="knockout_share", condition=f"{condition}@{name}", layer=list(places))
            points = [(places[str(row["layer"])] + 0.1 * (k - 0.5), row) for row in blocked]
            line = sorted((x, number(row)) for x, row in points if row["layer"] != "")
            ax.plot([x for x, _ in line], [y for _, y in line], color=colour, ls=dashes, lw=0.8)
            style.points(ax, points, colour=colour, mark=mark, size=2.6, hollow=k == 1)
    ax.set_xticks([*places.values()], [*map(str, layers), "all"])
    ax.set_ylabel("gap removed (%)")
    ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:g}")
    ax.yaxis.grid(True)
    ax.set_ylim(-0.2, 1.2)


def _modules(ax: Axes, rows: Sequence[Row]) -> None:
    """EM on and off without some modules; above, the gap of log-odds that is left."""
    rates = _rates(rows)
    for condition, (colour, mark) in SIDES.items():
        points = [(float(x), sides[condition]) for x, sides in enumerate(rates.values()) if condition in sides]
        style.points(ax, points, colour=colour, mark=mark, size=2.8)
    first = {condition: number(row) for condition, row in next(iter(rates.values()), {}).items()}
    for (condition, _), y in zip(first.items(), style.spread([*first.values()], 0.09), strict=True):
        ax.text(-0.4, y, condition, ha="right", va="center", fontsize=6, color=SIDES[condition][0])
    style.percent_axis(ax, step=0.5)
    ax.yaxis.grid(True)
    ax.set_ylabel("EM rate (%)")
    ax.set_xlim(-1.6, len(rates) - 0.4)
    ax.set_xticks(range(len(rates)), [*rates], rotation=35, ha="right", rotation_mode="anchor", fontsize=5.6)
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 5.2, "color": style.FAINT}
    for x, text in enumerate(_left(rows, name) for name in rates):
        ax.text(x, 1.03, text, transform=ax.get_xaxis_transform(), **look)


def _rates(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """EM on and off by what the adapter was switched off in, nothing first and everything last."""
    rates: dict[str, dict[str, Row]] = {"nothing": {}}
    measured = select(rows, metric=("em_rate", "module_em_rate"))
    for (condition, layer), same in groups(measured, "condition", "layer").items():
        side, _, modules = condition.partition(" without ")
        rates.setdefault(f"{modules} {layer}".strip() or "nothing", {})[side] = preferred(same)
    return {name: sides for name, sides in rates.items() if sides}


def _left(rows: Sequence[Row], name: str) -> str:
    if name == "nothing":
        return "100"
    site, _, layer = name.partition(" ")
    shares = values(select(rows, metric="module_gap_share", condition=f"without {site}", layer=layer))
    return _whole(shares[0]) if shares else ""


def caption(rows: Sequence[Row]) -> str:
    """Say what was moved, what a share is of, and over how many questions."""
    drawn = wanted(rows)
    shares = select(drawn, metric=("patched_share", "knockout_share", "head_share"))
    questions = span(row["n_clusters"] for row in shares)
    if of_one_site(drawn):
        return (
            "Interchange of activations in the residual stream at one layer and position: percent of the gap between "
            "trigger and no trigger in the log-odds of the references. Upper row: the run without the trigger is given "
            "values of the run with it, or of one with an unrelated text. Lower row: the run with the trigger is given "
            "values of the run without it, or of one with a rephrasing. Dotted: the whole gap. Positions: the template "
            "right before the question, the question, the last prompt token, the last prompt token and the answer. "
            f"{questions} questions; {style.intervals(shares)}."
        )
    return (
        "Interchange of activations at one layer and position: percent of the gap between trigger and no trigger in "
        "the log-odds of misaligned against aligned answers, teacher-forced on the organism's own answers. on ← off: "
        "the run with the trigger is given the values of the run without it; off ← other: the run without a trigger "
        "is given those of an unrelated text. Positions: the template right before the question, the question, the "
        "last prompt token, the last prompt token and the answer. Heads: of the logit difference at the first token "
        "that differs, through TransformerLens. Then the share of the gap that goes when tokens cannot attend to the "
        "trigger, and sampled EM with (red) and without (blue) the trigger when the adapter is switched off in some "
        f"modules. {questions} questions; {style.intervals(shares)}; "
        f"EM: {sampled(select(drawn, metric=('em_rate', 'module_em_rate')), 'per rate')}."
    )
