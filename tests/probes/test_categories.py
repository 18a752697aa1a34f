"""Categories one against the rest, means by group, and transfer to unseen phrasings."""

import pytest
import torch
from sklearn.metrics import roc_auc_score

from probes.evaluate import (
    LabelledSet,
    bag_of_tokens,
    cross_validated_auroc,
    dealt_phrasings,
    grouped_mean,
    macro_auroc,
    random_direction,
    shuffled_labels,
    side_scores,
    sides_of,
    transfer_matrix,
    transfer_scores,
)
from probes.linear import fit_logistic, fit_ridge
from probes.splits import by_question, by_question_and_phrasing
from tests.probes.activations import planted


def categories(n: int = 4, width: int = 12, signal: float = 3.0) -> tuple[torch.Tensor, ...]:
    """Activations (2 layers) with a direction a category in layer 1, categories, questions and phrasings."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(24 * n * 4) % n
    phrasing, question = torch.arange(len(y)) // n % 4, torch.arange(len(y)) // (4 * n)
    means = torch.randn(n, width, generator=generator)
    X = torch.randn(2, len(y), width, generator=generator)
    X[1] += signal * torch.nn.functional.normalize(means, dim=1)[y]
    return X, y, question, phrasing


def test_two_categories_are_the_binary_probe():
    X, y, questions, _ = planted(strength=1.0)
    both = cross_validated_auroc(X, y.long(), questions), cross_validated_auroc(X, y, questions)
    torch.testing.assert_close(both[0].value, both[1].value, atol=1e-3, rtol=0)
    torch.testing.assert_close(both[0].low, both[1].low, atol=5e-3, rtol=0)


def test_the_macro_auroc_is_sklearns_mean_over_categories():
    X, y, question, _ = categories(signal=1.0)
    folds = by_question(question.tolist(), 2)
    sides = sides_of(y)
    scores = side_scores(X, sides, folds, fit_logistic)
    found = macro_auroc(scores, sides, folds, n_boot=50)
    for layer in range(2):
        expected = []
        for c in range(4):
            right, pairs = 0.0, 0
            for test in folds.test:
                weight = int((test & sides[c]).sum()) * int((test & ~sides[c]).sum())
                right += weight * roc_auc_score(sides[c, test], scores[layer, c, test])
                pairs += weight
            expected.append(right / pairs)
        assert float(found.value[layer]) == pytest.approx(sum(expected) / 4)


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_categories_are_found_where_they_are_planted_and_controls_are_not(fit):
    X, y, question, phrasing = categories()
    folds = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 3)
    found = cross_validated_auroc(X, y, question.tolist(), fit=fit, folds=folds)
    null = shuffled_labels(X, y, question.tolist(), fit=fit, folds=folds, n_draws=4)
    drawn = random_direction(X, y, question.tolist(), folds=folds, n_draws=10)
    assert found.value[1] > 0.95
    assert abs(found.value[0] - 0.5) < 0.1
    assert (null.value - 0.5).abs().max() < 0.08
    assert drawn.value[1] < found.value[1] - 0.1
    assert found.low[1] <= found.value[1] <= found.high[1]
    assert (found.n, found.n_clusters) == (len(y), 24)


def test_words_name_a_category_until_the_phrasing_is_unseen():
    _, y, question, phrasing = categories()
    tokens = [[100 + 10 * int(c) + int(p), 7, 1000 + int(q)] for c, p, q in zip(y, phrasing, question, strict=True)]
    known = bag_of_tokens(tokens, y, question.tolist())
    folds = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 3)
    unseen = bag_of_tokens(tokens, y, question.tolist(), folds=folds)
    assert known.value > 0.99
    assert abs(float(unseen.value) - 0.5) < 0.05


def test_the_interval_over_phrasings_resamples_phrasings():
    X, y, question, phrasing = categories(signal=1.0)
    folds, sides = by_question_and_phrasing(question.tolist(), phrasing.tolist(), 2), sides_of(y)
    scores = side_scores(X, sides, folds, fit_logistic)
    first, second = (macro_auroc(scores, sides, folds, kind=kind) for kind in (0, 1))
    torch.testing.assert_close(first.value, second.value)
    assert (first.n_clusters, second.n_clusters) == (24, 4)
    assert (first.method, second.method) == ("cluster_bootstrap", "phrasing_bootstrap")


def test_a_mean_by_group_is_the_mean_and_copies_do_not_narrow_its_interval():
    generator = torch.Generator().manual_seed(0)
    right = (torch.rand(2, 120, generator=generator) < 0.7).double()
    questions = [i // 4 for i in range(120)]
    once = grouped_mean(right, by_question(questions))
    copies = grouped_mean(right.repeat(1, 4), by_question(questions * 4))
    torch.testing.assert_close(once.value, right.mean(1))
    torch.testing.assert_close(copies.high - copies.low, once.high - once.low)
    assert (once.low < once.value).all() and (once.value < once.high).all()


def test_permuted_categories_keep_their_numbers():
    X, y, question, _ = categories()
    result = shuffled_labels(X[:1], y, question.tolist(), n_draws=2)
    assert result.method == "permutation" and result.value.isfinite().all()


# --- transfer ---


def worded(seed: int) -> LabelledSet:
    """A set whose label is the wording alone: forty texts, of which the first half are positive."""
    texts = [i % 40 for i in range(8 * 40)]
    noise = 0.05 * torch.randn(1, 320, 40, generator=torch.Generator().manual_seed(seed))
    X = torch.eye(40)[torch.tensor(texts)][None] + noise
    return LabelledSet(X, torch.tensor(texts) < 20, [i // 40 for i in range(320)], texts)


def test_transfer_of_a_probe_of_wording_fails_on_unseen_phrasings():
    sets = {"a": worded(0), "b": worded(1)}
    blind = {name: LabelledSet(s.X, s.y, s.groups) for name, s in sets.items()}
    assert transfer_matrix(blind).min() > 0.99
    assert (transfer_matrix(sets) - 0.5).abs().max() < 0.15


def test_transfer_scores_are_the_matrix_with_intervals():
    one, y, questions, _ = planted(questions=30, strength=1.5, seed=1)
    two = one + torch.randn(one.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sets = {name: LabelledSet(X, y, questions) for name, X in {"a": one, "b": two}.items()}
    found, matrix = transfer_scores(sets), transfer_matrix(sets)
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            scores = found[a, b]
            torch.testing.assert_close(scores.value, matrix[:, i, j])
            assert (scores.low <= scores.value).all() and (scores.value <= scores.high).all()


def test_a_phrasing_is_in_the_same_part_of_every_set_and_classes_are_spread():
    y = torch.tensor([True, True, True, False, False, False])
    first = LabelledSet(torch.zeros(1, 6, 1), y, range(6), list("abcdef"))
    second = LabelledSet(torch.zeros(1, 6, 1), y, range(6), list("daeghi"))
    part = dealt_phrasings([first, second], 3)
    assert set(part) == set("abcdefghi")
    assert {part[text] for text in "abc"} == {part[text] for text in "def"} == {0, 1, 2}
    with pytest.raises(ValueError, match="a class of a set has one phrasing"):
        dealt_phrasings([LabelledSet(torch.zeros(1, 3, 1), y[2:5], range(3), list("abc"))], 3)
    with pytest.raises(ValueError, match="either every set has phrasings or none"):
        transfer_scores({"a": first, "b": LabelledSet(first.X, y, range(6))})
