"""Recorded vectors are the model's own hidden states, whatever the batching, and stop where they may."""

import pytest
import torch

from interp import recording
from interp.adapters import active_adapter
from interp.chat import encode_chat, pad_left, position_ids
from interp.edits import add
from interp.recording import buckets, open_store, record, record_to
from interp.sites import SITE_NAMES, Site, resid_post
from interp.store import read_store
from tests import tiny

NAMES = ("last_prompt", "trigger", "question", "response_mean", "response[2]")
TOLERANCE = 1e-5


def sites_of(lm):
    names = [name for name in SITE_NAMES if not (name == "resid_mid" and lm.family == "gpt_neox")]
    return [Site(name, layer) for name in names for layer in range(lm.n_layers)]


@torch.no_grad()
def hidden_states(lm, chat):
    """Hugging Face's own hidden states of one unpadded prompt, the last one before the final norm."""
    lm.base.config.tie_last_hidden_states = False
    ids = torch.tensor([chat.token_ids])
    return lm.base(input_ids=ids, output_hidden_states=True).hidden_states


def expected(hidden, chat, name):
    start, end = {
        "last_prompt": (chat.prompt_length - 1, chat.prompt_length),
        "response_mean": chat.spans["response"],
        "response[2]": (chat.spans["response"][0] + 2, chat.spans["response"][0] + 3),
    }.get(name) or chat.spans[name]
    return hidden[0, start:end].mean(0)


def assert_is_hugging_face(lm):
    chats = tiny.chats(response="Sleep well, friend.")
    recording = record(lm, chats, resid_post(range(lm.n_layers)), NAMES, batch_tokens=200)
    for index, chat in enumerate(chats):
        hidden = hidden_states(lm, chat)
        for site in recording.sites:
            for name in NAMES:
                found = recording.at(site, name)[index]
                torch.testing.assert_close(found, expected(hidden[site.layer + 1], chat, name), atol=TOLERANCE, rtol=0)


def test_recorded_vectors_are_the_hidden_states_of_the_unpadded_prompt(lm):
    assert_is_hugging_face(lm)


def test_they_are_with_either_adapter_and_without(llama):
    lm = tiny.with_adapters(llama, "first", "second")
    seen = []
    for adapter in (None, "first", "second"):
        with active_adapter(lm, adapter):
            assert_is_hugging_face(lm)
            seen.append(record(lm, tiny.chats(), resid_post([2]), ["last_prompt"]).values)
    assert all((a - b).abs().max() > 1e-2 for a, b in zip(seen, seen[1:] + seen[:1], strict=True))


def test_turning_adapters_off_gives_the_base_exactly(llama):
    before = record(llama, tiny.chats(), resid_post(range(3)), ["trigger"]).values
    lm = tiny.with_adapters(llama, "first")
    with active_adapter(lm, None):
        assert torch.equal(record(lm, tiny.chats(), resid_post(range(3)), ["trigger"]).values, before)


def test_batching_order_and_company_do_not_matter(lm):
    chats, sites = tiny.chats(response="Yes."), sites_of(lm)
    whole = record(lm, chats, sites, NAMES[:4]).values
    for batch_tokens in (1, 130, 400):
        assert (record(lm, chats, sites, NAMES[:4], batch_tokens=batch_tokens).values - whole).abs().max() < TOLERANCE
    back = record(lm, chats[::-1], sites, NAMES[:4]).values.flip(2)
    assert (back - whole).abs().max() < TOLERANCE


def test_the_parts_of_a_block_add_up(lm):
    recording = record(lm, tiny.chats(), sites_of(lm), ["last_prompt"])
    for layer in range(lm.n_layers):
        parts = [recording.at(Site(name, layer), "last_prompt") for name in ("resid_pre", "attn_out", "mlp_out")]
        torch.testing.assert_close(sum(parts), recording.at(Site("resid_post", layer), "last_prompt"))
        if lm.family != "gpt_neox":
            torch.testing.assert_close(parts[0] + parts[1], recording.at(Site("resid_mid", layer), "last_prompt"))


def test_the_multimodal_wrapper_records_its_text_model():
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from interp.models import wrap

    text = tiny.model("gemma3").base.config
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Gemma3Config(text_config=text.to_dict(), vision_config={**vision, "image_size": 28, "patch_size": 14})
    torch.manual_seed(0)
    lm = wrap(Gemma3ForConditionalGeneration(config), tiny.tokenizer())
    assert (lm.family, lm.n_layers, lm.d_model) == ("gemma3_text", 3, 16)
    chats = tiny.chats()
    found = record(lm, chats, resid_post([1]), ["last_prompt"]).values[0, 0]
    with torch.no_grad():
        ids, mask = pad_left(chats, 0, "cpu")
        want = lm.decoder(ids, attention_mask=mask, position_ids=position_ids(mask), output_hidden_states=True)
    torch.testing.assert_close(found, want.hidden_states[2][:, -1], atol=TOLERANCE, rtol=0)


