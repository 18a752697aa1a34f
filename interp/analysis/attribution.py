"""Attention heads, logit lens, direct logit attribution and head patching, on a TransformerLens bridge.

>>> tl = bridge(lm, adapter="organism")                                          # interp.bridges.via_transformer_lens
>>> direct_logit_attribution(tl, chats, towards=17, away=23).heads               # (layer, head, prompt)
>>> patch_heads(tl, on, off, logit_difference(17, 23), positions=["question"])   # (position, layer, head, prompt)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.bridges.via_transformer_lens import Hook, Pass, TransformerBridge, passes, record
from interp.chat import Chat
from interp.chat import positions as marked
from interp.edits import Edit
from interp.recording import Pool, buckets
from interp.sites import Site

Metric = Callable[[Float[Tensor, "batch vocab"], Sequence[int]], Float[Tensor, " batch"]]
"""Takes the logits of some prompts and which prompts they are; returns one number a prompt."""


def head_outputs(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    positions: Sequence[str] = ("last_prompt",),
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
) -> Float[Tensor, "position layer head prompt d_model"]:
    """Return what each attention head adds to the residual stream, averaged over the tokens of each position.

    Over heads they sum to ``attn_out`` less the bias of the output projection. Where a norm follows attention (Gemma-2,
    Gemma-3, OLMo-2) its scale is that of the run: heads are apart only once it is held fixed.

    Not evidence for: what a head does, unless patching or ablating it moves the answer.
    """
    layers = len(tl.blocks)
    values = torch.empty(len(positions), layers, tl.cfg.n_heads, len(chats), tl.cfg.d_model)
    for batch in passes(tl, chats, edits=edits, batch_tokens=batch_tokens):
        parts: dict[int, list[_Mixed]] = {}
        batch.run(more=_head_hooks(tl, [batch.pool(name) for name in positions], parts))
        for layer in range(layers):
            for index, mixed in enumerate(parts[layer]):
                values[index, layer][:, batch.rows] = _apart(tl, layer, mixed)[0].cpu()
    return values


def logit_lens(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    sites: Sequence[Site],
    *,
    position: str = "last_prompt",
    tokens: Sequence[int] | None = None,
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
) -> Float[Tensor, "site prompt token"]:
    """Read the residual stream through the final norm and the vocabulary head; the last ``resid_post`` is the output.

    Args:
        tl: The bridge.
        chats: Prompts.
        sites: Where to read, such as ``resid_post(range(n_layers))``.
        position: A position of several tokens is read at its mean activation.
        tokens: Which logits to keep; all of them by default, which is large.
        edits: Edits under which to read.
        batch_tokens: Most tokens in one forward pass.

    Not evidence for: what the model believes at an early layer, whose basis need not be that of the last
        (compare a random direction, or a tuned lens).

    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    recording = record(tl, chats, sites, [position], edits=edits, batch_tokens=batch_tokens)
    return torch.stack([_unembedded(tl, recording.at(site, position), tokens) for site in sites])


