"""Runs that stop in the middle, through the same loop as any run."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from experiments.spec import Experiment, Step, identity, run_experiment
from interp.runs.run import Run
from interp.runs.table import Row


def run_steps(experiment: Experiment, root: Path, *, stop_after: int | None = None) -> list[str]:
    """Run an experiment, up to an interrupt after ``stop_after`` steps if given; return the steps done this time."""
    done: list[str] = []

    class Logged(type(experiment)):
        def steps(self, run: Run) -> Mapping[str, Step]:
            return {name: partial(do, name, step) for name, step in super().steps(run).items()}

    def do(name: str, step: Step) -> Iterable[Row]:
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(name)
        return step()

    logged = Logged(**{field.name: getattr(experiment, field.name) for field in fields(experiment)})
    if stop_after is None:
        run_experiment(logged, root)
        return done
    with pytest.raises(KeyboardInterrupt):
        run_experiment(logged, root)
    return done


def store_steps(experiment: Experiment, whole: Run, root: Path, *, n: int) -> list[str]:
    """Store the first ``n`` steps of a finished run as a run in ``root`` that was killed; return the steps missing."""
    rows = whole.rows()
    steps = list(dict.fromkeys(r["step"] for r in rows))
    with Run.open(root, experiment.name, **identity(experiment)) as killed:
        for step in steps[:n]:
            killed.append(r for r in rows if r["step"] == step)
    return steps[n:]
