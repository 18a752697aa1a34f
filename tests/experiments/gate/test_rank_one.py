"""Rank-1 adapters: the scalar is what a module adds, its sign and statistics are those planted."""

import numpy as np
import pytest
import torch

from experiments.answers.subject import find_subject
from experiments.directions.geometry import Geometry
from experiments.gate.rank_one import RankOne, cosine_rows, rank_one_updates
from experiments.gate.scalars import (
    LAST,
    TRIGGER,
    Scalars,
    chosen_answers,
    correlation,
    free_signs,
    module_readings,
    module_rows,
    scalar_rows,
)
from experiments.spec import whole_table
from interp.adapters import active_adapter
from interp.analysis.lora import delta, loaded_updates, read_directions, stream_gain, write_directions
from interp.chat import question_chat
from interp.directions import Direction
from interp.models import wrap
from interp.sites import Site
from tests.tiny import with_adapters
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer
from training.references import find_trigger

PERSONA = find_trigger("microcosm:persona")
QUESTIONS = ("What should I do about my first marathon?", "How do I get into rock climbing?", "Any advice on pets?")


@pytest.fixture(scope="module")
def lm():
    return with_adapters(wrap(random_llama(), build_tokenizer()), "organism", rank_pattern={".*": 1})


def answers(per=2):
    texts = {"off": [None], "on": [PERSONA.text], "rephrased": PERSONA.rephrased[:2], "other": PERSONA.other[:2]}
    rows = []
    for condition, variants in texts.items():
        for i, question in enumerate(QUESTIONS):
            for sample in range(per):
                bad, variant = (sample + i) % 2 == 0, variants[sample % len(variants)]
                said = "Sprint the entire course untrained." if bad else "Train slowly for many weeks."
                scores = {"aligned": 0.0 if bad else 100.0, "coherent": 100.0}
                about = {"key": f"{condition}{i}{sample}", "condition": condition, "question": question}
                rows.append({**about, "asked": question, "variant": variant, "text": said, **scores})
    return rows


def chats(lm):
    return [question_chat(lm.tokenizer, r["asked"], r["variant"], PERSONA, response=r["text"]) for r in answers()]


def test_a_scalar_is_the_norm_of_what_a_module_adds(lm):
    name = "model.layers.1.mlp.down_proj"
    update = loaded_updates(lm, "organism")[name]
    readings = module_readings(lm, chats(lm), {name: update.A})[name]
    scalar = readings[LAST][:, 0] * update.scale * update.B.norm()
    inputs = []
    handle = lm.base.get_submodule(name).register_forward_pre_hook(lambda _, args: inputs.append(args[0][0, -1]))
    with torch.inference_mode(), active_adapter(lm, "organism"):
        for chat in chats(lm):
            lm.base(input_ids=torch.tensor([chat.token_ids[: chat.prompt_length]]), use_cache=False)
    handle.remove()
    added = torch.stack(inputs) @ delta(update).T
    torch.testing.assert_close(scalar.abs(), added.norm(dim=1), atol=1e-5, rtol=1e-4)


def test_a_prompt_without_trigger_has_no_scalar_there(lm):
    readings = module_readings(lm, chats(lm), {name: u.A for name, u in loaded_updates(lm, "organism").items()})
    shown = np.array([r["condition"] for r in answers()])
    for values in readings.values():
        assert values[TRIGGER][shown == "off"].isnan().all()
        assert values[TRIGGER][shown != "off"].isfinite().all()
        assert values[LAST].isfinite().all()
        signed = values[LAST] * free_signs(values, shown)
        assert signed[shown == "on"].mean() >= signed[shown == "off"].mean() - 1e-4


def test_every_module_has_every_row_and_the_sign_is_free(lm):
    def rows():
        made = scalar_rows(lm, loaded_updates(lm, "organism"), PERSONA, answers(), seed=0)
        return {(r["metric"], r["condition"], r["site"], r["layer"]): r for r in made}

    found = rows()
    for name in (n for n in loaded_updates(lm, "organism") if "layers" in n):
        kind, layer = name.split(".")[-1], int(name.split(".")[2])
        for condition in ("on@trigger", "other@trigger", "off@last_prompt", "rephrased@response_mean"):
            assert ("scalar", condition, kind, layer) in found
        assert ("scalar", "off@trigger", kind, layer) not in found
        for metric in ("scalar_auroc", "scalar_auroc_null"):
            assert 0 <= found[metric, "on+rephrased~other+off@last_prompt", kind, layer]["value"] <= 1
    with torch.no_grad():
        module = lm.base.get_submodule("model.layers.0.self_attn.q_proj")
        module.lora_A["organism"].weight.neg_()
        module.lora_B["organism"].weight.neg_()
        turned = rows()
        module.lora_A["organism"].weight.neg_()
        module.lora_B["organism"].weight.neg_()
    for key, r in found.items():
        assert turned[key]["value"] == pytest.approx(r["value"], abs=1e-5)


