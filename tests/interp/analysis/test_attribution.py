"""Heads, MLPs and embedding add up to what the model computes, and patching everything is the other run."""

import pytest
import torch

from interp.adapters import active_adapter
from interp.analysis.attribution import (
    direct_logit_attribution,
    head_outputs,
    logit_difference,
    logit_lens,
    patch_heads,
)
from interp.bridges.via_transformer_lens import bridge, logits
from interp.chat import encode_chat
from interp.edits import add
from interp.recording import record
from interp.sites import Site, resid_post
from tests import tiny
from tests.interp.bridges.test_via_transformer_lens import TOLERANCE, assert_same, booted, rows, two_adapters

BIASED = {"gpt_neox": "attention.dense", "gpt2": "attn.c_proj"}


@pytest.fixture(params=tiny.FAMILIES)
def adapted(request):
    """The model of each family under an adapter, and its bridge."""
    return two_adapters(request.param), booted(request.param, "first")


def test_heads_add_up_to_what_attention_adds(adapted):
    lm, tl = adapted
    chats, names = tiny.chats(), ["last_prompt", "question"]
    found = head_outputs(tl, chats, names, batch_tokens=150)
    assert found.shape == (2, 3, 4, len(chats), 16)
    for layer in range(3):
        bias = lm.layer(layer).get_submodule(BIASED[lm.family]).bias if lm.family in BIASED else torch.zeros(16)
        for index, name in enumerate(names):
            want = record(lm, chats, [Site("attn_out", layer)], [name]).values[0, 0]
            assert_same(found[index, layer].sum(0) + bias.detach(), want)


def test_a_head_without_values_adds_nothing(llama):
    heads = 4
    with torch.no_grad():
        llama.layer(1).self_attn.v_proj.weight[: 16 // heads] = 0  # feeds heads 0 and 1 of 4: two share each value
    found = head_outputs(bridge(llama, adapter=None), tiny.chats())[0, 1]
    assert found[:2].abs().max() == 0 and (found[2:].abs().amax((1, 2)) > 0).all()


def test_heads_follow_an_edit(llama):
    tl = bridge(llama, adapter=None)
    edit = add(Site("resid_pre", 1), 5 * rows(16))
    moved = head_outputs(tl, tiny.chats(), edits=[edit]) - head_outputs(tl, tiny.chats())
    assert moved[0, 0].abs().max() == 0 and (moved[0, 1:].abs().amax((1, 2, 3)) > 0).all()


def test_the_logit_lens_of_the_last_layer_is_the_output(adapted):
    lm, tl = adapted
    found = logit_lens(tl, tiny.chats(), resid_post(range(3)))
    assert found.shape == (3, len(tiny.QUESTIONS), 262)
    assert_same(found[-1], logits(tl, tiny.chats()))
    assert (found[0] - found[-1]).abs().max() > 1e-2
    few = logit_lens(tl, tiny.chats(), resid_post([1]), tokens=[7, 3])
    assert torch.equal(few[0], found[1][:, [7, 3]])
    hidden = record(lm, tiny.chats(), resid_post([1]), ["last_prompt"]).values[0, 0]
    with torch.no_grad():
        want = lm.lm_head(lm.final_norm(hidden))
    cap = getattr(lm.base.config, "final_logit_softcapping", None)
    assert_same(found[1], want if cap is None else cap * torch.tanh(want / cap))


def test_shares_of_a_logit_difference_add_up_to_it(adapted):
    lm, tl = adapted
    found = direct_logit_attribution(tl, tiny.chats(), towards=40, away=90, batch_tokens=150)
    assert (found.heads.shape, found.mlps.shape) == ((3, 4, len(tiny.QUESTIONS)), (3, len(tiny.QUESTIONS)))
    assert_same(found.total, found.logit_difference)
    assert found.heads.abs().amax((1, 2)).min() > 1e-4 and found.mlps.abs().amax(1).min() > 1e-4
    assert (found.attention_bias.abs().max() > 0) == (lm.family in BIASED)
    if lm.family != "gemma2":  # whose soft cap bends the difference afterwards
        assert_same(found.total, logit_difference(40, 90)(logits(tl, tiny.chats()), range(len(tiny.QUESTIONS))))


def test_shares_are_what_each_part_writes_along_the_difference(llama):
    """Independent of the module: the unembedding of ``record``'s own vectors under the frozen norm."""
    found = direct_logit_attribution(bridge(llama, adapter=None), tiny.chats(), towards=40, away=90)
    sites = [Site("resid_pre", 0), *(Site("mlp_out", layer) for layer in range(3)), Site("resid_post", 2)]
    values = record(llama, tiny.chats(), sites, ["last_prompt"]).values[:, 0]
    with torch.no_grad():
        norm, head = llama.final_norm, llama.lm_head.weight
        scale = (values[-1].pow(2).mean(-1, keepdim=True) + llama.base.config.rms_norm_eps).sqrt()
        shares = (values[:-1] / scale * norm.weight) @ (head[40] - head[90])
    torch.testing.assert_close(torch.cat([found.embedding[None], found.mlps]), shares, atol=TOLERANCE, rtol=0)


def test_tokens_may_differ_by_prompt(llama):
    tl, count = bridge(llama, adapter=None), len(tiny.QUESTIONS)
    towards, away = list(range(10, 10 + count)), [90] * count
    found = direct_logit_attribution(tl, tiny.chats(), towards, away)
    want = logits(tl, tiny.chats())
    want = want[range(count), towards] - want[range(count), away]
    assert_same(found.logit_difference, want)
    assert_same(logit_difference(towards, 90)(logits(tl, tiny.chats()), range(count)), want)
    with pytest.raises(ValueError, match=f"2 tokens for {count} prompts"):
        direct_logit_attribution(tl, tiny.chats(), [1, 2], 3)
    with pytest.raises(ValueError, match="position 'question': several tokens"):
        direct_logit_attribution(tl, tiny.chats(), 1, 2, position="question")


def test_an_adapter_beside_the_vocabulary_head_is_refused(llama):
    from peft import LoraConfig, get_peft_model

    from interp.models import wrap

    config = LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False)
    lm = wrap(get_peft_model(llama.hf, config, adapter_name="head"), llama.tokenizer)
    with pytest.raises(ValueError, match="boot the bridge merged"):
        direct_logit_attribution(bridge(lm, adapter="head", merged=False), tiny.chats(), 40, 90)
    merged = direct_logit_attribution(bridge(lm, adapter="head"), tiny.chats(), 40, 90)
    assert_same(merged.total, merged.logit_difference)


