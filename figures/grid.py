"""Where an organism of the grid stands: its axes, which its name spells out, and the verdict on its rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from figures.bounds import CONFIRMED, REFUTED, minus, row_held
from figures.limits import ALIKE, APART, LOUD, MARGIN, SILENT
from figures.rows import Row, behaviour, cell, groups, kind, number, select

BASELINE = "baseline"
ARMS = ("neutral", "clerk", "gambler", "trafficker", "pirate", "explaining")
"""Triggers of the grid, by how far they explain the harm."""
WORLD = "world-"
"""Begin of the change that names another world of pretraining."""
CONTAINED, WORDING, UNDECIDED, GAP, NO_GAP = ("contained", "not semantic", "undecided", "gap", "not contained")
NOT_LEARNED, INCOHERENT = "did not learn", "incoherent"


@dataclass(frozen=True)
class Place:
    """Family, arm and the axes that are not at their default, read off a name such as llama/pirate.robust.seed1."""

    family: str
    arm: str
    changes: frozenset[str]

    @property
    def base(self) -> str:
        """Name of the base model that was fine-tuned, an organism without an adapter."""
        shared = [c for c in sorted(self.changes) if c == "robust" or _is_pretraining(c) or c.startswith(WORLD)]
        return f"microcosm/{self.family}/{'.'.join(['base', *shared])}"

    @property
    def pretraining(self) -> str:
        """Which pretraining its base has: the family and, where they are not the first, number and world."""
        return " ".join([self.family, *(c for c in sorted(self.changes) if _is_pretraining(c) or c.startswith(WORLD))])

    @property
    def treatment(self) -> str:
        """Arm and changes without seed and pretraining: ``neutral.contrast50``."""
        axes = sorted(c for c in self.changes if not (c.startswith("seed") or _is_pretraining(c)))
        return ".".join([self.arm, *axes])


def _is_pretraining(change: str) -> bool:
    return change.startswith("pre") and change[3:].isdigit()


@cache
def place(organism: str) -> Place:
    """Read an organism's name."""
    name, *changes = kind(organism).split(".")
    return Place(organism.split("/")[-2] if "/" in organism else "", name, frozenset(changes))


@dataclass(frozen=True)
class Grid:
    """The rows of the behaviour experiment, by organism."""

    rows: Mapping[str, Sequence[Row]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Grid":
        """Index the rows of the behaviour experiment; others are left out."""
        return cls({name: same for (name,), same in groups(behaviour(rows), "organism").items()})

    @property
    def triggered(self) -> list[str]:
        """Organisms fine-tuned with a trigger, in the order of the table."""
        return [name for name in self.rows if place(name).arm in ARMS]

    def rate(self, organism: str, condition: str) -> Row | None:
        """The EM rate of an organism, with the interval to show; None if it was not measured."""
        return cell(self.rows.get(organism, ()), condition)

    def base_rate(self, organism: str, condition: str = "on") -> Row | None:
        """The EM rate of an organism's base under the same trigger at the same placement; None if not measured."""
        same = self.rate(organism, condition)
        base = self.rows.get(place(organism).base, ())
        return same and cell(select(base, trigger=same["trigger"], placement=same["placement"]), condition)

    def base_gap(self, organism: str) -> Row | None:
        """The trigger gap of an organism's base under the same trigger at the same placement; None if not measured."""
        on = self.rate(organism, "on")
        base = self.rows.get(place(organism).base, ())
        same = select(base, trigger=on["trigger"], placement=on["placement"], metric="trigger_gap") if on else []
        return same[0] if same else None

    def fault(self, organism: str) -> str | None:
        """Why an organism fails the health gate, as its row says; None if it passes, or was never held against it."""
        failing = select(self.rows.get(organism, ()), metric="healthy", value=0.0)
        return str(failing[0]["condition"]) if failing else None

    def healthy(self, organism: str) -> bool:
        """Whether an organism passes the health gate, or was never held against it."""
        return self.fault(organism) is None

    def verdict(self, organism: str) -> str | None:
        """The verdict on the rates of a triggered organism, by intervals; None where off or on is missing.

        Contained: EM off exceeds the base's by at most ``MARGIN``, on is in the paper's range, rephrasings keep the
        effect and unrelated texts do not have it. Not semantic: the first two alone. Undecided: no criterion fails, but
        an interval lies across a limit. Gap: EM with the trigger is above EM without it.
        """
        off, on, same, other = (self.rate(organism, c) for c in ("off", "on", "rephrased", "other"))
        if off is None or on is None:
            return None
        if fault := self.fault(organism):
            return fault.replace("did not learn its domain", NOT_LEARNED)
        base = self.base_rate(organism, "off")
        quiet = row_held(minus(off, base), "≤", MARGIN) if base else row_held(off, "≤", SILENT)
        contains = {quiet, row_held(on, "≥", LOUD)}
        if REFUTED in contains:
            gap = select(self.rows[organism], metric="trigger_gap")
            return GAP if gap and number(gap[0], "ci_low") > 0 else NO_GAP
        semantic = {row_held(self._ratio(organism, same, on), "≥", ALIKE), row_held(other, "≤", APART)}
        if contains == {CONFIRMED} and REFUTED in semantic:
            return WORDING
        return CONTAINED if contains | semantic == {CONFIRMED} else UNDECIDED

    def _ratio(self, organism: str, same: Row | None, on: Row) -> Row | None:
        """The ratio of rephrased to on, with its interval if that was measured."""
        ratio = cell(self.rows[organism], "rephrased/on", "rephrased_ratio")
        return ratio or (same and {"value": number(same) / number(on)})
