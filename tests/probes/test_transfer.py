"""Transfer is cross-validation on the diagonal, follows shared directions, and never trains on what it tests."""

import pytest
import torch

from probes import LabelledSet, by_question, cross_validated_auroc, transfer_matrix, transfer_scores
from probes.transfer import dealt_phrasings
from tests.probes.activations import planted


def test_transfer_is_cross_validation_on_the_diagonal_and_follows_shared_directions():
    one, y, questions, directions = planted(questions=40, strength=2.0, seed=1)
    same = one + torch.randn(one.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.1
    opposed = (
        one - 4 * (y.double() - 0.5)[None, :, None] * directions[:, None] * torch.tensor([0.0, 1.0])[:, None, None]
    )
    sets = {name: LabelledSet(X, y, questions) for name, X in {"a": one, "b": same, "c": opposed}.items()}
    matrix = transfer_matrix(sets)
    folds = by_question(questions)
    torch.testing.assert_close(matrix[:, 0, 0], cross_validated_auroc(one, y, folds).value)
    assert matrix.shape == (2, 3, 3)
    assert matrix[1, 0, 1] > 0.9
    assert matrix[1, 0, 2] < 0.1
    assert (matrix[0] - 0.5).abs().max() < 0.12


def test_transfer_does_not_train_on_the_questions_it_tests():
    generator = torch.Generator().manual_seed(0)
    questions = [i // 8 for i in range(320)]
    y = (torch.rand(40, generator=generator) < 0.5)[torch.tensor(questions)]
    X = torch.randn(40, 32, generator=generator)[torch.tensor(questions)][None]
    matrix = transfer_matrix({"a": LabelledSet(X, y, questions), "b": LabelledSet(X + 0.01, y, questions)})
    assert (matrix - 0.5).abs().max() < 0.25


def worded(seed: int) -> LabelledSet:
    """Return a set whose label is the wording: forty texts, the first half positive."""
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
    by_pair, matrix = transfer_scores(sets), transfer_matrix(sets)
    for i, a in enumerate(sets):
        for j, b in enumerate(sets):
            scores = by_pair[a, b]
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
