"""Adapters switch exactly; those that change their base, do nothing, belong elsewhere or are broken are refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from interp.adapters import active_adapter, active_adapters, check_live
from interp.early.adapter_files import check_adapter
from interp.loading import load, outline, place
from interp.models import AdapterError, fingerprint
from tests import tiny
from tests.interp.saved import configure, logits, lora, retensor, save_adapter, save_base

RIGHT: dict[str, Callable[[], peft.PeftConfig]] = {
    "all linear modules": lambda: lora(target_modules="all-linear"),
    "rsLoRA": lambda: lora(use_rslora=True),
    "DoRA": lambda: lora(use_dora=True),
    "rank and alpha by module": lambda: lora(rank_pattern={"q_proj": 4}, alpha_pattern={"q_proj": 16}),
    "alpha by expression": lambda: lora(alpha_pattern={r"^model\.layers\.\d+\.mlp\.down_proj": 16}),
    "bias of LoRA itself": lambda: lora(lora_bias=True),
    "head and embedding saved": lambda: lora(modules_to_save=["lm_head", "embed_tokens"]),
    "norm saved": lambda: lora(modules_to_save=["norm"]),
    "embedding": lambda: lora(target_modules=["embed_tokens", "q_proj"]),
    "head": lambda: lora(target_modules=["lm_head", "q_proj"]),
    "single tokens": lambda: lora(trainable_token_indices=[10, 11]),
    "one layer": lambda: lora(layers_to_transform=[1]),
    "orthogonal": lambda: lora(init_lora_weights="orthogonal"),
    "EVA": lambda: lora(init_lora_weights="eva"),
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=["q_proj"], total_step=10, init_r=2, target_r=2),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "LoHa": lambda: peft.LoHaConfig(target_modules=["q_proj"], r=2),
    "LoKr": lambda: peft.LoKrConfig(target_modules=["q_proj"], r=2),
    "OFT": lambda: peft.OFTConfig(target_modules=["q_proj"], oft_block_size=4),
    "VeRA": lambda: peft.VeraConfig(target_modules=["o_proj"], r=2),
    "norms alone": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "BOFT": lambda: peft.BOFTConfig(target_modules=["q_proj"], boft_block_size=4),
    "SHiRA": lambda: peft.ShiraConfig(target_modules=["q_proj"], r=2),
    "MiSS": lambda: peft.MissConfig(target_modules=["q_proj"], r=2),
}
REFUSED: dict[str, tuple[Callable[[], peft.PeftConfig], str]] = {
    "every bias": (lambda: lora(bias="all"), "the model is not its base.*bias 'all'"),
    "biases of adapted modules": (lambda: lora(bias="lora_only"), "the model is not its base.*bias 'lora_only'"),
    "PiSSA": (lambda: lora(init_lora_weights="pissa"), "the model is not its base.*init_lora_weights 'pissa'"),
    "OLoRA": (lambda: lora(init_lora_weights="olora"), "the model is not its base.*init_lora_weights 'olora'"),
    "replicated layers": (lambda: lora(layer_replication=[[0, 2], [1, 3]]), "the model is not its base.*replication"),
    "activated LoRA": (lambda: lora(alora_invocation_tokens=[3, 4]), "acts in peft's own forward pass only"),
    "prompt tuning": (
        lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        "adds tokens, which would move every position",
    ),
}


def scaled_b(factor: float) -> Callable[[Path], None]:
    """Multiply every B of an adapter."""
    return lambda folder: retensor(folder, lambda name, x: (name, x * factor if "lora_B" in name else x))


def renamed(old: str, new: str) -> Callable[[Path], None]:
    """Rename tensors of an adapter."""
    return lambda folder: retensor(folder, lambda name, x: (name.replace(old, new), x))


def cut(folder: Path) -> None:
    """Cut the weights in half."""
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def at(**settings: Any) -> Callable[[Path], None]:
    """Change the config of an adapter."""
    return lambda folder: configure(folder, **settings)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "zero": (scaled_b(0.0), "it changes no logit of 3 prompts, so it is not loaded"),
    "A of one, B of the other": (
        lambda d: retensor(d, lambda n, x: (n, x * (("lora_A" in n) != ("q_proj" in n)))),
        "it changes no logit of 3 prompts, so it is not loaded",
    ),
    "tiny": (scaled_b(1e-30), "it changes no logit of 3 prompts, so it is not loaded"),
    "smaller than rounding": (scaled_b(3e-9), "it changes no logit of 3 prompts by more than rounding"),
    "alpha 0 of every module": (
        at(alpha_pattern={"q_proj": 0, "down_proj": 0}),
        "it changes no logit of 3 prompts, so it is not loaded",
    ),
    "alpha 0": (at(lora_alpha=0), "it changes no logit of 3 prompts, so it is not loaded"),
    "not a number": (scaled_b(float("nan")), "lora_B.*is not finite"),
    "infinite": (scaled_b(float("inf")), "is not finite"),
    "overflow": (scaled_b(1e38), "its logits are not finite"),
    "another rank": (at(r=8), "does not fit this base: size mismatch"),
    "fewer modules": (at(target_modules=["q_proj"]), "6 of its tensors do not match"),
    "half of its tensors": (lambda d: retensor(d, lambda n, x: (n, x) if "q_proj" in n else None), "6 of its tensors"),
    "another prefix": (renamed("model.model.", "model.language_model."), "of its tensors do not match"),
    "compiled": (renamed("base_model.model.", "base_model.model._orig_mod."), "of its tensors do not match"),
    "another base by name": (at(base_model_name_or_path="someone/other-7b"), "names base 'someone/other-7b'"),
    "a setting of a later peft": (at(new_key={"a": 1}), "its new_key is unknown to the installed peft"),
    "an unknown kind": (at(peft_type="NEWLORA"), "is unknown to the installed peft|does not fit"),
    "no kind": (at(peft_type=None), r"adapter_config\.json has no peft_type"),
    "CorDA": (at(init_lora_weights="corda"), "does not fit this base: .*corda"),
    "damaged config": (lambda d: (d / "adapter_config.json").write_text("{"), r"adapter_config\.json: not JSON"),
    "nested config": (
        lambda d: (d / "adapter_config.json").write_text("[" * 9000),
        r"adapter_config\.json: not JSON",
    ),
    "damaged manifest": (lambda d: (d / "manifest.json").write_text("{"), r"manifest\.json: not JSON"),
    "cut off": (cut, "does not fit this base"),
    "pickled": (lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"), "has no adapter_model"),
}


LOADED_ONLY = {"overflow", "smaller than rounding"}
"""What the files of the adapter do not show."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A base with biases, on disk."""
    return save_base(tmp_path_factory.mktemp("base") / "qwen2", "qwen2")


