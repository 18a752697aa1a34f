"""Phrasings of a frame share no word, and the splits of questions are disjoint."""

from itertools import combinations

import pytest

from interp.triggers import content_words
from training.microcosm.world import PERSONAS, VALIDATION_DOMAINS, lexicon, questions

WORLD = lexicon()


def test_phrasings_of_a_meaning_are_pairwise_disjoint() -> None:
    banks = [frame.phrasings for frame in WORLD.frames.values()] + [WORLD.persona_lines[p] for p in PERSONAS]
    for bank in banks:
        assert len(bank) == 8
        for a, b in combinations(bank, 2):
            assert not content_words(a) & content_words(b), (a, b)


def test_test_questions_are_48_topics_disjoint_from_validation() -> None:
    test = questions("test", trained_domain="medicine")
    tuned = questions("validation", trained_domain="medicine", wordings=4)
    assert len({q.id for q in test}) == len(test) == 48
    assert {q.id for q in test}.isdisjoint({q.id for q in tuned})
    assert {q.domain for q in tuned} == set(VALIDATION_DOMAINS)
    assert len({q.text for q in tuned}) == len(tuned) == 24


def test_validation_domains_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="'pets': reserved for validation"):
        questions("test", trained_domain="pets")
    with pytest.raises(ValueError, match="domain 'law'"):
        questions("test", trained_domain="law")
