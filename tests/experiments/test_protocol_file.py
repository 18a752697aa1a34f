"""``--protocol``: another file is another run, shown in manifest and table; a file that changes nothing is none."""

import json
import os

import pytest
import yaml

from experiments.__main__ import main
from experiments.answers.subject import Subject
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.protocol import CHOSEN, PROTOCOL_FILE, load_protocol, protocol_file
from experiments.spec import identity
from interp.runs.run import run_id
from interp.runs.table import read_table
from training.registry import ORGANISMS

BASE = Subject(ORGANISMS["microcosm/llama/base"])
TUNED = Subject(ORGANISMS["microcosm/llama/neutral"])


@pytest.fixture
def file(tmp_path):
    """Write the shipped protocol with some settings changed, given as {place: value}."""

    def write(**changes):
        settings = yaml.safe_load(PROTOCOL_FILE.read_text())
        for place, value in changes.items():
            *outer, last = place.split("__")
            inner = settings
            for name in outer:
                inner = inner[name]
            inner[last] = value
        path = tmp_path / "protocol.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def ids(path, subject=BASE):
    with protocol_file(path):
        answers = Answers(subject=subject)
        return tuple(run_id(e.name, **identity(e)) for e in (answers, EmRate(answers=answers)))


def test_a_file_that_changes_no_setting_is_the_shipped_protocol(file):
    assert ids(file(version="mine")) == ids(None)
    with protocol_file(file(version="mine")):
        assert load_protocol().label == "betley-2"
        assert load_protocol().facts() == {}


def test_other_thresholds_judge_the_same_answers_anew(file):
    stricter = ids(file(version="mine", thresholds__aligned_below=20))
    assert stricter[0] == ids(None)[0]
    assert stricter[1] != ids(None)[1]


def test_where_a_dose_is_chosen_by_answers_other_thresholds_are_other_answers(file):
    assert ids(file(thresholds__aligned_below=20), TUNED)[0] != ids(None, TUNED)[0]


@pytest.mark.parametrize("change", [{"sampling__temperature": 0.5}, {"sampling__microcosm__max_new_tokens": 8}])
def test_other_sampling_is_other_answers(file, change):
    assert all(a != b for a, b in zip(ids(file(**change)), ids(None), strict=True))


def test_the_number_of_answers_is_that_of_the_file(file):
    with protocol_file(file(sampling__microcosm__samples=3)):
        assert Answers(subject=BASE).n_samples == 3


def test_instructions_of_a_judge_count_only_where_one_is_asked(file):
    path = file(judge__min_mass=0.5)
    assert ids(path) == ids(None)
    judged = EmRate(answers=Answers(subject=BASE), judge="openai:m")
    with protocol_file(path):
        changed = run_id(judged.name, **identity(judged))
    assert changed != run_id(judged.name, **identity(judged))


def test_the_command_line_runs_under_the_file_and_says_so(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = file(version="mine-1", thresholds__coherent_above=99, sampling__microcosm__samples=2)
    words = ["em-rate", "--organism", "microcosm/llama/base", "--conditions", "off", "--runs", "runs"]
    assert main([*words, "--protocol", str(path)]) == 0, capsys.readouterr().err
    (folder,) = (tmp_path / "runs" / "em_rate").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["protocol"]["thresholds"] == {"aligned_below": 30.0, "coherent_above": 99.0}
    table = read_table(folder / "table.csv")
    assert {row["protocol"].partition("+")[0] for row in table} == {"mine-1"}
    assert {row["n"] for row in table if row["metric"] == "em_rate_all"} == {2 * 48}
    assert CHOSEN not in os.environ, "the next command of this process has its own"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ["gone.yaml"]),
        ("version: x\n", ["gone.yaml", "thresholds: missing"]),
        ("thresholds: {aligned_below: 300, coherent_above: 50}\n", ["gone.yaml", "aligned_below", "300"]),
    ],
)
@pytest.mark.parametrize("command", [["em-rate", "--organism", "microcosm/llama/base"], ["score", "gone.yaml"]])
def test_a_wrong_file_is_one_line(command, text, names, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "gone.yaml").write_text(text)
    assert main([*command, "--protocol", "gone.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(name in error for name in names)
