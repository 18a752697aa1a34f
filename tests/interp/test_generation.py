"""Generation: equal to Hugging Face where it must be, to a pass without cache under every edit, always to itself."""

from dataclasses import replace

import pytest
import torch

from interp.adapters import active_adapter, active_adapters, mixable
from interp.chat import Chat, encode_chat, pad_left, position_ids, positions
from interp.decoding.sampling import Sampling
from interp.edits import ablate, add, clamp, editing, patch
from interp.generation import Completion, ModelSampler, Sampler, generate
from interp.sites import Site
from tests import tiny

SITE, EMBEDDING = Site("resid_post", 1), Site("resid_pre", 0)
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)
CHATS = sorted(tiny.chats(), key=len)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(completions: list[Completion]) -> dict[tuple[int, int], tuple[int, ...]]:
    return {(c.prompt, c.sample): c.token_ids for c in completions}


def without_stops(lm):
    """Let every answer run to its full length."""
    lm.hf.generation_config.eos_token_id = lm.tokenizer.eos_token = lm.tokenizer.chat_template = None
    return lm


def stopping_often(lm, share: int = 12):
    """Make every twelfth token of the vocabulary a stop, beside the usual one."""
    lm.hf.generation_config.eos_token_id = [2, *range(6, 262, share)]
    return lm


# against Hugging Face


def hf_greedy(lm, chats, n):
    prompt, mask = pad_left(chats, 0, lm.device)
    out = lm.hf.generate(input_ids=prompt, attention_mask=mask, max_new_tokens=n, do_sample=False, pad_token_id=0)
    return out[:, prompt.shape[1] :].tolist()


@pytest.mark.parametrize("prepare", [without_stops, stopping_often])
def test_greedy_is_token_identical_to_hugging_face(lm, prepare):
    lm = prepare(lm)
    ours = generate(lm, tiny.chats(), sampling=replace(GREEDY, max_new_tokens=24))
    for completion, theirs in zip(ours, hf_greedy(lm, tiny.chats(), 24), strict=True):
        assert list(completion.token_ids) == theirs[: len(completion.token_ids)]
        assert completion.finished or len(completion.token_ids) == 24
        assert not any(theirs[len(completion.token_ids) :])


def test_greedy_is_token_identical_to_hugging_face_with_an_adapter(llama):
    lm = tiny.with_adapters(without_stops(llama), "a")
    ours = [list(c.token_ids) for c in generate(lm, CHATS, sampling=GREEDY)]
    assert ours == hf_greedy(lm, CHATS, 12)
    with lm.hf.disable_adapter():
        assert ours != [list(c.token_ids) for c in generate(lm, CHATS, sampling=GREEDY)]


# against a pass without cache

KINDS = {
    "add": lambda site, name: [add(site, 3 * rows(16), positions=name)],
    "ablate": lambda site, name: [ablate(site, rows(2, 16), positions=name)],
    "clamp": lambda site, name: [clamp(site, rows(2, 16), 9 * rows(16, seed=1), positions=name)],
    "patch": lambda site, name: [patch(site, rows(len(CHATS), 16), positions=name)],
    "several": lambda site, name: [
        add(site, 3 * rows(16), positions=name),
        clamp(site, rows(1, 16, seed=2), 1.0, positions="trigger"),
        ablate(SITE, rows(2, 16, seed=3), positions="answer"),
        add(Site("attn_out", 2), rows(16, seed=4), positions="response"),
    ],
}


def cached_logits(lm, edits, n):
    """Return the completions and the logits that each of their tokens was drawn from."""
    steps = []
    handle = lm.lm_head.register_forward_hook(lambda _m, _a, out: steps.append(out[:, -1].clone()))
    completions = generate(lm, CHATS, sampling=Sampling(max_new_tokens=n, seed=3), edits=edits)
    handle.remove()
    return completions, torch.stack(steps, 1)


