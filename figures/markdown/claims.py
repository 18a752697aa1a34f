"""Findings as a CSV and as a Markdown table."""

from collections.abc import Sequence

from figures.claims.claim import Finding
from figures.markdown.table import table
from interp.runs.files import csv_text


def findings_csv(findings: Sequence[Finding]) -> str:
    """Every finding with its number, interval, run and verdict, and whether the claim preceded its data."""
    return csv_text(
        {
            "statement": finding.statement,
            "about": finding.subject,
            **{c: (finding.row or {}).get(c, "") for c in ("value", "ci_low", "ci_high", "ci_method", "run_id")},
            "verdict": finding.verdict,
            "written": finding.written,
        }
        for finding in findings
    )


def findings_table(findings: Sequence[Finding]) -> str:
    """Every finding in Markdown, rates and effects in percent or points, ratios and indices as they are."""
    header = ["statement", "measured", "where", "verdict", "written", "run"]
    body = [
        [f.statement, f.evidence, f.subject, f.verdict, f.written, str((f.row or {}).get("run_id", "–"))]
        for f in findings
    ]
    return table(header, body, numbers=slice(1, 2))
