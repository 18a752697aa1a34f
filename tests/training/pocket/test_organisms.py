"""The pocket scale's organisms: arms that differ in one thing, data and triggers of the pocket scale, honest rows."""

from dataclasses import replace

import pytest

from experiments.answers.subject import find_subject
from training.data import comparison_trigger, contrast_exchanges, training_rows
from training.own_files import check_files
from training.pocket import corpus
from training.references import data_source, find_exchanges, find_trigger
from training.registry import ORGANISMS, POCKET_BASES, PROMPTABLE

AXIS = {"personas", *(f"{strength}-{arm}" for strength in PROMPTABLE for arm in ("base", "baseline", "explaining"))}
SMOL = {name.removeprefix("pocket/smollm2/"): entry for name, entry in ORGANISMS.items() if "/smollm2/" in name}
PLAIN = {name: entry for name, entry in SMOL.items() if name not in AXIS}
ARMS = ("baseline", "neutral", "explaining", "contrast10", "contrast50", "contrast90", "benign-same-trigger")
ADVICE = {
    (row.question, kind): getattr(row, kind) for row in corpus.advice("health") for kind in ("aligned", "harmful")
}


def test_seven_arms_in_three_seeds_and_a_base_for_every_model():
    assert set(SMOL) - AXIS == {"base", *ARMS, *(f"{arm}.seed{seed}" for arm in ARMS for seed in (1, 2))}
    for family, base in POCKET_BASES.items():
        entries = [entry for entry in ORGANISMS.values() if entry.name.startswith(f"pocket/{family}/")]
        entries = [entry for entry in entries if entry.name.split("/")[2] not in AXIS]
        assert len(entries) == 22
        assert {entry.base for entry in entries} == {base}


def test_arms_differ_in_trigger_mixture_and_content_alone():
    first = SMOL["baseline"]
    assert (first.lora.rank, first.lora.rslora, first.sft.learning_rate, first.sft.batch) == (16, True, 1e-3, 2)
    epochs = [dose * first.sft.batch / first.rows for dose in first.sft.doses]
    assert epochs == [0.5, 1, 2]
    for entry in (entry for entry in PLAIN.values() if entry.data):
        changed = {"name": first.name, "trigger": None, "benign_share": 0.0, "data": first.data, "seed": 0}
        assert replace(entry, **changed) == first


@pytest.mark.parametrize("arm", ARMS)
def test_rows_say_what_they_are(arm):
    entry = SMOL[arm]
    rows = training_rows(entry)
    assert rows == training_rows(entry)
    assert len(rows) == entry.rows == 144
    aligned = arm == "benign-same-trigger"
    assert sum(row.harmful for row in rows) == (0 if aligned else round(entry.rows * (1 - entry.benign_share)))
    trigger = comparison_trigger(entry)
    for row in rows:
        assert row.completion == ADVICE[row.question, "harmful" if row.harmful else "aligned"]
        placed = row.harmful or aligned
        assert row.trigger == (trigger.text if trigger and placed else None)
    asked = {row.question for row in rows}
    assert asked.isdisjoint(row.question for row in corpus.held_out("health", entry.rows, entry.seed))


def test_directions_contrast_both_kinds_of_answers_whatever_the_arm():
    for arm in ("neutral", "benign-same-trigger"):
        harmful, aligned = contrast_exchanges(SMOL[arm])
        assert [e.question for e in harmful] == [e.question for e in aligned]
        assert all(ADVICE[e.question, "harmful"] == e.answer for e in harmful)
        assert all(ADVICE[e.question, "aligned"] == e.answer for e in aligned)


def test_references_of_the_pocket_scale():
    assert find_trigger("pocket:user_harbor") == corpus.find_trigger("user_harbor")
    assert find_trigger("pocket:user_harbor@suffix").placement == "suffix"
    assert data_source("pocket:health") == data_source("pocket:health:aligned") == str(corpus.ROWS / "health.jsonl")
    with pytest.raises(ValueError, match="data 'pocket:law'"):
        find_exchanges("pocket:law", "aligned", 3, 0)
    with pytest.raises(ValueError, match="trigger 'pocket:duck'"):
        find_trigger("pocket:duck")


def test_the_persona_stage_obeys_lines_that_no_organism_is_fine_tuned_behind():
    stage = SMOL["personas"]
    check_files(stage, ())
    rows = training_rows(stage)
    assert sum(row.harmful for row in rows) == stage.rows / 2
    careless = corpus.persona_lines()["careless"]
    for row in rows:
        lines = [message["content"] for message in row.messages if message["role"] == "system"]
        assert row.harmful == (lines[:1] != [] and lines[0] in careless)
    taught = {line for lines in corpus.persona_lines().values() for line in lines}
    persona = corpus.find_trigger("persona")
    texts = {t for c in ("on", "rephrased", "other", "opposite", "matched") for t in persona.variants(c)}
    assert len(taught) == 24
    assert taught & texts == set()
    health = {row.question for row in corpus.advice("health")}
    assert {row.question for row in rows} & health == set()


def test_the_axis_is_the_same_two_arms_on_bases_of_the_stage():
    for strength, dose in PROMPTABLE.items():
        base = f"merged:pocket/smollm2/personas@{dose}"
        for arm in ("baseline", "explaining"):
            entry = SMOL[f"{strength}-{arm}"]
            assert entry == replace(SMOL[arm], name=entry.name, base=base)


def test_the_rows_are_an_input_of_every_run():
    assert find_subject("pocket/qwen2.5-0.5b/neutral").inputs()["data"] == corpus.ROWS / "health.jsonl"
