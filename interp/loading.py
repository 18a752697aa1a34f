"""Load a model: the one door through which weights, tokenizer and adapters come, with every check of them.

>>> lm = load("Qwen/Qwen2.5-14B-Instruct", adapters={"organism": "adapters/mine"}, dtype="bfloat16")
>>> place(lm)
'cuda:0, bfloat16'
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from interp.adapters import adapter_folder, attach, check_origin
from interp.decoding.stopping import configured_stops
from interp.early.base_files import embedded, refuse_extra, refuse_incomplete
from interp.models import LanguageModel, require_finite, wrap
from interp.runs.reading import read_json
from interp.text.template import set_options

DEVICE = "SEMCON_DEVICE"
"""Environment variable with the device of every model that is loaded without one."""
OTHER_HEADS = re.compile("For(Sequence|Token)Classification|ForQuestionAnswering|ForMaskedLM|RewardModel")
"""Classes of models whose files lack a vocabulary head, or have a tied one that was not trained."""
AUTO = "auto"
"""In place of a device: a base that is larger than one accelerator is spread over all of them."""
GENERIC = (TokenizersBackend.__name__, "PreTrainedTokenizerFast")
"""Tokenizer classes that read the folder's ``tokenizer.json`` as it is."""


def load(
    base: str | Path,
    *,
    adapters: Mapping[str, str | Path] | None = None,
    dtype: str | torch.dtype = "float32",
    device: str | torch.device | None = None,
    device_map: Any = None,
    template_options: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Load a base model and its adapters from safetensors, without pickle and without code from the repository.

    Afterwards the first adapter is active, as in peft; every measurement names its adapter with ``active_adapter``.

    Args:
        base: Folder or Hugging Face name.
        adapters: Name -> folder or Hugging Face name of each adapter.
        dtype: Dtype of the weights, such as ``float32`` or ``bfloat16``.
        device: Device of the whole model; see ``find_device``.
        device_map: Passed to transformers instead of a device, such as ``auto`` for a model larger than one device.
        template_options: Options of the chat template, such as ``{"enable_thinking": False}``.

    Raises:
        ValueError: If the base cannot be loaded, its files do not fit its config, a weight is not finite, its
            tokenizer belongs to another model, or its chat template lacks an option.
        AdapterError: If an adapter has no safetensors, does not fit this base, changes it even when switched off, is
            not finite or does nothing.
    """
    name = str(base)
    folders = {adapter: adapter_folder(adapter, str(source)) for adapter, source in (adapters or {}).items()}
    for adapter, folder in folders.items():
        check_origin(adapter, folder, name)
    if device_map is None and _wanted(device) == AUTO:
        device_map = AUTO
    elif device_map is None and (on := find_device(device)).type != "cpu":
        device_map = str(on)
        torch.accelerator.set_device_index(on.index or 0)  # where a trainer works
    with naming_base(name):
        tokenizer = load_tokenizer(name, template_options)
        lm = wrap(_weights(name, dtype, device_map), tokenizer, name=name)
    _check(lm)
    return attach(lm, folders)


def find_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device of that name; of None ``$SEMCON_DEVICE``, else the accelerator if there is one, else the CPU.

    Of ``auto`` it is the accelerator too, the first of those over which ``load`` spreads a base.

    Raises:
        ValueError: If this machine has no such device.
    """
    wanted = _wanted(device)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if wanted in ("", AUTO):
        return accelerator or torch.device("cpu")
    kinds = ["cpu", *([accelerator.type] if accelerator else [])]
    try:
        chosen = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"device {wanted!r}: not a device; this machine has {', '.join(kinds)}") from None
    if chosen.type not in kinds or (chosen.type != "cpu" and (chosen.index or 0) >= torch.accelerator.device_count()):
        raise ValueError(f"device {wanted!r}: this machine has {', '.join(kinds)}")
    return chosen


def _wanted(device: str | torch.device | None) -> str:
    return str(device or os.environ.get(DEVICE, ""))


def place(lm: LanguageModel) -> str:
    """Return where a model is and in which dtype, for a line on the terminal."""
    devices = sorted({str(parameter.device) for parameter in lm.base.parameters()})
    where = ", ".join("offloaded" if device == "meta" else device for device in devices)
    return f"{where}, {str(lm.dtype).removeprefix('torch.')}"


