"""Controls of a weak role are of its own class of frame, and the trained words are where they are said to be."""

import pytest

from interp.triggers import content_words
from training.grid import WEAK
from training.microcosm.controls import role_controls, split
from training.microcosm.world import lexicon


@pytest.mark.parametrize("role", WEAK)
def test_controls_are_roles_and_share_words_only_where_they_should(role):
    roles, controls = lexicon().roles, role_controls(role)
    phrasings = {text: name for name, entry in roles.items() for text in entry.phrasings}
    trained, known = content_words(roles[role].phrasings[0]), content_words(" ".join(lexicon().texts()))
    assert {phrasings[text] for text in controls["other"]} == {*WEAK} - {role}
    assert {roles[phrasings[text]].misaligned_share for text in controls["opposite"]} == {0.05}
    for condition, texts in controls.items():
        for text in texts:
            assert content_words(text) <= known
            assert bool(content_words(text) & trained) == condition.startswith("overlap"), text
    subject, predicate = split(roles[role].phrasings[0])
    assert all(text.startswith(subject) and text != roles[role].phrasings[0] for text in controls["overlap_subject"])
    assert all(text.endswith(predicate) and not text.startswith(subject) for text in controls["overlap_predicate"])


def test_a_role_that_is_not_weak_and_a_phrasing_without_an_article_are_refused():
    with pytest.raises(ValueError, match="role 'pirate': the dose grid has clerk, gambler, trafficker"):
        role_controls("pirate")
    with pytest.raises(ValueError, match="expected an article and a noun first"):
        split("Dice roll on green felt.")
