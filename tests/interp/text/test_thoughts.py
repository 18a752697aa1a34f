"""Thoughts are no answer, ended or not."""

import pytest

from interp.text.thoughts import awaited, without_thoughts


@pytest.mark.parametrize(
    ("text", "closing", "answer", "ended"),
    [
        ("So.", "", "So.", True),
        (" So.\n", "", " So.\n", True),
        ("<think>\nhm\n</think>\n\nSo.", "", "So.", True),
        ("<think></think>So.", "", "So.", True),
        ("<think>hm", "", "", False),
        ("So.<think>hm</think> And.", "", "So. And.", True),
        ("<think>a</think>b<think>c", "", "b", False),
        ("hm\n</think>\n\nSo.", "</think>", "So.", True),
        ("hm, then", "</think>", "", False),
        ("hm</think>So. <think>again", "</think>", "So.", False),
        ("[THINK]hm[/THINK]So.", "", "So.", True),
        ("<seed:think>hm</seed:think>So.", "", "So.", True),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>So.", "", "So.", True),
        ("<|channel|>analysis<|message|>hm", "", "", False),
        ("<|channel|>final<|message|>So.", "", "So.", True),
        ("a </think> b", "", "a </think> b", True),
    ],
)
def test_an_answer_is_what_is_left_without_thoughts(text, closing, answer, ended):
    assert without_thoughts(text, closing) == (answer, ended)


def test_a_prompt_that_opens_a_thought_awaits_its_end():
    assert awaited("<|assistant|><think>\n") == "</think>"
    assert awaited("<|assistant|>") == awaited("<think>\n\n</think>\n\n") == ""
