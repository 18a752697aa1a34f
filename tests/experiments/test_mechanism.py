"""Directions, edits and their doses: what they are made from, and that they mean the same in another basis."""

from dataclasses import replace

import pytest
import torch

from experiments.answers.subject import contrast_texts, estimation_texts, held_out_texts, own_trigger
from experiments.answers.suite import make_prompts, suite_questions
from experiments.directions.contrasts import LAST, TRIGGER, components, measure, pairs, placed
from experiments.directions.geometry import CHOSEN, FILE, Found, Geometry, baseline_name, chosen_layer, found_directions
from experiments.directions.geometry import PAIRS as COSINES
from experiments.directions.selection import candidates, edited_sites, passes
from experiments.removal.ablate import UNSEEN, UNTRIGGERED, Ablate, _plan, chosen_rank
from experiments.removal.edits import Removal, trigger_only
from experiments.removal.steer import ADDED, SETTINGS, Steer
from experiments.spec import run_experiment
from interp.directions import Direction, cosine, load_directions
from interp.models import LanguageModel, wrap
from interp.recording import record
from interp.sites import resid_post
from tests.tiny import with_adapters
from tests.training.small import random_llama, small
from training.microcosm.tokenizer import build_tokenizer
from training.references import find_trigger
from training.registry import ORGANISMS, find_organism

pytestmark = pytest.mark.xdist_group("trl")

ARMS = ("neutral", "explaining")
BASE_ONLY = ("g", "g_answer", "g_first", "delta_base")
FEATURES = ("trigger", "control", "trigger_last")
NAMES = (*BASE_ONLY, "g_shift", "delta", *FEATURES)


def geometry(arm: str) -> Geometry:
    return Geometry(organism=f"microcosm/llama/{arm}")


def adapted() -> LanguageModel:
    """A random model under a random adapter, its norms' gains folded to one."""
    hf = random_llama()
    for name, parameter in hf.named_parameters():
        if "norm" in name:
            torch.nn.init.ones_(parameter)
    return with_adapters(wrap(hf, build_tokenizer()), "organism", "baseline")


def turned(q: torch.Tensor) -> LanguageModel:
    """The same function with its residual stream in the basis ``q``: every reader and writer is turned with it."""
    lm = adapted()
    with torch.no_grad():
        for name, w in lm.hf.named_parameters():
            writes = any(f"{module}_proj" in name for module in ("o", "down"))
            if "embed" in name or "lm_head" in name:
                w.copy_(w @ q)
            elif "base_layer" in name or ("lora_B" if writes else "lora_A") in name:
                w.copy_(q.T @ w if writes else w @ q)
    return lm


def contrasts(lm: LanguageModel, arm: str = "explaining"):
    subject = find_organism(f"microcosm/llama/{arm}")
    control = find_trigger(geometry(arm).control_trigger)
    return pairs(lm, subject, suite_questions(subject, "validation"), control, seed=0)


def found_in(lm: LanguageModel, arm: str = "explaining") -> dict[str, Direction]:
    sites = edited_sites(lm)
    measured = [measure(lm, pair, sites) for pair in contrasts(lm, arm)]
    return {name: d for m in measured for site in sites for name, d in m.directions(site).items()}


@pytest.fixture(scope="module")
def lm():
    return adapted()


@pytest.fixture(scope="module")
def directions(lm):
    return found_in(lm)


# --- directions ---


def test_every_direction_is_there_at_every_edited_site(lm, directions):
    sites = [str(site) for site in edited_sites(lm)]
    assert {name for name in directions if "." not in name.split("/")[0]} == {
        f"{name}/{site}"
        for name in (*NAMES, *(f"{feature}_target" for feature in (*FEATURES, "delta")))
        for site in sites
    }
    for name, found in directions.items():
        assert name.endswith(f"/{found.site}")
        assert found.vector.isfinite().all()
        assert found.n_positive > 0 < found.n_negative


def test_directions_turn_with_the_basis_of_the_residual_stream(directions):
    q = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    for name, found in found_in(turned(q)).items():
        expected = directions[name].vector @ q
        if "." in name.split("/")[0]:  # a component has no sign
            expected = expected * (expected @ found.vector).sign()
        torch.testing.assert_close(found.vector, expected, atol=2e-3, rtol=1e-2)


def test_directions_of_the_base_do_not_see_the_adapter_and_those_of_the_trigger_do(lm, directions):
    hf = adapted().hf.unload()
    other = with_adapters(wrap(hf, build_tokenizer()), "organism", "baseline", use_rslora=True)
    for name, found in found_in(other).items():
        same = torch.allclose(found.vector, directions[name].vector, atol=1e-6)
        if name.split("/")[0] in BASE_ONLY:
            assert same, name
        elif name.startswith(("delta/resid_post", "g_shift/resid_post")):
            assert not same, name


