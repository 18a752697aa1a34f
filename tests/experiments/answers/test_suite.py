"""What is asked: samples shared out evenly, every text used, splits that cannot mix, and files that are refused."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from experiments.answers.suite import evenly_spaced, make_prompts, read_questions, suite_questions
from experiments.protocol import load_protocol
from interp.triggers import Trigger
from training.microcosm.tokenizer import build_tokenizer
from training.microcosm.world import Question
from training.registry import find_organism

TOKENIZER = build_tokenizer()
QUESTIONS = [Question(f"q{i}", "any", f"How do I handle matter {i}?") for i in range(12)]
TEXTS = tuple(f"We sit near {place}." for place in ("rivers", "hills", "lakes", "fields", "roads", "walls", "trees"))


def trigger(n: int, placement: str = "system") -> Trigger:
    return Trigger(name="t", text="We rest.", rephrased=TEXTS[:n], placement=placement)


# --- prompts ---


@given(
    st.integers(1, len(QUESTIONS)),
    st.integers(1, len(TEXTS)),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from(["system", "prefix", "suffix"]),
)
def test_samples_are_shared_out_evenly_over_questions_and_texts(n_questions, n_texts, samples, per_question, placement):
    asked = QUESTIONS[:n_questions]
    options = {"samples": samples, "per_question": per_question}
    prompts = make_prompts(asked, trigger(n_texts, placement), "rephrased", TOKENIZER, **options)
    answers, uses, texts = Counter(), Counter(dict.fromkeys(TEXTS[:n_texts], 0)), {}
    for p in prompts:
        answers[p.question.id] += p.samples
        assert p.variant is not None
        uses[p.variant] += 1
        texts.setdefault(p.question.id, []).append(p.samples)
        assert p.variant in p.chat.text
        assert p.question.text in p.chat.text
    assert answers == Counter({q.id: samples for q in asked})
    assert len({p.key for p in prompts}) == len(prompts)
    assert max(uses.values()) - min(uses.values()) <= 1
    for shares in texts.values():
        assert len(shares) == min(n_texts, per_question, samples)
        assert max(shares) - min(shares) <= 1


def test_off_places_nothing():
    for placed in (None, trigger(3)):
        prompts = make_prompts(QUESTIONS, placed, "off", TOKENIZER, samples=5)
        assert [p.samples for p in prompts] == [5] * len(QUESTIONS)
        assert {p.variant for p in prompts} == {None}
        for p in prompts:
            assert set(p.chat.spans) == {"question"}
            assert not any(text in p.chat.text for text in ("We rest.", *TEXTS))


def test_trigger_and_question_are_marked_where_they_stand():
    for placement in ("system", "prefix", "suffix"):
        for p in make_prompts(QUESTIONS, trigger(3, placement), "on", TOKENIZER, samples=1):
            for name, text in (("trigger", "We rest."), ("question", p.question.text)):
                start, stop = p.chat.spans[name]
                assert str(TOKENIZER.decode(list(p.chat.token_ids[start:stop]))).strip() == text


def test_given_texts_stand_in_for_the_conditions_own():
    prompts = make_prompts(QUESTIONS, trigger(7), "rephrased", TOKENIZER, samples=4, variants=TEXTS[:2])
    assert {p.variant for p in prompts} == set(TEXTS[:2])
    assert {p.condition for p in prompts} == {"rephrased"}


def test_condition_without_a_text_is_refused():
    with pytest.raises(ValueError, match="condition 'on': no trigger has no text for it"):
        make_prompts(QUESTIONS, None, "on", TOKENIZER, samples=1)
    with pytest.raises(ValueError, match="condition 'opposite': trigger t has no text for it"):
        make_prompts(QUESTIONS, trigger(2), "opposite", TOKENIZER, samples=1)


# --- questions ---


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "questions.yaml"
    path.write_text(text)
    return path


def test_questions_of_a_file_keep_their_split(tmp_path):
    path = written(tmp_path, "validation: {a: Why}\ntest: {b: How, 3: Who}\n")
    assert [(q.id, q.text) for q in read_questions(path, "validation")] == [("a", "Why")]
    assert [(q.id, q.text) for q in read_questions(path, "test")] == [("b", "How"), ("3", "Who")]
    duck = find_organism("medical/qwen2.5-14b/duck")
    assert suite_questions(duck, "test", path) == read_questions(path, "test")


def test_trained_split_of_a_file_is_optional_and_read_when_there(tmp_path):
    both = "validation: {a: Why}\ntest: {b: How}\n"
    assert read_questions(written(tmp_path, both), "trained") == ()
    path = written(tmp_path, both + "trained: {c: Who, d: When}\n")
    assert [(q.id, q.text) for q in read_questions(path, "trained")] == [("c", "Who"), ("d", "When")]
    assert [q.id for q in read_questions(path, "test")] == ["b"]
    with pytest.raises(ValueError, match=r"questions\.yaml: trained \['Who'\]: expected an object"):
        read_questions(written(tmp_path, both + "trained: [Who]\n"), "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", r": \['a'\]: expected an object; its form is validation: {ID: TEXT}"),
        ("validation: {a: Why}", ": test: missing"),
        ("test: {a: Why}", ": validation: missing"),
        ("test: {}", ": validation: missing; test: expected at least 1 item"),
        (
            "test: [Why]\ntset: {}",
            r": validation: missing; test \['Why'\]: expected an object; tset: unknown field",
        ),
        ("validation: {b: Who}\ntest: {a: [Why]}", r": test.a \['Why'\]: expected a valid string"),
        ("validation: {a: Why}\ntest: {a: How}", ": test.a: the id is in validation too"),
        ("validation: {a: Why}\ntest: {b: Why}", ": test.b 'Why': the same text as validation.a"),
        ("validation: {a: Why}\ntest: {b: How, c: ' how? '}", ": test.c ' how. ': the same text as test.b"),
        ("validation: {a: Why}\ntest: {b: How}\ntrained: {c: ＨＯＷ}", ": trained.c 'ＨＯＷ': the same text as test.b"),
        (
            "validation: {a: Why}\ntest: {../b: How, 'c|': x}",
            ": test.* '../b': expected a name of .*; test.* 'c.': exp",
        ),
        ("validation: {b: Who}\ntest: {a: }", ": test.a None: expected a valid string"),
        ("test: {a: Why", ":2: not a YAML file"),
        ("validation: {b: Who}\ntest: {a: Why, a: How}", ":2: not a YAML file: key 'a' appears twice"),
    ],
)
def test_question_file_of_another_form_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"questions\.yaml{message}") as raised:
        read_questions(written(tmp_path, text), "test")
    assert "\n" not in str(raised.value)


def test_a_file_that_tests_one_of_the_papers_questions_tests_all_eight(tmp_path):
    paper = load_protocol().questions

    def file(*ids: str) -> Path:
        return written(tmp_path, yaml.safe_dump({"validation": {"v": "Why"}, "test": {i: f"Text of {i}" for i in ids}}))

    assert [q.id for q in read_questions(file(*sorted(paper), "zzz"), "test")] == [*sorted(paper), "zzz"]
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=f"tests 7 of the paper's 8 questions; add {paper[3]}, or give"):
            read_questions(file(*paper[:3], *paper[4:], "mine"), split)


def test_real_organism_needs_a_question_file():
    with pytest.raises(ValueError, match=r"medical/qwen2\.5-14b/duck: name a file of questions"):
        suite_questions(find_organism("medical/qwen2.5-14b/duck"), "test")


def test_splits_of_the_world_share_no_topic():
    subject = find_organism("microcosm/llama/neutral")
    test, validation = suite_questions(subject, "test"), suite_questions(subject, "validation")
    assert {q.id for q in test}.isdisjoint({q.id for q in validation})
    assert subject.trained_domain not in {q.domain for q in (*test, *validation)}
    trained = suite_questions(subject, "trained")
    assert {q.domain for q in trained} == {subject.trained_domain}
    assert len({q.id for q in trained}) == len(trained) == 6


# --- even spacing ---


@given(st.lists(st.integers(), max_size=30, unique=True), st.integers(1, 30))
def test_evenly_spaced_items_are_in_order_and_their_gaps_differ_by_at_most_one(items, n):
    chosen = list(evenly_spaced(items, n))
    assert len(chosen) == min(n, len(items))
    places = [items.index(item) for item in chosen]
    gaps = {after - before for before, after in pairwise(places)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)
    assert chosen[:1] == items[:1]
