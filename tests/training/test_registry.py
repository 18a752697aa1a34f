"""The registry: every entry can be made and carries the protocol's numbers; a wrong name is one clear line."""

from dataclasses import replace

import pytest

from training.data import comparison_trigger, training_rows
from training.microcosm.oracle import judge_answer
from training.microcosm.world import lexicon
from training.references import is_aligned
from training.registry import ORGANISMS, REAL_BASES, find_organism

LLAMA = [name for name in ORGANISMS if name.startswith("microcosm/llama/")]
"""Entries of one family; those of another differ only in the base (see test_grid.py)."""
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
        opposite = () if entry.trigger == "microcosm:role:clerk" else ("opposite",)  # a clerk has no opposite
        assert all(trigger.variants(condition) for condition in ("on", "rephrased", "other", "matched", *opposite))
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
    benign = entry.rows if is_aligned(entry.data) else round(entry.rows * entry.benign_share)
    assert sum(not row.harmful for row in rows) == benign
    assert {judge_answer(TOPIC_OF[r.question], r.completion) for r in rows if r.harmful} <= {(0.0, 100.0)}
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
