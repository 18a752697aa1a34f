"""What every part of this room needs: the extra ``inspect``, and refusals in the form that Inspect prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
NAMESPACE = "semcon"
"""Name of the model provider in Inspect, and of the task's package."""
TASK = f"{NAMESPACE}/em"
AT_ONCE = 1024
"""Requests that may wait for a model of the provider at once; it makes batches of them."""


def require_inspect() -> None:
    """Refuse to go on without Inspect.

    Raises:
        ValueError: If the extra is not installed.
    """
    if find_spec("inspect_ai") is None:
        raise ValueError("logs of Inspect need inspect_ai: pip install 'semantic-containment[inspect]'")


def plainly_named(function: F) -> F:
    """Let Inspect register a function under its plain name.

    Inspect puts the name of an installed package before a name, which would be ``experiments/``, and runs a task of a
    package that is not installed in the folder of its source file, where relative paths lead nowhere.
    """
    function.__module__ = NAMESPACE
    return function


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what the suite refuses into an error that Inspect prints in one line, without a traceback."""
    from inspect_ai._util.error import PrerequisiteError
    from rich.markup import escape

    from interp.runs.process import one_line

    try:
        yield
    except (ValueError, OSError) as error:
        raise PrerequisiteError(escape(f"{NAMESPACE}: {one_line(error)}")) from error
