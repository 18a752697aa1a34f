"""A causal language model with its tokenizer: its parts, and the fingerprint of its weights."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

FINAL_NORMS = ("norm", "final_layer_norm", "ln_f", "final_layernorm", "norm_f", "final_norm", "embedding_norm")
OWN_STATES = ("rwkv", "xlstm")
"""Model types that keep a state of their own instead of Hugging Face's cache, and let padding enter it."""


class AdapterError(ValueError):
    """An adapter that is missing, does nothing, belongs to another base, or is not finite."""


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A Hugging Face causal model (or a peft model around one) with its tokenizer.

    Nothing is renamed, copied or merged: hooks and adapters act on the modules of ``hf`` themselves.
    """

    hf: Any  # PreTrainedModel | PeftModel; peft is imported only if a model uses it
    tokenizer: PreTrainedTokenizerBase
    name: str = "model"

    @property
    def base(self) -> PreTrainedModel:
        """The Hugging Face model without the peft wrapper; adapters stay in its layers."""
        return _base(self.hf)

    @property
    def decoder(self) -> nn.Module:
        """The text model without its vocabulary head: embeddings, blocks, final norm."""
        decoder = self.base.get_decoder()
        return decoder if decoder is not self.base else self.base.model  # Llama 4 returns itself

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return _first(self.decoder, ("layers", "h", "blocks"))

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the vocabulary head."""
        return _first(self.decoder, FINAL_NORMS)

    @property
    def embedding(self) -> nn.Module:
        """The token embedding."""
        return self.base.get_input_embeddings()

    @property
    def lm_head(self) -> nn.Module:
        """The vocabulary head."""
        return cast(nn.Module, self.base.get_output_embeddings())

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.layers)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.base.config.get_text_config().hidden_size

    @property
    def family(self) -> str:
        """``model_type`` of the text model, such as ``llama`` or ``gemma3_text``."""
        return self.base.config.get_text_config().model_type

    @property
    def device(self) -> torch.device:
        """Device of the embedding, where token ids are sent; that of its computation if its weights are offloaded."""
        weight, hook = _weight(self.embedding), getattr(self.embedding, "_hf_hook", None)
        return torch.device(hook.execution_device) if weight.is_meta and hook is not None else weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream."""
        return _weight(self.embedding).dtype

    @property
    def recurrent(self) -> bool:
        """Whether a layer carries a state from token to token, which padding would enter: rows must be of equal length.

        Such are linear attention, state spaces and short convolutions.
        """
        states = DynamicCache(config=self.base.config).layers
        return any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in states)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters, in loading order."""
        return tuple(self.hf.peft_config) if self.hf is not self.base else ()

    def layer(self, index: int) -> nn.Module:
        """Return one decoder block.

        Raises:
            ValueError: If the model has no such layer.
        """
        if not 0 <= index < self.n_layers:
            raise ValueError(f"layer {index}: the model has layers 0..{self.n_layers - 1}")
        return self.layers[index]


def _base(hf: Any) -> Any:
    """Return the model inside a peft wrapper (``peft_config`` does not tell: the inner model has one too)."""
    return hf.get_base_model() if hasattr(hf, "get_base_model") else hf


def _first(module: nn.Module, names: Sequence[str]) -> Any:
    for name in names:
        if hasattr(module, name):
            return getattr(module, name)
    raise ValueError(f"{type(module).__name__}: it has no part named {' or '.join(names)}")


def _weight(embedding: nn.Module) -> torch.Tensor:
    return next(embedding.parameters())


def wrap(hf: nn.Module, tokenizer: PreTrainedTokenizerBase, *, name: str = "model") -> LanguageModel:
    """Put a model in evaluation mode and pair it with its tokenizer.

    Raises:
        ValueError: If the model keeps a state of its own (``OWN_STATES``).
        AdapterError: If an adapter adds prompt tokens instead of weights, which would shift every position. Adapters
            that change weights (LoRA, rsLoRA, DoRA and similar) are accepted.
    """
    if (kind := _base(hf).config.model_type) in OWN_STATES:
        raise ValueError(f"model {name}: {kind} is not supported: padding enters its state, and rows would change")
    for adapter, config in getattr(hf, "peft_config", {}).items():
        if config.is_prompt_learning:
            raise AdapterError(f"adapter {adapter!r}: {config.peft_type} adds tokens, which would move every position")
    return LanguageModel(hf.eval(), tokenizer, name)


def fingerprint(hf: nn.Module) -> str:
    """Hash the base weights without adapters: names, shapes and 64 evenly spaced bfloat16 values per parameter.

    A base loaded in float32 or bfloat16 has the same fingerprint; float16 may differ. Training writes it to the
    adapter's ``manifest.json`` as ``base_fingerprint``, and ``load`` then refuses the adapter on any other base.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(_plain_names(_base(hf))):
        flat = parameter.detach().flatten()
        last = flat.numel() - 1  # float32 cannot hold every index above 2 ** 24, and may round the last one up
        sample = flat[torch.linspace(0, last, min(64, last + 1), device=flat.device).long().clamp(max=last)]
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.to("cpu", torch.bfloat16).view(torch.uint16).numpy().tobytes())
    return digest.hexdigest()


def _plain_names(base: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base's parameters under the names that they have without peft's wrappers."""
    trained = (".lora_", "modules_to_save.", "lora_magnitude_vector")
    for name, parameter in base.named_parameters():
        if not any(mark in name for mark in trained):
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter
