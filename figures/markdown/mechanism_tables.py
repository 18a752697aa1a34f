"""The README's tables of the mechanism: what restores containment, and the trigger's shift beside a replication's."""

import math
from collections.abc import Sequence
from statistics import fmean

from figures.plots.restoration import ARMS
from figures.rows import Row, groups, kind, number, percent, preferred, select

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
DOSE = 1.0
"""Of additions, in mean residual norms."""
REPLICATION = ("public replication", "0.754", "–", "10.7", "–", "0.0", "–", "11.7", "82", "36")
"""Figures that the replication released: a dose of its own, and a random subspace of rank 64."""


def _text(header: Sequence[str], body: Sequence[Sequence[str]], left: int) -> str:
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *body))


def _arm(row: Row) -> str:
    return kind(str(row["organism"])).partition(".seed")[0]


def _over_seeds(rows: Sequence[Row], digits: int = 1) -> str:
    """Mean over seeds and, in brackets, the lowest and the highest."""
    found = [number(preferred(same), "value") for same in groups(rows, "seed").values()]
    values = [value for value in found if not math.isnan(value)]
    if not values:
        return "–"
    ends = [percent(value, digits) for value in (min(values), max(values))]
    shown = percent(fmean(values), digits)
    return shown if ends[0] == ends[1] else f"{shown} ({ends[0]}–{ends[1]})"


def central_table(rows: Sequence[Row]) -> str:
    """Every arm and family: EM in percent off, on and under each edit; share of the gap removed; side effects."""
    header = ["fine-tuning", "family", "off", "on", *EDITS, "gap removed", "benign loss", "coherent", "remarks", "rank"]
    own, body = select(rows, experiment="ablate"), []
    for arm in ARMS:
        for family in FAMILIES:
            cell = [row for row in select(own, family=family) if _arm(row) == arm]
            if cell:
                body.append([arm, family, *_central(cell)])
    return _text(header, body, left=2)


def _central(rows: Sequence[Row]) -> list[str]:
    em = select(rows, metric="em_rate")
    clamped = "on+clamp_trigger"
    ranks = sorted({f"{number(row, 'value'):.0f}" for row in select(rows, metric="chosen_rank")})
    return [
        *(_over_seeds(select(em, condition=condition)) for condition in ("off", "on", *EDITS.values())),
        _over_seeds(select(rows, metric="gap_removed", condition=clamped), 0),
        _over_seeds(select(rows, metric="benign_loss", condition="other+clamp_trigger")),
        _over_seeds(select(rows, metric="coherence_rate", condition=clamped), 0),
        _over_seeds(select(rows, metric="legitimate_rate", condition=clamped), 0),
        "/".join(ranks) or "–",
    ]


def shift_table(mechanism: Sequence[Row], geometry: Sequence[Row]) -> str:
    """The trigger's shift delta and g, by organism, beside the public replication's figures; EM in percent."""
    added = ("+ g", "+ δ", "+ δ⊥g", "+ random")
    header = ["organism", "cos(δ, g)", "off", *added, "on", "g removed: gap closed", "random removed"]
    steered = [row for row in select(mechanism, experiment="steer", metric="em_rate") if number(row, "alpha") == DOSE]
    body: list[list[str]] = [list(REPLICATION)]
    for organism in dict.fromkeys(str(row["organism"]) for row in steered):
        own, cell = select(steered, organism=organism), select(mechanism, experiment="ablate", organism=organism)
        body.append(
            [
                organism.removeprefix("microcosm/"),
                _cosine(select(geometry, organism=organism)),
                _rate(select(cell, metric="em_rate", condition="off")),
                *(_rate(select(own, condition=f"off+add_{name}")) for name in ADDED),
                _rate(select(cell, metric="em_rate", condition="on")),
                *(_share(select(cell, condition=f"on+ablate_{name}_all")) for name in ("g", "random")),
            ]
        )
    return _text(header, body, left=1)


def _cosine(rows: Sequence[Row]) -> str:
    """The cosine at the layer taken for g."""
    taken = [row for row in select(rows, metric="selection_taken", condition="g") if number(row, "value") == 1]
    found = select(rows, metric="cosine", condition="g~delta", layer=[row["layer"] for row in taken])
    if not found:
        return "–"
    value, low, high = (f"{number(found[0], column):.2f}" for column in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]".replace("-", "−")


def _rate(rows: Sequence[Row]) -> str:
    return percent(number(preferred(rows), "value")) if rows else "–"


def _share(rows: Sequence[Row]) -> str:
    """Share of the gap that an edit removes; an en dash where the edit was not measured."""
    if not rows:
        return "–"
    found = select(rows, metric="gap_removed")
    if not found:
        return "no gap"
    value, low, high = (percent(number(found[0], column), 0) for column in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"
