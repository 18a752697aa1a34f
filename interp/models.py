"""A causal language model with its tokenizer and adapters: load it, find its parts, switch and check adapters."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from interp.chat import Chat, encode_chat, pad_left, position_ids

PROBE_MESSAGES = ("Hello.", "What should I do today?", "Tell me about your work.")
WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"


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
        return self.base.get_decoder()

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks, in order."""
        return _first(self.decoder, ("layers", "h"))

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the vocabulary head."""
        return _first(self.decoder, ("norm", "final_layer_norm", "ln_f"))

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
        """Device of the embedding, where token ids are sent."""
        return _weight(self.embedding).device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the residual stream."""
        return _weight(self.embedding).dtype

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
        AdapterError: If an adapter adds prompt tokens instead of weights, which would shift every position. Adapters
            that change weights (LoRA, rsLoRA, DoRA and similar) are accepted.
    """
    for adapter, config in getattr(hf, "peft_config", {}).items():
        if config.is_prompt_learning:
            raise AdapterError(f"adapter {adapter!r}: {config.peft_type} adds tokens, which would move every position")
    return LanguageModel(hf.eval(), tokenizer, name)


def load(
    base: str | Path,
    *,
    adapters: Mapping[str, str | Path] | None = None,
    dtype: str | torch.dtype = "float32",
    device_map: Any = None,
) -> LanguageModel:
    """Load a base model and its adapters from safetensors, without pickle and without code from the repository.

    Afterwards the first adapter is active, as in peft; every measurement names its adapter with ``active_adapter``.

    Args:
        base: Folder or Hugging Face name.
        adapters: Name -> folder or Hugging Face name of each adapter.
        dtype: Dtype of the weights, such as ``float32`` or ``bfloat16``.
        device_map: Passed to transformers, such as ``auto`` for a model larger than one device.

    Raises:
        ValueError: If the base's files lack tensors of its model, which would then be random.
        AdapterError: If an adapter has no safetensors, or its tensors do not fit this base.
    """
    options: dict[str, Any] = {"dtype": dtype, "device_map": device_map, "output_loading_info": True}
    hf, loading = cast(
        Any,
        AutoModelForCausalLM.from_pretrained(str(base), use_safetensors=True, trust_remote_code=False, **options),
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"base {str(base)!r}: its files lack {len(missing)} tensors of the model, such as {missing[0]}"
        )
    tokenizer = load_tokenizer(str(base))
    for name, source in (adapters or {}).items():
        hf = _attach(hf, name, _adapter_folder(name, str(source)))
    return wrap(hf, tokenizer, name=str(base))


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer, respecting a config that asks for the generic class.

    transformers gives some families (Qwen2 among them) the tokenizer class of that family, whatever the folder's config
    says. A small model with its own vocabulary would then be tokenised wrongly, without an error.
    """
    generic = get_tokenizer_config(base, trust_remote_code=False).get("tokenizer_class") == TokenizersBackend.__name__
    loader = TokenizersBackend if generic else AutoTokenizer
    return loader.from_pretrained(base, trust_remote_code=False)


def _adapter_folder(name: str, source: str) -> Path:
    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download

        source = snapshot_download(source, allow_patterns=[WEIGHTS, CONFIG, MANIFEST])
    check_files(name, Path(source))
    return Path(source)


def check_files(name: str, folder: Path) -> None:
    """Refuse a folder that is not an adapter.

    Raises:
        AdapterError: If its config or its safetensors are missing.
    """
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterError(f"adapter {name!r}: {folder} has no {file}")