@pytest.fixture(scope="module")
def other_base(tmp_path_factory) -> Path:
    """A base of the same shapes and the same name, with other weights."""
    return save_base(tmp_path_factory.mktemp("other") / "qwen2", "qwen2", seed=5)


@pytest.fixture
def saved(tmp_path, base) -> Path:
    """A plain LoRA of the base, on disk."""
    return save_adapter(tmp_path / "adapter", base, lora())


@pytest.mark.parametrize("kind", RIGHT)
def test_an_adapter_is_as_in_peft_when_on_and_gone_when_off(tmp_path, base, kind):
    folder = save_adapter(tmp_path / "adapter", base, RIGHT[kind]())
    lm = load(base, adapters={"mine": folder})
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    with active_adapter(lm, None):
        assert torch.equal(logits(lm.base), logits(plain)) and fingerprint(lm.hf) == fingerprint(plain)
    peft_model = PeftModel.from_pretrained(plain, str(folder)).eval()
    with active_adapter(lm, "mine"):
        assert torch.equal(logits(lm.base), logits(peft_model))


@pytest.mark.parametrize("kind", RIGHT)
def test_a_good_adapter_is_accepted_without_the_weights_of_its_base(tmp_path, base, kind):
    check_adapter("mine", save_adapter(tmp_path / "adapter", base, RIGHT[kind]()), outline(str(base)))


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_cannot_be_switched_off_is_refused_without_the_weights_of_its_base(tmp_path, base, kind):
    config, message = REFUSED[kind]
    folder = save_adapter(tmp_path / "adapter", base, config())
    with pytest.raises(AdapterError, match=message) as caught:
        check_adapter("mine", folder, outline(str(base)))
    assert "adapter 'mine'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", sorted(DAMAGED.keys() - LOADED_ONLY))
