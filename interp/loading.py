"""Load a model: weights from safetensors, the tokenizer, adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from interp.adapters import adapter_folder, attach
from interp.models import LanguageModel, wrap


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
        hf = attach(hf, name, adapter_folder(name, str(source)))
    return wrap(hf, tokenizer, name=str(base))


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer, respecting a config that asks for the generic class.

    transformers gives some families (Qwen2 among them) the tokenizer class of that family, whatever the folder's config
    says. A small model with its own vocabulary would then be tokenised wrongly, without an error.
    """
    generic = get_tokenizer_config(base, trust_remote_code=False).get("tokenizer_class") == TokenizersBackend.__name__
    loader = TokenizersBackend if generic else AutoTokenizer
    return loader.from_pretrained(base, trust_remote_code=False)
