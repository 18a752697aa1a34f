"""What a chat message is: a role and a text, which a file may also give as parts. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

from interp.runs.reading import Text, validated

ROLES = ("system", "user", "assistant")
CHANGING = (
    *("tools", "functions", "images", "image", "videos", "audio", "audios", "documents", "history"),
    "chat_template_kwargs",
)
SYSTEM = ("system", "system_prompt")
"""Entries of a row in which some tools keep the system text; here it is the first message."""
NOTHING = (None, "", [], {})
"""Entries that say nothing; unlike those a weight of 0, or false, says that a message is not trained on."""
USUAL = {"weight": 1, "train": True}
"""Entries of a message that say what holds without them."""
Message = Mapping[str, Any]


def plain_messages(value: Any) -> tuple[dict[str, str], ...]:
    """Return the messages of a file as roles and texts.

    Raises:
        ValueError: If it is no list of messages, or one has another role, no text, one that is blank or has control
            characters, a part that is no text, or a further entry, such as ``tool_calls``, that the text would leave
            out.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages {value!r:.60}: want a list of messages")
    return tuple(_plain(message) for message in value)


def _plain(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ValueError(f"message {message!r:.60}: want a role ({', '.join(ROLES)}) and a content text")
    plain = text_message(message)
    _, faults = validated(Text, plain["content"], f"the {plain['role']} message")
    if faults:
        raise ValueError("; ".join(faults))
    return plain


def text_message(message: Message) -> dict[str, str]:
    """Return the role and the text of a message.

    Raises:
        ValueError: If it has no role, no text, a part that is no text, or an entry that the text would leave out.
    """
    if not isinstance(message.get("role"), str):
        raise ValueError(f"message {message!r:.60}: want a role and a content text")
    entries = [(key, entry) for key, entry in message.items() if key not in ("role", "content")]
    if extra := [key for key, entry in entries if entry not in (*NOTHING, USUAL.get(key))]:
        raise ValueError(f"message {message.get('content')!r:.60}: {extra[0]} is not supported, only role and content")
    return {"role": message["role"], "content": content_text(message.get("content"))}


def refuse_changing(row: Mapping[str, Any]) -> None:
    """Refuse a row of a file with entries that would change its conversation, such as a system text, tools and images.

    Raises:
        ValueError: If it has some; names the first.
    """
    if row.get("weight") not in (None, 1):
        raise ValueError("weight: not supported; every row counts alike")
    if used := [name for name in CHANGING if row.get(name)]:
        raise ValueError(f"{used[0]}: not supported; a conversation is made of texts alone")
    messages = row["messages"] if isinstance(row.get("messages"), list) else []
    said = [message.get("content") for message in messages[:1] if isinstance(message, dict)]
    if other := [name for name in SYSTEM if row.get(name) not in (*NOTHING, *said)]:
        raise ValueError(f"{other[0]}: not read; write a system text as the first message")


def content_text(content: Any) -> str:
    """Return the text of a content: a text, or a list of ``{"type": "text", "text": ...}``, which are joined.

    Raises:
        ValueError: If it is neither, or a part is no text, such as an image.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or not content:
        raise ValueError(f"content {content!r:.60}: want a text, or a list of text parts")
    return "".join(map(_part_text, content))


def _part_text(part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise ValueError(f'content part {part!r:.60}: want {{"type": "text", "text": ...}}; other kinds are not supported')