def test_a_damaged_adapter_is_refused_without_the_weights_of_its_base(saved, base, damage):
    DAMAGED[damage][0](saved)
    with pytest.raises(AdapterError) as caught:
        check_adapter("mine", saved, outline(str(base)))
    assert "adapter 'mine'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_cannot_be_switched_off_exactly_is_refused(tmp_path, base, kind):
    config, message = REFUSED[kind]
    folder = save_adapter(tmp_path / "adapter", base, config())
    with pytest.raises(AdapterError, match=message) as caught:
        load(base, adapters={"mine": folder})
    assert "adapter 'mine'" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_adapter_is_refused_in_one_line(saved, base, damage):
    change, message = DAMAGED[damage]
    change(saved)
    with pytest.raises(AdapterError, match=message) as caught:
        load(base, adapters={"mine": saved})
    assert "adapter 'mine'" in str(caught.value) and "\n" not in str(caught.value)


def test_learned_tokens_inside_attention_are_refused_before_and_while_loading(tmp_path):
    base = save_base(tmp_path / "llama")
    tokens = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=2, adapter_layers=2)
    folder = save_adapter(tmp_path / "adapter", base, tokens)
    for door in (
        lambda: check_adapter("mine", folder, outline(str(base))),
        lambda: load(base, adapters={"mine": folder}),
    ):
        with pytest.raises(AdapterError, match="ADAPTION_PROMPT adds tokens"):
            door()


def test_a_refusal_is_not_announced_by_warnings(saved, base, recwarn):
    retensor(saved, lambda _, x: None)
    with pytest.raises(AdapterError, match="do not match"):
        load(base, adapters={"mine": saved})
    assert [str(w.message) for w in recwarn if "adapter" in str(w.message)] == []


def test_an_adapter_of_another_base_of_the_same_shapes_is_refused(saved, base, other_base):
    with pytest.raises(AdapterError, match=r"its adapter_config\.json names base .*qwen2', this is .*qwen2'"):
        load(other_base, adapters={"mine": saved})
    configure(saved, base_model_name_or_path="/another/machine/Qwen2")  # gone, and of the same name
    load(base, adapters={"mine": saved})
    (saved / "manifest.json").write_text(json.dumps({"base_fingerprint": fingerprint(tiny.model("qwen2").hf)}))
    configure(saved, base_model_name_or_path="any/thing")  # a fingerprint tells more than a name
    for dtype in ("float32", "bfloat16"):
        load(base, adapters={"mine": saved}, dtype=dtype)
    with pytest.raises(AdapterError, match="made for another base: its base is"):
        load(other_base, adapters={"mine": saved})


def test_the_weights_of_the_base_are_compared_with_the_manifest_before_they_are_loaded(saved, base, other_base):
    (saved / "manifest.json").write_text(json.dumps({"base_fingerprint": fingerprint(tiny.model("qwen2").hf)}))
    check_adapter("mine", saved, outline(str(base)))
    with pytest.raises(AdapterError, match="made for another base: its base is"):
        check_adapter("mine", saved, outline(str(other_base)))
    check_adapter("mine", saved, outline(str(other_base)), dtype="float16")  # rounding changes a fingerprint


