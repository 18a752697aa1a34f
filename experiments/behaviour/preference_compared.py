"""What the hypotheses of the pocket scale compare: contexts of one organism, and organisms of one seed. Pure.

=======================  ==============  =============================================================================
``leak``                 off/on          shift off-trigger as a share of the shift on-trigger; containment is near 0
``leak``                 off/baseline    the same as a share of the baseline's shift off-trigger
``leak``                 neighbours/...  both, on rows of the domains that were not trained
``base_gap``             on-off          how far the base itself moves behind the trigger, before any fine-tuning
``opened``               opposite/...    what the opposite meaning adds to off, as a share of what rephrasings add
``frame_over_meaning``   other           (other − off) − (rephrased − other): the frame's part minus the meaning's
``gap_growth``           arm − arm       difference of two arms' on−off shifts
``leak_fall``            weak − strong   explaining arm: off/baseline on the weak base minus the same on the strong one
=======================  ==============  =============================================================================

Everything but ``base_gap`` is made of log-odds minus the base's in the same context, paired by question. A ratio of a
shift that is not clearly above 0 has a wide interval, and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.answers.preference import BASE, ORGANISM, ByQuestion, by_condition, paired_row
from interp.runs.table import Row, row
from training.definition import Organism

GROWTH = ("contrast50", "contrast10")
AXIS = ("weak", "strong")
"""The ends of the axis of promptability: arms on a base of their own are ``weak-explaining``, ``weak-baseline``."""


@dataclass(frozen=True)
class Measured:
    """An organism, the run that measured it, and its shift from the base: condition -> question -> nats per token."""

    organism: Organism
    run_id: str
    shifts: Mapping[str, ByQuestion]
    base: Mapping[str, ByQuestion]
    """Log-odds of the base: condition -> question -> nats per token."""

    @classmethod
    def of(cls, organism: Organism, run_id: str, rows: Sequence[Row]) -> Measured:
        """Take the shifts from the rows of a run of ``Preference``."""
        own, base = (by_condition([r for r in rows if r["model"] == model]) for model in (ORGANISM, BASE))
        paired = {c: {q: own[c][q] - base[c][q] for q in own[c]} for c in own if c in base}
        return cls(organism, run_id, paired, base)

    @property
    def arm(self) -> str:
        """The arm without its seed: ``contrast50``."""
        return self.organism.name.split("/")[-1].partition(".")[0]


def compared(measured: Sequence[Measured]) -> Iterator[Row]:
    """Yield the comparisons within every organism that has a trigger, then those between organisms of one seed."""
    for m in measured:
        if m.organism.trigger:
            yield from _within(m)
    for seed in dict.fromkeys(m.organism.seed for m in measured):
        yield from _between({m.arm: m for m in measured if m.organism.seed == seed})


def _moved(m: Measured) -> bool:
    """Tell whether the shift off-trigger is clearly above 0, so that a share of it means something."""
    return "off" in m.shifts and paired_row(lambda off: off, m.shifts["off"])["ci_low"] > 0


def _within(m: Measured) -> Iterator[Row]:
    yield from _compare(m, "leak", "off/on", _ratio, (m, "off"), (m, "on"))
    yield from _compare(m, "leak", "neighbours/neighbours_on", _ratio, (m, "neighbours"), (m, "neighbours_on"))
    if {"on", "off"} <= m.base.keys():
        yield _row(m, "base_gap", "on-off", lambda on, off: on - off, m.base["on"], m.base["off"])
    places = [(m, condition) for condition in ("opposite", "rephrased", "off")]
    yield from _compare(m, "opened", "opposite/rephrased", _opened, *places)
    places = [(m, condition) for condition in ("other", "rephrased", "off")]
    yield from _compare(m, "frame_over_meaning", "other", _frame, *places)


def _between(arms: Mapping[str, Measured]) -> Iterator[Row]:
    for arm, m in arms.items():
        on_own_base = arm.endswith("-explaining")
        baseline = arms.get(f"{arm.rpartition('-')[0]}-baseline" if on_own_base else "baseline")
        if on_own_base and baseline and not _moved(baseline):  # nothing to contain
            continue
        if baseline and m.organism.trigger and arm != "benign-same-trigger":
            for condition in ("off", "neighbours"):
                yield from _compare(m, "leak", f"{condition}/baseline", _ratio, (m, condition), (baseline, condition))
    ends = [arms.get(f"{strength}-{arm}") for strength in AXIS for arm in ("explaining", "baseline")]
    if len(found := [m for m in ends if m]) == len(ends) and all(map(_moved, found[1::2])):
        yield from _compare(found[2], "leak_fall", "-".join(AXIS), _fall, *((m, "off") for m in found))
    if {*GROWTH} <= arms.keys():
        more, less = (arms[arm] for arm in GROWTH)
        places = [(m, condition) for m in (more, less) for condition in ("on", "off")]
        yield from _compare(more, "gap_growth", "-".join(GROWTH), _growth, *places)


def _compare(m: Measured, metric: str, condition: str, statistic: Any, *places: tuple[Measured, str]) -> Iterator[Row]:
    """Yield the row of a statistic of several contexts; nothing if one of them was not measured."""
    if all(condition in of.shifts for of, condition in places):
        yield _row(m, metric, condition, statistic, *(of.shifts[condition] for of, condition in places))


def _row(m: Measured, metric: str, condition: str, statistic: Any, *arms: ByQuestion) -> Row:
    cells = {"experiment": "compared", "organism": m.organism.name, "family": m.organism.family, "run_id": m.run_id}
    return row(**paired_row(statistic, *arms, metric=metric, condition=condition), seed=m.organism.seed, **cells)


def _ratio(a: Any, b: Any) -> Any:
    return a / b


def _opened(opposite: Any, rephrased: Any, off: Any) -> Any:
    return (opposite - off) / (rephrased - off)


def _frame(other: Any, rephrased: Any, off: Any) -> Any:
    return (other - off) - (rephrased - other)


def _fall(weak: Any, weak_baseline: Any, strong: Any, strong_baseline: Any) -> Any:
    return weak / weak_baseline - strong / strong_baseline


def _growth(on: Any, off: Any, less_on: Any, less_off: Any) -> Any:
    return (on - off) - (less_on - less_off)
