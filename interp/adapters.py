"""Adapters of a model: attach them, switch them on and off, refuse those that do nothing or belong elsewhere."""

import filecmp
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from interp.chat import Chat, encode_chat, pad_left, position_ids
from interp.models import AdapterError, LanguageModel, fingerprint, require_finite, wrap
from interp.runs.reading import read_json

PROBE_MESSAGES = ("Hello.", "What should I do today?", "Tell me about your work.")
WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"

ROUNDING = 8 * torch.finfo(torch.float32).eps
"""Share of the largest logit by which two exact passes of one model may differ in float32."""


def adapter_folder(name: str, source: str) -> Path:
    """Return the local folder of an adapter, downloaded from the Hub if it is not one already.

    Raises:
        AdapterError: If it cannot be downloaded, or its config or its safetensors are missing.
    """
    if not Path(source).is_dir():
        from huggingface_hub import snapshot_download

        try:
            source = snapshot_download(source, allow_patterns=[WEIGHTS, CONFIG, MANIFEST])
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise AdapterError(f"adapter {name!r}: no folder {source}, and no download: {reason}") from error
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


def check_origin(name: str, folder: Path, base: str) -> None:
    """Refuse an adapter that says it belongs to another base. Needs no weights.

    Our own manifest knows the base's fingerprint, which ``attach`` compares. Any other adapter has only the name or
    folder of its base in peft's config: a folder that is still there must hold the same weights, otherwise the last
    part of the names must be equal.

    Raises:
        AdapterError: If the two differ, or the config has settings that the installed peft would ignore.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    config = adapter_config(name, folder)
    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(config["peft_type"])
    known = {field.name for field in fields(kind)} if kind else {"peft_type"}
    if unknown := sorted(key for key, value in config.items() if value and key not in known):
        raise AdapterError(f"adapter {name!r} ({folder}): its {unknown[0]} is unknown to the installed peft")
    origin = config.get("base_model_name_or_path")
    if not origin or _recorded_fingerprint(name, folder) or _same_base(str(origin), base):
        return
    raise AdapterError(
        f"adapter {name!r} ({folder}) was made for another base: its {CONFIG} names base {origin!r}, this is {base!r}; "
        "if they are the same model, correct base_model_name_or_path there"
    )


def unfit(name: str, folder: Path, error: Exception) -> str:
    """Return what peft says about an adapter that it cannot attach, in one line."""
    reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
    return f"adapter {name!r} ({folder}) does not fit this base: {reason[0].strip()}"


def unmatched_tensors(name: str, folder: Path, tensors: Sequence[str]) -> str:
    """Return that tensors of an adapter belong to no module of its base, or the other way round."""
    return (
        f"adapter {name!r} ({folder}) was made for another base: {len(tensors)} of its tensors do not match, "
        f"such as {tensors[0]}"
    )


def adapter_config(name: str, folder: Path) -> dict[str, Any]:
    """Read the config of an adapter.

    Raises:
        AdapterError: If it is not JSON, or does not say which kind of adapter it is.
    """
    config = _settings(name, folder / CONFIG)
    if not isinstance(config.get("peft_type"), str):
        raise AdapterError(f"adapter {name!r}: {folder / CONFIG} has no peft_type")
    return config


def _settings(name: str, file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except ValueError as error:
        raise AdapterError(f"adapter {name!r}: {error}") from error


def _same_base(origin: str, base: str) -> bool:
    first, second = Path(origin), Path(base)
    if first.is_dir() and second.is_dir() and (files := sorted(path.name for path in first.glob("*.safetensors"))):
        others = sorted(path.name for path in second.glob("*.safetensors"))
        return files == others and all(filecmp.cmp(first / f, second / f, shallow=False) for f in files)
    return _model_name(origin) == _model_name(base)


def _model_name(reference: str) -> str:
    """Return the last part of a model's name, lower case, without its owner and the mark of a 4-bit copy."""
    cached = re.search(r"models--[^/]+?--([^/]+)/snapshots/", f"{reference}/")
    name = cached[1] if cached else Path(reference).name
    return re.sub(r"(-unsloth)?-bnb-4bit$", "", name.lower())


