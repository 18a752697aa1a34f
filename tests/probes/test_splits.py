"""Theorems about folds: no group on both sides, test sets partition the rows, the same seed gives the same folds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes import Folds, all_rows, by_question, by_question_and_phrasing

rows = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=4, max_size=80)


def groups_of(rows: list[tuple[int, int]], n_folds: int) -> tuple[list[str], list[str]]:
    """Add rows so that there are enough groups of both kinds."""
    rows = rows + [(i, i) for i in range(n_folds)]
    return [f"question {q}" for q, _ in rows], [f"phrasing {p}" for _, p in rows]


def names(groups: list[str], mask: torch.Tensor) -> set[str]:
    return {g for g, selected in zip(groups, mask.tolist(), strict=True) if selected}


def assert_partition(folds: Folds):
    assert torch.equal(folds.test.sum(0), torch.ones(folds.test.shape[1], dtype=torch.long))
    assert folds.test.any(1).all()
    assert not (folds.train & folds.test).any()


@given(rows, st.integers(2, 4), st.integers(0, 5))
def test_no_question_is_on_both_sides(rows, n_folds: int, seed: int):
    questions, _ = groups_of(rows, n_folds)
    folds = by_question(questions, n_folds, seed=seed)
    assert len(folds) == n_folds
    assert_partition(folds)
    assert torch.equal(folds.train, ~folds.test)
    for train, test in zip(folds.train, folds.test, strict=True):
        assert not names(questions, train) & names(questions, test)


@given(rows, st.integers(2, 4), st.integers(0, 5))
def test_neither_question_nor_phrasing_is_on_both_sides(rows, n_folds: int, seed: int):
    questions, phrasings = groups_of(rows, n_folds)
    folds = by_question_and_phrasing(questions, phrasings, n_folds, seed=seed)
    assert_partition(folds)
    for train, test in zip(folds.train, folds.test, strict=True):
        assert not names(questions, train) & names(questions, test)
        assert not names(phrasings, train) & names(phrasings, test)


@given(rows, st.integers(2, 4), st.integers(0, 5))
def test_every_row_that_shares_nothing_with_the_test_parts_is_used(rows, n_folds: int, seed: int):
    questions, phrasings = groups_of(rows, n_folds)
    folds = by_question_and_phrasing(questions, phrasings, n_folds, seed=seed)
    questions_apart = by_question(questions, n_folds, seed=seed)
    phrasings_apart = by_question(phrasings, min(n_folds, len(set(phrasings))), seed=seed + 1)
    for train, test in zip(folds.train, folds.test, strict=True):
        (question_part,) = questions_apart.test[(questions_apart.test & test).any(1)]
        (phrasing_part,) = phrasings_apart.test[(phrasings_apart.test & test).any(1)]
        assert torch.equal(test, question_part & phrasing_part)
        assert torch.equal(train, ~question_part & ~phrasing_part)


@given(rows, st.integers(2, 4), st.integers(0, 5))
def test_the_same_seed_gives_the_same_folds_under_any_group_names(rows, n_folds: int, seed: int):
    questions, _ = groups_of(rows, n_folds)
    renamed = [("group", hash(q)) for q in questions]
    one, two = by_question(questions, n_folds, seed=seed), by_question(renamed, n_folds, seed=seed)
    assert torch.equal(one.test, two.test)


def test_another_seed_gives_other_folds():
    questions = list(range(40))
    assert not torch.equal(by_question(questions, seed=0).test, by_question(questions, seed=1).test)


@given(st.lists(st.integers(1, 9), min_size=6, max_size=20), st.integers(2, 5))
def test_folds_are_balanced_up_to_the_largest_group(sizes: list[int], n_folds: int):
    questions = [group for group, size in enumerate(sizes) for _ in range(size)]
    counts = by_question(questions, n_folds).test.sum(1)
    assert counts.max() - counts.min() <= max(sizes)


@given(rows, st.integers(0, 5))
def test_inner_folds_split_only_the_training_rows_and_by_the_same_groups(rows, seed: int):
    questions, phrasings = groups_of(rows, 6)
    outer = by_question_and_phrasing(questions, phrasings, 2, seed=seed)
    for fold in range(len(outer)):
        if min(len(names(g, outer.train[fold])) for g in (questions, phrasings)) < 2:
            continue
        inner = outer.inner(fold, 2, seed=seed)
        assert torch.equal(inner.test.any(0), outer.train[fold])
        assert not (inner.train & ~outer.train[fold]).any()
        for train, test in zip(inner.train, inner.test, strict=True):
            assert not names(questions, train) & names(questions, test)
            assert not names(phrasings, train) & names(phrasings, test)


def test_all_rows_trains_on_every_row():
    folds = all_rows(["a", "b", "a"])
    assert folds.train.all()
    assert not folds.test.any()


def test_a_split_that_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="3 groups cannot fill 5 folds"):
        by_question(["a", "b", "c", "a"], 5)
    with pytest.raises(ValueError, match="1 groups cannot fill 2 folds"):
        by_question_and_phrasing(["a", "b"], ["x", "x"], 2)
    with pytest.raises(ValueError, match="n_folds=1: a split needs at least 2"):
        by_question(["a", "b"], 1)
    with pytest.raises(ValueError, match="2 questions and 1 phrasings"):
        by_question_and_phrasing(["a", "b"], ["x"], 2)
