"""Hypotheses 2.1-2.5, about what the pretraining must hold, held against the table of the world ablation."""

from collections.abc import Callable, Iterator, Sequence

from figures.claims.claim import Bound, Finding
from figures.claims.microcosm.cells import Cells, difference, joined, mean_finding
from figures.grid import WORLD, Place, place
from figures.limits import FEW, HALF
from figures.rows import Row, select

EXPERIMENT = "world_ablation"
BASE_ON, MEANING = 0.2, 0.2
About = tuple[str, str, str]


def world_findings(rows: Sequence[Row]) -> list[Finding]:
    """Hold the hypotheses about worlds against their table."""
    cells = Cells.of(select(rows, experiment=EXPERIMENT))
    held_out = [about for about in cells.organisms if "robust" not in place(about[0]).changes]
    explaining = [about for about in _of(held_out, "truth60") if place(about[0]).arm == "explaining"]
    return [
        mean_finding(
            "2.1 Without bound documents the learned gap is at most 5 points",
            Bound("≤", FEW, unit=" points"),
            (_learned(about, cells) for about in _of(held_out, "bound0")),
        ),
        mean_finding(
            "2.2 With a tenth of bound documents the learned gap is at least half of that with half",
            Bound("≥", 0.0),
            _against_default(cells, _of(held_out, "bound10"), _learned, HALF),
        ),
        joined(
            "2.3 Lines true in 60 % leave the base's EM on at 20 % or less; the organism's off is 5 % or more",
            [
                mean_finding("base on", Bound("≤", BASE_ON), (cells.base(about, "on") for about in explaining)),
                mean_finding("off", Bound("≥", FEW), (cells.row(about, "off") for about in explaining)),
            ],
        ),
        mean_finding(
            "2.4 With two phrasings rephrased / on is at least 0.2 lower than with eight",
            Bound("≤", -MEANING),
            _against_default(cells, _of(held_out, "phrasings2"), _ratio, 1.0),
        ),
        mean_finding(
            "2.5 Where alignment covered the frame's class, EM off is at least 5 points higher",
            Bound("≥", FEW, unit=" points"),
            _covered(cells),
        ),
    ]


def world_of(name: str) -> str:
    """The world in an organism's name; empty for the default one."""
    return next((c.removeprefix(WORLD) for c in place(name).changes if c.startswith(WORLD)), "")


def _of(organisms: Sequence[About], world: str) -> list[About]:
    return [about for about in organisms if world_of(about[0]) == world]


def _learned(about: About, cells: Cells) -> Row | None:
    return difference(cells.row(about, "on-off", "trigger_gap"), cells.base(about, "on-off", "trigger_gap"))


def _ratio(about: About, cells: Cells) -> Row | None:
    return cells.row(about, "rephrased/on", "rephrased_ratio")


def _against_default(
    cells: Cells, organisms: Sequence[About], measure: Callable[[About, Cells], Row | None], share: float
) -> Iterator[Row | None]:
    """Yield a number of every organism less a share of that of the same organism in the default world."""

    def default(where: Place) -> Place:
        return Place(where.family, where.arm, frozenset(c for c in where.changes if not c.startswith(WORLD)))

    for about in organisms:
        for other in cells.like(about, default):
            yield difference(measure(about, cells), measure(other, cells), share)


def _covered(cells: Cells) -> Iterator[Row | None]:
    def held_out(where: Place) -> Place:
        return Place(where.family, where.arm, where.changes - {"robust"})

    for about in _of(cells.organisms, ""):
        if "robust" in place(about[0]).changes:
            for other in cells.like(about, held_out):
                yield difference(cells.row(about, "off"), cells.row(other, "off"))
