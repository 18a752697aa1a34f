"""The same identities on a tiny random model of every architecture of ``tests.architectures``."""

from functools import cache
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Gemma3nTextConfig

from interp.adapters import active_adapter
from interp.analysis.knockout import blocked_attention
from interp.analysis.lora import adapted_modules, stream_gain
from interp.analysis.orthogonalise import orthogonalised, writer_ablation
from interp.chat import encode_chat, pad_left, position_ids, positions
from interp.decoding.kv_cache import PLAIN_ATTENTION, new_cache, share_prefix, shared_attention, take_rows
from interp.decoding.sampling import Sampling
from interp.edits import add, editing
from interp.generation import generate
from interp.models import AdapterError, wrap
from interp.recording import record
from interp.sites import BLOCKS, Site, resid_post
from tests import tiny
from tests.architectures import ARCHITECTURES, GEMMA, OWN, build, family

N = 4
CHATS = [
    encode_chat(tiny.tokenizer(), [{"role": "user", "content": text}], marks={"trigger": "pond"})
    for text in ("A pond?", "My pond", "Tell me of the old duck pond.")
]
SHIFT = 4 * torch.randn(32, generator=torch.Generator().manual_seed(1))
GREEDY = Sampling(N, temperature=0.0)
NAMES = [name for name in ARCHITECTURES if name not in OWN]
GENERATING = [name for name in NAMES if name != "minimax"]
FROM_BLOCKS = ("mamba", "mamba2", "falcon_mamba")
"""Their hidden states begin behind the first block."""
PARALLEL = ("cohere", "codegen", "gptj", "phi", "falcon", "gpt_neox", "stablelm_parallel")
model = cache(build)


def parallel(name):
    return name.startswith(PARALLEL) and name not in ("phi3", "phimoe", "gpt_neox_serial")


