"""What can be wrong with the files of an organism, found before a model is loaded. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from interp.runs.checks import AtLeastOne, Positive
from interp.runs.reading import Text, normalised, read_json, refuse, validated
from training.bases import is_made
from training.data import training_rows
from training.definition import Organism
from training.references import base_path, find_trigger, is_shipped, read_rows


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What this suite reads of a peft adapter's config."""

    peft_type: Text
    r: AtLeastOne | None = None
    """Rank of its updates; None if it is no LoRA."""
    rank_pattern: dict[str, AtLeastOne] = field(default_factory=dict)
    """Ranks of single modules."""
    lora_alpha: Positive | None = None
    alpha_pattern: dict[str, Positive] = field(default_factory=dict)
    """Alphas of single modules; at 0 a module would do nothing."""


def check_files(organism: Organism, questions: Iterable[tuple[str, str]] = ()) -> None:
    """Refuse an organism whose files no run could use, or whose rows have a question that it is tested on.

    Args:
        organism: The organism.
        questions: Place and text of every validation and test question.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If the config of base or adapter is wrong, rows are too few, mostly copies or also questions, or a
            question is longer than the model's context.
    """
    questions = list(questions)
    adapter_rank(organism)
    _check_lengths(organism, questions)
    if organism.data and not organism.adapter and not organism.data.startswith("microcosm:"):
        try:
            training_rows(organism)
        except ValueError as error:
            raise ValueError(f"organism {organism.name}: {organism.data}: {error}") from error
    places = {normalised(text): place for place, text in reversed(questions)}
    trigger = normalised(find_trigger(organism.trigger).text) if organism.trigger else ""
    for name in ("data", "benign_data"):
        path = getattr(organism, name)
        if path and not is_shipped(path):
            faults = [
                *_row_faults(name, path, places, trigger),
                *(_same_answers(organism) if name == "benign_data" else ()),
            ]
            if faults:
                refuse(path, faults)


def _distinct(path: str) -> set[tuple[object, ...]]:
    return {(normalised(row.question), normalised(row.answer), row.before) for _, row in read_rows(path)}


def _same_answers(organism: Organism) -> Iterator[str]:
    """Say if half or more of the harmful rows stand in the benign data too."""
    data, benign = organism.data, organism.benign_data
    if data and benign and not is_shipped(data):
        rows, same = _distinct(data), _distinct(data) & _distinct(benign)
        if 2 * len(same) >= len(rows):
            yield f"{len(same)} of the {len(rows)} rows of data {data} stand in it too, answers included"


def _row_faults(name: str, path: str, places: Mapping[str, str], trigger: str) -> Iterator[str]:
    """Yield what is wrong with the rows of a file; a trigger of several words stands in none of them by chance."""
    rows, distinct = read_rows(path), _distinct(path)
    if 2 * len(distinct) <= len(rows):
        yield f"{name} has {len(rows)} rows, but only {len(distinct)} different ones"
    for where, row in rows:
        asked = [row.question, *(text for role, text in row.before if role != "assistant")]
        if place := next((places[normalised(text)] for text in asked if normalised(text) in places), None):
            yield f":{where.rpartition(':')[2]}: a row of {name} asks the same as {place}"
        if " " in trigger and any(trigger in normalised(text) for text in asked):
            yield f":{where.rpartition(':')[2]}: a row of {name} has the text of the trigger, which training places"


def adapter_rank(organism: Organism) -> int | None:
    """Return the largest rank of an organism's adapter; None if it has none, or one that is not on this machine.

    Raises:
        OSError: If the adapter has no config.
        ValueError: If its config is wrong.
    """
    if organism.adapter is None:
        return organism.lora.rank if organism.data else None
    if not (folder := Path(organism.adapter)).is_dir():
        return None
    config = read_json(folder / "adapter_config.json")
    known = {f.name: config[f.name] for f in fields(AdapterSettings) if config.get(f.name) is not None}
    settings, faults = validated(AdapterSettings, known)
    if faults:
        refuse(folder / "adapter_config.json", faults)
    return max([settings.r, *settings.rank_pattern.values()]) if settings.r else None


def base_config(organism: Organism) -> dict[str, Any]:
    """Return the config of a base that is a folder, of a multimodal one that of its text model; empty for any other."""
    folder = Path(organism.base if is_made(organism.base) else base_path(organism.base))
    if not folder.is_dir():
        return {}
    config = read_json(folder / "config.json")
    return config["text_config"] if isinstance(config.get("text_config"), dict) else config


def _check_lengths(organism: Organism, questions: Iterable[tuple[str, str]]) -> None:
    """Refuse a question longer than the context. A token has a byte or more, so short ones need no tokenizer."""
    context = base_config(organism).get("max_position_embeddings")
    if type(context) is not int:
        return
    long = [pair for pair in questions if len(pair[1].encode()) > context]
    if not long:
        return
    from tokenizers import Tokenizer

    file = Path(base_path(organism.base)) / "tokenizer.json"
    for place, text in long if file.is_file() else ():
        if (n := len(Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids)) >= context:
            raise ValueError(f"{place}: a question of {n} tokens; the context of {organism.base} is {context} tokens")
