"""Intervals against limits, and the interval of a difference: what every verdict is made of."""

import math

from figures.rows import Row, ends

CONFIRMED, REFUTED, INCONCLUSIVE, OPEN = "confirmed", "refuted", "inconclusive", "open"
BELOW, ABOVE = ("≤", "<"), ("≥", ">")
COMPARE = (*BELOW, *ABOVE)


def held(direction: str, limit: float, low: float, high: float) -> str:
    """The verdict on an interval: on its side of the limit, on the other, or across it; refuted if there is none."""
    if math.isnan(low) or math.isnan(high):
        return REFUTED
    if direction in BELOW:
        low, high, limit = -high, -low, -limit
    strict = direction in "<>"
    if low > limit or (low == limit and not strict):
        return CONFIRMED
    return REFUTED if high < limit or (high == limit and strict) else INCONCLUSIVE


def row_held(row: Row | None, direction: str, limit: float) -> str:
    """The verdict on a row's interval; open without the row."""
    return OPEN if row is None else held(direction, limit, *interval(row)[1:])


def interval(row: Row) -> tuple[float, float, float]:
    """The value of a row and the ends of its interval; the value itself where it has none."""
    value, low, high = ends(row)
    return (value, value, value) if math.isnan(low) or math.isnan(high) else (value, low, high)


def minus(a: Row, b: Row) -> Row:
    """Row ``a`` with its value less that of ``b``, and the interval of the difference from the two rows' own.

    Not paired: it does not use that both rates are over the same questions, so it is rather too wide.

    Source: MOVER, Zou & Donner 2008 (Statistics in Medicine 27).
    """
    (x, x_low, x_high), (y, y_low, y_high) = interval(a), interval(b)
    low = x - y - math.hypot(x - x_low, y_high - y)
    high = x - y + math.hypot(x_high - x, y - y_low)
    return {**a, "value": x - y, "ci_low": low, "ci_high": high, "ci_method": "mover"}
