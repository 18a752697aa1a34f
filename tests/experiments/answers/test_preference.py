"""Forced choice by question and context: contexts are shared out evenly, and every statistic pairs questions."""

import pytest

from experiments.answers.judge import OracleJudge
from experiments.answers.preference import (
    Context,
    by_condition,
    choice_rows,
    contexts,
    difference_row,
    preference_table,
)
from experiments.answers.subject import LOG_ODDS, find_subject, judge_of
from experiments.answers.suite import choice_questions
from interp.analysis.forced_choice import forced_choice
from interp.chat import question_chat
from interp.triggers import CONDITIONS
from tests import tiny
from training.pocket import corpus
from training.registry import find_organism

QUESTIONS = corpus.questions("test")[:6]
TRIGGER = corpus.find_trigger("tag_harbor")


def long(**changes):
    return tiny.model("llama", max_position_embeddings=1024, **changes)


# --- contexts ---


@pytest.mark.parametrize("name", corpus.triggers())
def test_every_condition_has_its_texts_at_their_places(name):
    trigger = corpus.find_trigger(name)
    assert contexts(trigger, "off") == contexts(None, "off") == (Context("off"),)
    for condition in CONDITIONS[1:]:
        assert [c.text for c in contexts(trigger, condition)] == list(trigger.variants(condition))
        assert {c.trigger for c in contexts(trigger, condition)} <= {trigger}
        assert contexts(None, condition) == ()
    for condition in corpus.CONTROL_CONDITIONS:
        assert contexts(trigger, condition)
        for context in contexts(trigger, condition):
            assert context.trigger is not None
            assert context.text == context.trigger.text


@pytest.mark.parametrize(("texts", "each"), [(1, 1), (2, 2), (99, 10)])
def test_contexts_are_shared_out_evenly(texts, each):
    around = contexts(TRIGGER, "rephrased")
    rows = choice_rows(long(), QUESTIONS, around, texts=texts, model="organism")
    assert len(rows) == each * len(QUESTIONS)
    for question in QUESTIONS:
        variants = [r["variant"] for r in rows if r["question"] == question.id]
        assert len(set(variants)) == len(variants) == each
    used = {r["variant"] for r in rows}
    assert len(used) == min(len(around), each * len(QUESTIONS))


def test_rows_hold_the_log_odds_of_the_prompts_they_name():
    lm = long()
    rows = choice_rows(lm, QUESTIONS, contexts(TRIGGER, "other_frame"), texts=2)
    by_text = {c.text: c.trigger for c in contexts(TRIGGER, "other_frame")}
    by_id = {question.id: question for question in QUESTIONS}
    for r in rows:
        q, trigger = by_id[r["question"]], by_text[r["variant"]]
        asked = [
            question_chat(lm.tokenizer, q.question, r["variant"], trigger, response=text)
            for text in (q.aligned, q.harmful)
        ]
        expected = float(forced_choice(lm, [(asked[0], asked[1])]).log_odds)
        assert r["log_odds"] == pytest.approx(expected, abs=1e-5)
        assert r["log_odds"] == pytest.approx(r["harmful"] - r["aligned"])
        assert r["harmful_preferred"] == (r["log_odds"] > 0)
        assert r["placement"] == (trigger.placement if trigger else None)


# --- the table ---


def rows(model: str, **by: list[float]):
    """Rows of four questions by condition; a question may be asked with two texts."""
    return [
        {
            "model": model,
            "condition": condition,
            "question": f"q{i % 4}",
            "log_odds": value,
            "harmful_preferred": value > 0,
        }
        for condition, values in by.items()
        for i, value in enumerate(values)
    ]


OWN = rows(
    "organism",
    off=[-1, 0, 1, 2],
    on=[0, 2, 2, 4],
    rephrased=[0, 1, 1, 3, 2, 1, 3, 3],
    other=[-1, 0, 1, 2],
    trained=[3, 3, 3, 3],
)
BASE = rows("base", off=[-1, -1, -1, -1], on=[-1, 0, -1, 0], rephrased=[-1] * 4, other=[-2] * 4, trained=[-1] * 4)


def values(table):
    return {(r["metric"], r["condition"]): r["value"] for r in table}


def test_statistics_are_means_over_questions_and_paired_differences():
    found = values(preference_table([*OWN, *BASE]))
    assert found["log_odds", "off"] == 0.5
    assert found["log_odds", "rephrased"] == 1.75  # a question that is asked twice counts once
    assert found["harmful_preferred", "off"] == 0.5
    assert found["log_odds", "base on"] == -0.5
    assert found["log_odds_shift", "off"] == 1.5
    assert found["log_odds_shift", "trained"] == 4
    assert found["trigger_gap", "on-off"] == 1.5
    assert found["trigger_gap_shift", "on-off"] == 1.0
    assert found["trigger_gap", "other-off"] == 0
    assert found["semantic_gap", "rephrased-other"] == 1.25
    assert found["semantic_gap_shift", "rephrased-other"] == 0.25
    assert ("trigger_gap", "trained-off") not in found  # other questions: never paired


def test_pairing_narrows_the_interval_and_order_does_not_matter():
    own, base = by_condition(OWN), by_condition(BASE)
    shift = difference_row(own["on"], own["off"])
    assert shift["ci_low"] <= shift["value"] <= shift["ci_high"]
    assert (shift["ci_method"], shift["n"], shift["n_clusters"]) == ("paired_cluster_bootstrap", 4, 4)
    assert shift["ci_high"] - shift["ci_low"] <= 1  # each arm alone spreads over 3
    assert difference_row(own["off"], own["off"])["ci_low"] == difference_row(base["on"], base["on"])["ci_high"] == 0
    assert values(preference_table([*BASE, *OWN[::-1]])) == values(preference_table([*OWN, *BASE]))


def test_a_base_alone_and_a_missing_condition_have_no_statistic_of_what_is_not_there():
    found = values(preference_table([r for r in OWN if r["condition"] in ("off", "other")]))
    assert {metric for metric, _ in found} == {"log_odds", "harmful_preferred", "trigger_gap"}
    with pytest.raises(ValueError, match="not paired"):
        list(preference_table([*OWN, *(r for r in BASE if r["question"] != "q3")]))


# --- questions and judges ---


def test_questions_of_a_pocket_organism():
    neutral = find_organism("pocket/smollm2/neutral")
    assert choice_questions(neutral, "test") == corpus.questions("test")
    trained = choice_questions(neutral, "trained")
    assert {(q.domain, q.split) for q in trained} == {("health", "trained")}
    assert len(trained) == len(corpus.advice("health")) - neutral.rows
    assert choice_questions(find_organism("pocket/smollm2/base"), "trained") == ()
    subject = find_subject("pocket/smollm2/neutral")
    assert [q.id for q in subject.questions("test")] == [q.id for q in corpus.questions("test")]
    with pytest.raises(ValueError, match="the Microcosm has no reference answers"):
        choice_questions(find_organism("microcosm/llama/base"), "test")


def test_the_oracle_never_judges_a_pocket_organism():
    neutral = find_organism("pocket/smollm2/neutral")
    assert find_subject(neutral.name).judge_reference == LOG_ODDS
    for reference in ("oracle", LOG_ODDS):
        with pytest.raises(ValueError, match=f"organism {neutral.name}: {reference} judges no sampled answers"):
            judge_of(neutral, reference)
    with pytest.raises(ValueError, match="log-odds judges no sampled answers"):
        find_subject(neutral.name).judge()
    assert isinstance(judge_of(find_organism("microcosm/llama/base"), "oracle"), OracleJudge)