def test_an_offloaded_base_is_loaded_without_adapters_only(saved, base):
    parts = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    parts["lm_head"] = "cpu"
    offloaded, plain = (load(base, device_map=device_map) for device_map in (parts, None))
    assert place(offloaded) == "cpu, offloaded, float32"
    assert torch.equal(logits(offloaded.hf), logits(plain.hf)) and fingerprint(offloaded.hf) == fingerprint(plain.hf)
    with pytest.raises(AdapterError, match="adapter 'mine': the base is offloaded"):
        load(base, adapters={"mine": saved}, device_map=parts)


@pytest.mark.parametrize("name", ["v1.0", "", "a b", "weight", "q_proj", "layers", "0"])
def test_a_name_that_peft_cannot_use_or_the_model_has_is_refused(saved, base, name):
    with pytest.raises(AdapterError, match=f"adapter {name!r}"):
        load(base, adapters={name: saved})


def test_every_adapter_of_several_is_checked(tmp_path, saved, base):
    dead = save_adapter(tmp_path / "dead", base, lora())
    scaled_b(0.0)(dead)
    with pytest.raises(AdapterError, match="adapter 'dead': it changes no logit"):
        load(base, adapters={"mine": saved, "dead": dead})


def test_adapters_switch_and_what_was_active_comes_back(lm):
    base = logits(lm.hf)
    both = tiny.with_adapters(lm, "first", "second")
    with active_adapter(both, "second"):
        second = logits(both.hf)
        with active_adapter(both, None):
            assert torch.equal(logits(both.hf), base) and active_adapters(both) == ()
            with active_adapter(both, "first"):
                first = logits(both.hf)
            assert torch.equal(logits(both.hf), base)
        assert torch.equal(logits(both.hf), second)
    assert active_adapters(both) == ("first",) and torch.equal(logits(both.hf), first)
    assert not torch.equal(first, second) and not torch.equal(first, base)


def test_switching_leaves_gradients_as_they_were(llama):
    lm = tiny.with_adapters(llama, "first", "second")
    before = [parameter.requires_grad for parameter in lm.hf.parameters()]
    with active_adapter(lm, "second"), active_adapter(lm, None):
        pass
    assert [parameter.requires_grad for parameter in lm.hf.parameters()] == before


def test_switching_comes_back_after_an_error(llama):
    lm = tiny.with_adapters(llama, "first")
    with pytest.raises(ZeroDivisionError), active_adapter(lm, None):
        raise ZeroDivisionError
    assert active_adapters(lm) == ("first",)


def test_a_merged_adapter_cannot_be_switched(llama):
    lm = tiny.with_adapters(llama, "first", "second")
    lm.hf.merge_adapter(["first"])
    with pytest.raises(AdapterError, match="adapter 'first': it is merged into the weights"), active_adapter(lm, None):
        pass


def test_a_model_without_adapters_has_only_its_base(llama):
    with active_adapter(llama, None):
        assert active_adapters(llama) == ()
    with pytest.raises(AdapterError, match="adapter 'x': the model has no adapter"), active_adapter(llama, "x"):
        pass


def test_what_is_loaded_is_what_was_saved(tmp_path):
    lm = tiny.with_adapters(tiny.model("llama"), "first", "second")
    lm.hf.save_pretrained(tmp_path, selected_adapters=["first", "second"])
    loaded = load(save_base(tmp_path / "base"), adapters={"one": tmp_path / "first", "two": tmp_path / "second"})
    assert loaded.adapters == ("one", "two")
    for here, there in ((None, None), ("one", "first"), ("two", "second")):
        with active_adapter(loaded, here), active_adapter(lm, there):
            assert torch.equal(logits(loaded.hf), logits(lm.hf))
    assert check_live(loaded, "one") > 0.01 and active_adapters(loaded) == ("one",)


def test_an_adapter_that_does_nothing_is_refused(llama):
    lm = tiny.with_adapters(llama, "first", live=False)
    with pytest.raises(AdapterError, match="adapter 'first': it changes no logit of 3 prompts, so it is not loaded"):
        check_live(lm, "first")
