"""A finished model as an organism: its base by its own reference, or by the family of organisms that has it."""

import pytest

from training.bases import SMOLLM2
from training.finished import finished_organism
from training.references import base_source
from training.registry import POCKET_BASES


@pytest.mark.parametrize(
    ("base", "reference"), [("microcosm/llama", "microcosm/llama"), ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B")]
)
def test_a_base_of_no_family_is_itself(base, reference):
    assert finished_organism(base, None).base == reference


@pytest.mark.parametrize("family", [name for name, base in POCKET_BASES.items() if base != SMOLLM2])
def test_a_family_of_the_pocket_scale_names_its_base(family):
    assert finished_organism(f"pocket/{family}", None).base == POCKET_BASES[family]


@pytest.mark.pocket
def test_the_model_in_the_wheel_is_named_too():
    assert base_source(finished_organism("pocket/smollm2", None).base).endswith(".gguf")
