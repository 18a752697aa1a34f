"""Merged bases: the model of an organism with its adapter on, made once; wrong references refused before any work."""

import pytest
import torch
import yaml

from interp.adapters import active_adapter
from interp.loading import load
from tests.training.small import random_base
from training.merged import merged
from training.references import base_path, base_source
from training.registry import find_organism
from training.sft import adapter_folder, dose_folder


@pytest.fixture
def organism(tmp_path):
    """A YAML organism on a random base, trained for four steps."""
    sft = {"doses": [2, 4], "learning_rate": 0.01, "batch": 4, "warmup": 1, "dtype": "float32"}
    base = random_base(tmp_path / "base")
    fields = {"base": base, "data": "microcosm:medicine", "rows": 8, "sft": sft}
    file = tmp_path / "organism.yaml"
    file.write_text(yaml.safe_dump(fields))
    return file


def test_a_merged_base_is_the_organism_with_its_adapter_on(tmp_path, organism, monkeypatch):
    monkeypatch.setenv("SEMCON_RUNS", str(tmp_path))
    folder = merged(f"merged:{organism}@4")
    assert base_path(f"merged:{organism}@4") == str(folder)
    trained = find_organism(str(organism))
    adapter = dose_folder(adapter_folder(trained, tmp_path), 4)
    tuned, plain = load(base_path(trained.base), adapters={"a": adapter}), load(folder)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad(), active_adapter(tuned, "a"):
        difference = (tuned.hf(ids).logits - plain.hf(ids).logits).abs().max()
        change = (plain.hf(ids).logits - load(base_path(trained.base)).hf(ids).logits).abs().max()
    assert difference < 1e-4 < 1e-2 < change
    assert base_source(f"merged:{organism}@4") == trained.base


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("merged:pocket/smollm2/personas", "expected merged:ORGANISM@DOSE"),
        ("merged:pocket/smollm2/personas@7", "the doses of pocket/smollm2/personas are 5"),
        ("merged:pocket/smollm2/base@5", "is not fine-tuned here"),
        ("merged:pocket/smollm2/duck@5", "known are pocket"),
    ],
)
def test_a_wrong_reference_is_refused_before_any_work(reference, message):
    with pytest.raises(ValueError, match=message):
        base_source(reference)
