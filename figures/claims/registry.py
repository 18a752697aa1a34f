"""The claims about the committed tables, read from ``claims.csv``: one line per claim.

``{}`` in ``text`` stands for the bound. ``arms`` and ``condition`` may name several, separated by ``; ``; ``where``
gives values of further columns. ``limit`` is a number or a name in ``figures.limits``, for the cell in ``column``.
``written`` says whether text and bound were committed before the table that decides the claim. The rule that sets aside
organisms which fail the health gate was committed together with the data of the grid.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from figures import limits
from figures.bounds import COMPARE, OPEN
from figures.claims.claim import AFTER, BEFORE, Bound, Claim
from figures.claims.selectors import ABOVE_BASE, LEARNED, PLAIN, TAKE, Axes, Select, Tables, measured
from interp.runs.reading import read_csv

BEHAVIOUR, MECHANISM = "behaviour", "mechanism"


@cache
def claims(about: str) -> tuple[Claim[Tables], ...]:
    """The claims about the behaviour or the mechanism, in the order of the argument."""
    _, lines = read_csv(Path(__file__).with_name("claims.csv"))
    return tuple(_claim(cells, where) for where, cells in lines if cells["about"] == about)


def _claim(cells: Mapping[str, str], where: str) -> Claim[Tables]:
    if cells["direction"] not in COMPARE or cells["take"] not in TAKE or cells["written"] not in (BEFORE, AFTER):
        raise ValueError(f"{where}: unknown direction, take or written: {', '.join(cells.values())}")
    limit = getattr(limits, cells["limit"], None) or float(cells["limit"])
    plain = cells["metric"] in PLAIN or limit == 0
    unit = "" if plain else " points" if cells["take"] in (ABOVE_BASE, LEARNED) else " %"
    if cells["experiment"] == "axes":  # an effect that is not shown refutes nothing
        cases, bound = Axes(cells["condition"], cells["metric"]), Bound(cells["direction"], limit, "p", unit=unit)
        return Claim(cells["text"], cases, (bound,), cells["written"], each=True, otherwise=OPEN)
    equals = {"experiment": cells["experiment"], "metric": cells["metric"]}
    equals |= {"condition": _several(cells["condition"])} if cells["condition"] else {}
    equals |= {column: value for column, _, value in (pair.partition("=") for pair in _several(cells["where"]))}
    bound = Bound(cells["direction"], limit, column=cells["column"] or "value", unit=unit)
    cases = Select(_several(cells["arms"]), equals, cells["take"])
    return Claim(cells["text"], cases, (bound,), cells["written"], write=measured)


def _several(cell: str) -> list[str]:
    return cell.split("; ") if cell else []
