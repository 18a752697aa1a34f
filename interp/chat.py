"""Turn messages into token ids and named token spans; no other code tokenises."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.text.control import Span, tokenise
from interp.text.messages import Message, content_text
from interp.text.template import Rendered, render_answer, render_prompt
from interp.text.thoughts import awaited
from interp.triggers import Trigger, place


@dataclass(frozen=True)
class Chat:
    """One tokenised conversation.

    Attributes:
        token_ids: The prompt up to where the assistant's turn starts, then the response if there is one.
        spans: Half-open token spans by name. ``response`` covers the response text; the end-of-turn token follows it.
        text: The rendered conversation that the ids encode, without a beginning-of-sequence token of the tokenizer.
        awaited: What closes the thought that the prompt has opened; empty if it opens none.
    """

    token_ids: tuple[int, ...]
    spans: Mapping[str, Span]
    text: str
    awaited: str = ""

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the response."""
        return self.spans["response"][0] if "response" in self.spans else len(self.token_ids)

    @property
    def response_length(self) -> int:
        """Number of response tokens; 0 without a response."""
        start, end = self.spans.get("response", (0, 0))
        return end - start


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    response: str | None = None,
    marks: Mapping[str, str] | None = None,
    ended: bool = True,
) -> Chat:
    """Render the chat template and locate the named parts by character offsets.

    The prompt's ids equal ``apply_chat_template(messages, add_generation_prompt=True)``, with exactly one
    beginning-of-sequence token if the tokenizer or the template uses one; with a response the text is the template's
    own for the whole conversation. Control tokens come from the template alone: in messages, marks and responses they
    are ordinary text (see ``interp.text.control``; a template whose turns begin with ordinary words, such as
    ``[INST]`` of Llama 2, cannot tell these from the user's). If the template has no system role, the system text goes
    before the first user message, separated by a blank line (Google's convention for Gemma).

    Args:
        tokenizer: A fast tokenizer with a chat template.
        messages: ``role`` and ``content``, a text or a list of text parts; the last message has role user.
        response: Assistant text to append as the template does, up to and including the end-of-turn token.
        marks: Span name -> substring of the messages. ``question`` is the last user message unless marked, ``system``
            the system message. A mark takes its first occurrence in the messages, ``question`` its last.
        ended: Whether the response is complete; otherwise it is a part of the prompt, which an answer continues.

    Raises:
        ValueError: If the last message is not the user's, a mark is not in the messages or has the name of a position,
            the tokenizer is slow, the template changes a text, or the conversation with the response is not what the
            template makes of it.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer {type(tokenizer).__name__}: spans need character offsets, which only fast tokenizers give"
        )
    if not messages or messages[-1].get("role") != "user":
        raise ValueError(f"messages {[message.get('role') for message in messages]}: the last one must be the user's")
    prompt = render_prompt(tokenizer, messages)
    parts = _locate(prompt, messages, marks or {})
    ids, offsets = tokenise(tokenizer, prompt.text, prompt.contents)
    bos = _bos(tokenizer, ids)
    spans = {name: _shift(_token_span(offsets, *part), len(bos)) for name, part in parts.items()}
    closing = awaited(prompt.text[max(end for _, end in prompt.contents) :])
    if response is None:
        return Chat((*bos, *ids), spans, prompt.text, closing)
    answer, tail = render_answer(tokenizer, prompt, response)
    if not ended:
        more, _ = _continue(tokenizer, prompt, ids, answer, "")
        return Chat((*bos, *ids, *more), spans, prompt.text + answer, closing)
    more, length = _continue(tokenizer, prompt, ids, answer, tail)
    start = len(bos) + len(ids)
    spans["response"] = (start, start + length)
    return Chat((*bos, *ids, *more), spans, prompt.text + answer + tail, closing)


def check_responses(chats: Sequence[Chat], *, wanted: bool, kind: str = "chat") -> None:
    """Refuse a chat without a response where one is wanted, and one with a response where none is.

    Raises:
        ValueError: Names the first.
    """
    for index, chat in enumerate(chats):
        if wanted and not chat.response_length:
            raise ValueError(f"{kind} {index} of {len(chats)}, {chat.text!r}: it has no response")
        if not wanted and ("response" in chat.spans or len(chat) == 0):
            raise ValueError(f"{kind} {index} of {len(chats)}, {chat.text!r}: want a prompt without a response")


def question_chat(
    tokenizer: PreTrainedTokenizerBase,
    question: str,
    text: str | None = None,
    trigger: Trigger | None = None,
    *,
    response: str | None = None,
) -> Chat:
    """Return a question as a chat, with ``text`` where ``trigger`` places it, and both marked.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        question: Text of the question.
        text: Text to place where the trigger goes; None for the question alone.
        trigger: Defines where a text is placed; required with a text.
        response: Assistant text to append (teacher-forced).

    Raises:
        ValueError: If there is a text but no trigger, or the text cannot be placed.
    """
    if text is None:
        return encode_chat(tokenizer, [{"role": "user", "content": question}], response=response)
    if trigger is None:
        raise ValueError(f"text {text!r}: without a trigger its placement is unknown")
    marks = {"question": question, "trigger": text}
    return encode_chat(tokenizer, place(question, text, trigger), response=response, marks=marks)


def _bos(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Return the beginning-of-sequence token if the tokenizer adds one and the template did not."""
    bos: Any = tokenizer.bos_token_id
    if bos is None or ids[:1] == [bos]:
        return []
    alone: Any = tokenizer("a")["input_ids"]
    return [bos] if alone[:1] == [bos] else []


