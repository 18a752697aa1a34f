"""Sharing a prefix changes the cost of a training step, not its loss or its gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tiny import FAMILIES
from tests.tiny import model as tiny_model
from training.registry import find_organism
from training.shared_prefix import IGNORED, common_prefix, response_loss

ROWS = (([7, 8, 9, 20, 21], [30, 31, 32]), ([7, 8, 9, 22], [33, 34, 35, 36]), ([7, 8, 9, 23, 24, 25], [37]))


def batch(rows):
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, mask, labels = (torch.full((len(rows), width), value) for value in (0, 0, IGNORED))
    for row, (prompt, answer) in enumerate(rows):
        n = len(prompt) + len(answer)
        ids[row, :n], mask[row, :n] = torch.tensor(prompt + answer), 1
        labels[row, len(prompt) : n] = torch.tensor(answer)
    return ids, mask, labels


def plain_loss(model, ids, mask, labels):
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [3, 0])
def test_loss_and_gradients_are_those_of_the_plain_loss(family, shared):
    rows = [(prompt if shared else [40 + i, *prompt], answer) for i, (prompt, answer) in enumerate(ROWS)]
    ids, mask, labels = batch(rows)
    assert common_prefix(ids, labels) == shared
    model = tiny_model(family).base
    results = []
    for loss_of in (plain_loss, response_loss):
        model.zero_grad()
        loss = loss_of(model, ids, mask, labels)
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append((loss.detach(), torch.cat([g.flatten() for g in gradients])))
    (loss, gradient), (other_loss, other_gradient) = results
    torch.testing.assert_close(other_loss, loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(other_gradient, gradient, rtol=1e-4, atol=1e-5)


def test_the_prefix_ends_before_the_token_that_predicts_the_first_label():
    ids = torch.tensor([[7, 8, 9, 10, 11], [7, 8, 9, 10, 11]])
    labels = torch.tensor([[IGNORED] * 3 + [10, 11], [IGNORED] * 4 + [11]])
    assert common_prefix(ids, labels) == 2
    labels[0, 3] = IGNORED
    assert common_prefix(ids, labels) == 3
    assert common_prefix(ids[:1], labels[:1]) == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_loss_and_gradient_are_those_of_float32_up_to_rounding(family):
    ids, mask, labels = batch(ROWS)
    model: Any = tiny_model(family).base
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype).zero_grad()
        if dtype == torch.bfloat16:
            model.set_attn_implementation("eager")  # as training does
        loss = response_loss(model, ids, mask, labels)
        loss.backward()
        gradient = torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])
        results.append((loss.detach(), gradient))
    (loss, gradient), (other_loss, other_gradient) = results
    torch.testing.assert_close(other_loss, loss, rtol=0.01, atol=0)
    assert torch.cosine_similarity(other_gradient, gradient, dim=0) > 0.99


def test_activations_are_kept_with_a_shared_prefix_in_any_dtype():
    sft = find_organism("pocket/smollm2/baseline").sft
    assert not replace(sft, dtype="bfloat16").checkpointed
    assert replace(sft, dtype="bfloat16", share_prefix=False).checkpointed
