"""The directions of a small organism, and what adding and removing them does: run once for all tests that read it."""

from pathlib import Path

import pytest

from experiments.answers.subject import Subject
from experiments.directions.geometry import Geometry
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment, run_experiment
from tests.training.small import small
from training.registry import ORGANISMS

GEOMETRY = Geometry(subject=Subject(small("explaining")))
STEER = Steer(geometry=GEOMETRY, alphas=(0.0, 1.0), samples=1)
ABLATE = Ablate(geometry=GEOMETRY, samples=1)


@pytest.fixture
def small_baseline(monkeypatch):
    """Put a baseline into the registry that trains in a second."""
    baseline = small("baseline")
    monkeypatch.setitem(ORGANISMS, baseline.name, baseline)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory) -> Path:
    """The folder of the finished runs of ``GEOMETRY``, ``STEER`` and ``ABLATE``."""
    root, baseline = tmp_path_factory.mktemp("small_runs"), small("baseline")
    experiments: tuple[Experiment, ...] = (GEOMETRY, STEER, ABLATE)
    with pytest.MonkeyPatch.context() as registry:  # only while they run: a worker shares its registry between tests
        registry.setitem(ORGANISMS, baseline.name, baseline)
        for experiment in experiments:
            run_experiment(experiment, root)
    return root
