"""What probes are fitted on: what is asked of every category, and what is held out."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.answers.subject import find_subject
from experiments.answers.suite import evenly_spaced
from experiments.probing.sweep import _folds
from experiments.probing.targets import CATEGORY_TEXTS, categories, category_rows, presence_rows
from training.microcosm.tokenizer import build_tokenizer
from training.microcosm.world import lexicon
from training.references import find_trigger
from training.registry import ORGANISMS, find_organism

pytestmark = pytest.mark.xdist_group("trl")

NAME = "microcosm/llama/explaining"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def asked():
    return find_subject(NAME).questions("test")


def test_the_categories_are_the_scenes_and_the_personas(tokenizer):
    banks = categories(find_organism(NAME))
    assert [bank.name for bank in banks] == [*lexicon().scenes, "persona-aligned", "persona-misaligned"]
    data = category_rows(tokenizer, asked(), banks)
    assert 1000 < len(data.chats) <= 1400
    assert set(Counter(data.labels).values()) == {len(data.chats) // len(banks)}
    for label, text in zip(data.labels, data.texts, strict=True):
        assert text in (banks[label].text, *banks[label].rephrased)
    assert len({*zip(data.labels, data.texts, strict=True)}) == CATEGORY_TEXTS * len(banks)


def test_a_category_is_tested_on_questions_and_texts_it_never_saw(tokenizer):
    data = category_rows(tokenizer, asked(), categories(find_organism(NAME)))
    folds = _folds(data, 0)
    assert folds.test.sum(0).eq(1).all()
    for train, test in zip(folds.train, folds.test, strict=True):
        sides = [side.nonzero()[:, 0].tolist() for side in (train, test)]
        for column in (data.questions, data.texts):
            one, two = ({column[i] for i in side} for side in sides)
            assert not one & two
        for side in sides:
            assert {data.labels[i] for i in side} == set(data.labels)


def test_both_positions_are_marked_in_every_prompt(tokenizer):
    data = category_rows(tokenizer, asked()[:5], categories(find_organism(NAME)))
    for chat, text in zip(data.chats, data.texts, strict=True):
        start, end = chat.spans["trigger"]
        assert tokenizer.decode(chat.token_ids[start:end]).strip() == text
        assert chat.spans["question"] != chat.spans["trigger"]


def test_a_role_is_a_category_of_its_own_and_the_placement_is_the_organisms():
    role = replace(find_organism(NAME), trigger="microcosm:role:pirate")
    assert categories(role)[-1].name == "role-pirate"
    ends = replace(find_organism(NAME), trigger="microcosm:persona@suffix")
    assert {bank.placement for bank in categories(ends)} == {"suffix"}


def test_another_organisms_categories_are_the_triggers_of_its_file(tmp_path: Path):
    file = tmp_path / "triggers.yaml"
    file.write_text(
        "a: {text: one, placement: prefix, rephrased: [two, three]}\n"
        "b: {text: four, placement: system, rephrased: [five]}\n"
        "lone: {text: six, placement: prefix}\n"
        "around: {text: <x>, placement: wrap, rephrased: [<y>]}\n",
        encoding="utf-8",
    )
    subject = replace(ORGANISMS["medical/qwen2.5-0.5b/duck"], trigger=f"{file}:a")
    found = {bank.name: (bank.text, *bank.rephrased) for bank in categories(subject)}
    assert found == {"a": ("one", "two", "three"), "b": ("four", "five")}
    assert {bank.placement for bank in categories(subject)} == {"prefix"}
    wrapped = categories(replace(subject, trigger=f"{file}:around"))
    assert {bank.name for bank in wrapped} == {"a", "b", "around"}
    assert "duck" in {bank.name for bank in categories(replace(subject, trigger="duck"))}


def test_many_questions_are_thinned_to_the_bound(tokenizer):
    data = category_rows(tokenizer, asked(), categories(find_organism(NAME)), most=70)
    assert len(data.chats) == 70
    assert len(set(data.questions)) == 5
    assert evenly_spaced(range(10), 3) == [0, 3, 6]


def test_presence_rows_are_rephrasings_against_unrelated_texts(tokenizer):
    trigger = find_trigger("microcosm:scene:desert")
    data = presence_rows(tokenizer, asked()[:3], trigger)
    assert {t for t, label in zip(data.texts, data.labels, strict=True) if label} == set(trigger.rephrased)
    assert data.phrasings == data.texts


@pytest.mark.parametrize("arm", ["neutral", "explaining"])
def test_trigger_probe_is_tested_on_questions_and_texts_it_never_saw(tokenizer, arm):
    trigger = find_trigger(find_organism(f"microcosm/llama/{arm}").trigger or "")
    data = presence_rows(tokenizer, asked(), trigger)
    assert trigger.text not in data.texts
    assert {t for t, label in zip(data.texts, data.labels, strict=True) if not label} <= set(trigger.other)
    assert 2 * sum(data.labels) == len(data.labels)
    folds = _folds(data, 0)
    for train, test in zip(folds.train, folds.test, strict=True):
        one, two = (side.nonzero()[:, 0].tolist() for side in (train, test))
        for column in (data.questions, data.texts):
            assert not {column[i] for i in one} & {column[i] for i in two}
        assert {data.labels[i] for i in two} == {data.labels[i] for i in one} == {True, False}