@torch.inference_mode()
def alone(lm, ids, added=None, start=0):
    """Run one row without padding or cache; return the stream at each block, the logits and Hugging Face's states.

    ``added`` is put onto the stream after block 1, from token ``start`` on.
    """
    seen: list[Any] = []

    def before(_module, args, kwargs):
        seen.append((args[0] if args else kwargs["hidden_states"])[0].float())

    def hook(_module, _args, output):
        h = (output[0] if isinstance(output, tuple) else output).clone()
        if added is not None and len(seen) == 2:
            h[:, start:] += added.to(h)
        seen.append(h[0].float())
        return (h, *output[1:]) if isinstance(output, tuple) else h

    handles = [layer.register_forward_hook(hook) for layer in lm.layers]
    handles.append(lm.layers[0].register_forward_pre_hook(before, with_kwargs=True))
    out = lm.base(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    for handle in handles:
        handle.remove()
    return seen, out.logits[0].float(), out.hidden_states


def assert_near(value, expected, tolerance=1e-5):
    torch.testing.assert_close(value, expected, rtol=0, atol=tolerance * float(expected.abs().max().clamp_min(1)))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_vectors_are_those_of_the_row_alone_and_of_hugging_face(name):
    lm = model(name)
    recording = record(lm, CHATS, [Site("resid_pre", 0), *resid_post(range(lm.n_layers))], ["last_prompt", "trigger"])
    for index, chat in enumerate(CHATS):
        blocks, _, states = alone(lm, chat.token_ids)
        start, end = chat.spans["trigger"]
        assert_near(recording.at(Site("resid_pre", 0), "last_prompt")[index], blocks.pop(0)[-1])
        for layer, h in enumerate(blocks):
            assert_near(recording.at(Site("resid_post", layer), "last_prompt")[index], h[-1])
            assert_near(recording.at(Site("resid_post", layer), "trigger")[index], h[start:end].mean(0))
        for state, h in zip(states[:-1] if name in FROM_BLOCKS else states[1:-1], blocks, strict=False):
            assert_near(state[0], h)


@pytest.mark.parametrize("name", [name for name in NAMES if family(name) in BLOCKS])
def test_the_parts_of_every_block_add_up_read_and_edited(name):
    lm = model(name)
    parts = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
    if parallel(name):
        with pytest.raises(ValueError, match="run in parallel"):
            record(lm, CHATS, [Site("resid_mid", 0)], ["last_prompt"])
        parts.remove("resid_mid")
    sites = [Site(part, layer) for layer in range(lm.n_layers) for part in parts]
    recording = record(lm, CHATS, sites, ["last_prompt"])
    for layer in range(lm.n_layers):
        value = {part: recording.at(Site(part, layer), "last_prompt") for part in parts}
        assert_near(value["resid_pre"] + value["attn_out"] + value["mlp_out"], value["resid_post"])
        if "resid_mid" in value:
            assert_near(value["resid_pre"] + value["attn_out"], value["resid_mid"])
    last = resid_post([lm.n_layers - 1])

    def shifted(part):
        return record(lm, CHATS, last, ["last_prompt"], edits=[add(Site(part, 1), SHIFT)]).values

    assert_near(shifted("mlp_out"), shifted("resid_post"))
    assert (shifted("attn_out") - shifted("resid_post")).abs().max() > 1e-3 or parallel(name)
    if "resid_mid" in parts:
        assert_near(shifted("attn_out"), shifted("resid_mid"))


def decoded(lm, edits):
    """Return the completions and the logits that each of their tokens was chosen from, chat by chat."""
    steps = []
    hook = lm.base.register_forward_hook(lambda _module, _args, out: steps.append(out.logits[:, -1].float()))
    completions = generate(lm, CHATS, sampling=GREEDY, edits=edits)
    hook.remove()
    batches = [torch.stack(steps[first : first + N], 1) for first in range(0, len(steps), N)]
    return completions, torch.cat(batches)


def uncached(lm, completions, added):
    """Return the logits of every answer from one pass per row over prompt and answer."""
    rows = []
    for chat, completion in zip(CHATS, completions, strict=True):
        start = len(chat) - 1
        rows.append(alone(lm, [*chat.token_ids, *completion.token_ids[:-1]], added, start)[1][start:])
    return torch.stack(rows)


@pytest.mark.parametrize("name", GENERATING)
def test_cached_batched_generation_is_the_row_alone_without_cache_also_when_steered(name):
    lm, logits = model(name), []
    for edits, added in (([], None), ([add(Site("resid_post", 1), SHIFT, positions="answer")], SHIFT)):
        completions, cached = decoded(lm, edits)
        assert_near(cached, uncached(lm, completions, added), 1e-4)
        assert [completion.token_ids for completion in completions] == [
            tuple(row.argmax(-1).tolist()) for row in cached
        ]
        logits.append(cached)
    assert all((logits[0][:, step] - logits[1][:, step]).abs().max() > 1e-2 for step in range(N))
    samples = generate(lm, CHATS, n_samples=2, sampling=Sampling(N))
    assert generate(lm, CHATS[2:], n_samples=2, sampling=Sampling(N))[1].token_ids == samples[5].token_ids
    assert samples[4].token_ids != samples[5].token_ids


@pytest.mark.parametrize("name", GENERATING)
def test_bfloat16_records_and_generates(name):
    lm = model(name, torch.bfloat16)
    assert bool(torch.isfinite(record(lm, CHATS, resid_post([0, lm.n_layers - 1]), ["trigger"]).values).all())
    completions, cached = decoded(lm, [add(Site("resid_post", 1), SHIFT, positions="answer")])
    expected = uncached(lm, completions, SHIFT)
    lost = (cached - expected).abs().amax(-1) / expected.abs().amax(-1)  # a router may choose another expert
    assert float(lost.median()) < 0.05
    assert len(generate(lm, CHATS, n_samples=2, sampling=Sampling(N))) == 6


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_that_is_off_is_the_bare_base_and_on_it_differs(name):
    lm, sites = build(name), resid_post([2])
    before = record(lm, CHATS, sites, ["last_prompt"]).values
    without = ["out_proj", "conv1d", "dt_proj"] if lm.recurrent else ["router"]
    adapted = tiny.with_adapters(lm, "mine", exclude_modules=without)
    with active_adapter(adapted, None):
        assert_near(record(adapted, CHATS, sites, ["last_prompt"]).values, before, 1e-6 if lm.recurrent else 0)
    with active_adapter(adapted, "mine"):
        assert (record(adapted, CHATS, sites, ["last_prompt"]).values - before).abs().max() > 1e-3
        if name in GENERATING:
            completions, cached = decoded(adapted, [])
            assert_near(cached, uncached(adapted, completions, None), 1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name in GENERATING if family(name) in PLAIN_ATTENTION])
