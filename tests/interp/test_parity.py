"""The whole table of parity: every family, every kind and state of adapter, every kind of edit.

Recorded vectors against Hugging Face's own hidden states, padded against alone, cached against uncached passes, and
the logits before an edit against those after it. One cell of each kind is explained in the module it is about.
"""

from contextlib import contextmanager

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from interp.adapters import active_adapter
from interp.edits import ablate, add, clamp, orthogonal_control, patch
from interp.models import wrap
from interp.recording import record
from interp.sites import Site, resid_post
from tests import tiny
from tests.interp.test_edits import rows, run
from tests.interp.test_generation import KINDS, cached_logits, uncached_logits, without_stops
from tests.interp.test_recording import TOLERANCE, assert_is_hugging_face, hidden_states, sites_of

ADAPTERS = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
STATES = ("off", "first", "second", "both")
EDITS = {
    "add": lambda site: add(site, 5 * rows(16)),
    "ablate": lambda site: ablate(site, rows(2, 16)),
    "clamp": lambda site: clamp(site, rows(2, 16), 9 * rows(16, seed=1)),
    "patch": lambda site: patch(site, rows(len(tiny.QUESTIONS), 16), positions="last_prompt"),
    "control": lambda site: orthogonal_control(ablate(site, rows(2, 16)), match="displacement"),
}


@contextmanager
def in_state(lm, state):
    """One adapter, none, or both at once."""
    with active_adapter(lm, None if state == "off" else "first"):
        if state in ("second", "both"):
            lm.hf.base_model.set_adapter(["second"] if state == "second" else ["first", "second"])
        yield


@pytest.mark.parametrize("kind", ADAPTERS)
def test_recorded_is_hugging_face_in_every_family_with_each_adapter_both_and_none(lm, kind):
    bare = record(lm, tiny.chats(), sites_of(lm), ["last_prompt"]).values
    lm = tiny.with_adapters(lm, "first", "second", **ADAPTERS[kind])
    seen = []
    for state in STATES if kind == "lora" else STATES[:2]:
        with in_state(lm, state):
            assert_is_hugging_face(lm)
            seen.append(record(lm, tiny.chats(), sites_of(lm), ["last_prompt"]).values)
    assert torch.equal(seen[0], bare)
    for index, one in enumerate(seen):
        assert all((one - other).abs().max() > 1e-3 for other in seen[:index])


def test_padded_is_alone_in_every_family_under_adapters(lm):
    lm, chats, names = (
        tiny.with_adapters(lm, "first", "second"),
        tiny.chats(response="Yes."),
        ["trigger", "last_prompt"],
    )
    for state in STATES:
        with in_state(lm, state):
            padded = record(lm, chats, sites_of(lm), names).values
            alone = record(lm, chats, sites_of(lm), names, batch_tokens=1).values
        assert (padded - alone).abs().max() < TOLERANCE


@pytest.fixture
def multimodal():
    """Gemma 3 inside its wrapper for images and text."""
    text = tiny.model("gemma3").base.config
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text.to_dict(), vision_config={**vision, "image_size": 28, "patch_size": 14})
    torch.manual_seed(0)
    hf = Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return wrap(hf, tiny.tokenizer())


def test_the_multimodal_wrapper_is_its_text_model_at_every_site(multimodal):
    lm, chats = multimodal, tiny.chats()
    lm.base.config.get_text_config().tie_last_hidden_states = False
    recording = record(lm, chats, sites_of(lm), ["last_prompt"])
    for index, chat in enumerate(chats):
        hidden = hidden_states(lm, chat)
        for site in resid_post(range(lm.n_layers)):
            want = hidden[site.layer + 1][0, -1]
            torch.testing.assert_close(recording.at(site, "last_prompt")[index], want, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", EDITS)
def test_after_edits_at_every_site_of_any_family_every_logit_is_the_same_bit(lm, kind):
    _, before = run(lm, [])
    assert not torch.equal(run(lm, [EDITS[kind](site) for site in sites_of(lm)])[1], before)
    assert torch.equal(run(lm, [])[1], before)


CELLS = [*((kind, False) for kind in KINDS), ("several", True)]


@pytest.mark.parametrize(("kind", "adapter"), CELLS, ids=str)
def test_cached_is_uncached_in_every_family_under_every_edit(lm, kind, adapter):
    lm, n = without_stops(lm), 6
    lm.base.config.final_logit_softcapping = None  # cached logits are read before Gemma 2's cap, uncached ones after
    lm = tiny.with_adapters(lm, "first") if adapter else lm
    for name in ("trigger", "answer"):
        edits = KINDS[kind](Site("resid_post", 0), name)  # two layers below the answer: windows are short
        completions, cached = cached_logits(lm, edits, n)
        torch.testing.assert_close(cached, uncached_logits(lm, edits, completions, n), atol=1e-4, rtol=1e-4)
        assert (cached - uncached_logits(lm, [], completions, n)).abs().max() > 1e-3
