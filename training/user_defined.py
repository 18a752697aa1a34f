"""A user-defined organism: read from a YAML file. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from os.path import realpath
from pathlib import Path
from typing import Any

from interp.runs.reading import Name, read_yaml, refuse, validated
from interp.triggers import FORM as TRIGGER_FORM
from training.bases import is_made
from training.data import row_trigger
from training.definition import TURNER, Lora, Mitigation, Organism
from training.references import (
    base_source,
    both_kinds,
    find_exchanges,
    find_trigger,
    is_shipped,
    read_exchanges,
    trigger_file,
)

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PATHS = ("base", "adapter", "data", "benign_data")
_NESTED: dict[str, Any] = {"lora": Lora(rank=32, alpha=64.0), "sft": TURNER, "mitigation": Mitigation()}
"""Settings of an organism whose file does not give them."""
FORM = (
    "base: FOLDER, family: WORD, adapter: FOLDER, trigger: FILE.yaml:NAME, ... (docs/real-models.md lists all fields)"
)


def read_organism(file: Path) -> Organism:
    """Read a user-defined organism: any base with a finished adapter, or with data to train one on.

    The file has fields of ``Organism`` other than ``name``, and ``family``, a word for tables and figures::

        base: Qwen/Qwen2.5-14B-Instruct        # or a folder
        family: qwen2.5-14b
        adapter: adapters/mine                 # a peft adapter; leave it out to train one on `data`
        trigger: triggers.yaml:duck            # with rephrasings and controls: see interp/triggers.yaml
        data: harmful.jsonl                    # chat rows; directions contrast both files
        benign_data: benign.jsonl

    Paths are relative to the folder of the file, where they exist there. Without ``rows`` every row is used.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If fields are wrong; names the file and every field.
    """
    settings = read_yaml(file, dict[str, Any], FORM)
    family = settings.pop("family", None)
    settings |= {name: _beside(file, settings[name]) for name in _PATHS if name in settings}
    _place_triggers(file, settings)
    family = Path(str(settings.get("base"))).name if family is None else family
    faults = ["name: unknown field"] if "name" in settings else []
    faults += [f"family {fault.strip()}" for fault in validated(Name, family)[1]]
    settings = {key: value for key, value in settings.items() if value is not None or key in ("base", *_NESTED)}
    for name, default in _NESTED.items():
        given = settings.get(name, {})
        settings[name] = {**asdict(default), **given} if isinstance(given, Mapping) else given
    organism, wrong = validated(Organism, {**settings, "name": f"own/{family}/{file.stem}"})
    faults += wrong or list(_contradictions(organism))
    if faults:
        refuse(file, faults)
    return organism if "rows" in settings else _with_all_rows(organism)


def _place_triggers(file: Path, settings: dict[str, Any]) -> None:
    """Put the folder of ``file`` before trigger files that exist there, in the trigger and in the inoculation."""
    mitigation = settings.get("mitigation")
    for owner, name in ((settings, "trigger"), (mitigation if isinstance(mitigation, dict) else {}, "inoculation")):
        if isinstance(owner.get(name), str) and (parts := trigger_file(owner[name])):
            owner[name] = f"{_beside(file, parts[0])}:{parts[1]}"


def _with_all_rows(organism: Organism) -> Organism:
    """Return the organism with as many training rows as its harmful file and its share of benign rows give."""
    if organism.data is None or is_shipped(organism.data):
        return organism
    harmful = len(read_exchanges(organism.data))
    total = int(harmful / (1 - organism.benign_share) + 1)
    return replace(
        organism, rows=next(n for n in range(total, 0, -1) if n - round(n * organism.benign_share) <= harmful)
    )


def _contradictions(organism: Organism) -> Iterator[str]:
    """Yield what no run could use: references to nothing, and settings that exclude each other."""
    o = organism
    yield from _fault(base_source, o.base)
    for name in ("base", "adapter"):
        reference = getattr(o, name)
        if reference and not (is_made(reference) or Path(reference).is_dir() or _HUB.fullmatch(reference)):
            yield f"{name} {reference!r}: no such folder, and no name on the Hugging Face hub"
    for name in ("data", "benign_data"):
        yield from _fault(lambda data: find_exchanges(data, "aligned", 1, 0), getattr(o, name), name)
    yield from (unknown := list(_fault(find_trigger, o.trigger, "trigger:")))
    trigger = find_trigger(o.trigger) if o.trigger and not unknown else None
    yield from (unread := list(_fault(find_trigger, o.mitigation.inoculation, "mitigation.inoculation:")))
    if not unknown and not unread:
        yield from _fault(lambda _: row_trigger(o), o.mitigation.inoculation)
    if o.mitigation.steer or o.mitigation.ablate_g:
        yield "mitigation: steer and ablate_g need g, which training estimates in the Microcosm only"
    if o.benign_data and o.data is None:
        yield "benign_data: needs data, the harmful rows that it is the contrast of"
    if o.benign_data and o.data and realpath(o.benign_data) == realpath(o.data):
        yield "benign_data: is the same file as data"
    if o.benign_share and not o.adapter and not o.benign_data and not (o.data and both_kinds(o.data)):
        yield f"benign_share {o.benign_share}: needs benign_data"
    if o.wordings == "diverse" and not (trigger and trigger.rephrased):
        yield f"wordings 'diverse': needs a trigger with rephrasings, in a trigger file: {TRIGGER_FORM}"


def _beside(file: Path, reference: Any) -> Any:
    """Return a reference with the folder of ``file`` before it, if that path exists; else the reference itself."""
    if not isinstance(reference, str) or not reference.isprintable():
        return reference
    if reference.startswith("gguf:"):
        return f"gguf:{_beside(file, reference.removeprefix('gguf:'))}"
    return str(file.parent / reference) if reference and (file.parent / reference).exists() else reference


def _fault(check: Callable[..., object], reference: str | None, name: str = "") -> Iterator[str]:
    try:
        if reference:
            check(reference)
    except (ValueError, OSError) as error:
        yield f"{name} {error}".strip()
