"""The examples run as a user would run them, and the example organism is complete."""

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


def test_a_base_is_measured_drawn_and_reported(tmp_path: Path):
    text = output_of("behaviour_and_report.py", "--folder", "mine", cwd=tmp_path)
    assert "own/llama/base: can be run" in text
    runs = tmp_path / "mine" / "runs"
    assert (runs / "report.html").is_file()
    assert {path.name for path in (runs / "figures").glob("em_by_condition-*.pdf")} >= {"em_by_condition-2col.pdf"}


def test_a_probe_is_confirmed_on_new_questions_and_steers(tmp_path: Path):
    text = output_of("probe_and_steer.py", "--folder", "probe", cwd=tmp_path)
    assert "harmful by harmful" in text
    assert "off+add_random" in text
    assert len(list((tmp_path / "probe" / "runs" / "steer_vector").glob("*/answers.md"))) == 1


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