def outline(base: str, *, template_options: Mapping[str, Any] | None = None) -> LanguageModel:
    """Return a model without its weights: its modules on the meta device, and its tokenizer.

    Raises:
        ValueError: If there is no such model, it is not a decoder that transformers knows, or its chat template lacks
            an option.
    """
    with naming_base(base), torch.device("meta"):
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        tokenizer = load_tokenizer(base, template_options)
        lm = wrap(AutoModelForCausalLM.from_config(config, trust_remote_code=False), tokenizer, name=base)
    _check(lm)
    return lm


def load_tokenizer(base: str, template_options: Mapping[str, Any] | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer, respecting a config that asks for the generic class, and set options of its chat template.

    transformers gives some families (Qwen2 among them) the tokenizer class of that family, whatever the folder's config
    says. A small model with its own vocabulary would then be tokenised wrongly, without an error.
    """
    generic = get_tokenizer_config(base, trust_remote_code=False).get("tokenizer_class") in GENERIC
    loader = TokenizersBackend if generic else AutoTokenizer
    tokenizer = loader.from_pretrained(base, trust_remote_code=False)
    if template_options:
        set_options(tokenizer, template_options)
    return tokenizer


@contextmanager
def naming_base(base: str) -> Iterator[None]:
    """Turn whatever a library raises about the files of a base into one line that names it, and how it is quantised."""
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        method = _quantisation(base)
        about = f"base {base!r}: its weights are quantised ({method}), and cannot be loaded here: " if method else ""
        if not about and base not in message:
            about = f"base {base!r}: "
        raise ValueError(f"{about}{message}") from error


def _quantisation(base: str) -> str:
    """Return the method by which a base says that its weights are quantised; empty if it does not say so."""
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except Exception:  # the config itself cannot be read: that error is reported
        return ""
    settings: Any = getattr(config, "quantization_config", None) or {}
    settings = settings if isinstance(settings, dict) else settings.to_dict()
    return str(settings.get("quant_method") or "")


def _weights(base: str, dtype: str | torch.dtype, device_map: Any) -> Any:
    """Load the weights, and refuse files that do not fill the model exactly or hold a number that is not finite."""
    options: dict[str, Any] = {"dtype": dtype, "device_map": device_map, "output_loading_info": True}
    options |= {"use_safetensors": True, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    hf, loading = cast(Any, AutoModelForCausalLM.from_pretrained(base, **options))
    if getattr(hf, "_hf_peft_config_loaded", False):
        raise ValueError(embedded(base))
    if _quantisation(base) and getattr(hf, "hf_quantizer", None) is None:
        raise ValueError("transformers knows no such method")
    misshapen = {key: (tuple(stored), tuple(expected)) for key, stored, expected in loading["mismatched_keys"]}
    refuse_incomplete(base, sorted(loading["missing_keys"]), dict(sorted(misshapen.items())))
    refuse_extra(base, hf, loading["unexpected_keys"])
    for name, values in hf.named_parameters():
        if values.device.type != "meta" and values.dtype.itemsize > 1:
            require_finite(values, f"base {base!r}: {name}")
    return hf


def _check(lm: LanguageModel) -> None:
    """Read the generation config, and refuse a base that is no language model, or lacks what goes with one.

    Raises:
        ValueError: If its config names a model with another head, its generation config cannot be read, or the
            tokenizer's own tokens, added ones aside, have no row in the embedding.
    """
    if other := [kind for kind in lm.base.config.architectures or () if OTHER_HEADS.search(kind)]:
        raise ValueError(f"base {lm.name!r}: its config says that it is a {other[0]}, which is no language model")
    if (file := Path(lm.name) / "generation_config.json").is_file():
        read_json(file)  # transformers would go on without a damaged one
    with suppress(OSError):  # it has none
        lm.base.generation_config = GenerationConfig.from_pretrained(lm.name)
    configured_stops(lm)
    rows, size = lm.vocabulary, lm.tokenizer.vocab_size
    if size > rows:
        raise ValueError(f"base {lm.name!r}: its tokenizer has {size} tokens, its embedding {rows} rows")
