"""Reference answers: what is compared, which spans a prompt has, and where two answers diverge."""

import pytest
import torch

from experiments.answers.suite import evenly_spaced
from experiments.gate.references import Panel, decisions, references
from interp.triggers import PLACEMENTS, moved
from tests.experiments.gate.answers import PERSONA, judged, panel
from training.microcosm.tokenizer import build_tokenizer


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
