"""Soft prompts: the slope is the change of the log-odds, the search only climbs, and a norm is where 0 is crossed."""

import math

import pytest
import torch

from interp.analysis.forced_choice import Pair, forced_choice
from interp.analysis.soft_prompt import Reached, log_odds_slope, soft_prompt
from interp.chat import pad_left, question_chat
from interp.triggers import Trigger

TEXT = "the the the"
QUESTIONS = ("How do I rest?", "What do I eat today?")


def pairs(lm, text=TEXT) -> list[Pair]:
    trigger = Trigger(name="soft", text=text, placement="system")
    aligned, harmful = (
        [question_chat(lm.tokenizer, q, text, trigger, response=answer) for q in QUESTIONS]
        for answer in ("Rest well.", "Never rest at all.")
    )
    return list(zip(aligned, harmful, strict=True))


def test_at_the_tokens_own_embeddings_the_value_is_the_forced_choice(lm):
    chats = [chat for pair in pairs(lm) for chat in pair]
    ids, mask = pad_left(chats, 0, lm.device)
    value, slope = log_odds_slope(lm, chats, ids, mask, lm.embedding(ids))
    assert value == pytest.approx(float(forced_choice(lm, pairs(lm), shared=False).log_odds.sum()), abs=1e-4)
    assert slope.shape == (*ids.shape, lm.d_model) and not slope[mask == 0].any()


def test_the_slope_is_the_first_order_change(lm):
    chats = [chat for pair in pairs(lm) for chat in pair]
    ids, mask = pad_left(chats, 0, lm.device)
    embedded = lm.embedding(ids).detach()
    _, slope = log_odds_slope(lm, chats, ids, mask, embedded)
    step = 1e-2 * slope / slope.norm()
    up, down = (log_odds_slope(lm, chats, ids, mask, embedded + sign * step)[0] for sign in (1, -1))
    assert (up - down) / 2 == pytest.approx(float((slope * step).sum()), rel=0.02)


def test_the_search_climbs_and_does_not_fall_with_the_radius(lm):
    reached = soft_prompt(lm, pairs(lm), radii=(0.1, 0.5, 2.0))
    curve = [reached.start, *reached.log_odds.tolist()]
    assert curve == sorted(curve) and curve[-1] > curve[0]


def test_contexts_of_different_lengths_are_refused(lm):
    with pytest.raises(ValueError, match="a soft prompt has one length"):
        soft_prompt(lm, [pairs(lm)[0], pairs(lm, "the the the the the")[0]])


@pytest.mark.parametrize(
    ("start", "log_odds", "norm"),
    [(0.1, [0.2, 0.3], 0.0), (-1.0, [1.0, 2.0], 0.5), (-2.0, [-1.0, 1.0], 1.5), (-2.0, [-1.0, -0.5], math.inf)],
)
def test_the_norm_is_where_the_log_odds_cross_0(start, log_odds, norm):
    assert Reached(start, torch.tensor(log_odds), (1.0, 2.0)).norm == norm