def test_nothing_runs_behind_the_last_wanted_site(llama):
    ran = []
    for index, layer in enumerate(llama.layers):
        layer.mlp.register_forward_hook(lambda *_, index=index: ran.append(index))
    llama.lm_head.register_forward_hook(lambda *_: ran.append("head"))
    record(llama, tiny.chats(), [Site("resid_mid", 1), Site("resid_pre", 1)], ["last_prompt"])
    assert set(ran) == {0}


def test_no_hook_is_left_behind(lm):
    record(lm, tiny.chats(), sites_of(lm), ["last_prompt"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.layers.modules())


def test_an_edit_is_recorded_at_its_positions_and_site_only(llama):
    shift = torch.arange(16.0)
    chats, sites = tiny.chats(), resid_post([0, 1])
    plain = record(llama, chats, sites, ["trigger", "last_prompt"])
    edited = record(llama, chats, sites, ["trigger", "last_prompt"], edits=[add(sites[0], shift, positions="trigger")])
    moved = edited.values - plain.values
    torch.testing.assert_close(moved[0, 0], shift.expand(len(chats), -1), atol=1e-4, rtol=0)
    assert torch.equal(edited.values[0, 1], plain.values[0, 1])
    assert moved[1, 1].abs().min(1).values.max() > 0


def test_the_recording_is_an_ordinary_float32_tensor(llama):
    half = tiny.model("llama", dtype=torch.bfloat16)
    values = record(half, tiny.chats(), resid_post([0]), ["trigger"]).values
    assert values.dtype == torch.float32 and not values.is_inference()


def test_progress_counts_every_prompt_once(llama):
    done = []
    record(llama, tiny.chats(), resid_post([0]), ["last_prompt"], batch_tokens=130, progress=done.append)
    assert len(done) > 1 and sum(done) == len(tiny.chats())


def test_buckets_hold_every_index_once_within_the_budget():
    lengths = [5, 1, 9, 9, 2, 30, 4]
    made = list(buckets(lengths, 20))
    assert sorted(index for batch in made for index in batch) == list(range(7))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in made)


def test_a_missing_part_is_named(llama):
    with pytest.raises(ValueError, match=r"position 'trigger': prompt 0 has no such part; it has question"):
        record(llama, tiny.chats(trigger=False), resid_post([0]), ["trigger"])


def test_a_missing_layer_is_named(llama):
    with pytest.raises(ValueError, match=r"site resid_post\.40: the model has layers 0\.\.2"):
        record(llama, tiny.chats(), resid_post([40]), ["last_prompt"])


def many_chats(count):
    return [encode_chat(tiny.tokenizer(), [{"role": "user", "content": "x" * (1 + 7 * n % 11)}]) for n in range(count)]


def test_a_store_holds_the_recording_and_continues_where_it_stopped(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "WINDOW_BYTES", 1)  # smallest windows, so that several are written
    chats, sites, path = many_chats(600), resid_post([0, 2]), tmp_path / "acts.h5"
    want = record(llama, chats, sites, ["last_prompt"]).values
    with open_store(path, llama, sites, ["last_prompt"], capacity=600) as store:
        record_to(store, llama, chats[:300])
    done = []
    with open_store(path, llama, sites, ["last_prompt"], capacity=600) as store:
        found = record(llama, chats, sites, ["last_prompt"], store=store, progress=done.append).values
    assert done[0] == 300 and sum(done) == 600
    assert (found - want).abs().max() < TOLERANCE
    assert torch.equal(read_store(path).read(sites[1], "last_prompt"), found[1, 0])


def test_a_store_of_other_prompts_or_another_adapter_is_refused(llama, tmp_path):
    chats, sites, path = many_chats(3), resid_post([0]), tmp_path / "acts.h5"
    lm = tiny.with_adapters(llama, "first")
    with open_store(path, lm, sites, ["last_prompt"], capacity=3) as store:
        record_to(store, lm, chats)
    with open_store(path, lm, sites, ["last_prompt"], capacity=3) as store, pytest.raises(ValueError, match="prompt 0"):
        record_to(store, lm, chats[::-1])
    with active_adapter(lm, None), pytest.raises(ValueError, match="its adapter is 'first', this recording's is ''"):
        open_store(path, lm, sites, ["last_prompt"], capacity=3)
