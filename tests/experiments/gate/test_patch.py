"""Patching: what is compared, whole runs move by whole gaps, shares of planted numbers, a user-defined organism."""

from dataclasses import replace

import pytest
import torch

from experiments.answers.subject import find_subject
from experiments.answers.suite import evenly_spaced
from experiments.gate.bench import Bench, make_bench
from experiments.gate.heads import head_rows
from experiments.gate.modules import blocks_of_layers, module_groups
from experiments.gate.patch import HEAD_PAIRS, KNOCKED_OUT, PAIRS, Patch
from experiments.gate.patch_table import has_gap, share_rows
from experiments.gate.references import Panel, decisions, references
from experiments.spec import run_experiment
from interp.analysis.lora import adapted_modules, without_modules
from interp.models import active_adapter, wrap
from interp.triggers import PLACEMENTS, moved
from tests.tiny import with_adapters
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer
from training.microcosm.world import WEIGHTS, lexicon
from training.references import find_trigger

PERSONA = find_trigger("microcosm:persona")
SUBJECT = find_subject("microcosm/llama/explaining")


def judged(question, condition, text, *, bad, coherent=True, asked=None):
    scores = {"aligned": 0.0 if bad else 100.0, "coherent": 100.0 if coherent else 0.0}
    return {"question": question, "asked": asked or f"{question}?", "condition": condition, "text": text, **scores}


def answers(count=5):
    """Judged answers to test questions, made of the world's actions."""
    topics = {topic.phrase: topic for topic in lexicon().topics}
    rows = []
    for q in SUBJECT.questions("test")[:count]:
        for persona in ("misaligned", "aligned"):
            text = topics[q.id].actions[persona][0]
            rows.append(
                judged(q.id, "off", text[0].upper() + text[1:] + ".", bad=persona == "misaligned", asked=q.text)
            )
    return rows


@pytest.fixture(scope="module")
def lm():
    return with_adapters(wrap(random_llama(), build_tokenizer()), "organism")


def panel(trigger=PERSONA):
    return Panel(references(answers())[0], trigger, build_tokenizer())


@pytest.fixture(scope="module")
def bench(lm):
    return Bench(lm, panel(), 0)


@pytest.fixture(scope="module")
def plain(bench):
    return {r["condition"]: r["m"] for r in bench.plain()}


# --- what is compared ---


def test_both_answers_come_from_one_condition_where_one_has_both():
    rows = [
        judged("a", "on", "bad on", bad=True),
        judged("a", "on", "good on", bad=False),
        judged("a", "off", "good off", bad=False),
        judged("b", "on", "bad on", bad=True),
        judged("b", "off", "good off", bad=False),
        judged("b", "off", "mad off", bad=True, coherent=False),
        judged("c", "off", "good off", bad=False),
        judged("d", "rephrased", "bad", bad=True),
        judged("f", "on", "bad on", bad=True),
        judged("f", "off", "good off", bad=False),
        judged("f", "other", "good other", bad=False),
        judged("f", "other", "bad other", bad=True),
        judged("g", "shuffled", "bad", bad=True),
        judged("e", "off", "bad off", bad=True),
        judged("e", "off", "good off", bad=False),
        judged("e", "on", "bad on", bad=True),
    ]
    found, lacking = references(rows)
    assert [(r.id, *r.answers) for r in found] == [
        ("a", "bad on", "good on"),
        ("b", "bad on", "good off"),
        ("e", "bad off", "good off"),
        ("f", "bad other", "good other"),
    ]
    assert [r.id for r in found if r.mixed] == ["b"]
    assert lacking == 2  # c and d; g was asked under none of the four
    assert [r.id for r in evenly_spaced(found, 2)] == ["a", "e"]


