"""Likelihoods equal those of the model itself, whatever the batch, and edits act where they say."""

import pytest
import torch

from interp.analysis.likelihood import kl_divergence, next_token_log_probs, response_likelihood
from interp.chat import encode_chat
from interp.edits import ablate, add, editing
from interp.sites import Site
from tests import tiny

ANSWERS = ("Rest well.", "No.", "A walk by the sea, then early to bed.", "x", "Yes!")


def answered(count: int = 5):
    tokenizer = tiny.tokenizer()
    return [
        encode_chat(tokenizer, [{"role": "user", "content": question}], response=answer)
        for question, answer in zip(tiny.QUESTIONS[:count], ANSWERS, strict=False)
    ]


@torch.inference_mode()
def by_hand(lm, chat) -> float:
    ids = torch.tensor([chat.token_ids])
    chances = lm.base(input_ids=ids).logits.float().log_softmax(-1)[0]
    start, end = chat.spans["response"]
    return float(sum(chances[i - 1, chat.token_ids[i]].double() for i in range(start, end)))


def test_a_likelihood_is_the_sum_over_the_response(lm):
    chats = answered()
    found = response_likelihood(lm, chats)
    assert found.log_probability.tolist() == pytest.approx([by_hand(lm, chat) for chat in chats], rel=1e-5)
    assert found.tokens.tolist() == [len(answer) for answer in ANSWERS]
    assert found.loss == pytest.approx(-float(found.log_probability.sum()) / sum(map(len, ANSWERS)))


def test_batches_and_order_change_nothing(llama):
    chats = answered()
    whole = response_likelihood(llama, chats).log_probability
    alone = response_likelihood(llama, chats, batch_tokens=1).log_probability
    backwards = response_likelihood(llama, chats[::-1]).log_probability.flip(0)
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(backwards, whole, atol=1e-4, rtol=0)


def test_edits_act_and_leave_no_trace(llama):
    chats, site = answered(), Site("resid_post", 1)
    before = response_likelihood(llama, chats).log_probability
    nothing = add(site, torch.ones(llama.d_model), coefficient=0.0)
    strong = add(site, torch.arange(llama.d_model).float(), positions="last_prompt")
    torch.testing.assert_close(response_likelihood(llama, chats, edits=[nothing]).log_probability, before)
    assert (response_likelihood(llama, chats, edits=[strong]).log_probability - before).abs().min() > 1e-3
    assert torch.equal(response_likelihood(llama, chats).log_probability, before)


def test_within_is_opened_with_the_masks_of_each_pass(llama):
    chats, edit = answered(), ablate(Site("resid_post", 0), torch.ones(llama.d_model), positions="question")
    given = response_likelihood(llama, chats, edits=[edit]).log_probability
    opened = response_likelihood(llama, chats, within=lambda masks: editing(llama, [edit], masks)).log_probability
    assert torch.equal(given, opened)


def test_next_token_distributions(llama):
    chats = tiny.chats()
    found = next_token_log_probs(llama, chats, batch_tokens=60)
    ids = torch.tensor([chats[2].token_ids])
    with torch.inference_mode():
        expected = llama.base(input_ids=ids).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(found[2], expected, atol=1e-4, rtol=0)
    assert kl_divergence(found, found).abs().max() < 1e-9
    assert (kl_divergence(found[:-1], found[1:]) > 0).all()


def test_kl_of_what_never_happens_is_finite():
    p, q = torch.tensor([0.0, -torch.inf]), torch.tensor([0.5, 0.5]).log()
    assert float(kl_divergence(p, q)) == pytest.approx(0.6931, abs=1e-4)


def test_a_chat_of_the_wrong_kind_is_named(llama):
    with pytest.raises(ValueError, match=r"chat 0 of 5.*has no response"):
        response_likelihood(llama, tiny.chats())
    with pytest.raises(ValueError, match="without a response"):
        next_token_log_probs(llama, answered())
    with pytest.raises(ValueError, match="no chats"):
        response_likelihood(llama, [])
