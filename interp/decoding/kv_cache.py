"""A key-value cache that many samples share from one prefill and that grows in place.

Hugging Face's dynamic cache concatenates the keys and values of every layer at every token. Here each layer has room
for all tokens to come, so a token costs one write. Making room needs a copy anyway, and the same copy selects rows: a
prompt many times for its samples, later the unfinished rows. Sliding-window layers show attention the same slots as
those of Hugging Face. Layers with a recurrent state (linear attention, state spaces, short convolutions) keep Hugging
Face's own class; only their rows are selected.

In bfloat16 on the CPU, torch's attention to one new token takes longer than everything else together. There a prompt's
keys and values are not copied at all: ``share_prefix`` keeps them once per prompt, and one matrix product serves all of
its samples. The softmax runs over both parts together, so the result equals ordinary attention up to rounding. float32
uses the ordinary path, bit for bit.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

SHARED = "interp_shared_prefix"
"""Name of the attention of shared prefixes in Hugging Face's registry, used inside ``shared_attention``."""
CHUNK = 32
"""Number of slots by which the room for new tokens grows."""
_PLAIN = (
    "apertus arcee biogpt bitnet cohere cohere2 dots1 ernie4_5 ernie4_5_moe exaone4 flex_olmo gemma gemma3_text "
    "glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neox granite granitemoe granitemoeshared helium hunyuan_v1_dense "
    "hunyuan_v1_moe llama minimax_m2 ministral mistral mixtral nanochat nemotron olmo olmo2 olmo3 olmoe opt phi "
    "phi3 phimoe qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm starcoder2"
)
PLAIN_ATTENTION = frozenset(_PLAIN.split())
"""Families whose attention reads the cached keys and values unchanged, through Hugging Face's registry (tested).

Others do more with them (DiffLlama, multi-head latent attention, Llama 4) or do not use the registry (Falcon).
"""
STATES = (
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    DummyLayer,
)
"""Layers of Hugging Face's cache, beside those of attention alone, whose rows can be selected."""

OWN_CACHES: Mapping[str, str] = MappingProxyType({"minimax": "MiniMaxCache"})
"""Model types that accept no cache but one of their own class."""
HELD_STATES: Mapping[str, tuple[str, ...]] = MappingProxyType({"recurrent_gemma": ("conv1d_state", "recurrent_states")})
"""Model types that keep states in their modules instead of the cache, and the attributes that hold them."""


def new_cache(model: PreTrainedModel) -> Cache:
    """Return an empty cache for one prefill.

    Raises:
        ValueError: If a layer of the model keeps anything whose rows cannot be selected.
    """
    kind = model.config.get_text_config().model_type
    try:
        cache = DynamicCache(config=model.config)
    except KeyError as error:
        raise ValueError(f"model {kind}: generation does not support its layers of type {error}") from error
    classes = {type(layer).__name__: type(layer) for layer in cache.layers}
    unknown = [
        name for name, layer in classes.items() if layer not in (DynamicLayer, DynamicSlidingWindowLayer, *STATES)
    ]
    if kind in OWN_CACHES or unknown:
        raise ValueError(f"model {kind}: generation does not support its cache ({(unknown or [OWN_CACHES[kind]])[0]})")
    return cache


class _Holding(Cache):
    """A cache of a model of ``HELD_STATES``; taking rows of it puts theirs into the modules.

    ``states`` are those after the prefill; None means the ones that the modules hold at the time.
    """

    held: Sequence[tuple[Any, str]]
    states: Sequence[Tensor] | None

    def take(self, rows: Tensor, room: int) -> Cache:
        states = [getattr(*place) for place in self.held] if self.states is None else self.states
        for (module, name), state in zip(self.held, states, strict=True):
            setattr(module, name, state[rows])
        taken = _Holding(layers=[_taken(layer, rows, room) for layer in self.layers])
        taken.held, taken.states = self.held, None
        return taken


def filled_cache(model: PreTrainedModel, cache: Cache) -> Cache:
    """Return the cache of a prefill together with the states that the model's modules hold after it."""
    names = HELD_STATES.get(model.config.get_text_config().model_type, ())
    places = [(module, name) for module in model.modules() for name in names if hasattr(module, name)] if names else []
    if not places:
        return cache
    holding = _Holding(layers=cache.layers)
    holding.held, holding.states = places, [getattr(*place) for place in places]
    return holding


