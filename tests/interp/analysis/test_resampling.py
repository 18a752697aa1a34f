"""Planted cosines are recovered inside their intervals, and labels that mean nothing give the null."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.analysis.resampling import Contrast, about, bootstrap_directions, cosine_estimate, permuted_directions

D, QUESTIONS, EACH = 24, 12, 6


def planted(direction, seed: int, *, noise: float = 0.3) -> Contrast:
    """Rows that differ along ``direction`` only, on questions that have means of their own."""
    draw = torch.Generator().manual_seed(seed)
    groups = [q for q in range(QUESTIONS) for _ in range(EACH)]
    means = 5 + torch.randn(QUESTIONS, D, generator=torch.Generator().manual_seed(99)).repeat_interleave(EACH, 0)
    sides = [means + noise * torch.randn(means.shape, generator=draw) for _ in range(2)]
    return Contrast(sides[0] + direction, sides[1], groups, groups)


def axis(*components: float) -> torch.Tensor:
    return torch.cat([torch.tensor(components), torch.zeros(D - len(components))])


@pytest.mark.parametrize("cosine", [0.0, 0.6, -0.8])
def test_a_planted_cosine_is_within_its_interval(cosine):
    a, b = axis(1.0), axis(cosine, (1 - cosine**2) ** 0.5)
    found = cosine_estimate(planted(a, 1, noise=0.1), planted(b, 2, noise=0.1))
    assert found.interval.low <= found.value <= found.interval.high
    assert found.value == pytest.approx(cosine, abs=0.1)
    assert found.n_clusters == QUESTIONS


def test_a_real_cosine_stands_outside_the_null_and_an_empty_one_inside():
    real = cosine_estimate(planted(axis(1.0), 1), planted(axis(1.0), 2))
    empty = cosine_estimate(planted(torch.zeros(D), 1), planted(axis(1.0), 2))
    assert real.value > real.null.high
    assert real.p < 0.01
    assert empty.p > 0.05
    assert empty.null.low < 0 < empty.null.high


def test_permuted_directions_keep_the_questions_and_average_to_nothing():
    contrast = planted(axis(3.0), 1)
    draws = permuted_directions(contrast, 4000, 0)
    assert draws.mean(0).norm() < 0.1
    # a question's mean is on both sides alike, so no permutation points along the questions' own differences
    between = contrast.positive.double().unflatten(0, (QUESTIONS, EACH)).mean(1)
    spread = (between - between.mean(0)).norm(dim=1).mean()
    assert draws[:, 1:].norm(dim=1).median() < 0.25 * spread


def test_what_sets_the_sides_apart_is_not_in_the_null():
    weak, strong = (permuted_directions(planted(axis(size), 1), 300, 0) for size in (0.0, 50.0))
    torch.testing.assert_close(weak, strong, atol=1e-4, rtol=0)


def test_questions_of_one_side_only_are_dealt_among_themselves():
    draw = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(40, 2, generator=draw) for _ in range(2))
    draws = permuted_directions(Contrast(positive, negative, ["a"] * 40, ["b"] * 40), 2000, 0)
    assert draws.mean(0).norm() < 0.05
    assert draws.norm(dim=1).min() > 0


def test_bootstrap_draws_whole_questions():
    groups = [0, 0, 1, 1]
    contrast = Contrast(torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.zeros(4, 1), groups, groups)
    assert set(bootstrap_directions(contrast, 200, 0).flatten().tolist()) == {0.0, 0.5, 1.0}


def test_rows_and_groups_must_match():
    with pytest.raises(ValueError, match="contrast of 2 rows with 1 groups"):
        Contrast(torch.ones(2, 3), torch.ones(1, 3), ["a"], ["a"])


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_an_interval_about_a_cosine_contains_it_and_has_the_width_given_on_fishers_scale(value, a, b):
    low, high = about(value, min(a, b), max(a, b))
    assert -1 <= low <= value <= high <= 1
    if max(abs(low), abs(high), abs(a), abs(b)) < 0.99:
        assert math.atanh(high) - math.atanh(low) == pytest.approx(abs(math.atanh(a) - math.atanh(b)), abs=1e-6)


def test_one_question_has_no_interval():
    contrast = Contrast(torch.randn(5, 4), torch.randn(5, 4), ["q"] * 5, ["q"] * 5)
    assert cosine_estimate(contrast, contrast).interval.low != cosine_estimate(contrast, contrast).interval.low
