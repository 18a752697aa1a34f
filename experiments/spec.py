"""What an experiment is, and the loop that runs one.

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from interp.runs.configs import config_hash
from interp.runs.progress import progress_bar
from interp.runs.run import Run, runs_root
from interp.runs.table import Row, read_table, row


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
