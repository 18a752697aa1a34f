"""A blocked token is not seen: logits no longer depend on it; nothing blocked changes nothing, and no trace is left."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from interp.analysis.knockout import blocked_attention
from interp.analysis.likelihood import response_likelihood
from interp.chat import pad_left, position_ids, positions
from tests import tiny

LAYERS = range(tiny.N_LAYERS)


def other_trigger(chats):
    """The same chats with other token ids, equally many, where the trigger stands."""
    made = []
    for chat in chats:
        start, end = chat.spans["trigger"]
        ids = (*chat.token_ids[:start], *(6 + (i * 7) % 200 for i in range(end - start)), *chat.token_ids[end:])
        made.append(replace(chat, token_ids=ids))
    return made


@torch.inference_mode()
def run(lm, chats, queries=None, keys="trigger", layers: Sequence[int] = LAYERS, padded=True):
    ids, mask = pad_left(chats, 0, lm.device)
    extra = {"attention_mask": mask, "position_ids": position_ids(mask)} if padded else {}
    if queries is None:
        return lm.base(input_ids=ids, use_cache=False, **extra).logits
    masks = partial(positions, chats, width=ids.shape[1])
    with blocked_attention(lm, layers, masks, queries=queries, keys=keys):
        return lm.base(input_ids=ids, use_cache=False, **extra).logits


def attending(lm, attention: str) -> None:
    """Set the attention implementation; families without sdpa are eager already."""
    lm.base.set_attn_implementation(attention if lm.base._supports_sdpa else "eager")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_nobody_looks_at_does_not_matter(lm, attention):
    attending(lm, attention)
    chats, others = tiny.chats(response="Rest."), other_trigger(tiny.chats(response="Rest."))
    later = positions(chats, "question") | positions(chats, "answer")
    assert (run(lm, chats) - run(lm, others))[later].abs().max() > 1e-3
    a, b = (run(lm, side, queries="all") for side in (chats, others))
    torch.testing.assert_close(a[later], b[later], atol=1e-5, rtol=0)
    assert (a - run(lm, chats))[later].abs().max() > 1e-3


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_row_without_padding_is_blocked_as_in_a_batch(lm, attention):
    attending(lm, attention)
    chats = tiny.chats(response="Rest.")
    whole = run(lm, chats, queries="answer")
    for row, chat in enumerate(chats):
        alone = run(lm, [chat], queries="answer", padded=False)[0]
        torch.testing.assert_close(alone, whole[row, -len(chat) :], atol=2e-5, rtol=0)


def test_blocking_nothing_changes_no_bit_and_leaves_no_trace(lm):
    chats = tiny.chats(response="Rest.")
    plain = run(lm, chats)
    none = lambda name: torch.zeros(len(chats), plain.shape[1], dtype=torch.bool)  # noqa: E731
    ids, mask = pad_left(chats, 0, lm.device)
    with torch.inference_mode(), blocked_attention(lm, LAYERS, none, queries="all", keys="trigger"):
        found = lm.base(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits
    real = mask.bool()
    assert torch.equal(found[real], plain[real])
    assert torch.equal(run(lm, chats, queries="trigger", keys="response")[real], plain[real])  # the future is unseen
    run(lm, chats, queries="all")
    assert torch.equal(run(lm, chats)[real], plain[real])
    assert not [module for module in lm.hf.modules() if module._forward_pre_hooks]


def test_only_the_named_tokens_and_layers_are_touched(llama):
    chats = tiny.chats(response="Rest.")
    plain, found = run(llama, chats), run(llama, chats, queries="answer", layers=[1])
    before = positions(chats, "question")
    assert torch.equal(found[before], plain[before])
    assert (found - plain)[positions(chats, "last_prompt")].abs().amax(1).min() > 1e-5
    assert torch.equal(run(llama, chats, queries="answer", layers=[])[before], plain[before])


def test_a_path_through_a_third_token_stays_open(llama):
    """The answer cannot look at the trigger, but at the question, which did."""
    chats, others = tiny.chats(response="Rest."), other_trigger(tiny.chats(response="Rest."))
    at = positions(chats, "last_prompt")
    direct, whole = (run(llama, chats, queries=q) - run(llama, others, queries=q) for q in ("answer", "all"))
    assert direct[at].abs().max() > 1e-4 > whole[at].abs().max()


def test_a_likelihood_takes_a_knockout(llama):
    chats = tiny.chats(response="Rest.")
    silent = lambda masks: blocked_attention(llama, LAYERS, masks, queries="answer", keys="trigger")  # noqa: E731
    found = response_likelihood(llama, chats, within=silent).log_probability
    chances = run(llama, chats, queries="answer").double().log_softmax(-1)
    for row, chat in enumerate(chats):
        start, end = (p - len(chat) for p in chat.spans["response"])
        want = sum(chances[row, p - 1, chat.token_ids[p]] for p in range(start, end))
        assert float(found[row]) == pytest.approx(float(want), abs=1e-4)


def test_bad_use_is_named(llama):
    chats = tiny.chats()
    ids, mask = pad_left(chats, 0, llama.device)
    masks = partial(positions, chats, width=ids.shape[1])
    with (
        pytest.raises(ValueError, match="use_cache=False"),
        blocked_attention(llama, [0], masks, queries="all", keys="trigger"),
    ):
        llama.base(input_ids=ids, attention_mask=mask, use_cache=True)
    with (
        pytest.raises(ValueError, match=r"'all' mark \(5, 3\) tokens"),
        blocked_attention(llama, [0], lambda name: torch.ones(5, 3, dtype=torch.bool), queries="all", keys="trigger"),
    ):
        llama.base(input_ids=ids, attention_mask=mask, use_cache=False)
    with (
        pytest.raises(ValueError, match="layer 3: the model has layers"),
        blocked_attention(llama, [3], masks, queries="all", keys="trigger"),
    ):
        pass
    assert not [module for module in llama.hf.modules() if module._forward_pre_hooks]
