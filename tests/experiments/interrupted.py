"""Runs that stop in the middle, through the same loop as any run."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

from experiments.spec import Experiment, Step, run_experiment
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
