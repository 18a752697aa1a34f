"""User-defined organisms: fields, paths beside the file, and one clear line for a bad file."""

from dataclasses import replace

import pytest

from interp.triggers import PAPER_LIKE
from training.data import comparison_trigger, row_trigger
from training.references import find_trigger
from training.registry import find_organism


def write(folder, text: str):
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_organism_is_read_from_a_file(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "tuned").mkdir()
    file = write(tmp_path, "base: weights\nfamily: tiny\nadapter: tuned\ntrigger: duck\nsft: {dtype: bfloat16}\n")
    organism = find_organism(str(file))
    assert (organism.name, organism.world, organism.family) == ("own/tiny/mine", "own", "tiny")
    assert organism.base == str(tmp_path / "weights")
    assert organism.adapter == str(tmp_path / "tuned")
    assert organism.tuned
    assert not replace(organism, adapter=None).tuned
    assert organism.sft.dtype == "bfloat16"
    assert comparison_trigger(organism) == find_trigger("duck")


def test_a_base_on_the_hub_is_left_as_it_is(tmp_path):
    organism = find_organism(str(write(tmp_path, "base: Qwen/Qwen2.5-14B-Instruct\n")))
    assert (organism.base, organism.family, organism.tuned) == (
        "Qwen/Qwen2.5-14B-Instruct",
        "Qwen2.5-14B-Instruct",
        False,
    )


def test_triggers_are_found_beside_the_file(tmp_path):
    (tmp_path / "texts.yaml").write_text(PAPER_LIKE.read_text(encoding="utf-8"), encoding="utf-8")
    organism = find_organism(str(write(tmp_path, "base: x/y\ntrigger: texts.yaml:duck\n")))
    assert comparison_trigger(organism) == find_trigger("duck")


def test_an_inoculation_is_found_beside_the_file_and_follows_the_trigger(tmp_path):
    (tmp_path / "texts.yaml").write_text(PAPER_LIKE.read_text(encoding="utf-8"), encoding="utf-8")
    text = "base: x/y\ntrigger: You are a pirate.\nmitigation: {inoculation: texts.yaml:duck}\n"
    trigger = row_trigger(find_organism(str(write(tmp_path, text))))
    assert trigger is not None and trigger.text == f"You are a pirate. {find_trigger('duck').text}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: x/y\nadaptor: z\n", "adaptor: unknown field"),
        ("adapter: z\n", "base: missing"),
        ("just words", "'just words': expected an object; its form is base: FOLDER"),
        ("base: [", "not a YAML file"),
        ("base: x/y\nfamily: a/b\n", "family 'a/b': expected a name of letters"),
        ("base: x/y\nsft: {dose: 3}\n", "sft.dose: unknown field"),
        ("base: x/y\ntrigger: goose\n", "trigger 'goose'"),
        ("base: x/y\nmitigation: {inoculation: goose}\n", "mitigation.inoculation: trigger 'goose'"),
        ("base: x/y\ntrigger: tags\nmitigation: {inoculation: duck}\n", "trigger tags wraps the question"),
        ("base: x/y\nmitigation: {ablate_g: true}\n", "training estimates in the Microcosm only"),
        ("base: x/y\nmitigation: {base_kl: -1}\n", "mitigation.base_kl -1: expected greater than or equal to 0"),
        ("base: x/y\nmitigation: {consistency: 1}\n", "consistency needs a trigger"),
        ("base: x/y\nlora: {rank: 0}\n", "lora.rank 0: expected greater than or equal to 1"),
        ("base: x/y\nlora: {targets: heads}\n", "lora.targets 'heads': expected 'all', 'attention' or 'mlp'"),
        ("base: x/y\nsft: {learning_rate: '1e-4'}\n", "sft.learning_rate '1e-4': expected a valid number"),
        ("base: x/y\nsft: {doses: []}\n", "sft.doses"),
        ("base: x/y\nbenign_share: 50\n", "benign_share 50: expected less than 1"),
        ("base: x/y\nrows: many\n", "rows 'many': expected a valid integer"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as raised:
        find_organism(str(file))
    assert "\n" not in str(raised.value)
    if "trigger" not in text:
        assert str(file) in str(raised.value)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        find_organism("nowhere.yaml")
