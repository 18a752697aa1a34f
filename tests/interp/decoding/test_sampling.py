"""Uniform streams depend on their key alone, and tokens are chosen by inverse-transform sampling."""

from collections import Counter

import pytest
import torch

from interp.decoding.sampling import Sampling, choose, uniforms
from tests.interp.test_generation import rows


def test_uniform_streams_depend_on_their_key_alone_and_extend():
    some = uniforms(0, [3, 1, 4], range(5), 8)
    assert torch.equal(uniforms(0, [3, 1, 4], [4, 2], 8), some[[4, 2]])
    assert torch.equal(uniforms(0, [3, 1, 4], range(5), 32)[:, :8], some)
    for other in (uniforms(1, [3, 1, 4], range(5), 8), uniforms(0, [3, 1], range(5), 8), some.flip(0)[:2]):
        assert not (other[:2] == some[:2]).any()
    many = uniforms(0, [3], range(400), 50)
    assert many.min() >= 0 and many.max() < 1
    assert abs(float(many.mean()) - 0.5) < 0.01


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_choose_inverts_the_cumulative_distribution(temperature):
    logits, n = rows(7), 20_000
    u = (torch.arange(n) + 0.5) / n
    tokens = choose(logits.expand(n, 7), u, Sampling(temperature=temperature))
    counts = torch.bincount(tokens, minlength=7) / n
    torch.testing.assert_close(counts, (logits / temperature).softmax(0), atol=2 / n, rtol=0)


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9])
def test_top_p_keeps_the_smallest_set_that_holds_the_mass(top_p):
    logits, n = rows(9, seed=1), 20_000
    u = (torch.arange(n) + 0.5) / n
    drawn = Counter(choose(logits.expand(n, 9), u, Sampling(top_p=top_p)).tolist())
    p, order = logits.softmax(0).sort(descending=True)
    size = int((p.cumsum(0) < top_p).sum()) + 1
    assert set(drawn) == set(order[:size].tolist())
    for token, probability in zip(order[:size].tolist(), (p[:size] / p[:size].sum()).tolist(), strict=True):
        assert drawn[token] / n == pytest.approx(probability, abs=2 / n)


def test_impossible_tokens_are_never_drawn():
    logits = torch.tensor([float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")])
    u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24])
    assert choose(logits.expand(5, 5), u, Sampling()).tolist() == [1, 1, 3, 3, 3]
    assert choose(logits.expand(5, 5), u, Sampling(top_p=0.5)).unique().numel() == 1
