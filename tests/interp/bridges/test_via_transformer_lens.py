"""TransformerLens on a copy of the weights computes what we compute, and the copy is all it touches."""

import copy
from functools import cache

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from interp import recording as ours
from interp.adapters import active_adapter
from interp.bridges.via_transformer_lens import bridge, logits, passes, record
from interp.chat import pad_left, position_ids, positions
from interp.edits import ablate, add, clamp, editing, orthogonal_control, patch
from interp.models import AdapterError, wrap
from interp.sites import Site, resid_post
from tests import tiny
from tests.interp.test_recording import sites_of

NAMES = ("last_prompt", "trigger", "question", "response_mean", "response[2]")
TOLERANCE = 1e-5
UNSUPPORTED: set[str] = set()  # of the ten families in tests.tiny, TransformerLens 4.3 bridges every one
FUSED = {"phi3", "gpt_neox", "gpt2"}


@cache
def two_adapters(family):
    """A model with two adapters loaded; nobody changes it."""
    return tiny.with_adapters(tiny.model(family), "first", "second")


@cache
def booted(family, adapter, merged=True):
    """Its bridge, which hooks leave as it was."""
    return bridge(two_adapters(family), adapter=adapter, merged=merged)


@pytest.fixture(params=[family for family in tiny.FAMILIES if family not in UNSUPPORTED])
def family(request):
    """Each supported family."""
    return request.param


def chats():
    return tiny.chats(response="Sleep well, friend.")


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def edits_of(lm):
    """Name -> edits, over every kind of site that the family has."""
    inner = "attn_out" if lm.family == "gpt_neox" else "resid_mid"
    near = add(Site("resid_post", 1), rows(16, seed=3), positions="last_prompt")  # sliding windows forget the trigger
    along = clamp(Site("resid_post", 1), rows(2, 16), rows(16, seed=1), positions="question")
    return {
        "add": [add(Site("resid_post", 1), rows(16), coefficient=3, positions="trigger"), near],
        "ablate": [ablate(Site("resid_pre", 0), rows(2, 16)), ablate(Site(inner, 1), rows(1, 16), positions="answer")],
        "clamp": [clamp(Site(inner, 1), rows(2, 16), rows(16, seed=1), positions="prompt")],
        "several": [
            add(Site("attn_out", 1), rows(16)),
            add(Site(inner, 1), rows(16, seed=2), positions="response"),
            clamp(Site("mlp_out", 2), rows(1, 16), 2.0, positions="last_prompt"),
            orthogonal_control(along, match="displacement"),
            patch(Site("resid_pre", 2), rows(len(tiny.QUESTIONS), 16), positions="last_prompt"),
        ],
    }


@torch.inference_mode()
def our_logits(lm, batch, edits):
    """Logits after the last prompt token, of our own edits in the Hugging Face model."""
    ids, mask = pad_left(batch, 0, "cpu")
    masks = {edit.positions: positions(batch, edit.positions) for edit in edits}
    with editing(lm, edits, masks.__getitem__, rows=lambda: torch.arange(len(batch))):
        found = lm.base(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask)).logits
    return found[positions(batch, "last_prompt")]


def outsider(family="helium"):
    """A model of a family that TransformerLens does not know."""
    config = AutoConfig.for_model(family, **tiny.COMMON, num_key_value_heads=4, head_dim=4)
    return wrap(AutoModelForCausalLM.from_config(config), tiny.tokenizer())


def assert_same(found, want):
    """Equal to 1e-5, in units of the largest entry where that is above 1."""
    assert (found - want).abs().max() <= TOLERANCE * max(1.0, want.abs().max().item())


def test_recordings_are_ours_with_either_adapter_and_without(family):
    two = two_adapters(family)
    for adapter in (None, "first", "second"):
        tl = booted(family, adapter)
        with active_adapter(two, adapter):
            want = ours.record(two, chats(), sites_of(two), NAMES)
        found = record(tl, chats(), sites_of(two), NAMES, batch_tokens=300)
        assert (found.sites, found.positions) == (want.sites, want.positions)
        assert_same(found.values, want.values)


@pytest.mark.parametrize("kind", ["add", "ablate", "clamp", "several"])
def test_edited_logits_and_recordings_are_ours(family, kind):
    two, tl = two_adapters(family), booted(family, "second")
    edits = edits_of(two)[kind]
    with active_adapter(two, "second"):
        plain, want = our_logits(two, chats(), []), our_logits(two, chats(), edits)
        recorded = ours.record(two, chats(), sites_of(two), NAMES, edits=edits)
    found = logits(tl, chats(), edits=edits)
    assert (want - plain).abs().max() > 1e-3 * plain.abs().max()
    assert (found - want).abs().max() <= TOLERANCE * want.abs().max()
    assert_same(record(tl, chats(), sites_of(two), NAMES, edits=edits).values, recorded.values)
    assert_same(logits(tl, chats()), plain)


def test_an_adapter_may_stay_beside_the_weights_unless_they_are_fused(family):
    two = two_adapters(family)
    if family in FUSED:
        with pytest.raises(ValueError, match="an adapter beside fused weights is lost, so merge it"):
            bridge(two, adapter="second", merged=False)
        return
    tl = bridge(two, adapter="second", merged=False)
    with active_adapter(two, "second"):
        want = ours.record(two, chats(), resid_post(range(3)), NAMES).values
    assert_same(record(tl, chats(), resid_post(range(3)), NAMES).values, want)


