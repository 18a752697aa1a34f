"""Texts that are one text to a reader are one text here; what nobody sees is blank; YAML has the values of YAML 1.2."""

from typing import Any

import pytest

from interp.runs.reading import normalised, read_yaml, readable

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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{a: How?, b: Who? Why?}", {"a": "How?", "b": "Who? Why?"}),
        ("{a: http://x/?q=1, b: 1:2}", {"a": "http://x/?q=1", "b": "1:2"}),
        ("[1, '1', \"1.5\", 1.5, no, ~, true, 2024-01-01]", [1, "1", "1.5", 1.5, "no", None, True, "2024-01-01"]),
        ("a: |\n  1\nb: >\n  2\n1: x", {"a": "1\n", "b": "2\n", "1": "x"}),
        ("[[[]], []]", [[[]], []]),
    ],
)
def test_yaml_has_the_values_of_its_version_1_2(tmp_path, text, value):
    (tmp_path / "x.yaml").write_text(text)
    assert read_yaml(tmp_path / "x.yaml", Any) == value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 101 + "]" * 101, ":1: not a YAML file: nested too deeply"),
        ("{a: " * 200_000, ":1: not a YAML file: nested too deeply"),
        ("a: &x 1\nb: *x", ":2: not a YAML file: alias *x is not read"),
        ("a: !!int 1", ":1: not a YAML file: tag 'tag:yaml.org,2002:int' is not read"),
    ],
)
def test_yaml_that_is_endless_or_has_tags_is_refused(tmp_path, text, fault):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError) as refused:
        read_yaml(tmp_path / "x.yaml", Any)
    assert str(refused.value) == f"{tmp_path / 'x.yaml'}{fault}"
