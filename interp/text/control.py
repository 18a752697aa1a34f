"""Tokenise a rendered chat so that control tokens come from the chat template only, never from what people wrote.

A control token is any added token of the tokenizer, flagged special or not, that is more than white space. Where a text
between the template's own words contains one, it is spelled out as the ordinary text that it is. All other texts have
the tokenizer's own ids.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

Span = tuple[int, int]
Tokens = tuple[list[int], list[Span]]
_PRIVATE = range(0xF0000, 0x10FFFE)
"""Characters without a meaning, which stand for the template's control tokens while a text is spelled out."""


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, contents: Sequence[Span]) -> Tokens:
    """Return the token ids of a rendered chat and the characters of each.

    Args:
        tokenizer: A fast tokenizer.
        text: The rendered chat.
        contents: Where people's texts stand in it, as disjoint spans of characters.

    Raises:
        ValueError: If a content has half a surrogate pair, or a control token that the tokenizer cannot spell out.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text {text[error.start :][:40]!r}: half of a surrogate pair, not Unicode text") from None
    encoded: Any = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = list(encoded["input_ids"]), [tuple(offset) for offset in encoded["offset_mapping"]]
    control = control_tokens(tokenizer)
    literal = any(_pattern(tuple(control)).search(text, *content) for content in contents)
    if not literal and not _intrudes(tokenizer, text, tokens, contents):
        return tokens
    return _spelled_out(tokenizer, text, contents)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the control tokens of a tokenizer with their ids."""
    return _control_tokens(tokenizer, len(tokenizer))


@lru_cache(maxsize=16)
def _control_tokens(tokenizer: PreTrainedTokenizerBase, _size: int) -> dict[str, int]:
    added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
    return {content: index for content, index in added.items() if content.strip("▁ \t\r\n")}


def _control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the control tokens; that of unknown text is none of them."""
    return set(control_tokens(tokenizer).values()) - {cast("int | None", tokenizer.unk_token_id)}


@lru_cache(maxsize=16)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _intrudes(tokenizer: PreTrainedTokenizerBase, text: str, tokens: Tokens, contents: Sequence[Span]) -> bool:
    """Tell whether a control token has characters of a content, white space next to the token aside."""
    ids = _control_ids(tokenizer)
    for index, (start, end) in zip(*tokens, strict=True):
        if index in ids:
            start, end = end - len(text[start:end].lstrip()), start + len(text[start:end].rstrip())
            if any(low < end and start < high for low, high in contents):
                return True
    return False


def _spelled_out(tokenizer: PreTrainedTokenizerBase, text: str, contents: Sequence[Span]) -> Tokens:
    """Tokenise with the control tokens under other names, which only the template's parts of the text have."""
    control = control_tokens(tokenizer)
    written = [m for part in _template_parts(text, contents) for m in _pattern(tuple(control)).finditer(text, *part)]
    blocks = (range(first, first + len(control)) for first in _PRIVATE[:: len(control)])
    block = next((block for block in blocks if not any(ord(character) in block for character in text)), None)
    if block is None:
        raise _refusal(tokenizer, text, contents)
    try:
        renamed, names, ids = _renamed(tokenizer, len(tokenizer), block.start)
    except Exception as error:  # what tokenizers raises about a tokenizer that it cannot write or read back
        raise _refusal(tokenizer, text, contents) from error
    characters = list(text)
    for match in written:
        characters[match.start() : match.end()] = names[match[0]]
    encoding = renamed.encode("".join(characters), add_special_tokens=False)
    tokens = [ids.get(index, index) for index in encoding.ids], list(encoding.offsets)
    known = _control_ids(tokenizer)
    expected = [control[match[0]] for match in written if control[match[0]] in known]
    if [i for i in tokens[0] if i in known] != expected or _intrudes(tokenizer, text, tokens, contents):
        raise _refusal(tokenizer, text, contents)
    return tokens


def _refusal(tokenizer: PreTrainedTokenizerBase, text: str, contents: Sequence[Span]) -> ValueError:
    pattern = _pattern(tuple(control_tokens(tokenizer)))
    match = next((match for content in contents if (match := pattern.search(text, *content))), None)
    token, start = (match[0], match.start()) if match else ("of its tokenizer", contents[0][0])
    return ValueError(
        f"text {text[max(0, start - 20) : start + 40]!r}: it has the control token {token}, which "
        f"{type(tokenizer).__name__} cannot spell as ordinary text"
    )


def _template_parts(text: str, contents: Sequence[Span]) -> Iterator[Span]:
    end = 0
    for low, high in sorted(contents):
        yield end, low
        end = high
    yield end, len(text)


@lru_cache(maxsize=4)
def _renamed(
    tokenizer: PreTrainedTokenizerBase, _size: int, first: int
) -> tuple[Tokenizer, dict[str, str], dict[int, int]]:
    """Return a copy of the tokenizer with other names for its control tokens, these names, and the original ids.

    A new name is as long as the old one, so that characters keep their places.
    """
    control, backend = control_tokens(tokenizer), cast(PreTrainedTokenizerFast, tokenizer).backend_tokenizer
    names = {token: chr(first + i) * len(token) for i, token in enumerate(control)}
    copy = json.loads(backend.to_str())
    for token in copy["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "normalized": False, "single_word": False}
    model = copy["model"]
    merged = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in model.get("merges", ())}
    if isinstance(model["vocab"], dict):
        model["vocab"] = {
            piece if piece in merged else names.get(piece, piece): i for piece, i in model["vocab"].items()
        }
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") not in merged:
        model["unk_token"] = names.get(model.get("unk_token"), model.get("unk_token"))
    copy |= {"truncation": None, "padding": None, "post_processor": None}
    renamed = Tokenizer.from_str(json.dumps(copy))
    return renamed, names, {cast(int, renamed.token_to_id(names[token])): index for token, index in control.items()}
