"""The subject of an experiment: what its names resolve to, what it gives to a run, and what it refuses."""

import pytest

from experiments.answers.subject import Subject, contrast_texts, estimation_texts, find_subject, held_out_texts
from experiments.protocol import load_protocol
from experiments.spec import Part
from training.data import comparison_trigger
from training.grid import NEUTRAL
from training.references import find_trigger
from training.registry import ORGANISMS

SUBJECT = find_subject("microcosm/llama/neutral")
DUCK = "medical/qwen2.5-14b/duck"


def test_names_are_resolved_once():
    assert find_subject("microcosm/llama/neutral") == Subject(ORGANISMS["microcosm/llama/neutral"])
    assert SUBJECT.trigger == comparison_trigger(SUBJECT.organism) == SUBJECT.own_trigger
    assert isinstance(SUBJECT, Part)
    assert SUBJECT.label() == SUBJECT.name == "microcosm/llama/neutral"


def test_config_is_made_of_names():
    assert SUBJECT.config() == {"organism": "microcosm/llama/neutral", "questions": None, "judge": "oracle"}
    (name,) = SUBJECT.depends()
    assert name == "microcosm/llama/neutral"
    assert SUBJECT.depends()[name]["base"] == "microcosm/llama"


def test_cells_say_who_was_measured_under_which_protocol():
    cells = {"organism": "microcosm/llama/neutral", "family": "llama", "trigger": "scene-desert", "seed": 0}
    cells["placement"] = "system"
    assert SUBJECT.cells() == {**cells, "protocol": load_protocol().version}


def test_local_files_are_inputs_and_others_are_not(tmp_path):
    questions, scores = tmp_path / "questions.yaml", tmp_path / "scores.csv"
    questions.write_text("validation: {a: Why}\ntest: {b: How}\n")
    scores.write_text("question_id,aligned,coherent\nb,0,100\n")
    assert set(SUBJECT.inputs()) == {"base"}  # its data is generated from a name
    assert find_subject(DUCK, questions, str(scores)).inputs() == {"questions": questions, "judge": scores}


def test_the_amount_of_answers_is_the_protocols():
    sampling = load_protocol().sampling
    assert SUBJECT.amount == sampling.microcosm
    assert find_subject(DUCK).amount == sampling.model
    assert (sampling.model.max_new_tokens, sampling.model.samples, sampling.temperature) == (600, 50, 1.0)
    assert (sampling.microcosm.max_new_tokens, sampling.microcosm.samples) == (48, 10)


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (lambda: find_subject("nobody"), "organism 'nobody': known are "),
        (lambda: find_subject("microcosm/llama/neutral", judge="gpt").check(), "judge 'gpt': expected oracle"),
        (lambda: find_subject(DUCK).check(), "name a file of questions with --questions"),
        (lambda: find_subject("microcosm/llama/base").own_trigger, "microcosm/llama/base: it has no trigger"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(subject, message):
    with pytest.raises(ValueError, match=message) as raised:
        subject()
    assert "\n" not in str(raised.value)


def test_halves_of_the_rephrasings_share_none_and_contrasts_share_none_with_another_trigger():
    trigger = find_trigger(NEUTRAL)
    halves = estimation_texts(trigger), held_out_texts(trigger)
    assert sorted(halves[0] + halves[1]) == sorted(trigger.rephrased)
    assert not set(halves[0]) & set(halves[1])
    contrasts = contrast_texts(trigger, trigger)
    assert len(contrasts) == 8
    control = find_trigger("microcosm:scene:harbour") if "harbour" in str(trigger.other) else None
    assert control is None or not {control.text, *control.rephrased} & set(contrast_texts(trigger, control))
