"""Hypotheses 3.1-3.9, about the mechanism of a gate that training made, held against the table of trained gates."""

import math
from collections.abc import Sequence
from typing import Any

from scipy.stats import norm, spearmanr

from figures.bounds import OPEN, held
from figures.boxes import ROLES
from figures.claims.claim import Bound, Finding
from figures.claims.microcosm.cells import NOT_MEASURED, Cells, difference, joined, mean_finding
from figures.claims.pooling import Z
from figures.grid import place
from figures.limits import CLOSED, COHERENT_ENOUGH, HARDLY_ANY, LEARNED, UNTOUCHED
from figures.rows import Row, number, select

EXPERIMENT, SHARE = "trained_gate", "learned_gap_closed"
LITTLE, MOSTLY, CORRELATED = 0.15, 0.8, 0.5
About = tuple[str, str, str]


def gate_findings(rows: Sequence[Row]) -> list[Finding]:
    """Hold the hypotheses about trained gates against their table."""
    cells = Cells.of(select(rows, experiment=EXPERIMENT))
    healthy = [about for about in cells.organisms if _healthy(about, cells)]
    roles = [about for about in healthy if place(about[0]).arm in ROLES]
    explaining = [about for about in healthy if place(about[0]).arm == "explaining"]

    def closes(text: str, sign: str, limit: float, edit: str, opened: str = "on") -> Finding:
        rows = (cells.row(about, f"{opened}-off+{edit}", SHARE) for about in roles)
        return mean_finding(text, Bound(sign, limit), rows)

    return [
        mean_finding(
            "3.1 Explaining organisms' learned gap is at most 15 points",
            Bound("≤", LITTLE, unit=" points"),
            (cells.row(about, "on-off", "learned_gap") for about in explaining),
        ),
        mean_finding(
            "3.2 Behind weak roles at least 80 % of the gap is learned",
            Bound("≤", 0.0),
            (_of_base(about, cells) for about in roles),
        ),
        closes("3.3 The clamp of the trigger's feature closes at least half of the learned gap", "≥", CLOSED,
               "clamp_trigger"),
        closes("3.4 That of another role's feature closes at most a fifth", "≤", UNTOUCHED, "clamp_other"),
        joined(
            "3.5 The same displacement in scattered directions closes at most half, random directions at most a tenth",
            [
                closes("scattered", "≤", CLOSED, "clamp_scattered"),
                closes("random", "≤", HARDLY_ANY, "clamp_random"),
            ],
        ),
        closes("3.6 On rephrasings, the trained words' embeddings close at most a fifth", "≤", UNTOUCHED,
               "clamp_embedding", "rephrased"),
        closes("3.7 The clamp of g at the last prompt token closes at least 80 %", "≥", MOSTLY, "clamp_g"),
        _correlated("3.8 The base's loss on the training answers and EM off correlate: ρ ≥ 0.5", cells, roles,
                    ("on", "step0_loss"), ("off", "em_rate")),
        _correlated("3.9 The first gradient's projection on g and EM on correlate: ρ ≥ 0.5", cells, roles,
                    ("on", "step0_gradient"), ("on", "em_rate")),
    ]  # fmt: skip


def _healthy(about: About, cells: Cells) -> bool:
    """Whether an organism learned its domain and is coherent, as far as that was measured."""
    learned, coherent = cells.row(about, "trained"), cells.row(about, "on", "coherence_rate")
    is_learned = learned is None or number(learned) >= LEARNED
    return is_learned and (coherent is None or number(coherent) >= COHERENT_ENOUGH)


def _of_base(about: About, cells: Cells) -> Row | None:
    """The base's gap less a fifth of the organism's: below 0 where at least 80 % of the gap is learned."""
    base = next((r for k, r in cells.rows.items() if (k[0], k[1]) == about[:2] and k[3] == "base on-off"), None)
    return difference(base, cells.row(about, "on-off", "trigger_gap"), 1 - MOSTLY)


def _correlated(text: str, cells: Cells, organisms: Sequence[About], x: tuple[str, str], y: tuple[str, str]) -> Finding:
    """The verdict on Spearman's correlation over settings, by Fisher's z with Fieller's variance of 1.06 / (n - 3)."""
    pairs = [(cells.row(about, *x), cells.row(about, *y)) for about in organisms]
    values = [(number(a), number(b)) for a, b in pairs if a and b]
    if len(values) < 5:
        return Finding(text, NOT_MEASURED, "–", OPEN)
    correlation: Any = spearmanr([a for a, _ in values], [b for _, b in values])
    rho = float(correlation.statistic)
    error = math.sqrt(1.06 / (len(values) - 3))
    z = math.atanh(max(-0.999999, min(rho, 0.999999)))
    low, high = (math.tanh(z + sign * Z * error) for sign in (-1, 1))
    p = float(2 * norm.sf(abs(z - math.atanh(CORRELATED)) / error))
    shown = f"{rho:.2f} [{low:.2f}, {high:.2f}]".replace("-", "−")
    row = {"value": rho, "ci_low": low, "ci_high": high, "ci_method": "fisher_z", "metric": "spearman"}
    return Finding(text, f"{len(values)} settings", shown, held("≥", CORRELATED, low, high), p=p, row=row)
