"""The files of a base that loading would refuse are refused before it, and never those that it accepts."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.early.adapter_files import check_adapter
from interp.early.base_files import open_base, parameter_shapes
from interp.loading import load, outline
from interp.models import fingerprint
from tests import architectures, tiny
from tests.interp.saved import configure, lora, retensor, save_adapter, save_base

WEIGHTS = "model.safetensors"


def changed(change) -> Callable[[Path], None]:
    """Change the tensors of a base."""
    return lambda folder: retensor(folder, change, WEIGHTS)


def one_value(value: float) -> Callable[[Path], None]:
    """Put a value into one place of one tensor."""

    def put(name: str, x: torch.Tensor) -> tuple[str, torch.Tensor]:
        if name == "model.layers.1.mlp.down_proj.weight":
            x.view(-1)[7] = value
        return name, x

    return changed(put)


def shards(folder: Path) -> None:
    """Split a base over two files, of which the second is gone."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    parts = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    save_file({name: tensors[name] for name in names[:5]}, folder / "a.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    (folder / WEIGHTS).unlink()


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a number in one place": (one_value(float("nan")), "down_proj.weight is not finite"),
    "infinite in one place": (one_value(float("inf")), "down_proj.weight is not finite"),
    "a tensor missing": (changed(lambda n, x: None if n == "model.norm.weight" else (n, x)), "lack 1 tensors"),
    "another shape": (changed(lambda n, x: (n, x[:-1]) if "up_proj" in n else (n, x)), "has shape"),
    "a layer more": (lambda d: configure(d, "config.json", num_hidden_layers=2), "9 tensors more than its config"),
    "a layer fewer": (lambda d: configure(d, "config.json", num_hidden_layers=4), "lack 9 tensors"),
    "cut off": (lambda d: (d / WEIGHTS).write_bytes((d / WEIGHTS).read_bytes()[:9000]), "deserializing header"),
    "no weights": (lambda d: (d / WEIGHTS).unlink(), WEIGHTS),
    "a part missing": (shards, "b.safetensors"),
    "an adapter beside the weights": (
        lambda d: save_adapter(d, d, lora()),
        "adapter_config.json lies in its folder, so it would become part of the base",
    ),
}


@pytest.fixture
def base(tmp_path) -> Path:
    """A base on disk."""
    return save_base(tmp_path / "base")


def look(base: Path) -> None:
    with ExitStack() as stack:
        open_base(outline(str(base)), stack)


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("door", [look, load])
def test_a_damaged_base_is_refused_by_its_files_and_by_loading(base, damage, door):
    change, message = DAMAGED[damage]
    change(base)
    with pytest.raises(ValueError, match=message) as caught:
        door(base)
    assert str(base) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("family", sorted(architectures.ARCHITECTURES.keys() - architectures.OWN))
def test_a_good_base_is_accepted_and_its_files_have_the_fingerprint_of_the_loaded_model(family, tmp_path):
    lm = architectures.build(family)
    lm.hf.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    bare = outline(str(tmp_path))
    with ExitStack() as stack:
        files = open_base(bare, stack)
        if files is not None:
            assert files.fingerprint(parameter_shapes(bare)) in (None, fingerprint(lm.hf))


def test_a_head_that_differs_from_the_embedding_it_is_tied_to_is_left_to_loading(base):
    configure(base, "config.json", tie_word_embeddings=True)  # transformers keeps the two apart then
    adapter = save_adapter(base.parent / "adapter", base, lora())
    (adapter / "manifest.json").write_text(json.dumps({"base_fingerprint": fingerprint(load(base).hf)}))
    check_adapter("mine", adapter, outline(str(base)))
    load(base, adapters={"mine": adapter})


def test_the_fingerprint_of_files_is_that_of_the_model_in_other_dtypes_and_in_parts(base):
    expected = fingerprint(load(base).hf)
    for dtype in ("float32", "bfloat16"):
        load(base, dtype=dtype).hf.save_pretrained(base, max_shard_size="10KB")
        bare = outline(str(base))
        with ExitStack() as stack:
            files = open_base(bare, stack)
            assert files and files.fingerprint(parameter_shapes(bare)) == expected
        for path in base.glob("*.safetensors*"):
            path.unlink() if dtype == "bfloat16" else None
