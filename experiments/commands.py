"""Small commands that are no experiment: adapters, the activation store, the report."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.spec import progress_bar
from interp.runs import atomic_write_text, runs_root


def organisms(names: Annotated[tuple[str, ...], tyro.conf.Positional] = (), *, runs: Path | None = None) -> None:
    """Train the LoRA adapters of organisms; one that is trained is found again, one that was killed continues.

    Args:
        names: Organisms (see training/organisms.py); all of the Microcosm's if none is named.
        runs: Folder of all runs.
    """
    from training.organisms import ORGANISMS, organism

    chosen = [organism(name) for name in names] or [o for n, o in ORGANISMS.items() if n.startswith("microcosm/")]
    trained = [o for o in chosen if o.data is not None]
    if not trained:
        raise ValueError(f"{', '.join(names)}: a base, which has no adapter to train")
    from training.sft import train

    for subject in trained:
        with progress_bar(f"train {subject.name}", max(subject.sft.doses), unit="step") as bar:
            folder = train(subject, runs or runs_root(), progress=lambda step, _, bar=bar: bar.update(step - bar.n))
        print(f"{subject.name}: {folder}")


def store(
    action: Annotated[Literal["info", "verify"], tyro.conf.Positional], file: Annotated[Path, tyro.conf.Positional]
) -> None:
    """Describe an activation store, or check every value in it against its checksums.

    Args:
        action: What to do.
        file: The store, an HDF5 file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such store")
    from interp import store as stores

    if action == "info":
        print("\n".join(f"{name}: {value}" for name, value in stores.info(file).items()))
        return
    if problems := stores.verify(file):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(problems[0] + more)
    print(f"{file}: intact")


def findings(data: Path = Path("figures/data"), *, readme: Path | None = None) -> None:
    """Hold every claim against the committed tables: write findings.csv, and renew the tables of a README.

    Args:
        data: Folder of the tables of `semcon grid` and of `semcon mechanism`.
        readme: A README whose tables are to be renewed, between their markers.
    """
    from figures.claims import OPEN, claims, findings_csv, findings_table
    from figures.headline import comparison_table, headline_table, seeds_table
    from figures.mechanism_claims import mechanism_claims
    from figures.mechanism_tables import central_table, shift_table
    from figures.tables import read_rows, renew

    grid = [row for name in ("containment_grid.csv", "emergence.csv") for row in read_rows(data / name)]
    tables = {name: read_rows(data / f"{name}.csv") for name in ("mechanism", "geometry", "probes", "patching")}
    behaviour = claims(grid)
    mechanism = mechanism_claims([row for rows in tables.values() for row in rows])
    if readme is not None:
        texts = {"results": seeds_table(grid), "headline": headline_table(grid), "comparison": comparison_table(grid)}
        told = [c for c in behaviour if c.verdict != OPEN or not c.statement.startswith("Axis")]
        texts |= {"findings": findings_table(told), "mechanism": findings_table(mechanism)}
        texts |= {"central": central_table(tables["mechanism"])}
        renew(readme, texts | {"shift": shift_table(tables["mechanism"], tables["geometry"])})
    atomic_write_text(data / "findings.csv", findings_csv([*behaviour, *mechanism]))  # after a README without markers
    print(f"wrote {data / 'findings.csv'}{f' and the tables of {readme}' if readme else ''}")


def report(summary: Path = Path("runs/summary.csv"), out: Path = Path("runs")) -> None:
    """Rebuild every figure and report.html from a summary table, without running anything.

    Args:
        summary: Table of every row of the runs.
        out: Folder for the figures and the report.
    """
    if not summary.is_file():
        raise FileNotFoundError(f"{summary}: no such table; `semcon reproduce` makes it")
    from figures.report import build

    print(f"wrote {build(summary, out)}")