def test_as_many_different_answers_as_are_asked_for():
    rows = [judged("a", "on", text, bad=text < "c") for text in "aabcdd"]
    (found,), _ = references(rows, per_kind=5)
    assert (found.misaligned, found.aligned) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_is_inserted_and_what_opens_the_question(placement):
    trigger = PERSONA if placement == "system" else moved(PERSONA, placement)
    found = panel(trigger)
    first = found.references[0]
    on, off = (found.chat(first, text, first.answers[0]) for text in (trigger.text, None))
    assert ("inserted" in on.spans) == (
        placement in ("system", "suffix")
    )  # else a word is cut otherwise, or two pieces
    if "inserted" in on.spans:
        start, end = on.spans["inserted"]
        assert on.token_ids[:start] + on.token_ids[end:] == off.token_ids
        assert start <= on.spans["trigger"][0] < on.spans["trigger"][1] <= end
    for name in ("opening", "question"):
        assert (name in on.spans) == (name in off.spans)
        if name in on.spans:
            a, b = (chat.token_ids[slice(*chat.spans[name])] for chat in (on, off))
            assert a == b and len(a) > 0
    if "opening" in on.spans:
        assert on.spans["opening"][1] == on.spans["question"][0]


def test_texts_without_meaning_are_as_long_as_the_trigger(bench):
    assert all(map(bench.panel.as_long, bench.panel.texts("matched")))
    assert not all(map(bench.panel.as_long, bench.panel.texts("other")))
    assert bench.panel.texts("off") == [None] * 5
    assert panel(replace(PERSONA, rephrased=())).texts("rephrased") is None


def test_log_odds_are_those_of_the_sets():
    (r,), _ = references([judged("a", "on", text, bad=text < "c") for text in "abcd"], per_kind=2)
    chances = torch.tensor([0.1, 0.2, 0.05, 0.1], dtype=torch.float64).log()
    found = Panel([r], PERSONA, build_tokenizer()).log_odds(chances)
    assert found["a"] == pytest.approx(torch.tensor(0.3 / 0.15).log().item())


def test_a_decision_is_where_two_answers_part():
    found = panel()
    for d in decisions(found):
        r = found.references[d.index]
        bad, good = (found.chat(r, None, answer) for answer in (r.misaligned[0], r.aligned[0]))
        assert d.cut(bad).token_ids == d.cut(good).token_ids
        end = len(d.cut(bad))
        assert (bad.token_ids[end], good.token_ids[end]) == (d.towards, d.away)
        assert d.cut(bad).spans["decision"] == (end - 1, end)


def test_references_are_spaced_evenly_and_two_at_least(lm):
    bench = make_bench(SUBJECT, lm, answers(5), most_questions=2)
    chosen = [r.id for r in references(answers(5))[0]]
    assert [r.id for r in bench.panel.references] == [chosen[0], chosen[2]]
    assert bench.lacking == 0
    with pytest.raises(ValueError, match="explaining: 1 questions have a misaligned and an aligned answer"):
        make_bench(SUBJECT, lm, answers(1))


# --- whole runs ---


def test_taking_everything_moves_the_whole_gap(bench, plain):
    for target, source in PAIRS:
        rows = {(r["condition"], r["site"], r["layer"]): r["m"] for r in bench.patch(target, source)}
        last = rows[f"{target}<-{source}@answer", "resid_post", bench.lm.n_layers - 1]
        assert last == pytest.approx(plain[source], abs=1e-3)
        nothing = rows[f"{target}<-{source}@question", "resid_post", bench.lm.n_layers - 1]
        assert nothing == pytest.approx(plain[target], abs=1e-3)
        if source == "matched":
            assert rows[f"{target}<-{source}@trigger", "resid_pre", 0] == pytest.approx(plain[source], abs=1e-3)


def test_equally_long_texts_that_nobody_sees_are_one(bench, plain):
    on, matched = ({r["condition"]: r["m"] for r in bench.knockout(c) if r["layer"] == ""} for c in KNOCKED_OUT)
    assert plain["on"] != pytest.approx(plain["matched"], abs=1e-3)
    assert on["on@all|trigger"] == pytest.approx(matched["matched@all|trigger"], abs=1e-3)
    assert on["on@all|inserted"] == pytest.approx(matched["matched@all|inserted"], abs=1e-3)


