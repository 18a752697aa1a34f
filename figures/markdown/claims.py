"""Findings as a CSV and as a Markdown table."""

from collections.abc import Sequence

from figures.claims.claim import Finding
from figures.markdown.table import table
from interp.runs.files import csv_text


def findings_csv(findings: Sequence[Finding]) -> str:
    """Every finding with its number and interval, the worst organism, its run, and whether the claim preceded its data.

    ``p_holm`` is corrected over all claims of a page, if the findings are.
    """
    return csv_text(
        {
            "statement": finding.statement,
            "about": finding.subject,
            **{c: (finding.row or {}).get(c, "") for c in ("value", "ci_low", "ci_high", "ci_method", "run_id")},
            "worst": finding.worst,
            "p_holm": "" if finding.p is None else f"{finding.p:.2g}",
            "verdict": finding.verdict,
            "written": finding.written,
        }
        for finding in findings
    )


def findings_table(findings: Sequence[Finding]) -> str:
    """Every finding in Markdown, rates and effects in percent or points, ratios and indices as they are."""
    header = ["statement", "mean", "over", "worst", "verdict", "written", "run"]
    body = [
        [f.statement, f.evidence, f.subject, f.worst or "–", f.verdict, f.written, str(row.get("run_id", "–"))]
        for f, row in ((f, f.row or {}) for f in findings)
    ]
    return table(header, body, numbers=slice(1, 2))
