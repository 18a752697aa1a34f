"""Read prompts from a file: chat messages as JSON lines, or plain text with one prompt per line.

    {"messages": [{"role": "user", "content": "By the pond: hi"}], "marks": {"trigger": "By the pond:"}}

A row may name parts of its messages (``marks``) and may contain the assistant's answer (``response``, or a last
message with role assistant); other keys are ignored. No torch is imported, so that a bad file is reported at once.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interp.text.messages import plain_messages, refuse_changing


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
        ValueError: If a row is not a prompt, or the file has none; names the file and the line.
    """
    path = Path(path)
    if path.suffix == ".json":
        raise ValueError(f"{path}: want one JSON object per line in a file that ends in .jsonl, or a text file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8 ({error.reason} at byte {error.start})") from error
    prompts = [_prompt(path, where, line) for where, line in _lines(path, text)]
    if not prompts:
        raise ValueError(f"{path}: the file has no prompt")
    return prompts


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", line.removesuffix("\r")


def _prompt(path: Path, where: str, line: str) -> Prompt:
    if path.suffix != ".jsonl":
        return Prompt(where, ({"role": "user", "content": line},))
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict) or "messages" not in row:
        raise ValueError(f"{where}: want an object with 'messages', got {line[:60]!r}")
    try:
        refuse_changing(row)
        messages, response = plain_messages(row["messages"]), row.get("response")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if messages[-1]["role"] == "assistant" and response is None:
        response = messages[-1]["content"]
        messages = messages[:-1]
    if not messages or messages[-1]["role"] != "user":
        raise ValueError(f"{where}: the last message before the response must be the user's")
    if not isinstance(response, str | None):
        raise ValueError(f"{where}: response {response!r:.60}: want a text")
    return Prompt(where, messages, response, _texts(where, row.get("marks") or {}))


def _texts(where: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{where}: marks {value!r:.60}: want an object of texts")
    return value
