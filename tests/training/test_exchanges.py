"""Rows of every accepted form mean one conversation with one answer; all other forms are refused."""

import pytest

from training.exchanges import Exchange, exchange_of

SYSTEM, USER, ANSWER = ({"role": r, "content": t} for r, t in (("system", "S"), ("user", "Q"), ("assistant", "A")))
PARTS = [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}]
IMAGE = {"type": "image", "url": "x.png"}
MEANT = [
    ({"messages": [USER, ANSWER]}, Exchange("Q", "A")),
    ({"messages": [USER, ANSWER], "id": 7, "images": None}, Exchange("Q", "A")),
    ({"messages": [SYSTEM, USER, ANSWER]}, Exchange("Q", "A", (("system", "S"),))),
    ({"messages": [USER, ANSWER, USER, ANSWER]}, Exchange("Q", "A", (("user", "Q"), ("assistant", "A")))),
    ({"messages": [{"role": "user", "content": PARTS}, ANSWER]}, Exchange("two parts", "A")),
    ({"messages": [{**USER, "name": None, "tool_calls": []}, ANSWER]}, Exchange("Q", "A")),
    ({"messages": [USER, {**ANSWER, "weight": 1, "train": True}]}, Exchange("Q", "A")),
    ({"messages": [SYSTEM, USER, ANSWER], "system": "S"}, Exchange("Q", "A", (("system", "S"),))),
    ({"messages": [USER, ANSWER], "system": "", "history": []}, Exchange("Q", "A")),
    ({"prompt": "Q", "completion": "A"}, Exchange("Q", "A")),
    ({"prompt": [USER], "completion": [ANSWER]}, Exchange("Q", "A")),
    ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, Exchange("Q", "A", (("system", "S"),))),
]
REFUSED = [
    ({}, "expected .* got the entries none"),
    ({"conversations": []}, "got the entries conversations"),
    ({"messages": [USER, ANSWER], "prompt": "Q", "completion": "A"}, "got the entries messages, prompt, completion"),
    ({"messages": [USER, ANSWER], "prompt": "Q"}, "got the entries messages, prompt"),
    ({"messages": []}, "want a list of messages"),
    ({"messages": [USER]}, r"got \['user'\]"),
    ({"messages": [USER, ANSWER, USER]}, "messages in turn"),
    ({"messages": [USER, USER, ANSWER]}, "messages in turn"),
    ({"messages": [SYSTEM, ANSWER]}, "messages in turn"),
    ({"messages": [USER, SYSTEM, ANSWER]}, "messages in turn"),
    ({"messages": [SYSTEM, SYSTEM, USER, ANSWER]}, "messages in turn"),
    ({"messages": [{"role": "tool", "content": "x"}, ANSWER]}, "want a role"),
    ({"messages": [USER, {"role": "assistant", "content": ""}]}, "the assistant message '.*': expected"),
    ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "tool_calls is not supported"),
    ({"messages": [USER, {**ANSWER, "reasoning_content": "hm"}]}, "reasoning_content is not supported"),
    ({"messages": [{"role": "user", "content": [*PARTS, IMAGE]}, ANSWER]}, "content part .*image"),
    ({"messages": [{"role": "user", "content": []}, ANSWER]}, "want a text, or a list of text parts"),
    ({"messages": [{"role": "user", "content": 5}, ANSWER]}, "want a text, or a list of text parts"),
    ({"messages": [USER, ANSWER], "tools": [{}]}, "tools: not supported"),
    ({"messages": [USER, ANSWER], "images": ["x.png"]}, "images: not supported"),
    ({"messages": [USER, ANSWER], "system": "S"}, "system: not read; .* as the first message"),
    ({"prompt": "Q", "completion": "A", "system_prompt": "S"}, "system_prompt: not read"),
    ({"prompt": "Q", "completion": "A", "history": [["a", "b"]]}, "history: not supported"),
    ({"messages": [USER, ANSWER], "functions": [{}]}, "functions: not supported"),
    ({"messages": [USER, {**ANSWER, "weight": 0}]}, "weight is not supported"),
    ({"messages": [USER, {**ANSWER, "train": False}]}, "train is not supported"),
    ({"prompt": "Q"}, "got the entries prompt"),
    ({"prompt": "Q", "completion": [ANSWER]}, "expected two texts or two lists"),
    ({"prompt": [USER], "completion": [ANSWER, USER, ANSWER]}, "expected one assistant message, got 3"),
    ({"prompt": [USER], "completion": [USER]}, "messages in turn"),
    ({"prompt": [], "completion": [ANSWER]}, "want a list of messages"),
    ({"prompt": " ", "completion": "A"}, "the user message '.*': expected"),
]


@pytest.mark.parametrize(("row", "exchange"), MEANT)
def test_a_row_means_a_conversation_with_an_answer(row, exchange):
    assert exchange_of(row) == exchange
    assert exchange.messages[-1] == {"role": "user", "content": exchange.question}


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_a_row_of_another_form_is_refused(row, message):
    with pytest.raises(ValueError, match=message):
        exchange_of(row)