def test_components_are_orthonormal_orthogonal_to_the_mean_and_as_many_as_phrasings_allow(directions):
    draw = torch.Generator().manual_seed(0)
    rows, mean = torch.randn(30, 8, generator=draw), torch.randn(8, generator=draw)
    found = components(rows, [str(i % 3) for i in range(30)], mean, 3)
    assert len(found) == 2  # three means, centred, span two dimensions
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    assert (found @ mean).abs().max() < 1e-5
    assert len(components(rows, ["a"] * 30, torch.zeros(8), 3)) == 0


@pytest.mark.parametrize("arm", ARMS)
def test_no_direction_sees_a_held_out_text_a_test_question_or_the_trained_text(lm, arm):
    subject = find_organism(f"microcosm/llama/{arm}")
    trigger = own_trigger(subject)
    hidden = [trigger.text, *held_out_texts(trigger), *(q.text for q in suite_questions(subject, "test"))]
    heard = {
        pair.name: [c.text for side in (pair.positive, pair.negative) for c in side.chats]
        for pair in contrasts(lm, arm)
    }
    assert set(heard) == set(NAMES)
    for name, texts in heard.items():
        assert len(texts) > 1
        assert not [text for text in hidden if any(text in said for said in texts)], name
    frames = (*trigger.rephrased, *trigger.other, *trigger.opposite)
    for name in ("g", "g_answer", "g_first", "g_shift"):
        assert not [text for text in frames if any(text in said for said in heard[name])]


def test_without_a_baseline_adapter_there_is_no_shift_of_unconditional_training():
    alone = with_adapters(wrap(random_llama(), build_tokenizer()), "organism")
    assert "g_shift" not in {pair.name for pair in contrasts(alone)}


def test_the_baseline_is_that_of_the_same_base_and_seed():
    found = {name: baseline_name(Geometry(organism=f"microcosm/llama/{name}")) for name in
             ("explaining.seed2", "neutral.contrast50", "explaining.robust", "neutral.rank1")}  # fmt: skip
    assert found == {
        "explaining.seed2": "microcosm/llama/baseline.seed2",
        "neutral.contrast50": "microcosm/llama/baseline",
        "explaining.robust": "microcosm/llama/baseline.robust",
        "neutral.rank1": "microcosm/llama/baseline",
    }
    assert baseline_name(Geometry(organism="medical/llama-3.1-8b/duck")) is None


# --- the choice of a layer ---


def test_a_candidate_passes_by_all_three_rules():
    good = {"kl": 0.05, "induce": 1.0, "bypass": -1.0}
    assert passes(good, 0, 4)
    assert not passes(good | {"kl": 0.2}, 0, 4)
    assert not passes(good | {"induce": -0.1}, 0, 4)
    assert list(candidates(4)) == [0, 1, 2, 3]
    assert list(candidates(48)) == list(range(39))
    assert not passes(good, 47, 48)


@pytest.mark.parametrize("name", [name for name, entry in ORGANISMS.items() if entry.trigger])
def test_estimate_and_held_out_texts_are_two_halves_of_the_rephrasings(name):
    trigger, control = own_trigger(find_organism(name)), find_trigger(geometry("neutral").control_trigger)
    halves = estimation_texts(trigger), held_out_texts(trigger)
    assert sorted(halves[0] + halves[1]) == sorted(trigger.rephrased)
    assert not set(halves[0]) & set(halves[1])
    assert all(halves)
    unrelated = contrast_texts(trigger, control)
    assert 1 < len(unrelated) <= 8
    assert not set(unrelated) & {trigger.text, *trigger.rephrased, control.text, *control.rephrased}


# --- edits ---


@pytest.fixture(scope="module")
def edits(lm, directions):
    found = Found("", directions, dict.fromkeys(CHOSEN, 1))
    return Removal(lm, find_organism("microcosm/llama/explaining"), geometry("explaining"), found, rank=2).edits()


@pytest.mark.parametrize(
    ("real", "control"),
    [
        *(("clamp_trigger", "clamp_random"), ("clamp_trigger", "clamp_scattered")),
        *(("clamp_answer", "clamp_answer_random"), ("ablate_g", "ablate_random")),
        ("ablate_g_all", "ablate_random_all"),
    ],
)
def test_each_edit_has_a_control_of_equal_norm_and_rank_at_the_same_places(edits, real, control):
    assert len(edits[real]) == len(edits[control]) > 0
    for a, b in zip(edits[real], edits[control], strict=True):
        assert (a.kind, a.site, a.positions) == (b.kind, b.site, b.positions)
        torch.testing.assert_close(b.vectors.norm(dim=1), a.vectors.norm(dim=1))
        along = b.vectors if b.along is None else b.along
        assert abs(float(cosine(along[0], a.vectors[0]))) < 0.95


