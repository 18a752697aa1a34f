"""A causal language model with its tokenizer: its parts, its limits, the fingerprint of its weights."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, LinearAttentionCacheLayerMixin

from interp.chat import Chat
from interp.sites import require_layer

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
    def vocabulary(self) -> int:
        """Rows of the embedding; ids from here on are no tokens of the model."""
        return self.base.config.get_text_config().vocab_size

    @property
    def context(self) -> int | None:
        """Most tokens that the model was made for, by its config; None if it states no limit.

        With rotary frequencies that change once a row of a batch is longer than some length (``longrope``), which would
        make a row depend on its batch and on what was cached, it is that length.
        """
        config = self.base.config.get_text_config()
        rotary = getattr(config, "rope_parameters", None) or {}
        changing = [r for r in (rotary, *rotary.values()) if isinstance(r, dict) and r.get("rope_type") == "longrope"]
        limits = [getattr(config, "max_position_embeddings", None)]
        limits += [r.get("original_max_position_embeddings") for r in changing]
        return min((limit for limit in limits if limit is not None), default=None)

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
        try:
            states = DynamicCache(config=self.base.config).layers
        except KeyError:  # a kind of layer that the cache does not know
            return True
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
        require_layer(index, self.n_layers, f"layer {index}")
        return self.layers[index]


def kept_logits(lm: LanguageModel, keep: int, **inputs: Any) -> Float[torch.Tensor, "batch keep vocab"]:
    """Run the base and return the logits at the last ``keep`` positions of each row; some models ignore ``keep``.

    On a CPU in a half dtype the head gets a packed copy of its states: given the view that Hugging Face slices, torch
    copies the weights of the head once a row, which takes a hundred times as long as the product.
    """
    pack = lm.device.type == "cpu" and lm.dtype != torch.float32
    handle = lm.lm_head.register_forward_pre_hook(_packed) if pack else None
    try:
        return lm.base(**inputs, logits_to_keep=keep).logits[:, -keep:]
    finally:
        if handle is not None:
            handle.remove()


def _packed(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    states, *others = inputs
    return states.clone(memory_format=torch.contiguous_format), *others


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
        ValueError: If the model keeps a state of its own (``OWN_STATES``), or is half of an encoder-decoder.
        AdapterError: If an adapter adds prompt tokens instead of weights, which would shift every position, acts after
            certain tokens only, or changes a module that is no plain matrix product. Adapters that change weights
            (LoRA, rsLoRA, DoRA and similar) are accepted.
    """
    if (kind := _base(hf).config.model_type) in OWN_STATES:
        raise ValueError(f"model {name}: {kind} is not supported: padding enters its state, and rows would change")
    if hasattr(_base(hf).config, "decoder_layers"):
        raise ValueError(f"model {name}: {kind} is an encoder-decoder, whose decoder counts padding as positions")
    for config in (_base(hf).config, _base(hf).config.get_text_config()):
        config.return_dict = True  # a file may ask for tuples
    for path, module in hf.named_modules():
        if hasattr(module, "base_layer"):
            _check_adapted(path, module.base_layer)
    for adapter, config in getattr(hf, "peft_config", {}).items():
        if config.is_prompt_learning or config.peft_type.value == "ADAPTION_PROMPT":
            raise AdapterError(
                f"adapter {adapter!r}: {config.peft_type.value} adds tokens, which would move every position"
            )
        if getattr(config, "alora_invocation_tokens", None):
            raise AdapterError(f"adapter {adapter!r}: an activated LoRA acts in peft's own forward pass only")
    return LanguageModel(hf.eval(), tokenizer, name)


def _check_adapted(path: str, module: Any) -> None:
    """Refuse an adapter of a module to whose output peft cannot add: a router returns more than a matrix product."""
    if path.endswith(".dt_proj"):
        raise AdapterError(f"adapter of {path}: Mamba reads that weight without the adapter, which has no effect")
    kind = type(module)
    own = kind.__module__.startswith("transformers.models.") and "forward" in vars(kind)
    if own and isinstance(module, nn.Linear) and not _is_product(module):
        raise AdapterError(f"adapter of {path}: a {kind.__name__} returns more than a product, which peft cannot adapt")