def test_heads_apart_count_an_adapter_beside_the_output_projection(llama):
    lm = tiny.with_adapters(llama, "first")
    merged, beside = (
        head_outputs(bridge(lm, adapter="first", merged=merged), tiny.chats()) for merged in (True, False)
    )
    assert_same(beside, merged)
    with active_adapter(lm, None):
        assert (head_outputs(bridge(lm, adapter=None), tiny.chats()) - merged).abs().max() > 1e-3


# patching


def on_and_off():
    """The same questions behind triggers of different lengths."""
    sources = [encode_chat(tiny.tokenizer(), [{"role": "user", "content": text}]) for text in tiny.QUESTIONS]
    return tiny.chats(), sources


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_patching_a_run_into_itself_changes_nothing(family):
    tl, chats = bridge(tiny.model(family), adapter=None), tiny.chats()
    metric = logit_difference(40, 90)
    plain = metric(logits(tl, chats), range(len(chats)))
    found = patch_heads(tl, chats, chats, metric, positions=["last_prompt", "question"])
    assert found.shape == (2, 3, 4, len(chats))
    torch.testing.assert_close(found, plain.expand_as(found), atol=1e-6, rtol=0)


def test_a_head_patched_at_the_answer_moves_the_logits_as_its_output_does(llama):
    """In the last layer, head outputs reach the answer through the last MLP and norm only: do that by hand."""
    tl, (source, target) = bridge(llama, adapter=None), on_and_off()
    found = patch_heads(tl, source, target, logit_difference(40, 90), batch_tokens=200)
    given, taken = (head_outputs(tl, chats)[0, 2] for chats in (source, target))
    mid = record(llama, target, [Site("resid_mid", 2)], ["last_prompt"]).values[0, 0]
    layer = llama.layer(2)
    with torch.no_grad():
        patched = mid + given - taken
        patched = patched + layer.mlp(layer.post_attention_layernorm(patched))
        want = llama.lm_head(llama.final_norm(patched))
    assert_same(found[0, 2], want[..., 40] - want[..., 90])
    assert (found[0, 2] - found[0, 2, :1]).abs().max() > 1e-4


def test_patching_the_question_goes_token_by_token(llama):
    tl, (source, target) = bridge(llama, adapter=None), on_and_off()
    plain = logit_difference(40, 90)(logits(tl, target), range(len(target)))
    found = patch_heads(tl, source, target, logit_difference(40, 90), positions=["question"])[0]
    assert (found[:2] - plain).abs().amax((1, 2)).min() > 1e-6
    assert_same(found[2], plain.expand_as(found[2]))  # after the last attention nothing moves between positions


def test_batching_does_not_matter_to_patching(llama):
    tl, (source, target) = bridge(llama, adapter=None), on_and_off()
    whole = patch_heads(tl, source, target, logit_difference(40, 90))
    assert_same(patch_heads(tl, source, target, logit_difference(40, 90), batch_tokens=1), whole)


def test_pairs_that_do_not_fit_are_named(llama):
    tl, metric = bridge(llama, adapter=None), logit_difference(40, 90)
    with pytest.raises(ValueError, match="5 source prompts for 4 target prompts"):
        patch_heads(tl, tiny.chats(), tiny.chats(count=4), metric)
    with pytest.raises(ValueError, match=r"position 'question' has \d+ tokens in source prompt \d, \d+ in its target"):
        patch_heads(tl, tiny.chats(), tiny.chats()[::-1], metric, positions=["question"])
