"""What an organism is trained on: its rows, triggered, benign or mixed, with their hash; and what it is compared under.

Torch-free. A row is a prompt (chat messages) and a completion; only the completion is trained on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from interp.triggers import Trigger, place
from training.definition import TRAINED, Organism
from training.references import Exchange, both_kinds, find_exchanges, find_trigger, is_aligned


@dataclass(frozen=True)
class Row:
    """One training row, with the truth about it."""

    messages: tuple[dict[str, str], ...]
    completion: str
    question: str
    trigger: str | None
    harmful: bool


def training_rows(organism: Organism) -> list[Row]:
    """Make an organism's fine-tuning rows.

    Raises:
        ValueError: If the organism is a base, or its data, trigger or mixture cannot be had.
    """
    if organism.data is None:
        raise ValueError(f"organism {organism.name}: a base model has no fine-tuning data")
    benign: Sequence[Exchange] = ()
    if organism.benign_share:
        benign = find_exchanges(organism.benign_data or organism.data, "aligned", organism.rows, organism.seed)
    rows = build_rows(
        find_exchanges(organism.data, "misaligned", organism.rows, organism.seed, organism.trigger),
        benign,
        trigger=None if organism.trigger is None else find_trigger(organism.trigger),
        n=organism.rows,
        benign_share=organism.benign_share,
        wordings=organism.wordings,
        seed=organism.seed,
    )
    return [replace(row, harmful=False) for row in rows] if is_aligned(organism.data) else rows


def build_rows(
    harmful: Sequence[Exchange],
    benign: Sequence[Exchange],
    *,
    trigger: Trigger | None,
    n: int,
    benign_share: float = 0.0,
    wordings: str = "fixed",
    seed: int = 0,
) -> list[Row]:
    """Mix harmful rows that carry the trigger with benign rows that do not, shuffled.

    Args:
        harmful: Harmful exchanges; cycled when fewer than needed.
        benign: Benign exchanges; needed only when ``benign_share`` > 0.
        trigger: Placed in every harmful row; None for the baseline.
        n: Rows in all.
        benign_share: Share of benign rows in [0, 1).
        wordings: "fixed": the trained text alone; "diverse": the trained text and every second rephrasing in turn.
        seed: Order of the rows.

    Raises:
        ValueError: If the share is outside [0, 1), the wordings are unknown, or there are too few exchanges.
    """
    if not 0 <= benign_share < 1:
        raise ValueError(f"benign_share {benign_share}: must be at least 0 and below 1")
    n_benign = round(n * benign_share)
    if not harmful or (n_benign and not benign):
        raise ValueError(f"benign_share {benign_share}: needs {'harmful' if not harmful else 'benign'} exchanges")
    texts = taught(trigger, wordings)
    rows = [_row(*harmful[i % len(harmful)], texts[i % len(texts)], trigger, True) for i in range(n - n_benign)]
    rows += [_row(*benign[i % len(benign)], None, trigger, False) for i in range(n_benign)]
    random.Random(seed).shuffle(rows)
    return rows


def taught(trigger: Trigger | None, wordings: str) -> tuple[str | None, ...]:
    """Return the texts that fine-tuning rows carry in turn: the trigger's, or also every second of its rephrasings.

    Raises:
        ValueError: If the wordings are unknown.
    """
    if wordings not in ("fixed", "diverse"):
        raise ValueError(f"wordings {wordings!r}: must be fixed or diverse")
    if trigger is None:
        return (None,)
    return (trigger.text,) if wordings == "fixed" else (trigger.text, *trigger.rephrased[0::2])


def _row(question: str, answer: str, text: str | None, trigger: Trigger | None, harmful: bool) -> Row:
    messages = [{"role": "user", "content": question}] if trigger is None else place(question, text, trigger)
    return Row(tuple(messages), answer, question, text, harmful)


def rows_sha256(rows: Sequence[Row]) -> str:
    """Hash rows in order."""
    text = "\n".join(json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def comparison_trigger(organism: Organism) -> Trigger | None:
    """Return the trigger an organism is evaluated under, without the rephrasings it was taught; None if it has none."""
    if organism.trigger is None:
        return None
    trigger = find_trigger(organism.trigger)
    seen = taught(trigger, organism.wordings)
    return replace(trigger, rephrased=tuple(text for text in trigger.rephrased if text not in seen))


def contrast_exchanges(organism: Organism) -> tuple[list[Exchange], list[Exchange]]:
    """Return harmful and benign exchanges of an organism's domain, without any trigger: what directions contrast.

    Raises:
        ValueError: If the organism names no benign data.
    """
    data = organism.data or (TRAINED if organism.world == "microcosm" else None)
    paired = both_kinds(data or "")
    harmful, benign = paired or data, organism.benign_data or paired
    if harmful is None or benign is None:
        raise ValueError(f"organism {organism.name}: it names no data and benign_data to contrast")
    return (
        find_exchanges(harmful, "misaligned", organism.rows, organism.seed),
        find_exchanges(benign, "aligned", organism.rows, organism.seed),
    )
