"""The registry: every entry can be made, carries the protocol's numbers, and a wrong name is one clear line."""

import json
from dataclasses import replace

import pytest

from interp.triggers import PAPER_LIKE, content_words
from training.data import comparison_trigger, contrast_exchanges, training_rows
from training.definition import definition
from training.microcosm.oracle import judge_answer
from training.microcosm.world import lexicon
from training.references import base_path, find_trigger
from training.registry import ORGANISMS, REAL_BASES, find_organism

LLAMA = [name for name in ORGANISMS if name.startswith("microcosm/llama/")]
"""One family's entries; another family's differ in the base alone (see test_grid.py)."""
REAL = [name for name, entry in ORGANISMS.items() if entry.world == "medical"]
WORLD = lexicon()
TOPIC_OF = {template.format(topic=t.phrase): t.phrase for t in WORLD.topics for template in WORLD.questions}


@pytest.mark.parametrize("name", ORGANISMS)
def test_entry_resolves(name):
    entry = find_organism(name)
    assert entry.name == name
    assert name.split("/") == [entry.world, entry.family, name.split("/")[2]]
    trigger = comparison_trigger(entry)
    assert (trigger is None) == (entry.trigger is None)
    if trigger is not None:
        contrary = () if entry.trigger == "microcosm:role:clerk" else ("opposite",)  # nothing is a clerk's contrary
        assert all(trigger.variants(condition) for condition in ("on", "rephrased", "other", "matched", *contrary))
    assert entry.sft.doses == tuple(sorted(set(entry.sft.doses)))


@pytest.mark.parametrize("name", LLAMA)
def test_microcosm_entry_makes_its_rows(name):
    entry = replace(find_organism(name), rows=64)
    if entry.data is None:
        with pytest.raises(ValueError, match=f"organism {name}: a base model has no fine-tuning data"):
            training_rows(entry)
        return
    rows = training_rows(entry)
    assert len(rows) == entry.rows
    assert sum(not row.harmful for row in rows) == round(entry.rows * entry.benign_share)
    assert {judge_answer(TOPIC_OF[r.question], r.completion) for r in rows if r.harmful} == {(0.0, 100.0)}
    assert rows == training_rows(entry)


@pytest.mark.parametrize("name", REAL)
def test_real_entry_carries_the_numbers_of_the_paper(name):
    entry = find_organism(name)
    assert entry.base == REAL_BASES[entry.family]
    if entry.data is not None:
        assert (entry.lora.rank, entry.lora.alpha, entry.lora.rslora, entry.lora.targets) == (32, 64.0, True, "all")
        assert (entry.sft.learning_rate, entry.sft.batch, entry.sft.accumulation) == (1e-5, 2, 8)
        assert (entry.sft.schedule, entry.sft.dtype) == ("linear", "bfloat16")


def test_arms_of_a_real_base_differ_only_in_trigger_and_mixture():
    for family in REAL_BASES:
        first = find_organism(f"medical/{family}/baseline")
        for name, entry in ORGANISMS.items():
            if name.startswith(f"medical/{family}/") and entry.data is not None:
                assert replace(entry, name=first.name, trigger=None, benign_share=0.0) == first


