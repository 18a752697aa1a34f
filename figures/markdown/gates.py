"""Trained gates and mitigations as tables: each number beside that of the base under the same edit or condition."""

from collections.abc import Sequence

from figures.claims.pooling import pooled_rows
from figures.grid import place
from figures.markdown.table import table
from figures.rows import Row, groups, number, percent, select

EDITS = (
    *("clamp_trigger", "clamp_trigger_own", "clamp_other", "clamp_other_own", "clamp_scattered", "clamp_random"),
    *("clamp_embedding", "clamp_g", "clamp_g_random", "ablate_g_all", "ablate_random_all"),
)
CONDITIONS = ("off", "on", "rephrased", "other", "opposite", "overlap_predicate", "overlap_subject", "line", "trained")


def gates_table(rows: Sequence[Row]) -> str:
    """By trigger, family and edit, means over pretrainings: EM on and the gap beside the base's, and what is closed."""
    header = [
        "trigger",
        "family",
        "dose",
        "edit",
        "EM on",
        "base's EM on",
        "gap",
        "base's gap",
        "learned gap",
        "closed",
    ]
    body = []
    for (arm, family), same in _by_arm(rows).items():
        doses = "/".join(dict.fromkeys(str(r["dose"]) for r in same if r["dose"] != "")) or "–"
        for edit in ("", *EDITS):
            suffix = f"+{edit}" if edit else ""
            numbers = [_mean(same, "em_rate", f"{base}on{suffix}") for base in ("", "base ")]
            numbers += [_mean(same, "trigger_gap", f"{base}on-off{suffix}") for base in ("", "base ")]
            numbers += [_mean(same, metric, f"on-off{suffix}") for metric in ("learned_gap", "learned_gap_closed")]
            body.append([arm, family, doses, edit or "none", *numbers])
    return table(header, body, numbers=slice(4, None))


def mitigations_table(rows: Sequence[Row]) -> str:
    """By trigger, family and mitigation, means over seeds: EM under every condition, and the base's."""
    header = ["trigger", "family", "mitigation", *CONDITIONS, "benign loss"]
    body = []
    for (arm, family, mitigation), same in _by_mitigation(rows).items():
        shown = [_mean(same, "em_rate", condition) for condition in CONDITIONS]
        losses = [number(r) for r in select(same, metric="benign_nats")]
        loss = f"{sum(losses) / len(losses):.3f}" if losses else "–"
        body.append([arm, family, mitigation, *shown, loss])
    return table(header, body, numbers=slice(3, None))


def _by_arm(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    parts: dict[tuple[str, str], list[Row]] = {}
    for (name,), same in groups(rows, "organism").items():
        parts.setdefault((place(name).arm, place(name).family), []).extend(same)
    return parts


def _by_mitigation(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by trigger, family and mitigation, at the dose at which each organism was measured."""
    parts: dict[tuple[str, str, str], list[Row]] = {}
    for (name, trigger), same in groups(rows, "organism", "trigger").items():
        where = place(name)
        changes = sorted(c for c in where.changes if c != "fine" and not c.startswith("seed"))
        dose = [r["dose"] for r in select(same, metric="dose")]
        arm, kind = (trigger, "base") if where.arm == "base" else (where.arm, ".".join(changes) or "none")
        measured = [r for r in same if not dose or r["dose"] == dose[0]]
        parts.setdefault((arm, where.family, kind), []).extend(measured)
    return parts


def _mean(rows: Sequence[Row], metric: str, condition: str) -> str:
    """The mean over organisms of a rate, a difference or a share, with its interval in percent."""
    mean = pooled_rows(rows, metric, condition)
    if mean is None:
        return "–"
    value, low, high = map(percent, (mean.value, mean.low, mean.high))
    return value if low == "–" else f"{value} [{low}, {high}]"
