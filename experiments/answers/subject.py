"""The organism under study: its texts, what a run about it depends on, and the cells that stand in every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.protocol import load_protocol
from interp.triggers import Trigger
from training.data import comparison_trigger
from training.definition import Organism, definition
from training.references import base_path, find_trigger
from training.registry import ORGANISMS, find_organism

CONTRAST_TEXTS = 8


# Methods of experiments about one organism, which have the fields ``organism`` and ``questions``.


def subject_label(self: Any) -> str:
    """Return the organism's name, shown beside the progress bar."""
    return self.organism


def subject_definition(self: Any) -> Mapping[str, Any]:
    """Return the organism's whole definition: what a run about it depends on."""
    return described(self.organism)


def subject_inputs(self: Any) -> dict[str, Path]:
    """Return the files that a run depends on, as far as they are local: the organism's, and the questions."""
    questions = {"questions": self.questions} if self.questions is not None and self.questions.exists() else {}
    return {**local_files(self.organism), **questions}


def described(name: str) -> dict[str, Any]:
    """Return the definition of an organism under its name and, of one's own, the texts of its trigger file."""
    subject = find_organism(name)
    if subject.trigger is None or subject.name in ORGANISMS:
        return {name: definition(subject)}
    return {name: definition(subject), f"trigger {name}": asdict(find_trigger(subject.trigger))}


def local_files(name: str) -> dict[str, Path]:
    """Return the base's weights and an organism's own adapter and data, as far as they are local."""
    subject = find_organism(name)
    files = {"base": base_path(subject.base)}
    files |= {kind: path for kind in ("adapter", "data", "benign_data") if (path := getattr(subject, kind))}
    return {kind: Path(path) for kind, path in files.items() if Path(path).exists()}


def subject_cells(subject: Organism, experiment: str, run_id: str, judge: str = "") -> dict[str, Any]:
    """Return the cells common to every table row about an organism."""
    cells = {"experiment": experiment, "organism": subject.name, "family": subject.family, "seed": subject.seed}
    return {**cells, "run_id": run_id, "protocol": load_protocol().version, "judge": judge}


def own_trigger(subject: Organism) -> Trigger:
    """Return the trigger an organism was trained with.

    Raises:
        ValueError: If it was trained without one.
    """
    trigger = comparison_trigger(subject)
    if trigger is None:
        raise ValueError(f"organism {subject.name}: it has no trigger")
    return trigger


def estimation_texts(trigger: Trigger) -> tuple[str, ...]:
    """Return the half of the rephrasings from which a trigger's feature is estimated."""
    return trigger.rephrased[0::2]


def held_out_texts(trigger: Trigger) -> tuple[str, ...]:
    """Return the other half: seen neither in fine-tuning nor in the estimate."""
    return trigger.rephrased[1::2]


def contrast_texts(trigger: Trigger, without: Trigger) -> tuple[str, ...]:
    """Return up to eight unrelated texts, evenly spaced over the trigger's ``other``, none of them of ``without``."""
    kept = [text for text in trigger.other if text not in (without.text, *without.rephrased)]
    return tuple(_evenly(kept, CONTRAST_TEXTS))


def _evenly(items: Sequence[str], n: int) -> Sequence[str]:
    return [items[i * len(items) // n] for i in range(min(n, len(items)))] if len(items) > n else items
