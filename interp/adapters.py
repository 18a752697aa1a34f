"""Adapters of a model: attach them, switch them on and off, refuse those that do nothing or belong elsewhere."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.chat import Chat, encode_chat, pad_left, position_ids
from interp.models import AdapterError, LanguageModel, fingerprint

PROBE_MESSAGES = ("Hello.", "What should I do today?", "Tell me about your work.")
WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"


def adapter_folder(name: str, source: str) -> Path:
    """Return the local folder of an adapter, downloaded from the Hub if it is not one already.

    Raises:
        AdapterError: If its config or its safetensors are missing.
    """
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


def attach(hf: Any, name: str, folder: Path) -> Any:
    """Attach an adapter to a model and return the peft model.

    Raises:
        AdapterError: If its tensors do not fit this base.
    """
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
