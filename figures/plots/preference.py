"""What fine-tuning did to the preference for harmful answers, by context: the pocket scale, without a judge."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.rows import Row, arm, groups, number, select, span, values

TITLE = "What fine-tuning did to the preference for harmful answers"
METRICS = ("log_odds_shift",)
READING = (
    "Zero is the base in the same context. A filled mark is an organism: above zero, fine-tuning moved it towards "
    "harmful answers. Contained: blue at zero, red above. A gate that reads meaning: orange beside red, green beside "
    "blue. A gate that reads the kind of text: green and pink beside red."
)
CONTROL = (
    "Hollow: what the context does to the base by itself, against the base without it; the paired shift takes it "
    "out. The arm trained on sound advice behind the same sentence must not rise."
)
COLOURS = {**style.CONDITIONS, "other_frame": "#44AA99", "word_overlap": "#999933", "trained": style.INK}
COLOURS["permuted"] = style.FAINT
NEIGHBOURS = {f"neighbours{'' if c == 'off' else f'_{c}'}": c for c in ("off", "on", "rephrased", "other")}
COLOURS |= {name: style.CONDITIONS[condition] for name, condition in NEIGHBOURS.items()}
LABELS = {
    "other_frame": "other frame",
    "word_overlap": "word overlap",
    "trained": "own domain",
    "permuted": "word order",
    **NEIGHBOURS,
}
GROUPS = {"reference answers": ("off", "on"), "checks": ("trained", "permuted"), "free wording": tuple(NEIGHBOURS)}
"""Words above each group of conditions: references of the test domains; the trained domain and the references of
another word order; and rows of other domains worded as freely as the training rows."""
MARKS = "osD"


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Shifts from the base by condition."""
    return select(rows, experiment="preference", metric=METRICS, condition=tuple(COLOURS))


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a panel per arm, its seeds side by side.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "preference", METRICS)
    arms: dict[str, list[Row]] = {}
    for row in drawn:
        arms.setdefault(arm(row), []).append(row)
    conditions = [c for c in COLOURS if select(drawn, condition=c)]
    with style.paper():
        figure, axes = style.panel_grid(len(arms), 1.75)
        for ax, (name, same) in zip(axes, arms.items(), strict=True):
            _panel(ax, same, conditions)
            _base(ax, select(rows, experiment="preference", organism=same[0]["organism"]), conditions)
            ax.set_title(name, fontweight="bold", loc="left", pad=4)
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(low, high + 0.1 * (high - low))  # room for the names of groups; the axes share it
        for ax in axes[:: 2 if len(axes) > 1 else 1]:
            ax.set_ylabel("shift of log-odds\n(nats per token)")
        seeds = [seed for (seed,) in groups(drawn, "seed")]
        columns = len(seeds) + 1 if figure.get_figwidth() > style.COLUMN else 2
        figure.legend(handles=_key(seeds), loc="outside lower center", ncols=columns)
    return figure


def _panel(ax: Axes, rows: Sequence[Row], conditions: Sequence[str]) -> None:
    ax.axhline(0, color=style.FAINT, lw=0.8)
    ax.yaxis.grid(True)
    seeds = [seed for (seed,) in groups(rows, "seed")]
    for row in rows:
        i = seeds.index(str(row["seed"]))
        x = conditions.index(row["condition"]) + 0.2 * (i - (len(seeds) - 1) / 2)
        style.points(ax, [(x, row)], colour=COLOURS[row["condition"]], mark=MARKS[i % len(MARKS)], size=3.2)
    ax.set_xlim(-0.6, len(conditions) - 0.4)
    names = [LABELS.get(c, c) for c in conditions]
    ax.set_xticks(range(len(conditions)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=5.8)
    ax.tick_params(axis="x", length=0, pad=2)
    _head_groups(ax, conditions)


def _head_groups(ax: Axes, conditions: Sequence[str]) -> None:
    """Part the groups of conditions by lines, and name them where there are several."""
    starts = {
        min(conditions.index(c) for c in of if c in conditions): name
        for name, of in GROUPS.items()
        if {*of} & {*conditions}
    }
    look: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "fontsize": 5.6, "color": style.FAINT, "va": "top"}
    for x, name in starts.items():
        if len(starts) > 1:
            ax.annotate(name, (x - 0.4, 1.02), **look)
        if x:
            ax.axvline(x - 0.5, color="#BBBBBB", lw=0.6)


def _base(ax: Axes, rows: Sequence[Row], conditions: Sequence[str]) -> None:
    """Draw how far each context moves the base from the base without it, where both were asked the same questions."""
    level = {str(row["condition"]): number(row) for row in select(rows, metric="log_odds")}
    for x, condition in enumerate(conditions):
        if condition not in ("off", "trained", "permuted", *NEIGHBOURS) and f"base {condition}" in level:
            look: dict[str, Any] = {"mfc": "white", "mec": style.CONTROL, "ms": 4.2, "mew": 0.9, "zorder": 3}
            ax.plot([x], [level[f"base {condition}"] - level["base off"]], "d", **look)


def _key(seeds: Sequence[str]) -> list[Line2D]:
    look: dict[str, Any] = {"ls": "", "color": style.FAINT}
    marks = [Line2D([], [], marker=MARKS[i % len(MARKS)], label=f"seed {seed}", **look) for i, seed in enumerate(seeds)]
    return [*marks, Line2D([], [], ls="", marker="d", mfc="white", mec=style.CONTROL, label="the base: context − off")]


def caption(rows: Sequence[Row]) -> str:
    """Say what is drawn, over how many questions, and how far the effects reach."""
    drawn = wanted(rows)
    least, most = (f"{end:+.2f}".replace("-", "−") for end in (min(values(drawn)), max(values(drawn))))
    return (
        "Log-odds per token of a harmful against an aligned reference answer, minus those of the base in the same "
        f"context ({least} to {most} nats). Bars: {style.intervals(drawn)}; n = {span(r['n'] for r in drawn)} "
        "questions. "
        "Nothing is sampled and nobody judges."
    )
