"""How chat rows look to a model: their tokens, which of them are trained on, and a sample to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.exchanges import Exchange

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ON, OFF = "\x1b[7m", "\x1b[0m"
"""Reverse video, on a terminal; elsewhere the marks stand around what is trained on."""
MARKS = "⟦", "⟧"


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a row: all of them, and those that are trained on."""

    total: int
    supervised: int


def token_counts(tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[Exchange]) -> list[TokenCounts]:
    """Return the tokens of every row, as training sees it: the answer and its end of turn are trained on."""
    encoded = [_encoded(tokenizer, exchange) for exchange in exchanges]
    return [TokenCounts(len(ids), len(ids) - start) for ids, start in encoded]


def highlighted(tokenizer: PreTrainedTokenizerBase, exchange: Exchange, *, terminal: bool) -> str:
    """Return a row as the model reads it, control tokens too, with the tokens that are trained on highlighted."""
    ids, start = _encoded(tokenizer, exchange)
    before, after = (tokenizer.decode(part, skip_special_tokens=False) for part in (ids[:start], ids[start:]))
    on, off = (ON, OFF) if terminal else MARKS
    return f"{before}{on}{after}{off}"


def _encoded(tokenizer: PreTrainedTokenizerBase, exchange: Exchange) -> tuple[list[int], int]:
    from interp.chat import encode_chat

    chat = encode_chat(tokenizer, exchange.messages, response=exchange.answer)
    return list(chat.token_ids), chat.spans["response"][0]
