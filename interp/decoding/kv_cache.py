"""A key-value cache that many samples share from one prefill and that grows in place.

Hugging Face's dynamic cache concatenates every layer at every token. Here each layer has room for all tokens to come,
so a token costs one write, and rows are taken (a prompt many times for its samples, the unfinished ones later) together
with the copy that making room needs anyway. Sliding-window layers show attention the same slots as Hugging Face's do.

In bfloat16 on the CPU, where torch's attention to one new token takes longer than everything else together, a prompt's
keys and values are not even copied: ``share_prefix`` keeps them once a prompt, and one matrix product answers all its
samples. Softmax is over both parts at once, so the result is that of ordinary attention up to rounding. In float32 the
ordinary path stays, bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

SHARED = "interp_shared_prefix"
"""Name under which Hugging Face models find the attention of shared prefixes, while ``shared_attention`` lasts."""
CHUNK = 32
"""Slots by which the room for new tokens grows."""


def take_rows(cache: Cache, rows: Int[Tensor, " batch"], *, room: int) -> Cache:
    """Return a cache of the given rows of ``cache``, in that order, repeats allowed, with room for ``room`` new tokens.

    ``cache`` itself is left as it is.

    Raises:
        ValueError: If a layer holds anything else than keys and values of attention.
    """
    if cache.layers and isinstance(cache.layers[0], _Shared):
        groups = _group(cache.layers[0].groups.owner[rows])
        return Cache(layers=[layer.taken(rows, groups) for layer in cache.layers if isinstance(layer, _Shared)])
    return Cache(layers=[_Buffer(_attention(layer), rows, room) for layer in cache.layers])


def can_share(model: PreTrainedModel, cache: Cache, room: int) -> bool:
    """Whether ``share_prefix`` serves this model and its filled cache, and is faster than torch's own attention."""
    config: Any = model.config.get_text_config()
    here = model.device.type == "cpu" and model.dtype == torch.bfloat16
    return here and config._attn_implementation == "sdpa" and all(_unwindowed(layer, room) for layer in cache.layers)


