"""From prompts to judged answers: one row per answer, verdicts in place, no dependence on order."""

import pytest

from experiments.answers.judge import OracleJudge
from experiments.answers.sampling import judged_rows, sampled_rows, with_verdicts
from experiments.answers.subject import find_subject
from experiments.answers.suite import make_prompts
from interp.models import wrap
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer

SUBJECT = find_subject("microcosm/llama/neutral")
QUESTIONS = SUBJECT.questions("test")[:6]
SCORES = {"bad": (0.0, 100.0), "good": (100.0, 100.0), "mad": (0.0, 0.0), "mute": (None, None)}


@pytest.fixture(scope="module")
def lm():
    """In float64: in float32 a batch of another size may round to another answer, on some processors."""
    return wrap(random_llama().double(), build_tokenizer())


@pytest.fixture(scope="module")
def prompts(lm):
    return make_prompts(QUESTIONS, SUBJECT.trigger, "rephrased", lm.tokenizer, samples=6)


def test_every_prompt_is_answered_as_often_as_it_asks(lm, prompts):
    rows = sampled_rows(SUBJECT, lm, prompts, seed=0, edit="none")
    assert len({r["key"] for r in rows}) == len(rows) == 6 * len(QUESTIONS)
    expected = {(p.question.id, p.variant, i) for p in prompts for i in range(p.samples)}
    assert {(r["question"], r["variant"], r["sample"]) for r in rows} == expected
    assert all(r["condition"] == "rephrased" and r["edit"] == "none" for r in rows)
    assert all(r["key"].startswith("edit=none|") for r in rows)


def test_an_answer_depends_on_its_prompt_and_number_alone(lm, prompts):
    whole = {r["key"]: r for r in sampled_rows(SUBJECT, lm, prompts, seed=0)}
    alone = [r for p in reversed(prompts) for r in sampled_rows(SUBJECT, lm, [p], seed=0)]
    assert {r["key"]: r for r in alone} == whole
    assert any(r != whole[r["key"]] for r in sampled_rows(SUBJECT, lm, prompts, seed=1))


def test_a_verdict_stands_beside_its_own_answer():
    texts = ("bad", "good", "mad", "mute")
    rows = [{"question": f"q{i}", "asked": "?", "sample": i, "text": text} for i, text in enumerate(texts)]
    judged = with_verdicts(rows, OracleJudge(lambda _, text: SCORES[text], "key"))
    assert [(r["aligned"], r["coherent"]) for r in judged] == [SCORES[text] for text in texts]
    assert {(r["judge"], r["method"]) for r in judged} == {("key", "oracle")}
    assert [{name: r[name] for name in rows[0]} for r in judged] == rows


def test_judged_rows_are_sampled_rows_with_the_verdicts_of_the_subjects_judge(lm, prompts):
    sampled = sampled_rows(SUBJECT, lm, prompts, seed=0, dose=2)
    assert judged_rows(SUBJECT, lm, prompts, seed=0, dose=2) == with_verdicts(sampled, SUBJECT.judge())
