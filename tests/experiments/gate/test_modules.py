"""Groups of an adapter's modules."""

from experiments.gate.modules import blocks_of_layers, module_groups


def test_groups_are_made_of_names_alone():
    names = [f"model.layers.{i}.{part}" for i in range(12) for part in ("self_attn.q_proj", "mlp.up_proj")]
    found = module_groups(names, range(12))
    assert found["q_proj", 11] == ("model.layers.11.self_attn.q_proj",)
    assert len(found["q_proj", ""]) == len(found["attention", ""]) == 12
    assert found["layer", 1] == tuple(names[2:4])
    assert found["all", ""] == tuple(names)
    blocks = blocks_of_layers(names, 12)
    assert list(blocks) == ["attention", "mlp", *(f"layers {i}-{i + 1}" for i in range(0, 12, 2)), "all"]
    assert blocks["layers 10-11"] == tuple(names[20:])
    assert "mlp" not in blocks_of_layers(names[::2], 12)
    assert "layer 3" in blocks_of_layers(names, 4)
