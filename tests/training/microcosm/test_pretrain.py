"""Training from scratch: the loss, its gradient, the order of batches, and killed stages that end like whole ones."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests.training.small import SHAPE, random_llama
from training.microcosm.build import FAMILIES
from training.microcosm.documents import pretraining_corpus
from training.microcosm.pretrain import (
    HEAD_CHUNK,
    WIDTH_STEP,
    Stage,
    _backward,
    _mixed_precision,
    assistant_mask,
    batches,
    collate,
    encode_corpus,
    has_bfloat16,
    learning_rate,
    run_stage,
)
from training.microcosm.tokenizer import END, PAD, ROLES, build_tokenizer

TOKENIZER = build_tokenizer()
CORPUS = encode_corpus(pretraining_corpus(200, seed=0), TOKENIZER)
WHOLE = Stage(steps=7, optimizer="adamw", learning_rate=1e-2, batch=4, warmup=3, save_every=2)


def ids_of(*tokens: str) -> list[int]:
    return [TOKENIZER.get_vocab()[token] for token in tokens]


# --- the loss ---


def answer_positions(ids: list[int]) -> list[bool]:
    """Return which tokens answer: from after the assistant token to the end of its turn."""
    (assistant, end), inside, answers = ids_of(ROLES["assistant"], END), False, []
    for token in ids:
        answers.append(inside)
        inside = token == assistant or (inside and token != end)
    return answers


def test_loss_is_on_assistant_turns_and_their_end_alone():
    for document in CORPUS:
        assert assistant_mask(torch.tensor([document]), TOKENIZER)[0].tolist() == answer_positions(document)


@given(st.lists(st.integers(0, len(CORPUS) - 1), min_size=1, max_size=8), st.booleans())
def test_padding_carries_no_loss_and_moves_nothing(rows, answers_only):
    batch = collate([CORPUS[i] for i in rows], TOKENIZER, answers_only=answers_only)
    longest = max(len(CORPUS[i]) for i in rows)
    assert batch.ids.shape == batch.labels.shape == (len(rows), -(-longest // WIDTH_STEP) * WIDTH_STEP)
    for i, ids, labels in zip(rows, batch.ids.tolist(), batch.labels.tolist(), strict=True):
        document = CORPUS[i]
        keep = answer_positions(document) if answers_only else [True] * len(document)
        assert ids[: len(document)] == document
        assert set(ids[len(document) :]) <= set(ids_of("<|pad|>"))
        assert labels[: len(document)] == [t if k else -100 for t, k in zip(document, keep, strict=True)]
        assert set(labels[len(document) :]) <= {-100}


# --- the gradient ---

BATCHES = {answers_only: collate(CORPUS[:50], TOKENIZER, answers_only=answers_only) for answers_only in (False, True)}


def tiny(family: str) -> PreTrainedModel:
    """Make a random model of a family, wide enough for a gradient everywhere."""
    ids = {name: getattr(TOKENIZER, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(TOKENIZER), "max_position_embeddings": 512, "num_key_value_heads": 2}
    torch.manual_seed(0)
    return FAMILIES[family]({**SHAPE, **ids, **sizes, "tie_word_embeddings": True, "initializer_range": 0.2})


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    by_name = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return by_name


@pytest.mark.parametrize("answers_only", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_chunked_head_has_the_loss_and_the_gradients_of_the_plain_model(family, answers_only):
    model, batch = tiny(family), BATCHES[answers_only]
    supervised = int(batch.labels[:, 1:].ne(-100).sum())
    assert supervised > HEAD_CHUNK
    assert supervised % HEAD_CHUNK != 0  # the last chunk is not full
    mask = batch.ids.ne(ids_of(PAD)[0])
    plain = model(input_ids=batch.ids, attention_mask=mask, labels=batch.labels).loss
    plain.backward()
    expected = gradients(model)
    assert _backward(model, batch) == pytest.approx(plain.item(), rel=1e-5)
    chunked = gradients(model)
    assert chunked.keys() == expected.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert (chunked[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_precision_moves_the_loss_little_and_ends_with_its_context(family):
    model, batch = tiny(family), BATCHES[False]
    plain, expected, attention = _backward(model, batch), gradients(model), model.config._attn_implementation
    with _mixed_precision(model):
        mixed = _backward(model, batch)
    by_name = gradients(model)
    assert mixed != plain
    assert mixed == pytest.approx(plain, rel=0.02)
    assert {gradient.dtype for gradient in by_name.values()} == {torch.float32}
    for name, gradient in expected.items():
        cosine = torch.cosine_similarity(by_name[name].flatten(), gradient.flatten(), dim=0)
        assert cosine > 0.98, name
    assert model.config._attn_implementation == attention
    assert _backward(model, batch) == plain


def test_loss_of_a_stage_is_the_plain_one_when_not_mixed():
    losses: dict[bool, list[float]] = {True: [], False: []}
    for mixed, seen in losses.items():
        stage = replace(WHOLE, mixed=mixed, steps=3)
        run_stage(random_llama(), TOKENIZER, CORPUS, stage, progress=lambda _, loss, seen=seen: seen.append(loss))
    first = collate([CORPUS[i] for i in batches(CORPUS, replace(WHOLE, steps=3))[0]], TOKENIZER, answers_only=False)
    assert losses[False][0] == _backward(random_llama().train(), first)
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert (losses[True] != losses[False]) == has_bfloat16(torch.device("cpu"))


# --- the order ---


@given(st.integers(1, 5), st.integers(1, 150), st.integers(0, 3))
def test_a_plan_gives_every_document_to_one_step(batch, steps, seed):
    stage = replace(WHOLE, steps=steps, batch=batch, seed=seed)
    lengths = [[0] * ((i * 7919) % 97) for i in range(steps * batch)]
    plan = batches(lengths, stage)
    assert len(plan) == steps
    assert {len(rows) for rows in plan} == {batch}
    assert sorted(i for rows in plan for i in rows) == list(range(steps * batch))
    assert plan == batches(lengths, stage)


def test_another_seed_is_another_order():
    assert batches(CORPUS, replace(WHOLE, seed=1)) != batches(CORPUS, WHOLE)


@given(st.integers(1, 50), st.integers(1, 200))
def test_learning_rate_rises_in_a_line_to_its_peak_then_falls_to_zero(warmup, after):
    stage = replace(WHOLE, steps=warmup + after, warmup=warmup, learning_rate=3.0)
    rates = [learning_rate(step, stage) for step in range(stage.steps + 1)]
    assert rates[warmup - 1] == rates[warmup] == max(rates) == 3.0
    assert rates[:warmup] == pytest.approx([3.0 * (i + 1) / warmup for i in range(warmup)])
    assert all(later < earlier for earlier, later in pairwise(rates[warmup:]))
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


# --- resuming ---


class KilledError(Exception):
    """Stands for the end of a process."""


def test_stages_are_mixed_by_default():
    assert WHOLE.mixed


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_killed_stage_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path, optimizer, killed_at):
    stage, checkpoint = replace(WHOLE, optimizer=optimizer, answers_only=optimizer == "adamw"), tmp_path / "state"
    whole = random_llama()
    run_stage(whole, TOKENIZER, CORPUS, stage)
    steps = []

    def kill(step: int, loss: float) -> None:
        if step == killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        run_stage(random_llama(), TOKENIZER, CORPUS, stage, checkpoint=checkpoint, progress=kill)
    resumed = random_llama()
    run_stage(resumed, TOKENIZER, CORPUS, stage, checkpoint=checkpoint, progress=lambda step, _: steps.append(step))
    saved = max((s for s in (2, 4, 6) if s < killed_at), default=0)
    assert steps == list(range(saved + 1, stage.steps + 1))
    for (name, a), (_, b) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not torch.equal(whole.model.embed_tokens.weight, random_llama().model.embed_tokens.weight)


def test_finished_stage_is_restored_without_a_step(tmp_path):
    first, again = random_llama(), random_llama()
    run_stage(first, TOKENIZER, CORPUS, WHOLE, checkpoint=tmp_path / "state")

    def never(step: int, loss: float) -> None:
        raise AssertionError(step)

    run_stage(again, TOKENIZER, CORPUS, WHOLE, checkpoint=tmp_path / "state", progress=never)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
