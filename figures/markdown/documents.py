"""What README and docs show: their tables, findings and pictures, from the tables in ``figures/data`` alone.

semcon findings --out figures/data/findings.csv --pages README.md docs --gallery figures/gallery
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from figures import style
from figures.audited import Audited, read_audit
from figures.bounds import OPEN
from figures.claims.audit import audit_hypotheses
from figures.claims.claim import Finding, corrected, hold, multiplicity
from figures.claims.microcosm.page import EXPERIMENTS, microcosm_hypotheses
from figures.claims.pocket import hypotheses
from figures.claims.pocket_again import hypotheses_again
from figures.claims.pocket_neighbours import hypotheses_of_neighbours
from figures.claims.registry import BEHAVIOUR, MECHANISM, claims
from figures.claims.selectors import Tables
from figures.grid import Grid
from figures.markdown.audit import audit_line, audit_section, audits_table, repairs_table
from figures.markdown.behaviour import comparison_table, front_table, headline_table, learned_table, seeds_table
from figures.markdown.claims import findings_csv, findings_table
from figures.markdown.dose import box_table
from figures.markdown.gates import gates_table, mitigations_table
from figures.markdown.mechanism import central_table, shift_table
from figures.markdown.pocket import preference_section, shifts_table
from figures.plots import FIGURES
from figures.rows import Row, select
from interp.runs.files import atomic_write_bytes, atomic_write_text
from interp.runs.table import read_table

LATER = ("pocket", "audit_repair", "audit_pocket", *EXPERIMENTS)
"""Tables of registered experiments that need not be there yet."""
TABLES = (*dict.fromkeys(f.table for f in FIGURES if f.table and f.table not in LATER), "pocket_permuted")
LATER_TABLES = {
    "boxes": ("dose_grid", box_table),
    "gates": ("trained_gate", gates_table),
    "mitigations": ("mitigation", mitigations_table),
    "audit-repairs": ("audit_repair", repairs_table),
    "audit-pocket": ("audit_pocket", partial(audits_table, category="harbor")),
}
"""Tables of README and docs that are made of these: name of the markers, table in figures/data, and writer."""
NOT_YET = "Not measured yet."
FAMILY = "llama"
"""Family of pictures that show single organisms."""


def read_tables(data: Path) -> dict[str, list[Row]]:
    """Read every table by its name.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If one is empty or malformed.
    """
    later = [name for name in LATER if (data / f"{name}.csv.gz").is_file()]
    return {name: list(read_table(data / f"{name}.csv.gz", rows_required=True)) for name in (*TABLES, *later)}


def audit_table(data: Path) -> list[Audited]:
    """Read the table of the audit's benchmark, which has columns of its own; empty if there is none.

    Raises:
        ValueError: If it is malformed.
    """
    path = data / "audit.csv.gz"
    return read_audit(path) if path.is_file() else []


def audit_texts(adapters: Sequence[Audited]) -> dict[str, str]:
    """The tables of the audit's benchmark and its hypotheses, by the name of their markers."""
    return {
        "audit": audit_section(adapters) if adapters else NOT_YET,
        "audit-line": audit_line(adapters) if adapters else NOT_YET,
        "audit-hypotheses": findings_table(audit_hypotheses(adapters)) if adapters else NOT_YET,
    }


def every_finding(tables: Mapping[str, Sequence[Row]]) -> tuple[list[Finding], list[Finding]]:
    """Hold the claims about the behaviour, and those about the mechanism, against the tables; corrected by page."""
    source = Tables.of([row for name, rows in tables.items() if not name.startswith("pocket") for row in rows])
    return corrected(hold(claims(BEHAVIOUR), source)), corrected(hold(claims(MECHANISM), source))


def texts(tables: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """The text of every table of README and docs, by the name of its markers."""
    about_behaviour, about_mechanism = every_finding(tables)
    grid = Grid.of(tables["containment_grid"])
    later = {n: make(tables[table]) if table in tables else NOT_YET for n, (table, make) in LATER_TABLES.items()}
    registered = microcosm_hypotheses(tables)
    return {
        **later,
        "microcosm-hypotheses": findings_table(registered),
        "microcosm-multiplicity": multiplicity(registered),
        "learned": learned_table(grid),
        "front": front_table(grid),
        "results": seeds_table(grid),
        "headline": headline_table(grid),
        "comparison": comparison_table(grid),
        "findings": findings_table([f for f in about_behaviour if not _axis_without_effect(f)]),
        "central": central_table(tables["mechanism"]),
        "shift": shift_table(tables["mechanism"], tables["geometry"]),
        "mechanism": findings_table(about_mechanism),
        "pocket": preference_section(tables["pocket"]) if "pocket" in tables else NOT_YET,
        "hypotheses": findings_table(_registered_again(tables["pocket"])) if "pocket" in tables else NOT_YET,
        "pocket-permuted": shifts_table(tables["pocket_permuted"]),
        "hypotheses-permuted": findings_table(hypotheses(tables["pocket_permuted"])),
        "findings-multiplicity": multiplicity(about_behaviour),
        "mechanism-multiplicity": multiplicity(about_mechanism),
    }


def _registered_again(rows: Sequence[Row]) -> list[Finding]:
    """Hold the second and the third registration of the pocket scale against its table."""
    return [*hypotheses_again(rows), *hypotheses_of_neighbours(rows)]


def _axis_without_effect(finding: Finding) -> bool:
    """Whether a finding is about an axis whose effect is not shown: those stand in findings.csv alone."""
    return finding.verdict == OPEN and finding.statement.startswith("Axis")


def write_findings(path: Path, tables: Mapping[str, Sequence[Row]], adapters: Sequence[Audited]) -> None:
    """Write every finding as CSV, those of the registered experiments too."""
    about_behaviour, about_mechanism = every_finding(tables)
    atomic_write_text(path, findings_csv([*about_behaviour, *about_mechanism, *registered(tables, adapters)]))


def registered(tables: Mapping[str, Sequence[Row]], adapters: Sequence[Audited]) -> list[Finding]:
    """Hold the hypotheses of the Microcosm's experiments, of the pocket scale and of the audit against their tables."""
    pocket = _registered_again(tables["pocket"]) if "pocket" in tables else []
    return [*microcosm_hypotheses(tables), *pocket, *(audit_hypotheses(adapters) if adapters else [])]


def draw_gallery(folder: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Draw every picture of the gallery as PNG; equal tables give equal bytes."""
    for figure in FIGURES:
        names = [f"microcosm/{FAMILY}/{arm}" for arm in figure.arms]
        for name, table in figure.pictures().items():
            if table in tables:
                rows = tables[table]
                drawn = figure.module().draw(select(rows, organism=names) if names else rows)
                atomic_write_bytes(folder / f"{name}.png", style.to_bytes(drawn, "png"))
