"""The safetensors of a base, looked at without loading it: whole, finite, and those that an adapter was made for."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from re import search
from typing import Any

from torch import Tensor, nn

from interp.models import LanguageModel, digest, require_finite
from interp.runs.reading import read_json

SINGLE, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
READ_WHOLE = 2**30
"""Bytes of a base up to which every number is read; of a larger one, loading tells whether all are finite."""


@dataclass(frozen=True)
class BaseFiles:
    """Where the values of every parameter of a base lie."""

    places: Mapping[str, tuple[Any, str]]
    """Parameter -> open file and key in it."""

    def read(self, parameter: str) -> Tensor | None:
        """Return the values of a parameter; None if the files have it under a name that only loading knows."""
        if parameter not in self.places:
            return None
        file, key = self.places[parameter]
        return file.get_tensor(key)

    def fingerprint(self, parameters: Mapping[str, tuple[int, ...]]) -> str | None:
        """Return ``interp.models.fingerprint`` of these parameters; None if the files do not show all of them."""
        if parameters.keys() - self.places.keys():
            return None
        return digest((name, self.places[name][0].get_tensor(self.places[name][1])) for name in sorted(parameters))


def parameter_shapes(lm: LanguageModel) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of a bare base, tied ones once."""
    return {name: tuple(parameter.shape) for name, parameter in lm.base.named_parameters()}


def open_base(lm: LanguageModel, stack: ExitStack) -> BaseFiles | None:
    """Open the files of a base without weights (``interp.loading.outline``); refuse those that loading would refuse.

    Args:
        lm: The base.
        stack: Closes the files.

    Returns:
        Where the parameters lie; None if the base is not on this machine yet, its weights are quantised or stored in a
        form that transformers converts, or it has different values for what its config ties, which then stays apart:
        then only loading can tell.

    Raises:
        ValueError: If a file is missing or damaged, holds an adapter too, or lacks a tensor; if a tensor has another
            shape than the config says, or, up to ``READ_WHOLE``, a value that is not finite.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    files = _files(lm.name)
    if files is None:
        return None
    keys = {key: file for path in files for file in [_opened(lm.name, path, stack)] for key in file.keys()}  # noqa: SIM118
    if getattr(lm.base.config, "quantization_config", None) or get_model_conversion_mapping(lm.base, add_legacy=False):
        return None
    if any(a in keys and b in keys and not _same(keys, a, b) for a, b in _tied(lm).items()):
        return None
    shapes = parameter_shapes(lm)
    places = {name: (keys[key], key) for name in shapes if (key := _key(name, keys, lm.base.base_model_prefix))}
    _check_complete(lm, shapes, places)
    refuse_extra(lm.name, lm.base, keys.keys() - {key for _, key in places.values()})
    if sum(path.stat().st_size for path in files) <= READ_WHOLE:
        _check_finite(lm.name, places)
    return BaseFiles(places)


def _files(base: str) -> list[Path] | None:
    """Return the safetensors of a base; None if they are not on this machine.

    Raises:
        ValueError: If its folder has none, or holds an adapter too, which transformers would add to the base.
    """
    folder = Path(base)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(base, "config.json")
        folder = Path(found).parent if isinstance(found, str) else folder
        if not any((folder / name).is_file() for name in (SINGLE, INDEX)):
            return None
    if (folder / ADAPTER).is_file():
        raise ValueError(embedded(base))
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise ValueError(f"base {base!r}: it has no {SINGLE}")
    names = read_json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"base {base!r}: {INDEX} has no weight_map")
    return [folder / str(name) for name in sorted(set(map(str, names.values())))]


def embedded(base: str) -> str:
    """Return what is wrong with a base whose folder holds an adapter too."""
    return f"base {base!r}: {ADAPTER} lies in its folder, so it would become part of the base; move it elsewhere"


def _opened(base: str, path: Path, stack: ExitStack) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"base {base!r}: {path.name} cannot be read: {error}") from error


def _key(name: str, keys: Mapping[str, Any], prefix: str) -> str | None:
    """Return the key of a parameter; files of a model without its vocabulary head lack the model's prefix."""
    return next((key for key in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}") if key in keys), None)


def _tied(lm: LanguageModel) -> Mapping[str, str]:
    return getattr(lm.base, "all_tied_weights_keys", None) or {}


def _same(keys: Mapping[str, Any], a: str, b: str) -> bool:
    return bool(keys[a].get_tensor(a).equal(keys[b].get_tensor(b)))


def _check_complete(
    lm: LanguageModel, shapes: Mapping[str, tuple[int, ...]], places: Mapping[str, tuple[Any, str]]
) -> None:
    tied = _tied(lm)
    ignored = getattr(lm.base, "_keys_to_ignore_on_load_missing", None) or ()
    elsewhere = {*tied, *tied.values()}  # a tied parameter may be stored under either name
    lacking = [name for name in shapes if name not in places and name not in elsewhere]
    missing = [name for name in lacking if not any(search(pattern, name) for pattern in ignored)]
    stored = {name: tuple(file.get_slice(key).get_shape()) for name, (file, key) in places.items()}
    refuse_incomplete(lm.name, missing, {name: (s, shapes[name]) for name, s in stored.items() if s != shapes[name]})


def refuse_incomplete(base: str, missing: Sequence[str], misshapen: Mapping[str, tuple[Any, Any]]) -> None:
    """Refuse files that lack tensors of the model, or hold some of another shape than its config asks for.

    Raises:
        ValueError: If they do.
    """
    if missing:
        raise ValueError(f"base {base!r}: its files lack {len(missing)} tensors of the model, such as {missing[0]}")
    for name, (stored, expected) in misshapen.items():
        raise ValueError(f"base {base!r}: {name} has shape {stored}, its config asks for {expected}")


def refuse_extra(base: str, hf: nn.Module, unused: Iterable[str]) -> None:
    """Refuse tensors that the model does not use but for their numbers, such as those of a layer too many.

    Raises:
        ValueError: If there is one.
    """
    names = hf.state_dict().keys()
    kinds = {_without_numbers(name) for name in names}
    if extra := sorted(name for name in unused if name not in names and _without_numbers(name) in kinds):
        raise ValueError(f"base {base!r}: its files have {len(extra)} tensors more than its config, such as {extra[0]}")


def _without_numbers(name: str) -> str:
    return ".".join("#" if part.isdigit() else part for part in name.split("."))


def _check_finite(base: str, places: Mapping[str, tuple[Any, str]]) -> None:
    for name, (file, key) in places.items():
        values = file.get_tensor(key)
        if values.dtype.itemsize > 1:
            require_finite(values, f"base {base!r}: {name}")
