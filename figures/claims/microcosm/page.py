"""Every hypothesis of docs/hypotheses-microcosm.md with its verdict, in the order of the page."""

from collections.abc import Mapping, Sequence

from figures.claims.claim import Finding, corrected
from figures.claims.microcosm.dose import dose_findings
from figures.claims.microcosm.gates import gate_findings
from figures.claims.microcosm.mitigations import mitigation_findings
from figures.claims.microcosm.worlds import world_findings
from figures.rows import Row

EXPERIMENTS = {
    "dose_grid": dose_findings,
    "world_ablation": world_findings,
    "trained_gate": gate_findings,
    "mitigation": mitigation_findings,
}
"""Findings of each table, which need not be there: without it a hypothesis is open."""


def microcosm_hypotheses(tables: Mapping[str, Sequence[Row]]) -> list[Finding]:
    """Hold every hypothesis against its table; p-values are corrected over all of them."""
    return corrected([f for name, findings in EXPERIMENTS.items() for f in findings(tables.get(name, ()))])
