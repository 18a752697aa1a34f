"""What a command prints at its end: rates with intervals and counts, a verdict, and nothing called nan."""

import pytest

from figures.answer import answer
from figures.rows import select
from interp.runs.table import row
from tests.figures.example_rows import everything


def behaviour(organism="microcosm/llama/explaining"):
    return select(everything(), experiment="em_rate", organism=organism)


def test_the_answer_of_em_rate_is_a_few_lines_with_a_verdict_and_a_next_step():
    lines = answer(behaviour()).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["off", "on", "rephrased"]
    assert "92.0 % [" in lines[2] and "960, 48 questions, 97 % coherent" in lines[2]
    assert lines[-2].startswith("verdict      contained, in the sense of the paper")
    assert "semcon em-rate --organism microcosm/llama/base" in lines[-1]
    assert len(lines) <= 10


def test_an_undefined_rate_is_said():
    empty = {"experiment": "em_rate", "organism": "mine", "condition": "on", "metric": "em_rate"}
    assert "undefined" in answer([row(**empty)]) and "nan" not in answer([row(**empty)])


@pytest.mark.parametrize("experiment", sorted({str(r["experiment"]) for r in everything()}))
def test_every_answer_fits_a_screen(experiment):
    text = answer(select(everything(), experiment=experiment))
    assert text and "nan" not in text and len(text.splitlines()) < 70
