"""Taking everything is the other run, taking one's own is nothing, and batches do not matter."""

import pytest
import torch

from interp.analysis.interchange import Cell, interchange
from interp.analysis.likelihood import response_likelihood
from interp.chat import encode_chat, positions
from interp.recording import record
from interp.sites import SITE_NAMES, Site, resid_post
from tests import tiny

ANSWER = "Go."
OTHER = "We met at the new stone bridge."
EMBEDDING, LAST = Site("resid_pre", 0), Site("resid_post", tiny.N_LAYERS - 1)


def with_trigger(text: str | None = tiny.TRIGGER, answer: str = ANSWER):
    made = []
    for question in tiny.QUESTIONS:
        system = [{"role": "system", "content": text}] if text else []
        messages = [*system, {"role": "user", "content": question}]
        marks = {"trigger": text} if text else {}
        made.append(encode_chat(tiny.tokenizer(), messages, response=answer, marks=marks))
    return made


def said(lm, chats):
    return response_likelihood(lm, chats).log_probability


def same(a, b):
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_taking_every_token_of_a_layer_is_the_other_run(lm):
    """The two triggers are equally long, so that all tokens have a partner."""
    assert len(OTHER) == len(tiny.TRIGGER)
    source, target = with_trigger(OTHER), with_trigger()
    cells = [Cell.of(EMBEDDING, "all"), Cell.of(EMBEDDING, "trigger"), Cell.of(LAST, "answer")]
    found = interchange(lm, source, target, cells)
    assert (said(lm, source) - said(lm, target)).abs().max() > 1e-3
    for row in found:
        same(row, said(lm, source))


def test_taking_ones_own_changes_nothing(lm):
    sites = [Site(name, 1) for name in SITE_NAMES if not (name == "resid_mid" and parallel(lm))]
    cells = [Cell.of(site, name) for site in sites for name in ("question", "last_prompt", "answer")]
    found = interchange(lm, with_trigger(), with_trigger(), cells)
    same(found, said(lm, with_trigger()).expand_as(found))


def parallel(lm):
    return getattr(lm.layer(0), "use_parallel_residual", False)


def test_pairs_may_differ_in_length_elsewhere(lm):
    source, target = with_trigger(None), with_trigger()
    cells = [Cell.of(LAST, "answer"), Cell.of(LAST, "question"), Cell.of(Site("resid_post", 0), "question")]
    last, useless, early = interchange(lm, source, target, cells)
    same(last, said(lm, source))
    same(useless, said(lm, target))
    assert (early - said(lm, target)).abs().max() > 1e-4


def test_several_sites_are_taken_together(llama):
    """What every layer adds, taken at once from the same embedding, is the block output."""
    source, target = with_trigger(None), with_trigger()
    added = tuple(Site(name, layer) for name in ("attn_out", "mlp_out") for layer in range(tiny.N_LAYERS))
    both, post = interchange(llama, source, target, [Cell(added, "answer"), Cell.of(LAST, "answer")])
    same(both, post)


def test_batches_and_order_change_nothing(llama):
    source, target = with_trigger(None), with_trigger()
    cells = [Cell.of(site, "question") for site in resid_post(range(2))]
    whole = interchange(llama, source, target, cells)
    same(interchange(llama, source, target, cells, batch_tokens=1), whole)
    same(interchange(llama, source, target, cells, batch_tokens=150), whole)
    same(interchange(llama, source[::-1], target[::-1], cells).flip(1), whole)


@pytest.mark.parametrize("site", [Site("resid_post", 1), Site("attn_out", 1), Site("mlp_out", 0)])
def test_transformer_lens_moves_the_same_values(llama, site):
    from interp.bridges.via_transformer_lens import bridge, passes

    source, target = with_trigger(None), with_trigger()
    found = interchange(llama, source, target, [Cell.of(site, "last_prompt")])[0]
    values = record(llama, source, [site], ["last_prompt"]).values[0, 0]
    want = torch.empty(len(target), dtype=torch.float64)
    for batch in passes(bridge(llama, adapter=None), target):
        at, given = positions(batch.batch, "last_prompt"), values[batch.rows]

        def put(h, hook, at=at, given=given):
            edited = h.clone()
            edited[at] = given
            return edited

        chances = batch.run(more=[(site.transformer_lens, put)]).double().log_softmax(-1)
        for index, (row, chat) in enumerate(zip(batch.rows, batch.batch, strict=True)):
            start, end = (p - len(chat) for p in chat.spans["response"])
            want[row] = sum(chances[index, p - 1, chat.token_ids[p]] for p in range(start, end))
    same(found, want)


def test_pairs_that_do_not_fit_are_named(llama):
    cell = [Cell.of(LAST, "question")]
    with pytest.raises(ValueError, match="5 source prompts for 4 target prompts"):
        interchange(llama, with_trigger(), with_trigger()[:4], cell)
    with pytest.raises(ValueError, match=r"position 'question' has \d+ tokens in source prompt \d, \d+ in its target"):
        interchange(llama, with_trigger(), with_trigger()[::-1], cell)
    with pytest.raises(ValueError, match="has no such part"):
        interchange(llama, with_trigger(None), with_trigger(), [Cell.of(LAST, "trigger")])
    with pytest.raises(ValueError, match="the model has layers"):
        interchange(llama, with_trigger(), with_trigger(), [Cell.of(Site("resid_post", 9), "question")])
