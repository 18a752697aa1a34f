"""What an experiment is, and the loop that runs one.

An experiment is a frozen dataclass whose field docstrings are its help text::

    @dataclass(frozen=True, kw_only=True)
    class Coin(Experiment):
        \"\"\"Count heads.\"\"\"

        name: ClassVar[str] = "coin"
        seed: int = 0
        \"\"\"Seed of the tosses.\"\"\"

        def steps(self, run):                 # step name -> function that makes its rows; finished steps are skipped
            return {f"round {i}": partial(self._toss, i) for i in range(10)}

        def table(self, rows):                # pure; the run loop adds the cells that all rows share
            yield {"metric": "heads", "value": sum(r["heads"] for r in rows) / len(rows), "n": len(rows)}

    run, table = run_experiment(Coin(), "runs")    # the second call only reads the table
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from interp.runs.checks import check_fields
from interp.runs.configs import config_hash
from interp.runs.files import check_room
from interp.runs.progress import progress_bar
from interp.runs.run import Run, note_upstream, runs_root
from interp.runs.table import Row, read_table, row
from interp.triggers import Trigger

Step = Callable[[], Iterable[Row]]
"""Makes the rows of one step. They are stored together, so a killed run has all of them or none."""


@runtime_checkable
class Part(Protocol):
    """A field of an experiment that adds to its config, its inputs and its table: another experiment, or a subject."""

    def config(self) -> Mapping[str, Any]:
        """Return the JSON form that is hashed and stored."""
        ...

    def inputs(self) -> Mapping[str, Path]:
        """Return the files and folders that the rows depend on; their content is part of the run's hash."""
        ...

    def depends(self) -> Mapping[str, Any]:
        """Return what else the rows depend on, such as a registry entry named by a field; part of the run's hash."""
        ...

    def check(self) -> None:
        """Refuse, before any work, whatever is known to fail."""
        ...

    def judges(self) -> frozenset[str]:
        """Return references of the judges that are asked on the way; refuse one that cannot judge its answers."""
        ...

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse models that loading, training or sampling would refuse, as far as can be told without weights."""
        ...

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return its cells for every table row."""
        ...

    def label(self) -> str:
        """Return a short text that tells it apart from others of its kind, for progress bars."""
        ...


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The measurement of one claim. Subclasses add fields, ``steps`` and ``table``."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raise it when the meaning of rows or table changes, so that older runs are not reused."""

    def __post_init__(self) -> None:
        """Refuse a field outside the range that its annotation states, and a value that is given twice."""
        check_fields(self)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the steps in order: the name of each, and the function that makes its rows.

        Called only for a run that is not complete; may load models. Names must be the same in every session. A step
        that needs the rows of an earlier step reads ``run.rows()``: that step may have run in an earlier session.
        """
        raise NotImplementedError

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the cells of the table, without those that all rows share. Pure: no files, no clock, seeded chance."""
        raise NotImplementedError

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the cells that all table rows share: the subject's, and the judge named in ``rows``.

        A cell of ``table`` overrides a shared one.
        """
        subject: dict[str, Any] = {}
        for part in self.parts():
            subject |= part.cells([])
        return {**subject, "judge": next((r["judge"] for r in rows if "judge" in r), "")}

    def config(self) -> Mapping[str, Any]:
        """Return the JSON form that is hashed and stored: the fields; those of a subject stand beside them."""
        flat: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Experiment):
                flat[field.name] = value.config()
            else:
                flat |= value.config() if isinstance(value, Part) else {field.name: value}
        return flat

    def inputs(self) -> Mapping[str, Path]:
        """Return the files and folders that the rows depend on; their content is part of the run's hash."""
        return {name: path for part in self.parts() for name, path in part.inputs().items()}

    def depends(self) -> Mapping[str, Any]:
        """Return what else the rows depend on, such as a registry entry named by a field; part of the run's hash."""
        return {name: value for part in self.parts() for name, value in part.depends().items()}

    def protocol_parts(self) -> Sequence[str]:
        """Return the settings of the protocol that its rows or table depend on; all but ``judge``, unless it says so.

        The instructions of a judge are part of what a run depends on where a language model judges.
        """
        from experiments.protocol import BUT_JUDGE

        return BUT_JUDGE

    def check(self) -> None:
        """Refuse, before any work, whatever is known to fail.

        Raises:
            ValueError: If the experiment cannot be run.
        """
        for part in self.parts():
            part.check()
        self.judges()

    def judges(self) -> frozenset[str]:
        """Return references of the judges that are asked on the way: those of its parts.

        Every judge is asked once whether it is there before the first step of a run, and by ``--check``.

        Raises:
            ValueError: If one of them cannot judge the subject's answers.
        """
        return frozenset[str]().union(*(part.judges() for part in self.parts()))

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse models that loading, training or sampling would refuse, as far as can be told without weights.

        Args:
            *triggers: Triggers under whose texts questions are asked, beside the organism's own and those of
                ``further_triggers``.

        Raises:
            ValueError: If one of them would be refused.
        """
        for part in self.parts():
            part.check_models(*triggers, *self.further_triggers())

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return triggers beside the organism's own under whose texts questions are asked."""
        return ()

    def resolved(self) -> "Experiment":
        """Return the experiment that a command runs in its place; itself, unless its options ask for another one."""
        return self

    def total(self) -> int | None:
        """Return the number of rows of a complete run, for progress bars; None if unknown."""
        return None

    def label(self) -> str:
        """Return a short text that tells it apart from others of its kind, for progress bars."""
        return " ".join(part.label() for part in self.parts())

    def title(self) -> str:
        """Return the name and the label."""
        return f"{self.name} {self.label()}".strip()

    def parts(self) -> list[Part]:
        """Return the fields that are a subject or an experiment; this one depends on all that they depend on."""
        return [part for field in fields(self) if isinstance(part := getattr(self, field.name), Part)]