def uncached_logits(lm, edits, completions, n):
    """Run prompt and answer in one pass and return the logits that predict the answer."""
    spans = [(len(c), len(c) + n) for c in CHATS]
    whole = [
        Chat(chat.token_ids + done.token_ids, {**chat.spans, "response": span}, "")
        for chat, done, span in zip(CHATS, completions, spans, strict=True)
    ]
    inputs, mask = pad_left(whole, 0, lm.device)
    masks = lambda name: positions(whole, name)  # noqa: E731
    with torch.inference_mode(), editing(lm, edits, masks, rows=lambda: torch.arange(len(whole))):
        out = lm.hf(input_ids=inputs, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return out.logits[:, -n - 1 : -1]


NAMES = ("all", "prompt", "trigger", "system", "question", "last_prompt", "answer", "response")
CASES = [("llama", SITE, name) for name in NAMES]
CASES += [(family, EMBEDDING, name) for family in ("qwen2", "gemma3") for name in ("all", "trigger", "answer")]


@pytest.mark.parametrize(("family", "site", "name"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_cached_equals_uncached_under_every_edit(family, site, name, kind):
    lm, edits, n = without_stops(tiny.model(family)), KINDS[kind](site, name), 10
    completions, cached = cached_logits(lm, edits, n)
    torch.testing.assert_close(cached, uncached_logits(lm, edits, completions, n), atol=1e-4, rtol=1e-4)
    first = 1 if kind != "several" and name == "response" else 0
    plain = uncached_logits(lm, [], completions, n)
    assert all((cached[:, t] - plain[:, t]).abs().max() > 1e-3 for t in range(first, n))


def test_one_response_token_can_be_edited(llama):
    lm, edits = without_stops(llama), [add(SITE, 9 * rows(16), positions="response[4]")]
    completions, cached = cached_logits(lm, edits, 10)
    torch.testing.assert_close(cached, uncached_logits(lm, edits, completions, 10), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cached[:, :5], uncached_logits(lm, [], completions, 10)[:, :5], atol=1e-4, rtol=1e-4)
    assert generate(lm, CHATS, sampling=GREEDY) != generate(lm, CHATS, sampling=GREEDY, edits=edits)


def test_edits_leave_nothing_behind(llama):
    before = generate(llama, CHATS, n_samples=3)
    edited = generate(llama, CHATS, n_samples=3, edits=KINDS["several"](SITE, "all"))
    assert edited != before
    assert generate(llama, CHATS, n_samples=3) == before


def test_an_edit_at_a_part_that_a_prompt_lacks_is_refused(llama):
    with pytest.raises(ValueError, match="position 'trigger'"):
        generate(llama, tiny.chats(trigger=False), edits=[add(SITE, rows(16), positions="trigger")])


# against itself


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("sampling", [Sampling(20, seed=5), Sampling(20, temperature=0.7, top_p=0.8)], ids=str)
def test_batch_size_order_and_company_change_nothing(family, sampling):
    lm, edits = stopping_often(tiny.model(family)), [add(SITE, rows(16), positions="answer")]
    chats, last = tiny.chats(), len(tiny.chats()) - 1
    whole = ids(generate(lm, chats, n_samples=6, sampling=sampling, edits=edits))
    for batch_size in (1, 4, 13):
        assert ids(generate(lm, chats, n_samples=6, sampling=sampling, edits=edits, batch_size=batch_size)) == whole
    turned = ids(generate(lm, chats[::-1], n_samples=6, sampling=sampling, edits=edits))
    assert {(last - prompt, sample): answer for (prompt, sample), answer in turned.items()} == whole
    for prompt, chat in enumerate(chats):
        alone = ids(generate(lm, [chat], n_samples=2, sampling=sampling, edits=edits))
        assert alone == {(0, sample): whole[prompt, sample] for sample in range(2)}


def test_order_is_by_prompt_and_sample_and_samples_differ(llama):
    completions = generate(llama, tiny.chats(), n_samples=4)
    assert [(c.prompt, c.sample) for c in completions] == [(p, s) for p in range(5) for s in range(4)]
    assert len({c.token_ids for c in completions}) == 20
    other = generate(llama, tiny.chats(), n_samples=4, sampling=Sampling(seed=1))
    assert not {c.token_ids for c in completions} & {c.token_ids for c in other}


def test_equal_prompts_are_prefilled_once_and_answered_alike(llama):
    passes = []
    handle = llama.lm_head.register_forward_hook(lambda _m, _a, out: passes.append(len(out)))
    twice = generate(llama, [CHATS[0], CHATS[1], CHATS[0]], n_samples=4)
    handle.remove()
    assert passes[0] == 2
    assert [c.text for c in twice[:4]] == [c.text for c in twice[8:]]


def test_prompts_that_an_edit_tells_apart_are_not_joined(llama):
    chat = CHATS[0]
    moved = Chat(chat.token_ids, {**chat.spans, "trigger": chat.spans["question"]}, chat.text)
    edits = [add(SITE, 5 * rows(16), positions="trigger")]
    both = generate(llama, [chat, moved], sampling=GREEDY, edits=edits)
    assert both[0].token_ids != both[1].token_ids
    assert both[0].token_ids == generate(llama, [chat], sampling=GREEDY, edits=edits)[0].token_ids
    own = generate(llama, [chat, chat], sampling=GREEDY, edits=[patch(SITE, 9 * rows(2, 16), positions="last_prompt")])
    assert own[0].token_ids != own[1].token_ids


def test_answers_end_at_the_first_stop_of_any_kind(llama):
    free = ids(generate(without_stops(tiny.model("llama")), CHATS, n_samples=20))
    lm = stopping_often(llama)
    stops = {*range(6, 262, 12), 2}
    for c in generate(lm, CHATS, n_samples=20):
        full = free[c.prompt, c.sample]
        end = next((t + 1 for t, token in enumerate(full) if token in stops), len(full))
        assert c.token_ids == full[:end]
        assert c.finished == (full[end - 1] in stops)


def test_finished_rows_leave_the_batch(llama):
    rows_run = []
    handle = llama.lm_head.register_forward_hook(lambda _m, _a, out: rows_run.append(len(out)))
    done = generate(stopping_often(llama), CHATS, n_samples=20, sampling=Sampling(40))
    handle.remove()
    drawn = sum(len(c.token_ids) for c in done)
    assert rows_run[1] <= 100 and rows_run[-1] < 25
    assert sum(rows_run) < 1.25 * drawn


def test_text_has_no_special_tokens(llama):
    for c in generate(llama, CHATS, n_samples=5):
        assert c.text == llama.tokenizer.decode(c.token_ids, skip_special_tokens=True)
        assert not any(special in c.text for special in tiny.SPECIAL)


@pytest.mark.parametrize("sampling", [Sampling(8), Sampling(8, temperature=0.0)], ids=str)
def test_progress_counts_every_completion_once(llama, sampling):
    told = []
    done = generate(stopping_often(llama), [*CHATS, CHATS[0]], n_samples=7, sampling=sampling, progress=told.append)
    assert sum(told) == len(done) == 42
    assert all(n >= 0 for n in told)


# several models in one batch


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("sampling", [Sampling(12, seed=4), Sampling(12, temperature=0.0)], ids=str)
def test_models_that_answer_in_one_batch_say_what_each_says_alone(family, sampling):
    lm = tiny.with_adapters(stopping_often(tiny.model(family)), "a", "b")
    edit = add(SITE, 3 * rows(16), positions="answer")
    arms = [(None, ()), ("a", ()), ("b", ()), ("a", (edit,)), (None, (edit,))]
    alone = []
    for name, edits in arms:
        with active_adapter(lm, name):
            alone.append([c.token_ids for c in generate(lm, CHATS[1:2], n_samples=3, sampling=sampling, edits=edits)])
    together = generate(
        lm,
        CHATS[1:2] * len(arms),
        n_samples=3,
        sampling=sampling,
        edits=[replace(edit, prompt=i) for i, (_, edits) in enumerate(arms) for edit in edits],
        adapters=[name for name, _ in arms],
    )
    assert [[c.token_ids for c in together if c.prompt == i] for i in range(len(arms))] == alone
    assert len({tuple(answers) for answers in alone}) > 2  # greedy answers of so small a model may agree


def test_the_active_adapter_is_what_it_was_after_a_mixed_batch(llama):
    lm = tiny.with_adapters(llama, "a", "b")
    with active_adapter(lm, "b"):
        before = ids(generate(lm, CHATS, sampling=GREEDY))
        generate(lm, CHATS, sampling=GREEDY, adapters=[None, "a", "b", "a", None])
        assert ids(generate(lm, CHATS, sampling=GREEDY)) == before and active_adapters(lm) == ("b",)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_adapters_that_cannot_be_mixed_are_refused(llama, lora):
    lm = tiny.with_adapters(llama, "a", **lora)
    assert not mixable(lm)
    with pytest.raises(ValueError, match="cannot be mixed"):
        generate(lm, CHATS, sampling=GREEDY, adapters=["a"] * len(CHATS))


def test_the_model_sampler_is_generate(llama):
    edits = [add(SITE, rows(16))]
    sampler: Sampler = ModelSampler(llama, edits=edits, batch_size=3)
    assert sampler.sample(CHATS, 2, Sampling(5)) == generate(
        llama, CHATS, n_samples=2, sampling=Sampling(5), edits=edits
    )


def test_no_chats_no_completions(llama):
    assert generate(llama, []) == []


def test_requests_that_cannot_be_met_are_refused(llama):
    answered = encode_chat(llama.tokenizer, [{"role": "user", "content": "Hi"}], response="Hello")
    with pytest.raises(ValueError, match="chat 1 of 2"):
        generate(llama, [CHATS[0], answered])
    with pytest.raises(ValueError, match="n_samples 0"):
        generate(llama, CHATS, n_samples=0)
    for bad in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            replace(Sampling(), **bad)
