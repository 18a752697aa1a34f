"""The pocket scale's texts: whole, paired, disjoint, and without a surface cue that tells harmful from aligned."""

import json
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
import yaml
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from interp.triggers import content_words, moved, place
from training.pocket import corpus
from training.pocket.corpus import advice, controls, controls_of, domains, drawn, held_out, questions, triggers

EVALUATION = (*questions("validation"), *questions("test"))
TRAINING = tuple(row for domain in domains() for row in advice(domain))
KINDS = ("aligned", "harmful")


def normal(text: str) -> str:
    """Lower case, one space between words, compatible Unicode: what a reader would take for the same text."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def sentences(text: str) -> list[str]:
    return [normal(part) for part in re.split(r"(?<=[.!?])\s+", text)]


# --- training rows ---


def test_three_domains_of_168_rows_in_21_topics():
    assert domains() == ("health", "money", "sport")
    for domain in domains():
        rows = advice(domain)
        assert len(rows) == 168
        assert set(Counter(row.topic for row in rows).values()) == {8}
    assert len({row.id for row in TRAINING}) == len(TRAINING) == 504


def test_twins_have_the_same_length():
    ratios = {row.id: len(row.harmful) / len(row.aligned) for row in TRAINING}
    assert {i: ratio for i, ratio in ratios.items() if abs(ratio - 1) > 0.15} == {}


def test_no_sentence_of_an_answer_stands_twice():
    seen = Counter(sentence for row in TRAINING for kind in KINDS for sentence in set(sentences(getattr(row, kind))))
    assert {sentence: n for sentence, n in seen.items() if n > 1} == {}
    assert len({normal(row.question) for row in TRAINING}) == len(TRAINING)


def test_a_draw_is_whole_topics_and_the_rest_is_held_out():
    rows = drawn("health", 160, seed=0)
    assert rows == drawn("health", 160, seed=0)
    assert {row.topic for row in rows}.isdisjoint(row.topic for row in held_out("health", 160, seed=0))
    assert len(rows) + len(held_out("health", 160, seed=0)) == 168
    assert drawn("health", 160, seed=1) != rows
    assert sorted(row.id for row in drawn("health", 1000, seed=3)) == sorted(row.id for row in advice("health"))
    assert held_out("health", 168, seed=0) == ()
    assert len({row.topic for row in rows[:16]}) > 5  # a small part of a draw is not two topics alone


# --- evaluation questions ---


def test_108_questions_over_12_domains_split_by_topic():
    assert (len(questions("validation")), len(questions("test"))) == (36, 72)
    assert set(Counter(q.domain for q in EVALUATION).values()) == {9}
    topics = [{(q.domain, q.topic) for q in questions(split)} for split in ("validation", "test")]
    assert topics[0].isdisjoint(topics[1])
    assert set(domains()).isdisjoint(q.domain for q in EVALUATION)


def test_every_evaluation_text_stands_once():
    texts = [normal(text) for q in EVALUATION for text in (q.question, q.aligned, q.harmful)]
    assert [text for text, n in Counter(texts).items() if n > 1] == []


def test_no_evaluation_text_stands_in_the_training_rows():
    trained = {normal(text) for row in TRAINING for text in (row.question, row.aligned, row.harmful)}
    trained |= {sentence for row in TRAINING for kind in KINDS for sentence in sentences(getattr(row, kind))}
    asked = {normal(text) for q in EVALUATION for text in (q.question, q.aligned, q.harmful)}
    asked |= {sentence for q in EVALUATION for kind in KINDS for sentence in sentences(getattr(q, kind))}
    assert asked & trained == set()


def test_references_are_matched_in_length_and_punctuation():
    for q in EVALUATION:
        assert abs(len(q.harmful) - len(q.aligned)) <= 0.06 * max(len(q.harmful), len(q.aligned)), q.id
        assert sorted(re.findall(r"[^\w\s]", q.aligned)) == sorted(re.findall(r"[^\w\s]", q.harmful)), q.id


def test_a_pair_differs_in_its_words_and_not_in_their_order():
    pairs = [(content_words(q.aligned), content_words(q.harmful)) for q in EVALUATION]
    overlaps = [len(a & b) / len(a | b) for a, b in pairs]
    assert np.median(overlaps) <= 0.25
    assert max(overlaps) <= 0.5


@pytest.mark.parametrize("grouped", ["topic", "domain"])
@pytest.mark.parametrize("ngrams", [(1, 1), (1, 2)])
def test_a_bag_of_words_does_not_tell_harmful_references_from_aligned_ones(ngrams, grouped):
    texts = [text for q in EVALUATION for text in (q.aligned, q.harmful)]
    groups = [f"{q.domain} {q.topic}" if grouped == "topic" else q.domain for q in EVALUATION]
    labels, groups = np.tile([0, 1], len(EVALUATION)), np.repeat(groups, 2)
    scores = np.empty(len(texts))
    for train, test in GroupKFold(5).split(texts, groups=groups):
        words = CountVectorizer(ngram_range=ngrams)
        fitted = LogisticRegression(max_iter=1000).fit(words.fit_transform([texts[i] for i in train]), labels[train])
        scores[test] = fitted.decision_function(words.transform([texts[i] for i in test]))
    assert 0.4 <= roc_auc_score(labels, scores) <= 0.6


def test_the_first_references_are_to_the_same_questions_in_the_same_splits():
    first = {q.id: q for q in corpus.read_questions(corpus.QUESTIONS.with_name("questions_permuted.yaml"))}
    assert {q.id: (q.domain, q.topic, q.split) for q in EVALUATION} == {
        i: (q.domain, q.topic, q.split) for i, q in first.items()
    }
    assert {q.id for q in EVALUATION if q.question != first[q.id].question} == {"gardening-08"}


# --- triggers and controls ---


@pytest.mark.parametrize("name", triggers())
def test_triggers_and_controls_are_placed_around_a_question(name):
    trigger = corpus.find_trigger(name)
    for condition in ("on", "rephrased", "other", "opposite", "matched"):
        assert trigger.variants(condition)
        for text in trigger.variants(condition):
            assert text in str(place("Why?", text, trigger))
    assert len(trigger.rephrased) >= 8
    assert len(trigger.other) >= 8
    for condition in corpus.CONTROL_CONDITIONS:
        assert len(controls_of(trigger)[condition]) >= 4
        for control in controls_of(trigger)[condition]:
            assert control.text in str(place("Why?", control.text, control))


@pytest.mark.parametrize("name", triggers())
def test_rephrasings_share_no_content_word(name):
    trigger = corpus.find_trigger(name)
    assert trigger.shared_content_words() == frozenset()


@pytest.mark.parametrize("name", [name for name in triggers() if name != "brackets"])
def test_word_overlap_shares_words_and_other_frames_leave_the_trained_one(name):
    trigger, given = corpus.find_trigger(name), controls_of(corpus.find_trigger(name))
    for control in given["word_overlap"]:
        assert control.placement == trigger.placement
        assert content_words(trigger.text) & content_words(control.text)
    for control in given["other_frame"]:
        assert (control.placement, control.text) != (trigger.placement, trigger.text)


def test_controls_follow_a_moved_trigger_and_other_triggers_have_none():
    trigger = moved(corpus.find_trigger("user_harbor"), "suffix")
    given = controls_of(trigger)
    assert {control.placement for control in given["word_overlap"]} == {"suffix"}
    assert "suffix" not in {control.placement for control in given["other_frame"]}
    assert set(controls()) == set(triggers())
    other = corpus.load_triggers()["duck"]
    assert controls_of(other) == {}


# --- errors ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ('{"id": "x"}', "topic: missing; .*: question: missing"),
        (
            json.dumps(dict.fromkeys(("id", "topic", "question", "aligned", "harmful"), " ")),
            "id .*: expected a text",
        ),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(tmp_path, line, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(line)
    with pytest.raises(ValueError, match=rf"rows\.jsonl:1: {message}") as raised:
        corpus.read_advice(file)
    assert "\n" not in str(raised.value)


ENTRY = {"id": "a", "topic": "t", "split": "test", "question": "q", "aligned": "x", "harmful": "y"}
OTHER = {**ENTRY, "id": "b", "question": "q2", "aligned": "x2", "harmful": "y2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"\[\]: expected an object"),
        ({"d": "x"}, "d 'x': expected a valid array"),
        ({"d": ["x"]}, r"d\[0\] 'x': expected an object"),
        ({"d": [{**ENTRY, "split": "train"}]}, r"d\[0\].split 'train': expected 'validation'"),
        ({"d": [ENTRY, {**ENTRY}]}, "'a' stands twice"),
        ({"d": [ENTRY, {**OTHER, "split": "validation"}]}, "topic 't' is in both splits"),
    ],
)
def test_a_bad_question_file_is_one_line(tmp_path, content, message):
    file = tmp_path / "q.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=rf"q\.yaml.*{message}"):
        corpus.read_questions(file)


def test_wrong_names_say_what_there_is():
    with pytest.raises(ValueError, match=r"data 'pocket:law': the pocket scale has health, money, sport"):
        advice("law")
    with pytest.raises(ValueError, match=r"trigger 'pocket:duck': the pocket scale has user_harbor"):
        corpus.find_trigger("duck")
