"""Updates are what peft adds, planted directions are found, and a module that is off is as if it had no adapter."""

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from interp.adapters import active_adapter
from interp.analysis.lora import (
    LoraUpdate,
    adapted_modules,
    delta,
    loaded_updates,
    lora_updates,
    only_modules,
    read_directions,
    scalar_activations,
    stream_gain,
    without_modules,
    write_directions,
)
from interp.directions import cosine
from interp.loading import load
from interp.models import AdapterError, wrap
from interp.recording import record
from interp.sites import Site
from tests import tiny
from tests.interp.saved import logits, lora, save_adapter

CHATS = tiny.chats()
SITE = Site("resid_post", tiny.N_LAYERS - 1)


@pytest.fixture(scope="module")
def adapted():
    return tiny.with_adapters(tiny.model(), "a", "b")


def out(lm):
    return record(lm, CHATS, [SITE], ["last_prompt"]).values


def added(lm, name: str, adapter="a") -> torch.Tensor:
    """What peft itself says it adds to a weight."""
    module: Any = lm.base.get_submodule(name)
    return module.get_delta_weight(adapter)


def saved(lm, folder, adapter="a"):
    lm.hf.save_pretrained(folder, selected_adapters=[adapter])
    return folder / adapter


@pytest.mark.parametrize("rslora", [False, True])
def test_updates_are_what_peft_adds(tmp_path, rslora):
    lm = tiny.with_adapters(
        tiny.model(), "a", use_rslora=rslora, rank_pattern={"q_proj": 1}, alpha_pattern={"up_proj": 5}
    )
    updates = lora_updates(saved(lm, tmp_path))
    assert tuple(sorted(updates)) == tuple(sorted(adapted_modules(lm, "a")))
    for name, update in loaded_updates(lm, "a").items():
        torch.testing.assert_close(delta(update), delta(updates[name]))
    for name, update in updates.items():
        torch.testing.assert_close(delta(update), added(lm, name))
        assert update.rank == (1 if update.kind == "q_proj" else 2)


def test_what_is_no_plain_lora_is_refused(tmp_path):
    with pytest.raises(AdapterError, match="has no adapter_config"):
        lora_updates(tmp_path)
    lm = tiny.with_adapters(tiny.model(), "a", use_dora=True)
    with pytest.raises(AdapterError, match="not a plain LoRA"):
        lora_updates(saved(lm, tmp_path))
    with pytest.raises(AdapterError, match="not a plain LoRA"):
        adapted_modules(lm, "a")


PATTERNS = ("q_proj", r"layers\.1\.self_attn\.q_proj", r"^model\.layers\.\d+\.mlp\.down_proj", r".*\.(k|v)_proj")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_in_peft(tmp_path, pattern):
    lm = tiny.with_adapters(tiny.model(), "a", rank_pattern={pattern: 3}, alpha_pattern={pattern: 16})
    updates = lora_updates(saved(lm, tmp_path))
    assert {update.scale for update in updates.values()} == {1.0, 16 / 3}
    for name, update in updates.items():
        torch.testing.assert_close(delta(update), added(lm, name))


