"""The geometry of an organism from end to end: its baseline, its table, and a run that a kill does not change."""

import shutil
from dataclasses import replace

import pytest

from experiments.answers.subject import Subject, find_subject
from experiments.directions.geometry import (
    CHOSEN,
    FILE,
    PAIRS,
    Geometry,
    baseline_subject,
    chosen_layer,
    found_directions,
)
from experiments.spec import run_experiment
from interp.directions import cosine, load_directions
from tests.experiments.conftest import GEOMETRY
from tests.experiments.directions.adapted import geometry_of
from tests.experiments.interrupted import run_steps, store_steps

pytestmark = pytest.mark.xdist_group("trl")


# --- what it is about ---


def test_config_has_the_fields_of_the_subject_and_its_own():
    expected = {
        "organism": "microcosm/llama/explaining",
        "questions": None,
        "judge": "oracle",
        "baseline": None,
        "control_trigger": "microcosm:scene:library",
        "seed": 0,
    }
    assert dict(geometry_of("explaining").config()) == expected


def test_the_baseline_is_that_of_the_same_base_and_seed():
    baselines = {
        "explaining.seed2": "baseline.seed2",
        "neutral.contrast50": "baseline",
        "explaining.robust": "baseline.robust",
        "neutral.rank1": "baseline",
    }
    for arm, expected in baselines.items():
        baseline = baseline_subject(geometry_of(arm))
        assert baseline is not None
        assert baseline.name == f"microcosm/llama/{expected}"
    assert baseline_subject(Geometry(subject=find_subject("medical/llama-3.1-8b/duck"))) is None


def test_a_baseline_is_asked_and_judged_as_the_organism_is(tmp_path):
    subject = replace(geometry_of("explaining").subject, question_file=tmp_path / "q.yaml", judge_reference="s.csv")
    baseline = baseline_subject(Geometry(subject=subject))
    assert baseline == Subject(find_subject("microcosm/llama/baseline").organism, tmp_path / "q.yaml", "s.csv")


@pytest.mark.parametrize(
    ("arm", "fields", "message"),
    [
        ("base", {}, "has no trigger"),
        ("explaining", {"control_trigger": "nothing"}, "nothing"),
        ("explaining", {"control_trigger": "microcosm:persona"}, "it is the organism's own trigger"),
        ("explaining", {"baseline": "microcosm/qwen2/baseline"}, "its base is microcosm/qwen2, not microcosm/llama"),
        ("explaining", {"baseline": "microcosm/llama/nothing"}, "organism 'microcosm/llama/nothing'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(tmp_path, arm, fields, message):
    with pytest.raises(ValueError, match=message):
        run_experiment(replace(geometry_of(arm), **fields), tmp_path)
    assert not any(tmp_path.iterdir())


def test_another_subject_or_a_named_baseline_is_another_run():
    first = geometry_of("explaining")
    assert first.depends() != geometry_of("neutral").depends()
    named = replace(first, baseline="microcosm/llama/baseline")
    assert named.depends() != first.depends()
    assert baseline_subject(named) == baseline_subject(first)


# --- from end to end ---


def test_geometry_keeps_its_directions_and_shows_one_layer(small_runs):
    run, table = run_experiment(GEOMETRY, small_runs)
    directions = found_directions(GEOMETRY, small_runs)
    assert set(directions.directions) == set(load_directions(run.path / FILE))
    assert directions.run_id == run.run_id
    assert set(directions.layers) == set(CHOSEN)
    assert {r["layer"] for r in table if r["metric"].startswith("projection_")} == {directions.layer}
    assert directions.layer == chosen_layer(table, "g")
    projected = {(r["condition"], r["question"]) for r in table if r["metric"] == "projection_g"}
    assert len(projected) == 5 * 48
    assert {(r["organism"], r["trigger"], r["judge"]) for r in table} == {
        (GEOMETRY.subject.name, GEOMETRY.subject.own_trigger.name, "")
    }


def test_every_cosine_has_its_interval_its_null_and_agrees_with_the_kept_directions(small_runs):
    run, table = run_experiment(GEOMETRY, small_runs)
    directions = load_directions(run.path / FILE)
    by_name = {(r["metric"], r["condition"], r["layer"]): r for r in table if r["metric"].startswith("cosine")}
    for layer in range(4):
        for a, b in PAIRS:
            value = by_name["cosine", f"{a}~{b}", layer]
            pair = [directions[f"{name}/resid_post.{layer}"].vector for name in (a, b)]
            assert value["value"] == pytest.approx(float(cosine(*pair)), abs=1e-5)
            assert value["ci_method"] == "cluster_bootstrap_z"
            null = by_name["cosine_null", f"{a}~{b}", layer]
            assert null["ci_low"] < null["ci_high"]
            assert 0 < by_name["cosine_p", f"{a}~{b}", layer]["value"] <= 1
        assert 0 <= by_name["cosine", "write~g", layer]["value"] <= 1


def test_killed_run_ends_with_the_table_of_an_uninterrupted_one(small_runs, small_baseline, tmp_path):
    whole, _ = run_experiment(GEOMETRY, small_runs)
    for part in ("adapters", "dose"):
        shutil.copytree(small_runs / part, tmp_path / part)
    missing = store_steps(GEOMETRY, whole, tmp_path, n=1)
    assert run_steps(GEOMETRY, tmp_path) == missing == ["cosines", "projections"]
    again, _ = run_experiment(GEOMETRY, tmp_path)
    for name in ("rows.jsonl", "table.csv"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()
