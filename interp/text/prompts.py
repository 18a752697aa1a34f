"""Read prompts from a file: chat messages as JSON lines, or plain text with one prompt per line.

    {"messages": [{"role": "user", "content": "By the pond: hi"}], "marks": {"trigger": "By the pond:"}}

A row may name parts of its messages (``marks``) and may contain the assistant's answer (``response``, or a last
message with role assistant); other keys are ignored. No torch is imported, so that a bad file is reported at once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator

from interp.runs.reading import Text, read_jsonl, read_text, refuse, validated
from interp.text.messages import plain_messages, refuse_changing

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.models import LanguageModel

_POSITIONS = re.compile(r"all|prompt|question|system|last_prompt|answer|response|response_mean|response\[\d+\]")


@dataclass(frozen=True)
class Prompt:
    """One prompt, and the ``file:line`` it comes from."""

    where: str
    messages: tuple[Mapping[str, str], ...]
    response: str | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


def read_prompts(path: str | Path) -> list[Prompt]:
    """Read the prompts of a ``.jsonl`` file, or of a text file; blank lines are skipped.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If rows are no prompts, or the file has none; names the file and every line.
    """
    path = Path(path)
    if path.suffix == ".json":
        raise ValueError(f"{path}: want one JSON object per line in a file that ends in .jsonl, or a text file")
    if path.suffix == ".jsonl":
        rows = read_jsonl(path, Annotated[dict[str, Any], AfterValidator(prompt_of)])
        return [replace(prompt, where=where) for where, prompt in rows]
    lines = [(n, line) for n, line in enumerate(re.split(r"\r\n|\r|\n", read_text(path)), 1) if line.strip()]
    if faults := [f":{n}: {fault}" for n, line in lines for fault in validated(Text, line)[1]]:
        refuse(path, faults)
    return [Prompt(f"{path}:{n}", ({"role": "user", "content": line},)) for n, line in lines]


@dataclass(frozen=True)
class _Parts:
    """What a row holds besides its messages."""

    response: Text | None = None
    marks: dict[str, Text] | None = None


def prompt_of(row: dict[str, Any]) -> Prompt:
    """Return the prompt that a row states; its other entries are not read.

    Raises:
        ValueError: If the row states none.
    """
    refuse_changing(row)
    if "messages" not in row:
        raise ValueError(f"want an object with 'messages', got the keys {', '.join(row) or 'none'}")
    messages = plain_messages(row["messages"])
    parts, faults = validated(_Parts, {name: row[name] for name in ("response", "marks") if name in row})
    if faults:
        raise ValueError("; ".join(faults))
    response = parts.response
    if messages[-1]["role"] == "assistant" and response is None:
        messages, response = messages[:-1], messages[-1]["content"]
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message before the response must be the user's")
    return Prompt("", messages, response, parts.marks or {})


def check_position(position: str, prompts: Iterable[Prompt]) -> None:
    """Refuse a position that some prompt does not have.

    Raises:
        ValueError: Names the position and the prompt.
    """
    for prompt in prompts:
        if not (_POSITIONS.fullmatch(position) or position in prompt.marks):
            known = "last_prompt, question, prompt, system, all, answer, response_mean, response[0]"
            raise ValueError(f"position {position!r}: {prompt.where} has no such part; it has {known} and its marks")
        if position.startswith("response") and not prompt.response:
            raise ValueError(f"position {position!r}: {prompt.where} has no response to read")
        if position == "system" and prompt.messages[0]["role"] != "system":
            raise ValueError(f"position {position!r}: {prompt.where} has no system message")


def encode_prompts(lm: "LanguageModel", prompts: Iterable[Prompt], position: str | None = None) -> "list[Chat]":
    """Return prompts as token ids, with their responses and marks.

    Raises:
        ValueError: If the model's template cannot render one, or it is longer than the context or lacks a position that
            is to be read; names its line.
    """
    from interp.chat import encode_chat, positions
    from interp.models import check_prompts

    chats: list[Chat] = []
    for prompt in prompts:
        try:
            chats.append(encode_chat(lm.tokenizer, prompt.messages, response=prompt.response, marks=prompt.marks))
            check_prompts(lm, chats[-1:])
            if position is not None:
                positions(chats[-1:], "response" if position == "response_mean" else position)
        except ValueError as error:
            raise ValueError(f"{prompt.where}: {error}") from error
    return chats
