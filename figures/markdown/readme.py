"""What the README shows: its tables, its findings and its pictures, from the tables in ``figures/data`` alone.

semcon findings --data figures/data --readme README.md --gallery figures/gallery
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from figures import style
from figures.claims.grid_claims import OPEN, Claim, claims, findings_csv, findings_table
from figures.claims.mechanism_claims import mechanism_claims
from figures.markdown.headline import comparison_table, headline_table, seeds_table
from figures.markdown.mechanism_tables import central_table, shift_table
from figures.rows import Row, renew, select
from interp.runs.files import atomic_write_bytes, atomic_write_text
from interp.runs.table import read_table

GRID = ("containment_grid", "emergence")
MECHANISM = ("mechanism", "geometry", "probes", "patching")
PICTURES: Mapping[str, str] = {
    "phase_diagram": "containment_grid",
    "grid_effects": "containment_grid",
    "emergence": "emergence",
    "restoration": "mechanism",
    "dose_response": "mechanism",
    "geometry": "geometry",
    "probe_map": "probes",
    "patching": "patching",
}
"""Figure modules of the gallery and the table that each is drawn from."""
ARMS = ("explaining", "neutral", "neutral.contrast50")
SHOWN: Mapping[str, Sequence[str]] = {"dose_response": ARMS, "geometry": ARMS, "probe_map": ARMS[:1]}
"""Figures with a panel an organism: the gallery shows these arms of the first family."""
FAMILY = "llama"
TABLES = (*GRID, *MECHANISM)


def read_tables(data: Path) -> dict[str, list[Row]]:
    """Read every table by its name.

    Raises:
        ValueError: If one is missing or malformed.
    """
    return {name: list(read_table(data / f"{name}.csv.gz", rows_required=True)) for name in TABLES}


def every_claim(tables: Mapping[str, Sequence[Row]]) -> tuple[list[Claim], list[Claim]]:
    """Return the claims about the behaviour, and those about the mechanism."""
    behaviour, mechanism = ([row for name in names for row in tables[name]] for names in (GRID, MECHANISM))
    return claims(behaviour), mechanism_claims(mechanism)


def renew_readme(readme: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Renew the tables between a README's markers.

    Raises:
        ValueError: If it does not hold each marker once.
    """
    behaviour, mechanism = every_claim(tables)
    grid = [row for name in GRID for row in tables[name]]
    told = [c for c in behaviour if c.verdict != OPEN or not c.statement.startswith("Axis")]
    texts = {
        "results": seeds_table(grid),
        "headline": headline_table(grid),
        "comparison": comparison_table(grid),
        "findings": findings_table(told),
        "central": central_table(tables["mechanism"]),
        "shift": shift_table(tables["mechanism"], tables["geometry"]),
        "mechanism": findings_table(mechanism),
    }
    renew(readme, texts)


def write_findings(path: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write every claim as CSV."""
    behaviour, mechanism = every_claim(tables)
    atomic_write_text(path, findings_csv([*behaviour, *mechanism]))


def draw_gallery(folder: Path, tables: Mapping[str, Sequence[Row]]) -> None:
    """Draw every picture of the gallery as PNG; equal tables give equal bytes."""
    for name, table in PICTURES.items():
        rows = tables[table]
        if name in SHOWN:
            rows = select(rows, organism=[f"microcosm/{FAMILY}/{arm}" for arm in SHOWN[name]])
        figure = import_module(f"figures.plots.{name}").draw(rows)
        atomic_write_bytes(folder / f"{name}.png", style.to_bytes(figure, "png"))
