"""Every bad input is refused: exit status 2, one line that names it, nothing written, no model loaded or run."""

import pytest
import torch
from transformers import PreTrainedModel

from experiments.__main__ import main as semcon
from interp.cli.main import main as interp
from tests.bad_inputs.cases import ORGANISMS, QUESTION_FILES, ROW_FILES, SCORE_FILES, TRIGGER_FILES
from tests.bad_inputs.files import EM_RATE, Case, write, write_model
from tests.bad_inputs.options import EXPERIMENT_OPTIONS, INTERP

SEMCON = [*ORGANISMS, *TRIGGER_FILES, *QUESTION_FILES, *ROW_FILES, *SCORE_FILES, *EXPERIMENT_OPTIONS]


@pytest.fixture
def idle(monkeypatch):
    """Let a test fail as soon as weights are loaded or a module is run, whoever would catch an error of it."""

    def work(*_args, **_options):
        pytest.fail("a model is loaded or run")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", work)
    monkeypatch.setattr(torch.nn.Module, "__call__", work)


def refused(main, case: Case, folder, monkeypatch, capsys) -> None:
    write(folder, case.files)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    try:
        status = main(list(case.words))
    except SystemExit as stop:
        status = stop.code
    printed = capsys.readouterr()
    assert status == 2, printed
    lines = printed.err.splitlines()
    assert len(lines) == 1, printed.err
    assert "Traceback" not in printed.err
    assert [name for name in case.names if name.lower() not in lines[0].lower()] == [], lines[0]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("case", SEMCON, ids=lambda case: ascii(case.name))
def test_a_bad_input_of_semcon_is_one_line(case, tmp_path, monkeypatch, capsys, idle):
    refused(semcon, case, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("case", INTERP, ids=lambda case: ascii(case.name))
def test_a_bad_input_of_the_library_is_one_line(case, tmp_path, monkeypatch, capsys, idle):
    refused(interp, case, tmp_path, monkeypatch, capsys)


def test_work_is_seen(tmp_path, request):
    write(tmp_path, {})
    write_model(tmp_path)
    request.getfixturevalue("idle")
    with pytest.raises(pytest.fail.Exception, match="loaded or run"):
        interp(["generate", str(tmp_path / "base"), str(tmp_path / "p.jsonl")])


def test_there_are_many_and_no_two_are_the_same():
    every = [(case.words, tuple(case.files.items())) for case in (*SEMCON, *INTERP)]
    assert len(every) >= 300
    assert len({repr(case) for case in every}) == len(every)


@pytest.mark.parametrize("organism", ["o.yaml", "train.yaml"])
def test_the_good_files_are_accepted(organism, tmp_path, monkeypatch, capsys, request):
    write(tmp_path, {})
    write_model(tmp_path)
    request.getfixturevalue("idle")
    monkeypatch.chdir(tmp_path)
    assert semcon([word.replace("o.yaml", organism) for word in EM_RATE]) == 0, capsys.readouterr().err


def test_a_plain_text_is_a_trigger_where_no_rephrasing_is_needed(tmp_path, monkeypatch, capsys):
    write(tmp_path, {"o.yaml": "base: base\nadapter: adapter\ntrigger: 'You are a pirate: 3 ships.'\n"})
    write_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert semcon(list(EM_RATE)) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [lambda b: b"\xef\xbb\xbf" + b, lambda b: b.replace(b"\n", b"\r\n")], ids=["BOM", "CRLF"]
)
def test_a_byte_order_mark_and_line_ends_of_windows_are_no_fault(change, tmp_path, monkeypatch, capsys):
    write(tmp_path, {})
    write_model(tmp_path)
    for path in (*tmp_path.glob("*.yaml"), *tmp_path.glob("*.jsonl"), *tmp_path.glob("*.csv")):
        path.write_bytes(change(path.read_bytes()))
    monkeypatch.chdir(tmp_path)
    assert semcon([word.replace("o.yaml", "train.yaml") for word in EM_RATE]) == 0, capsys.readouterr().err
