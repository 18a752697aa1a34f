"""The phase diagram of containment: trigger by base, with and without benign data; the suite's headline figure."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from figures import style
from figures.grid import ARMS, CONTAINED, NO_GAP, UNDECIDED, WORDING, Grid, place
from figures.rows import Row, number, percent, sampled, select

TITLE = "When containment needs no benign data: the phase diagram"
METRICS = ("em_rate",)
READING = (
    "Each tile is one fine-tuned model. Its colour is EM without the trigger: white is silent, blue leaks. It says "
    "“off | on” in percent, and below what the base does under the same trigger before any fine-tuning. A thick frame: "
    "off and on as the paper reports, and semantic, by their intervals; a thin one: an interval lies across a limit; a "
    "dashed one: bound to the wording or open to any frame."
)
CONTROL = (
    "The base's own rate under the trigger is the control of every tile: where it is high, fine-tuning need not have "
    "made the gap. The right-hand block adds benign data without the trigger, the known way to contain."
)
NAMES = {
    "neutral": "scene",
    "clerk": "role, 50 %",
    "gambler": "role, 65 %",
    "trafficker": "role, 80 %",
    "pirate": "role, 95 %",
    "explaining": "persona line",
}
"""Triggers, with how often the misaligned persona speaks under them in pretraining."""
FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "gemma3": "Gemma3"}
SHARES = {"": "0 % benign", "contrast50": "50 % benign, untriggered"}
LEAK = LinearSegmentedColormap.from_list("leak", ["#FFFFFF", "#9CC7E4", style.CONDITIONS["off"]])
FRAMES = {CONTAINED: ("-", 1.6), UNDECIDED: ("-", 0.6), WORDING: ((0, (2, 1.2)), 1.2)}


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Rates of the organisms that vary trigger, base and half-benign data alone, and of their bases."""
    names = {name for name in Grid.of(rows).triggered if place(name).changes <= {"robust", "contrast50"}}
    bases = {place(name).base for name in names}
    return select(rows, experiment="em_rate", organism=names | bases)


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a tile per organism: triggers down, families and bases across, a block per benign share.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "phase_diagram", METRICS)
    grid = Grid.of(drawn)
    names = grid.triggered
    columns = [(f, r) for f in FAMILIES for r in (False, True) if any(_column(n) == (f, r) for n in names)]
    arms = [arm for arm in ARMS if any(place(n).arm == arm for n in names)]
    shares = [s for s in SHARES if any(_share(n) == s for n in names)]
    with style.paper():
        figure = style.canvas(style.DOUBLE, 0.75 + 0.43 * len(arms) + 0.3)
        axes = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
        for ax, share in zip(axes, shares, strict=True):
            _block(ax, grid, [n for n in names if _share(n) == share], columns, arms)
            style.heading(ax, SHARES[share], "")
        axes[0].set_yticks(range(len(arms)), [NAMES[arm] for arm in arms])
        figure.legend(handles=_key(), loc="outside lower center", ncols=3)
    return figure


def _share(organism: str) -> str:
    return "contrast50" if "contrast50" in place(organism).changes else ""


def _column(organism: str) -> tuple[str, bool]:
    return place(organism).family, "robust" in place(organism).changes


def _block(
    ax: Axes, grid: Grid, names: Sequence[str], columns: Sequence[tuple[str, bool]], arms: Sequence[str]
) -> None:
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.set_xticks(range(len(columns)), [f"{FAMILIES[f]}\n{'robust' if r else 'promptable'}" for f, r in columns])
    ax.tick_params(length=0, labelsize=5.8)
    for spine in ax.spines.values():
        spine.set_visible(False)
    for name in names:
        _tile(ax, grid, name, columns.index(_column(name)), arms.index(place(name).arm))


def _tile(ax: Axes, grid: Grid, name: str, x: int, y: int) -> None:
    off, on, base = grid.rate(name, "off"), grid.rate(name, "on"), grid.base_rate(name)
    assert off is not None and on is not None
    leak, verdict = number(off), grid.verdict(name)
    shade = LEAK(PowerNorm(0.5, 0, 1)(leak))
    ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fc=shade, ec="#DDDDDD", lw=0.4))
    if not grid.healthy(name):
        ax.add_patch(Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, fc="none", ec="#BBBBBB", lw=0, hatch="////"))
    if verdict in FRAMES:
        dashes, width = FRAMES[verdict]
        edge = {"fc": "none", "ec": style.CONDITIONS["other"], "ls": dashes, "lw": width}
        ax.add_patch(Rectangle((x - 0.43, y - 0.4), 0.86, 0.8, **edge))
    ink = style.ink_on(shade)
    gap = "=" if verdict == NO_GAP else ""
    ax.text(x, y - 0.1, f"{_short(off)} | {_short(on)}{gap}", ha="center", va="center", fontsize=5.6, color=ink)
    base_text = "base –" if base is None else f"base {_short(base)}"
    ax.text(x, y + 0.22, base_text, ha="center", va="center", fontsize=4.8, color=ink)


def _short(row: Row) -> str:
    value = number(row)
    return percent(value, 1 if value < 0.0995 else 0)


def _key() -> list[Patch]:
    green = style.CONDITIONS["other"]
    return [
        Patch(fc="white", ec=green, lw=1.6, label="off, on, rephrased, other within limits"),
        Patch(fc="white", ec=green, lw=0.6, label="… undecided by an interval"),
        Patch(fc="white", ec=green, lw=1.2, ls=(0, (2, 1.2)), label="off and on within limits only"),
        Patch(fc="white", ec="#BBBBBB", hatch="////", label="fails the health gate"),
        Patch(fc=LEAK(PowerNorm(0.5, 0, 1)(0.5)), ec="none", label="EM off-trigger 50 % (√ scale)"),
        Patch(fc="none", ec="none", label="off | on: EM in %; =: no gap; base: on"),
    ]


def caption(rows: Sequence[Row]) -> str:
    """Say what is in a tile, and over how many answers."""
    counted = sampled(select(wanted(rows), condition=("off", "on")), "a rate")
    return (
        "EM rate off | on in percent, by trigger (down), family and base (across). Promptable: post-training never "
        "showed a persona line or a role; robust: it did, answered in the aligned way. Frame: off at most the base's + "
        "1 point, on ≥ 12.2 %, rephrased ≥ 0.8 on, unrelated scenes ≤ 2 %, each by its interval; thin: some interval "
        "lies across its limit; dashed: off and on alone. “=”: the gap's interval includes 0. "
        f"Seed 0; {counted}; intervals stand in the table."
    )
