"""What a claim is, and the one place where its verdict is computed.

A claim is held against intervals, not points: confirmed if the interval lies on the bound's side, refuted if it lies on
the other, else inconclusive. A claim about several organisms is held against the interval of their mean
(``pooling.py``); the worst organism is shown beside it. A claim whose rows are missing is open.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from figures.bounds import BELOW, CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, held, interval
from figures.claims.pooling import Measured, pooled
from figures.grid import place
from figures.limits import SIGNIFICANT
from figures.rows import Row, ends, number
from interp.stats import holm

BEFORE, AFTER = "before data", "after data"
"""Whether the text and bound of a claim were committed before the table that decides it, or with it or later."""

RATES = ("em_rate", "em_rate_all", "coherence_rate", "legitimate_rate")
"""Metrics that are shares of answers."""

Source = TypeVar("Source")


@dataclass(frozen=True)
class Bound:
    """A limit for one number of a row."""

    direction: str
    """One of ``COMPARE``."""
    limit: float
    row: str = ""
    """Which of the rows of a case."""
    column: str = "value"
    """``value`` is held with its interval; any other column as it is."""
    unit: str = " %"
    """How the claim's text writes the limit."""

    def __str__(self) -> str:
        """The bound as text: ``≥ 12.2 %``."""
        return f"{self.direction} {self.limit * (100 if self.unit else 1):g}{self.unit}"

    def ends(self, row: Row) -> tuple[float, float, float]:
        """The number of a row and the ends of its interval."""
        if self.column == "value":
            return interval(row)
        value = number(row, self.column)
        return value, value, value

    def worst(self, cases: Sequence["Case"]) -> tuple["Case", str]:
        """The case whose value comes nearest to violating the bound, or violates it most; and which end that is."""
        end, name = (max, "highest") if self.direction in BELOW else (min, "lowest")
        return end(cases, key=lambda case: self.ends(case.rows[self.row] or {})[0]), name


@dataclass(frozen=True)
class Case:
    """The rows of one organism that a claim is held against."""

    subject: str
    rows: Mapping[str, Row | None]
    evidence: str
    words: Mapping[str, object] = field(default_factory=dict)
    """Values for further names in braces in the claim's text."""


@dataclass(frozen=True)
class Finding:
    """A claim held against rows: what was measured, and the verdict."""

    statement: str
    subject: str
    evidence: str
    verdict: str
    written: str = BEFORE
    lesson: str = ""
    worst: str = ""
    """Of several organisms, the one that is nearest to violating the bound, with its number."""
    p: float | None = field(default=None, compare=False)
    """Two-sided p-value of the mean being at the bound; after ``corrected``, Holm's over all claims of a page."""
    row: Row | None = field(default=None, compare=False)
    """The row that decides: of several organisms the worst one's, with the mean and its interval as its number."""


def number_text(row: Row) -> str:
    """A number with its interval, as it is."""
    value, low, high = (f"{end:.3g}" for end in ends(row))
    return value if low == "nan" else f"{value} [{low}, {high}]"


