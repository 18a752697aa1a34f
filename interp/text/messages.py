"""What a chat message is: a role and a text, which a file may also give as parts. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

ROLES = ("system", "user", "assistant")
CHANGING = ("tools", "images", "image", "videos", "audio", "audios", "documents", "chat_template_kwargs")
NOTHING = (None, "", [], {})
"""Entries that say nothing; unlike those a weight of 0, or false, says that a message is not trained on."""
Message = Mapping[str, Any]


def plain_messages(value: Any) -> tuple[dict[str, str], ...]:
    """Return the messages of a file as roles and texts.

    Raises:
        ValueError: If it is no list of messages, or one has another role, no text, a part that is no text, or a further
            entry, such as ``tool_calls``, that the text would leave out.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"messages {value!r:.60}: want a list of messages")
    return tuple(_plain(message) for message in value)


def _plain(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ROLES:
        raise ValueError(f"message {message!r:.60}: want a role ({', '.join(ROLES)}) and a content text")
    return text_message(message)


def text_message(message: Message) -> dict[str, str]:
    """Return the role and the text of a message.

    Raises:
        ValueError: If it has no role, no text, a part that is no text, or an entry that the text would leave out.
    """
    if not isinstance(message.get("role"), str):
        raise ValueError(f"message {message!r:.60}: want a role and a content text")
    if extra := [key for key, entry in message.items() if key not in ("role", "content") and entry not in NOTHING]:
        raise ValueError(f"message {message.get('content')!r:.60}: {extra[0]} is not supported, only role and content")
    return {"role": message["role"], "content": content_text(message.get("content"))}


def refuse_changing(row: Mapping[str, Any]) -> None:
    """Refuse a row of a file with entries that would change its conversation, such as tools and images.

    Raises:
        ValueError: If it has some; names the first.
    """
    if row.get("weight") not in (None, 1):
        raise ValueError("weight: not supported; every row counts alike")
    if used := [name for name in CHANGING if row.get(name)]:
        raise ValueError(f"{used[0]}: not supported; a conversation is made of texts alone")


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