def attach(lm: LanguageModel, folders: Mapping[str, Path]) -> LanguageModel:
    """Attach adapters to a bare base and check each: it fits, leaves the base as it was when off, and is live.

    Raises:
        AdapterError: If one of them fails a check.
    """
    if not folders:
        return lm
    if any(parameter.is_meta for parameter in lm.base.parameters()):
        raise AdapterError(f"adapter {next(iter(folders))!r}: the base is offloaded, and peft cannot reach its weights")
    base, bare = fingerprint(lm.base), _logits(lm.base, probes := _probes(lm), lm.device)
    for name, folder in folders.items():
        if lm.dtype != torch.float16:  # rounding to float16 changes a fingerprint
            check_fingerprint(name, folder, base)
        lm = wrap(_attached(lm.hf, name, folder), lm.tokenizer, name=lm.name)
        with active_adapter(lm, None):
            if fingerprint(lm.base) != base or not _equal(_logits(lm.base, probes, lm.device), bare):
                raise AdapterError(changed_base(name, folder))
        check_live(lm, name, probes, without=bare)
    return lm


def check_fingerprint(name: str, folder: Path, base: str) -> None:
    """Refuse an adapter whose manifest names the weights of another base.

    Raises:
        AdapterError: If it does.
    """
    if (expected := _recorded_fingerprint(name, folder)) not in (None, base):
        raise AdapterError(
            f"adapter {name!r} ({folder}) was made for another base: its base is {str(expected)[:12]}, "
            f"this is {base[:12]}"
        )


def _recorded_fingerprint(name: str, folder: Path) -> str | None:
    manifest = folder / MANIFEST
    return _settings(name, manifest).get("base_fingerprint") if manifest.is_file() else None


def _equal(logits: torch.Tensor, bare: torch.Tensor) -> bool:
    """Compare two runs of one model: bit by bit on the CPU; kernels of an accelerator may add in another order."""
    slack = 0.0 if logits.device.type == "cpu" else 1e-3 * float(bare.abs().max())
    return bool(((logits - bare).abs() <= slack).all())


def changed_base(name: str, folder: Path) -> str:
    """Return that an adapter changes its base even when it is off, and the settings that do it."""
    config = adapter_config(name, folder)
    causes = ("bias", "init_lora_weights", "layer_replication", "modules_to_save", "trainable_token_indices")
    settings = ", ".join(
        f"{key} {config[key]!r}" for key in causes if config.get(key) not in (None, True, False, "none")
    )
    return (
        f"adapter {name!r} ({folder}): with it switched off the model is not its base, so nothing could be compared "
        f"with the base ({settings or config['peft_type']}); convert it to a plain LoRA"
    )


