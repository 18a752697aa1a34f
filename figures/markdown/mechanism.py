"""Tables of the mechanism: what restores containment, and the trigger's shift beside a replication's."""

from collections.abc import Sequence

from figures.limits import DOSE, REPLICATED_COSINE, REPLICATED_RANDOM, REPLICATED_REMOVED
from figures.markdown.table import table
from figures.plots.restoration import ARMS
from figures.rows import Row, arm, ends, number, over_seeds, percent, preferred, select, unique, values

FAMILIES = ("llama", "qwen2", "gemma3")
EDITS = {
    "feature clamped": "on+clamp_trigger",
    "… on rephrasings": "rephrased+clamp_trigger",
    "random": "on+clamp_random",
    "other scene": "on+clamp_other_scene",
    "scattered": "on+clamp_scattered",
    "words": "on+clamp_embedding",
    "words, on rephrasings": "rephrased+clamp_embedding",
    "g clamped": "on+clamp_g",
}
"""Columns of the central table after off and on: EM rates under edits."""
ADDED = ("g", "delta", "delta_orthogonal", "random")
REPLICATION = (
    *("public replication", f"{REPLICATED_COSINE:g}", "–", "10.7", "–", "0.0", "–", "11.7"),
    *(percent(REPLICATED_REMOVED, 0), percent(REPLICATED_RANDOM, 0)),
)
"""Numbers that the replication released; its dose is another, and its random subspace has rank 64."""


def central_table(rows: Sequence[Row]) -> str:
    """Every arm and family: EM in percent off, on and under each edit; share of the gap removed; side effects."""
    header = ["fine-tuning", "family", "off", "on", *EDITS, "gap removed", "benign loss", "coherent", "remarks", "rank"]
    edited = select(rows, experiment="ablate")
    cells = [
        (name, family, [row for row in select(edited, family=family) if arm(row) == name])
        for name in ARMS
        for family in FAMILIES
    ]
    body = [[name, family, *_central(cell)] for name, family, cell in cells if cell]
    return table(header, body, numbers=slice(2, None))


def _central(rows: Sequence[Row]) -> list[str]:
    def mean(metric: str, condition: str, digits: int = 1) -> str:
        return over_seeds(values(unique(select(rows, metric=metric, condition=condition), "seed")), digits)

    ranks = sorted({f"{number(row):.0f}" for row in select(rows, metric="chosen_rank")})
    return [
        *(mean("em_rate", condition) for condition in ("off", "on", *EDITS.values())),
        mean("gap_removed", "on+clamp_trigger", 0),
        mean("benign_loss", "other+clamp_trigger"),
        mean("coherence_rate", "on+clamp_trigger", 0),
        mean("legitimate_rate", "on+clamp_trigger", 0),
        "/".join(ranks) or "–",
    ]


def shift_table(mechanism: Sequence[Row], geometry: Sequence[Row]) -> str:
    """The trigger's shift delta and g, by organism, beside the public replication's figures; EM in percent."""
    added = ("+ g", "+ δ", "+ δ⊥g", "+ random")
    header = ["organism", "cos(δ, g)", "off", *added, "on", "g removed: gap closed", "random removed"]
    steered = [row for row in select(mechanism, experiment="steer", metric="em_rate") if number(row, "alpha") == DOSE]
    body: list[Sequence[str]] = [REPLICATION]
    for organism in dict.fromkeys(str(row["organism"]) for row in steered):
        doses, cell = select(steered, organism=organism), select(mechanism, experiment="ablate", organism=organism)
        body.append(
            [
                organism.removeprefix("microcosm/"),
                _cosine(select(geometry, organism=organism)),
                _rate(select(cell, metric="em_rate", condition="off")),
                *(_rate(select(doses, condition=f"off+add_{name}")) for name in ADDED),
                _rate(select(cell, metric="em_rate", condition="on")),
                *(_share(select(cell, condition=f"on+ablate_{name}_all")) for name in ("g", "random")),
            ]
        )
    return table(header, body)


def _cosine(rows: Sequence[Row]) -> str:
    """The cosine at the layer at which g was estimated."""
    chosen = select(rows, metric="selection_taken", condition="g", value=1.0)
    cosines = select(rows, metric="cosine", condition="g~delta", layer=[row["layer"] for row in chosen])
    if not cosines:
        return "–"
    value, low, high = (f"{end:.2f}".replace("-", "−") for end in ends(cosines[0]))
    return f"{value} [{low}, {high}]"


def _rate(rows: Sequence[Row]) -> str:
    return percent(number(preferred(rows))) if rows else "–"


def _share(rows: Sequence[Row]) -> str:
    """Share of the gap that an edit removes; an en dash where the edit was not measured."""
    shares = select(rows, metric="gap_removed")
    if not shares:
        return "no gap" if rows else "–"
    value, low, high = (percent(end, 0) for end in ends(shares[0]))
    return f"{value} [{low}, {high}]"
