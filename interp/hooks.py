"""Run functions on the residual stream at any site, for as long as a ``with`` block lasts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interp.models import LanguageModel
from interp.sites import Block, Site, block_of, require_layer

Fn = Callable[[Tensor], Tensor | None]
"""Takes h (batch, pos, d_model); returns an edited copy of h, or None to leave h as it is."""


@contextmanager
def hooked(lm: LanguageModel, functions: Mapping[Site, Fn]) -> Iterator[None]:
    """Run ``functions`` in every forward pass inside the ``with`` block; the hooks are removed on exit.

    A function sees the stream at its site, edits of earlier sites included; what it returns replaces the stream from
    there on. At one site, the hook of an outer ``with`` block runs before that of an inner one. The hidden state
    belongs to the model: copy what you keep, never write into it.

    Raises:
        ValueError: If the model has no such layer, its family is unknown at an inner site, a parallel block has no
            ``resid_mid``, the model runs several streams, or a function returns another shape.
    """
    with ExitStack() as stack:
        for site in sorted(functions, key=lambda site: site.execution):
            for handle in _attach(lm, site, _checked(site, functions[site])):
                stack.callback(handle.remove)
        yield


def module_of(lm: LanguageModel, site: Site) -> tuple[nn.Module, Literal["input", "output"]]:
    """Return the module that carries a site, and whether the site is its input or its output.

    Raises:
        ValueError: If the model has no such layer, its family is unknown at an inner site, or a parallel block has no
            ``resid_mid``.
    """
    require_layer(site.layer, lm.n_layers, f"site {site}")
    layer = lm.layer(site.layer)
    if site.name in ("resid_pre", "resid_post"):
        return layer, "input" if site.name == "resid_pre" else "output"
    block, mid = block_of(lm.family), site.name == "resid_mid"
    if mid and (getattr(layer, "use_parallel_residual", False) or _part(layer, block.mid) is None):
        raise ValueError(f"site {site}: attention and MLP of {lm.family} run in parallel, so it has no resid_mid")
    path = block.mid if mid else getattr(block, site.name)
    module = _part(layer, path)
    if module is None:
        raise ValueError(f"site {site}: this layer of {lm.family} has no {path}")
    return module, "input" if mid else "output"


def _part(layer: nn.Module, paths: str) -> nn.Module | None:
    """Return the first of some alternative submodules that the layer has."""
    for path in filter(None, paths.split("|")):
        with suppress(AttributeError):
            return layer.get_submodule(path)
    return None


def _attach(lm: LanguageModel, site: Site, fn: Fn) -> "list[RemovableHandle | _MidEdit]":
    module, side = module_of(lm, site)
    if site.name == "resid_mid":
        return _on_mid(lm.layer(site.layer), module, block_of(lm.family), fn)
    return [_on_input(module, fn) if side == "input" else _on_output(module, fn)]


def _on_input(module: nn.Module, fn: Fn) -> RemovableHandle:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        edited = fn(args[0] if args else kwargs["hidden_states"])
        if edited is None:
            return None
        return ((edited, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": edited})

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _on_output(module: nn.Module, fn: Fn, *, first: bool = False) -> RemovableHandle:
    def hook(_module: nn.Module, args: Any, output: Any) -> Any:
        h = _stream(output)
        flat = h.ndim == 2 and args and args[0].ndim == 3  # experts may return the tokens of all rows in one list
        edited = fn(h.view(args[0].shape) if flat else h)
        return None if edited is None else _with_stream(output, edited.view(h.shape))

    return module.register_forward_hook(hook, prepend=first)


class _MidEdit:
    """Edit resid_mid on both of its paths: into the MLP, and past it.

    The MLP path takes the edited value at the module that reads it. The skip connection is inside the block's forward,
    where no hook reaches, so the block output is computed again as mid + mlp_out, the same sum that the block makes.
    Both terms are captured after every other hook, so nested edits compose.
    """

    def __init__(self, mlp_out: nn.Module, fn: Fn) -> None:
        self.mlp_out, self.fn = mlp_out, fn
        self.catch: RemovableHandle | None = None
        self.mid: Tensor | None = None
        self.added: Tensor | None = None

    def at_mid(self, h: Tensor) -> Tensor | None:
        self.remove()
        edited = self.fn(h)
        if edited is not None:
            self.catch = self.mlp_out.register_forward_hook(self.at_mlp)  # registered last, so that it runs last
        return edited

    def after_mid(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        self.mid = (args[0] if args else kwargs["hidden_states"]) if self.catch else None

    def at_mlp(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.added = _stream(output)

    def at_end(self, _h: Tensor) -> Tensor | None:
        mid, added = self.mid, self.added
        self.remove()
        return None if mid is None or added is None else mid + added.view(mid.shape)

    def remove(self) -> None:
        if self.catch is not None:
            self.catch.remove()
        self.catch = self.mid = self.added = None


def _on_mid(layer: nn.Module, mid: nn.Module, block: Block, fn: Fn) -> "list[RemovableHandle | _MidEdit]":
    edit = _MidEdit(layer.get_submodule(block.mlp_out), fn)
    return [
        edit,
        _on_input(mid, edit.at_mid),
        mid.register_forward_hook(edit.after_mid, with_kwargs=True),
        _on_output(layer, edit.at_end, first=True),
    ]


def _checked(site: Site, fn: Fn) -> Fn:
    def check(h: Tensor) -> Tensor | None:
        if h.ndim != 3:  # Gemma 3n and DeepSeek V4 run several streams side by side
            raise ValueError(f"site {site}: its values have shape {tuple(h.shape)}; want one stream (batch, pos, d)")
        edited = fn(h)
        if edited is not None and (edited.shape != h.shape or edited.dtype != h.dtype):
            raise ValueError(
                f"site {site}: the function returned {edited.dtype} {tuple(edited.shape)} "
                f"for {h.dtype} {tuple(h.shape)}"
            )
        return edited

    return check


def _stream(output: Any) -> Tensor:
    """Return the hidden state of a module output: the tensor itself, or the first entry of a tuple or list."""
    return output[0] if isinstance(output, (tuple, list)) else output


def _with_stream(output: Any, h: Tensor) -> Any:
    return type(output)((h, *output[1:])) if isinstance(output, (tuple, list)) else h