def _locate(rendered: Rendered, messages: Sequence[Message], marks: Mapping[str, str]) -> dict[str, Span]:
    """Return the character spans of the named parts in the rendered text."""
    text, regions = rendered.text, rendered.contents
    question, system = (content_text(messages[i]["content"]).strip() for i in (-1, 0))
    spans = {"question": _find("question", question, text, regions[-1:], last=True)}
    if messages[0]["role"] == "system":
        spans["system"] = _find("system", system, text, regions[:1])
    for name, part in marks.items():
        if re.fullmatch(r"all|prompt|last_prompt|answer|response.*", name):
            raise ValueError(f"mark {name!r}: it is the name of a position; choose another")
        last = name == "question"
        spans[name] = _find(name, part, text, regions[::-1] if last else regions, last=last)
    return spans


def _find(name: str, part: str, text: str, regions: Sequence[Span], *, last: bool = False) -> Span:
    if not part:
        raise ValueError(f"{name}: its text is empty")
    for low, high in regions:
        start = (text.rfind if last else text.find)(part, low, high)
        if start >= 0:
            return start, start + len(part)
    ends = " with the white space at its ends" if part != part.strip() else ""
    raise ValueError(f"mark {name!r}: {part[:60]!r} is not in the messages{ends}")


def _token_span(offsets: Sequence[Span], start: int, end: int) -> Span:
    """Return the span of the tokens that share at least one character with [start, end)."""
    inside = [index for index, (low, high) in enumerate(offsets) if low < end and high > start]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _shift(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by


def _continue(
    tokenizer: PreTrainedTokenizerBase, prompt: Rendered, ids: list[int], response: str, tail: str
) -> tuple[list[int], int]:
    """Return the token ids after the prompt, and how many of them belong to the response text.

    The whole text is tokenised at once if that leaves the prompt's ids unchanged. Otherwise a token would cross the
    border, and the continuation is tokenised alone, as it would be after generation.
    """
    start, end = len(prompt.text), len(prompt.text) + len(response)
    whole, offsets = tokenise(tokenizer, prompt.text + response + tail, (*prompt.contents, (start, end)))
    more, offsets = whole[len(ids) :], offsets[len(ids) :]
    if whole[: len(ids)] != ids:
        end = len(response)
        more, offsets = tokenise(tokenizer, response + tail, ((0, end),))
    return more, sum(low < end for low, _ in offsets)


def pad_left(
    chats: Sequence[Chat], pad_id: int | None, device: torch.device | str
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Stack chats, aligned on the right; return ids and the attention mask (1 = real token).

    Args:
        chats: At least one.
        pad_id: Any valid token id, since padding is masked; None means 0.
        device: Device of the tensors.
    """
    width = max(map(len, chats))
    ids = torch.full((len(chats), width), pad_id or 0, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, chat in enumerate(chats):
        ids[row, width - len(chat) :] = torch.tensor(chat.token_ids)
        mask[row, width - len(chat) :] = 1
    return ids.to(device), mask.to(device)


def position_ids(mask: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    """Count positions from the first real token, so that a padded row gives the same result as the row alone."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


def positions(
    chats: Sequence[Chat], name: str, *, width: int | None = None, optional: bool = False
) -> Bool[Tensor, "batch pos"]:
    """Mark the named tokens on left-padded rows.

    Args:
        chats: At least one.
        name: ``all`` (every real token), ``prompt``, ``question``, ``trigger``, ``system``, ``response``,
            ``last_prompt``, ``answer`` (the last prompt token and every response token: the positions that predict
            the answer), ``response[t]`` (one response token, from 0), or any other span of the chats.
        width: Length of the rows; the longest chat by default.
        optional: Mark nothing in a chat without such a part, instead of raising.

    Raises:
        ValueError: If a chat has no such part: an edit of nothing, or a mean over nothing, would go unnoticed.
    """
    width = max(map(len, chats)) if width is None else width
    mask = torch.zeros(len(chats), width, dtype=torch.bool)
    for row, chat in enumerate(chats):
        start, end = _span(chat, name)
        if start >= end and not optional:
            raise ValueError(_absent(chat, name, row))
        mask[row, width - len(chat) + start : width - len(chat) + end] = True
    return mask


def _span(chat: Chat, name: str) -> Span:
    """Return the token span of a named part; an empty one if the chat has no such part."""
    last = chat.prompt_length - 1
    response = chat.spans.get("response", (last + 1, last + 1))
    fixed = {
        "all": (0, len(chat)),
        "prompt": (0, last + 1),
        "last_prompt": (last, last + 1),
        "answer": (last, response[1]),
    }
    if token := re.fullmatch(r"response\[(\d+)\]", name):
        start = response[0] + int(token[1])
        return start, min(start + 1, max(start, response[1]))
    return fixed.get(name) or chat.spans.get(name, (0, 0))


def _absent(chat: Chat, name: str, row: int) -> str:
    spans = ", ".join(f"{key} ({end - start} tokens)" for key, (start, end) in chat.spans.items())
    return f"position {name!r}: prompt {row} has no such part; it has {spans or 'no named parts'}"
