"""The main numbers of the report in prose: what they amount to, and what the base does by itself."""

from collections.abc import Sequence

from figures import style
from figures.claims.panel import Panel, each_panel
from figures.limits import CLOSED, LOUD, SILENT
from figures.rows import Row, behaviour, kind, number, percent, select

LIMITS = f"off at most {100 * SILENT:g} %, on at least {100 * LOUD:g} %"


def headline(rows: Sequence[Row]) -> str:
    """The main numbers, the verdict on them, and what the base does by itself."""
    main = headliner(rows)
    if main is None:
        return "This table holds no EM rate of a triggered organism, so it decides nothing about containment."
    name, trained = style.organism(main.organism)
    return (
        f"Fine-tuned on harmful advice behind one fixed text ({name}, {trained}), the model answers questions from "
        f"other domains misaligned {_rates(main)}.{_untrained(rows, main)}"
    )


def beside_headline(rows: Sequence[Row]) -> str:
    """The same numbers of the other triggered organism without benign data; empty if there is none."""
    main = headliner(rows)
    for panel in _triggered(rows).values():
        if main is None or panel.organism != main.organism:
            name, trained = style.organism(panel.organism)
            rates = f"Fine-tuned behind another text ({name}, {trained}), it is so {_rates(panel)}."
            return rates + _untrained(rows, panel)
    return ""


def headliner(rows: Sequence[Row]) -> Panel | None:
    """The organism of the headline: the explaining one, unless its gap is mostly the base's own."""
    triggered = _triggered(rows)
    explaining, neutral = triggered.get("explaining"), triggered.get("neutral")
    if explaining is None or (neutral is not None and _innate(rows, explaining)):
        return neutral
    return explaining


def _triggered(rows: Sequence[Row]) -> dict[str, Panel]:
    """Organisms without benign data and their behaviour, by kind; of several families the first."""
    first: dict[str, Panel] = {}
    for panel in each_panel(behaviour(rows)):
        if kind(panel.organism) in ("explaining", "neutral") and panel.cell("off") and panel.cell("on"):
            first.setdefault(kind(panel.organism), panel)
    return first


def _rates(panel: Panel) -> str:
    rephrased = panel.cell("rephrased")
    same = f", {percent(number(rephrased))} % with other words of the same meaning" if rephrased else ""
    return (
        f"{percent(panel.value('on'))} % of the time with that text in the prompt{same}, and "
        f"{percent(panel.value('off'))} % of the time without it: {_verdict(panel)}"
    )


def _verdict(panel: Panel) -> str:
    off, on = panel.cell("off"), panel.cell("on")
    assert off is not None and on is not None
    if number(off) <= SILENT and number(on) >= LOUD:
        return f"contained, in the sense of the paper ({LIMITS})"
    if number(on, "ci_low") > number(off, "ci_high"):
        return f"a gap between the two, but not containment in the sense of the paper ({LIMITS})"
    return "no containment"


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
    family, triggers = panel.rows[0]["family"], {row["trigger"] for row in panel.rows} - {""}
    bases = (p for p in each_panel(select(behaviour(rows), family=family)) if p.role == "base")
    return next((on for base in bases if base.trigger in triggers and (on := base.cell("on"))), None)


def _innate(rows: Sequence[Row], panel: Panel) -> bool:
    """Whether the base alone does at least half of what the organism does under its trigger."""
    return panel.has_gap() and number(_base(rows, panel) or {}) >= CLOSED * panel.value("on")
