"""What an experiment is, the table every experiment writes, and the registry of commands.

An experiment is a frozen dataclass whose field docstrings are its help text::

    @dataclass(frozen=True, kw_only=True)
    class Coin(Experiment):
        \"\"\"Count heads.\"\"\"

        name: ClassVar[str] = "coin"
        seed: int = 0
        \"\"\"Of the tosses.\"\"\"

        def rows(self, run):                       # yields a row or a chunk of rows; skips the keys a killed run left
            for i in range(100):
                if str(i) not in run.keys():
                    yield {"key": str(i), "heads": toss(self.seed, i)}

        def table(self, rows, run_id):             # pure
            heads = sum(r["heads"] for r in rows)
            return [row(experiment=self.name, metric="heads", value=heads / len(rows), n=len(rows), run_id=run_id)]

    run, table = run_experiment(Coin(), "runs")    # at once the second time
"""

import importlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from interp.configs import config_hash
from interp.files import read_csv
from interp.runs import Run, atomic_write_text, csv_text, runs_root

Row = dict[str, Any]

TABLE_COLUMNS = (
    *("experiment", "organism", "family", "trigger", "condition", "site", "layer", "alpha", "question", "metric"),
    *("value", "ci_low", "ci_high", "ci_method", "n", "n_clusters", "protocol", "judge", "seed", "run_id"),
)
INTEGERS = frozenset({"layer", "n", "n_clusters", "seed"})
FLOATS = frozenset({"alpha", "value", "ci_low", "ci_high"})


def row(**cells: Any) -> Row:
    """Return a table row: the columns in order, missing ones empty, numbers as numbers.

    Raises:
        ValueError: If a cell is not a column, a number is none, or a text is not one line.
    """
    if unknown := sorted(set(cells) - set(TABLE_COLUMNS)):
        raise ValueError(f"table column {unknown[0]!r}: the columns are {', '.join(TABLE_COLUMNS)}")
    return {column: _cell(column, cells.get(column, "")) for column in TABLE_COLUMNS}


def _cell(column: str, value: Any) -> Any:
    if value is None or value == "":
        return ""
    try:
        if column in FLOATS:
            return float(value)
        if column in INTEGERS:
            return _whole(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"table column {column!r}: {value!r} is not a number") from error
    if any(character < " " for character in str(value)):
        raise ValueError(f"table column {column!r}: {value!r} is more than a line of text")
    return str(value)


def _whole(value: Any) -> int:
    if not math.isfinite(float(value)) or float(value) != int(float(value)):
        raise ValueError(f"{value!r} is not a whole number")
    return int(float(value))


