"""Attention knockout: some tokens may not attend to some others, in some layers.

>>> blocked = lambda masks: blocked_attention(lm, range(lm.n_layers), masks, queries="answer", keys="trigger")
>>> response_likelihood(lm, chats, within=blocked).log_probability       # the answer cannot attend to the trigger

A token always attends to itself, so no row of attention is left empty. Indirect paths stay open: what a key passes to
a third token, the query can read there.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from interp.edits import Masks, fitting
from interp.models import LanguageModel

CACHES = ("past_key_values", "layer_past")


@contextmanager
def blocked_attention(
    lm: LanguageModel, layers: Sequence[int], masks: Masks, *, queries: str, keys: str
) -> Iterator[None]:
    """Stop the tokens named ``queries`` from attending to those named ``keys``; the hooks are removed on exit.

    Args:
        lm: The model, with eager or sdpa attention.
        layers: Layers in which attention is blocked.
        masks: Position name -> mask of the current pass (True or False stands for all or none of its tokens).
        queries: Position name of the tokens that may not attend; ``all`` means every later token.
        keys: Position name of the tokens that they may not attend to.

    Raises:
        ValueError: If the model has no such layer, or carries tokens in a recurrent state, which a knockout leaves
            open; in the pass, if it uses a key-value cache, an attention implementation other than eager and sdpa,
            or a mask does not have the shape of the batch.

    Not evidence for: a path from ``keys`` to ``queries``, unless blocking as many other tokens does less.

    Source: Geva et al. 2023 (arXiv:2304.14767), attention knockout.
    """
    if lm.base.config._attn_implementation not in ("eager", "sdpa"):
        raise ValueError(f"attention {lm.base.config._attn_implementation!r}: a knockout needs eager or sdpa")
    if lm.family == "mpt":
        raise ValueError("attention knockout: MPT's mask has the opposite meaning of every other family's")
    if lm.recurrent:
        raise ValueError(f"attention knockout: layers of {lm.family} pass tokens on in a state, which would stay open")
    with ExitStack() as stack:
        for index in dict.fromkeys(layers):
            layer = lm.layer(index)
            handle = layer.register_forward_pre_hook(_Block(lm, layer, masks, queries, keys), with_kwargs=True)
            stack.callback(handle.remove)
        yield


class _Block:
    """A pre-hook of one decoder layer that removes pairs of tokens from its attention mask."""

    def __init__(self, lm: LanguageModel, layer: nn.Module, masks: Masks, queries: str, keys: str) -> None:
        self.lm, self.masks, self.names = lm, masks, (queries, keys)
        self.signature = inspect.signature(layer.forward)

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        inputs = self.signature.bind(*args, **kwargs).arguments
        if any(inputs.get(name) is not None for name in CACHES):
            raise ValueError("attention knockout: the pass uses a key-value cache; run it with use_cache=False")
        h: Tensor = next(iter(inputs.values()))
        blocked = self._pairs(h)
        if not bool(blocked.any()):
            return None
        edited = self._without(inputs.get("attention_mask"), blocked, h)
        place = list(self.signature.parameters).index("attention_mask")
        if place < len(args):  # GPT-2 passes its mask by position
            return (*args[:place], edited, *args[place + 1 :]), kwargs
        return args, kwargs | {"attention_mask": edited}

    def _pairs(self, h: Tensor) -> Bool[Tensor, "batch query key"]:
        query, key = (self._tokens(name, h) for name in self.names)
        itself = torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        return query[:, :, None] & key[:, None, :] & ~itself

    def _tokens(self, name: str, h: Tensor) -> Bool[Tensor, "batch pos"]:
        mask = self.masks(name)
        if isinstance(mask, bool):
            return torch.full(h.shape[:2], mask, device=h.device)
        return fitting(mask, h, "attention knockout", name)

    def _without(self, mask: Tensor | None, blocked: Bool[Tensor, "batch query key"], h: Tensor) -> Tensor:
        """Return ``mask`` without the blocked pairs, boolean or additive as it was; None means plain causal."""
        if mask is None:
            width = h.shape[1]
            mask = torch.ones(width, width, dtype=torch.bool, device=h.device).tril()[None, None]
            if self.lm.base.config._attn_implementation == "eager":
                mask = torch.zeros_like(mask, dtype=h.dtype).masked_fill(~mask, torch.finfo(h.dtype).min)
        if mask.ndim != 4 or mask.shape[-2:] != blocked.shape[-2:]:
            raise ValueError(
                f"attention knockout: an attention mask of shape {tuple(mask.shape)} for {tuple(blocked.shape)}"
            )
        if mask.dtype == torch.bool:
            return mask & ~blocked[:, None]
        return mask.masked_fill(blocked[:, None], torch.finfo(mask.dtype).min)
