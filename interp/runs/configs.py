"""Configs as data: a frozen dataclass to JSON and back, and the hash in the name of a run.

>>> config_hash({"b": 1, "a": 2}) == config_hash({"a": 2, "b": 1})
True
"""

import dataclasses
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair; models and broken input produce them


def jsonable(value: Any) -> Any:
    """Return ``value`` as plain JSON: dataclasses and mappings as objects, sequences as lists, sets as sorted lists.

    Raises:
        ValueError: If a value has no exact JSON form (a NaN, a function, a tensor).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((jsonable(item) for item in value), key=canonical_json)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    finite = isinstance(value, float) and value - value == 0
    if value is None or finite or isinstance(value, str | int):
        return value
    scalar: Any = value
    if getattr(scalar, "ndim", None) == 0:  # a numpy or torch scalar
        return jsonable(scalar.item())
    raise ValueError(f"value {value!r}: a {type(value).__name__} has no exact JSON form")


def canonical_json(value: Any) -> str:
    """Return the canonical JSON text of ``value``: sorted keys, no spaces, escapes only where UTF-8 needs them."""
    text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def config_hash(config: Any, *, length: int = 8) -> str:
    """Return the first ``length`` hexadecimal digits of the SHA-256 of a config's canonical JSON.

    Depends on values only, not on the order of fields, on list or tuple, or on the process.
    """
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:length]


def restore(kind: Any, value: Any) -> Any:
    """Rebuild a config from JSON: ``restore(type(config), jsonable(config)) == config``.

    For nested dataclasses, ``tuple``, ``list``, ``frozenset``, ``Mapping``, ``Path``, ``Literal`` and ``X | None``.

    Raises:
        ValueError: If ``value`` has a field that the dataclass ``kind`` lacks.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return restore(inner[0], value)
    if origin in (typing.Union, types.UnionType):
        return value if value is None else restore(_member(inner, value), value)
    if dataclasses.is_dataclass(kind):
        return _restore_dataclass(kind, value)
    if isinstance(value, Mapping):
        key_kind, item_kind = inner or (Any, Any)
        return {restore(key_kind, key): restore(item_kind, item) for key, item in value.items()}
    if isinstance(value, list):
        kinds = inner if origin is tuple and inner[-1] is not Ellipsis else (inner or (Any,))[:1] * len(value)
        items = [restore(item_kind, item) for item_kind, item in zip(kinds, value, strict=True)]
        return origin(items) if origin in (list, set, frozenset) else tuple(items)
    return kind(value) if kind in (Path, int, float) and type(value) is not kind else value


def _restore_dataclass(kind: Any, value: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    if unknown := sorted(set(value) - {field.name for field in dataclasses.fields(kind)}):
        raise ValueError(f"config field {unknown[0]!r}: {kind.__name__} has no such field")
    return kind(**{name: restore(hints[name], item) for name, item in value.items()})


def _member(kinds: tuple, value: Any) -> Any:
    """Return the member of a union that a JSON value came from: by type, or by field names for an object."""
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if isinstance(value, Mapping):
        fits = [
            k for k in kinds if dataclasses.is_dataclass(k) and set(value) == {f.name for f in dataclasses.fields(k)}
        ]
    else:
        fits = [kind for kind in kinds if type(value) is kind]
    return (*fits, *kinds)[0]