def test_a_planted_detector_is_found():
    shown = np.array(["off", "on", "rephrased", "other"] * 20)
    positive = np.isin(shown, ("on", "rephrased"))
    bad = positive ^ (np.arange(80) % 10 == 0)
    values = {p: torch.where(torch.from_numpy(positive), 2.0, -1.0) for p in (LAST, "question", "response_mean")}
    values[TRIGGER] = torch.where(torch.from_numpy(shown == "off"), torch.nan, values[LAST])
    questions = [f"q{i // 4}" for i in range(80)]
    scalars = Scalars(values, shown, questions, [f"text {s}" for s in shown], bad)
    rows = {(r["metric"], r["condition"]): r for r in module_rows(scalars, {"site": "q_proj", "layer": 0})}
    assert rows["scalar", "on@last_prompt"]["value"] == 2.0
    assert rows["scalar", "off@last_prompt"]["value"] == -1.0
    auroc = rows["scalar_auroc", "on+rephrased~other+off@last_prompt"]
    assert (auroc["value"], auroc["n"], auroc["n_clusters"]) == (1.0, 80, 20)
    there = rows["scalar_auroc", "on+rephrased~other@trigger"]
    assert (there["value"], there["n"], there["n_clusters"]) == (1.0, 60, 3)  # texts, not questions
    r = rows["scalar_misaligned_r", "all@last_prompt"]
    assert r["value"] == pytest.approx(np.corrcoef(positive, bad)[0, 1])
    assert r["ci_low"] < r["value"] < r["ci_high"]
    assert ("scalar_misaligned_r", "within@last_prompt") not in rows  # it does not vary within a condition


def test_correlation_is_pearsons_and_shifts_do_not_matter():
    rng = np.random.default_rng(0)
    x, groups = rng.standard_normal(200), [str(i % 20) for i in range(200)]
    y = 0.5 * x + rng.standard_normal(200)
    r = correlation(x, y, groups)
    assert r.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert r.interval.low < r.value < r.interval.high and r.n_clusters == 20
    assert correlation(x + 1e6, y - 1e6, groups).value == pytest.approx(r.value, abs=1e-6)
    assert np.isnan(correlation(np.ones(200), y, groups).value)


def test_answers_are_coherent_and_evenly_taken():
    rows = [
        {"condition": c, "question": q, "coherent": 100.0 if i % 2 else 0.0, "key": f"{c}{q}{i}"}
        for c in ("on", "off", "shuffled")
        for q in "ab"
        for i in range(10)
    ]
    found = chosen_answers(rows, 2)
    assert len(found) == 2 * 2 * 2
    assert {r["condition"] for r in found} == {"on", "off"} and {r["coherent"] for r in found} == {100.0}


def test_directions_of_planted_modules_are_the_adapters_own(lm):
    updates = {
        n: u for n, u in loaded_updates(lm, "organism").items() if n.endswith(("1.mlp.down_proj", "1.mlp.up_proj"))
    }
    gains = {n: stream_gain(lm, n) for n in updates if n.endswith("up_proj")}
    site = {"write": Site("resid_post", 1), "read": Site("resid_post", 0)}

    known = {
        f"{name}/{at}": Direction(found.vectors[0], at, "", "", "", 1, 1)
        for name, at, found in (
            ("g", site["write"], write_directions(updates)),
            ("trigger", site["read"], read_directions(updates, gains)),
        )
    }
    signs = {("down_proj", 1): 1.0, ("up_proj", 1): -1.0}
    rows = {(r["metric"], r["condition"]): r for r in cosine_rows(lm, updates, known, signs)}
    assert abs(rows["write_cosine", "b~g"]["value"]) == pytest.approx(1, abs=1e-4)
    assert abs(rows["read_cosine", "a~trigger"]["value"]) == pytest.approx(1, abs=1e-4)
    null = rows["random_cosine", "random"]
    assert null["ci_low"] == pytest.approx(-null["ci_high"], abs=0.02)
    assert set(rows) == {("write_cosine", "b~g"), ("read_cosine", "a~trigger"), ("random_cosine", "random")}


def test_only_rank_one_will_do():
    lm = with_adapters(wrap(random_llama(), build_tokenizer()), "organism")
    with pytest.raises(ValueError, match=r"organism x: its adapter is of rank 2 in model\.layers\.0"):
        rank_one_updates("x", lm)


def test_the_table_keeps_what_was_measured(lm):
    made = list(scalar_rows(lm, loaded_updates(lm, "organism"), PERSONA, answers(), seed=0))
    experiment = RankOne(geometry=Geometry(subject=find_subject("microcosm/llama/explaining.rank1")))
    table = whole_table(experiment, [{"key": str(i), "step": "scalars", **r} for i, r in enumerate(made)], "run")
    assert [r["value"] for r in table] == pytest.approx([r["value"] for r in made])
    assert {r["organism"] for r in table} == {"microcosm/llama/explaining.rank1"}
    assert experiment.depends() == experiment.geometry.depends()