@torch.inference_mode()
def _unembedded(
    tl: TransformerBridge, h: Float[Tensor, "prompt d_model"], tokens: Sequence[int] | None
) -> Float[Tensor, "prompt token"]:
    found = tl.unembed(tl.ln_final(h.to(tl.cfg.device, tl.cfg.dtype)[None]))[0].float()
    cap = tl.cfg.output_logits_soft_cap
    found = found if cap <= 0 else cap * torch.tanh(found / cap)
    return (found if tokens is None else found[:, list(tokens)]).cpu()


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of a logit difference that add up to it, the scale of the final norm taken as given.

    Attributes:
        embedding: Token (and position) embedding.
        heads: Each attention head.
        attention_bias: Bias of each attention output projection; zero in most families.
        mlps: Each MLP.
        constant: Biases of the final norm and of the vocabulary head.
        logit_difference: What the model itself says, before the soft cap of Gemma-2.
    """

    embedding: Float[Tensor, " prompt"]
    heads: Float[Tensor, "layer head prompt"]
    attention_bias: Float[Tensor, "layer prompt"]
    mlps: Float[Tensor, "layer prompt"]
    constant: Float[Tensor, " prompt"]
    logit_difference: Float[Tensor, " prompt"]

    @property
    def total(self) -> Float[Tensor, " prompt"]:
        """Return the sum of all shares: ``logit_difference`` up to rounding."""
        layers = self.heads.sum((0, 1)) + self.attention_bias.sum(0) + self.mlps.sum(0)
        return self.embedding + layers + self.constant


def direct_logit_attribution(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    towards: int | Sequence[int],
    away: int | Sequence[int],
    *,
    position: str = "last_prompt",
    batch_tokens: int = 4096,
) -> Attribution:
    """Split ``logit[towards] - logit[away]`` after ``position`` into embedding, heads and MLPs.

    Args:
        tl: A bridge with its adapter merged, if it has one.
        chats: Prompts.
        towards: Token, one for all prompts or one a prompt.
        away: Token to compare with.
        position: One token.
        batch_tokens: Most tokens in one forward pass.

    Raises:
        ValueError: If ``position`` is several tokens, or the vocabulary head carries an unmerged adapter.

    Not evidence for: the cause of an answer. A component also acts through later ones; patch it for its total effect.
    """
    pairs = torch.stack([_token_ids(towards, len(chats)), _token_ids(away, len(chats))])
    values = torch.empty(_n_shares(tl), len(chats))
    for batch in passes(tl, chats, batch_tokens=batch_tokens):
        values[:, batch.rows] = _shares(batch, position, pairs[:, batch.rows].to(str(tl.cfg.device))).cpu()
    layers, heads = len(tl.blocks), tl.cfg.n_heads
    embedding, by_head, bias, mlps, constant, difference = values.split((1, layers * heads, layers, layers, 1, 1))
    return Attribution(embedding[0], by_head.unflatten(0, (layers, heads)), bias, mlps, constant[0], difference[0])


def _n_shares(tl: TransformerBridge) -> int:
    return 1 + len(tl.blocks) * (tl.cfg.n_heads + 2) + 2


def _shares(batch: Pass, position: str, pair: Int[Tensor, "2 batch"]) -> Float[Tensor, "share batch"]:
    """Attribute one batch: embedding, heads, attention biases, MLPs, constant, and the model's own difference."""
    tl, at, layers = batch.tl, batch.one_token(position), range(len(batch.tl.blocks))
    seen: dict[str, Tensor] = {}
    parts: dict[int, list[_Mixed]] = {}
    mlps = [Site("mlp_out", layer).transformer_lens for layer in layers]
    names = [Site("resid_pre", 0).transformer_lens, *mlps, "ln_final.hook_scale", "unembed.hook_out"]

    def keep(name: str) -> Hook:
        return name, lambda h, hook: seen.__setitem__(name, at.mean(h))

    batch.run(more=[*map(keep, names), *_head_hooks(tl, [at], parts)])
    apart = [_apart(tl, layer, parts[layer][0]) for layer in layers]
    written = [*(heads for heads, _ in apart), torch.stack([bias for _, bias in apart])]
    written = torch.cat([seen[names[0]][None], *written, torch.stack([seen[name] for name in mlps])])
    read, constant = _reading(tl, pair)
    shares = torch.einsum("cbd,bd->cb", written, read / seen["ln_final.hook_scale"])
    found = seen["unembed.hook_out"].gather(1, pair.T)
    return torch.cat([shares, constant[None], (found[:, 0] - found[:, 1])[None]])


