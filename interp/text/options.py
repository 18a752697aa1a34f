"""Options of a chat template, as they stand on a command line. Torch-free."""

import json
from collections.abc import Sequence
from typing import Any


def read_options(words: Sequence[str]) -> dict[str, Any]:
    """Return template options from ``NAME=VALUE`` words; true, false and numbers are read as such.

    Raises:
        ValueError: If a word has another form, or names an option again.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.isidentifier() or name in options:
            raise ValueError(f"template option {word!r}: want NAME=VALUE, each name once")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        number = isinstance(value, bool | int | float) and value - value == 0  # NaN and infinity are texts
        options[name] = value if number else text
    return options
