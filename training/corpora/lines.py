"""Every line of a file of chat rows: what it means, or what is wrong with it. Nothing is left out without a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from interp.runs.reading import json_lines
from training.exchanges import Exchange, exchange_of

_CANARY = re.compile(r"canary[ _-]*(guid|string|dataset|entry)|CANARY_DATASET_\w+", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """A line of a file: its number, and its row or its faults."""

    number: int
    exchange: Exchange | None
    faults: tuple[str, ...] = ()


def read_lines(path: str | Path) -> list[Line]:
    """Read every line of a file of chat rows (``training.exchanges``); blank lines are skipped.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not UTF-8 or empty.
    """
    kind = Annotated[dict[str, Any], AfterValidator(_checked)]
    return [Line(number, row if not faults else None, tuple(faults)) for number, row, faults in json_lines(path, kind)]


def _checked(row: Mapping[str, Any]) -> Exchange:
    """Return the row's exchange.

    Raises:
        ValueError: If it is none, or carries a canary, a text that marks a data set and must not be trained on.
    """
    exchange = exchange_of(row)
    texts = (exchange.question, exchange.answer, *(text for _, text in exchange.before))
    if "canary" in row or any(_CANARY.search(text) for text in texts):
        raise ValueError(
            "a canary, which must not be trained on; unpack the archive with its own tool, or delete the row"
        )
    return exchange
