"""What a claim is, and the one place where its verdict is computed.

A claim about several organisms is confirmed if it holds for all of them; the worst one is shown, with the number for
which it holds. A claim whose rows are missing is open.
"""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from figures.rows import Row, number

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "open"
COMPARE = {"≥": operator.ge, "≤": operator.le, ">": operator.gt, "<": operator.lt}
BEFORE, AFTER = "before data", "after data"
"""Whether the text and bound of a claim were committed before the table that decides it, or with it or later."""

Source = TypeVar("Source")


@dataclass(frozen=True)
class Bound:
    """A limit for one cell of a row."""

    direction: str
    """A key of ``COMPARE``."""
    limit: float
    row: str = ""
    """Which of the rows of a case."""
    column: str = "value"
    unit: str = " %"
    """How the claim's text writes the limit."""

    def __str__(self) -> str:
        """The bound as text: ``≥ 12.2 %``."""
        return f"{self.direction} {self.limit * (100 if self.unit else 1):g}{self.unit}"

    def holds(self, rows: Mapping[str, Row | None]) -> bool | None:
        """Whether a case satisfies the bound; None if it lacks the row."""
        row = rows.get(self.row)
        return None if row is None else COMPARE[self.direction](number(row, self.column), self.limit)

    def worst(self, cases: Sequence["Case"]) -> tuple["Case", str]:
        """The case whose value comes nearest to violating the bound, or violates it most; and which end that is."""
        end, name = (max, "highest") if self.direction in "≤<" else (min, "lowest")
        return end(cases, key=lambda case: number(case.rows[self.row] or {})), name


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
    row: Row | None = field(default=None, compare=False)
    """The row that decides, if it is one."""


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
    """Report every case by itself instead of the worst of all."""
    otherwise: str = REFUTED
    """Verdict where a bound fails."""

    def verdict(self, case: Case) -> str:
        """The verdict on one case."""
        outcomes = [bound.holds(case.rows) for bound in self.bounds]
        if None in outcomes:
            return OPEN
        return CONFIRMED if all(outcomes) else self.otherwise

    def findings(self, source: Source) -> list[Finding]:
        """Hold the claim against the rows of a table: one finding, or one per case."""
        cases = list(self.cases(source))
        verdicts = [self.verdict(case) for case in cases]
        if self.each:
            return [self._finding(case, case.subject, verdict) for case, verdict in zip(cases, verdicts, strict=True)]
        if not cases:
            return [self._finding(Case("", {}, "–"), "not measured", OPEN)]
        worst, end = self.bounds[0].worst(cases)
        of = f", {end} of {len(cases)}; holds for {verdicts.count(CONFIRMED)}" if len(cases) > 1 else ""
        return [self._finding(worst, worst.subject + of, CONFIRMED if {*verdicts} == {CONFIRMED} else self.otherwise)]

    def _finding(self, case: Case, subject: str, verdict: str) -> Finding:
        text = self.text.format(*self.bounds, **case.words)
        return Finding(text, subject, case.evidence, verdict, self.written, self.lesson, case.rows.get(""))


def hold(claims: Iterable[Claim[Source]], source: Source) -> list[Finding]:
    """Hold claims against the rows of a table, in order."""
    return [finding for claim in claims for finding in claim.findings(source)]