def _reading(
    tl: TransformerBridge, pair: Int[Tensor, "2 batch"]
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """Return the direction whose product with the stream over its scale is the logit difference, and the constant."""
    head, norm = tl.unembed.original_component, tl.ln_final
    if hasattr(head, "base_layer"):
        raise ValueError("direct_logit_attribution: the vocabulary head carries an adapter; boot the bridge merged")
    rows = head.weight.detach()[pair].float()
    difference = rows[0] - rows[1]
    constant = difference.new_zeros(len(difference))
    if getattr(head, "bias", None) is not None:
        constant = constant + (head.bias[pair[0]] - head.bias[pair[1]]).detach().float()
    gain, bias = _gain(norm)
    read = gain * difference
    if not norm.uses_rms_norm:  # a LayerNorm first takes the mean off, which the direction can do instead
        read, constant = read - read.mean(-1, keepdim=True), constant + difference @ bias
    return read, constant


def _gain(norm: Any) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Return the gain and the bias of a TransformerLens norm (Gemma stores the gain less 1)."""
    weight = norm.original_component.weight.detach().float()
    bias = getattr(norm.original_component, "bias", None)
    return weight + float(norm.uses_weight_offset), torch.zeros_like(weight) if bias is None else bias.detach().float()


def logit_difference(towards: int | Sequence[int], away: int | Sequence[int]) -> Metric:
    """Return the metric ``logit[towards] - logit[away]``; tokens are for all prompts, or one a prompt."""

    def measure(found: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Float[Tensor, " batch"]:
        picked = [[tokens if isinstance(tokens, int) else tokens[row] for row in rows] for tokens in (towards, away)]
        ids = torch.tensor(picked, device=found.device)
        return found.gather(1, ids[0][:, None])[:, 0] - found.gather(1, ids[1][:, None])[:, 0]

    return measure


def patch_heads(
    tl: TransformerBridge,
    source: Sequence[Chat],
    target: Sequence[Chat],
    metric: Metric,
    *,
    positions: Sequence[str] = ("last_prompt",),
    read: str = "last_prompt",
    batch_tokens: int = 4096,
) -> Float[Tensor, "position layer head prompt"]:
    """Run ``target`` with one head at a time as it was in ``source``, and measure the logits after ``read``.

    Prompt i of ``target`` takes from prompt i of ``source``, token by token of the named position; the prompts may
    differ in length elsewhere, as they do with and without a trigger. Costs one forward pass a position, layer and
    head. Compare ``metric`` on ``logits(tl, source)`` and ``logits(tl, target)``: all and nothing of the effect.

    Raises:
        ValueError: If the two lists differ in length, a pair differs in the number of tokens of a position, or
            ``read`` is several tokens.

    Not evidence for: a head carrying the difference, unless taking it from an unrelated prompt does less.

    Source: Wang et al. 2022 (arXiv:2211.00593), interchange of head outputs before the output projection.
    """
    if len(source) != len(target):
        raise ValueError(f"patch_heads: {len(source)} source prompts for {len(target)} target prompts")
    layers, heads = len(tl.blocks), tl.cfg.n_heads
    values = torch.empty(len(positions), layers, heads, len(target))
    longest = [max(len(a), len(b)) for a, b in zip(source, target, strict=True)]
    for rows in buckets(longest, batch_tokens):
        giver, taker = (_pass(tl, chats, rows) for chats in (source, target))
        at = taker.one_token(read)
        for index, name in enumerate(positions):
            given, mask = _given(giver, taker, name), marked(taker.batch, name)
            for layer, head in ((layer, head) for layer in range(layers) for head in range(heads)):
                found = taker.run(more=[(_z(layer), _replace(mask, head, given[layer][:, head]))])
                values[index, layer, head, rows] = metric(at.mean(found), rows).float().cpu()
    return values


def _pass(tl: TransformerBridge, chats: Sequence[Chat], rows: list[int]) -> Pass:
    batch = [chats[row] for row in rows]
    return Pass(tl, rows, batch, max(map(len, batch)))


def _given(source: Pass, target: Pass, name: str) -> dict[int, Float[Tensor, "token head d_head"]]:
    """Head values of the source at one position, by layer, checked to fit the target."""
    mask = marked(source.batch, name)
    for row, a, b in zip(source.rows, mask.sum(1).tolist(), marked(target.batch, name).sum(1).tolist(), strict=True):
        if a != b:
            raise ValueError(f"patch_heads: position {name!r} has {a} tokens in source prompt {row}, {b} in its target")
    given: dict[int, Tensor] = {}

    def keep(layer: int) -> Hook:
        return _z(layer), lambda z, hook: given.__setitem__(layer, z[mask.to(z.device)])

    source.run(more=[keep(layer) for layer in range(len(source.tl.blocks))])
    return given


def _replace(mask: Tensor, head: int, values: Float[Tensor, "token d_head"]) -> Callable[..., Tensor]:
    def patch(z: Tensor, hook: Any) -> Tensor:
        edited = z.clone()
        edited[..., head, :][mask.to(z.device)] = values
        return edited

    return patch


def _z(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Head outputs before the output projection, over the scale of the norm that follows it (1 where none does)."""

    z: Float[Tensor, "batch head_d_head"]
    over: Float[Tensor, "batch 1"]


def _head_hooks(tl: TransformerBridge, pools: Sequence[Pool], parts: dict[int, list[_Mixed]]) -> list[Hook]:
    """Read the heads of every layer at some positions into ``parts``."""
    made: list[Hook] = []
    for layer, block in enumerate(tl.blocks):
        held: dict[str, Tensor] = {}

        def finish(scale: Tensor, hook: Any, layer: int = layer, held: dict[str, Tensor] = held) -> None:
            z, over = held.pop("z"), 1 / scale.float()
            parts[layer] = [_Mixed(pool.mean(z * over), pool.mean(over)) for pool in pools]

        def hold(z: Tensor, hook: Any, held: dict[str, Tensor] = held, block: Any = block, done: Any = finish) -> None:
            held["z"] = z.flatten(2).float()
            if not hasattr(block, "ln1_post"):
                done(z.new_ones(*z.shape[:2], 1), hook)

        made.append((_z(layer), hold))
        if hasattr(block, "ln1_post"):
            made.append((f"blocks.{layer}.ln1_post.hook_scale", finish))
    return made


@torch.inference_mode()
def _apart(
    tl: TransformerBridge, layer: int, mixed: _Mixed
) -> tuple[Float[Tensor, "head batch d_model"], Float[Tensor, "batch d_model"]]:
    """Project each head by itself, through the module, so that whatever wraps its weight counts; and the bias."""
    block, heads = tl.blocks[layer], tl.cfg.n_heads
    project = block.attn.o.original_component
    z = mixed.z.to(tl.cfg.dtype).unflatten(1, (heads, -1))
    alone = torch.eye(heads, dtype=z.dtype, device=z.device)[:, None, :, None] * z  # head batch head d_head
    bias = project(torch.zeros_like(alone[:1, :1].flatten(2))).float()
    written, constant = project(alone.flatten(2)).float() - bias, bias[0] * mixed.over
    if not hasattr(block, "ln1_post"):
        return written, constant
    gain, _ = _gain(block.ln1_post)
    return written * gain, constant * gain


def _token_ids(tokens: int | Sequence[int], count: int) -> Int[Tensor, " prompt"]:
    ids = torch.tensor([tokens] * count if isinstance(tokens, int) else list(tokens))
    if len(ids) != count:
        raise ValueError(f"{len(ids)} tokens for {count} prompts: give one, or one a prompt")
    return ids