def _attach(hf: Any, name: str, folder: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(folder / WEIGHTS)
    _check_fingerprint(hf, name, folder)
    try:
        if hasattr(hf, "get_base_model"):
            hf.load_adapter(str(folder), adapter_name=name)
        else:
            hf = PeftModel.from_pretrained(hf, str(folder), adapter_name=name)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise AdapterError(f"adapter {name!r} ({folder}) was made for another base: {reason}") from error
    loaded = set(get_peft_model_state_dict(hf, adapter_name=name))
    if loaded != set(saved):
        unmatched = sorted(loaded ^ set(saved))
        raise AdapterError(
            f"adapter {name!r} ({folder}) was made for another base: {len(unmatched)} of its tensors do not match, "
            f"such as {unmatched[0]}"
        )
    return hf


def fingerprint(hf: nn.Module) -> str:
    """Hash the base weights without adapters: names, shapes and 64 evenly spaced bfloat16 values per parameter.

    A base loaded in float32 or bfloat16 has the same fingerprint; float16 may differ. Training writes it to the
    adapter's ``manifest.json`` as ``base_fingerprint``, and ``load`` then refuses the adapter on any other base.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(_plain_names(_base(hf))):
        flat = parameter.detach().flatten()
        sample = flat[torch.linspace(0, flat.numel() - 1, min(64, flat.numel()), device=flat.device).long()]
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(sample.to("cpu", torch.bfloat16).view(torch.uint16).numpy().tobytes())
    return digest.hexdigest()


def _plain_names(base: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the base's parameters under the names that they have without peft's wrappers."""
    trained = (".lora_", "modules_to_save.", "lora_magnitude_vector")
    for name, parameter in base.named_parameters():
        if not any(mark in name for mark in trained):
            yield name.replace(".base_layer.", ".").replace(".original_module.", "."), parameter


def _check_fingerprint(hf: Any, name: str, folder: Path) -> None:
    manifest = folder / MANIFEST
    expected = json.loads(manifest.read_text()).get("base_fingerprint") if manifest.is_file() else None
    if expected is None or next(hf.parameters()).dtype == torch.float16:
        return
    actual = fingerprint(hf)
    if actual != expected:
        raise AdapterError(
            f"adapter {name!r} ({folder}) was made for another base: its base is {expected[:12]}, this is {actual[:12]}"
        )


def require_adapter(lm: LanguageModel, name: str) -> None:
    """Refuse the name of an adapter that is not loaded.

    Raises:
        AdapterError: If the model has no adapter of that name.
    """
    if name not in lm.adapters:
        raise AdapterError(f"adapter {name!r}: the model has {', '.join(lm.adapters) or 'no adapter'}")


def active_adapters(lm: LanguageModel) -> tuple[str, ...]:
    """Return the adapters that act on a forward pass now; an empty tuple means the bare base."""
    if not lm.adapters:
        return ()
    state = _adapter_state(lm.hf)
    return () if state.off else state.active


@contextmanager
def active_adapter(lm: LanguageModel, name: str | None) -> Iterator[None]:
    """Use one adapter, or the bare base for ``None``; on exit the previous one is active again.

    Raises:
        AdapterError: If the model has no adapter of that name.
    """
    if name is not None:
        require_adapter(lm, name)
    if not lm.adapters:
        yield
        return
    state = _adapter_state(lm.hf)
    try:
        _switch(lm.hf, (list(state.active) if name is None else [name]), off=name is None)
        yield
    finally:
        _switch(lm.hf, list(state.active), off=state.off)
        for parameter, flag in state.requires_grad:
            parameter.requires_grad_(flag)


@dataclass(frozen=True)
class _AdapterState:
    active: tuple[str, ...]
    off: bool
    requires_grad: tuple[tuple[nn.Parameter, bool], ...]  # peft changes these flags when it switches adapters


def _adapter_state(hf: Any) -> _AdapterState:
    from peft.tuners.tuners_utils import BaseTunerLayer

    off = any(module.disable_adapters for module in hf.modules() if isinstance(module, BaseTunerLayer))
    flags = tuple((parameter, parameter.requires_grad) for parameter in hf.parameters())
    return _AdapterState(tuple(hf.active_adapters), off, flags)


def _switch(hf: Any, names: list[str], *, off: bool) -> None:
    hf.base_model.set_adapter(names)
    hf.active_adapter = names[0]
    (hf.base_model.disable_adapter_layers if off else hf.base_model.enable_adapter_layers)()


@torch.inference_mode()
def check_live(lm: LanguageModel, adapter: str, prompts: Sequence[Chat] | None = None) -> float:
    """Return how far an adapter moves the next-token logits: max |Δlogit| over all tokens of the prompts.

    An adapter that failed to load is exactly the identity and would look like perfect containment.

    Raises:
        AdapterError: If the adapter is unknown, has non-finite weights or logits, or changes nothing.

    Not evidence for: the right adapter; only ``load`` compares it with the base it was trained on.
    """
    _check_finite(lm, adapter)
    chats = prompts or [encode_chat(lm.tokenizer, [{"role": "user", "content": text}]) for text in PROBE_MESSAGES]
    with active_adapter(lm, None):
        without = _logits(lm, chats)
    with active_adapter(lm, adapter):
        adapted = _logits(lm, chats)
    delta = (adapted - without).abs().max().item()
    if not delta < float("inf"):
        raise AdapterError(f"adapter {adapter!r}: its logits are not finite")
    if delta == 0.0:
        raise AdapterError(f"adapter {adapter!r}: it changes no logit of {len(chats)} prompts, so it is not loaded")
    return delta


def _check_finite(lm: LanguageModel, adapter: str) -> None:
    for name, parameter in lm.hf.named_parameters():
        if f".{adapter}" in name and not torch.isfinite(parameter).all():
            raise AdapterError(f"adapter {adapter!r}: {name} is not finite")


def _logits(lm: LanguageModel, chats: Sequence[Chat]) -> torch.Tensor:
    ids, mask = pad_left(chats, 0, lm.device)
    logits = lm.base(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits
    return logits[mask.bool()].float()