@dataclass(frozen=True)
class Claim(Generic[Source]):
    """A text, the rows that decide it, and the bounds that they must satisfy."""

    text: str
    """``{}`` stands for the first bound."""
    cases: Callable[[Source], Iterable[Case]]
    bounds: tuple[Bound, ...]
    written: str = BEFORE
    lesson: str = ""
    """What a refutation means, where that is not plain."""
    each: bool = False
    """Report every case by itself instead of the mean of all."""
    otherwise: str = REFUTED
    """Verdict where a bound fails."""
    write: Callable[[Row], str] = number_text
    """How the number of a row is written."""

    def verdict(self, case: Case) -> str:
        """The verdict on one case: confirmed by all bounds, or refuted by one."""
        verdicts = {self._held(bound, case.rows.get(bound.row)) for bound in self.bounds}
        if REFUTED in verdicts and OPEN not in verdicts:
            return self.otherwise
        return next((verdict for verdict in (OPEN, INCONCLUSIVE) if verdict in verdicts), CONFIRMED)

    @staticmethod
    def _held(bound: Bound, row: Row | None) -> str:
        return OPEN if row is None else held(bound.direction, bound.limit, *bound.ends(row)[1:])

    def findings(self, source: Source) -> list[Finding]:
        """Hold the claim against the rows of a table: one finding, or one per case."""
        cases = list(self.cases(source))
        if self.each:
            return [self._finding(case, case.subject, case.evidence, self.verdict(case)) for case in cases]
        if not cases:
            return [self._finding(Case("", {}, "–"), "not measured", "–", OPEN)]
        return [self._mean(cases)]

    def _mean(self, cases: Sequence[Case]) -> Finding:
        """Hold the claim against the mean over organisms, of each of which the worst case counts."""
        bound = self.bounds[0]
        of_organism: dict[str, list[Case]] = {}
        for i, case in enumerate(cases):
            of_organism.setdefault(str((case.rows[bound.row] or {}).get("organism", i)), []).append(case)
        rows = {name: bound.worst(same)[0].rows[bound.row] or {} for name, same in of_organism.items()}
        measured = [
            Measured(*bound.ends(r), place(name).pretraining or name, number(r, "n")) for name, r in rows.items()
        ]
        is_rate = all(str(r.get("metric", "")) in RATES for r in rows.values())
        worst, end = bound.worst(cases)
        if any(math.isnan(m.value) for m in measured):
            undefined = f"{worst.evidence} (undefined for some)"
            return self._finding(worst, self._several(cases, measured), undefined, REFUTED)
        mean = pooled(measured, log_odds=is_rate)
        low, high = (mean.low, mean.high) if bound.column == "value" else (mean.value, mean.value)
        row = {**(worst.rows[bound.row] or {}), bound.column: mean.value, "ci_low": mean.low, "ci_high": mean.high}
        if len(measured) > 1:
            row |= {"ci_method": "random_effects", "n": len(measured), "n_clusters": mean.pretrainings}
        shown = f"{end}: {worst.subject} {worst.evidence}" if len(cases) > 1 else ""
        verdict = held(bound.direction, bound.limit, low, high)
        finding = self._finding(worst, self._several(cases, measured), self.write(row), verdict)
        return replace(finding, worst=shown, p=mean.p(bound.limit), row=row)

    def _several(self, cases: Sequence[Case], measured: Sequence[Measured]) -> str:
        """Over how many organisms and pretrainings a mean is, and how many cases its bound holds for by themselves."""
        if len(measured) == 1:
            return cases[0].subject
        verdicts = [self.verdict(case) for case in cases]
        pretrainings = len({m.pretraining for m in measured})
        return (
            f"{len(measured)} organisms, {pretrainings} pretraining{'s' * (pretrainings > 1)}; by themselves "
            f"{verdicts.count(CONFIRMED)} for, {verdicts.count(REFUTED)} against"
        )

    def _finding(self, case: Case, subject: str, evidence: str, verdict: str) -> Finding:
        text, row = self.text.format(*self.bounds, **case.words), case.rows.get("")
        return Finding(text, subject, evidence, verdict, self.written, self.lesson, row=row)


def hold(claims: Iterable[Claim[Source]], source: Source) -> list[Finding]:
    """Hold claims against the rows of a table, in order."""
    return [finding for claim in claims for finding in claim.findings(source)]


def corrected(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of a page with Holm's p-values over all of them; verdicts stay those of the intervals.

    Findings without a p-value have none afterwards: those without rows, and effects of axes, which have a correction of
    their own.
    """
    with_p = [f for f in findings if f.p is not None and not math.isnan(f.p)]
    adjusted = iter(map(float, holm([f.p or 0.0 for f in with_p])))
    return [replace(f, p=next(adjusted)) if any(f is other for other in with_p) else f for f in findings]


def multiplicity(findings: Sequence[Finding]) -> str:
    """How many decided claims of a page stand after Holm's correction over all of them, as a sentence."""
    decided = [f for f in findings if f.p is not None and f.verdict in (CONFIRMED, REFUTED)]
    standing = [f for f in decided if (f.p or 0.0) <= SIGNIFICANT]
    total = sum(f.p is not None for f in findings)
    return (
        f"Verdicts are those of 95 % intervals. Of {total} claims here with an interval {len(decided)} are decided, "
        f"and {len(standing)} of these stand after Holm's correction over all {total}; `p_holm` in findings.csv."
    )