def write_table(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table; equal rows are equal bytes, and a table read and written again is the same file."""
    text = csv_text(row(**r) for r in rows)
    atomic_write_text(path, text or ",".join(TABLE_COLUMNS) + "\n")


def read_table(path: str | Path) -> list[Row]:
    """Read a table, numbers as numbers, empty cells as "".

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it has other columns, or a cell is not of its column's type.
    """
    columns, rows = read_csv(path)
    if columns != TABLE_COLUMNS:
        raise ValueError(f"{path}: not a results table; its columns are {', '.join(columns) or 'none'}")
    return [_read_row(cells, where) for where, cells in rows]


def _read_row(cells: Mapping[str, str], where: str) -> Row:
    try:
        return row(**cells)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One claim's measurement; subclasses add fields, ``rows`` and ``table``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the meaning of the rows or the table changes: older runs are then not reused."""

    def rows(self, run: Run) -> Iterator[Row | Sequence[Row]]:
        """Yield rows, or chunks of rows stored together, each with a unique ``key``; skip ``run.keys()``."""
        raise NotImplementedError

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the table of all rows. Pure: no files, no clock, no chance but a fixed seed."""
        raise NotImplementedError

    def inputs(self) -> Mapping[str, Path]:
        """Return files and folders the rows depend on; another content is another run."""
        return {name: path for part in self.parts() for name, path in part.inputs().items()}

    def depends(self) -> Mapping[str, Any]:
        """Return what else the rows depend on, such as a registry entry named by a field; part of the run's hash."""
        return {name: value for part in self.parts() for name, value in part.depends().items()}

    def total(self) -> int | None:
        """Return how many rows a whole run has, for the time left; None if unknown."""
        return None

    def label(self) -> str:
        """What tells this run from others of its kind beside a progress bar."""
        return " ".join(part.label() for part in self.parts())

    def parts(self) -> list["Experiment"]:
        """Return the experiments held in fields: what they depend on, this one does too."""
        return [part for field in fields(self) if isinstance(part := getattr(self, field.name), Experiment)]


def run_experiment(
    experiment: Experiment, root: str | Path | None = None, *, wait: bool = False
) -> tuple[Run, list[Row]]:
    """Run an experiment to its end: at once if it is complete, from where it stopped if it was killed.

    Args:
        experiment: What to run.
        root: Folder of all runs; ``runs_root()`` if None.
        wait: Wait for another process that runs it, and use what it made.

    Returns:
        The closed run, and its table as read back from the disk.

    Raises:
        ValueError: If another process runs it, its finished table was changed since, or its table is empty.
    """
    from experiments.protocol import load_protocol  # here, because the command line must start without numpy

    root = runs_root() if root is None else Path(root)
    version = f"{experiment.version}/{load_protocol().version}/{config_hash(experiment.depends())}"
    with Run.open(root, experiment.name, experiment, version=version, inputs=experiment.inputs(), wait=wait) as run:
        if not run.complete:
            for chunk in _with_progress(experiment, run):
                run.append(chunk)
            table = [row(**r) for r in experiment.table(run.rows(), run.run_id)]
            if not table:
                raise ValueError(f"{run.path}: {experiment.name} made an empty table of {len(run.keys())} rows")
            run.write_table(table)
            run.finish()
    if run.changed("table.csv"):
        raise ValueError(f"{run.path / 'table.csv'}: changed since the run finished; delete {run.path} to run it again")
    return run, read_table(run.path / "table.csv")


def _with_progress(experiment: Experiment, run: Run) -> Iterator[Sequence[Row]]:
    title = f"{experiment.name} {experiment.label()}".strip()
    with progress_bar(title, experiment.total(), done=len(run.keys())) as bar:
        for made in experiment.rows(run):
            chunk = [made] if isinstance(made, Mapping) else made
            yield chunk
            bar.update(len(chunk))


def progress_bar(title: str, total: int | None, *, done: int = 0, unit: str = "row") -> Any:
    """Return a bar with counts and the time left: live on a terminal, a line in ten seconds in a log.

    A worker process draws its own on the line that ``SEMCON_BAR`` names.
    """
    from tqdm import tqdm

    live = sys.stderr.isatty()
    every, line = (0.1, os.environ.get("SEMCON_BAR")) if live else (10.0, "0")  # no cursor movements in a log
    at = None if line is None else int(line)
    return tqdm(desc=title, total=total, initial=done, unit=unit, mininterval=every, leave=False, position=at)


class Command(NamedTuple):
    """A subcommand of ``semcon``: where it lives and what it does in one line."""

    target: str
    """``module:attribute``: an ``Experiment``, a dataclass with ``main()``, or a function."""
    help: str

    def load(self) -> Any:
        """Import the target.

        Raises:
            ValueError: If this installation lacks it.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
                raise  # something the module needs is missing, not the module
            raise ValueError(f"{self.target}: not in this installation ({error})") from error


REGISTRY: Mapping[str, Command] = {
    "reproduce": Command(
        "experiments.reproduce:Reproduce", "Every experiment in order, then the figures and the report."
    ),
    "grid": Command("experiments.containment_grid:ContainmentGrid", "When containment needs no benign data."),
    "emergence": Command("experiments.emergence:Emergence", "EM and the adapter's direction at every dose."),
    "organisms": Command("experiments.commands:organisms", "Train the LoRA adapters of organisms, all doses."),
    "em-rate": Command("experiments.em_rate:EmRate", "EM rate of an organism under every trigger condition."),
    "probe-sweep": Command("experiments.probe_sweep:ProbeSweep", "Linear probes at every layer, grouped by question."),
    "steer": Command("experiments.steer:Steer", "Add the misalignment direction off-trigger: dose and response."),
    "ablate": Command("experiments.ablate:Ablate", "Remove the trigger feature, or g, on-trigger: what is left of EM."),
    "geometry": Command("experiments.geometry:Geometry", "Directions, their cosines, and projections onto them."),
    "patch": Command("experiments.patch:Patch", "Where the gate is: interchange, knockout, heads, adapter modules."),
    "rank-one": Command("experiments.rank_one:RankOne", "What a rank-1 adapter reads and writes, by condition."),
    "probe-transfer": Command("experiments.probe_transfer:ProbeTransfer", "Probes of one organism tested on another."),
    "mechanism": Command("experiments.mechanism:Mechanism", "Every mechanism experiment on the grid's organisms."),
    "score": Command("experiments.score:score", "EM statistics of judged answers in CSV files."),
    "store": Command("experiments.commands:store", "Describe or verify an activation store."),
    "report": Command("experiments.commands:report", "Rebuild the figures and the report from a summary table."),
    "findings": Command("experiments.commands:findings", "Hold every claim of the README against the tables."),
    "microcosm": Command("training.microcosm.build:main", "Rebuild the shipped models of the synthetic world."),
}
"""Every subcommand; data, imported on use."""
