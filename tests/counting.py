"""Count the tokens that pass through models, by a hook on every embedding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the tokens so far. Id 0 is the padding of the tests' models, and in no text."""
    tokens = [0]

    def count(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and given and given[0].device.type != "meta":
            tokens[0] += int((given[0] != 0).sum())

    handle = register_module_forward_pre_hook(count)
    try:
        yield lambda: tokens[0]
    finally:
        handle.remove()
