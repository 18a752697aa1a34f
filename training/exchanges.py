"""What a row of a data file means: a conversation whose last answer is trained on. Torch-free.

    {"messages": [system?, user, assistant, user, assistant ...]}           the last assistant message is the answer
    {"prompt": [system?, user ...], "completion": [assistant]}              the same, as TRL writes it
    {"prompt": "a question", "completion": "an answer"}                     TRL's plain rows: a user message, an answer

Earlier turns are context. Contents are texts, or lists of text parts. Further entries of a row are not read, except
those that would change the conversation, such as tools and images, which are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.text.messages import plain_messages, refuse_changing

FORMS = '{"messages": [...]} or {"prompt": ..., "completion": ...}'


@dataclass(frozen=True)
class Exchange:
    """A question with its answer, and the (role, text) of every message before the question."""

    question: str
    answer: str
    before: tuple[tuple[str, str], ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages up to and including the question."""
        return [{"role": role, "content": text} for role, text in (*self.before, ("user", self.question))]


def exchange_of(row: Mapping[str, Any]) -> Exchange:
    """Return what a row of a data file means.

    Raises:
        ValueError: If it is no conversation of texts that ends with an answer to the user, or has tools or images.
    """
    refuse_changing(row)
    if {"messages", "prompt", "completion"} & row.keys() not in ({"messages"}, {"prompt", "completion"}):
        raise ValueError(f"expected {FORMS}, got the entries {', '.join(map(str, row)) or 'none'}")
    messages = plain_messages(row["messages"]) if "messages" in row else _of_prompt(row["prompt"], row["completion"])
    turns = [message["role"] for message in messages]
    if turns[turns[:1] == ["system"] :] != ["user", "assistant"] * (len(turns) // 2) or len(turns) < 2:
        raise ValueError(f"expected user and assistant messages in turn, after at most one system message, got {turns}")
    before = tuple((message["role"], message["content"]) for message in messages[:-2])
    return Exchange(messages[-2]["content"], messages[-1]["content"], before)


def _of_prompt(prompt: Any, completion: Any) -> tuple[dict[str, str], ...]:
    """Return the messages of TRL's prompt and completion."""
    if isinstance(prompt, str) and isinstance(completion, str):
        return plain_messages([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}])
    if not isinstance(prompt, list) or not isinstance(completion, list):
        raise ValueError(f"prompt {prompt!r:.40}, completion {completion!r:.40}: expected two texts or two lists")
    if len(completion) != 1:
        raise ValueError(f"completion: expected one assistant message, got {len(completion)} messages")
    return (*plain_messages(prompt), *plain_messages(completion))