def identity(experiment: Experiment) -> dict[str, Any]:
    """Return the arguments of ``Run.of`` that name an experiment's run: config, version and inputs."""
    from experiments.protocol import load_protocol  # imports numpy, which `semcon --help` does without

    protocol = load_protocol().identity(experiment.protocol_parts())
    version = f"{experiment.version}/{protocol}/{config_hash(experiment.depends())}"
    return {"config": experiment.config(), "version": version, "inputs": experiment.inputs()}


def run_experiment(
    experiment: Experiment, root: str | Path | None = None, *, wait: bool = False
) -> tuple[Run, list[Row]]:
    """Run an experiment to its end. A complete run is only read; a killed one continues where it stopped.

    Args:
        experiment: The experiment.
        root: Folder of all runs; ``runs_root()`` if None.
        wait: Wait for another process that is running it, and use its result.

    Returns:
        The closed run, and its table as read from the disk.

    Raises:
        ValueError: If the experiment refuses its input, another process runs it, an output of the finished run,
            or what it was made from, was changed since, or its table is empty.
    """
    from experiments.answers.verdict_store import verdicts_beside
    from experiments.protocol import load_protocol

    root = runs_root() if root is None else Path(root)
    experiment.check()
    check_room(root)
    facts = {"depends": experiment.depends(), **load_protocol().facts()}
    run = Run.of(root, experiment.name, **identity(experiment))
    if new := not run.path.exists():
        probe(experiment)  # a model that is refused leaves no folder
    with run:
        run.enter(facts, wait=wait)
        if not run.complete:
            if not new:
                probe(experiment)
            with run.in_progress(), verdicts_beside(run) as note_requests:
                for name, rows in _unfinished(experiment, run):
                    run.append({"key": f"{name}|{i}", "step": name, **r} for i, r in enumerate(rows))
                    note_requests()
            _finish(experiment, run)
    run.check_outputs()
    note_upstream(run.run_id, run.manifest["outputs"])
    return run, read_table(run.path / "table.csv")


def probe(experiment: Experiment) -> None:
    """Look at the models of an experiment and ask every judge once whether it is there, before any work.

    Raises:
        ValueError: If a model would be refused, a key is missing, or a server is out of reach or refuses.
    """
    experiment.check_models()
    from experiments.answers.judge import (
        check_judge,  # here, because the command line must start without an HTTP client
    )

    for reference in sorted(experiment.judges()):
        check_judge(reference)


def _unfinished(experiment: Experiment, run: Run) -> Iterator[tuple[str, list[Row]]]:
    """Yield name and rows of every step that is not stored yet, under a progress bar."""
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
    """Return the complete table of an experiment, with the cells that all rows share."""
    common = {"experiment": experiment.name, "run_id": run_id, **experiment.cells(rows)}
    return [row(**{**common, **cells}) for cells in experiment.table(rows)]
