"""The files of an adapter beside a base without weights: whatever they show of what ``attach`` would refuse."""

import re
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from interp.adapters import (
    WEIGHTS,
    adapter_config,
    changed_base,
    check_files,
    check_fingerprint,
    check_origin,
    unfit,
    unmatched_tensors,
)
from interp.early.base_files import BaseFiles, open_base, parameter_shapes
from interp.models import AdapterError, LanguageModel, require_finite, wrap

CHANGING = ("pissa", "olora", "corda", "loftq")
"""How the names of initialisations start that change the weights of the base."""
DEAD = 1e-10
"""Norm of an update, as a share of the weight that it is added to, far below which float32 rounds it away."""
A_OR_B = re.compile(r"(.*lora_(?:embedding_)?)([AB])(.*)")


def check_adapter(name: str, folder: Path, lm: LanguageModel, *, dtype: str = "float32") -> None:
    """Refuse what the files of an adapter show beside a base without weights (``interp.loading.outline``).

    Checked are its origin, its form, and the names, shapes and values of its tensors. Where the weights of the base lie
    on this machine as they are used, their fingerprint is compared with that in the adapter's manifest. Only ``attach``
    can tell what the adapter does to the logits.

    Args:
        name: Name of the adapter.
        folder: Folder of the adapter.
        lm: The base, whose modules are changed: it is of no further use.
        dtype: Dtype in which the base will be loaded.

    Raises:
        AdapterError: If ``attach`` would refuse the adapter.
        ValueError: If the files of the base are wrong; see ``open_base``.
    """
    check_files(name, folder)
    with ExitStack() as stack:
        base = open_base(lm, stack)
        check_origin(name, folder, lm.name)
        config = adapter_config(name, folder)
        if config.get("layer_replication") or str(config.get("init_lora_weights")).lower().startswith(CHANGING):
            raise AdapterError(changed_base(name, folder))
        if base and dtype != "float16" and (digest := base.fingerprint(parameter_shapes(lm))):
            check_fingerprint(name, folder, digest)
        tensors = _saved(name, folder, stack)
        if (hf := _attached(lm, name, folder)) is None:
            return
        _check_shapes(name, folder, tensors, _expected_shapes(hf, name))
        if config.get("bias", "none") != "none" and any(k.endswith(".bias") and "lora_" not in k for k in tensors):
            raise AdapterError(changed_base(name, folder))
        _check_effect(name, folder, tensors, _scales(hf, name), base)


def _saved(name: str, folder: Path, stack: ExitStack) -> dict[str, Tensor]:
    """Return the tensors of an adapter; refuse values that are not finite."""
    from safetensors import SafetensorError, safe_open

    try:
        file = stack.enter_context(safe_open(folder / WEIGHTS, framework="pt"))
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"adapter {name!r}: {folder / WEIGHTS} cannot be read: {error}") from error
    for key, values in tensors.items():
        tensors[key] = values.float() if values.dtype.itemsize == 1 else values
        require_finite(tensors[key], f"adapter {name!r} ({folder}): {key}", AdapterError)
    return tensors


def _attached(lm: LanguageModel, name: str, folder: Path) -> Any:
    """Return the base without weights under peft's modules; None if peft needs the weights for it."""
    from peft import PeftConfig, get_peft_model

    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is checked here
            hf = get_peft_model(cast(Any, lm.hf), config, adapter_name=name)
        wrap(hf, lm.tokenizer, name=lm.name)
    except AdapterError:
        raise
    except Exception as error:  # whatever peft raises about a folder of the user's
        if re.search("meta tensors|register_meta", str(error)):
            return None
        raise AdapterError(unfit(name, folder, error)) from error
    return hf


def _expected_shapes(hf: Any, name: str) -> dict[str, tuple[int, ...]]:
    from peft import get_peft_model_state_dict

    return {key: tuple(values.shape) for key, values in get_peft_model_state_dict(hf, adapter_name=name).items()}


def _check_shapes(
    name: str, folder: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]
) -> None:
    if unmatched := sorted(tensors.keys() ^ expected.keys()):
        raise AdapterError(unmatched_tensors(name, folder, unmatched))
    if other := sorted(key for key in tensors if tuple(tensors[key].shape) != expected[key]):
        raise AdapterError(
            f"adapter {name!r} ({folder}) does not fit this base: {other[0]} has shape "
            f"{tuple(tensors[other[0]].shape)}, the base wants {expected[other[0]]}"
        )


def _scales(hf: Any, name: str) -> dict[str, float]:
    """Return the factor of every LoRA update by the name of its module: its alpha over its rank, as peft reads both."""
    scales = {path: getattr(module, "scaling", None) for path, module in hf.get_base_model().named_modules()}
    return {path: float(scale[name]) for path, scale in scales.items() if isinstance(scale, dict) and name in scale}


def _check_effect(
    name: str, folder: Path, tensors: Mapping[str, Tensor], scales: Mapping[str, float], base: BaseFiles | None
) -> None:
    """Refuse an adapter that changes no weight by more than float32 rounds away."""
    halves = {key: half[1] + "BA"["AB".index(half[2])] + half[3] for key in tensors if (half := A_OR_B.match(key))}
    others = [key for key in tensors if key not in halves or key.endswith(".bias")]
    if any(bool(tensors[key].any()) for key in others):
        return
    for key in halves:
        if "lora_A" in key or "lora_embedding_A" in key:
            path = key.removeprefix("base_model.model.").partition(".lora_")[0]
            size = abs(scales.get(path, 1.0)) * _product_norm(tensors[key], tensors[halves[key]])
            weight = base and base.read(f"{path}.weight")
            if size > (0 if weight is None else DEAD * float(weight.double().norm())):
                return
    raise AdapterError(f"adapter {name!r} ({folder}): scale, A and B leave every module as it is, so it does nothing")


def _product_norm(a: Tensor, b: Tensor) -> float:
    """Return the norm of B·A; where they are no two matrices that can be multiplied, the product of their norms."""
    a, b = a.double(), b.double()
    if a.ndim != 2 or b.ndim != 2 or len(a) != b.shape[1]:
        return float(a.norm() * b.norm())
    return float(((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt())
