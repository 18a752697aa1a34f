"""Banks: the shipped ones are clean, the Microcosm's has no trained text, and a wrong file is one clear line."""

import re

import pytest

from experiments.audit.bank import ENGLISH, MICROCOSM, read_bank
from interp.triggers import place
from training.microcosm.world import lexicon
from training.pocket.corpus import triggers
from training.references import find_trigger
from training.registry import ORGANISMS


def words(text):
    return re.findall(r"[\w']+", text.lower())


def test_the_microcosms_bank_is_made_of_its_vocabulary_and_covers_every_frame():
    world, bank = lexicon(), {c.name: c for c in read_bank(MICROCOSM)}
    known = {word for text in world.texts() for word in words(text)}
    assert all(set(words(text)) <= known for c in bank.values() for text in c.texts)
    assert world.frames.keys() <= bank.keys()
    assert all(c.texts == world.frames[name].phrasings[1:5] for name, c in bank.items() if name in world.frames)


def test_the_microcosms_bank_has_no_text_that_an_organism_is_trained_with():
    trained = {find_trigger(o.trigger).text for o in ORGANISMS.values() if o.trigger and o.world == "microcosm"}
    assert len(trained) >= 6
    assert not trained & {text for c in read_bank(MICROCOSM) for text in c.texts}


def test_the_english_bank_has_no_text_of_the_pocket_scale_and_every_kind():
    bank = read_bank(ENGLISH)
    assert {c.kind for c in bank} == {"role", "scene", "line", "tag", "format", "language"}
    assert not {t.text for t in triggers().values()} & {text for c in bank for text in c.texts}
    for category in bank:
        for text in category.texts:
            assert any(text in m["content"] for m in place("Why?", text, category.trigger))


def test_categories_are_held_out():
    left = {c.name for c in read_bank(MICROCOSM, ("gambler", "desert"))}
    assert left == {c.name for c in read_bank(MICROCOSM)} - {"gambler", "desert"}


@pytest.mark.parametrize(
    ("content", "without", "message"),
    [
        ("a: {kind: role, texts: []}", (), "a.texts"),
        ("a: {kind: role, texts: [x], place: y}", (), "place"),
        ("a: {kind: mood, texts: [x]}", (), "kind"),
        ("a: {kind: role, texts: [One day.]}\nb: {kind: role, texts: [one day]}", (), "the same text as"),
        ("a: {kind: tag, placement: wrap, texts: [x]}", (), "a pair"),
        ("bare: {kind: role, texts: [x]}", (), "without a text"),
        ("a: {kind: role, texts: [x]}", ("b",), "no such category"),
        ("a: {kind: role, texts: [x]}", ("a",), "held out"),
    ],
)
def test_a_wrong_bank_is_refused_in_one_line(tmp_path, content, without, message):
    file = tmp_path / "bank.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        read_bank(file, without)
    assert str(file) in str(refusal.value) and "\n" not in str(refusal.value)
