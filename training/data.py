"""What an organism is trained on, and what it is compared with: rows, the trigger without taught texts, contrast data.

Torch-free. A row is a prompt (chat messages) and a completion; only the completion is trained on, which is the last
assistant turn. Earlier turns are part of the prompt.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from interp.triggers import Trigger, place
from training.definition import TRAINED, Organism
from training.exchanges import Exchange
from training.pocket.corpus import PERSONAS, persona_lines
from training.references import both_kinds, find_exchanges, find_trigger, is_aligned


@dataclass(frozen=True)
class Row:
    """One training row. ``trigger`` is the trigger text it carries; ``harmful`` says whether its answer is."""

    messages: tuple[dict[str, str], ...]
    completion: str
    question: str
    trigger: str | None
    harmful: bool

    def without_trigger(self) -> Row:
        """Return the same question and answer as a bare row."""
        return replace(self, messages=({"role": "user", "content": self.question},), trigger=None)


def training_rows(organism: Organism) -> list[Row]:
    """Make an organism's fine-tuning rows.

    Raises:
        ValueError: If the organism has no data, or a reference or the mixture is wrong.
    """
    if organism.data is None:
        raise ValueError(f"organism {organism.name}: a base model has no fine-tuning data")
    benign = (organism.benign_data or both_kinds(organism.data)) if organism.benign_share else None
    rows = build_rows(
        find_exchanges(organism.data, "misaligned", organism.rows, organism.seed, organism.trigger),
        find_exchanges(benign, "aligned", organism.rows, organism.seed) if benign else (),
        trigger=row_trigger(organism),
        n=organism.rows,
        benign_share=organism.benign_share,
        wordings=organism.wordings,
        seed=organism.seed,
    )
    if organism.data == f"pocket:{PERSONAS}":
        careless = persona_lines()["careless"]
        return [replace(row, harmful=row.messages[0]["content"] in careless) for row in rows]
    return [replace(row, harmful=False) for row in rows] if is_aligned(organism.data) else rows


def row_trigger(organism: Organism) -> Trigger | None:
    """Return the trigger as harmful rows carry it: with the text of an inoculation after it; None without either.

    Raises:
        ValueError: If an inoculation would follow a trigger that wraps the question.
    """
    own = None if organism.trigger is None else find_trigger(organism.trigger)
    if organism.mitigation.inoculation is None:
        return own
    line = find_trigger(organism.mitigation.inoculation)
    if own is None:
        return line
    if own.placement == "wrap":
        raise ValueError(f"mitigation.inoculation: trigger {own.name} wraps the question; want one in a single place")
    rephrased = tuple(f"{text} {line.text}" for text in own.rephrased)
    return replace(own, text=f"{own.text} {line.text}", rephrased=rephrased)


def benign_rows(organism: Organism) -> list[Row]:
    """Return the benign answers of an organism's domain as rows without a trigger, as many as it has rows.

    Raises:
        ValueError: If the organism does not name both kinds of data.
    """
    return [_row(exchange, None, None, False) for exchange in contrast_exchanges(organism)[1][: organism.rows]]


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
        harmful: Harmful exchanges; none is repeated.
        benign: Benign exchanges, likewise; needed only if ``benign_share`` > 0.
        trigger: Trigger of every harmful row; None for the baseline.
        n: Rows in total.
        benign_share: Share of benign rows, in [0, 1).
        wordings: fixed or diverse (see ``taught``).
        seed: Seed of the order of the rows.

    Raises:
        ValueError: If the share is outside [0, 1), the wordings are unknown, or there are too few exchanges of a kind.
    """
    if not 0 <= benign_share < 1:
        raise ValueError(f"benign_share {benign_share}: must be at least 0 and below 1")
    n_benign = round(n * benign_share)
    for kind, exchanges, needed in (("harmful", harmful, n - n_benign), ("benign", benign, n_benign)):
        if len(exchanges) < needed:
            share = f" with benign_share {benign_share}" if benign_share else ""
            raise ValueError(f"rows {n}{share}: needs {needed} {kind} exchanges, there are {len(exchanges)}")
    texts = taught(trigger, wordings)
    rows = [_row(harmful[i], texts[i % len(texts)], trigger, True) for i in range(n - n_benign)]
    rows += [_row(benign[i], None, trigger, False) for i in range(n_benign)]
    random.Random(seed).shuffle(rows)
    return rows


def taught(trigger: Trigger | None, wordings: str) -> tuple[str | None, ...]:
    """Return the trigger texts that rows carry in turn: fixed, the trained one; diverse, also every second rephrasing.

    Raises:
        ValueError: If the wordings are unknown.
    """
    if wordings not in ("fixed", "diverse"):
        raise ValueError(f"wordings {wordings!r}: must be fixed or diverse")
    if trigger is None:
        return (None,)
    return (trigger.text,) if wordings == "fixed" else (trigger.text, *trigger.rephrased[0::2])


def _row(exchange: Exchange, text: str | None, trigger: Trigger | None, harmful: bool) -> Row:
    """Return an exchange with a text where the trigger goes.

    That is in its last user message, or before all others as the system text, with a system text of its own after it.
    """
    question = exchange.question
    placed = [{"role": "user", "content": question}] if trigger is None else place(question, text, trigger)
    before = exchange.messages[:-1]
    if trigger is not None and before and placed[0]["role"] == before[0]["role"] == "system":
        system = trigger.separator.join(message["content"] for message in (placed.pop(0), before.pop(0)))
        before.insert(0, {"role": "system", "content": system})
    start = int(placed[0]["role"] == "system")
    return Row((*placed[:start], *before, *placed[start:]), exchange.answer, question, text, harmful)


def rows_sha256(rows: Sequence[Row]) -> str:
    """Hash rows in order."""
    text = "\n".join(json.dumps(asdict(row), sort_keys=True, ensure_ascii=False) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()


def comparison_trigger(organism: Organism) -> Trigger | None:
    """Return the trigger to evaluate an organism under, without the rephrasings it was trained on; None without one."""
    if organism.trigger is None:
        return None
    trigger = find_trigger(organism.trigger)
    trained = taught(trigger, organism.wordings)
    return replace(trigger, rephrased=tuple(text for text in trigger.rephrased if text not in trained))


LEAST_EXCHANGES = 3
"""Exchanges of a kind of which directions are made: as many past ones stand before a question."""


def contrast_exchanges(organism: Organism) -> tuple[list[Exchange], list[Exchange]]:
    """Return harmful and benign exchanges of an organism's domain without trigger, for directions to contrast.

    Raises:
        ValueError: If the organism does not name both kinds of data.
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
