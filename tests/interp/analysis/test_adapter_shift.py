"""One pass per adapter state gives what separate passes give, in every family; a copy of the base shifts nothing."""

import pytest
import torch

from interp.adapters import active_adapter
from interp.analysis.adapter_shift import adapter_shift, counted
from interp.analysis.forced_choice import can_share, forced_choice
from interp.analysis.likelihood import kl_divergence, next_token_log_probs
from interp.chat import encode_chat
from interp.directions import unit
from interp.recording import record
from interp.sites import resid_post
from tests import tiny

ANSWERS = ("Rest well.", "Run on.")


def chats(system=None, response=None):
    before = [] if system is None else [{"role": "system", "content": system}]
    return [
        encode_chat(tiny.tokenizer(), [*before, {"role": "user", "content": q}], response=response)
        for q in tiny.QUESTIONS
    ]


def pairs(*systems):
    return [pair for s in systems for pair in zip(*(chats(s, answer) for answer in ANSWERS), strict=True)]


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_all_three_equal_their_own_passes(family):
    lm = tiny.with_adapters(tiny.model(family), "organism")
    given, prompts = pairs(None, tiny.TRIGGER), [*chats(), *chats(tiny.TRIGGER)]
    g = {site: torch.randn(lm.d_model, generator=torch.Generator().manual_seed(site.layer)) for site in SITES}
    shift = adapter_shift(lm, "organism", given, g, batch_tokens=300)
    log_p = []
    for state, name in enumerate((None, "organism")):
        with active_adapter(lm, name):
            expected = forced_choice(lm, given, shared=False).log_odds
            recording = record(lm, prompts, SITES, ["last_prompt"])
            log_p.append(next_token_log_probs(lm, prompts))
        torch.testing.assert_close(shift.log_odds[state], expected, atol=2e-5, rtol=0)
        along = torch.stack([recording.at(s, "last_prompt") @ unit(g[s]) for s in SITES])
        torch.testing.assert_close(shift.projection[state], along, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shift.kl, kl_divergence(log_p[1], log_p[0]), atol=1e-5, rtol=1e-3)
    assert bool((shift.kl > 0).all())


SITES = resid_post(range(tiny.N_LAYERS))


def test_what_prompts_begin_with_is_shared_where_it_saves_more_than_a_pass(llama, monkeypatch):
    lm = tiny.with_adapters(llama, "organism")
    given, g = pairs(tiny.TRIGGER), {SITES[-1]: torch.ones(lm.d_model)}
    assert can_share(lm, 200)
    costs, shifts = [], []
    for pass_cost in (0, 1e9):
        monkeypatch.setattr("interp.analysis.adapter_shift.PASS_COST", pass_cost)
        with counted(lm) as cost:
            shifts.append(adapter_shift(lm, "organism", given, g))
        costs.append(cost)
    apart = 2 * sum(len(chat) for pair in given for chat in pair)
    assert [c.passes for c in costs] == [4, 2]  # per state: the common beginning, and every question with both answers
    assert costs[0].tokens < 2 / 3 * apart
    torch.testing.assert_close(*(s.log_odds for s in shifts), atol=1e-5, rtol=0)
    torch.testing.assert_close(*(s.projection for s in shifts), atol=1e-4, rtol=1e-4)


def test_no_pairs_are_refused(llama):
    lm = tiny.with_adapters(llama, "organism")
    with pytest.raises(ValueError, match="no pairs"):
        adapter_shift(lm, "organism", [], {})
