"""The parts of a model under one name in every family; prompts that do not fit it are refused."""

from typing import Any

import accelerate
import pytest
import torch
from transformers import AutoModelForCausalLM, BartConfig

from interp.chat import Chat
from interp.generation import Sampling, generate
from interp.models import AdapterError, check_prompts, fingerprint, kept_logits, wrap
from interp.recording import record
from interp.sites import Site
from tests import tiny
from tests.interp.saved import IDS


def test_the_parts_of_every_family(lm):
    assert (lm.n_layers, lm.d_model, lm.dtype) == (tiny.N_LAYERS, tiny.D_MODEL, torch.float32)
    assert lm.adapters == () and lm.device.type == "cpu" and not lm.hf.training
    with torch.no_grad():
        hidden = lm.base(input_ids=IDS, output_hidden_states=True).hidden_states
    assert hidden[-1].shape[-1] == lm.d_model and lm.lm_head.weight.shape[0] == lm.embedding.weight.shape[0]
    assert lm.final_norm.weight.shape == (lm.d_model,)
    assert (lm.vocabulary, lm.context) == (lm.embedding.weight.shape[0], 256)
    with pytest.raises(ValueError, match=r"layer 3: the model has layers 0\.\.2"):
        lm.layer(3)


def test_fingerprint_of_more_values_than_float32_counts():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(49152 * 576, dtype=torch.bfloat16))
    assert fingerprint(module) == fingerprint(module)


def test_adapters_do_not_change_the_fingerprint_of_their_base(llama):
    before = fingerprint(llama.hf)
    lm = tiny.with_adapters(llama, "first")
    assert fingerprint(lm.hf) == fingerprint(lm.base) == before


@pytest.mark.parametrize("tied", [False, True])
def test_offloaded_weights_have_the_same_fingerprint(tied):
    lm = tiny.model("llama", tie_word_embeddings=tied)
    before = fingerprint(lm.hf)
    hf = accelerate.cpu_offload(lm.hf, execution_device=torch.device("cpu"))
    assert next(hf.parameters()).device.type == "meta" and fingerprint(hf) == before


def test_adapters_that_add_tokens_are_refused(llama):
    from peft import PromptTuningConfig, get_peft_model

    hf = get_peft_model(llama.hf, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(AdapterError, match="PROMPT_TUNING adds tokens, which would move every position"):
        wrap(hf, llama.tokenizer)


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_a_prompt_that_would_change_the_rotary_frequencies_of_its_batch_is_refused(family):
    rotary = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.0], "long_factor": [4.0, 8.0]}
    rotary |= {"factor": 8.0, "original_max_position_embeddings": 30}
    lm = tiny.model(family, rope_parameters=rotary, original_max_position_embeddings=30)
    assert lm.context == 30
    check_prompts(lm, [Chat((1,) * 20, {}, "text")], answer=10)
    with pytest.raises(ValueError, match="the model has 30 positions"):
        check_prompts(lm, [Chat((1,) * 20, {}, "text")], answer=11)


def test_half_of_an_encoder_decoder_is_refused():
    sizes: Any = {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16}
    config = BartConfig(vocab_size=262, max_position_embeddings=64, **sizes)
    hf = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="model x: bart is an encoder-decoder"):
        wrap(hf, tiny.tokenizer(), name="x")


def test_a_prompt_that_does_not_fit_is_refused_by_its_number(llama):
    short, long, unknown = (Chat(ids, {}, "text") for ids in ((1, 2), (1,) * 250, (1, 500)))
    check_prompts(llama, [short, long], answer=6)
    with pytest.raises(ValueError, match=r"prompt 1 of 2 \('text'\): 250 tokens and up to 7 more .* 256 positions"):
        check_prompts(llama, [short, long], answer=7)
    with pytest.raises(ValueError, match=r"prompt 0 of 1 \('text'\): token 500; the embedding has 262 rows"):
        check_prompts(llama, [unknown])
    with pytest.raises(ValueError, match="prompt 1 of 2"):
        record(llama, [short, Chat((1,) * 257, {}, "text")], [Site("resid_post", 0)], ["last_prompt"])
    with pytest.raises(ValueError, match=r"prompt 0 of 1 .* 10 more for the answer"):
        generate(llama, [long], sampling=Sampling(max_new_tokens=10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_gets_packed_states_in_a_half_dtype_and_its_logits_are_those_of_a_whole_pass(dtype):
    lm = tiny.model("llama", dtype=dtype)
    ids = torch.cat([IDS, IDS.flip(1)])
    strides = []
    watch = lm.lm_head.register_forward_hook(lambda _, inputs, out: strides.append(inputs[0].stride()))
    kept = kept_logits(lm, 2, input_ids=ids, use_cache=False)
    watch.remove()
    torch.testing.assert_close(kept, lm.base(input_ids=ids, use_cache=False).logits[:, -2:], rtol=0.02, atol=0.02)
    packed = (2 * lm.d_model, lm.d_model, 1)
    assert (strides == [packed]) == (dtype == torch.bfloat16)
    assert not lm.lm_head._forward_pre_hooks