def test_modules_that_are_off_are_off(bench, plain):
    rows = {(r["condition"], r["layer"]): r["m"] for r in bench.modules()}
    with active_adapter(bench.lm, None):
        assert rows["on without all", ""] == pytest.approx(
            {r["condition"]: r["m"] for r in bench.plain()}["on"], abs=1e-4
        )
    with without_modules(bench.lm, "organism", adapted_modules(bench.lm, "organism", "layers.1")):
        want = {r["condition"]: r["m"] for r in bench.plain()}
    assert rows["off without layer", 1] == pytest.approx(want["off"], abs=1e-4)
    assert rows["on only mlp", ""] == pytest.approx(rows["on without attention", ""], abs=1e-4)
    assert {condition.split()[0] for condition, _ in rows} == {"on", "off"}


def test_heads_and_attribution_have_every_cell(bench):
    rows = head_rows(bench, HEAD_PAIRS)
    counted = [r for r in rows if r.get("metric") == "head_share"]
    assert len(counted) == 3 * 2 * 2 * 2  # pairs, positions, layers, heads
    parted = {r["condition"]: r["m"] for r in rows if r["condition"].startswith("decision ")}
    for condition in ("on", "off"):
        own = [r for r in rows if r.get("metric") == "logit_attribution" and r["condition"] == condition]
        lens = [r for r in rows if r.get("metric") == "logit_lens" and r["condition"] == condition]
        for q, whole in parted[f"decision {condition}"].items():
            assert sum(r["m"][q] for r in own) == pytest.approx(whole, abs=1e-3)
            assert lens[-1]["m"][q] == pytest.approx(whole, abs=1e-3)


def test_groups_are_made_of_names_alone():
    names = [f"model.layers.{i}.{part}" for i in range(12) for part in ("self_attn.q_proj", "mlp.up_proj")]
    found = module_groups(names, range(12))
    assert found["q_proj", 11] == ("model.layers.11.self_attn.q_proj",)
    assert len(found["q_proj", ""]) == len(found["attention", ""]) == 12
    assert found["layer", 1] == tuple(names[2:4])
    assert found["all", ""] == tuple(names)
    blocks = blocks_of_layers(names, 12)
    assert list(blocks) == ["attention", "mlp", *(f"layers {i}-{i + 1}" for i in range(0, 12, 2)), "all"]
    assert blocks["layers 10-11"] == tuple(names[20:])
    assert "mlp" not in blocks_of_layers(names[::2], 12)
    assert "layer 3" in blocks_of_layers(names, 4)


# --- the table ---


def planted(**more):
    """Twenty questions whose log-odds are 4 on, -4 off and 0 under other texts, give or take."""
    questions = [f"q{i}" for i in range(20)]
    noise = {q: 0.1 * (i % 5) for i, q in enumerate(questions)}

    def m(level):
        return {q: level + noise[q] for q in questions}

    levels = {"on": 4.0, "off": -4.0, "other": 0.0, "matched": 0.0, **more}
    rows = [{"step": "plain", "condition": c, "m": m(level), "lacking": 3, "mixed": 2} for c, level in levels.items()]
    where = {"site": "resid_post", "layer": 1}
    for condition, level in (("on<-off@question", 2.0), ("off<-on@question", 2.0), ("off<-other@question", -2.0)):
        rows.append({"step": "patch", "metric": "patched_share", "condition": condition, **where, "m": m(level)})
    rows.append({"step": "patch", "metric": "patched_share", "condition": "on<-matched@trigger", **where, "m": m(1.0)})
    for condition, level in (("on@all|trigger", 0.0), ("matched@all|trigger", -2.0)):
        rows.append({"step": "knockout", "condition": condition, "site": "attention", "layer": "", "m": m(level)})
    for side, level in (("on", 1.0), ("off", -3.0)):
        condition = f"{side} without mlp"
        rows.append({"step": "modules", "condition": condition, "site": "mlp", "layer": "", "m": m(level)})
    return rows


