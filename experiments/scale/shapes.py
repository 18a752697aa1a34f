"""Shapes of models: sizes that decide memory and time, counted on the real classes without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from interp.runs.reading import read_json
from training.definition import Lora
from training.references import base_source

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

SHAPES = Path(__file__).with_name("shapes.yaml")
ADAPTED: Mapping[str, tuple[str, ...]] = {
    "all": (),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}
"""Modules of ``Lora.targets``; none named means every linear module of the decoder."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    parameters: int
    """All weights, those of a vision tower too."""
    layers: int
    width: int
    """Width of the residual stream."""
    vocabulary: int
    linear: Mapping[str, tuple[int, int, int]]
    """Linear modules of the decoder by last name: their number, and the inputs and outputs of each."""
    key_value_width: int
    """Numbers that a token leaves in the cache of one layer: keys and values."""

    @property
    def products(self) -> int:
        """Weights of the decoder that a token is multiplied with, the vocabulary head not counted."""
        return sum(n * rows * columns for n, rows, columns in self.linear.values())

    @property
    def head(self) -> int:
        """Weights of the vocabulary head."""
        return self.vocabulary * self.width

    @property
    def layer_width(self) -> int:
        """Numbers per token that the linear modules of one layer read and write."""
        return sum(rows + columns for _, rows, columns in self.linear.values())

    def adapter(self, lora: Lora) -> int:
        """Return the weights of a LoRA adapter."""
        names = ADAPTED[lora.targets] or tuple(self.linear)
        return sum(n * lora.rank * (rows + columns) for n, rows, columns in (self.linear[name] for name in names))


def shape_of(base: str) -> Shape:
    """Return the sizes of a base, from its published shape, its folder's config, or a config that is already cached.

    Raises:
        ValueError: If none of them is there; lists the bases with a published shape.
    """
    return _counted(base, str(Path.cwd()))


@cache
def _counted(base: str, _folder: str) -> Shape:
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(base)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return _count(model)


def config_of(base: str) -> PreTrainedConfig:
    """Return the config of a base; see ``shape_of``."""
    from transformers import AutoConfig

    known: dict[str, dict[str, Any]] = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))
    if base in known:
        kind, *_ = (settings := dict(known[base])).pop("model_type"), None
        return AutoConfig.for_model(kind, **settings)
    folder = base_source(base) if not base.startswith(("gguf:", "wheel:", "merged:")) else base
    try:
        if Path(folder).is_dir():
            read_json(Path(folder) / "config.json")
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"base {base!r}: no config of it is here; shapes are known of {', '.join(known)}") from error


def _count(model: Any) -> Shape:
    """Count the linear modules of a model's decoder; adapters and caches are made of these alone."""
    from torch import nn

    decoder, config = model.get_decoder(), model.config.get_text_config()
    linear: dict[str, tuple[int, int, int]] = {}
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear):
            last = name.rpartition(".")[2]
            n = linear.get(last, (0, 0, 0))[0]
            linear[last] = (n + 1, module.in_features, module.out_features)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Shape(
        parameters=_parameters(model),
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        vocabulary=config.vocab_size,
        linear=linear,
        key_value_width=2 * heads * size,
    )


def _parameters(model: nn.Module) -> int:
    """Count every weight once: a head that is tied to the embedding is the same weights."""
    return sum(parameter.numel() for parameter in model.parameters())
