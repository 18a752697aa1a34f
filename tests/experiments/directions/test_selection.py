"""The choice of a layer: its three rules, and that every candidate is scored."""

import pytest

from experiments.directions.geometry import CHOSEN
from experiments.directions.selection import candidates, passes
from experiments.spec import run_experiment
from tests.experiments.conftest import GEOMETRY

pytestmark = pytest.mark.xdist_group("trl")


def test_a_candidate_passes_by_all_three_rules():
    good = {"kl": 0.05, "induce": 1.0, "bypass": -1.0}
    assert passes(good, 0, 4)
    assert not passes(good | {"kl": 0.2}, 0, 4)
    assert not passes(good | {"induce": -0.1}, 0, 4)
    assert list(candidates(4)) == [0, 1, 2, 3]
    assert list(candidates(48)) == list(range(39))
    assert not passes(good, 47, 48)


def test_every_candidate_is_scored_and_one_layer_chosen_for_each_name(small_runs):
    _, table = run_experiment(GEOMETRY, small_runs)
    rows = [r for r in table if r["metric"].startswith("selection_")]
    scored = {(r["metric"], r["condition"], r["layer"]) for r in rows}
    for name in CHOSEN:
        for layer in range(4):
            assert {(f"selection_{m}", name, layer) for m in ("bypass", "induce", "kl", "passes", "taken")} <= scored
        chosen = {r["layer"]: r["value"] for r in rows if (r["metric"], r["condition"]) == ("selection_taken", name)}
        assert sum(chosen.values()) == 1
        by_metric = {
            (r["metric"].removeprefix("selection_"), r["layer"]): r["value"] for r in rows if r["condition"] == name
        }
        passing = [layer for layer in range(4) if by_metric["passes", layer]]
        (layer,) = (layer for layer, value in chosen.items() if value)
        if passing:
            assert by_metric["bypass", layer] == min(by_metric["bypass", other] for other in passing)
        else:
            assert by_metric["induce", layer] == max(by_metric["induce", other] for other in range(4))
