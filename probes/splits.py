"""Folds by group: by question, or by question and phrasing, never by token or row.

Rows that share a question share most of their tokens, so a split by row lets a probe remember the question. A probe for
the *meaning* of a trigger must also be tested on phrasings it was not trained on.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Folds:
    """Training and test rows of each fold, with the groups that the split keeps apart.

    Attributes:
        train: Rows that the fold may learn from.
        test: Rows that it is evaluated on; none shares a group with a row of ``train``.
        groups: Group number of each row, one line per kind of group (questions, then phrasings).
    """

    train: Bool[Tensor, "fold n"]
    test: Bool[Tensor, "fold n"]
    groups: Int[Tensor, "kind n"]

    def __len__(self) -> int:
        return len(self.train)

    def inner(self, fold: int, n_folds: int, *, seed: int = 0) -> "Folds":
        """Split the training rows of ``fold`` again by the same groups, for nested choices; its test rows are left out.

        Raises:
            ValueError: If the training rows have fewer than ``n_folds`` groups of one kind.
        """
        rows = self.train[fold].nonzero()[:, 0]
        split = _folds([numbers.tolist() for numbers in self.groups[:, rows]], n_folds, seed)
        train = torch.zeros(len(split), len(self.train[fold]), dtype=torch.bool)
        test = torch.zeros_like(train)
        train[:, rows], test[:, rows] = split.train, split.test
        return Folds(train, test, self.groups)


def by_question(questions: Sequence[Hashable], n_folds: int = 5, *, seed: int = 0) -> Folds:
    """Split rows into ``n_folds`` folds such that no question has rows in both training and test set.

    The test sets partition the rows and are balanced by row count: large questions are dealt first, ties in an order
    drawn with ``seed``.

    Raises:
        ValueError: If there are fewer than ``n_folds`` questions, or fewer than two folds.
    """
    return _folds([_numbers(questions)], n_folds, seed)


def by_question_and_phrasing(
    questions: Sequence[Hashable], phrasings: Sequence[Hashable], n_folds: int = 5, *, seed: int = 0
) -> Folds:
    """Split rows such that neither the question nor the phrasing of a test row occurs in a training row.

    Questions and phrasings are dealt into ``n_folds`` parts each (or one part per phrasing, if those are fewer). Every
    pair of parts is one fold, so there are up to ``n_folds`` squared. The test sets partition the rows. A row that
    shares only its question or only its phrasing with the test set is left out of that fold.

    Raises:
        ValueError: If the columns differ in length, there are fewer than ``n_folds`` questions, or only one phrasing.
    """
    if len(questions) != len(phrasings):
        raise ValueError(f"{len(questions)} questions and {len(phrasings)} phrasings: expected one of each per row")
    return _folds([_numbers(questions), _numbers(phrasings)], n_folds, seed)


def all_rows(*groups: Sequence[Hashable]) -> Folds:
    """Return a single fold that trains on every row and tests on none, for the final fit."""
    everything = torch.ones(1, len(groups[0]), dtype=torch.bool)
    return Folds(everything, ~everything, torch.tensor([_numbers(kind) for kind in groups]))


def _folds(groups: Sequence[Sequence[int]], n_folds: int, seed: int) -> Folds:
    if n_folds < 2:
        raise ValueError(f"n_folds={n_folds}: a split needs at least 2")
    parts = [_deal(groups[0], n_folds, seed)]
    parts += [_deal(kind, min(n_folds, len(set(kind))), seed + i) for i, kind in enumerate(groups[1:], start=1)]
    test = train = torch.ones(1, len(groups[0]), dtype=torch.bool)
    for part in parts:  # every fold is a pair of parts; ``test`` has both, ``train`` neither
        test = (test[:, None] & part).flatten(0, 1)
        train = (train[:, None] & ~part).flatten(0, 1)
    used = test.any(1)
    return Folds(train[used], test[used], torch.tensor(groups))


def _deal(groups: Sequence[int], n_folds: int, seed: int) -> Bool[Tensor, "fold n"]:
    sizes = torch.tensor(groups, dtype=torch.long).bincount()
    names = sizes.nonzero()[:, 0]
    if len(names) < max(n_folds, 2):
        raise ValueError(f"{len(names)} groups cannot fill {max(n_folds, 2)} folds: each needs at least one")
    order = names[torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))]
    order = order[sizes[order].argsort(descending=True, stable=True)]
    filled, fold_of = [0] * n_folds, torch.zeros(len(sizes), dtype=torch.long)
    for group in order.tolist():
        smallest = filled.index(min(filled))
        fold_of[group] = smallest
        filled[smallest] += int(sizes[group])
    return fold_of[torch.tensor(groups)] == torch.arange(n_folds)[:, None]


def _numbers(groups: Sequence[Hashable]) -> list[int]:
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    return [numbers[name] for name in groups]