@torch.no_grad()
def _is_product(module: nn.Linear) -> bool:
    try:
        output = module(module.weight.new_zeros(1, module.in_features))
    except (RuntimeError, ValueError, IndexError):
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, module.out_features)


def require_finite(values: torch.Tensor, name: str, error: type[ValueError] = ValueError) -> None:
    """Refuse values of which one is not finite.

    Raises:
        ValueError: If one is not; restates the name.
    """
    if not all_finite(values):
        raise error(f"{name} is not finite in {values.dtype}")


def fingerprint(hf: nn.Module) -> str:
    """Hash the base weights without adapters: names, shapes and 64 evenly spaced bfloat16 values per parameter.

    A base loaded in float32 or bfloat16 has the same fingerprint; float16 may differ. Training writes it to the
    adapter's ``manifest.json`` as ``base_fingerprint``, and ``load`` then refuses the adapter on any other base.
    """
    return digest(sorted(_plain_names(_base(hf))))


def digest(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Hash names, shapes and 64 evenly spaced values of parameters in the order of their names."""
    hashed = hashlib.sha256()
    for name, parameter in parameters:
        flat = parameter.detach().flatten()
        last = flat.numel() - 1  # float32 cannot hold every index above 2 ** 24, and may round the last one up
        sample = flat[torch.linspace(0, last, min(64, last + 1), device=flat.device).long().clamp(max=last)]
        hashed.update(f"{name}{tuple(parameter.shape)}".encode())
        hashed.update(sample.to("cpu", torch.bfloat16).view(torch.uint16).numpy().tobytes())
    return hashed.hexdigest()


def _plain_names(base: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base's parameters under the names that they have without peft's wrappers, which list their own parts.

    A parameter that accelerate has offloaded is read from where it lies.
    """
    listed = [getattr(m, names, ()) for m in base.modules() for names in ("adapter_layer_names", "other_param_names")]
    own = {part.rpartition(".")[2] for parts in listed for part in parts}
    tied = getattr(base, "all_tied_weights_keys", None) or {}
    for name, parameter in base.named_parameters():
        parts = name.split(".")
        plain = ".".join(part for part in parts if part not in ("base_layer", "original_module", "token_adapter"))
        offloaded = parameter.device.type == "meta"
        if own.isdisjoint(parts) and not (offloaded and plain in tied):
            yield plain, _offloaded(base, name) if offloaded else parameter


def all_finite(values: torch.Tensor) -> bool:
    """Return whether no value is infinite or not a number: one pass, several times as fast as ``isfinite().all()``."""
    return values.numel() == 0 or all(math.isfinite(float(end)) for end in values.detach().aminmax())


def _offloaded(base: nn.Module, name: str) -> torch.Tensor:
    from accelerate.utils import align_module_device

    path, _, attribute = name.rpartition(".")
    module = base.get_submodule(path)
    with align_module_device(module, torch.device("cpu")):
        return getattr(module, attribute).detach().clone()


def check_prompts(lm: LanguageModel, chats: Sequence[Chat], *, answer: int = 0) -> None:
    """Refuse a prompt that does not fit the model.

    Args:
        lm: The model.
        chats: Prompts.
        answer: Tokens to be generated after each.

    Raises:
        ValueError: If a prompt with its answer is longer than the model's context, or has a token without an embedding.
    """
    for index, chat in enumerate(chats):
        where = f"prompt {index} of {len(chats)} ({chat.text[:60]!r})"
        if lm.context is not None and len(chat) + answer > lm.context:
            more = f" and up to {answer} more for the answer" if answer else ""
            raise ValueError(f"{where}: {len(chat)} tokens{more}; the model has {lm.context} positions")
        if max(chat.token_ids, default=0) >= lm.vocabulary:
            raise ValueError(f"{where}: token {max(chat.token_ids)}; the embedding has {lm.vocabulary} rows")
