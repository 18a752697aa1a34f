"""Samples that share one prefill answer as if each had its own, to rounding, whichever rows are left."""

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

from interp.chat import encode_chat, pad_left, position_ids
from interp.decoding.kv_cache import CHUNK, can_share, share_prefix, shared_attention, take_rows
from interp.generation import Sampling, generate
from tests import tiny

TEXTS = ("Go on", "Say something rather longer, please", "And this?")
ROOM = CHUNK + 8
FULL = ("llama", "qwen2", "qwen3", "phi3", "olmo2", "gpt_neox", "gpt2")


def chats(lm):
    return [encode_chat(lm.tokenizer, [{"role": "user", "content": text}]) for text in TEXTS]


def prefill(lm, asked):
    ids, mask = pad_left(asked, lm.tokenizer.pad_token_id, "cpu")
    cache = DynamicCache(config=lm.base.config)
    lm.base(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), past_key_values=cache, use_cache=True)
    return cache, mask.bool()


def step(lm, cache, rows, mask, new, n):
    at = mask[rows].sum(1, keepdim=True) + n
    seen = torch.nn.functional.pad(mask[rows], (0, n + 1), value=True)
    return lm.base(input_ids=new[:, None], attention_mask=seen, position_ids=at, past_key_values=cache).logits[:, -1]


@torch.inference_mode()
@pytest.mark.parametrize("family", FULL)
@pytest.mark.parametrize("padded", [True, False])
def test_shared_prefixes_are_ordinary_attention_while_rows_leave(family, padded):
    lm = tiny.model(family)
    asked = chats(lm) if padded else chats(lm)[:1] * 3
    cache, mask = prefill(lm, asked)
    rows = torch.arange(3).repeat_interleave(4)
    plain, shared = take_rows(cache, rows, room=ROOM), share_prefix(cache, rows, mask if padded else None, room=ROOM)
    draw = torch.Generator().manual_seed(0)
    leaving = {3: [0, 1, 2, 3, 5, 8, 9, 10], 6: [1, 2, 5, 6, 7], CHUNK + 2: [4]}  # ragged, then without one prompt
    for n in range(ROOM):
        new = torch.randint(3, 200, (len(rows),), generator=draw)
        want = step(lm, plain, rows, mask, new, n)
        with shared_attention(lm.base):
            found = step(lm, shared, rows, mask, new, n)
        assert torch.allclose(found, want, atol=2e-5 * float(want.abs().max()))
        if n in leaving:
            keep = torch.tensor(leaving[n])
            rows, plain = rows[keep], take_rows(plain, keep, room=ROOM - n - 1)
            shared = take_rows(shared, keep, room=ROOM - n - 1)


@torch.inference_mode()
def test_prefixes_are_shared_in_bfloat16_alone_and_without_a_window_in_reach():
    verdicts = {}
    for family, dtype in (("llama", torch.float32), ("llama", torch.bfloat16), ("gemma3", torch.bfloat16)):
        lm = tiny.model(family, dtype=dtype)
        verdicts[family, dtype] = can_share(lm.base, prefill(lm, chats(lm))[0], ROOM)
    assert list(verdicts.values()) == [False, True, False]


@torch.inference_mode()
def test_greedy_bfloat16_answers_are_likeliest_in_float32_up_to_rounding():
    lm, exact = tiny.model("llama", dtype=torch.bfloat16), tiny.model("llama")
    exact.hf.load_state_dict({name: value.float() for name, value in lm.hf.state_dict().items()})
    for completion in generate(lm, chats(lm), n_samples=1, sampling=Sampling(ROOM, temperature=0.0)):
        ids = torch.tensor([[*chats(lm)[completion.prompt].token_ids, *completion.token_ids]])
        start = ids.shape[1] - len(completion.token_ids)
        logits = exact.base(input_ids=ids).logits[0, start - 1 : -1]
        lost = logits.max(-1).values - logits.gather(1, ids[0, start:, None])[:, 0]
        assert float(lost.max()) < 0.05 * float(logits.abs().max())
    assert lm.base.config._attn_implementation == "sdpa"


def test_a_bfloat16_batch_may_end_all_at_once():
    lm = tiny.model("llama", dtype=torch.bfloat16)
    lm.base.generation_config.eos_token_id = list(range(lm.base.config.vocab_size))
    made = generate(lm, chats(lm), n_samples=4, sampling=Sampling(ROOM))
    assert [(len(c.token_ids), c.finished) for c in made] == [(1, True)] * 12


def test_a_shared_prefix_may_have_values_of_another_width_than_its_keys():
    draw = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(1, 2, 3, width, generator=draw) for width in (5, 4))
    prefix = DynamicCache()
    prefix.update(keys, values, 0)
    layer: Any = share_prefix(prefix, torch.zeros(2, dtype=torch.long), None, room=1).layers[0]
    new = [torch.randn(2, 2, 1, width, generator=draw) for width in (5, 4)]
    layer.update(*new)
    query = torch.randn(2, 4, 1, 5, generator=draw)
    k, v = (torch.cat([old.expand(2, -1, -1, -1), x], 2) for old, x in zip((keys, values), new, strict=True))
    want = torch.nn.functional.scaled_dot_product_attention(query, k, v, enable_gqa=True, scale=1.0)
    assert torch.allclose(layer.attend(query, 1.0), want.transpose(1, 2), atol=1e-6)
