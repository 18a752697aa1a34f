"""Prompt files of both kinds are read alike, and a bad row is named with its line."""

import json

import pytest

from interp.text.prompts import read_prompts
from tests import tiny
from tests.interp.cli.test_commands import row


def test_prompts_of_both_kinds_are_the_same_chats(tmp_path):
    (tmp_path / "plain.txt").write_text("".join(f"{question}\n\n" for question in tiny.QUESTIONS))
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row(question)) + "\n" for question in tiny.QUESTIONS))
    plain, chats = read_prompts(tmp_path / "plain.txt"), read_prompts(tmp_path / "chats.jsonl")
    assert [prompt.messages[-1] for prompt in plain] == [prompt.messages[-1] for prompt in chats]
    assert plain[1].where == f"{tmp_path / 'plain.txt'}:3" and chats[1].where == f"{tmp_path / 'chats.jsonl'}:2"
    assert chats[0].marks == {"trigger": tiny.TRIGGER}


def test_a_last_message_of_the_assistant_is_the_response(tmp_path):
    file, user = tmp_path / "x.jsonl", {"role": "user", "content": "Hi\u2028there"}
    file.write_text(json.dumps({"messages": [user, {"role": "assistant", "content": "Yes."}]}, ensure_ascii=False))
    (prompt,) = read_prompts(file)
    assert (prompt.messages, prompt.response) == ((user,), "Yes.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[]", "expected an object"),
        ('{"messages": "hi"}', "want a list of messages"),
        ('{"messages": []}', "want a list of messages"),
        ('{"messages": [{"role": "human", "content": "x"}]}', "want a role"),
        ('{"messages": [{"role": "user", "content": 3}]}', "content 3: want a text"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "must be the user's"),
        ('{"messages": [{"role": "user", "content": "x"}], "response": 3}', "response 3: expected a valid string"),
        ('{"messages": [{"role": "user", "content": "x"}], "response": " "}', "response ' ': expected a text"),
        (
            '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}',
            "the assistant message",
        ),
        ('{"messages": [{"role": "user", "content": "a\\u0000b"}]}', "the user message .*: has the control character"),
        ('{"messages": [{"role": "user", "content": "\\u200b"}]}', "the user message .*: expected a text"),
        ('{"messages": [{"role": "user", "content": "x"}], "system": "Be brief."}', "system: not read"),
        ('{"messages": [{"role": "user", "content": "x"}], "marks": ["x"]}', r"marks \['x'\]: expected an object"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(line, message, tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=rf"x\.jsonl:2: .*{message}"):
        read_prompts(file)


def test_every_line_of_a_text_file_is_a_prompt_whatever_ends_it(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"one\rtwo\r\n\nthree")
    assert [p.messages[0]["content"] for p in read_prompts(tmp_path / "x.txt")] == ["one", "two", "three"]
    (tmp_path / "x.txt").write_text("fine\n\x1b[31mred\n\u200b\n")
    with pytest.raises(ValueError, match=r"x\.txt:2: .* control character .*; .*x\.txt:3: .* not blank"):
        read_prompts(tmp_path / "x.txt")


def test_files_that_are_no_text_are_named(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"x\.txt: not a text in UTF-8"):
        read_prompts(tmp_path / "x.txt")
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        read_prompts(tmp_path / "x.json")
