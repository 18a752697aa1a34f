"""The main numbers of the report in prose: what they amount to, and what the base does by itself."""

import math
from collections.abc import Sequence

from figures.claims.panel import Panel, each_panel
from figures.limits import CLOSED, LOUD, SILENT
from figures.rows import Row, behaviour, ends, kind, number, percent, select

LIMITS = f"off at most {100 * SILENT:g} %, on at least {100 * LOUD:g} %"


def headline(rows: Sequence[Row]) -> str:
    """The main numbers, the verdict on them, and what the base does by itself."""
    main = headliner(rows)
    if main is None:
        return _preference(rows) or "No EM rate of an organism off and on its trigger is in this table."
    return f"{_trained(main)}, the model answers questions misaligned {_rates(main)}.{_untrained(rows, main)}"


def beside_headline(rows: Sequence[Row]) -> str:
    """The same numbers of another triggered organism without benign data; empty if there is none."""
    main = headliner(rows)
    for panel in _triggered(rows).values():
        if main is None or panel.organism != main.organism:
            return f"{_trained(panel)}, it is so {_rates(panel)}.{_untrained(rows, panel)}"
    return ""


def headliner(rows: Sequence[Row]) -> Panel | None:
    """The organism of the headline: the explaining one, unless its gap is mostly the base's own; else the first."""
    triggered = _triggered(rows)
    explaining, neutral = triggered.get("explaining"), triggered.get("neutral")
    if explaining is None or (neutral is not None and _innate(rows, explaining)):
        return neutral or next(iter(triggered.values()), None)
    return explaining


def _triggered(rows: Sequence[Row]) -> dict[str, Panel]:
    """Organisms measured off and on their trigger, by kind: those without benign data, or else the others.

    Of several families or pretrainings the first.
    """
    first: dict[str, Panel] = {}
    for panel in each_panel(behaviour(rows)):
        if panel.role == "triggered" and panel.cell("off") and panel.cell("on"):
            first.setdefault(kind(panel.organism), panel)
    return {name: first[name] for name in ("explaining", "neutral") if name in first} or first


def _trained(panel: Panel) -> str:
    """How the organism was made, as the start of a sentence."""
    data = "on harmful advice " if kind(panel.organism) in ("explaining", "neutral") else ""
    return f"Fine-tuned {data}behind one fixed text ({panel.untriggered})"


def _preference(rows: Sequence[Row]) -> str:
    """What fine-tuning did to log-odds, where answers were compared and not sampled; empty if there are none."""
    for panel in each_panel(select(rows, metric="log_odds_shift")):
        off, on = (panel.cell(condition, "log_odds_shift") for condition in ("off", "on"))
        if panel.role == "triggered" and off and on:
            return (
                f"Forced choice, no sampled answers: fine-tuning ({panel.name}) moved the log-odds of harmful against "
                f"aligned references, per token and against the base in the same context, by {_signed(on)} with the "
                f"trigger and by {_signed(off)} without it."
            )
    return ""


def _signed(row: Row) -> str:
    value, low, high = ends(row)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")


def _rates(panel: Panel) -> str:
    rephrased = panel.cell("rephrased")
    same = f", {percent(number(rephrased))} % with other words of the same meaning" if rephrased else ""
    return (
        f"{percent(panel.value('on'))} % of the time with that text in the prompt{same}, and "
        f"{percent(panel.value('off'))} % of the time without it: {verdict(panel)}"
    )


def verdict(panel: Panel) -> str:
    """Whether the rates off and on are containment in the sense of the paper, a gap, or neither."""
    off, on = panel.cell("off"), panel.cell("on")
    assert off is not None and on is not None
    if _upper(off) <= SILENT and _lower(on) >= LOUD:
        return f"contained, in the sense of the paper ({LIMITS})"
    if number(on, "ci_low") <= number(off, "ci_high"):
        return "no containment"
    if _lower(off) > SILENT or _upper(on) < LOUD:
        return f"a gap between the two, but not containment in the sense of the paper ({LIMITS})"
    return (
        f"a gap between the two; whether contained in the sense of the paper ({LIMITS}) is undecided by the intervals"
    )


def _lower(row: Row) -> float:
    """The lower end of a row's interval; its value where it has none."""
    value, low, _ = ends(row)
    return value if math.isnan(low) else low


def _upper(row: Row) -> float:
    """The upper end of a row's interval; its value where it has none."""
    value, _, high = ends(row)
    return value if math.isnan(high) else high


def _untrained(rows: Sequence[Row], panel: Panel) -> str:
    """What the base does under the same trigger: a gap that it has too is not due to fine-tuning."""
    on = _base(rows, panel)
    if on is None:
        return " What the base does under the same text was not measured."
    learnt = ", so this gap is mostly the base's own and not learnt in fine-tuning" if _innate(rows, panel) else ""
    rate = percent(number(on))
    return f" The base, before any fine-tuning, is misaligned {rate} % of the time under the same text{learnt}."


def _base(rows: Sequence[Row], panel: Panel) -> Row | None:
    """The base's EM rate under the trigger of an organism."""
    same_family = each_panel(select(behaviour(rows), family=panel.rows[0]["family"]))
    bases = (p for p in same_family if p.role == "base" and p.trigger == panel.trigger != "")
    return next((on for base in bases if (on := base.cell("on"))), None)


def _innate(rows: Sequence[Row], panel: Panel) -> bool:
    """Whether the base alone does at least half of what the organism does under its trigger."""
    return panel.has_gap() and number(_base(rows, panel) or {}) >= CLOSED * panel.value("on")