NOT_PLAIN = {
    "bias of LoRA": {"lora_bias": True},
    "saved head": {"modules_to_save": ["lm_head"]},
    "single tokens": {"trainable_token_indices": [10, 11]},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "PiSSA": {"init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_no_part_of_an_adapter_is_left_out(tmp_path, kind):
    model = get_peft_model(tiny.model().hf, lora(**NOT_PLAIN[kind]), adapter_name="a")
    lm = wrap(model, tiny.tokenizer())
    with pytest.raises(AdapterError, match="not a plain LoRA of linear modules"):
        lora_updates(saved(lm, tmp_path))
    if kind != "PiSSA":  # in the model it is plain; the door has refused it, because its base is another
        with pytest.raises(AdapterError, match="not a plain LoRA of linear modules"):
            adapted_modules(lm, "a")


def test_lora_of_fused_experts_is_right_in_the_model_and_refused_in_its_parts(tmp_path):
    of_experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    sizes: dict[str, Any] = {**tiny.COMMON, **of_experts, "num_key_value_heads": 2, "head_dim": 4}
    config = Qwen3MoeConfig(**sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    folder = save_adapter(
        tmp_path / "moe", tmp_path / "base", lora(target_modules=["q_proj"], target_parameters=experts)
    )
    lm = load(tmp_path / "base", adapters={"a": folder})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    with active_adapter(lm, None):
        assert torch.equal(logits(lm.base), logits(plain))
    with active_adapter(lm, "a"):
        assert torch.equal(logits(lm.base), logits(PeftModel.from_pretrained(plain, str(folder)).eval()))
    for read in (lambda: lora_updates(folder), lambda: adapted_modules(lm, "a")):
        with pytest.raises(AdapterError, match="not a plain LoRA of linear modules"):
            read()


def test_modules_of_every_family_read_or_write_or_are_refused():
    one = rows(1, 16, seed=1), rows(16, 1, seed=2)
    for kind in ("fc1", "q_proj", "gate"):
        assert len(read_directions(planted(f"mlp.{kind}", *one)).vectors) == 1
    for kind in ("fc2", "dense", "down_proj"):
        assert len(write_directions(planted(f"mlp.{kind}", *one)).vectors) == 1
    for directions in (read_directions, write_directions):
        with pytest.raises(AdapterError, match=r"module model\.layers\.0\.mlp\.mystery .* is unknown"):
            directions(planted("mlp.mystery", *one) | planted("mlp.fc1", *one) | planted("mlp.fc2", *one))


def planted(kind: str, a: torch.Tensor, b: torch.Tensor, scale: float = 1.0) -> dict[str, LoraUpdate]:
    name = f"model.layers.0.{kind}"
    return {name: LoraUpdate(name, a, b, scale)}


def rows(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_directions_are_the_singular_vectors_of_the_whole_update():
    written = planted("mlp.down_proj", rows(2, 30, seed=1), rows(16, 2, seed=2)) | planted(
        "self_attn.o_proj", rows(3, 16, seed=3), rows(16, 3, seed=4), 0.5
    )
    read = planted("mlp.up_proj", rows(2, 16, seed=5), rows(30, 2, seed=6)) | planted(
        "self_attn.q_proj", rows(1, 16, seed=7), rows(8, 1, seed=8), 3.0
    )
    for found, whole in (
        (write_directions({**written, **read}), torch.cat([delta(u) for u in written.values()], 1)),
        (read_directions({**written, **read}), torch.cat([delta(u) for u in read.values()], 0).T),
    ):
        left, values, _ = torch.linalg.svd(whole, full_matrices=False)
        rank = len(found.vectors)
        torch.testing.assert_close(found.singular_values, values[:rank], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(cosine(found.vectors, left.T[:rank]).abs(), torch.ones(rank), atol=1e-4, rtol=0)
    with pytest.raises(AdapterError, match="none of its 1 modules writes to"):
        write_directions(planted("self_attn.q_proj", rows(1, 16, seed=7), rows(8, 1, seed=8)))


def test_a_gain_turns_what_a_module_reads_into_what_it_reads_of_the_stream(lm):
    adapted = tiny.with_adapters(lm, "a")
    for name in adapted_modules(adapted, "a"):
        if name.rpartition(".")[2] in ("q_proj", "up_proj", "c_attn", "query_key_value"):
            gain = stream_gain(adapted, name)
            assert gain.shape == (16,)
            ones = bool((gain == 1).all())
            assert ones == (lm.family == "olmo2"), name
    with pytest.raises(ValueError, match="not a module that reads"):
        stream_gain(adapted, "lm_head")


def test_what_a_module_reads_is_the_scalar_up_to_the_scale_of_the_norm():
    lm = tiny.with_adapters(tiny.model(), "a")
    name = "model.layers.1.self_attn.q_proj"
    with active_adapter(lm, "a"):
        h = record(lm, CHATS, [Site("resid_pre", 1)], ["last_prompt"]).values[0, 0]
    a = loaded_updates(lm, "a")[name].A * stream_gain(lm, name)
    scale = (h.square().mean(-1, keepdim=True) + lm.base.config.rms_norm_eps).sqrt()
    torch.testing.assert_close(scalar_activations(lm, "a", CHATS, ["last_prompt"])[name][0], h @ a.T / scale)


def test_scalars_do_not_depend_on_batches_and_the_active_adapter(adapted):
    whole = scalar_activations(adapted, "a", CHATS, ["trigger", "last_prompt"])
    with active_adapter(adapted, None):
        alone = scalar_activations(adapted, "a", CHATS, ["trigger", "last_prompt"], batch_tokens=1)
    assert set(whole) == set(adapted_modules(adapted, "a"))
    for name, values in whole.items():
        assert values.shape == (2, len(CHATS), 2)
        torch.testing.assert_close(alone[name], values, atol=1e-4, rtol=0)
    twice = {name: 2 * update.A for name, update in loaded_updates(adapted, "a").items()}
    for name, values in scalar_activations(adapted, "a", CHATS, ["last_prompt"], directions=twice).items():
        torch.testing.assert_close(values[0], 2 * whole[name][1], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="0 prompts"):
        scalar_activations(adapted, "a", [], ["trigger"])


def test_modules_are_found_by_whole_parts_of_their_names(adapted):
    every = adapted_modules(adapted, "a")
    assert len(every) == 7 * tiny.N_LAYERS + ("lm_head" in every)
    assert adapted_modules(adapted, "a", "q_proj") == tuple(name for name in every if name.endswith("q_proj"))
    assert adapted_modules(adapted, "a", "layers.1", "layers.2") == tuple(
        name for name in every if "layers.1." in name or "layers.2." in name
    )
    assert adapted_modules(adapted, "a", "layer") == ()
    with pytest.raises(AdapterError, match="the model has a, b"):
        adapted_modules(adapted, "c")


def test_without_every_module_is_the_base_and_without_none_the_adapter(lm):
    adapted = tiny.with_adapters(lm, "a")
    every, full = adapted_modules(adapted, "a"), out(adapted)
    with active_adapter(adapted, None):
        base = out(adapted)
    with without_modules(adapted, "a", every):
        assert torch.equal(out(adapted), base)
    with only_modules(adapted, "a", []):
        assert torch.equal(out(adapted), base)
    with without_modules(adapted, "a", []), only_modules(adapted, "a", every):
        assert torch.equal(out(adapted), full)
    assert torch.equal(out(adapted), full) and not torch.equal(full, base)


def test_without_a_module_its_own_update_alone_is_gone(adapted):
    name = "model.layers.2.mlp.down_proj"
    full = out(adapted)
    with without_modules(adapted, "a", [name]):
        off = out(adapted)
    weight = dict(adapted.base.named_parameters())[f"{name}.lora_B.a.weight"]
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()
        zeroed = out(adapted)
        weight.copy_(kept)
    torch.testing.assert_close(off, zeroed)
    assert (off - full).abs().max() > 1e-4


def test_scales_come_back_after_an_error_and_unknown_modules_are_named(adapted):
    full, every = out(adapted), adapted_modules(adapted, "a")
    with pytest.raises(RuntimeError), without_modules(adapted, "a", every):
        raise RuntimeError
    assert torch.equal(out(adapted), full)
    for switch in (without_modules, only_modules):
        with (
            pytest.raises(AdapterError, match="module 'x': adapter 'a' does not change it"),
            switch(adapted, "a", ["x"]),
        ):
            pass


# --- planted directions ---

D, INNER, RANK = 32, 48, 4


def unit(seed: int) -> torch.Tensor:
    vector = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def pointing(name: str, seed: int, direction: torch.Tensor, *, noise: float = 0.0, size: float = 1.0) -> LoraUpdate:
    """An update that is ``direction`` times a random row, with noise of that size in the other ranks."""
    draw = torch.Generator().manual_seed(seed)
    b, a = (torch.randn(*shape, generator=draw) for shape in ((D, RANK), (RANK, INNER)))
    b, a[1:] = b * noise, a[1:] * noise
    b[:, 0] = direction
    mix = torch.linalg.qr(torch.randn(RANK, RANK, generator=draw)).Q
    return LoraUpdate(name, mix @ a, b @ mix.T, size)


def led_by(*updates: LoraUpdate) -> torch.Tensor:
    return write_directions({update.name: update for update in updates}).vectors[0]


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_planted_write_direction_is_found_in_any_coordinates_of_the_rank(noise):
    updates = [pointing(name, i, unit(0), noise=noise) for i, name in enumerate(("a.o_proj", "b.down_proj"))]
    assert abs(float(led_by(*updates) @ unit(0))) > 0.999


def test_modules_that_do_not_write_have_no_part_and_the_larger_of_two_leads():
    quiet, loud = pointing("a.o_proj", 0, unit(0)), pointing("b.down_proj", 1, unit(1), size=30.0)
    reader = pointing("b.gate_proj", 2, unit(2), size=1e3)
    assert abs(float(led_by(quiet, reader) @ unit(0))) > 0.999
    assert abs(float(led_by(quiet, loud) @ unit(1))) > 0.99
    with pytest.raises(AdapterError, match="none of its 1 modules writes to the residual stream"):
        led_by(reader)
