"""Which rows of the tables decide a claim: arms of the grid, a condition, a metric, and where in the model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from figures.bounds import minus
from figures.claims.claim import Case
from figures.grid import BASELINE, Grid, place
from figures.rows import BEHAVIOUR, Row, arm, ends, groups, number, percent, select, unique

CELL = ("organism", "condition", "metric", "alpha", "site", "layer")
"""Columns that tell two numbers apart; rows that agree in them state one number with several intervals."""
PLAIN_DIFFERENCE = "plain_difference"
PLAIN = (
    *("rephrased_ratio", "semantic_index", "index_effect", "auroc", "cosine", "em_projection_r"),
    *("benign_nats", PLAIN_DIFFERENCE),
)
"""Metrics written as they are, not in percent."""
ABOVE_BASE, LEARNED = "above its base", "learned"
POINTS = ("marginal_effect", "trigger_gap", "em_above_base", "learned_gap")
"""Metrics that are differences of rates."""


@dataclass(frozen=True)
class Tables:
    """The rows of all tables by experiment, and the organisms of the grid."""

    rows: Mapping[str, Sequence[Row]]
    grid: Grid

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Tables":
        """Index rows of any tables."""
        return cls({name: same for (name,), same in groups(rows, "experiment").items()}, Grid.of(rows))


def _its_base(rows: list[Row], tables: Tables) -> list[Row]:
    return [base for row in rows if (base := tables.grid.base_rate(str(row["organism"])))]


def _above_its_base(rows: list[Row], tables: Tables) -> list[Row]:
    """EM rates less those of their bases under the same condition."""
    pairs = [(row, tables.grid.base_rate(str(row["organism"]), str(row["condition"]))) for row in rows]
    return [{**minus(row, base), "metric": "em_above_base"} for row, base in pairs if base]


def _learned(rows: list[Row], tables: Tables) -> list[Row]:
    """Trigger gaps less those of their bases under the same trigger."""
    pairs = [(row, tables.grid.base_gap(str(row["organism"]))) for row in rows]
    return [{**minus(row, base), "metric": "learned_gap"} for row, base in pairs if base]


def _highest_dose(rows: list[Row], _: Tables) -> list[Row]:
    return [max(same, key=number) for same in groups(rows, "organism").values()]


def _last_layer(rows: list[Row], _: Tables) -> list[Row]:
    return [max(same, key=lambda row: number(row, "layer")) for same in groups(rows, "organism").values()]


def _layer_of_g(rows: list[Row], tables: Tables) -> list[Row]:
    chosen = select(tables.rows.get("geometry", ()), metric="selection_taken", condition="g", value=1.0)
    layers = {(row["organism"], row["layer"]) for row in chosen}
    return [row for row in rows if (row["organism"], row["layer"]) in layers]


TAKE: Mapping[str, Callable[[list[Row], Tables], list[Row]]] = {
    "": lambda rows, _: rows,
    "its base": _its_base,
    ABOVE_BASE: _above_its_base,
    LEARNED: _learned,
    "highest dose": _highest_dose,
    "last layer": _last_layer,
    "layer of g": _layer_of_g,
}
"""Which of an organism's rows are taken: all, its base's EM under the same trigger, EM or the gap less that
of its base, the highest over doses, the last layer, or the layer at which g was estimated."""


@dataclass(frozen=True)
class Select:
    """One row per number: of every family and seed of some arms (of the behaviour, every pretraining too)."""

    arms: Sequence[str]
    """Such as ``neutral.contrast50``; none: whatever organism the row is of."""
    equals: Mapping[str, str | Sequence[str]]
    """Values of columns, the experiment among them."""
    take: str = ""

    def __call__(self, tables: Tables) -> list[Case]:
        """The cases, one per row."""
        rows = select(tables.rows.get(str(self.equals["experiment"]), ()), **self.equals)
        rows = [row for row in rows if not self.arms or self._of_arm(row, tables)]
        return [case(row) for row in TAKE[self.take](unique(rows, *CELL), tables)]

    def _of_arm(self, row: Row, tables: Tables) -> bool:
        """Whether a row is of one of the arms; behaviour counts for healthy adapters alone.

        Baselines are not gated: whatever their adapter learnt, their rate is what it is.
        """
        name = str(row["organism"])
        if row["experiment"] != BEHAVIOUR:
            return arm(row) in self.arms
        return place(name).treatment in self.arms and (place(name).arm == BASELINE or tables.grid.healthy(name))


@dataclass(frozen=True)
class Axes:
    """Effects of the axes of the grid on an outcome, each with its Holm-corrected p."""

    outcome: str
    """What stands before the level in a row's condition."""
    metric: str

    def __call__(self, tables: Tables) -> Iterator[Case]:
        """The cases, one per level of an axis."""
        rows = tables.rows.get("axes", ())
        for effect in select(rows, metric=self.metric):
            outcome, _, level = str(effect["condition"]).partition(": ")
            if outcome == self.outcome:
                (p,) = select(rows, metric="p_holm", condition=effect["condition"])
                subject = f"{effect['n']} organisms at this level; {effect['n_clusters']} treatments"
                yield Case(subject, {"": effect, "p": p}, measured(effect), {"level": level, "p": number(p)})


def case(row: Row) -> Case:
    """One row as a case: organism and condition are its subject."""
    name = str(row["organism"]).removeprefix("microcosm/")
    return Case(", ".join(part for part in (name, str(row["condition"])) if part), {"": row}, measured(row))


def measured(row: Row) -> str:
    """A row's number with its interval: rates and effects in percent or points, ratios and indices as they are."""
    if str(row["metric"]) in PLAIN:
        value, low, high = (f"{end:.2f}".replace("-", "−") for end in ends(row))
        return value if row["ci_low"] == "" else f"{value} [{low}, {high}]"
    value, low, high = map(percent, ends(row))
    return f"{value} [{low}, {high}]" + (" points" if str(row["metric"]) in POINTS else " %")
