"""Adapters switch exactly, and those that do nothing, belong elsewhere or are broken are refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.adapters import active_adapter, active_adapters, check_live
from interp.loading import load
from interp.models import AdapterError, fingerprint, wrap
from tests import tiny

IDS = torch.tensor([[1, 40, 50, 60, 70, 80]])


@torch.no_grad()
def logits(lm):
    return lm.hf(input_ids=IDS).logits


@pytest.fixture
def folders(tmp_path):
    """A base and two adapters on disk, as peft saves them."""
    lm = tiny.model("llama")
    lm.hf.save_pretrained(tmp_path / "base")
    lm.tokenizer.save_pretrained(tmp_path / "base")
    adapted = tiny.with_adapters(lm, "first", "second")
    adapted.hf.save_pretrained(tmp_path, selected_adapters=["first", "second"])
    return tmp_path


def rewrite(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file({name: change(tensor) for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})


def test_the_parts_of_every_family(lm):
    assert (lm.n_layers, lm.d_model, lm.dtype) == (tiny.N_LAYERS, tiny.D_MODEL, torch.float32)
    assert lm.adapters == () and lm.device.type == "cpu" and not lm.hf.training
    with torch.no_grad():
        hidden = lm.base(input_ids=IDS, output_hidden_states=True).hidden_states
    assert hidden[-1].shape[-1] == lm.d_model and lm.lm_head.weight.shape[0] == lm.embedding.weight.shape[0]
    assert lm.final_norm.weight.shape == (lm.d_model,)
    with pytest.raises(ValueError, match=r"layer 3: the model has layers 0\.\.2"):
        lm.layer(3)


def test_adapters_switch_and_what_was_active_comes_back(lm):
    base = logits(lm)
    both = tiny.with_adapters(lm, "first", "second")
    with active_adapter(both, "second"):
        second = logits(both)
        with active_adapter(both, None):
            assert torch.equal(logits(both), base) and active_adapters(both) == ()
            with active_adapter(both, "first"):
                first = logits(both)
            assert torch.equal(logits(both), base)
        assert torch.equal(logits(both), second)
    assert active_adapters(both) == ("first",) and torch.equal(logits(both), first)
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


def test_a_model_without_adapters_has_only_its_base(llama):
    with active_adapter(llama, None):
        assert active_adapters(llama) == ()
    with pytest.raises(AdapterError, match="adapter 'x': the model has no adapter"), active_adapter(llama, "x"):
        pass


def test_what_is_loaded_is_what_was_saved(folders):
    lm = load(folders / "base", adapters={"one": folders / "first", "two": folders / "second"})
    want = tiny.with_adapters(tiny.model("llama"), "first", "second")
    assert lm.adapters == ("one", "two")
    for here, there in ((None, None), ("one", "first"), ("two", "second")):
        with active_adapter(lm, here), active_adapter(want, there):
            assert torch.equal(logits(lm), logits(want))
    assert check_live(lm, "one") > 0.01 and active_adapters(lm) == ("one",)


@pytest.mark.parametrize("kind", [{"use_rslora": True}, {"use_dora": True}])
def test_other_loras_switch_too(llama, kind):
    base = logits(llama)
    lm = tiny.with_adapters(llama, "first", **kind)
    assert check_live(lm, "first") > 0.01
    with active_adapter(lm, None):
        assert torch.equal(logits(lm), base)


def test_an_adapter_that_does_nothing_is_refused(llama):
    lm = tiny.with_adapters(llama, "first", live=False)
    with pytest.raises(AdapterError, match="adapter 'first': it changes no logit of 3 prompts, so it is not loaded"):
        check_live(lm, "first")


def test_an_adapter_that_is_not_finite_is_refused(folders):
    rewrite(folders / "first", lambda tensor: tensor * float("nan"))
    lm = load(folders / "base", adapters={"one": folders / "first"})
    with pytest.raises(AdapterError, match=r"adapter 'one': .*lora_A.* is not finite"):
        check_live(lm, "one")


def test_an_adapter_of_another_shape_is_refused_in_one_line(folders):
    rewrite(folders / "first", lambda tensor: torch.cat([tensor, tensor], -1).contiguous())
    with pytest.raises(AdapterError, match="made for another base: size mismatch") as caught:
        load(folders / "base", adapters={"one": folders / "first"})
    assert "\n" not in str(caught.value)


def test_an_adapter_with_other_modules_is_refused(folders):
    file = folders / "first" / "adapter_model.safetensors"
    renamed = {name.replace("q_proj", "query"): tensor for name, tensor in load_file(file).items()}
    save_file(renamed, file, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match="made for another base: 12 of its tensors do not match"):
        load(folders / "base", adapters={"one": folders / "first"})


def test_an_adapter_of_another_base_of_the_same_shape_is_refused_by_its_manifest(folders):
    manifest = folders / "first" / "manifest.json"
    manifest.write_text(json.dumps({"base_fingerprint": fingerprint(tiny.model("llama").hf)}))
    for dtype in ("float32", "bfloat16"):
        load(folders / "base", adapters={"one": folders / "first"}, dtype=dtype)
    manifest.write_text(json.dumps({"base_fingerprint": fingerprint(tiny.model("llama", seed=1).hf)}))
    with pytest.raises(AdapterError, match="made for another base: its base is"):
        load(folders / "base", adapters={"one": folders / "first"})


def test_fingerprint_of_more_values_than_float32_counts():
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(torch.zeros(49152 * 576, dtype=torch.bfloat16))
    assert fingerprint(module) == fingerprint(module)


def test_adapters_do_not_change_the_fingerprint_of_their_base(llama):
    before = fingerprint(llama.hf)
    lm = tiny.with_adapters(llama, "first")
    assert fingerprint(lm.hf) == fingerprint(lm.base) == before


def test_an_adapter_without_safetensors_is_refused(folders):
    (folders / "first" / "adapter_model.safetensors").rename(folders / "first" / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors"):
        load(folders / "base", adapters={"one": folders / "first"})


def test_adapters_that_add_tokens_are_refused(llama):
    from peft import PromptTuningConfig, get_peft_model

    hf = get_peft_model(llama.hf, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(AdapterError, match="adds tokens, which would move every position"):
        wrap(hf, llama.tokenizer)


def test_a_base_whose_files_lack_a_tensor_is_refused_by_its_name(folders):
    file = folders / "base" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"lack 1 tensors of the model, such as {name}"):
        load(folders / "base")
