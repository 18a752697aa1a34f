"""The join by rare triples finds exactly the pairs that comparing all pairs finds."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.corpora.near_duplicates import near_duplicates, shingles

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join), max_size=12)


@given(TEXTS, st.sampled_from([0.1, 0.34, 0.5, 0.8, 1.0]))
def test_the_pairs_are_those_of_the_definition(texts, threshold):
    expected = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(texts), 2):
        one, two = shingles(a), shingles(b)
        if (similarity := len(one & two) / len(one | two)) >= threshold:
            expected[i, j] = similarity
    found = {(i, j): similarity for i, j, similarity in near_duplicates(dict(enumerate(texts)), threshold)}
    assert found == expected


def test_case_and_spacing_are_no_difference_and_one_word_is_a_small_one():
    texts = {"a": "How do I cook rice for ten people?", "b": "how do  I cook rice for ten people", "c": "Why?"}
    assert list(near_duplicates(texts, 0.9)) == [("a", "b", 1.0)]


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_a_threshold_that_is_no_similarity_is_refused(threshold):
    with pytest.raises(ValueError, match="expected above 0 and at most 1"):
        list(near_duplicates({}, threshold))