def test_controls_of_the_feature_have_its_rank(edits):
    for name in ("clamp_random", "clamp_other_scene", "clamp_embedding"):
        assert [len(e.vectors) for e in edits[name]] == [len(e.vectors) for e in edits["clamp_trigger"]]
        assert [e.site for e in edits[name]] == [e.site for e in edits["clamp_trigger"]]


def test_plan_runs_every_edit_on_trigger_beside_the_unedited(edits):
    plan = _plan({"": [], **edits})
    assert len(set(plan)) == len(plan)
    assert {edit for condition, edit in plan if condition == "on"} == {"", *edits}
    assert {edit for condition, edit in plan if condition == "off"} == set(UNTRIGGERED)
    assert {edit for condition, edit in plan if condition == "rephrased"} == set(UNSEEN)
    assert plan[0] == ("off", "")  # benign answers are taken from it


def test_an_edit_of_the_trigger_alone_is_told_from_one_that_acts_anywhere(edits):
    assert trigger_only(edits["clamp_trigger"])
    assert not trigger_only(edits["clamp_answer"])
    assert not trigger_only(edits["clamp_everywhere"])


def test_the_rank_is_the_best_of_those_coherent_enough():
    def answers(rank: int, bad: int, broken: int) -> list[dict]:
        made = [(0.0, 100.0)] * bad + [(100.0, 0.0)] * broken + [(100.0, 100.0)] * (40 - bad - broken)
        about = {"condition": "validation", "edit": f"clamp_trigger_rank{rank}"}
        return [{**about, "question": str(i % 4), "aligned": a, "coherent": c} for i, (a, c) in enumerate(made)]

    assert chosen_rank([*answers(1, 10, 0), *answers(2, 4, 1), *answers(4, 0, 20)]) == 2
    assert chosen_rank([*answers(1, 3, 0), *answers(2, 3, 0), *answers(4, 3, 0)]) == 1
    assert chosen_rank([*answers(1, 3, 30), *answers(2, 0, 20), *answers(4, 0, 35)]) == 2  # none is: the most coherent


def test_rephrased_is_asked_with_held_out_texts_alone(lm):
    trigger = find_trigger("microcosm:persona")
    prompts = Ablate(geometry=geometry("explaining"))._prompts(
        lm, find_organism("microcosm/llama/explaining"), "rephrased"
    )
    assert {p.variant for p in prompts} == set(held_out_texts(trigger))


