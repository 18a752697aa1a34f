"""What an experiment is, and the loop that runs one.

An experiment is a frozen dataclass whose field docstrings are its help text::

    @dataclass(frozen=True, kw_only=True)
    class Coin(Experiment):
        \"\"\"Count heads.\"\"\"

        name: ClassVar[str] = "coin"
        seed: int = 0
        \"\"\"Seed of the tosses.\"\"\"

        def steps(self, run):                 # step name -> what makes its rows; finished steps are skipped
            return {f"round {i}": partial(self._toss, i) for i in range(10)}

        def table(self, rows):                # pure; cells that all rows share are added by the loop
            yield {"metric": "heads", "value": sum(r["heads"] for r in rows) / len(rows), "n": len(rows)}

    run, table = run_experiment(Coin(), "runs")    # at once the second time
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from interp.runs.checks import check_fields
from interp.runs.configs import config_hash
from interp.runs.progress import progress_bar
from interp.runs.run import Run, note_upstream, runs_root
from interp.runs.table import Row, read_table, row

Step = Callable[[], Iterable[Row]]
"""Makes the rows of one step; they are stored together, so a killed run has all of them or none."""


@runtime_checkable
class Part(Protocol):
    """What an experiment is made of: another experiment, or the subject under study."""

    def config(self) -> Mapping[str, Any]:
        """Return the JSON form that is hashed and stored."""
        ...

    def inputs(self) -> Mapping[str, Path]:
        """Return files and folders the rows depend on; other content is another run."""
        ...

    def depends(self) -> Mapping[str, Any]:
        """Return what else the rows depend on, such as a registry entry named by a field; part of the run's hash."""
        ...

    def check(self) -> None:
        """Refuse, before any work, whatever can be known to fail."""
        ...

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the cells that it gives to every table row."""
        ...

    def label(self) -> str:
        """Return what tells this part from others of its kind, for a progress bar."""
        ...


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One claim's measurement; subclasses add fields, ``steps`` and ``table``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the meaning of the rows or the table changes: older runs are then not reused."""

    def __post_init__(self) -> None:
        """Refuse a field outside the range that its annotation states."""
        check_fields(self)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return what is to be done, in order: a step's name and what makes its rows.

        Called only for a run that is not complete; it may load models. A step's name must not depend on chance, and no
        step on whether an earlier one was made now or in an earlier session: ``run.rows()`` has its rows either way.
        """
        raise NotImplementedError

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the table's cells, less those that all rows share. Pure: no files, no clock, no chance but a seed."""
        raise NotImplementedError

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the cells common to every table row: the subject's, and the judge of the rows.

        A row's own cell goes before a common one.
        """
        subject: dict[str, Any] = {}
        for part in self.parts():
            subject |= part.cells([])
        return {**subject, "judge": next((r["judge"] for r in rows if "judge" in r), "")}

    def config(self) -> Mapping[str, Any]:
        """Return the JSON form that is hashed and stored: the fields, those of a subject among them."""
        flat: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Experiment):
                flat[field.name] = value.config()
            else:
                flat |= value.config() if isinstance(value, Part) else {field.name: value}
        return flat

    def inputs(self) -> Mapping[str, Path]:
        """Return files and folders the rows depend on; other content is another run."""
        return {name: path for part in self.parts() for name, path in part.inputs().items()}

    def depends(self) -> Mapping[str, Any]:
        """Return what else the rows depend on, such as a registry entry named by a field; part of the run's hash."""
        return {name: value for part in self.parts() for name, value in part.depends().items()}

    def check(self) -> None:
        """Refuse, before any work, whatever can be known to fail.

        Raises:
            ValueError: If the experiment cannot be run as it is asked for.
        """
        for part in self.parts():
            part.check()

    def total(self) -> int | None:
        """Return how many rows a whole run has, for the time left; None if unknown."""
        return None

    def label(self) -> str:
        """Return what tells this run from others of its kind, for a progress bar."""
        return " ".join(part.label() for part in self.parts())

    def title(self) -> str:
        """Return the name and the label."""
        return f"{self.name} {self.label()}".strip()

    def parts(self) -> list[Part]:
        """Return the subject and the experiments held in fields: what they depend on, this one does too."""
        return [part for field in fields(self) if isinstance(part := getattr(self, field.name), Part)]


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return what names an experiment's run: its config, the version of its meaning, and the files it reads."""
    from experiments.protocol import load_protocol  # here, because the command line must start without numpy

    version = f"{experiment.version}/{load_protocol().version}/{config_hash(experiment.depends())}"
    return {"config": experiment.config(), "version": version, "inputs": experiment.inputs()}


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
        ValueError: If the experiment refuses its input, another process runs it, an output of the finished run,
            or what it was made from, was changed since, or its table is empty.
    """
    root = runs_root() if root is None else Path(root)
    experiment.check()
    facts = {"depends": experiment.depends()}
    with Run.open(root, experiment.name, **identity(experiment), facts=facts, wait=wait) as run:
        if not run.complete:
            with run.in_progress():
                for name, rows in _unfinished(experiment, run):
                    run.append({"key": f"{name}|{i}", "step": name, **r} for i, r in enumerate(rows))
            _finish(experiment, run)
    run.check_outputs()
    note_upstream(run.run_id, run.manifest["outputs"])
    return run, read_table(run.path / "table.csv")


def _unfinished(experiment: Experiment, run: Run) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of every step that is not stored yet, under a progress bar."""
    with progress_bar(experiment.title(), experiment.total(), done=len(run.keys())) as bar:
        finished = _finished_steps(run)
        steps = experiment.steps(run)
        for name, make in steps.items():
            if name not in finished:
                rows = list(make())
                yield name, rows
                bar.update(len(rows))


def _finished_steps(run: Run) -> set[str]:
    """Return the steps whose rows are stored.

    Raises:
        ValueError: If the rows name no step.
    """
    rows = run.rows()
    if any("step" not in r for r in rows):
        raise ValueError(
            f"{run.path}: its rows name no step, so an earlier version of the suite wrote them; "
            "delete the folder to run it again"
        )
    return {r["step"] for r in rows}


def _finish(experiment: Experiment, run: Run) -> None:
    rows = run.rows()
    table = whole_table(experiment, rows, run.run_id)
    if not table:
        raise ValueError(f"{run.path}: {experiment.name} made an empty table of {len(rows)} rows")
    run.write_table(table)
    run.finish()


def whole_table(experiment: Experiment, rows: Sequence[Row], run_id: str) -> list[Row]:
    """Return an experiment's table with the cells that all its rows share."""
    common = {"experiment": experiment.name, "run_id": run_id, **experiment.cells(rows)}
    return [row(**{**common, **cells}) for cells in experiment.table(rows)]
