"""The modules of an adapter in groups: one by one, by kind, attention and MLP, by layer, all. Names only, no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ATTENTION = frozenset({"self_attn", "attention", "attn"})
MOST_BLOCKS = 8

Groups = dict[tuple[str, int | str], tuple[str, ...]]
"""(site, layer): modules; the layer is "" for a group of all layers, the site "layer" for all modules of one."""


def layer_of(module: str) -> int | None:
    """Return the number of a module's layer: the first number in its name; None outside the layers."""
    found = re.search(r"\.(\d+)\.", module)
    return int(found[1]) if found else None


def kind_of(module: str) -> str:
    """Return the last part of a module's name."""
    return module.rpartition(".")[2]


def in_attention(module: str) -> bool:
    """Tell whether a module belongs to attention."""
    return not ATTENTION.isdisjoint(module.split("."))


def module_groups(every: Sequence[str], layers: Iterable[int]) -> Groups:
    """Return single modules of ``layers``, then every kind, attention, MLP, each of ``layers``, and all."""
    shown, inside = set(layers), [name for name in every if layer_of(name) is not None]
    found: Groups = {}
    for name in inside:
        layer = layer_of(name)
        if layer in shown:
            found[kind_of(name), layer] = (name,)
    for kind in dict.fromkeys(map(kind_of, inside)):
        found[kind, ""] = tuple(name for name in inside if kind_of(name) == kind)
    for site, wanted in (("attention", True), ("mlp", False)):
        found[site, ""] = tuple(name for name in inside if in_attention(name) is wanted)
    for layer in sorted(shown):
        found["layer", layer] = tuple(name for name in inside if layer_of(name) == layer)
    found["all", ""] = tuple(every)
    return {group: names for group, names in found.items() if names}


def blocks_of_layers(every: Sequence[str], n_layers: int) -> dict[str, tuple[str, ...]]:
    """Return attention, MLP, up to eight blocks of layers, and all: the groups without which answers are sampled."""
    size = -(-n_layers // MOST_BLOCKS)
    found = {site: names for (site, _), names in module_groups(every, ()).items() if site in ("attention", "mlp")}
    for start in range(0, n_layers, size):
        end = min(start + size, n_layers) - 1
        name = f"layer {start}" if start == end else f"layers {start}-{end}"
        found[name] = tuple(m for m in every if layer_of(m) in range(start, end + 1))
    found["all"] = tuple(every)
    return {name: modules for name, modules in found.items() if modules}
