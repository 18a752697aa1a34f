"""The directions of a small organism, and what adding and removing them does: run once for all tests that read it."""

import json
from pathlib import Path

import pytest

from experiments.answers.subject import Subject
from experiments.behaviour.dose import chosen_adapter
from experiments.directions.geometry import Geometry, baseline_subject
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment, run_experiment
from tests.counting import counted
from tests.training.small import small
from training.registry import ORGANISMS

GEOMETRY = Geometry(subject=Subject(small("explaining")))
TOKENS = "tokens.json"
"""File with the tokens that passed through the model while each experiment ran, by the name of the experiment."""
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
    tokens: dict[str, int] = {}
    with pytest.MonkeyPatch.context() as registry:  # only while they run: a worker shares its registry between tests
        registry.setitem(ORGANISMS, baseline.name, baseline)
        for subject in filter(None, (GEOMETRY.subject, baseline_subject(GEOMETRY))):
            chosen_adapter(subject, root)
        for experiment in experiments:
            with counted() as count:
                run_experiment(experiment, root)
            tokens[experiment.name] = count()
    (root / TOKENS).write_text(json.dumps(tokens))
    return root
