"""The folder that ``semcon init`` writes: complete, accepted as it is, and the same as the example."""

import json
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.answers.suite import choice_questions, read_questions
from experiments.cli.init import TEMPLATE, files
from experiments.protocol import PROTOCOL_FILE
from interp.triggers import CONDITIONS, load_triggers
from training.definition import Organism
from training.registry import find_organism

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "mine"]) == 0
    capsys.readouterr()
    return tmp_path / "mine"


def test_it_passes_the_check_as_it_is(folder, capsys):
    words = ["--organism", "mine/organism.yaml", "--questions", "mine/questions.yaml", "--check"]
    for outcome in ([], ["--outcome", "log-odds"]):
        assert main(["em-rate", *words, *outcome]) == 0, capsys.readouterr().err
    assert "own/llama/mine: can be run" in capsys.readouterr().out


def test_it_has_every_field_every_condition_every_split_and_the_protocol(folder):
    settings = (folder / "organism.yaml").read_text()
    assert [f for f in Organism.__dataclass_fields__ if f != "name" and f"{f}:" not in settings] == []
    (trigger,) = load_triggers(folder / "triggers.yaml").values()
    assert all(trigger.variants(condition) for condition in CONDITIONS if condition != "off")
    assert all(read_questions(folder / "questions.yaml", split) for split in ("validation", "test", "trained"))
    organism = find_organism(str(folder / "organism.yaml"))
    assert all(len(choice_questions(organism, s, folder / "questions.yaml")) > 5 for s in ("validation", "test"))
    assert (folder / "protocol.yaml").read_bytes() == PROTOCOL_FILE.read_bytes()


def test_references_of_a_question_are_about_as_long_as_each_other(folder):
    organism = find_organism(str(folder / "organism.yaml"))
    lengths = [(len(q.aligned), len(q.harmful)) for q in choice_questions(organism, "test", folder / "questions.yaml")]
    assert max(abs(a - b) for a, b in lengths) <= 12


def test_the_example_is_the_template():
    assert (ROOT / "examples" / "own_organism").resolve() == TEMPLATE.resolve()


def test_another_base_and_a_finished_adapter_stand_in_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, config in (("base 7B", {"model_type": "qwen3"}), ("tuned", {"peft_type": "LORA", "r": 2})):
        Path(name).mkdir()
        Path(name, "adapter_config.json" if "r" in config else "config.json").write_text(json.dumps(config))
    assert main(["init", "mine", "--base", "base 7B", "--adapter", "tuned"]) == 0
    organism = find_organism("mine/organism.yaml")
    assert (organism.family, organism.base) == ("base-7b", str(tmp_path / "base 7B"))
    assert organism.adapter == str(tmp_path / "tuned")
    assert organism.sft.learning_rate < 1e-3, "the settings of a tiny model are not for another base"
    assert "--judge openai:MODEL" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["mine"], ["mine/x"], ["new", "--adapter", "nowhere"]])
def test_what_cannot_be_written_is_one_line(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/x").write_text("kept")
    assert main(["init", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words[-1] in error
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x"]


def test_every_file_of_the_template_is_written(folder):
    assert {path.name for path in folder.iterdir()} == set(files())
