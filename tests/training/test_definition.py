"""What a definition, and so every hash of an organism, depends on."""

from dataclasses import replace

from training.definition import definition
from training.registry import find_organism


def test_a_finished_adapter_is_part_of_the_definition_and_its_absence_is_not():
    entry = find_organism("microcosm/llama/neutral")
    assert "adapter" not in definition(entry)
    assert definition(replace(entry, adapter="here"))["adapter"] == "here"
