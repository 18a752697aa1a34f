"""The run ids of the committed tables are those that the code derives now."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.answers.subject import Subject, find_subject
from experiments.directions.geometry import Geometry
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment, identity
from interp.runs.run import run_id
from interp.runs.table import read_table

DATA = Path(__file__).parents[2] / "figures" / "data"
MAKERS: dict[tuple[str, str], Callable[[Subject], Experiment]] = {
    ("geometry.csv", "geometry"): lambda subject: Geometry(subject=subject),
    ("mechanism.csv", "ablate"): lambda subject: Ablate(geometry=Geometry(subject=subject)),
    ("mechanism.csv", "steer"): lambda subject: Steer(geometry=Geometry(subject=subject)),
}
"""(table, experiment) -> the experiment about a subject, as ``semcon mechanism`` runs it."""


@pytest.mark.parametrize(("table", "experiment"), MAKERS)
def test_the_run_ids_of_a_committed_table_are_derived_again(table, experiment):
    (path,) = DATA.glob(f"{table}*")
    committed = {r["organism"]: r["run_id"] for r in read_table(path) if r["experiment"] == experiment}
    experiments = {name: MAKERS[table, experiment](find_subject(name)) for name in committed}
    assert committed
    assert {name: run_id(e.name, **identity(e)) for name, e in experiments.items()} == committed
