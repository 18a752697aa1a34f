"""A saved probe comes back as it was; a file in which something does not fit is refused by its name and the fault."""

import json

import pytest
import torch
from safetensors.torch import save_file

from interp.sites import Site
from probes import load_probe

ABOUT = {
    "sites": ["resid_post.0", "resid_post.1"],
    "position": "last_prompt",
    "classes": ["a", "b"],
    "label": "kind",
    "model": "base",
    "auroc": [0.5, 0.75],
}
TENSORS = {
    "weight": torch.ones(2, 1, 4),
    "bias": torch.zeros(2, 1),
    "mean": torch.zeros(2, 1, 4),
    "scale": torch.ones(2, 1, 4),
}


def written(path, about=None, tensors=None, text=None):
    about = {name: value for name, value in {**ABOUT, **(about or {})}.items() if value is not ...}
    tensors = {name: t for name, t in {**TENSORS, **(tensors or {})}.items() if t is not ...}
    save_file(tensors, path, {"probe": json.dumps(about) if text is None else text})
    return path


def test_it_comes_back(tmp_path):
    saved = load_probe(written(tmp_path / "p.safetensors", {"of a later version": 1}))
    assert saved.sites == [Site("resid_post", 0), Site("resid_post", 1)]
    assert torch.equal(saved.direction(Site("resid_post", 1)), torch.ones(4))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        *(({"about": {name: ...}}, name) for name in ("sites", "position", "classes", "label", "model")),
        *(({"about": {"sites": value}}, "sites") for value in (5, [], ["moon.1"], [1], "resid_post.0")),
        *(({"about": {"classes": value}}, "classes") for value in (5, ["a"], ["a", "a"], [1, 2], "ab")),
        *(({"about": {"auroc": value}}, "auroc") for value in (5, ["x", "y"], [0.5], [0.5, 7])),
        *(({"about": {"groups": value}}, "groups") for value in (5, [1])),
        ({"about": {"position": 3}}, "position"),
        ({"about": {"model": ""}}, "model"),
        ({"about": {"n": -1}}, "n -1"),
        ({"about": {"template_options": [1]}}, "template_options"),
        *(({"text": text}, "no probe that") for text in ("5", "[]", "null", "{", '"a"', '{"sites": NaN}', "[" * 9000)),
        *(({"tensors": {name: ...}}, name) for name in TENSORS),
        ({"tensors": {"weight": torch.ones(2, 4)}}, "shape (2, 4)"),
        ({"tensors": {"weight": torch.ones(3, 1, 4)}}, "shape (3, 1, 4)"),
        ({"tensors": {"bias": torch.zeros(1)}}, "shape"),
        ({"tensors": {"mean": torch.full((2, 1, 4), float("nan"))}}, "not finite"),
        ({"tensors": {"scale": torch.zeros(2, 1, 4)}}, "not positive"),
    ],
    ids=repr,
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, named, tmp_path):
    path = written(tmp_path / "p.safetensors", **changes)
    with pytest.raises(ValueError) as refused:
        load_probe(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)
