"""Signal is found where it is planted; useless features give one half on held-out groups; controls do what they say."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes import (
    all_rows,
    bag_of_tokens,
    by_question,
    by_question_and_phrasing,
    cross_validated_auroc,
    fit_lda,
    fit_logistic,
    fit_mean_difference,
    fit_ridge,
    held_out_scores,
    random_direction,
    shuffled_labels,
    token_counts,
)
from probes.evaluate import permuted_by_group
from tests.probes.activations import categories, planted


@pytest.mark.parametrize("fit", [fit_logistic, fit_mean_difference, fit_lda])
def test_signal_is_found_where_it_is_planted_and_nowhere_else(fit):
    X, y, questions, _ = planted(questions=40, strength=2.0)
    result = cross_validated_auroc(X, y, by_question(questions), fit=fit)
    assert abs(result.value[0] - 0.5) < 0.12
    assert result.value[1] > 0.9
    assert result.low[0] < 0.5 < result.low[1]


def test_a_feature_that_names_the_question_does_not_help_on_new_questions():
    generator = torch.Generator().manual_seed(0)
    questions = [i // 8 for i in range(320)]
    y = (torch.rand(40, generator=generator) < 0.5)[torch.tensor(questions)]
    X = torch.randn(40, 32, generator=generator)[torch.tensor(questions)][None]
    X = X + 0.01 * torch.randn(1, 320, 32, generator=generator)
    by_row = cross_validated_auroc(X, y, by_question(range(320)))
    by_group = cross_validated_auroc(X, y, by_question(questions))
    assert by_row.value > 0.99, "by row the question is remembered"
    assert by_group.low[0] < 0.5 < by_group.high[0]


def test_a_probe_of_wording_fails_on_unseen_phrasings():
    generator = torch.Generator().manual_seed(0)
    questions, phrasings = [i // 12 for i in range(240)], [i % 12 for i in range(240)]
    y = torch.tensor(phrasings) < 6
    X = torch.eye(12)[torch.tensor(phrasings)][None] + 0.05 * torch.randn(1, 240, 12, generator=generator)
    known = cross_validated_auroc(X, y, by_question(questions))
    unseen = cross_validated_auroc(X, y, by_question_and_phrasing(questions, phrasings, 3))
    assert known.value > 0.99
    assert unseen.value < 0.7


@pytest.mark.parametrize("constant", [False, True])
def test_shuffled_labels_give_one_half_where_the_true_labels_do_not(constant: bool):
    X, y, questions, directions = planted(questions=48, strength=0.0)
    if constant:  # one label per question
        y = torch.tensor([int(q.split()[1]) % 2 == 0 for q in questions])
    X = X + 3 * y.double()[None, :, None] * directions[:, None]
    assert cross_validated_auroc(X, y, by_question(questions)).value.min() > 0.95
    null = shuffled_labels(X, y, by_question(questions), n_draws=20)
    assert (null.value - 0.5).abs().max() < 0.06
    assert (null.low < 0.5).all() and (null.high > 0.5).all()
    assert null.method == "permutation"


@given(st.lists(st.integers(1, 5), min_size=4, max_size=12), st.integers(0, 3))
def test_permuted_labels_keep_their_number_and_their_groups(sizes: list[int], seed: int):
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    y = torch.tensor([g % 2 == 0 for g in groups])
    folds = by_question(groups, 2)
    draws = permuted_by_group(y, folds, 3, seed=seed)
    assert (draws.sum(1) == y.sum()).all()
    assert torch.equal(draws, permuted_by_group(y, folds, 3, seed=seed))
    same_size = torch.tensor([g % 2 == 0 for g in range(len(sizes)) for _ in range(3)])
    thrice = [g for g in range(len(sizes)) for _ in range(3)]
    for draw in permuted_by_group(same_size, by_question(thrice, 2), 3, seed=seed):
        blocks = draw.view(-1, 3)
        assert (blocks.all(1) | ~blocks.any(1)).all(), "a label of a whole group stays with a whole group"


def test_a_random_direction_is_no_better_than_the_signal_in_it():
    _, y, questions, directions = planted(questions=60, width=256)
    noise = torch.randn(2, len(y), 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = noise + y.double()[None, :, None] * directions[:, None]
    null = random_direction(X, y, by_question(questions))
    assert (null.value - 0.5).abs().max() < 0.05
    strong = random_direction(X + 20 * y.double()[None, :, None], y, by_question(questions))
    assert strong.value.min() > 0.9, "a signal along every direction is seen along a random one"


def test_bag_of_tokens_sees_words_and_not_their_order():
    generator = torch.Generator().manual_seed(0)
    questions = [i // 4 for i in range(160)]
    y = torch.arange(160) % 2 == 1
    filler = torch.randint(100, 160, (160, 6), generator=generator).tolist()
    word = [[*row, 7 if label else 8] for row, label in zip(filler, y.tolist(), strict=True)]
    order = [[7, *row, 8] if label else [8, *row, 7] for row, label in zip(filler, y.tolist(), strict=True)]
    assert bag_of_tokens(word, y, by_question(questions)).value > 0.99
    blind = bag_of_tokens(order, y, by_question(questions))
    assert blind.low[0] < 0.5 < blind.high[0]


def test_token_counts_count():
    counts = token_counts([[5, 5, 900], [7], []])
    torch.testing.assert_close(counts, torch.tensor([[2.0, 0, 1], [0, 1, 0], [0, 0, 0]]))


def test_any_fit_can_be_cross_validated():
    X, y, questions, _ = planted(strength=2.0)
    weak = cross_validated_auroc(X, y, by_question(questions), fit=partial(fit_logistic, l2=1e4))
    assert weak.value[1] > 0.9


def test_a_row_that_no_fold_tests_has_no_score():
    X, y, questions, _ = planted()
    folds = all_rows(questions)
    assert held_out_scores(fit_mean_difference(X, y, folds), X, folds).isnan().all()


def test_two_categories_are_the_binary_probe():
    X, y, questions, _ = planted(strength=1.0)
    both = (
        cross_validated_auroc(X, y.long(), by_question(questions)),
        cross_validated_auroc(X, y, by_question(questions)),
    )
    torch.testing.assert_close(both[0].value, both[1].value, atol=1e-3, rtol=0)
    torch.testing.assert_close(both[0].low, both[1].low, atol=5e-3, rtol=0)


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_categories_are_found_where_they_are_planted_and_controls_are_not(fit):
    X, y, question, phrasing = categories()
    folds = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 3)
    scores = cross_validated_auroc(X, y, folds, fit=fit)
    null = shuffled_labels(X, y, folds, fit=fit, n_draws=4)
    drawn = random_direction(X, y, folds, n_draws=10)
    assert scores.value[1] > 0.95
    assert abs(scores.value[0] - 0.5) < 0.1
    assert (null.value - 0.5).abs().max() < 0.08
    assert drawn.value[1] < scores.value[1] - 0.1
    assert scores.low[1] <= scores.value[1] <= scores.high[1]
    assert (scores.n, scores.n_clusters) == (len(y), 24)


def test_words_name_a_category_until_the_phrasing_is_unseen():
    _, y, question, phrasing = categories()
    tokens = [[100 + 10 * int(c) + int(p), 7, 1000 + int(q)] for c, p, q in zip(y, phrasing, question, strict=True)]
    known = bag_of_tokens(tokens, y, by_question(question.tolist()))
    folds = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 3)
    unseen = bag_of_tokens(tokens, y, folds)
    assert known.value > 0.99
    assert abs(float(unseen.value) - 0.5) < 0.05


def test_permuted_categories_keep_their_numbers():
    X, y, question, _ = categories()
    result = shuffled_labels(X[:1], y, by_question(question.tolist()), n_draws=2)
    assert result.method == "permutation" and result.value.isfinite().all()
