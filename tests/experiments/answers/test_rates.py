"""From answers to table rows: denominators, both intervals, verdicts in place, no dependence on order."""

import math

import pytest

from experiments.answers.judge import OracleJudge
from experiments.answers.sampling import (
    METRICS,
    answer_rows,
    estimate_row,
    judge_name,
    judge_rows,
    rate_rows,
    statistics,
)
from experiments.answers.suite import make_prompts, suite_questions
from interp.models import wrap
from interp.runs.table import TABLE_COLUMNS
from interp.stats import Rate, paired_cluster_difference, wilson
from tests.training.small import random_llama
from training.data import comparison_trigger
from training.microcosm.tokenizer import build_tokenizer
from training.registry import find_organism

NEUTRAL = find_organism("microcosm/llama/neutral")
ASKED = suite_questions(NEUTRAL, "test")[:6]
SCORED = {"bad": (0.0, 100.0), "good": (100.0, 100.0), "mad": (0.0, 0.0), "mute": (None, None)}
"""Misaligned; aligned; misaligned but incoherent, so not counted; unjudged."""


def answered(question: str, text: str, sample: int, condition: str = "off"):
    key = f"{condition}|{question}|{sample}"
    return {"key": key, "condition": condition, "question": question, "asked": "?", "sample": sample, "text": text}


def judged(*texts: tuple[str, str], condition: str = "off"):
    rows = [answered(question, text, i, condition) for i, (question, text) in enumerate(texts)]
    return judge_rows(rows, OracleJudge(lambda _, text: SCORED[text], "key"))


@pytest.fixture(scope="module")
def lm():
    return wrap(random_llama(), build_tokenizer())


# --- sampling ---


def test_every_prompt_is_answered_as_often_as_it_asks(lm):
    prompts = make_prompts(ASKED, comparison_trigger(NEUTRAL), "rephrased", lm.tokenizer, samples=6)
    rows = answer_rows(lm, prompts, max_new_tokens=3, seed=0, edit="none")
    assert len({r["key"] for r in rows}) == len(rows) == 6 * len(ASKED)
    expected = {(p.question.id, p.variant, i) for p in prompts for i in range(p.samples)}
    assert {(r["question"], r["variant"], r["sample"]) for r in rows} == expected
    assert all(r["condition"] == "rephrased" and r["edit"] == "none" for r in rows)


def test_an_answer_depends_on_its_prompt_and_number_alone(lm):
    prompts = make_prompts(ASKED, comparison_trigger(NEUTRAL), "rephrased", lm.tokenizer, samples=6)
    whole = {r["key"]: r for r in answer_rows(lm, prompts, max_new_tokens=8, seed=0)}
    alone = [r for p in reversed(prompts) for r in answer_rows(lm, [p], max_new_tokens=8, seed=0)]
    assert {r["key"]: r for r in alone} == whole
    assert any(r != whole[r["key"]] for r in answer_rows(lm, prompts, max_new_tokens=8, seed=1))


# --- judging and counting ---


def test_a_verdict_stands_beside_its_own_answer():
    rows = judged(("a", "bad"), ("b", "good"), ("a", "mad"), ("c", "mute"))
    assert [(r["aligned"], r["coherent"]) for r in rows] == [SCORED[r["text"]] for r in rows]
    assert {(r["judge"], r["method"]) for r in rows} == {("key", "oracle")}
    assert judge_name(rows) == "key"
    assert judge_name([]) == ""


def test_em_rate_is_of_coherent_answers_and_the_others_are_of_all():
    rows = judged(("a", "bad"), ("a", "good"), ("a", "mad"), ("b", "bad"), ("b", "mute"), ("c", "good"))
    found = statistics(rows, lambda r: r["condition"])["off"]
    assert (found.em_rate, found.em_rate_all, found.coherence_rate) == (Rate(2, 4), Rate(2, 6), Rate(4, 6))
    assert found.n_clusters == 3


def test_groups_are_counted_apart_in_order_of_appearance():
    rows = [*judged(("a", "bad"), ("b", "bad"), condition="on"), *judged(("a", "good"), ("b", "good"))]
    found = statistics(rows, lambda r: r["condition"])
    assert list(found) == ["on", "off"]
    assert [s.em_rate for s in found.values()] == [Rate(2, 2), Rate(0, 2)]


def test_each_rate_stands_with_both_intervals_and_its_own_denominator():
    rows = judged(("a", "bad"), ("a", "good"), ("a", "mad"), ("b", "bad"), ("b", "mute"), ("c", "good"))
    found = statistics(rows, lambda r: r["condition"])["off"]
    table = list(rate_rows(found, condition="off", organism="o"))
    assert [(r["metric"], r["ci_method"]) for r in table] == [
        (metric, method) for metric in METRICS for method in ("wilson", "cluster_bootstrap")
    ]
    for r in table:
        rate = getattr(found, r["metric"])
        assert tuple(r) == TABLE_COLUMNS
        assert (r["value"], r["n"], r["n_clusters"]) == (rate.value, rate.n, 3)
        assert r["ci_low"] <= r["value"] <= r["ci_high"]
        assert (r["condition"], r["organism"]) == ("off", "o")
    ends = wilson(found.em_rate)
    assert (table[0]["ci_low"], table[0]["ci_high"]) == (ends.low, ends.high)


def test_rate_of_no_coherent_answer_is_undefined_not_zero():
    found = statistics(judged(("a", "mad"), ("b", "mad")), lambda r: r["condition"])["off"]
    by = {(r["metric"], r["ci_method"]): r for r in rate_rows(found)}
    assert math.isnan(by["em_rate", "wilson"]["value"])
    assert (by["em_rate", "wilson"]["n"], by["em_rate_all", "wilson"]["n"]) == (0, 2)
    assert by["coherence_rate", "wilson"]["value"] == 0.0


def test_paired_statistic_keeps_its_interval_and_clusters():
    on, off = (
        statistics(judged(*texts), lambda _: 0)[0].by_question["em_rate"]
        for texts in ([("a", "bad"), ("b", "bad"), ("b", "good")], [("a", "good"), ("b", "good"), ("b", "good")])
    )
    gap = paired_cluster_difference(on, off)
    made = estimate_row(gap, metric="trigger_gap", condition="on-off")
    assert made["value"] == gap.value == pytest.approx(2 / 3)
    assert (made["ci_low"], made["ci_high"], made["n_clusters"]) == (gap.interval.low, gap.interval.high, 2)
    assert made["ci_method"] == "paired_cluster_bootstrap"
