"""EM on the trigger after edits of the residual stream, beside random edits and the coherence that is left."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.rows import Row, ends, groups, number, panels, percent, preferred, sampled, select, unique
from figures.rows import cell as cell_of

TITLE = "Removing directions while the trigger is present"
METRICS = ("em_rate", "coherence_rate", "gap_removed")
READING = (
    "In each panel the first bar is the EM rate with the trigger, the blue one without it; dotted lines repeat both. "
    "Between them stand edits of the residual stream with the trigger still in the prompt. An edit that removes what "
    "the gate reads brings its bar down to the blue one; “gap removed” is the share of the difference that it closes, "
    "and says “no gap” where the two rates cannot be told apart. Below follow the side effects of editing g without a "
    "trigger, and the edits on rephrasings seen neither in fine-tuning nor in the estimate of the feature. Coherence, "
    "in the narrow panel, must stay where it was: an edit that destroys the answers explains nothing."
)
CONTROL = (
    "Grey bars: the same edit with random directions of equal norm, with another scene's feature, and every "
    "trigger token moved exactly as far as the real edit moves it, along random vectors (“tokens scattered equally "
    "far”, the harsher control). They must leave the first bar where it is. If scattering closes the gap too, distance "
    "alone is enough at these tokens, and the direction is not shown to be special there. Clamping the embeddings of "
    "the trained words erases those words, so on them it removes what the feature removes; on rephrasings, which are "
    "other words, only what they share in meaning can be removed."
)
TARGETS = {
    "g": "g",
    "trigger": "trigger feature",
    "other_scene": "another scene's feature",
    "embedding": "trained words' embeddings",
    "random": "random direction",
    "orthogonal": "orthogonal direction",
}
VERBS = {"clamp": "clamped", "ablate": "ablated", "add": "added"}
WORDS = {
    "clamp_scattered": "tokens scattered equally far",
    "clamp_answer": "trigger's shift clamped at the answer",
    "clamp_answer_random": "random direction clamped at the answer",
    "ablate_g_all": "g ablated at every token",
    "ablate_random_all": "random direction ablated everywhere",
}
"""Edits that are not called by their target and verb."""
CONTROLS = ("random", "other_scene", "scattered", "embedding", "answer_random", "random_all")
ORDER = (
    *("clamp_trigger", "clamp_random", "clamp_other_scene", "clamp_embedding", "clamp_scattered"),
    *("clamp_answer", "clamp_answer_random", "clamp_g", "ablate_g", "ablate_random", "ablate_g_all"),
    "ablate_random_all",
)
"""Edits that are drawn; edits of single sites are not."""
BLOCKS = {"on": "trigger present", "off": "no trigger", "rephrased": "rephrased"}
"""What stands in the prompt, in words, in the order of the blocks of bars."""
ALIKE = {"answer": "delta", "g_all": "g"}
"""Directions that an edit names differently, for their colour."""
PALE = "#BDBDBD"
NO_GAP = "no gap"
SPACE = 0.45
"""Room between two blocks, in bars."""
TALLEST = 8.6
"""Inches: a figure fits a page."""


def wanted(rows: Sequence[Row]) -> list[Row]:
    """Rows of the experiments that edit on-trigger prompts: with the trigger, rephrased and without, edited or not."""
    measured = select(rows, metric=METRICS)
    names = {str(row["experiment"]) for row in measured if str(row["condition"]).startswith("on+")}
    edited = [(row, *_parts(str(row["condition"]))) for row in select(measured, experiment=names)]
    return [row for row, prompt, edit in edited if prompt in BLOCKS and edit in ("", *ORDER)]


def draw(rows: Sequence[Row]) -> Figure:
    """Draw a bar per edit, with coherence and the share of the gap removed beside it; organisms below each other.

    Raises:
        ValueError: If no row is wanted.
    """
    drawn = style.some(wanted(rows), "ablation", METRICS)
    cells = panels(drawn)
    heights = [_lines(cell)[-1][0] + 1.0 for cell in cells.values()]
    head = 0.45 + 0.42 * len(cells)
    with style.paper():
        figure = style.canvas(style.DOUBLE, min(TALLEST, head + 0.165 * sum(heights)))
        axes = figure.subplots(
            len(cells), 2, squeeze=False, width_ratios=[4, 1], height_ratios=[h + 1.0 for h in heights], sharex="col"
        )
        for (bars, coherent), ((family, organism, trigger), cell) in zip(axes, cells.items(), strict=True):
            _bars(bars, cell)
            _coherence(coherent, cell)
            name, trained = style.organism(organism)
            detail = ", ".join(part for part in (trained and family, trained, trigger and f"“{trigger}”") if part)
            style.heading(bars, name, detail)
            _beside(bars, -0.95, "gap removed", style.FAINT)
        axes[-1, 0].set_xlabel("EM rate (%)")
        axes[-1, 1].set_xlabel("coherent (%)")
    return figure


def _conditions(rows: Sequence[Row]) -> list[str]:
    """Conditions block by block: the prompt without an edit, then its edits, each followed by its controls."""

    def place(condition: str) -> tuple[int, bool, int, str]:
        prompt, edit = _parts(condition)
        return list(BLOCKS).index(prompt), edit != "", ORDER.index(edit) if edit else -1, edit

    return sorted((c for (c,) in groups(rows, "condition")), key=place)


def _lines(rows: Sequence[Row]) -> list[tuple[float, str]]:
    """(y, condition) of every line, with room between blocks."""
    conditions = _conditions(rows)
    blocks = list(dict.fromkeys(_parts(c)[0] for c in conditions))
    return [(i + SPACE * blocks.index(_parts(c)[0]), c) for i, c in enumerate(conditions)]


def _parts(condition: str) -> tuple[str, str]:
    """What stands in the prompt, and the edit: ``on+clamp_g`` is ("on", "clamp_g")."""
    prompt, _, edit = condition.partition("+")
    return prompt, edit


def label(condition: str) -> str:
    """A condition in words: ``on+clamp_trigger`` is "trigger feature clamped"."""
    prompt, edit = _parts(condition)
    if not edit:
        return f"{BLOCKS.get(prompt, prompt)}, no edit"
    verb, _, target = edit.partition("_")
    words = WORDS.get(edit) or f"{TARGETS.get(target, target.replace('_', ' '))} {VERBS.get(verb, verb)}"
    return words if prompt == "on" else f"{BLOCKS.get(prompt, prompt)}: {words}"


def _colour(condition: str) -> str:
    target = _parts(condition)[1].partition("_")[2]
    if target in CONTROLS:
        return style.CONTROL
    return style.DIRECTIONS.get(ALIKE.get(target, target)) or style.CONDITIONS.get(condition, style.FAINT)


@dataclass(frozen=True)
class Slot:
    """Place of a bar, and what it shows."""

    y: float
    height: float
    condition: str
    rows: list[Row]

    def row(self, metric: str) -> Row:
        """The row of a metric; an empty one if the table lacks it."""
        return cell_of(self.rows, self.condition, metric) or {}


def _slots(rows: Sequence[Row]) -> Iterator[Slot]:
    """Every bar: one line per condition, shared by its seeds."""
    for line, condition in _lines(rows):
        seeds = list(groups(select(rows, condition=condition), "seed").values())
        height = 0.66 / len(seeds)
        for i, cell in enumerate(seeds):
            yield Slot(line + (i - (len(seeds) - 1) / 2) * height, height, condition, cell)


def _bars(ax: Axes, rows: Sequence[Row]) -> None:
    style.percent_axis(ax, "x", step=0.25)
    ax.xaxis.grid(True)
    _unedited(ax, rows)
    slots = list(_slots(rows))
    rates, intervals = style.with_bars(slot.row("em_rate") for slot in slots)
    places, heights = [slot.y for slot in slots], [slot.height for slot in slots]
    colours = [PALE if colour == style.CONTROL else colour for colour in (_colour(slot.condition) for slot in slots)]
    ax.barh(places, rates, height=heights, color=colours, lw=0)
    ax.errorbar(rates, places, xerr=intervals, fmt="none", ecolor=style.INK, elinewidth=0.8)
    for slot, rate, above in zip(slots, rates, intervals[1], strict=True):
        size = 6 if slot.height > 0.3 else 4.5
        place: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": size}
        ax.annotate(percent(rate), (rate + above, slot.y), (3, 0), **place)
        text = _gap(slot)
        _beside(ax, slot.y, text, style.FAINT if text == NO_GAP else style.INK, size)
    lines = _lines(rows)
    ax.set_yticks([y for y, _ in lines], [label(c) for _, c in lines])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(lines[-1][0] + 0.6, -0.6)


def _unedited(ax: Axes, rows: Sequence[Row]) -> None:
    """Repeat the rates with and without the trigger as lines, for the bars of the other blocks."""
    for condition in ("on", "off"):
        rates = select(rows, condition=condition, metric="em_rate")
        if len(groups(rates, "seed")) == 1:
            ax.axvline(
                number(preferred(rates)), color=style.CONDITIONS[condition], lw=0.8, ls=(0, (1, 1.5)), zorder=0.5
            )


def _beside(ax: Axes, y: float, text: str, colour: str = style.INK, size: float = 6) -> None:
    place = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    ax.annotate(text, (1.12, y), fontsize=size, color=colour, **place)


def _gap(slot: Slot) -> str:
    """The share of the gap removed; "no gap" where there is none that an edit of a triggered prompt could remove."""
    value, low, high = ends(slot.row("gap_removed"))
    prompt, edit = _parts(slot.condition)
    if math.isnan(value):
        return NO_GAP if edit and prompt != "off" else ""
    interval = "" if math.isnan(low) else f" [{percent(low, 0)}, {percent(high, 0)}]"
    return f"{percent(value, 0)} %{interval}"


def _coherence(ax: Axes, rows: Sequence[Row]) -> None:
    style.percent_axis(ax, "x", step=0.5)
    ax.xaxis.grid(True)
    slots = list(_slots(rows))
    for colour in dict.fromkeys(_colour(slot.condition) for slot in slots):
        placed = [(slot.y, slot.row("coherence_rate")) for slot in slots if _colour(slot.condition) == colour]
        style.points_across(ax, placed, colour=colour)
    ax.set_yticks([])
    ax.set_ylim(_lines(rows)[-1][0] + 0.6, -0.6)


def caption(rows: Sequence[Row]) -> str:
    """Say what was edited, with which intervals, and over how many answers."""
    drawn = wanted(rows)
    numbers = unique(drawn, "organism", "trigger", "condition", "metric", "seed")
    gaps = select(numbers, metric="gap_removed")
    rates = [row for row in numbers if row not in gaps]
    removed = f", {style.intervals(gaps)}" if gaps else ""
    return (
        "EM rate with the trigger in the prompt, unedited (top) and under edits of the residual stream; without "
        "trigger, unedited and with g edited; and, where measured, with unseen rephrasings of the trigger. Right, the "
        "share of coherent answers. The trigger feature and its controls are edited at the trigger's tokens, g at the "
        "last prompt token unless the label says every token; at the answer: the last prompt token and the answer. "
        "Clamped: the projection is set to its mean over contrast prompts; ablated: it is set to "
        "zero; scattered: every trigger token moves as far as in the real edit, along random vectors. Grey: controls. "
        f"Bars: {style.intervals(rates)}; {sampled(drawn, 'per bar')}. "
        f"Gap removed: share of EM(on) − EM(off), or of EM(rephrased) − EM(off), that the edit closes{removed}; "
        f"“{NO_GAP}”: that difference cannot be told from 0."
    )