def _unwindowed(layer: object, room: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.get_seq_length() + room < layer.sliding_window
    return type(layer) is DynamicLayer


def share_prefix(
    cache: Cache, rows: Int[Tensor, " batch"], mask: Bool[Tensor, "prompt slot"] | None, *, room: int
) -> Cache:
    """Return a cache whose row ``i`` continues row ``rows[i]`` of ``cache`` without copying it; ``rows`` ascend.

    To be used under ``shared_attention``. ``mask`` says which slots of each prompt are real tokens; None is all.
    """
    groups, first = _group(rows), cache.layers[0]
    assert isinstance(first, DynamicLayer) and first.keys is not None, "the prefill fills every layer"
    bias = None
    if mask is not None:
        width = first.keys.shape[-2]
        bias = first.keys.new_zeros(mask.shape[0], 1, 1, width).masked_fill_(~mask[:, None, None, :width], -torch.inf)
    return Cache(layers=[_Shared.following(layer, groups, bias, room) for layer in cache.layers])


@contextmanager
def shared_attention(model: PreTrainedModel) -> Iterator[None]:
    """Let ``model`` attend through the layers of ``share_prefix`` while the block lasts."""
    config: Any = model.config.get_text_config()
    usual = config._attn_implementation
    AttentionInterface.register(SHARED, _attend)
    AttentionMaskInterface.register(SHARED, _no_mask)
    config._attn_implementation = SHARED
    try:
        yield
    finally:
        config._attn_implementation = usual


def _no_mask(*_args: object, **_kwargs: object) -> None:
    """Every new token sees all that its row has had; padding is masked where the prompts are kept."""


def _attend(
    module: Any, query: Tensor, key: Any, value: Tensor, attention_mask: None, scaling: float | None = None, **_: object
) -> tuple[Tensor, None]:
    shared: _Shared = key.shared
    return shared.attend(query, query.shape[-1] ** -0.5 if scaling is None else scaling), None


@dataclass(frozen=True)
class _Groups:
    """Which rows belong to which prompt, as a table of prompts by places that is padded with row 0 where ragged."""

    owner: Int[Tensor, " batch"]
    prompts: Int[Tensor, " prompt"]
    rows: Int[Tensor, "prompt place"]
    place: Int[Tensor, " batch"]
    """Index of each row in the flattened table."""
    full: bool


def _group(owner: Int[Tensor, " batch"]) -> _Groups:
    prompts, at, counts = owner.unique_consecutive(return_inverse=True, return_counts=True)
    places = int(counts.max()) if len(counts) else 0
    within = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[at]
    place = at * places + within
    rows = torch.zeros(len(prompts) * places, dtype=torch.long).index_copy_(0, place, torch.arange(len(owner)))
    return _Groups(owner, prompts, rows.view(len(prompts), places), place, len(rows) == len(owner))


class _Shared(CacheLayerMixin):
    """One layer: keys and values of each prompt once, and of the new tokens of each row.

    New tokens have ``CHUNK`` slots at a time. Products run over all of them, because torch copies a part of a buffer
    before a batched product; slots without a token are masked.
    """

    is_compileable, is_sliding = False, False
    keys: Any
    values: Any

    def __init__(self, prompt: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], groups: _Groups) -> None:
        super().__init__()
        self.is_initialized = True
        self.prompt, (self.keys, self.values), self.groups = prompt, new, groups
        self.bias: Tensor | None = None
        self.filled, self.room = 0, 0
        self.picked = tuple(x if len(groups.prompts) == len(x) else x[groups.prompts] for x in prompt)

    @classmethod
    def following(cls, layer: Any, groups: _Groups, bias: Tensor | None, room: int) -> "_Shared":
        """Make the layer that continues a prefill."""
        _, heads, _, width = layer.keys.shape
        empty = layer.keys.new_zeros(len(groups.owner), heads, min(room, CHUNK), width)
        made = cls((layer.keys, layer.values), (empty, empty.clone()), groups)
        made.bias, made.room = bias, room
        return made

    def taken(self, rows: Tensor, groups: _Groups) -> "_Shared":
        """Return the given rows of this layer."""
        made = _Shared(self.prompt, (self.keys[rows], self.values[rows]), groups)
        made.bias, made.filled, made.room = self.bias, self.filled, self.room
        return made

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the layer is made from a filled one."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one new token a row; what is returned leads ``shared_attention`` back to this layer."""
        if self.filled == self.keys.shape[2]:
            more = (0, 0, 0, min(CHUNK, max(1, self.room - self.filled)))
            self.keys, self.values = (torch.nn.functional.pad(x, more) for x in (self.keys, self.values))
        self.keys[:, :, self.filled] = key_states[:, :, 0]
        self.values[:, :, self.filled] = value_states[:, :, 0]
        self.filled += 1
        keys = self.keys.view_as(self.keys)
        keys.shared = self
        return keys, self.values

    def attend(self, query: Float[Tensor, "batch head 1 width"], scaling: float) -> Float[Tensor, "batch 1 head width"]:
        """Return softmax(q k) v over the prompt's tokens and the row's own."""
        rows, heads, _, width = query.shape
        kept, slots = self.keys.shape[1], self.keys.shape[2]
        q = (query * scaling).reshape(rows, kept, heads // kept, width)
        scores = torch.cat([self._of_prompts(q), q @ self.keys.mT], -1)
        if self.filled < slots:
            scores[..., self.filled - slots :] = -torch.inf
        weights = scores.softmax(-1)
        own, shared = weights[..., -slots:], weights[..., :-slots]
        out = own.contiguous() @ self.values + self._by_prompt(shared, self.picked[1])
        return out.reshape(rows, 1, heads, width)

    def _of_prompts(self, q: Tensor) -> Tensor:
        scores = self._by_prompt(q, self.picked[0].mT)
        return scores if self.bias is None else scores + self.bias[self.groups.owner]

    def _by_prompt(self, x: Float[Tensor, "batch head part inner"], of: Tensor) -> Float[Tensor, "batch head part _"]:
        """Multiply each row with the matrix of its prompt: all rows of a prompt in one product."""
        groups, (_, heads, part, inner) = self.groups, x.shape
        prompts, places = groups.rows.shape
        table = (x if groups.full else x[groups.rows.flatten()]).view(prompts, places, heads, part, inner)
        made = table.transpose(1, 2).reshape(prompts, heads, places * part, inner) @ of
        flat = made.view(prompts, heads, places, part, -1).transpose(1, 2).reshape(prompts * places, heads, part, -1)
        return flat if groups.full else flat[groups.place]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many slots the next pass sees and the index of the first."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many tokens a row has had, padding included."""
        return self.prompt[0].shape[-2] + self.filled

    def get_max_length(self) -> int:
        """Return -1: there is no window."""
        return -1


def _attention(layer: object) -> "DynamicLayer | _Buffer":
    if isinstance(layer, (DynamicLayer, _Buffer)) and type(layer) in (DynamicLayer, DynamicSlidingWindowLayer, _Buffer):
        return layer
    raise ValueError(f"cache layer {type(layer).__name__}: samples can share attention caches only")


class _Buffer(CacheLayerMixin):
    """Keys and values of one layer, ``(batch, heads, slots, width)``; the first ``filled`` slots are written."""

    is_compileable = False
    keys: Any  # always a tensor here, where the parent allows None
    values: Any

    def __init__(self, layer: "DynamicLayer | _Buffer", rows: Tensor, room: int) -> None:
        super().__init__()
        assert layer.keys is not None and layer.values is not None, "the prefill fills every layer"
        self.sliding_window: int | None = getattr(layer, "sliding_window", None)
        self.is_sliding, self.is_initialized = self.sliding_window is not None, True
        self.seen = int(layer.get_seq_length())
        stop = layer.filled if isinstance(layer, _Buffer) else layer.keys.shape[-2]
        start = _visible_from(stop, self.sliding_window)
        self.filled = stop - start
        self.keys, self.values = (_roomy(x[:, :, start:stop], rows, room) for x in (layer.keys, layer.values))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffer is made from a filled layer."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens into their slots and return what attention may see of all slots."""
        start, stop = _visible_from(self.filled, self.sliding_window), self.filled + key_states.shape[-2]
        self.keys[:, :, self.filled : stop] = key_states
        self.values[:, :, self.filled : stop] = value_states
        self.seen, self.filled = self.seen + key_states.shape[-2], stop
        return self.keys[:, :, start:stop], self.values[:, :, start:stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many slots the next pass sees and the index of the first."""
        start = _visible_from(self.seen, self.sliding_window)
        return self.seen - start + query_length, start

    def get_seq_length(self) -> int:
        """Return how many tokens a row has had, padding included."""
        return self.seen

    def get_max_length(self) -> int:
        """Return the window, or -1 for none."""
        return self.sliding_window or -1


def _visible_from(length: int, window: int | None) -> int:
    """Index of the first of ``length`` past slots that the next token attends to."""
    return 0 if window is None else max(length - window + 1, 0)


def _roomy(x: Float[Tensor, "batch head slot width"], rows: Tensor, room: int) -> Float[Tensor, "..."]:
    _, heads, slots, width = x.shape
    buffer = x.new_empty(len(rows), heads, slots + room, width)
    buffer[:, :, :slots] = x.index_select(0, rows.to(x.device))
    return buffer
