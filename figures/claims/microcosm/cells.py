"""Rows of an experiment by organism, trigger, dose, condition and metric; sums of them, and verdicts on their means."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from figures.bounds import CONFIRMED, INCONCLUSIVE, OPEN, REFUTED, minus
from figures.claims.claim import Bound, Claim, Finding
from figures.claims.selectors import PLAIN, PLAIN_DIFFERENCE, case
from figures.grid import Place, place
from figures.rows import Row, groups, number, preferred

Key = tuple[str, str, str, str, str]
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Cells:
    """The preferred row of every number of one table."""

    rows: Mapping[Key, Row]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Cells":
        """Index the rows of a table."""
        parts = groups(rows, "organism", "trigger", "dose", "condition", "metric")
        return cls({key: preferred(same) for key, same in parts.items()})  # type: ignore[misc]

    @cached_property
    def organisms(self) -> list[tuple[str, str, str]]:
        """Name, trigger and dose of every organism that is no base, each once."""
        return list(dict.fromkeys(key[:3] for key in self.rows if place(key[0]).arm != "base"))

    def row(self, about: tuple[str, str, str], condition: str, metric: str = "em_rate") -> Row | None:
        """The row of an organism at a dose; None if it was not measured."""
        return self.rows.get((*about, condition, metric))

    def base(self, about: tuple[str, str, str], condition: str, metric: str = "em_rate") -> Row | None:
        """The row of an organism's base under the same trigger."""
        return self.rows.get((place(about[0]).base, about[1], "", condition, metric)) or self.rows.get(
            (place(about[0]).base, about[1], "0", condition, metric)
        )

    def like(self, about: tuple[str, str, str], change: Callable[[Place], Place]) -> list[tuple[str, str, str]]:
        """The organisms whose place is that of another one after a change."""
        wanted = change(place(about[0]))
        return [other for other in self.organisms if place(other[0]) == wanted]


def scaled(row: Row, factor: float) -> Row:
    """A row times a factor, with its interval."""
    low, high = sorted(factor * number(row, end) for end in ("ci_low", "ci_high"))
    return {**row, "value": factor * number(row), "ci_low": low, "ci_high": high}


def difference(a: Row | None, b: Row | None, share: float = 1.0) -> Row | None:
    """Row ``a`` less a share of row ``b``, in points if ``a`` is a rate; None if either was not measured."""
    if a is None or b is None:
        return None
    metric = PLAIN_DIFFERENCE if str(a["metric"]) in PLAIN else "learned_gap"
    return {**minus(a, b if share == 1 else scaled(b, share)), "metric": metric}


def total(a: Row | None, b: Row | None) -> Row | None:
    """The mean of two rows."""
    return None if a is None or b is None else minus(scaled(a, 0.5), scaled(b, -0.5))


def mean_finding(text: str, bound: Bound, rows: Iterable[Row | None]) -> Finding:
    """The verdict on the mean over organisms; of an organism with several rows its worst one counts."""
    there = [row for row in rows if row is not None]
    (finding,) = Claim(text, lambda _: [case(row) for row in there], (bound,), write=_shown).findings(None)
    return finding


def _shown(row: Row) -> str:
    return case(row).evidence


def joined(text: str, findings: Sequence[Finding]) -> Finding:
    """One finding out of several: confirmed by all, refuted by one; the row that decides is the first such one's."""
    verdicts = [finding.verdict for finding in findings]
    verdict = next((v for v in (OPEN, REFUTED, INCONCLUSIVE) if v in verdicts), CONFIRMED)
    verdict = REFUTED if REFUTED in verdicts else verdict
    decides = next((f for f in findings if f.verdict == verdict), findings[0])
    shown = "; ".join(dict.fromkeys(f"{f.statement}: {f.evidence}" for f in findings))
    if verdict == OPEN:
        return Finding(text, NOT_MEASURED, "–", OPEN)
    p = max((f.p for f in findings if f.p is not None), default=None) if verdict == CONFIRMED else decides.p
    return replace(decides, statement=text, evidence=shown, verdict=verdict, p=p)