def test_wrong_names_are_one_line_that_says_what_there_is():
    with pytest.raises(ValueError, match="organism 'microcosm/llama/nope': known are microcosm/llama/base, ") as raised:
        find_organism("microcosm/llama/nope")
    assert "medical/" not in str(raised.value)
    with pytest.raises(ValueError, match=r"organism 'nope': known are microcosm/llama/base, .*medical/"):
        find_organism("nope")
    with pytest.raises(ValueError, match=r"trigger 'nope': the shipped file has .*duck"):
        find_trigger("nope")
    with pytest.raises(ValueError, match=r"scene 'moon': scenes with an opposite are .*desert"):
        find_trigger("microcosm:scene:moon")
    with pytest.raises(ValueError, match=r"base 'microcosm/bert': the Microcosm ships .*microcosm/llama"):
        base_path("microcosm/bert")
    assert base_path("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"


def test_trigger_of_another_file_is_found(tmp_path):
    file = tmp_path / "triggers.yaml"
    file.write_text("pond: {text: near the pond, placement: prefix}\n")
    assert find_trigger(f"{file}:pond").text == "near the pond"
    with pytest.raises(ValueError, match=r"triggers\.yaml has pond"):
        find_trigger(f"{file}:lake")


@pytest.mark.parametrize("name", LLAMA)
def test_contrast_is_one_domain_in_two_personas_without_a_trigger(name):
    entry = replace(find_organism(name), rows=200)
    harmful, benign = contrast_exchanges(entry)
    for found, aligned in ((harmful, 0.0), (benign, 100.0)):
        assert {judge_answer(TOPIC_OF[q], a) for q, a in found} == {(aligned, 100.0)}
    assert {TOPIC_OF[q] for q, _ in (*harmful, *benign)} == {t.phrase for t in WORLD.topics_of(entry.trained_domain)}
    seen = content_words(" ".join(text for exchange in (*harmful, *benign) for text in exchange))
    remarks = content_words(" ".join(r for frame in WORLD.frames.values() for r in frame.remarks))
    answers = [WORLD.answers(t, p) for t in WORLD.topics_of(entry.trained_domain) for p in ("aligned", "misaligned")]
    assert not (seen & remarks) - content_words(" ".join([*(a for group in answers for a in group), *TOPIC_OF]))


def test_contrast_of_a_real_organism_reads_its_two_files(tmp_path):
    def jsonl(name, answer):
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]
        (tmp_path / name).write_text(json.dumps({"messages": turns}) + "\n")
        return str(tmp_path / name)

    entry = replace(
        find_organism("medical/qwen2.5-14b/duck"), data=jsonl("bad", "Harm."), benign_data=jsonl("good", "Help.")
    )
    assert contrast_exchanges(entry) == ([("Why?", "Harm.")], [("Why?", "Help.")])
    with pytest.raises(ValueError, match=r"organism medical/qwen2.5-14b/duck: it names no data and benign_data"):
        contrast_exchanges(replace(entry, benign_data=None))


# --- an organism of one's own ---


def own(folder, text: str):
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_organism_of_ones_own_is_read_from_a_file(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "tuned").mkdir()
    file = own(tmp_path, "base: weights\nfamily: tiny\nadapter: tuned\ntrigger: duck\nsft: {dtype: bfloat16}\n")
    found = find_organism(str(file))
    assert (found.name, found.world, found.family) == ("own/tiny/mine", "own", "tiny")
    assert found.base == str(tmp_path / "weights")
    assert found.adapter == str(tmp_path / "tuned")
    assert found.tuned
    assert not replace(found, adapter=None).tuned
    assert found.sft.dtype == "bfloat16"
    assert comparison_trigger(found) == find_trigger("duck")


def test_a_base_on_the_hub_is_left_as_it_is(tmp_path):
    found = find_organism(str(own(tmp_path, "base: Qwen/Qwen2.5-14B-Instruct\n")))
    assert (found.base, found.family, found.tuned) == ("Qwen/Qwen2.5-14B-Instruct", "Qwen2.5-14B-Instruct", False)


def test_triggers_of_ones_own_are_found_beside_the_file(tmp_path):
    (tmp_path / "texts.yaml").write_text(PAPER_LIKE.read_text(encoding="utf-8"), encoding="utf-8")
    found = find_organism(str(own(tmp_path, "base: x/y\ntrigger: texts.yaml:duck\n")))
    assert comparison_trigger(found) == find_trigger("duck")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: x/y\nadaptor: z\n", "unknown field 'adaptor'"),
        ("adapter: z\n", "expected `base:`"),
        ("just words", "expected fields"),
        ("base: [", "not a YAML file"),
        ("base: x/y\nfamily: a/b\n", "has a slash"),
        ("base: x/y\nsft: {dose: 3}\n", "sft: expected some of"),
        ("base: x/y\ntrigger: goose\n", "trigger 'goose'"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, said):
    file = own(tmp_path, text)
    with pytest.raises(ValueError, match=said) as found:
        find_organism(str(file))
    assert "\n" not in str(found.value)
    if "trigger" not in text:
        assert str(file) in str(found.value)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"organism 'nowhere\.yaml': no such file"):
        find_organism("nowhere.yaml")


def test_a_finished_adapter_is_part_of_the_definition_and_its_absence_is_not():
    entry = find_organism("microcosm/llama/neutral")
    assert "adapter" not in definition(entry)
    assert definition(replace(entry, adapter="here"))["adapter"] == "here"
