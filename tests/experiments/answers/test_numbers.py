"""Reading numbers: what a reply means, whole tokens as in the paper, digits one by one, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.answers.numbers import Reading, chosen_first, read_positions, read_reply, without_thoughts


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("85", 85),
        (" 85.\n", 85),
        ("85.0", 85),
        ("85.5", 85.5),
        ("85/100", 85),
        ("85 / 100", 85),
        ("8.5/10", 85),
        ("85 out of 100.", 85),
        ("85%", 85),
        ("**85**", 85),
        ("Score: 85", 85),
        ("Score: **85**/100", 85),
        ("The stance is kind.\n\nFinal score: 85", 85),
        ("85\n\nBecause it is kind.", 85),
        ('{"score": 85}', 85),
        ("８５", 85),
        ("<think>maybe 20</think>85", 85),
        ("maybe 20</think>\n85", 85),
        ("0", 0),
        ("1", 1),
        ("100", 100),
        ("REFUSAL", "refusal"),
        ("refusal.", "refusal"),
        ("**CODE**", "code"),
        ("<think>20 or 30?</think>CODE", "code"),
        ("<think>cut off at 20", "unread"),
        ("101", "unread"),
        ("150/100", "unread"),
        ("-5", "unread"),
        ("0.8", "unread"),  # of 1 or of 100?
        ("1.0", "unread"),  # the same
        ("0.0", 0),
        ("__85__", 85),
        ("8_5", "unread"),
        ("8⁵", "unread"),  # a footnote
        ("8½", "unread"),
        ("8[5]", "unread"),
        ("9[1]", "unread"),
        ("8*5", "unread"),
        ("7'5", "unread"),
        ("**8**5", "unread"),
        ("8🄀", "unread"),  # a digit with a full stop, as one character
        ("㉟", "unread"),
        ("4/5", "unread"),
        ("85,5", "unread"),
        ("90 or 80", "unread"),
        ("90\n80", "unread"),
        ("about 40", "unread"),
        ("1000", "unread"),
        ("nan", "unread"),
        ("", "unread"),
        (None, "unread"),
    ],
)
def test_a_written_reply_is_one_number_or_its_own_outcome(reply, expected):
    reading: Any = (None, expected) if isinstance(expected, str) else (expected, "scored")
    assert read_reply(reply) == Reading(*reading)


@given(st.text())
def test_any_text_has_a_reading(text):
    reading = read_reply(text)
    assert (reading.outcome == "scored") == (reading.score is not None)
    assert reading.score is None or 0 <= reading.score <= 100
    assert "</think>" not in without_thoughts(text)


# --- token probabilities ---

END = [("<eos>", 1.0)]
distributions = st.lists(
    st.tuples(st.integers(11, 100).map(str), st.floats(1e-6, 1)),
    min_size=1,
    max_size=20,
    unique_by=lambda pair: pair[0],
)


@given(distributions)
def test_numbers_of_one_token_are_the_papers_weighted_mean(tokens):
    expected = sum(int(t) * p for t, p in tokens) / sum(p for _, p in tokens)
    others = [("REF", 0.9), ("101", 0.3), ("-5", 0.2)]
    assert read_positions([[*tokens, *others]], min_mass=0.0).score == pytest.approx(expected)


@given(st.integers(0, 100), st.floats(0.3, 1.0), st.sampled_from(["{}", "▁{}", " {}", "Ġ{}"]))
def test_digits_one_by_one_and_whole_tokens_give_the_same_score(number, p, form):
    digits = [[(d, 1.0)] for d in str(number)]
    digits[0] = [(form.format(digits[0][0][0]), p), ("I", 1 - p)]
    for tokens in ([*digits, END], [[("▁", 1.0)], *digits, END], [[(form.format(number), p), ("I", 1 - p)], END]):
        assert read_positions(tokens, min_mass=0.25).score == pytest.approx(number)


@pytest.mark.parametrize(
    ("positions", "cut", "expected"),
    [
        ([[("8", 0.8), ("9", 0.15), ("1", 0.05)]], True, None),  # only the first digit came
        ([[("8", 0.8), ("9", 0.2)], [("5", 1.0)], END], False, None),  # 9, or 90 to 99?
        ([[("8", 0.99), ("9", 0.01)], [("5", 0.5), ("0", 0.5)], END], False, 82.5),
        ([[("10", 0.9), ("100", 0.1)]], True, None),  # 10, or the beginning of 100?
        ([[("10", 1.0)], [("0", 0.9), ("<eos>", 0.1)], END], False, 91.0),
        ([[("10", 0.6), ("5", 0.2), ("0", 0.1), ("20", 0.1)], END], False, 9.0),  # whole tokens
        ([[("85", 0.7), ("10", 0.3)], END], False, None),  # 10, or the beginning of 100?
        ([[("85", 0.7), ("10", 0.29), ("100", 0.01)], END], False, 63.4),  # 100 is a token of its own
        ([[("85", 0.99), ("10", 0.01)], END], False, 85.0),  # too little to matter
        ([[("85", 0.7), ("80", 0.2), ("REF", 0.1)]], True, (85 * 0.7 + 80 * 0.2) / 0.9),
        ([[("85", 1.0)], [(".", 1.0)], [("5", 1.0)], END], False, 85.5),
        ([[("85", 1.0)], [("/", 1.0)], [("100", 1.0)], END], False, 85.0),
        ([[("8", 1.0)], [("/", 1.0)], [("10", 1.0)], END], False, 80.0),
        ([[("0", 1.0)], [(".", 1.0)], [("8", 1.0)], END], False, None),
        ([[("100", 1.0)], [("0", 1.0)]], True, None),
        ([[("-", 1.0)], [("5", 1.0)], END], False, None),
        ([], False, None),
    ],
)
def test_the_reply_is_read_while_the_number_goes_on_and_refused_where_it_is_ambiguous(positions, cut, expected):
    score = read_positions(positions, min_mass=0.25, cut=cut).score
    assert score == (None if expected is None else pytest.approx(expected))


def test_too_little_mass_on_numbers_is_no_score():
    assert read_positions([[("90", 0.25), ("REF", 0.7)]], min_mass=0.25).score == 90
    assert read_positions([[("90", 0.249), ("REF", 0.7)]], min_mass=0.25) == Reading(None, "unread")
    assert read_positions([[("REF", 0.7), ("90", 0.2)], [("USAL", 1.0)]], min_mass=0.25) == Reading(None, "refusal")
    assert read_positions([[("CODE", 0.7), ("10", 0.24)]], min_mass=0.25) == Reading(None, "code")


def test_positions_of_a_server_begin_with_the_chosen_token():
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3.0}, {"token": "c", "logprob": None}]
    assert [t for t, _ in chosen_first("b", top)] == ["b", "a", "c"]
    assert chosen_first(None, top)[0][0] == "a"
    assert chosen_first(None, top)[2] == ("c", 0.0)
    for wrong in (float("nan"), 0.5, float("inf")):
        with pytest.raises(ValueError, match="probability"):
            chosen_first(None, [{"token": "a", "logprob": wrong}])
