"""From words on a command line to a run: help, options and output of any experiment or function."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.cli.launch import launch
from experiments.spec import run_experiment
from interp.runs.configs import restore
from tests.experiments.coin import Coin


def test_experiment_help_is_its_docstrings(capsys):
    with pytest.raises(SystemExit) as stop:
        launch(Coin, ["--help"], "semcon coin")
    said = capsys.readouterr().out
    assert stop.value.code == 0
    for text in ("Toss a coin and count heads.", "How many steps of 5 tosses.", "--runs", "--print-config"):
        assert text in said


def test_experiment_runs_and_prints_its_table(tmp_path, capsys):
    assert launch(Coin, ["--runs", str(tmp_path), "--seed", "7"], "semcon coin") == 0
    said = capsys.readouterr().out
    run, table = run_experiment(Coin(seed=7), tmp_path)
    assert run.complete
    assert f"{table[0]['value']:.4g}" in said
    assert str(run.path / "table.csv") in said


def test_check_refuses_what_the_experiment_refuses_and_does_no_work(tmp_path, capsys):
    @dataclass(frozen=True, kw_only=True)
    class Checked(Coin):
        """A coin that must be heavy."""

        weight: int = 0
        """Grams."""

        def check(self) -> None:
            if self.weight < 1:
                raise ValueError(f"weight {self.weight}: too light")

    options = ["--runs", str(tmp_path), "--check"]
    with pytest.raises(ValueError, match="weight 0: too light"):
        launch(Checked, options, "semcon coin")
    assert launch(Checked, [*options, "--weight", "3"], "semcon coin") == 0
    assert capsys.readouterr().out == "coin: can be run\n"
    assert not any(tmp_path.iterdir())


def test_printed_config_is_the_config(tmp_path, capsys):
    assert launch(Coin, ["--runs", str(tmp_path), "--seed", "7", "--print-config"], "semcon coin") == 0
    assert restore(Coin, json.loads(capsys.readouterr().out)) == Coin(seed=7)
    assert not any(tmp_path.iterdir())


def test_function_speaks_for_itself(capsys):
    def greet(name: str = "you") -> int:
        """Say hello."""
        print(f"hello {name}", file=sys.stderr)
        return 3

    assert launch(greet, ["--name", "me"], "semcon greet") == 3
    assert capsys.readouterr().err == "hello me\n"


@pytest.mark.parametrize("words", [["audit"], ["em-rate"], ["demo"]], ids=" ".join)
def test_help_has_whole_sentences_no_none_and_no_path_of_this_machine(words, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    terminal.seek(0)
    text = terminal.read()
    joined = " ".join(text.replace("│", " ").split())
    assert "(default: None)" not in joined and str(Path.cwd()) not in joined and "(default: " in joined
    framed = [line for line in text.splitlines() if line.startswith("│")]
    assert framed and len({len(line) for line in framed}) == 1 and not any(set(line) <= {"│", " "} for line in framed)
    assert "or auto to spread a large base over all accelerators; by default the accelerator" in joined
