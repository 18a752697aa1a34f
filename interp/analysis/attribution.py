"""Attention heads, logit lens, direct logit attribution and head patching, on a TransformerLens bridge.

>>> tl = bridge(lm, adapter="organism")                                          # interp.bridges.via_transformer_lens
>>> direct_logit_attribution(tl, chats, towards=17, away=23).heads               # (layer, head, prompt)
>>> patch_heads(tl, on, off, logit_difference(17, 23), positions=["question"])   # (position, layer, head, prompt)
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analysis.interchange import paired_buckets
from interp.bridges.via_transformer_lens import Hook, Pass, TransformerBridge, passes, record
from interp.chat import Chat
from interp.chat import positions as marked
from interp.edits import Edit
from interp.recording import Pool
from interp.sites import Site

Metric = Callable[[Float[Tensor, "batch vocab"], Sequence[int]], Float[Tensor, " batch"]]
"""Takes the logits of some prompts and the indices of those prompts; returns one number per prompt."""


def head_outputs(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    positions: Sequence[str] = ("last_prompt",),
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
) -> Float[Tensor, "position layer head prompt d_model"]:
    """Return what each attention head adds to the residual stream, averaged over the tokens of each position.

    Summed over heads they are ``attn_out`` minus the bias of the output projection. Where a norm follows attention
    (Gemma-2, Gemma-3, OLMo-2) its scale is held at its value in the run; only then is the sum over heads linear.

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
        tokens: Which logits to keep; by default all of them, which takes much memory.
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
    logits = tl.unembed(tl.ln_final(h.to(tl.cfg.device, tl.cfg.dtype)[None]))[0].float()
    cap = tl.cfg.output_logits_soft_cap
    logits = logits if cap <= 0 else cap * torch.tanh(logits / cap)
    return (logits if tokens is None else logits[:, list(tokens)]).cpu()


