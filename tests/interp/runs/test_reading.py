"""Texts that are one text to a reader are one text here; texts that nobody sees are blank."""

import pytest

from interp.runs.reading import normalised, readable

SAME = [
    "How do I run?",
    " how  do I\u00a0run ",
    "HOW DO I RUN?!…",
    "Ｈow do I run？",
    "How do I r\u200bun?",
    "How do I r\u00adun\u2060?",
    "\u202eHow do I run?\ufeff",
    "How do I run\ufe0f?",
    '"How do I run?"',
    "“How do I run”",
    "«How do I run?»",
]


@pytest.mark.parametrize("text", SAME)
def test_what_a_reader_does_not_see_makes_no_other_text(text):
    assert normalised(text) == "how do i run"


@pytest.mark.parametrize(
    "pair", [("Café", "Cafe"), ("I don't", "I do not"), ('"""', "***"), ("a b", "ab"), ("C++", "C")]
)
def test_what_a_reader_sees_makes_another_text(pair):
    assert normalised(pair[0]) != normalised(pair[1])


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\u00ad \u2060", "\ufeff", "\u3164"])
def test_a_text_that_nobody_sees_is_blank(text):
    with pytest.raises(ValueError, match="not blank"):
        readable(text)