def test_attention_over_a_shared_prefix_is_ordinary_attention(name):
    lm = build(name, sliding_window=256 if "sliding_window" in ARCHITECTURES[name][1] else None)
    ids, mask = pad_left(CHATS, 0, "cpu")
    cache, rows, real = new_cache(lm.base), torch.arange(len(CHATS)).repeat_interleave(2), mask.bool()
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask), "past_key_values": cache}
    lm.base(**inputs, use_cache=True)
    plain, shared = take_rows(cache, rows, room=3), share_prefix(cache, rows, real, room=3)
    for step in range(3):
        new = torch.arange(20, 26)[:, None] * (step + 1)
        seen = torch.nn.functional.pad(real[rows], (0, step + 1), value=True)
        inputs = {"input_ids": new, "attention_mask": seen, "position_ids": real[rows].sum(1, keepdim=True) + step}
        expected = lm.base(**inputs, past_key_values=plain).logits
        with shared_attention(lm.base):
            assert_near(lm.base(**inputs, past_key_values=shared).logits, expected)


@pytest.mark.parametrize("name", [name for name in NAMES if (block := BLOCKS.get(family(name))) and block.writers])
def test_orthogonalised_weights_are_the_ablated_model_or_refused(name):
    lm, direction = model(name), SHIFT
    if BLOCKS[lm.family].post_normed:
        with pytest.raises(ValueError, match="post-norms"):
            orthogonalised(lm, direction).__enter__()
        return
    ids, _ = pad_left(CHATS[2:], 0, "cpu")
    with torch.no_grad():
        with editing(lm, writer_ablation(lm, direction), lambda name: positions(CHATS[2:], name)):
            ablated = lm.base(input_ids=ids, use_cache=False).logits
        with orthogonalised(lm, direction):
            assert_near(lm.base(input_ids=ids, use_cache=False).logits, ablated)


@pytest.mark.parametrize("name", NAMES)
def test_what_attention_may_not_see_changes_nothing_or_the_knockout_is_refused(name):
    lm, chat = model(name), CHATS[2]
    start, end = chat.spans["trigger"]
    swapped = (*chat.token_ids[:start], *range(90, 90 + end - start), *chat.token_ids[end:])

    def last(ids, keys):
        masks = lambda position: positions([chat], position)  # noqa: E731
        with torch.no_grad(), blocked_attention(lm, range(lm.n_layers), masks, queries="all", keys=keys):
            return lm.base(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]

    if lm.recurrent or name == "mpt":
        with pytest.raises(ValueError, match=r"pass tokens on in a state|opposite meaning"):
            last(swapped, "trigger")
        return
    assert_near(last(swapped, "trigger"), last(chat.token_ids, "trigger"))
    assert (last(swapped, "last_prompt") - last(chat.token_ids, "last_prompt")).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_model_with_a_state_of_its_own_is_refused(name):
    with pytest.raises(ValueError, match=f"{family(name)} is not supported"):
        build(name)


def test_a_model_with_a_cache_of_its_own_is_refused_before_it_generates():
    with pytest.raises(ValueError, match="model minimax: generation does not support its cache"):
        generate(model("minimax"), CHATS)


@pytest.mark.parametrize("name", ["mamba", "falcon_mamba", "jamba"])
def test_an_adapter_that_mamba_would_not_use_is_refused(name):
    with pytest.raises(AdapterError, match="dt_proj: Mamba reads that weight without the adapter"):
        tiny.with_adapters(build(name), "mine", exclude_modules=["out_proj", "conv1d"])


def test_a_model_of_several_streams_is_refused():
    names = ["sliding_attention", "full_attention", "full_attention"]
    sizes = {"hidden_size_per_layer_input": 8, "laurel_rank": 4, "vocab_size_per_layer_input": 262}
    config = Gemma3nTextConfig(
        **{**tiny.COMMON, **GEMMA, **sizes, "layer_types": names, "activation_sparsity_pattern": [0.0] * 3},
        num_kv_shared_layers=1,
    )
    lm = wrap(AutoModelForCausalLM.from_config(config), tiny.tokenizer())
    with pytest.raises(ValueError, match=r"site resid_post\.1: its values have shape \(4, .* want one stream"):
        record(lm, CHATS, resid_post([1]), ["last_prompt"])


