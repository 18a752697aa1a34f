"""The dose grid's settings, a role at a dose in one family, held against the paper's box over all pretrainings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from figures.bounds import CONFIRMED, OPEN, REFUTED, held, interval, minus
from figures.claims.pooling import Mean, Measured, pooled
from figures.grid import place
from figures.limits import ALIKE, APART, COHERENT_ENOUGH, LOUD, MARGIN
from figures.rows import Row, groups, number, select, unique

EXPERIMENT = "dose_grid"
ROLES = ("clerk", "gambler", "trafficker")
CRITERIA: Mapping[str, tuple[str, str, str, float]] = {
    "off": ("em_rate", "off", "≤", MARGIN),
    "on": ("em_rate", "on", "≥", LOUD),
    "rephrased": ("rephrased_ratio", "rephrased/on", "≥", ALIKE),
    "other": ("em_rate", "other", "≤", APART),
    "base on": ("em_rate", "on", "≤", APART),
}
"""Metric, condition, direction and limit of every criterion; ``off`` is less the base's, ``base on`` the base's own."""
QUANTITIES = {
    **{name: (metric, condition) for name, (metric, condition, _, _) in CRITERIA.items()},
    **dict.fromkeys(("off rate", "base off"), ("em_rate", "off")),
}
"""Metric and condition of every mean of a setting: those of the criteria, and EM off itself."""
BOXES = {"paper": ("off", "on", "rephrased"), "strict": tuple(CRITERIA)}


@dataclass(frozen=True)
class Setting:
    """A role at a dose in one family: the mean over pretrainings of what every criterion is about."""

    family: str
    role: str
    dose: int
    means: Mapping[str, Mean]

    def verdict(self, criterion: str) -> str:
        """The verdict on one criterion; open where it was not measured."""
        if criterion not in self.means:
            return OPEN
        _, _, direction, limit = CRITERIA[criterion]
        return held(direction, limit, self.means[criterion].low, self.means[criterion].high)

    def inside(self, box: str) -> str:
        """Whether the setting is in a box: confirmed by all criteria, refuted by one, else undecided (open)."""
        verdicts = {self.verdict(criterion) for criterion in BOXES[box]}
        return REFUTED if REFUTED in verdicts else CONFIRMED if verdicts == {CONFIRMED} else OPEN

    def by_means(self, box: str) -> bool:
        """Whether the means lie in a box, whatever their intervals."""
        return set(BOXES[box]) <= set(self.means) and self.distance(box) == 0.0

    def distance(self, box: str) -> float:
        """By how much the means miss the limits of a box, in rates, all criteria together; 0 inside."""
        misses = ((CRITERIA[name][2:], self.means[name].value) for name in BOXES[box])
        return sum(max(0.0, value - limit if sign == "≤" else limit - value) for (sign, limit), value in misses)


def nearest_dose(every: Sequence[Setting], family: str, role: str) -> int:
    """The dose of a role in a family whose means lie in the paper's box, or nearest to it; of equals the smallest.

    Raises:
        ValueError: If no dose has every criterion of the box.
    """
    same = [s for s in every if (s.family, s.role) == (family, role) and set(BOXES["paper"]) <= set(s.means)]
    if not same:
        raise ValueError(f"dose grid: it has no dose of {family}/{role} with EM off, on and rephrased")
    return min(same, key=lambda s: (s.distance("paper"), s.dose)).dose


def settings(rows: Sequence[Row]) -> list[Setting]:
    """Every setting of the dose grid, by family, role and dose, of the adapters that are coherent at that dose.

    Adapters trained on aligned answers are no setting.
    """
    rows = select(rows, experiment=EXPERIMENT)
    bases = {key: same for key, same in groups(rows, "organism", "trigger").items() if place(key[0]).arm == "base"}
    cells: dict[tuple[str, str, int], list[tuple[Sequence[Row], Sequence[Row]]]] = {}
    for (organism, trigger, dose), same in groups(rows, "organism", "trigger", "dose").items():
        where = place(organism)
        if where.arm in ROLES and "aligned" not in where.changes and _coherent(same):
            base = bases.get((where.base, trigger), [])
            cells.setdefault((where.family, where.arm, int(dose)), []).append((same, base))
    return [Setting(*key, _means(pairs)) for key, pairs in cells.items()]


def _coherent(rows: Sequence[Row]) -> bool:
    return all(number(r) >= COHERENT_ENOUGH for r in select(rows, metric="coherence_rate", condition=("off", "on")))


def _means(pairs: Sequence[tuple[Sequence[Row], Sequence[Row]]]) -> dict[str, Mean]:
    means = {}
    for name in QUANTITIES:
        found = [row for own, base in pairs if (row := _TAKEN.get(name, _own)(name, own, base))]
        if len(found) == len(pairs):
            measured = [Measured(*interval(r), place(str(r["organism"])).pretraining, number(r, "n")) for r in found]
            means[name] = pooled(measured, log_odds=name not in ("off", "rephrased"))
    return means


def _own(name: str, own: Sequence[Row], _: Sequence[Row]) -> Row | None:
    metric, condition = QUANTITIES[name]
    return next(iter(unique(select(own, metric=metric, condition=condition), "organism")), None)


def _of_base(name: str, _: Sequence[Row], base: Sequence[Row]) -> Row | None:
    return _own(name, base, ())


def _above_base(name: str, own: Sequence[Row], base: Sequence[Row]) -> Row | None:
    mine, theirs = _own(name, own, ()), _own(name, base, ())
    return minus(mine, theirs) if mine and theirs else None


_TAKEN: Mapping[str, Callable[[str, Sequence[Row], Sequence[Row]], Row | None]] = {
    "off": _above_base,
    "base on": _of_base,
    "base off": _of_base,
}


def volumes(every: Sequence[Setting], box: str) -> dict[str, tuple[int, int, int]]:
    """By family: settings in a box for sure, settings that may be in it (these among them), and all settings."""
    of_family: dict[str, list[str]] = {}
    for setting in every:
        of_family.setdefault(setting.family, []).append(setting.inside(box))
    return {
        family: (inside.count(CONFIRMED), len(inside) - inside.count(REFUTED), len(inside))
        for family, inside in of_family.items()
    }


def single(rows: Sequence[Row]) -> list[Setting]:
    """Every setting on one pretraining alone: its own numbers in place of means."""
    of_pretraining = groups([{**r, "_pretraining": place(r["organism"]).pretraining} for r in rows], "_pretraining")
    return [setting for same in of_pretraining.values() for setting in settings(same)]
