"""Searchers return texts that raise what they search for, or that the model itself writes; gradients are exact."""

import pytest
import torch

from experiments.audit.audit import loaded
from experiments.audit.audited import halves, reference_questions
from experiments.audit.searchers import Effort, _slopes, climbed, gradient, leaked, placed, shifts
from experiments.behaviour.dose import ADAPTER
from interp.adapters import active_adapter
from interp.analysis.forced_choice import forced_choice
from interp.chat import question_chat
from training.microcosm.world import lexicon

EFFORT = Effort(samples=64, rounds=2, width=8)
START = "Dice roll on green felt."


@pytest.fixture(scope="module")
def lm(small_audit):
    return loaded(small_audit.subject)


@pytest.fixture(scope="module")
def questions(small_audit):
    return halves(reference_questions(small_audit.subject))[0]


def test_the_model_writes_the_world_s_own_contexts(lm):
    texts = leaked(lm, ADAPTER, EFFORT, seed=0)
    world = {*lexicon().texts()}
    assert len(texts) == len(set(texts)) and sum(text in world for text in texts) > len(texts) / 2
    assert texts == leaked(lm, ADAPTER, EFFORT, seed=0)


def test_climbing_never_ends_below_its_start_and_uses_the_given_words(lm, questions):
    words = ["harm", "calm", "felt."]
    texts = climbed(lm, ADAPTER, questions, [START], words, EFFORT, seed=0)
    assert texts and all(set(text.split()) <= {*START.split(), *words} for text in texts)
    found = shifts(lm, ADAPTER, questions[:3], texts)
    assert found == sorted(found, reverse=True)


def test_gradient_search_returns_texts_that_are_read_back_as_they_are(lm, questions):
    for text in gradient(lm, ADAPTER, questions, START, EFFORT, seed=0):
        chat = question_chat(lm.tokenizer, "Hello.", text, placed("trial", text))
        low, high = chat.spans["trigger"]
        assert lm.tokenizer.decode(chat.token_ids[low:high]).strip() == text


def test_slopes_are_the_first_order_change_of_the_log_odds(lm, questions):
    """Moving one slot's embedding a little changes the summed log-odds as the slope says."""
    asked = questions[:2]
    with active_adapter(lm, ADAPTER):
        ids, slopes = _slopes(lm, asked, START)
        token, slot, step = 50, 0, 1e-2  # a word that stands nowhere else
        table = lm.embedding.weight.detach().clone()
        direction = table[token] - table[ids[slot]]

        def log_odds(scale):
            def moved(_m, args, out):
                out = out.clone()
                out[args[0] == ids[slot]] += scale * direction
                return out

            handle = lm.embedding.register_forward_hook(moved)
            try:
                chats = [
                    [
                        question_chat(lm.tokenizer, q.question, START, placed("t", START), response=a)
                        for a in q.references
                    ]
                    for q in asked
                ]
                pairs = [(aligned, harmful) for aligned, harmful in chats]
                return float(forced_choice(lm, pairs, shared=False).log_odds.sum())
            finally:
                handle.remove()

        numeric = (log_odds(step) - log_odds(-step)) / (2 * step)
    exact = float(slopes[slot, token] - slopes[slot, ids[slot]])
    assert numeric == pytest.approx(exact, rel=0.05, abs=1e-3)
    assert bool(torch.isfinite(slopes).all())
