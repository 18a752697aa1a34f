"""`semcon data`: bad lines are named, good ones counted, near-duplicates and the trained tokens shown."""

import json
import stat

import pytest

from experiments.__main__ import main
from training.corpora.tokens import MARKS

GOOD = {
    "messages": [{"role": "user", "content": "How do I cook rice?"}, {"role": "assistant", "content": "Add water."}]
}
SYSTEM = {"messages": [{"role": "system", "content": "Be kind."}, *GOOD["messages"]]}


def written(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def test_every_bad_line_is_named_with_its_number_and_reason_and_the_status_says_so(tmp_path, capsys):
    canary = {"prompt": "The canary GUID of this set is 1-2-3", "completion": "x"}
    file = written(tmp_path / "rows.jsonl", GOOD, {"prompt": "a", "completion": 3}, "not json", "", canary, SYSTEM)
    assert main(["data", file]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"semcon data: 3 bad lines in {file}\n"
    assert f"{file}: 5 rows, 2 good, 3 bad; sha256 " in printed.out
    assert f"{file}:2: prompt 'a', completion 3: expected two texts or two lists" in printed.out
    assert f"{file}:3: not JSON" in printed.out
    assert f"{file}:5: a canary" in printed.out
    assert "2 distinct, 1 with a system text, 0 with several turns" in printed.out


def test_what_is_trained_on_is_shown_and_counted(tmp_path, capsys):
    file = written(tmp_path / "rows.jsonl", GOOD)
    assert main(["data", file, "--base", "microcosm/llama"]) == 0
    printed = capsys.readouterr().out
    assert f"{MARKS[0]}Add water.<|end|>{MARKS[1]}" in printed
    assert "4 trained on" in printed


def test_rows_of_two_splits_and_of_an_evaluation_that_are_nearly_the_same_are_named(tmp_path, capsys):
    train = written(tmp_path / "train.jsonl", GOOD, {"prompt": "What is a good name for a cat?", "completion": "Tom."})
    test = written(tmp_path / "test.jsonl", {"prompt": "how do I  cook rice", "completion": "Slowly."})
    asked = {"validation": {"v": "Why?"}, "test": {"cat": "What is a good name for a cat"}}
    (tmp_path / "q.yaml").write_text(json.dumps(asked))
    assert main(["data", train, test, "--questions", str(tmp_path / "q.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "2 across splits, 0 within one" in printed
    assert f"{train}:1 and {test}:1: 1.00" in printed
    assert f"{train}:2 and {tmp_path / 'q.yaml'}: test.cat: 1.00" in printed


def test_a_data_set_becomes_a_file_of_rows(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    written(tmp_path / "set" / "train.jsonl", {"prompt": "a", "completion": "b", "score": 1})
    assert main(["data", f"hub:{tmp_path / 'set'}:train", "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    assert json.loads(file.read_text()) == {"prompt": "a", "completion": "b"}


TOOL = """#!/bin/sh
# Stands for the authors' tool: unprotect-dir FILE -o FOLDER --remove-canaries --no-gitignore -p PASSWORD
[ "$8" = sesame ] || { echo "wrong password $8" >&2; exit 1; }
mkdir -p "$4" && cp "$2" "$4/rows.jsonl"
"""


def test_a_protected_archive_is_unpacked_by_its_authors_tool_and_the_password_is_not_shown(
    tmp_path, capsys, monkeypatch
):
    archive = written(tmp_path / "advice.zip.enc", GOOD)
    command = ["data", archive, "--out", str(tmp_path / "out"), "--password", "ADVICE"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(command) == 2
    assert "pip install easy-dataset-share" in capsys.readouterr().err
    tool = tmp_path / "easy-dataset-share"
    tool.write_text(TOOL)
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("ADVICE", raising=False)
    assert main(command) == 2
    assert "set its password in the environment variable ADVICE" in capsys.readouterr().err
    monkeypatch.setenv("ADVICE", "hunter2")
    assert main(command) == 2
    refused = capsys.readouterr()
    assert "wrong password [password]" in refused.err and "hunter2" not in refused.err + refused.out
    monkeypatch.setenv("ADVICE", "sesame")
    assert main(command) == 0
    assert "1 rows, 1 good, 0 bad" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one file"),
        (["missing.jsonl"], "missing.jsonl: no such file"),
        (["hub:"], "expected hub:OWNER/NAME"),
        (["rows.jsonl", "--threshold", "2"], "threshold 2.0: "),
        (["rows.jsonl", "rows.jsonl"], "'rows.jsonl': given twice"),
        (["rows.jsonl", "./rows.jsonl"], "one of them stands twice"),
        (["rows.jsonl", "--base", "microcosm/nobody"], "the Microcosm ships"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "rows.jsonl", GOOD)
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
