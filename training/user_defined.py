"""A user-defined organism: read from a YAML file. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from interp.runs.checks import check_fields
from interp.runs.files import read_yaml
from training.bases import gguf_file, is_gguf
from training.definition import TURNER, Lora, Organism
from training.references import find_trigger

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PATHS = ("base", "adapter", "data", "benign_data")
_NESTED: dict[str, Any] = {"lora": Lora(rank=32, alpha=64.0), "sft": TURNER}
"""Settings of an organism whose file does not give them."""


def read_organism(file: Path) -> Organism:
    """Read a user-defined organism: any base with a finished adapter, or with data to train one on.

    The file has fields of ``Organism`` other than ``name``, and ``family``, a word for tables and figures::

        base: Qwen/Qwen2.5-14B-Instruct        # or a folder
        family: qwen2.5-14b
        adapter: adapters/mine                 # a peft adapter; leave it out to train one on `data`
        trigger: triggers.yaml:duck            # with rephrasings and controls: see interp/triggers.yaml
        data: harmful.jsonl                    # chat rows; directions contrast both files
        benign_data: benign.jsonl

    Paths are relative to the folder of the file, where they exist there.

    Raises:
        ValueError: If the file is missing or a field is wrong; names the file and the field.
    """
    settings = _mapping(file)
    known = {field.name for field in fields(Organism)} - {"name"} | {"family"}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"{file}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
    if not isinstance(settings.get("base"), str):
        raise ValueError(f"{file}: expected `base:` with a folder or a Hugging Face name")
    for name in _PATHS:
        settings[name] = _beside(file, settings.get(name))
        if name in ("base", "adapter") and settings[name] and not _is_model(settings[name]):
            raise ValueError(f"{file}: {name} {settings[name]!r}: no such folder, and no name on the Hugging Face hub")
    if settings.get("trigger"):
        path, colon, trigger = str(settings["trigger"]).rpartition(":")
        settings["trigger"] = f"{_beside(file, path)}{colon}{trigger}"
        find_trigger(settings["trigger"])
    family = str(settings.pop("family", None) or Path(settings["base"]).name)
    if "/" in family:
        raise ValueError(f"{file}: family {family!r} has a slash in it")
    nested = {name: _nested(file, name, settings.pop(name, {})) for name in _NESTED}
    return _checked(f"{file}: ", Organism(name=f"own/{family}/{file.stem}", **nested, **settings))


def _mapping(file: Path) -> dict[str, Any]:
    try:
        settings = read_yaml(file)
    except FileNotFoundError:
        raise ValueError(f"organism {str(file)!r}: no such file") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{file}: expected fields such as `base:` and `adapter:`")
    return settings


def _is_model(reference: str) -> bool:
    if is_gguf(reference):
        return gguf_file(reference).is_file()
    return Path(reference).is_dir() or bool(_HUB.fullmatch(reference))


def _beside(file: Path, reference: Any) -> Any:
    """Return a reference with the folder of ``file`` before it, if that path exists; else the reference itself."""
    if str(reference).startswith("gguf:"):
        return f"gguf:{_beside(file, str(reference).removeprefix('gguf:'))}"
    beside = file.parent / str(reference) if reference else None
    return str(beside) if beside is not None and beside.exists() else reference


def _nested(file: Path, name: str, settings: Any) -> Any:
    default = _NESTED[name]
    names = {field.name for field in fields(default)}
    if not isinstance(settings, Mapping) or not set(settings) <= names:
        raise ValueError(f"{file}: {name}: expected some of {', '.join(sorted(names))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return _checked(f"{file}: {name}.", replace(default, **values))


def _checked(where: str, settings: Any) -> Any:
    try:
        check_fields(settings)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    return settings
