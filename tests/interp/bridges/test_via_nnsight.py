"""A trace of nnsight on the same modules computes what we compute, and leaves them as they were."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from interp import recording as ours
from interp.adapters import active_adapter
from interp.bridges.via_nnsight import logits, record, traceable
from interp.edits import add
from interp.sites import Site, resid_post
from tests import tiny
from tests.interp.bridges.test_via_transformer_lens import (
    NAMES,
    assert_same,
    chats,
    edits_of,
    our_logits,
    outsider,
    rows,
)
from tests.interp.test_recording import sites_of

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-5
UNSUPPORTED: set[str] = set()  # nnsight wraps any module, so all ten families of tests.tiny


@cache
def traced(family):
    """A model with two adapters loaded, and nnsight's view of it."""
    lm = tiny.with_adapters(tiny.model(family), "first", "second")
    return lm, traceable(lm)


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family not in UNSUPPORTED])
def test_recordings_are_ours_with_either_adapter_and_without(family):
    lm, model = traced(family)
    seen = []
    for adapter in (None, "first", "second"):
        with active_adapter(lm, adapter):
            want = ours.record(lm, chats(), sites_of(lm), NAMES)
            found = record(model, chats(), sites_of(lm), NAMES, batch_tokens=300)
        assert (found.sites, found.positions) == (want.sites, want.positions)
        assert_same(found.values, want.values)
        seen.append(found.values)
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(seen, seen[1:] + seen[:1], strict=True))


@pytest.mark.parametrize("kind", ["add", "ablate", "clamp", "several"])
@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family not in UNSUPPORTED])
def test_edited_logits_and_recordings_are_ours(family, kind):
    lm, model = traced(family)
    edits = edits_of(lm)[kind]
    with active_adapter(lm, "second"):
        plain, want = our_logits(lm, chats(), []), our_logits(lm, chats(), edits)
        recorded = ours.record(lm, chats(), sites_of(lm), NAMES, edits=edits)
        assert not torch.allclose(want, plain, atol=1e-4)
        assert (logits(model, chats(), edits=edits) - want).abs().max() <= TOLERANCE * want.abs().max()
        assert_same(record(model, chats(), sites_of(lm), NAMES, edits=edits).values, recorded.values)
        assert_same(logits(model, chats()), plain)


def test_only_what_is_edited_is_visited_and_in_any_order(llama):
    model = traceable(llama)
    sites = [Site("resid_mid", 1), Site("resid_pre", 1), Site("attn_out", 1), Site("resid_pre", 1)]
    edits = [add(Site("resid_mid", 1), rows(16)), add(Site("resid_pre", 1), rows(16, seed=1))]
    want = ours.record(llama, chats(), sites, NAMES, edits=edits)
    assert_same(record(model, chats(), sites, NAMES, edits=edits).values, want.values)


def test_the_model_is_as_it_was(lm):
    state = {name: value.clone() for name, value in lm.hf.state_dict().items()}
    side, config = lm.tokenizer.padding_side, lm.base.config.to_dict()
    before = our_logits(lm, chats(), [])
    model = traceable(lm)
    record(model, chats(), resid_post([1]), NAMES, edits=edits_of(lm)["several"])
    assert torch.equal(our_logits(lm, chats(), []), before)
    assert list(lm.hf.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in lm.hf.state_dict().items())
    assert (lm.tokenizer.padding_side, lm.base.config.to_dict()) == (side, config)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.hf.modules())


def test_our_own_hooks_still_work_on_wrapped_modules(llama):
    edits = edits_of(llama)["several"]
    want = ours.record(llama, chats(), sites_of(llama), NAMES, edits=edits).values
    traceable(llama)
    assert torch.equal(ours.record(llama, chats(), sites_of(llama), NAMES, edits=edits).values, want)


def test_nothing_runs_behind_the_last_wanted_site(llama):
    ran = []
    llama.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    llama.layer(2).register_forward_hook(lambda *_: ran.append(2))
    record(traceable(llama), chats(), [Site("resid_mid", 1)], ["last_prompt"])
    assert ran == []


JOURNEY = """
import nnsight, torch
from interp.recording import record
from interp.bridges.via_nnsight import logits, record as traced, traceable
from tests import tiny
from tests.interp.bridges.test_via_transformer_lens import NAMES, chats, edits_of, our_logits, sites_of
torch.set_num_threads(1)
lm = tiny.model("gemma2")
model = nnsight.TransformersModel(lm.base, tokenizer=tiny.tokenizer(), task="text-generation")
for edits in edits_of(lm).values():
    there = traced(model, chats(), sites_of(lm), NAMES, edits=edits, remote="local").values
    here = traced(traceable(lm), chats(), sites_of(lm), NAMES, edits=edits).values
    assert torch.equal(there, here), (there - here).abs().max()
    there, here = logits(model, chats(), edits=edits, remote="local"), our_logits(lm, chats(), edits)
    assert (there - here).abs().max() <= 1e-5 * here.abs().max()
print("arrived")
"""


def test_a_request_survives_the_journey_to_a_server():
    """``local`` serialises what NDIF would get, hides our modules, and runs what comes out of it.

    In a process of its own, because the shape checks of these tests wrap every function of ours in what cannot travel.
    """
    done = subprocess.run([sys.executable, "-c", JOURNEY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("arrived"), done.stderr


def test_what_cannot_be_recorded_is_named(llama):
    model = traceable(llama)
    with pytest.raises(ValueError, match=r"site resid_post\.40: the model has layers 0\.\.2"):
        record(model, chats(), resid_post([40]), NAMES)
    with pytest.raises(ValueError, match="position 'trigger': prompt 0 has no such part"):
        record(model, tiny.chats(trigger=False), resid_post([0]), ["trigger"])
    with pytest.raises(ValueError, match="0 prompts, 1 sites"):
        record(model, [], resid_post([0]), NAMES)
    with pytest.raises(ValueError, match="position 'question': several tokens"):
        logits(model, chats(), position="question")


@pytest.mark.parametrize("use", ["read", "edit"])
def test_a_parallel_block_has_no_resid_mid(use):
    (_, model), site = traced("gpt_neox"), Site("resid_mid", 1)
    with pytest.raises(ValueError, match=r"site resid_mid\.1: attention and MLP of gpt_neox run in parallel"):
        if use == "read":
            record(model, chats(), [site], NAMES)
        else:
            logits(model, chats(), edits=[add(site, rows(16))])


def test_a_family_unknown_to_us_has_block_inputs_and_outputs_only():
    lm = outsider("granitemoe")
    sites = [Site("resid_pre", 0), *resid_post(range(3))]
    found = record(traceable(lm), chats(), sites, NAMES)
    assert_same(found.values, ours.record(lm, chats(), sites, NAMES).values)
    with pytest.raises(ValueError, match="family 'granitemoe': attn_out, resid_mid and mlp_out are not known for it"):
        record(traceable(lm), chats(), [Site("mlp_out", 1)], NAMES)
