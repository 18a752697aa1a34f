"""Thoughts of reasoning models: which text of an answer is one, and what is left without them. Torch-free."""

import re

THOUGHTS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)
"""What opens and what closes a thought; the last pair is that of gpt-oss."""


def awaited(prompt: str) -> str:
    """Return what closes the thought that the end of a prompt opens; an empty text if it opens none."""
    return next((closing for opening, closing in THOUGHTS if prompt.rfind(opening) > prompt.rfind(closing)), "")


def without_thoughts(text: str, closing: str = "") -> tuple[str, bool]:
    """Return an answer without its thoughts, and whether they ended; what follows an unended one is thought.

    Args:
        text: What the model wrote.
        closing: What closes the thought that the prompt has opened (``awaited``).
    """
    answer = text
    if closing:
        _, closed, answer = text.partition(closing)
        if not closed:
            return "", False
    for opening, end in THOUGHTS:
        answer = re.sub(f"{re.escape(opening)}.*?{re.escape(end)}", "", answer, flags=re.DOTALL)
        if answer.lstrip().startswith(end):
            answer = answer.lstrip().removeprefix(end)
        if opening in answer:
            return answer.partition(opening)[0].strip(), False
    return (answer if answer == text else answer.strip()), True
