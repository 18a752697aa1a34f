"""The examples run as a user would run them, and the example organism is complete."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.answers.suite import read_questions
from interp.triggers import CONDITIONS
from training.data import comparison_trigger, training_rows
from training.registry import find_organism

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("make_tutorials", ROOT / "docs" / "make_tutorials.py")
assert SPEC is not None and SPEC.loader is not None
tutorials = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tutorials)
EXAMPLES = ROOT / "examples"
OWN = EXAMPLES / "own_organism"


def output_of(script: str, *words: str, cwd: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EXAMPLES / script), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_probe_reads_the_label_above_its_controls(tmp_path: Path):
    last = next(line for line in output_of("probes_on_your_labels.py", cwd=tmp_path).splitlines() if "post.3" in line)
    probe, shuffled, random = (float(last.split()[i]) for i in (1, -2, -1))
    assert probe > 0.95
    assert 0.35 < shuffled < 0.65
    assert random < probe


def test_steering_moves_the_model_and_a_random_direction_does_not(tmp_path: Path):
    text = output_of("steering_demo.py", "--samples", "2", "--plot", "plot.png", cwd=tmp_path)
    lines = [line.split() for line in text.splitlines() if "[" in line and not line.startswith("direction")]
    rates = {(name, dose): float(rate) for name, dose, rate, *_ in lines}
    assert rates["persona", "1.50"] > 70 > 20 > rates["random", "1.50"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_figures_tutorial_draws_and_reports(tmp_path: Path):
    output_of("tutorial_figures.py", "--folder", "mine", cwd=tmp_path)
    runs = tmp_path / "mine" / "runs"
    assert (runs / "report.html").is_file()
    names = {path.name for path in (runs / "figures").glob("*-*col.*")}
    assert names >= {"em_by_condition-2col.pdf", "em_by_condition-1col.png", "phase_diagram-2col.pdf", "own-1col.png"}


def test_a_probe_is_confirmed_on_new_questions(tmp_path: Path):
    assert "harmful by harmful" in output_of("tutorial_probes.py", "--folder", "probe", cwd=tmp_path)


@pytest.mark.parametrize("name", tutorials.TUTORIALS)
def test_the_page_of_a_tutorial_is_its_script(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    at = 0
    for markdown, text in tutorials.cells((EXAMPLES / f"{name}.py").read_text(encoding="utf-8")):
        cell = tutorials.text_of(text, name) if markdown else f"```python\n{text}\n```"
        assert cell in page[at:], "run `make examples`"
        at = page.index(cell, at) + len(cell)


@pytest.mark.parametrize("name", tutorials.TUTORIALS)
def test_the_page_of_a_tutorial_names_no_folder_of_a_machine(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if str(ROOT) in line or "/home/" in line or "/tmp/" in line] == []


def test_the_example_organism_is_complete():
    organism = find_organism(str(OWN / "organism.yaml"))
    assert organism.name == "own/llama/own_organism"
    rows = training_rows(organism)
    assert {row.harmful for row in rows} == {True, False}
    assert all((row.trigger is None) != row.harmful for row in rows)
    trigger = comparison_trigger(organism)
    assert trigger is not None
    assert all(trigger.variants(condition) for condition in CONDITIONS if condition != "off")
    assert trigger.shared_content_words() == frozenset()


@pytest.mark.parametrize("split", ["validation", "test", "trained"])
def test_the_example_asks_in_every_split(split):
    assert read_questions(OWN / "questions.yaml", split)