@pytest.mark.parametrize("merged", [True, False])
def test_the_original_is_untouched_bit_for_bit(llama, merged):
    lm = tiny.with_adapters(llama, "first", "second")
    ids, mask = pad_left(chats(), 0, "cpu")
    state = {name: value.clone() for name, value in lm.hf.state_dict().items()}
    attention, side = lm.base.config._attn_implementation, lm.tokenizer.padding_side
    vocabulary, config = lm.tokenizer.get_vocab(), copy.deepcopy(lm.base.config.to_dict())
    with torch.no_grad():
        before = lm.hf(input_ids=ids, attention_mask=mask).logits
    tl = bridge(lm, adapter="second", merged=merged)
    record(tl, chats(), resid_post([1]), NAMES, edits=edits_of(lm)["several"])
    with torch.no_grad():
        assert torch.equal(lm.hf(input_ids=ids, attention_mask=mask).logits, before)
    assert list(lm.hf.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in lm.hf.state_dict().items())
    assert (lm.base.config._attn_implementation, lm.tokenizer.padding_side) == (attention, side)
    assert lm.tokenizer.get_vocab() == vocabulary and lm.base.config.to_dict() == config
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.hf.modules())
    shared = {p.data_ptr() for p in lm.hf.parameters()} & {p.data_ptr() for p in tl.original_model.parameters()}
    assert not shared


def test_a_bridge_does_not_depend_on_which_adapter_was_active(llama):
    lm = tiny.with_adapters(llama, "first", "second")
    want = logits(bridge(lm, adapter="second"), chats())
    with active_adapter(lm, None):
        assert torch.equal(logits(bridge(lm, adapter="second"), chats()), want)
        assert_same(logits(bridge(lm, adapter="second", merged=False), chats()), want)


def test_a_weak_adapter_is_not_lost_in_the_tolerance():
    lm = tiny.with_adapters(tiny.model("phi3"), "weak")
    with torch.no_grad():
        for name, parameter in lm.hf.named_parameters():
            if "lora_B" in name:
                parameter.mul_(5e-5)
    with pytest.raises(ValueError, match="so merge it"):
        bridge(lm, adapter="weak", merged=False)
    assert (logits(bridge(lm, adapter="weak"), chats()) - logits(bridge(lm, adapter=None), chats())).abs().max() > 0


def test_half_precision_is_close(llama):
    lm = tiny.with_adapters(tiny.model("llama", dtype=torch.bfloat16), "first")
    want = our_logits(lm, chats(), []).float()
    for merged in (True, False):
        found = logits(bridge(lm, adapter="first", merged=merged), chats())
        assert found.dtype == torch.float32 and (found - want).abs().max() <= 0.05 * want.abs().max()


def test_the_bridge_is_a_whole_transformer_lens_model(llama):
    tl = bridge(llama, adapter=None)
    assert tl.cfg.n_layers == 3 and tl.tokenizer is not llama.tokenizer
    found, cache = tl.run_with_cache(torch.tensor([[1, 7, 8]]))
    assert found.shape == (1, 3, 262) and cache["blocks.1.attn.hook_pattern"].shape == (1, 4, 3, 3)


def test_no_hook_stays_after_a_pass_that_fails(llama):
    tl = bridge(llama, adapter=None)
    before = logits(tl, chats())

    def fail(_h):
        raise ZeroDivisionError

    for batch in passes(tl, chats(), edits=[add(Site("resid_post", 0), rows(16))]):
        with pytest.raises(ZeroDivisionError):
            batch.run({Site("resid_post", 1): fail})
    assert torch.equal(logits(tl, chats()), before)


def test_a_family_without_a_bridge_is_named():
    with pytest.raises(ValueError, match="family 'helium': TransformerLens has no bridge for HeliumForCausalLM"):
        bridge(outsider(), adapter=None)


@pytest.mark.parametrize("family", sorted(UNSUPPORTED))
def test_an_unsupported_family_of_ours_is_named(family):
    with pytest.raises(ValueError, match="TransformerLens has no bridge"):
        bridge(tiny.model(family), adapter=None)


def test_what_cannot_be_recorded_is_named(llama):
    tl = bridge(llama, adapter=None)
    with pytest.raises(ValueError, match=r"site resid_post\.40: the model has layers 0\.\.2"):
        record(tl, chats(), resid_post([40]), NAMES)
    with pytest.raises(ValueError, match="position 'trigger': prompt 0 has no such part"):
        record(tl, tiny.chats(trigger=False), resid_post([0]), ["trigger"])
    with pytest.raises(ValueError, match="0 prompts, 1 sites"):
        record(tl, [], resid_post([0]), NAMES)
    with pytest.raises(ValueError, match="position 'question': several tokens"):
        logits(tl, chats(), position="question")
    with pytest.raises(AdapterError, match="adapter 'absent': the model has no adapter"):
        bridge(llama, adapter="absent")


@pytest.mark.parametrize("use", ["read", "edit"])
def test_a_parallel_block_has_no_resid_mid(use):
    tl, site = bridge(tiny.model("gpt_neox"), adapter=None), Site("resid_mid", 1)
    with pytest.raises(ValueError, match=r"site resid_mid\.1: TransformerLens has no blocks\.1\.hook_resid_mid"):
        if use == "read":
            record(tl, chats(), [site], NAMES)
        else:
            logits(tl, chats(), edits=[add(site, rows(16))])
