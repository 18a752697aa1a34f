"""``semcon mechanism``: what runs in which order on which organisms, into which table; bad input before any work."""

import pytest

from experiments.answers.subject import Subject
from experiments.behaviour.dose import Dose
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.directions.geometry import Geometry, baseline_subject
from experiments.gate.patch import Patch
from experiments.gate.rank_one import RankOne
from experiments.pipelines.mechanism import ARMS, PARTLY, RANK_ONE, TABLES, Mechanism
from experiments.probing.sweep import ProbeSweep
from experiments.probing.transfer import ProbeTransfer
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.spec import Experiment
from interp.runs.table import row
from training.grid import FAMILIES
from training.registry import ORGANISMS, find_organism

COSTLY = (Steer, Patch, ProbeSweep, RankOne)
PLANS = [Mechanism(), Mechanism(families=("llama",), seeds=(0,)), Mechanism(families=("qwen2", "llama"), seeds=(0, 2))]
every_plan = pytest.mark.parametrize("plan", PLANS, ids=["full", "least", "part"])


def subjects_of(experiment) -> tuple[Subject, ...]:
    """The organisms an experiment is about."""
    for inner in ("answers", "geometry"):
        experiment = getattr(experiment, inner, experiment)
    return getattr(experiment, "subjects", None) or (experiment.subject,)


def names_of(experiment) -> tuple[str, ...]:
    return tuple(subject.name for subject in subjects_of(experiment))


def of_kind(plan: Mechanism, kind: type) -> list:
    return [e for stage in plan.stages() for e in stage if type(e) is kind]


# --- order ---


@every_plan
def test_every_organism_has_its_dose_in_a_stage_before_it_is_needed(plan):
    dosed: set[Subject] = set()
    for stage in plan.stages():
        for experiment in stage:
            if not isinstance(experiment, Dose):
                assert set(subjects_of(experiment)) <= dosed
                if isinstance(experiment, Geometry):
                    assert {baseline_subject(experiment)} - {None} <= dosed
        dosed |= {e.subject for e in stage if isinstance(e, Dose)}


@every_plan
def test_every_part_of_an_experiment_is_finished_in_a_stage_before_it(plan):
    finished: set = set()
    for stage in plan.stages():
        parts = [part for experiment in stage for part in experiment.parts() if isinstance(part, Experiment)]
        assert {part for part in parts if not isinstance(part, Answers)} <= finished
        finished |= set(stage)
    assert {type(e.geometry) for e in of_kind(plan, Ablate)} == {Geometry}


@every_plan
@pytest.mark.parametrize("samples", [1, 10])
def test_the_answers_that_sweeps_and_patches_share_are_sampled_before_them(plan, samples):
    plan = Mechanism(families=plan.families, seeds=plan.seeds, samples=samples)
    *before, last = plan.stages()
    sampled = {e for stage in before for e in stage if isinstance(e, EmRate)}
    for experiment in last:
        if isinstance(experiment, Patch | ProbeSweep):  # side by side, two would sample them at once
            assert EmRate(answers=Answers(subject=experiment.subject)) in sampled
    assert {e.samples for e in (*of_kind(plan, Ablate), *of_kind(plan, Steer))} == {samples}


@every_plan
def test_no_experiment_stands_twice(plan):
    everything = [e for stage in plan.stages() for e in stage]
    assert len(set(everything)) == len(everything)


# --- organisms ---


@every_plan
def test_geometry_and_removal_are_of_every_arm_family_and_seed(plan):
    ablated = {name for e in of_kind(plan, Ablate) for name in names_of(e)}
    assert ablated == set(plan.organisms(plan.seeds))
    assert len(ablated) == len(plan.families) * (len(ARMS) * len(plan.seeds) + 1)
    singles = {name for e in of_kind(plan, RankOne) for name in names_of(e)}
    assert {name for e in of_kind(plan, Geometry) for name in names_of(e)} == ablated | singles
    assert all(name.endswith(RANK_ONE) for name in singles) and len(singles) == len(RANK_ONE) * len(plan.families)
    assert {name for e in of_kind(plan, Dose) for name in names_of(e)} <= set(ORGANISMS)


@every_plan
def test_what_is_costly_is_of_the_first_seed_alone_and_of_all_its_organisms(plan):
    for kind in COSTLY:
        names = [name for e in of_kind(plan, kind) for name in names_of(e)]
        assert {find_organism(name).seed for name in names} == {plan.seeds[0]}
        if kind is not RankOne:
            assert set(names) == set(plan.organisms(plan.seeds[:1]))
            assert {f"microcosm/{family}/{PARTLY}" for family in plan.families} <= set(names)


@every_plan
def test_transfer_is_within_a_family_between_seeds_and_triggers(plan):
    transfers = of_kind(plan, ProbeTransfer)
    assert [{find_organism(name).family for name in names_of(e)} for e in transfers] == [{f} for f in plan.families]
    for e in transfers:
        assert len(e.subjects) == len(set(e.subjects)) == len(plan.seeds) + len(ARMS) - 1
        assert {find_organism(name).seed for name in names_of(e)} == set(plan.seeds)


def test_a_part_is_a_part_of_the_whole():
    whole, part = ({e for stage in plan.stages() for e in stage if type(e) is not ProbeTransfer} for plan in PLANS[:2])
    assert part < whole


# --- tables ---


@every_plan
def test_every_experiment_has_one_table_but_those_it_is_made_from(plan):
    shown = [name for names in TABLES.values() for name in names]
    assert len(set(shown)) == len(shown)
    yielded = {e.name for stage in plan.stages() for e in stage}
    assert yielded - set(shown) == {"dose", "em_rate"}
    assert set(shown) - yielded == {"across"}


def test_single_projections_are_kept_for_the_first_seed_and_what_is_made_of_them_for_all():
    plan = Mechanism(seeds=(0, 1))
    kept = {
        (metric, seed)
        for metric in ("projection_g", "projection_trigger", "projection_r", "em_projection_r", "cosine", "em_rate")
        for seed in (0, 1, "")
        if plan._tabled(row(metric=metric, seed=seed))
    }
    single = {("projection_g", 0), ("projection_trigger", 0)}
    assert {pair for pair in kept if pair[0] in ("projection_g", "projection_trigger")} == single
    assert {pair for pair in kept if pair[0] == "projection_r"} == {("projection_r", seed) for seed in (0, 1, "")}
    assert len(kept) == 2 + 4 * 3


# --- what is refused ---

KNOWN = "'{}', '{}' or '{}'".format(*FAMILIES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"families": ("foo",)}, f"families[0] 'foo': expected {KNOWN}"),
        ({"families": ("llama", "foo")}, f"families[1] 'foo': expected {KNOWN}"),
        ({"families": ()}, "families (): expected at least 1 item"),
        ({"families": ("llama", "llama")}, "families 'llama': given twice"),
        ({"seeds": ()}, "seeds (): expected at least 1 item"),
        ({"seeds": (0, 1, 0)}, "seeds 0: given twice"),
        ({"seeds": (0, 9)}, "seeds 0, 9: the grid has no microcosm/llama/explaining.seed9"),
        ({"seeds": (1,)}, "seeds 1: the grid has no microcosm/llama/explaining.robust.seed1"),
        ({"samples": 0}, "samples 0: expected greater than or equal to 1"),
        ({"workers": -1}, "workers -1: expected greater than or equal to 0"),
    ],
)
def test_what_cannot_be_run_is_one_line_before_any_work(tmp_path, fields, message):
    with pytest.raises(ValueError) as error:
        Mechanism(runs=tmp_path, **fields)
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())