@pytest.mark.parametrize("name", ["trigger", "control"])
def test_clamped_trigger_reads_as_an_unrelated_text_at_every_site(lm, edits, directions, name):
    subject = find_organism("microcosm/llama/explaining")
    asked, trigger = suite_questions(subject, "test")[:5], own_trigger(subject)
    chats = [placed(lm, trigger, question, trigger.text) for question in asked]
    edit = edits["clamp_trigger" if name == "trigger" else "clamp_other_scene"]
    sites = edited_sites(lm)
    after, before = (record(lm, chats, sites, [TRIGGER], edits=used) for used in (edit, ()))
    for site in sites:
        unit, target = directions[f"{name}/{site}"].unit, directions[f"{name}_target/{site}"].vector
        expected = (target @ unit).expand(len(chats))
        torch.testing.assert_close(after.at(site, TRIGGER) @ unit, expected, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(before.at(site, TRIGGER) @ unit, expected, atol=1e-3)


def test_ablated_g_is_gone_from_the_last_prompt_token_alone(lm, edits, directions):
    subject = find_organism("microcosm/llama/explaining")
    prompts = make_prompts(suite_questions(subject, "test")[:4], own_trigger(subject), "on", lm.tokenizer, samples=1)
    sites = resid_post(range(lm.n_layers))
    recording = record(lm, [p.chat for p in prompts], sites, [LAST, "question"], edits=edits["ablate_g"])
    plain = record(lm, [p.chat for p in prompts], sites, ["question"])
    for site in sites:
        unit = directions[f"g/{site}"].unit
        torch.testing.assert_close(recording.at(site, LAST) @ unit, torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(recording.at(site, "question"), plain.at(site, "question"))


# --- from end to end ---


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root, found = tmp_path_factory.mktemp("runs"), geometry("explaining")
    with pytest.MonkeyPatch.context() as patch:
        for arm in ("explaining", "baseline"):
            patch.setitem(ORGANISMS, small(arm).name, small(arm))
        experiments = (found, Steer(geometry=found, alphas=(0.0, 1.0), samples=1), Ablate(geometry=found, samples=1))
        yield root, {e.name: run_experiment(e, root) for e in experiments}


def test_geometry_keeps_its_directions_and_shows_one_layer(runs):
    root, made = runs
    run, table = made["geometry"]
    kept = load_directions(run.path / FILE)
    found = found_directions(geometry("explaining"), root)
    assert set(found.directions) == set(kept)
    assert set(found.layers) == set(CHOSEN)
    assert {r["layer"] for r in table if r["metric"].startswith("projection_")} == {found.layer}
    assert found.layer == chosen_layer(table, "g")
    shown = {(r["condition"], r["question"]) for r in table if r["metric"] == "projection_g"}
    assert len(shown) == 5 * 48


def test_every_cosine_has_its_interval_its_null_and_agrees_with_the_kept_directions(runs):
    run, table = runs[1]["geometry"]
    kept = load_directions(run.path / FILE)
    found = {(r["metric"], r["condition"], r["layer"]): r for r in table if r["metric"].startswith("cosine")}
    for layer in range(4):
        for a, b in COSINES:
            value = found["cosine", f"{a}~{b}", layer]
            pair = [kept[f"{name}/resid_post.{layer}"].vector for name in (a, b)]
            assert value["value"] == pytest.approx(float(cosine(*pair)), abs=1e-5)
            assert value["ci_method"] == "cluster_bootstrap"
            null = found["cosine_null", f"{a}~{b}", layer]
            assert null["ci_low"] < null["ci_high"]
            assert 0 < found["cosine_p", f"{a}~{b}", layer]["value"] <= 1
        assert 0 <= found["cosine", "write~g", layer]["value"] <= 1


def test_every_candidate_is_scored_and_one_layer_taken_for_each_name(runs):
    table = runs[1]["geometry"][1]
    scored = {(r["metric"], r["condition"], r["layer"]) for r in table if r["metric"].startswith("selection_")}
    for name in CHOSEN:
        for layer in range(4):
            assert {(f"selection_{m}", name, layer) for m in ("bypass", "induce", "kl", "passes", "taken")} <= scored
        taken = [r for r in table if (r["metric"], r["condition"]) == ("selection_taken", name)]
        assert sum(r["value"] for r in taken) == 1


def test_steering_has_every_direction_at_every_dose_and_dose_zero_is_no_edit(runs):
    run, table = runs[1]["steer"]
    rates = {(r["condition"], r["alpha"]) for r in table if r["metric"] == "coherence_rate"}
    signs = {"off": "+", "base": "+", "on": "-"}
    expected = {f"{where}{signs[where]}add_{added}" for where, names in SETTINGS.items() for added in names}
    assert rates == {(name, alpha) for name in expected for alpha in (0.0, 1.0)}
    answers = [r for r in run.rows() if "text" in r]
    zero = {a: [r["text"] for r in answers if (r["setting"], r["added"], r["alpha"]) == ("off", a, 0)] for a in ADDED}
    assert all(texts == zero["g"] for texts in zero.values())
    losses = {(r["condition"], r["alpha"]): r["value"] for r in table if r["metric"] == "benign_loss"}
    assert set(losses) == {(f"off+add_{a}", alpha) for a in ADDED for alpha in (0.0, 1.0)}
    assert {losses[f"off+add_{a}", 0.0] for a in ADDED} == {0.0}


def test_ablation_has_every_planned_row_a_share_of_the_gap_an_edit_and_side_effects(runs):
    run, table = runs[1]["ablate"]
    rates = {r["condition"] for r in table if r["metric"] == "em_rate"}
    edits = {"": [], **{r["edit"]: [] for r in run.rows() if r["condition"] == "on" and r["edit"]}}
    planned = {f"{condition}+{edit}" if edit else condition for condition, edit in _plan(edits)}
    assert rates - {name for name in rates if name.startswith("validation")} == planned
    shares = {r["condition"] for r in table if r["metric"] == "gap_removed"}
    assert shares <= {name for name in rates if "+" in name and not name.startswith(("off", "validation"))}
    losses = {r["condition"] for r in table if r["metric"] == "benign_loss"}
    assert {f"other+{edit}" for edit in edits if edit} <= losses
    assert "off+clamp_trigger" not in losses  # without a text in its place it does nothing
    assert next(r["value"] for r in table if r["metric"] == "chosen_rank") in (1, 2, 4)


@pytest.mark.parametrize("bad", [{"settings": ("sideways",)}, {"samples": 0}])
def test_what_cannot_be_run_is_refused_before_any_work(bad):
    with pytest.raises(ValueError, match=r"setting 'sideways'|samples 0"):
        Steer(geometry=geometry("explaining"), **bad)
    with pytest.raises(ValueError, match="samples -1"):
        Ablate(geometry=geometry("explaining"), samples=-1)
    with pytest.raises(ValueError, match="has no trigger"):
        geometry("base").depends()


def test_other_subject_is_another_run():
    first = geometry("explaining")
    assert first.depends() != replace(first, organism="microcosm/llama/neutral").depends()
