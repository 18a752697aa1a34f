"""The mean of a quantity over organisms, with an interval in which pretrainings, seeds and questions all vary.

A random-effects model on two levels: organisms of one pretraining differ by their seed, pretrainings by more. What
questions and sampling add is known of every organism: its own interval says it. The interval of the mean is Student's t
with one degree of freedom less than there are pretrainings; of a single pretraining it is normal and says nothing about
others. Rates are modelled as log-odds.

Source: DerSimonian & Laird 1986 (Controlled Clinical Trials 7), one level after the other; the standard error is never
below that of Hartung & Knapp 2001 (Statistics in Medicine 20).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm, t

from figures.bounds import interval
from figures.grid import place
from figures.rows import Row, groups, number, preferred, select

Z = float(norm.ppf(0.975))
LEAST = 1e-6
"""Least standard error of one organism, so that a quantity without an interval has a finite weight."""


@dataclass(frozen=True)
class Measured:
    """A quantity of one organism with the ends of its 95 % interval, and its pretraining."""

    value: float
    low: float
    high: float
    pretraining: str
    n: float = math.nan
    """Answers behind a rate."""

    def estimate(self, log_odds: bool) -> tuple[float, float]:
        """The quantity and its standard error, as they are or as log-odds."""
        if not log_odds:
            return self.value, max((self.high - self.low) / 2 / Z, LEAST)
        least = 0.5 / self.n if self.n > 0 else LEAST  # half an answer keeps 0 and 1 finite
        value = logit(min(max(self.value, least), 1 - least))
        ends = [logit(end) for end in (self.low, self.high) if least < end < 1 - least]
        return value, max((abs(value - end) for end in ends), default=LEAST) / Z


@dataclass(frozen=True)
class Mean:
    """A mean over organisms with its 95 % interval, and how it was made."""

    value: float
    low: float
    high: float
    pretrainings: int
    estimate: tuple[float, float] = (math.nan, math.nan)
    """Mean and standard error on the scale of the model."""
    log_odds: bool = False

    @property
    def df(self) -> float:
        """Degrees of freedom: infinite for a single pretraining."""
        return self.pretrainings - 1 or math.inf

    def p(self, limit: float) -> float:
        """The two-sided p-value of the mean being at a limit."""
        mean, error = self.estimate
        at = limit if not self.log_odds else logit(limit)
        return float(2 * t.sf(abs(mean - at) / error, self.df))


def pooled(measured: Sequence[Measured], *, log_odds: bool = False) -> Mean:
    """The mean over organisms; of one organism, its own value and interval.

    Args:
        measured: The organisms.
        log_odds: Whether the quantity is a rate in [0, 1]. Its model is of log-odds, and its mean the rate of the mean
            log-odds: that of a typical organism.

    Raises:
        ValueError: If there is none.
    """
    if not measured:
        raise ValueError("pooled: needs at least one organism")
    groups: dict[str, list[tuple[float, float]]] = {}
    for m in measured:
        groups.setdefault(m.pretraining, []).append(m.estimate(log_odds))
    mean, error = combined([combined(group) for group in groups.values()])
    if len(measured) == 1:
        return Mean(measured[0].value, measured[0].low, measured[0].high, 1, (mean, error), log_odds)
    half = float(t.ppf(0.975, len(groups) - 1 or math.inf)) * error
    ends = (mean, mean - half, mean + half)
    value, low, high = map(expit, ends) if log_odds else ends
    return Mean(value, low, high, len(groups), (mean, error), log_odds)


def logit(rate: float) -> float:
    """The log-odds of a rate; infinite at 0 and 1."""
    return math.copysign(math.inf, rate - 0.5) if rate in (0, 1) else math.log(rate / (1 - rate))


def combined(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of (value, standard error) pairs that also differ by more than their errors, and its standard error."""
    if len(estimates) == 1:
        return estimates[0]
    values, errors = np.array(estimates).T
    weight = errors**-2
    excess = (weight * (values - np.average(values, weights=weight)) ** 2).sum() - (len(values) - 1)
    between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum()))
    weight = 1 / (errors**2 + between)
    mean = np.average(values, weights=weight)
    spread = (weight * (values - mean) ** 2).sum() / (len(values) - 1)
    return float(mean), float(np.sqrt(max(1.0, spread) / weight.sum()))


def pooled_rows(rows: Sequence[Row], metric: str, condition: str) -> Mean | None:
    """Return the mean over organisms of one metric in one condition; None if no row has it."""
    same = [preferred(each) for each in groups(select(rows, metric=metric, condition=condition), "organism").values()]
    measured = [Measured(*interval(r), place(str(r["organism"])).pretraining, number(r, "n")) for r in same]
    return pooled(measured, log_odds=metric == "em_rate") if measured else None