@pytest.mark.parametrize("name", ["qwen3_5", "mamba2", "falcon_h1", "lfm2", "recurrent_gemma"])
def test_samples_that_end_leave_the_batch_and_the_others_go_on_unchanged(name):
    lm, sampling = build(name), Sampling(12)
    free = generate(lm, CHATS, n_samples=6, sampling=sampling)
    assert generate(lm, CHATS, n_samples=6, sampling=sampling, batch_size=4) == free
    lm.hf.generation_config.eos_token_id = [*range(6, 262, 6)]
    stops = frozenset(lm.hf.generation_config.eos_token_id)
    for completion, whole in zip(generate(lm, CHATS, n_samples=6, sampling=sampling), free, strict=True):
        end = next((t + 1 for t, token in enumerate(whole.token_ids) if token in stops), len(whole.token_ids))
        assert completion.token_ids == whole.token_ids[:end]


READ = [
    ("smollm3", "self_attn.q_proj", "input_layernorm"),
    ("smollm3", "mlp.up_proj", "post_attention_layernorm"),
    ("qwen3_moe", "self_attn.v_proj", "input_layernorm"),
    ("deepseek_v3", "self_attn.q_a_proj", "input_layernorm"),
    ("deepseek_v3", "mlp.shared_experts.gate_proj", "post_attention_layernorm"),
    ("phi", "mlp.fc1", "input_layernorm"),
    ("cohere", "mlp.up_proj", "input_layernorm"),
    ("falcon_new", "mlp.dense_h_to_4h", "ln_mlp"),
    ("gpt_neox", "mlp.dense_h_to_4h", "post_attention_layernorm"),
    ("qwen3_5", "linear_attn.in_proj_qkv", "input_layernorm"),
    ("lfm2", "feed_forward.w1", "ffn_norm"),
    ("olmo2", "mlp.up_proj", None),
]


@pytest.mark.parametrize(("name", "module", "norm"), READ)
def test_the_gain_before_a_module_is_that_of_the_norm_that_it_reads(name, module, norm):
    lm = model(name)
    layer, expected = lm.layers[1], torch.ones(32)
    if norm:
        expected = layer.get_parameter(f"{norm}.weight").detach() + ("qwen3_5" in name)  # it stores the gain minus one
    path = next(path for path, part in lm.base.named_modules() if part is layer.get_submodule(module))
    assert_near(stream_gain(lm, path), expected, 1e-4)


@pytest.mark.parametrize(
    ("name", "module"),
    [("deepseek_v3", "self_attn.q_b_proj"), ("llama", "mlp.down_proj"), ("bitnet", "self_attn.o_proj")],
)
def test_a_module_that_does_not_read_the_stream_has_no_gain(name, module):
    with pytest.raises(ValueError, match="not a module that reads the residual stream"):
        stream_gain(model(name), f"model.layers.1.{module}")


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_an_adapter_of_fused_experts_switches_and_is_not_taken_for_linear_modules(name):
    config = LoraConfig(r=2, target_modules=[], target_parameters=["mlp.experts.down_proj"], init_lora_weights=False)
    lm, sites = build(name), resid_post([2])
    before = record(lm, CHATS, sites, ["last_prompt"]).values
    adapted = wrap(get_peft_model(lm.hf, config, adapter_name="mine"), lm.tokenizer)
    with active_adapter(adapted, None):
        assert torch.equal(record(adapted, CHATS, sites, ["last_prompt"]).values, before)
    with active_adapter(adapted, "mine"):
        assert (record(adapted, CHATS, sites, ["last_prompt"]).values - before).abs().max() > 1e-3
        completions, cached = decoded(adapted, [])
        assert_near(cached, uncached(adapted, completions, None), 1e-4)
    with pytest.raises(AdapterError, match="not a plain LoRA of linear modules"):
        adapted_modules(adapted, "mine")
