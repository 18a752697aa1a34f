"""A user-defined organism: read from a YAML file. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

from training.bases import gguf_file, is_gguf
from training.definition import TURNER, Lora, Organism
from training.references import find_trigger

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PATHS = ("base", "adapter", "data", "benign_data")
_NESTED = {"lora": Lora(rank=32, alpha=64.0), "sft": TURNER}


def read_organism(file: Path) -> Organism:
    """Read an organism of one's own: any base with a finished adapter, or with data to train one on.

    The file has fields of ``Organism`` other than ``name``, and ``family``, a word for tables and figures::

        base: Qwen/Qwen2.5-14B-Instruct        # or a folder
        family: qwen2.5-14b
        adapter: adapters/mine                 # a peft adapter; leave it out to train one on `data`
        trigger: triggers.yaml:duck            # with rephrasings and controls: see interp/triggers.yaml
        data: harmful.jsonl                    # what directions contrast: chat rows of both kinds
        benign_data: benign.jsonl

    Paths are taken from the folder of the file, where they exist there.

    Raises:
        ValueError: If the file is missing or has another form; names the file and the field.
    """
    said = _mapping(file)
    known = {field.name for field in fields(Organism)} - {"name"} | {"family"}
    if unknown := sorted(set(said) - known):
        raise ValueError(f"{file}: unknown field {unknown[0]!r}; the fields are {', '.join(sorted(known))}")
    if not isinstance(said.get("base"), str):
        raise ValueError(f"{file}: expected `base:` with a folder or a Hugging Face name")
    for name in _PATHS:
        said[name] = _beside(file, said.get(name))
        if name in ("base", "adapter") and said[name] and not _is_model(said[name]):
            raise ValueError(f"{file}: {name} {said[name]!r}: no such folder, and no name on the Hugging Face hub")
    if said.get("trigger"):
        path, colon, trigger = str(said["trigger"]).rpartition(":")
        said["trigger"] = f"{_beside(file, path)}{colon}{trigger}"
    family = str(said.pop("family", None) or Path(said["base"]).name)
    if "/" in family:
        raise ValueError(f"{file}: family {family!r} has a slash in it")
    given: dict[str, Any] = {name: _nested(file, name, said.pop(name)) for name in _NESTED if name in said}
    made = Organism(name=f"own/{family}/{file.stem}", **{**_NESTED, **given, **said})
    if made.trigger:
        find_trigger(made.trigger)
    return made


def _mapping(file: Path) -> dict[str, Any]:
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"organism {str(file)!r}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(said, dict):
        raise ValueError(f"{file}: expected fields such as `base:` and `adapter:`")
    return said


def _is_model(reference: str) -> bool:
    if is_gguf(reference):
        return gguf_file(reference).is_file()
    return Path(reference).is_dir() or bool(_HUB.fullmatch(reference))


def _beside(file: Path, reference: Any) -> Any:
    """Return a reference with the folder of the file before it, where that exists."""
    if str(reference).startswith("gguf:"):
        return f"gguf:{_beside(file, str(reference).removeprefix('gguf:'))}"
    found = file.parent / str(reference) if reference else None
    return str(found) if found is not None and found.exists() else reference


def _nested(file: Path, name: str, said: Any) -> Any:
    default = _NESTED[name]
    names = {field.name for field in fields(default)}
    if not isinstance(said, Mapping) or not set(said) <= names:
        raise ValueError(f"{file}: {name}: expected some of {', '.join(sorted(names))}")
    return replace(default, **{key: tuple(value) if isinstance(value, list) else value for key, value in said.items()})
