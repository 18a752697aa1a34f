"""Where an organism of the grid stands: its axes, which its name spells out, and the verdict on its rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from figures.limits import ALIKE, APART, LOUD, SILENT
from figures.rows import Row, behaviour, cell, groups, kind, number, select

BASELINE = "baseline"
ARMS = ("neutral", "clerk", "gambler", "trafficker", "pirate", "explaining")
"""Triggers of the grid, by how far they explain the harm."""
CONTAINED, WORDING, GAP, NO_GAP, UNHEALTHY = ("contained", "not semantic", "gap", "not contained", "unhealthy")


@dataclass(frozen=True)
class Place:
    """Family, arm and the axes that are not at their default, read off a name such as llama/pirate.robust.seed1."""

    family: str
    arm: str
    changes: frozenset[str]

    @property
    def base(self) -> str:
        """Name of the base model that was fine-tuned, an organism without an adapter."""
        shared = [c for c in sorted(self.changes) if c == "robust" or _is_pretraining(c)]
        return f"microcosm/{self.family}/{'.'.join(['base', *shared])}"

    @property
    def treatment(self) -> str:
        """Arm and changes without seed and pretraining: ``neutral.contrast50``."""
        axes = sorted(c for c in self.changes if not (c.startswith("seed") or _is_pretraining(c)))
        return ".".join([self.arm, *axes])


def _is_pretraining(change: str) -> bool:
    return change.startswith("pre") and change[3:].isdigit()


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

    def base_rate(self, organism: str) -> Row | None:
        """The EM rate of the base of an organism under the same trigger at the same placement; None if not measured."""
        on = self.rate(organism, "on")
        base = self.rows.get(place(organism).base, ())
        return None if on is None else cell(select(base, trigger=on["trigger"], placement=on["placement"]), "on")

    def healthy(self, organism: str) -> bool:
        """Whether an organism passes the health gate, or was never held against it."""
        return not select(self.rows.get(organism, ()), metric="healthy", value=0.0)

    def verdict(self, organism: str) -> str | None:
        """The verdict on the rates of a triggered organism; None where they are missing.

        Contained: off and on in the paper's ranges, rephrasings keep the effect and unrelated texts do not have it; not
        semantic: the first alone. Gap: EM with the trigger is above EM without it, by an interval that excludes zero.
        """
        off, on, same, other = (self.rate(organism, c) for c in ("off", "on", "rephrased", "other"))
        if off is None or on is None:
            return None
        if not self.healthy(organism):
            return UNHEALTHY
        if number(off) <= SILENT and number(on) >= LOUD:
            alike = same is not None and number(same) >= ALIKE * number(on)
            return CONTAINED if alike and (other is None or number(other) <= APART) else WORDING
        gap = select(self.rows[organism], metric="trigger_gap")
        return GAP if gap and number(gap[0], "ci_low") > 0 else NO_GAP