def take_rows(cache: Cache, rows: Int[Tensor, " batch"], *, room: int) -> Cache:
    """Return a cache with the given rows of ``cache``, in that order, and room for ``room`` new tokens.

    Rows may repeat. ``cache`` itself is not changed.
    """
    if isinstance(cache, _Holding):
        return cache.take(rows, room)
    if cache.layers and isinstance(cache.layers[0], _Shared):
        groups = _group(cache.layers[0].groups.owner[rows])
        return Cache(layers=[layer.select(rows, groups) for layer in cache.layers if isinstance(layer, _Shared)])
    return Cache(layers=[_taken(layer, rows, room) for layer in cache.layers])


def _taken(layer: Any, rows: Tensor, room: int) -> Any:
    if type(layer) not in STATES:
        return _Buffer(layer, rows, room)
    taken = copy.copy(layer)
    for name, states in vars(layer).items():
        if isinstance(
            states, dict
        ):  # the states by index: selecting rows puts new tensors into a dictionary of its own
            setattr(taken, name, dict(states))
    taken.reorder_cache(rows)
    return taken


def can_share(model: PreTrainedModel, cache: Cache, room: int) -> bool:
    """Return whether ``share_prefix`` supports this model and cache, and is faster than torch's attention."""
    config: Any = model.config.get_text_config()
    faster = model.device.type == "cpu" and model.dtype == torch.bfloat16
    plain = config.model_type in PLAIN_ATTENTION and config._attn_implementation == "sdpa"
    return faster and plain and all(_unwindowed(layer, room) for layer in cache.layers)


def _unwindowed(layer: object, room: int) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.get_seq_length() + room < layer.sliding_window
    return type(layer) is DynamicLayer