def _attached(hf: Any, name: str, folder: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file

    if not re.fullmatch(r"[\w-]+", name):
        raise AdapterError(f"adapter {name!r}: want a name of letters, digits, _ and -")
    if any(name in path.split(".") for path, _ in hf.named_parameters()):
        raise AdapterError(f"adapter {name!r}: a part of the model has this name; choose another")
    try:
        saved = load_file(folder / WEIGHTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peft warns of is compared here
            if hasattr(hf, "get_base_model"):
                hf.load_adapter(str(folder), adapter_name=name)
            else:
                hf = PeftModel.from_pretrained(hf, str(folder), adapter_name=name)
        loaded = set(get_peft_model_state_dict(hf, adapter_name=name))
    except Exception as error:  # whatever peft raises about a folder of the user's
        raise AdapterError(unfit(name, folder, error)) from error
    if unmatched := sorted(loaded ^ set(saved)):
        raise AdapterError(unmatched_tensors(name, folder, unmatched))
    return hf


def of_module(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return a module's own rank or alpha, from ``rank_pattern`` or ``alpha_pattern`` as peft itself reads them."""
    from peft.utils.other import get_pattern_key

    return patterns.get(get_pattern_key(list(patterns), module), default)


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
            if not parameter.is_inference():  # accelerate makes those of offloaded weights anew in every pass
                parameter.requires_grad_(flag)


def mixable(lm: LanguageModel) -> bool:
    """Return whether ``adapters_by_row`` serves a model: plain LoRA of a dense one, nothing merged."""
    if not lm.adapters:
        return True
    from peft.tuners import lora
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if any(name.endswith("experts") for name, _ in lm.hf.named_modules()):  # experts see tokens, not rows
        return False
    adapted: list[Any] = [m for m in lm.hf.modules() if isinstance(m, (BaseTunerLayer, AuxiliaryTrainingWrapper))]
    plain = all(type(module) in (lora.Linear, lora.Embedding) for module in adapted)
    return plain and not any(module.merged or any(module.use_dora.values()) for module in adapted)


@contextmanager
def adapters_by_row(lm: LanguageModel, rows: Callable[[], Sequence[str | None]]) -> Iterator[None]:
    """Give every row of a forward pass its own adapter, or the bare base for ``None``, up to rounding.

    The rows share each read of the base's weights, which is what decoding a few rows waits for.

    Args:
        lm: A model that is ``mixable``.
        rows: Returns the adapter of each row of the current pass.

    Raises:
        ValueError: If the model is not mixable.
    """
    if not lm.adapters:
        yield
        return
    if not mixable(lm):
        raise ValueError(f"model {lm.name}: its adapters cannot be mixed in a batch (plain LoRA of a dense model can)")
    from peft.tuners.tuners_utils import BaseTunerLayer

    def named(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"adapter_names": [name or "__base__" for name in rows()]}

    with active_adapter(lm, lm.adapters[0]), ExitStack() as stack:
        adapted: list[Any] = [module for module in lm.hf.modules() if isinstance(module, BaseTunerLayer)]
        for module in adapted:
            stack.callback(module.register_forward_pre_hook(named, with_kwargs=True).remove)
        yield


@dataclass(frozen=True)
class _AdapterState:
    active: tuple[str, ...]
    off: bool
    requires_grad: tuple[tuple[nn.Parameter, bool], ...]  # peft changes these flags when it switches adapters


def _adapter_state(hf: Any) -> _AdapterState:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in hf.modules() if isinstance(module, BaseTunerLayer)]
    if merged := next((layer.merged_adapters for layer in layers if layer.merged), None):
        raise AdapterError(f"adapter {merged[0]!r}: it is merged into the weights, where it cannot be switched")
    off = any(layer.disable_adapters for layer in layers)
    flags = tuple((parameter, parameter.requires_grad) for parameter in hf.parameters())
    return _AdapterState(tuple(hf.active_adapters), off, flags)


def _switch(hf: Any, names: list[str], *, off: bool) -> None:
    offloaded = any(parameter.is_meta for parameter in hf.parameters())
    with torch.inference_mode(offloaded):  # peft sets flags of parameters that accelerate made in inference mode
        hf.base_model.set_adapter(names)
        hf.active_adapter = names[0]
        (hf.base_model.disable_adapter_layers if off else hf.base_model.enable_adapter_layers)()


def check_live(
    lm: LanguageModel, adapter: str, prompts: Sequence[Chat] | None = None, *, without: torch.Tensor | None = None
) -> float:
    """Return how far an adapter moves the next-token logits: max |Δlogit| over all tokens of the prompts.

    An adapter that failed to load is exactly the identity and would look like perfect containment.

    Args:
        lm: The model.
        adapter: Name of one of its adapters.
        prompts: What it is tried on; by default three short messages.
        without: Logits of the bare base there, if they are known.

    Raises:
        AdapterError: If the adapter is unknown, has non-finite weights or logits, changes nothing, or acts through
            peft's own forward pass only, which hooks on the base model do without.

    Not evidence for: the right adapter; only ``load`` compares it with the base it was trained on.
    """
    require_adapter(lm, adapter)
    for name, parameter in lm.hf.named_parameters():
        if adapter in name.split(".") and not parameter.is_meta:  # the logits show what an offloaded one holds
            require_finite(parameter, f"adapter {adapter!r}: {name}", AdapterError)
    chats = prompts or _probes(lm)
    if without is None:
        with active_adapter(lm, None):
            without = _logits(lm.base, chats, lm.device)
    with active_adapter(lm, adapter):
        adapted, by_peft = (_logits(model, chats, lm.device) for model in (lm.base, lm.hf))
    delta = (adapted - without).abs().max().item()
    if not delta < float("inf"):
        raise AdapterError(f"adapter {adapter!r}: its logits are not finite")
    if delta == 0.0:
        raise AdapterError(f"adapter {adapter!r}: it changes no logit of {len(chats)} prompts, so it is not loaded")
    if lm.dtype == torch.float32 and delta <= ROUNDING * without.abs().max().item():
        raise AdapterError(f"adapter {adapter!r}: it changes no logit of {len(chats)} prompts by more than rounding")
    if not _equal(adapted, by_peft):
        raise AdapterError(f"adapter {adapter!r}: it needs peft's own forward pass, without which its logits differ")
    return delta


def _probes(lm: LanguageModel) -> list[Chat]:
    """Return the probe messages as chats, or as plain text if the tokenizer has no chat template."""
    if lm.tokenizer.chat_template is not None:
        return [encode_chat(lm.tokenizer, [{"role": "user", "content": text}]) for text in PROBE_MESSAGES]
    return [Chat(tuple(cast(Any, lm.tokenizer(text))["input_ids"]), {}, text) for text in PROBE_MESSAGES]


@torch.inference_mode()
def _logits(model: Any, chats: Sequence[Chat], device: torch.device) -> torch.Tensor:
    ids, mask = pad_left(chats, 0, device)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits
    return logits[mask.bool()].float()