@dataclass(frozen=True, eq=False)
class Attribution:
    """Shares of a logit difference that sum to it, with the scale of the final norm held at its value in the run.

    Attributes:
        embedding: Share of the token (and position) embedding.
        heads: Share of each attention head.
        attention_bias: Share of the bias of each attention output projection; zero in most families.
        mlps: Share of each MLP.
        constant: Share of the biases of the final norm and of the vocabulary head.
        logit_difference: The model's own logit difference, before the soft cap of Gemma-2.
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
        towards: Token id, one for all prompts or one per prompt.
        away: Token id to compare with, likewise.
        position: A position of one token.
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
    """Return the shares of one batch: embedding, heads, attention biases, MLPs, constant; then the logit difference."""
    tl, at, layers = batch.tl, batch.one_token(position), range(len(batch.tl.blocks))
    values: dict[str, Tensor] = {}
    parts: dict[int, list[_Mixed]] = {}
    mlps = [Site("mlp_out", layer).transformer_lens for layer in layers]
    names = [Site("resid_pre", 0).transformer_lens, *mlps, "ln_final.hook_scale", "unembed.hook_out"]

    def keep(name: str) -> Hook:
        return name, lambda h, hook: values.__setitem__(name, at.mean(h))

    batch.run(more=[*map(keep, names), *_head_hooks(tl, [at], parts)])
    apart = [_apart(tl, layer, parts[layer][0]) for layer in layers]
    written = [*(heads for heads, _ in apart), torch.stack([bias for _, bias in apart])]
    written = torch.cat([values[names[0]][None], *written, torch.stack([values[name] for name in mlps])])
    # The logit difference is linear in the stream once the norm's scale is fixed: each share is the product of what a
    # component wrote with the direction that the vocabulary head and the norm's gain read.
    read, constant = _reading(tl, pair)
    shares = torch.einsum("cbd,bd->cb", written, read / values["ln_final.hook_scale"])
    logits = values["unembed.hook_out"].gather(1, pair.T)
    return torch.cat([shares, constant[None], (logits[:, 0] - logits[:, 1])[None]])


def _reading(
    tl: TransformerBridge, pair: Int[Tensor, "2 batch"]
) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
    """Return the direction whose product with (stream / scale) is the logit difference, and the constant term."""
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
    if not norm.uses_rms_norm:  # a LayerNorm subtracts the mean of h; centring the direction does the same
        read, constant = read - read.mean(-1, keepdim=True), constant + difference @ bias
    return read, constant


def _gain(norm: Any) -> tuple[Float[Tensor, " d_model"], Float[Tensor, " d_model"]]:
    """Return the gain and the bias of a TransformerLens norm (Gemma stores the gain minus 1)."""
    weight = norm.original_component.weight.detach().float()
    bias = getattr(norm.original_component, "bias", None)
    return weight + float(norm.uses_weight_offset), torch.zeros_like(weight) if bias is None else bias.detach().float()


def logit_difference(towards: int | Sequence[int], away: int | Sequence[int]) -> Metric:
    """Return the metric ``logit[towards] - logit[away]``; token ids are one for all prompts, or one per prompt."""

    def measure(logits: Float[Tensor, "batch vocab"], rows: Sequence[int]) -> Float[Tensor, " batch"]:
        pairs = [[tokens if isinstance(tokens, int) else tokens[row] for row in rows] for tokens in (towards, away)]
        ids = torch.tensor(pairs, device=logits.device)
        return logits.gather(1, ids[0][:, None])[:, 0] - logits.gather(1, ids[1][:, None])[:, 0]

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
    """Run ``target`` with one head at a time copied from ``source``, and apply ``metric`` to the logits after ``read``.

    Prompt i of ``target`` takes values from prompt i of ``source``, token by token of the named position; the prompts
    may differ in length elsewhere, as they do with and without a trigger. Costs one forward pass per position, layer
    and head. Compare ``metric`` on ``logits(tl, source)`` (the full effect) and ``logits(tl, target)`` (none of it).

    Raises:
        ValueError: If the two lists differ in length, a pair differs in the number of tokens of a position, or
            ``read`` is several tokens.

    Not evidence for: a head that carries the difference, unless copying from an unrelated prompt does less.

    Source: Wang et al. 2022 (arXiv:2211.00593), interchange of head outputs before the output projection.
    """
    layers, heads = len(tl.blocks), tl.cfg.n_heads
    values = torch.empty(len(positions), layers, heads, len(target))
    for rows in paired_buckets(source, target, positions, batch_tokens):
        from_pass, to_pass = (Pass.of(tl, chats, rows) for chats in (source, target))
        at = to_pass.one_token(read)
        for index, name in enumerate(positions):
            z_of, mask = _head_values(from_pass, name), marked(to_pass.batch, name)
            for layer, head in itertools.product(range(layers), range(heads)):
                logits = to_pass.run(more=[(_z(layer), _replace(mask, head, z_of[layer][:, head]))])
                values[index, layer, head, rows] = metric(at.mean(logits), rows).float().cpu()
    return values


def _head_values(batch: Pass, name: str) -> dict[int, Float[Tensor, "token head d_head"]]:
    """Run a batch; return by layer the head values at one position, one row per token, prompt after prompt."""
    mask, values = marked(batch.batch, name), dict[int, Tensor]()

    def keep(layer: int) -> Hook:
        return _z(layer), lambda z, hook: values.__setitem__(layer, z[mask.to(z.device)])

    batch.run(more=[keep(layer) for layer in range(len(batch.tl.blocks))])
    return values


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
    """Head outputs before the output projection, divided by the scale of the norm that follows (1 without a norm).

    ``over`` is the mean of 1 / scale: the factor of the projection's bias.
    """

    z: Float[Tensor, "batch head_d_head"]
    over: Float[Tensor, "batch 1"]


def _head_hooks(tl: TransformerBridge, pools: Sequence[Pool], parts: dict[int, list[_Mixed]]) -> list[Hook]:
    """Read the heads of every layer at some positions into ``parts``."""
    # Where a norm follows, z must wait for the norm's scale, which a second hook reads later in the same pass.
    hooks: list[Hook] = []
    for layer, block in enumerate(tl.blocks):
        waiting: list[Tensor] = []

        def finish(scale: Tensor, hook: Any, layer: int = layer, waiting: list[Tensor] = waiting) -> None:
            z, over = waiting.pop(), 1 / scale.float()
            parts[layer] = [_Mixed(pool.mean(z * over), pool.mean(over)) for pool in pools]

        def hold(
            z: Tensor, hook: Any, waiting: list[Tensor] = waiting, block: Any = block, finish: Any = finish
        ) -> None:
            waiting.append(z.flatten(2).float())
            if not hasattr(block, "ln1_post"):
                finish(z.new_ones(*z.shape[:2], 1), hook)

        hooks.append((_z(layer), hold))
        if hasattr(block, "ln1_post"):
            hooks.append((f"blocks.{layer}.ln1_post.hook_scale", finish))
    return hooks


@torch.inference_mode()
def _apart(
    tl: TransformerBridge, layer: int, mixed: _Mixed
) -> tuple[Float[Tensor, "head batch d_model"], Float[Tensor, "batch d_model"]]:
    """Return the projection of each head alone, and the bias.

    Heads go through the module, one nonzero head at a time, so that an adapter around its weight counts too.
    """
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
        raise ValueError(f"{len(ids)} tokens for {count} prompts: give one, or one per prompt")
    return ids
