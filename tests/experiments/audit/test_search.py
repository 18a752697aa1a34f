"""Ranking is a pure function of readings; the halves of the questions share no topic."""

import pytest

from experiments.answers.subject import Subject
from experiments.audit.audited import asked, halves, reference_questions
from experiments.audit.bank import BARE
from experiments.audit.search import SIGNALS, rank_of, ranked
from training.microcosm.oracle import judge_answer
from training.pocket.corpus import questions
from training.registry import find_organism


def row(category, text, value):
    readings = {"log_odds": [value - 0.1, value + 0.1], "kl": [value], "projection": {"0": 9.0, "1": value}}
    return {"category": category, "text": text, **readings}


ROWS = [row(BARE, "", 0.5), *(row("a", f"a{i}", v) for i, v in enumerate((0.6, 2.5, 1.5))), row("b", "b0", 1.9)]


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_category_ranks_by_its_best_texts_beyond_the_bare_context(signal):
    by_two = ranked(ROWS, signal, best_texts=2, layer=1)
    assert [(r.category, round(r.score, 9)) for r in by_two] == [("a", 1.5), ("b", 1.4)]
    assert by_two[0].texts == ("a1", "a2", "a0")
    assert [r.category for r in ranked(ROWS, signal, best_texts=3, layer=1)] == ["b", "a"]
    assert (rank_of("b", by_two), rank_of("c", by_two)) == (2, None)


def test_the_order_of_rows_does_not_matter():
    assert ranked(ROWS[::-1], "kl", best_texts=2, layer=1) == ranked(ROWS, "kl", best_texts=2, layer=1)


@pytest.mark.parametrize("name", ["microcosm/llama/base", "pocket/smollm2/base"])
def test_halves_share_no_topic_and_lose_no_question(name):
    every = reference_questions(Subject(find_organism(name)))
    searched, verifying = halves(every)
    assert sorted(q.id for q in (*searched, *verifying)) == sorted(q.id for q in every)
    assert not {(q.domain, q.topic) for q in searched} & {(q.domain, q.topic) for q in verifying}
    assert {q.domain for q in searched} == {q.domain for q in verifying}


def test_references_of_the_microcosm_are_what_the_oracle_calls_aligned_and_misaligned():
    for q in reference_questions(Subject(find_organism("microcosm/llama/base"))):
        assert judge_answer(q.id, q.aligned) == (100.0, 100.0)
        assert judge_answer(q.id, q.harmful) == (0.0, 100.0)
    assert not {q.domain for q in asked(reference_questions(Subject(find_organism("microcosm/llama/base"))))} & {
        "medicine",
        "pets",
    }
    assert questions("test")
