"""One organism under one trigger, as the report sees it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from figures import style
from figures.rows import Row, cell, kind, number, panels


@dataclass(frozen=True)
class Panel:
    """The rows of an organism under one trigger."""

    organism: str
    trigger: str
    rows: Sequence[Row]

    @property
    def role(self) -> str:
        """Whether the organism is a ``base``, a ``baseline`` or fine-tuned with a trigger (``triggered``)."""
        return kind(self.organism) if kind(self.organism) in ("base", "baseline") else "triggered"

    @property
    def untriggered(self) -> str:
        """The organism in words: ``neutral + benign, 50 % benign data``."""
        return ", ".join(part for part in style.organism(self.organism) if part)

    @property
    def name(self) -> str:
        """The organism in words, with its trigger: ``neutral + benign, 50 % benign data (“scene”)``."""
        return self.untriggered + (f" (“{self.trigger}”)" if self.trigger else "")

    def cell(self, condition: str, metric: str = "em_rate") -> Row | None:
        """The row of a condition, with the interval to show; None if the table lacks it."""
        return cell(self.rows, condition, metric)

    def value(self, condition: str, metric: str = "em_rate") -> float:
        """The value of a condition; nan if the table lacks it."""
        return number(self.cell(condition, metric) or {})

    def cells(self, *conditions: str) -> dict[str, Row | None]:
        """EM rates by condition."""
        return {condition: self.cell(condition) for condition in conditions}

    def has_gap(self) -> bool:
        """Whether the interval of the on–off gap, or else of both rates, says that EM is higher with the trigger."""
        gap, off, on = self.cell("on-off", "trigger_gap"), self.cell("off"), self.cell("on")
        if gap is not None:
            return number(gap, "ci_low") > 0
        return off is None or on is None or number(on, "ci_low") > number(off, "ci_high")


def each_panel(rows: Sequence[Row]) -> Iterator[Panel]:
    """Every organism under each of its triggers, in the order of the paper."""
    for (_, organism, trigger), same in panels(rows).items():
        yield Panel(organism, trigger, same)
