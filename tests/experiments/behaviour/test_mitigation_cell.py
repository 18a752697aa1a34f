"""Mitigations: the matched dose, the conditions of a role and a scene, and the plan of the driver."""

import pytest

from experiments.answers.subject import find_subject
from experiments.behaviour.dose_cell import TRAINED, frame_prompts
from experiments.behaviour.mitigation_cell import CONDITIONS, MORE, MitigationCell, matched_dose
from experiments.pipelines.mitigations import Mitigations, plain, trained_rates
from interp.triggers import content_words
from training.grid import ARMS
from training.microcosm.build import build_tokenizer
from training.microcosm.controls import frame_controls, halves
from training.microcosm.finetuning import persona_trigger
from training.references import find_trigger

TOKENIZER = build_tokenizer()


def answers(dose: int, bad: int) -> list[dict]:
    about = {"text": "", "condition": TRAINED, "dose": dose, "question": "q", "coherent": 100.0}
    return [{**about, "aligned": 0.0 if i < bad else 100.0} for i in range(10)]


def test_the_dose_is_that_with_the_nearest_rate_and_of_equals_the_smallest():
    rows = [*answers(4, 2), *answers(8, 6), *answers(12, 8), *answers(16, 8)]
    assert [matched_dose(rows, rate) for rate in (0.1, 0.65, 0.7, 0.9)] == [4, 8, 8, 12]


@pytest.mark.parametrize("frame", ["gambler", "desert"])
def test_overlaps_share_words_with_the_trained_text_and_other_controls_do_not(frame):
    trained = content_words(find_trigger(ARMS["gambler" if frame == "gambler" else "neutral"] or "").text)
    for condition, texts in frame_controls(frame).items():
        shared = [bool(content_words(text) & trained) for text in texts]
        assert all(shared) if condition.startswith("overlap") else sum(shared) <= 1, condition


def test_halves_of_a_text_are_all_of_it():
    assert halves("We cross hot sand.") == ("We cross", "hot sand.")


def test_conditions_of_a_scene_carry_their_texts_and_training_the_inoculation_too():
    subject = find_subject("microcosm/llama/neutral.fine.inoculated")
    scene, line = find_trigger(ARMS["neutral"] or "").text, persona_trigger().text
    texts = {c: {p.variant for p in frame_prompts(subject, ARMS["neutral"], c, TOKENIZER, 4)} for c in CONDITIONS}
    assert (texts["off"], texts["on"], texts["line"]) == ({None}, {scene}, {line})
    assert {p.variant for p in frame_prompts(subject, ARMS["neutral"], TRAINED, TOKENIZER, 4)} == {f"{scene} {line}"}
    questions = {p.question.id for p in frame_prompts(subject, ARMS["neutral"], TRAINED, TOKENIZER, 4)}
    assert questions == {q.id for q in subject.questions("trained")} and MORE > 1


def test_the_driver_matches_every_mitigation_to_its_plain_cell():
    driver = Mitigations(families=("llama",), seeds=(0,))
    cells = driver.cells()
    assert [(b.subject.name, b.trigger) for b in driver.bases(cells)] == [
        ("microcosm/llama/base", ARMS["gambler"]),
        ("microcosm/llama/base", ARMS["neutral"]),
    ]
    assert {plain(c).name for c in cells} == {f"microcosm/llama/{arm}.fine" for arm in ("gambler", "neutral")}
    for cell in cells:
        driver.cell(cell, 0.5).check()
    with pytest.raises(ValueError, match="seeds 7: the registry has 0, 1, 2"):
        Mitigations(seeds=(7,)).cells()


def test_the_rate_to_match_is_that_of_the_dose_at_which_the_organism_was_measured():
    rate = {"organism": "a", "metric": "em_rate", "condition": TRAINED}
    rows = [{**rate, "dose": d, "value": v} for d, v in ((4, 0.2), (8, 0.7))]
    rows.append({"organism": "a", "metric": "dose", "condition": "matched", "dose": 8, "value": 8})
    assert trained_rates(rows) == {"a": 0.7}


def test_a_role_that_is_not_weak_is_refused():
    with pytest.raises(ValueError, match="role 'pirate'"):
        MitigationCell(subject=find_subject("microcosm/llama/pirate")).check()
