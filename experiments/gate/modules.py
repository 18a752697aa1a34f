"""The modules of an adapter in groups: one by one, by kind, attention and MLP, by layer, all. Names only, no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ATTENTION = frozenset({"self_attn", "attention", "attn"})
MOST_BLOCKS = 8

Groups = dict[tuple[str, int | str], tuple[str, ...]]
"""(site, layer): modules. The layer is "" for a group over all layers; the site is "layer" for one layer's modules."""


def layer_of(module: str) -> int | None:
    """Return the number of a module's layer: the first number in its name; None outside the layers."""
    number = re.search(r"\.(\d+)\.", module)
    return int(number[1]) if number else None


def kind_of(module: str) -> str:
    """Return the last part of a module's name."""
    return module.rpartition(".")[2]


def in_attention(module: str) -> bool:
    """Tell whether a module belongs to attention."""
    return not ATTENTION.isdisjoint(module.split("."))


def module_groups(modules: Sequence[str], layers: Iterable[int]) -> Groups:
    """Return single modules of ``layers``, then every kind, attention, MLP, each of ``layers``, and all."""
    layers = set(layers)
    inside = [name for name in modules if layer_of(name) is not None]
    groups: Groups = {}
    for name in inside:
        layer = layer_of(name)
        if layer in layers:
            groups[kind_of(name), layer] = (name,)
    for kind in dict.fromkeys(map(kind_of, inside)):
        groups[kind, ""] = tuple(name for name in inside if kind_of(name) == kind)
    for site, attention in (("attention", True), ("mlp", False)):
        groups[site, ""] = tuple(name for name in inside if in_attention(name) is attention)
    for layer in sorted(layers):
        groups["layer", layer] = tuple(name for name in inside if layer_of(name) == layer)
    groups["all", ""] = tuple(modules)
    return {group: names for group, names in groups.items() if names}


def blocks_of_layers(modules: Sequence[str], n_layers: int) -> dict[str, tuple[str, ...]]:
    """Return attention, MLP, up to eight blocks of layers, and all: the groups without which answers are sampled."""
    size = -(-n_layers // MOST_BLOCKS)
    blocks = {site: names for (site, _), names in module_groups(modules, ()).items() if site in ("attention", "mlp")}
    for start in range(0, n_layers, size):
        end = min(start + size, n_layers) - 1
        name = f"layer {start}" if start == end else f"layers {start}-{end}"
        blocks[name] = tuple(m for m in modules if layer_of(m) in range(start, end + 1))
    blocks["all"] = tuple(modules)
    return {name: block for name, block in blocks.items() if block}
