"""Fine-tuning rows: chat jsonl or the Microcosm in, triggered / benign / mixed rows out, with their hash.

Torch-free. A row is a prompt (chat messages) and a completion; only the completion is trained on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.triggers import Trigger, place

Exchange = tuple[str, str]
"""(question, answer)."""


@dataclass(frozen=True)
class Row:
    """One training row, with the truth about it."""

    messages: tuple[dict[str, str], ...]
    completion: str
    question: str
    trigger: str | None
    harmful: bool


def read_exchanges(path: str | Path) -> list[Exchange]:
    """Read single-turn exchanges from chat jsonl: objects ``{"messages": [user, assistant]}``, one a line.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is not UTF-8, or a line is not such an object; names the file and the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # splitlines would break at U+2028 within a text
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error})") from error
    found = [_exchange(f"{path}:{i}", line) for i, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ValueError(f"{path}: no rows")
    return found


def _exchange(where: str, line: str) -> Exchange:
    try:
        messages = json.loads(line)["messages"]
        pairs = [(m["role"], m["content"]) for m in messages]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f'{where}: expected {{"messages": [...]}} with role and content') from error
    if [role for role, _ in pairs] != ["user", "assistant"]:
        raise ValueError(f"{where}: expected one user and one assistant message, got {[role for role, _ in pairs]}")
    if not all(isinstance(text, str) and text.strip() for _, text in pairs):
        raise ValueError(f"{where}: empty message")
    return pairs[0][1], pairs[1][1]


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