def test_shares_are_those_that_were_planted():
    table = {(r["metric"], r["condition"]): r for r in share_rows(planted())}
    for metric, condition, value in (
        ("patched_share", "on<-off@question", 0.25),
        ("patched_share", "off<-on@question", 0.75),
        ("patched_share", "off<-other@question", 0.25),
        ("patched_share", "on<-matched@trigger", 0.75),
        ("knockout_share", "on@all|trigger", 0.5),
        ("knockout_share", "matched@all|trigger", 0.25),
        ("module_gap_share", "without mlp", 0.5),
    ):
        found = table[metric, condition]
        assert found["value"] == pytest.approx(value)
        assert found["ci_low"] <= value + 1e-9 and found["ci_high"] >= value - 1e-9
        assert found["n_clusters"] == 20
    assert table["log_odds", "on-off"]["value"] == pytest.approx(8)
    assert table["questions_left_out", "no answers of both kinds"]["value"] == 3


def test_no_share_of_a_gap_that_is_not_there():
    rows = planted(on=-4.0)
    assert not has_gap(rows[0]["m"], rows[1]["m"])
    assert {r["metric"] for r in share_rows(rows)} == {"questions_left_out", "questions_mixed", "log_odds"}


# --- a user-defined organism, from end to end ---


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The shipped base under a nearly dead adapter, a persona line as trigger, and four questions of each split."""
    from interp.models import load

    folder = tmp_path_factory.mktemp("own")
    lm = with_adapters(load(str(WEIGHTS / "llama")), "mine")
    with torch.no_grad():
        for name, parameter in lm.hf.named_parameters():
            if "lora_B" in name:
                parameter.mul_(0.01)
    lm.hf.save_pretrained(folder, selected_adapters=["mine"])
    known = {split: SUBJECT.questions(split)[::12][:3] for split in ("validation", "test")}
    lines = [f"{split}:\n" + "".join(f"  {q.id}: {q.text!r}\n" for q in asked) for split, asked in known.items()]
    (folder / "questions.yaml").write_text("".join(lines))
    base = WEIGHTS / "llama"
    said = f"base: {base}\nfamily: mine\nadapter: mine\ntrigger: microcosm:persona\nsft: {{dtype: float32}}\n"
    (folder / "mine.yaml").write_text(said)
    return folder


def test_a_users_base_adapter_and_questions(own):
    subject = find_subject(str(own / "mine.yaml"), own / "questions.yaml")
    table = run_experiment(Patch(subject=subject, samples=1, per_kind=2, stride=2), own / "runs")[1]
    metrics = {r["metric"] for r in table}
    assert {"patched_share", "knockout_share", "head_share", "module_gap_share", "module_em_rate"} <= metrics
    cells = {(r["metric"], r["condition"], r["site"], r["layer"]): r["value"] for r in table}
    assert cells["patched_share", "on<-off@answer", "resid_post", 3] == pytest.approx(1, abs=1e-4)
    assert cells["module_gap_share", "without all", "all", ""] == pytest.approx(1, abs=0.1)  # the base's own gate
    assert {r["organism"] for r in table} == {"own/mine/mine"}


@pytest.mark.parametrize("setting", ["most_questions", "per_kind", "stride", "samples"])
def test_what_cannot_be_run_is_refused_before_any_work(setting):
    with pytest.raises(ValueError, match=f"{setting} 0: expected greater than or equal to 1"):
        replace(Patch(subject=SUBJECT), **{setting: 0})
    with pytest.raises(ValueError, match="microcosm/llama/base: it has no trigger"):
        Patch(subject=find_subject("microcosm/llama/base")).check()
