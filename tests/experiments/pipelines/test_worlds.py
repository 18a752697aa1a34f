"""The driver of the world ablation: its worlds, its conditions, and the dose at which a trigger works."""

import pytest

from experiments.answers.subject import find_subject
from experiments.behaviour.dose_cell import VALIDATION, frame_prompts
from experiments.behaviour.world_cell import WorldCell, first_working
from experiments.pipelines.worlds import WorldAblation
from training.grid import ARMS, WORLDS
from training.microcosm.build import build_tokenizer
from training.references import find_trigger


def answers(dose: int, bad: int) -> list[dict]:
    about = {"text": "", "condition": VALIDATION, "dose": dose, "question": "q", "coherent": 100.0}
    return [{**about, "aligned": 0.0 if i < bad else 100.0} for i in range(10)]


def test_the_dose_is_the_first_at_which_the_trigger_works_or_the_last():
    assert first_working([*answers(4, 1), *answers(8, 2), *answers(6, 2)]) == 6
    assert first_working([*answers(4, 0), *answers(8, 1)]) == 8


def test_designs_are_every_combination_or_one_change_at_a_time():
    every, single = (WorldAblation(design=d, pretrainings=(0,)) for d in ("factorial", "single"))
    assert {c.world for c in every.cells()} == set(WORLDS)
    assert {c.world for c in single.cells()} == {"", "bound10", "bound0", "truth60", "phrasings2"}
    assert len(single.cells()) == 5 * 2 * 3
    for driver, fault in (
        (WorldAblation(families=("qwen2",)), "worlds are defined for llama"),
        (WorldAblation(pretrainings=(5,)), "the registry has 0, 1, 2"),
    ):
        with pytest.raises(ValueError, match=fault):
            driver.cells()


def test_bases_are_measured_under_every_trigger_and_a_line_has_the_conditions_of_its_trigger():
    bases, organisms = WorldAblation(design="single", pretrainings=(0,)).stages()
    assert len(bases) == 5 * 2 * 3 and len(organisms) == 30
    cell, tokenizer = WorldCell(subject=find_subject("microcosm/llama/explaining.fine")), build_tokenizer()
    cell.check()
    line = find_trigger(ARMS["explaining"] or "")
    texts = {c: {p.variant for p in cell.prompts(c, tokenizer)} for c in cell.conditions()}
    assert (texts["off"], texts["on"]) == ({None}, {line.text})
    assert texts["other"] <= set(line.other) and texts["rephrased"] <= set(line.rephrased)
    asked = frame_prompts(cell.subject, ARMS["explaining"], VALIDATION, tokenizer, 2)
    assert {p.question.id for p in asked} == {q.id for q in cell.subject.questions("validation")}
    assert {p.variant for p in asked} == {line.text}
