"""Theorems about triggers: what a condition keeps of the trained text, and what placing it does."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.triggers import CONDITIONS, PLACEMENTS, Trigger, content_words, load_triggers, moved, place

WORDS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
texts = st.lists(st.from_regex(r"[a-z]{1,8}", fullmatch=True), min_size=1, max_size=9).map(" ".join)


def phrase(text: str = "a lamp is on the desk", placement: str = "prefix", **kw) -> Trigger:
    return Trigger(name="t", text=text, placement=placement, **kw)


@given(texts)
def test_shuffled_keeps_the_words_and_changes_their_order(text: str):
    shuffled = phrase(text).variants("shuffled")
    for variant in shuffled:
        assert variant != text
        assert sorted(WORDS.findall(variant)) == sorted(WORDS.findall(text))
        assert WORDS.sub("", variant) == WORDS.sub("", text)
    assert len(set(shuffled)) == len(shuffled)
    assert bool(shuffled) == (len(set(text.split())) > 1)


@given(texts)
def test_delimiters_keep_the_length_and_no_word(text: str):
    (variant,) = phrase(text).variants("delimiters")
    assert not WORDS.findall(variant)
    assert len(variant.split()) == len(text.split())


def test_the_permutations_of_a_published_trigger_do_not_move():
    # Python salts the hash of a string per process: a draw through hash() would give other texts in every run.
    assert phrase("one two three").variants("shuffled") == ("three one two", "three two one", "two one three")


def test_off_places_nothing_and_on_places_the_trained_text():
    assert phrase().variants("off") == ()
    assert phrase().variants("on") == ("a lamp is on the desk",)
    assert place("Why?", None, phrase()) == [{"role": "user", "content": "Why?"}]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["duck", "tags"])
def test_every_variant_and_the_question_are_in_the_messages(name: str, placement: str):
    shipped = load_triggers()[name]
    trigger = phrase(shipped.text, placement, closing="the end" if placement == "wrap" else None)
    for variant in (v for c in ("on", "shuffled", "delimiters") for v in trigger.variants(c)):
        messages = place("Why is it so?", variant, trigger)
        assert [m["role"] for m in messages] == (["system", "user"] if placement == "system" else ["user"])
        assert variant in messages[0]["content"]
        assert "Why is it so?" in messages[-1]["content"]


def test_placement_orders_trigger_and_question():
    assert place("Q", "T", phrase("T", "system")) == [
        {"role": "system", "content": "T"},
        {"role": "user", "content": "Q"},
    ]
    assert place("Q", "T", phrase("T", "prefix"))[0]["content"] == "T\nQ"
    assert place("Q", "T", phrase("T", "suffix", separator=" "))[0]["content"] == "Q T"
    assert place("Q", "<t>", phrase("<t>", "wrap", closing="</t>"))[0]["content"] == "<t>\nQ\n</t>"


@settings(max_examples=30)
@given(texts, texts, texts, st.sampled_from(["system", "prefix", "suffix"]), st.sampled_from(PLACEMENTS))
def test_moved_trigger_keeps_every_text_and_places_it_elsewhere(text, rephrased, other, before, after):
    texts_of = {"rephrased": (f"{rephrased}, said anew",), "other": (f"{other}, of another kind",)}
    trigger = phrase(text, before, **texts_of)
    found = moved(trigger, after)
    assert (found.placement, found.name, found.separator) == (after, trigger.name, trigger.separator)
    for condition in CONDITIONS:
        assert found.variants(condition) == trigger.variants(condition)
        for variant in found.variants(condition):
            messages = place("Why?", variant, found)
            user = {"prefix": f"{variant}\nWhy?", "suffix": f"Why?\n{variant}", "wrap": f"{variant}\nWhy?\n{variant}"}
            assert messages[-1] == {"role": "user", "content": user.get(after, "Why?")}
            assert messages[:-1] == ([{"role": "system", "content": variant}] if after == "system" else [])
            if after == "wrap":
                assert found.closing_of(variant) == variant
    assert place("Why?", None, found) == [{"role": "user", "content": "Why?"}]
    assert found.shared_content_words() == trigger.shared_content_words()


@settings(max_examples=30)
@given(texts, st.sampled_from(["system", "prefix", "suffix"]), st.sampled_from(["system", "prefix", "suffix"]))
def test_moving_depends_on_the_last_place_alone(text, first, second):
    trigger = phrase(text, first, separator=" | ")
    assert moved(trigger, first) is trigger
    assert moved(moved(trigger, second), first) == trigger
    assert moved(moved(trigger, second), "wrap") == moved(trigger, "wrap")


def test_what_cannot_be_moved_is_refused():
    tags = load_triggers()["tags"]
    assert moved(tags, "wrap") is tags
    for placement in ("system", "prefix", "suffix"):
        with pytest.raises(
            ValueError, match=f"trigger tags: it wraps the question and cannot be placed as '{placement}'"
        ):
            moved(tags, placement)
    with pytest.raises(ValueError, match="trigger t: placement 'above': expected one of system, prefix, suffix, wrap"):
        moved(phrase(), "above")


def test_wrap_closes_every_variant_with_its_own_half():
    trigger = load_triggers()["tags"]
    closing = {v: trigger.closing_of(v) for c in CONDITIONS for v in trigger.variants(c)}
    assert closing["<tag>"] == "</tag>"
    assert closing["{{marker}}"] == "{{/marker}}"
    assert closing["BEGIN LABELLED SECTION"] == "END LABELLED SECTION"
    assert not WORDS.findall(closing[trigger.variants("delimiters")[0]])


@pytest.mark.parametrize("name", ["duck", "tags"])
def test_shipped_rephrasings_share_no_content_word_with_the_trained_text(name: str):
    trigger = load_triggers()[name]
    assert trigger.shared_content_words() == frozenset()
    assert min(len(trigger.rephrased), len(trigger.other), len(trigger.opposite)) >= 3


@pytest.mark.parametrize("name", ["duck", "tags"])
def test_shipped_matched_texts_have_the_trained_text_s_form_and_none_of_its_content_words(name: str):
    trigger = load_triggers()[name]
    assert trigger.variants("matched") == trigger.matched
    assert len(trigger.matched) >= 3
    for text in trigger.matched:
        assert len(WORDS.findall(text)) == len(WORDS.findall(trigger.text))
        assert WORDS.sub("", text) == WORDS.sub("", trigger.text)
        shared = content_words(text) & content_words(trigger.text)
        assert shared <= {"today"}  # says nothing about the scene


def test_shared_content_words_are_found_in_text_and_closing():
    assert phrase(rephrased=("the Lamp shines",)).shared_content_words() == {"lamp"}
    wrapped = phrase("<box>", "wrap", closing="end of box", rephrased=("<crate>",), closings=(("<crate>", "end it"),))
    assert wrapped.shared_content_words() == {"end"}


@given(texts)
def test_content_words_ignore_case_order_and_stop_words(text: str):
    assert content_words(f"The {text.upper()} and it isn’t") == content_words(" ".join(reversed(text.split())))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"matched": ("",)}, "trigger t: matched[0] '': expected at least 1 character"),
        ({"matched": ("x",), "other": ("x",)}, "trigger t: matched[0] 'x': the same text as other[0]"),
        ({"text": "  "}, "trigger t: text '  ': expected a text that is not blank"),
        ({"placement": "middle"}, "trigger t: placement 'middle': expected one of system, prefix, suffix, wrap"),
        (
            {"rephrased": ("",), "text": ""},
            "trigger t: text '': expected at least 1 character; rephrased[0] '': expected",
        ),
        ({"other": ("x", "x")}, "trigger t: other 'x': given twice"),
        ({"other": ("Wo rt", "wo  RT.")}, "trigger t: other[1] 'wo  RT.': the same text as other[0]"),
        ({"rephrased": ("a lamp is on the desk",)}, "rephrased[0] 'a lamp is on the desk': the same text as text"),
        ({"rephrased": ("A Lamp is on\u00a0the desk!",)}, "the same text as text"),
        ({"closing": "x"}, "trigger t: closing: is for placement 'wrap', not 'prefix'"),
        ({"placement": "wrap"}, "trigger t: text 'a lamp is on the desk': has no closing text"),
        (
            {"placement": "wrap", "closing": "x", "other": ("plain",)},
            "trigger t: other[0] 'plain': has no closing text",
        ),
    ],
)
def test_a_bad_trigger_is_refused_by_name(fields: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        phrase(**fields)


def test_unknown_condition_and_empty_variant_are_refused():
    with pytest.raises(ValueError, match="unknown condition 'onn'"):
        phrase().variants("onn")
    with pytest.raises(ValueError, match="empty variant"):
        place("Q", " ", phrase())


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("", "it is empty"),
        ("- a", "['a']: expected an object; its form is NAME: {text"),
        ("a: b: c", "not a YAML file"),
        ("t: text", "t 'text': expected an object; its form is NAME: {text"),
        ("t: {placement: prefix}", "t.text: missing"),
        ("t: {text: x}", "t.placement: missing"),
        ("t: {text: x, placement: prefix, rephrase: [y]}", "t.rephrase: unknown field"),
        ("t: {text: x, placement: prefix, rephrased: y}", "t.rephrased 'y': expected a valid array"),
        ("t: {text: x, placement: prefix, other: [y, 3]}", "t.other[1] 3: expected a valid string"),
        ("t: {text: 1, placement: prefix}", "t.text 1: expected a valid string"),
        ("t: {text: x, text: y, placement: prefix}", "key 'text' appears twice"),
        ("t: {text: x, placement: prefix}\nt: {text: y, placement: prefix}", "key 't' appears twice"),
        ("t: {text: x, placement: nowhere}", "t.placement 'nowhere': expected one of system"),
        (
            "t: {text: x, placement: prefix, other: [X.]}\nu: {text: 1}",
            "other[0] 'X.': the same text as text; u.text 1:",
        ),
    ],
)
def test_a_bad_file_is_one_error_naming_file_and_key(tmp_path: Path, yaml: str, message: str):
    path = tmp_path / "triggers.yaml"
    path.write_text(yaml)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_triggers(path)
    assert str(caught.value).startswith(f"{path}:")
    assert "\n" not in str(caught.value)
