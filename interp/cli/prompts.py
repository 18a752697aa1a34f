"""Read prompts from a file: chat messages as JSON lines, or plain text with one prompt per line.

    {"messages": [{"role": "user", "content": "By the pond: hi"}], "marks": {"trigger": "By the pond:"}}

A row may name parts of its messages (``marks``) and may contain the assistant's answer (``response``, or a last
message with role assistant); other keys are ignored. No torch is imported, so that a bad file is reported at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from interp.runs.reading import Text, read_jsonl, read_text, validated
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
        ValueError: If rows are no prompts, or the file has none; names the file and every line.
    """
    path = Path(path)
    if path.suffix == ".json":
        raise ValueError(f"{path}: want one JSON object per line in a file that ends in .jsonl, or a text file")
    if path.suffix == ".jsonl":
        rows = read_jsonl(path, Annotated[dict[str, Any], AfterValidator(prompt_of)])
        return [replace(prompt, where=where) for where, prompt in rows]
    lines = [(number, line.removesuffix("\r")) for number, line in enumerate(read_text(path).split("\n"), 1)]
    return [Prompt(f"{path}:{n}", ({"role": "user", "content": line},)) for n, line in lines if line.strip()]


@dataclass(frozen=True)
class _Parts:
    """What a row holds besides its messages."""

    response: str | None = None
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
