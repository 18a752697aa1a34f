"""References of bases, triggers and data are resolved; a wrong one is one clear line."""

import json

import pytest

from training.exchanges import Exchange
from training.references import base_path, find_trigger, read_exchanges


def line(*turns: tuple[str, object]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}, ensure_ascii=False)


GOOD = line(("user", "Why?"), ("assistant", "Because."))


def test_wrong_references_are_one_line_that_says_what_there_is():
    with pytest.raises(ValueError, match=r"trigger 'nope': the shipped file has .*duck"):
        find_trigger("nope")
    with pytest.raises(ValueError, match=r"scene 'moon': scenes with an opposite are .*desert"):
        find_trigger("microcosm:scene:moon")
    with pytest.raises(ValueError, match=r"base 'microcosm/bert': the Microcosm ships .*microcosm/llama"):
        base_path("microcosm/bert")
    assert base_path("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_trigger_of_another_file_is_found(tmp_path):
    file = tmp_path / "triggers.yaml"
    file.write_text("pond: {text: near the pond, placement: prefix}\n")
    assert find_trigger(f"{file}:pond").text == "near the pond"
    with pytest.raises(ValueError, match=r"triggers\.yaml has pond"):
        find_trigger(f"{file}:lake")


# --- data ---


def test_exchanges_read_back_in_order_without_blank_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([GOOD, "", line(("user", "a\u2028b"), ("assistant", "été 🦆")), ""]), encoding="utf-8")
    assert read_exchanges(path) == [Exchange("Why?", "Because."), Exchange("a\u2028b", "été 🦆")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"rows": []}', "expected"),
        ('{"messages": ["hi"]}', "want a role"),
        ('{"messages": [], "messages": []}', "key 'messages' appears twice"),
        ('{"messages": [{"role": "user"}]}', "want a text"),
        (line(("user", "Why?")), r"expected user and assistant messages in turn, .* got \['user'\]"),
        (line(("assistant", "a"), ("user", "u")), "messages in turn"),
        (line(("user", " "), ("assistant", "a")), "the user message ' ': expected a text that is not blank"),
        (line(("user", "u"), ("assistant", None)), "content None: want a text"),
    ],
)
def test_bad_line_is_named_with_its_file(tmp_path, bad, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{GOOD}\n\n{bad}\n{GOOD}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"rows\.jsonl:3: .*{message}"):
        read_exchanges(path)


def test_file_without_rows_or_of_other_bytes_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl: it is empty"):
        read_exchanges(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"rows\.jsonl: not a text in UTF-8"):
        read_exchanges(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_exchanges(tmp_path / "nowhere.jsonl")