def share_prefix(
    cache: Cache, rows: Int[Tensor, " batch"], mask: Bool[Tensor, "prompt slot"] | None, *, room: int
) -> Cache:
    """Return a cache whose row ``i`` continues row ``rows[i]`` of ``cache`` without copying it; ``rows`` ascend.

    Use it inside ``shared_attention``. ``mask`` marks the slots of each prompt that are real tokens; None means all.
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
    """Let ``model`` attend through the layers of ``share_prefix`` inside the ``with`` block."""
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
    """Return no mask: a new token attends to its whole row, and ``_Shared.bias`` masks the padding of the prompts."""


def _attend(
    module: Any, query: Tensor, key: Any, value: Tensor, attention_mask: None, scaling: float | None = None, **_: object
) -> tuple[Tensor, None]:
    shared: _Shared = key.shared
    return shared.attend(query, query.shape[-1] ** -0.5 if scaling is None else scaling), None


@dataclass(frozen=True)
class _Groups:
    """Which rows belong to which prompt, as a table with one line per prompt.

    Attributes:
        owner: Prompt of each row.
        prompts: Prompts that still have rows.
        rows: The table: rows of each prompt, padded with row 0 if the prompts have different numbers of rows.
        place: Index of each row in the flattened table.
        full: Whether the table needs no padding.
    """

    owner: Int[Tensor, " batch"]
    prompts: Int[Tensor, " prompt"]
    rows: Int[Tensor, "prompt place"]
    place: Int[Tensor, " batch"]
    full: bool


def _group(owner: Int[Tensor, " batch"]) -> _Groups:
    prompts, at, counts = owner.unique_consecutive(return_inverse=True, return_counts=True)
    places = int(counts.max()) if len(counts) else 0
    within = torch.arange(len(owner)) - (counts.cumsum(0) - counts)[at]
    place = at * places + within
    rows = torch.zeros(len(prompts) * places, dtype=torch.long).index_copy_(0, place, torch.arange(len(owner)))
    return _Groups(owner, prompts, rows.view(len(prompts), places), place, len(rows) == len(owner))


class _Shared(CacheLayerMixin):
    """One layer: keys and values once per prompt, and those of the new tokens per row.

    Room for new tokens grows by ``CHUNK`` slots. Products run over all slots, because torch copies a slice of a buffer
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
        prompt = (layer.keys, layer.values)  # of different widths in some models
        keys, values = (x.new_zeros(len(groups.owner), x.shape[1], min(room, CHUNK), x.shape[-1]) for x in prompt)
        shared = cls(prompt, (keys, values), groups)
        shared.bias, shared.room = bias, room
        return shared

    def select(self, rows: Tensor, groups: _Groups) -> "_Shared":
        """Return some rows of this layer."""
        shared = _Shared(self.prompt, (self.keys[rows], self.values[rows]), groups)
        shared.bias, shared.filled, shared.room = self.bias, self.filled, self.room
        return shared

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the layer starts from a filled one."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one new token per row; the returned keys refer to this layer, where ``_attend`` finds it."""
        if self.filled == self.keys.shape[2]:
            more = (0, 0, 0, min(CHUNK, max(1, self.room - self.filled)))
            self.keys, self.values = (torch.nn.functional.pad(x, more) for x in (self.keys, self.values))
        self.keys[:, :, self.filled] = key_states[:, :, 0]
        self.values[:, :, self.filled] = value_states[:, :, 0]
        self.filled += 1
        keys = self.keys.view_as(self.keys)
        keys.shared = self
        return keys, self.values

    def attend(self, query: Float[Tensor, "batch head 1 width"], scaling: float) -> Float[Tensor, "batch 1 head value"]:
        """Return softmax(q k) v over the prompt's tokens and the row's new tokens."""
        # Query heads that share a key-value head are treated as one batch of queries (grouped-query attention). The
        # scores of both parts are concatenated before the softmax, and the two weighted sums of values are added.
        rows, heads, _, width = query.shape
        kv_heads, slots = self.keys.shape[1], self.keys.shape[2]
        q = (query * scaling).reshape(rows, kv_heads, heads // kv_heads, width)
        scores = torch.cat([self._of_prompts(q), q @ self.keys.mT], -1)
        if self.filled < slots:
            scores[..., self.filled - slots :] = -torch.inf
        weights = scores.softmax(-1)
        new, prompt = weights[..., -slots:], weights[..., :-slots]
        out = new.contiguous() @ self.values + self._by_prompt(prompt, self.picked[1])
        return out.reshape(rows, 1, heads, -1)

    def _of_prompts(self, q: Tensor) -> Tensor:
        scores = self._by_prompt(q, self.picked[0].mT)
        return scores if self.bias is None else scores + self.bias[self.groups.owner]

    def _by_prompt(self, x: Float[Tensor, "batch head part inner"], of: Tensor) -> Float[Tensor, "batch head part _"]:
        """Multiply each row by the matrix of its prompt, all rows of a prompt in one product."""
        # Rows are laid out as (prompt, head, places x part): one matrix product per prompt and head instead of one per
        # row. The inverse permutation then returns to one entry per row.
        groups, (_, heads, part, inner) = self.groups, x.shape
        prompts, places = groups.rows.shape
        table = (x if groups.full else x[groups.rows.flatten()]).view(prompts, places, heads, part, inner)
        product = table.transpose(1, 2).reshape(prompts, heads, places * part, inner) @ of
        flat = product.view(prompts, heads, places, part, -1).transpose(1, 2).reshape(prompts * places, heads, part, -1)
        return flat if groups.full else flat[groups.place]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many slots the next pass sees and the index of the first."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens of a row so far, padding included."""
        return self.prompt[0].shape[-2] + self.filled

    def get_max_length(self) -> int:
        """Return -1: there is no window."""
        return -1


class _Buffer(CacheLayerMixin):
    """Keys and values of one layer, ``(batch, heads, slots, width)``; the first ``filled`` slots are written."""

    is_compileable = False
    keys: Any  # always a tensor here, where the parent allows None
    values: Any

    def __init__(self, layer: "DynamicLayer | _Buffer", rows: Tensor, room: int) -> None:
        super().__init__()
        if layer.keys is None or layer.values is None:
            raise ValueError("generation: the model left a layer of its cache empty, so its tokens would not be seen")
        self.sliding_window: int | None = getattr(layer, "sliding_window", None)
        self.is_sliding, self.is_initialized = self.sliding_window is not None, True
        self.length = int(layer.get_seq_length())
        stop = layer.filled if isinstance(layer, _Buffer) else layer.keys.shape[-2]
        start = _visible_from(stop, self.sliding_window)
        self.filled = stop - start
        self.keys, self.values = (_roomy(x[:, :, start:stop], rows, room) for x in (layer.keys, layer.values))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: the buffer starts from a filled layer."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens into their slots and return what attention may see of all slots."""
        start, stop = _visible_from(self.filled, self.sliding_window), self.filled + key_states.shape[-2]
        self.keys[:, :, self.filled : stop] = key_states
        self.values[:, :, self.filled : stop] = value_states
        self.length, self.filled = self.length + key_states.shape[-2], stop
        return self.keys[:, :, start:stop], self.values[:, :, start:stop]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many slots the next pass sees and the index of the first."""
        start = _visible_from(self.length, self.sliding_window)
        return self.length - start + query_length, start

    def get_seq_length(self) -> int:
        """Return the number of tokens of a row so far, padding included."""
        return self.length

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
