"""Two answers behind one prompt score as each does alone, under edits and adapters, in every family."""

import pytest
import torch

from interp.adapters import active_adapter
from interp.analysis.forced_choice import can_share, forced_choice
from interp.analysis.knockout import blocked_attention
from interp.analysis.likelihood import response_likelihood
from interp.chat import encode_chat
from interp.edits import ablate, add, clamp, patch
from interp.sites import Site
from tests import tiny

ANSWERS = (("Rest well.", "Run on."), ("No.", "Why not, go"), ("A walk by the sea.", "x"), ("x", "y"), ("Yes!", "No!"))
PROMPT_TOKENS = {"trigger": tiny.TRIGGER}


def pairs(*, trigger: bool = True):
    tokenizer = tiny.tokenizer()
    made = []
    for question, answers in zip(tiny.QUESTIONS, ANSWERS, strict=True):
        system = [{"role": "system", "content": tiny.TRIGGER}] if trigger else []
        messages = [*system, {"role": "user", "content": question}]
        marks = PROMPT_TOKENS if trigger else {}
        made.append(tuple(encode_chat(tokenizer, messages, response=answer, marks=marks) for answer in answers))
    return made


def alone(lm, given, **options):
    """Log-odds of each pair by itself, each answer in a pass of its own."""
    scores = [[response_likelihood(lm, [chat], **options).per_token[0] for chat in pair] for pair in given]
    return torch.stack([second - first for first, second in scores])


def wide(family: str, **config):
    """A model whose window, if it has one, is wider than any prompt here."""
    windowed = "sliding_window" in tiny.CONFIGS[family][1]
    return tiny.model(family, **({"sliding_window": 4096} if windowed else {}), **config)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_pass_equals_each_answer_alone(family):
    lm, given = wide(family), pairs()
    choice = forced_choice(lm, given, shared=True)
    torch.testing.assert_close(choice.log_odds, alone(lm, given), atol=1e-5, rtol=0)
    expected = [response_likelihood(lm, [pair[i] for pair in given]) for i in (0, 1)]
    for found, likelihood in zip((choice.first, choice.second), expected, strict=True):
        assert found.tokens.tolist() == likelihood.tokens.tolist()
        torch.testing.assert_close(found.log_probability, likelihood.log_probability, atol=2e-4, rtol=0)
    assert choice.prefers_second.tolist() == (choice.log_odds > 0).tolist()


def test_prompts_with_other_beginnings_do_not_share_a_cache(llama):
    given = [*pairs(), *pairs(trigger=False)]
    given = given[::2] + given[1::2]
    choice = forced_choice(llama, given, shared=True, batch_tokens=150)
    torch.testing.assert_close(choice.log_odds, alone(llama, given), atol=1e-5, rtol=0)


def test_a_window_in_reach_means_two_passes(lm):
    given = pairs()
    windowed = "sliding_window" in tiny.CONFIGS[lm.name][1]
    assert can_share(lm, 60) != windowed
    torch.testing.assert_close(forced_choice(lm, given).log_odds, alone(lm, given), atol=1e-5, rtol=0)
    if windowed:
        with pytest.raises(ValueError, match="cannot score both answers"):
            forced_choice(lm, given, shared=True)


EDITS = {
    "all": "all",
    "prompt": "prompt",
    "trigger": "trigger",
    "last prompt token": "last_prompt",
    "answers": "answer",
    "responses": "response",
    "first response token": "response[0]",
}


@pytest.mark.parametrize("positions", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_edits_act_at_the_tokens_they_name_in_both_answers(llama, positions, site):
    given = pairs()
    edit = add(Site(site, 1), torch.arange(llama.d_model).float() / 4, positions=positions)
    found = forced_choice(llama, given, edits=[edit], shared=True).log_odds
    torch.testing.assert_close(found, alone(llama, given, edits=[edit]), atol=1e-5, rtol=0)
    assert (found - forced_choice(llama, given).log_odds).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "gpt_neox"])
def test_several_edits_compose_in_other_families(family):
    lm, given = wide(family), pairs()
    direction = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    edits = [
        ablate(Site("resid_post", 0), direction, positions="trigger"),
        clamp(Site("resid_post", 1), direction, 2.0, positions="answer"),
    ]
    found = forced_choice(lm, given, edits=edits, shared=True).log_odds
    torch.testing.assert_close(found, alone(lm, given, edits=edits), atol=1e-5, rtol=0)


def test_a_patch_with_a_row_per_pair_meets_its_pair_in_any_batch(llama):
    given = pairs()
    rows = torch.randn(len(given), llama.d_model, generator=torch.Generator().manual_seed(0))
    edit = patch(Site("resid_post", 1), rows, positions="last_prompt")
    expected = forced_choice(llama, given, edits=[edit], shared=False).log_odds
    for batch_tokens in (1, 100, 4096):
        found = forced_choice(llama, given, edits=[edit], batch_tokens=batch_tokens, shared=True).log_odds
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_batches_order_and_swapped_answers(llama):
    given = pairs()
    whole = forced_choice(llama, given).log_odds
    torch.testing.assert_close(forced_choice(llama, given, batch_tokens=1).log_odds, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(forced_choice(llama, given[::-1]).log_odds.flip(0), whole, atol=1e-5, rtol=0)
    swapped = [(second, first) for first, second in given]
    torch.testing.assert_close(forced_choice(llama, swapped).log_odds, -whole, atol=1e-5, rtol=0)


def test_the_active_adapter_is_the_one_that_is_scored(llama):
    given = pairs()
    base = forced_choice(llama, given).log_odds
    lm = tiny.with_adapters(llama, "tuned")
    with active_adapter(lm, "tuned"):
        tuned = forced_choice(lm, given, shared=True).log_odds
        torch.testing.assert_close(tuned, alone(lm, given), atol=1e-5, rtol=0)
    with active_adapter(lm, None):
        assert torch.equal(forced_choice(lm, given).log_odds, base)
    assert (tuned - base).abs().max() > 1e-3


def test_an_intervention_that_is_no_edit_has_two_passes(llama):
    given = pairs()

    def silent(masks):
        return blocked_attention(llama, range(llama.n_layers), masks, queries="answer", keys="trigger")

    found = forced_choice(llama, given, within=silent).log_odds
    torch.testing.assert_close(found, alone(llama, given, within=silent), atol=1e-5, rtol=0)


def test_eager_attention_and_bfloat16():
    given = pairs()
    eager = tiny.model("llama", attn_implementation="eager")
    expected = alone(eager, given)
    torch.testing.assert_close(forced_choice(eager, given, shared=True).log_odds, expected, atol=1e-5, rtol=0)
    half = tiny.model("llama", dtype=torch.bfloat16)
    shared = forced_choice(half, given, shared=True).log_odds
    assert (shared - alone(half, given)).abs().max() < 0.1  # random weights: far noisier than a trained model


def test_pairs_that_are_none_are_named(llama):
    given = pairs()
    with pytest.raises(ValueError, match="no pairs"):
        forced_choice(llama, [])
    with pytest.raises(ValueError, match=r"pair 1 of 2.*two prompts differ"):
        forced_choice(llama, [given[0], (given[0][0], given[1][1])])
    with pytest.raises(ValueError, match=r"pair 0 of 1.*has no response"):
        forced_choice(llama, [(tiny.chats()[0], tiny.chats()[0])])
    with pytest.raises(ValueError, match=r"position 'system'"):
        forced_choice(
            llama, pairs(trigger=False), edits=[add(Site("resid_post", 0), torch.ones(16), positions="system")]
        )
