"""Weight orthogonalisation: a model whose matrices cannot write along a direction, for as long as a block lasts.

    >>> with orthogonalised(lm, g):
    ...     generate(lm, chats)
    >>> generate(lm, chats, edits=writer_ablation(lm, g))     # the same by hooks, for families where weights cannot

Everything that writes to the residual stream is replaced by its projection W - V^T V W (V orthonormal rows): the token
and position embeddings, and the weights and biases of attention out and MLP out. Under LoRA both terms of W + s B A are
projected (W and every adapter's B), so adapters still switch on and off inside the block.

*Unembedding.* It only reads, so it stays as it is. Where it shares its weight with the embedding (Gemma, small Qwen2,
GPT-2), the embedding gets a weight of its own inside the block and shares the old one again after it.

*Exactness.* Original parameters are put aside, not rebuilt, so after the block the model is the same to the bit. Inside
it the component along V is zero up to the rounding of the weights' dtype (relative 1e-6 in float32, 4e-3 in bfloat16).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.directions import orthonormal
from interp.edits import Edit, ablate
from interp.models import LanguageModel
from interp.sites import Site, block_of

_LLAMA = ("self_attn.o_proj", "mlp.down_proj")
WRITERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "olmo2"), _LLAMA),
        "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
        "gpt2": ("attn.c_proj", "mlp.c_proj"),
    }
)
"""Modules of a decoder layer whose output is added to the stream: attention out and MLP out."""
POST_NORMED = frozenset({"gemma2", "gemma3_text", "olmo2"})
"""Families that rescale what a block adds, so that no change of weights equals ablation of the output."""


@contextmanager
def orthogonalised(lm: LanguageModel, vectors: Float[Tensor, "*n d_model"], *, inexact: bool = False) -> Iterator[None]:
    """Take the span of ``vectors`` out of everything that writes to the residual stream; restore it on exit.

    The stream has no component in the span at any site, and the logits are those under ``writer_ablation``.

    Args:
        lm: The model, with adapters or without.
        vectors: One direction, or rows that span a subspace.
        inexact: Accept a family with norms between block and stream (``POST_NORMED``). Its writers are projected
            along the norm's gain times ``vectors``: the stream then has no component in the span either, but the
            norm scales up what is left, and the logits differ from those under ``writer_ablation``.

    Raises:
        ValueError: If the family is unknown or has such norms without consent, or a writer cannot be projected
            exactly: a DoRA or other non-LoRA adapter on it, quantised or offloaded weights, an embedding module that
            is itself the unembedding. Nothing has been changed then.

    Not evidence for: use of the direction by the model, unless a random direction of ``interp.directions`` does less.

    Source: Arditi et al. 2024 (arXiv:2406.11717), weight orthogonalization.
    """
    projected = _plan(lm, torch.atleast_2d(vectors), inexact)
    kept = [(part, part.parameter) for part, _ in projected]
    try:
        for part, basis in projected:
            part.put(_projection(part, basis))
        yield
    finally:
        for part, parameter in kept:
            part.put(parameter)


def writer_ablation(lm: LanguageModel, vectors: Float[Tensor, "*n d_model"]) -> tuple[Edit, ...]:
    """Return the edits that orthogonalisation equals: ablate the embedding and every block's two outputs, everywhere.

    Exact for every family of ``interp.sites.BLOCKS``, post-norms and DoRA included.
    """
    names, layers = ("attn_out", "mlp_out"), range(lm.n_layers)
    sites = [Site("resid_pre", 0), *(Site(name, layer) for layer in layers for name in names)]
    return tuple(ablate(site, vectors, positions="all") for site in sites)


class _Part(NamedTuple):
    """One parameter, by its place, and the axis along which it meets the stream."""

    owner: Any  # a module, or one of peft's dictionaries of parameters
    name: str
    axis: int
    where: str

    @property
    def parameter(self) -> nn.Parameter:
        return getattr(self.owner, self.name)

    def put(self, parameter: nn.Parameter) -> None:
        setattr(self.owner, self.name, parameter)


def _projection(part: _Part, basis: Float[Tensor, "rank d_model"]) -> nn.Parameter:
    """Return the parameter without the span of ``basis``, computed in float32."""
    old = part.parameter
    weight, q = old.detach().float().movedim(part.axis, -1), basis.to(old.device)
    new = (weight - weight @ q.T @ q).movedim(-1, part.axis)
    return nn.Parameter(new.to(old.dtype).contiguous(), requires_grad=old.requires_grad)


def _plan(lm: LanguageModel, vectors: Tensor, inexact: bool) -> list[tuple[_Part, Tensor]]:
    """Every parameter to project, with the basis to project it off; all checks come before any change."""
    family, basis = lm.family, orthonormal(vectors)
    if family not in WRITERS:
        raise ValueError(f"family {family!r}: the matrices that write to the stream are known for {', '.join(WRITERS)}")
    if family in POST_NORMED and not inexact:
        raise ValueError(
            f"family {family!r}: its post-norms make weight orthogonalisation inexact; pass inexact=True, or ablate "
            "exactly with writer_ablation"
        )
    if lm.lm_head is lm.embedding:
        raise ValueError(f"model {lm.name}: embedding and unembedding are one module, so neither changes alone")
    embeddings = [("embedding", lm.embedding), ("position embedding", getattr(lm.decoder, "wpe", None))]
    plan = [(part, basis) for where, module in embeddings if module is not None for part in _parts(module, where)]
    for index, layer in enumerate(lm.layers):
        for path, site in zip(WRITERS[family], ("attn_out", "mlp_out"), strict=True):
            own = orthonormal(vectors * _gain(layer, family, site).cpu()) if family in POST_NORMED else basis
            plan += [(part, own) for part in _parts(layer.get_submodule(path), f"{path} of layer {index}")]
    for part, _ in plan:
        _check(part, lm.d_model)
    return plan


def _gain(layer: nn.Module, family: str, site: str) -> Float[Tensor, " d_model"]:
    """What the norm behind a writer multiplies each dimension by."""
    weight: Any = layer.get_submodule(getattr(block_of(family), site)).weight
    return weight.detach().float() + (1.0 if family.startswith("gemma") else 0.0)


def _parts(module: Any, where: str) -> Iterator[_Part]:
    """Parameters whose sum, after whatever they are multiplied with, is the module's output."""
    if hasattr(module, "modules_to_save"):  # peft's full copies
        for inner in (module.original_module, *module.modules_to_save.values()):
            yield from _parts(inner, where)
    elif hasattr(module, "base_layer") and hasattr(module, "lora_B") and not module.lora_variant:
        for inner in (module.base_layer, *module.lora_B.values()):
            yield from _parts(inner, where)
        yield from (_Part(module.lora_embedding_B, name, 0, where) for name in module.lora_embedding_B)
    elif isinstance(module, (nn.Linear, Conv1D, nn.Embedding)):
        yield _Part(module, "weight", 0 if isinstance(module, nn.Linear) else 1, where)
        if getattr(module, "bias", None) is not None:
            yield _Part(module, "bias", 0, where)
    else:
        variants = {type(variant).__name__ for variant in getattr(module, "lora_variant", {}).values()}
        kind = ", ".join(sorted(variants)) or type(module).__name__
        raise ValueError(f"{where}: a {kind} cannot be orthogonalised exactly; ablate with writer_ablation")


def _check(part: _Part, d_model: int) -> None:
    weight = part.parameter
    if weight.is_meta or not weight.is_floating_point() or weight.shape[part.axis] != d_model:
        raise ValueError(
            f"{part.where}: {weight.dtype} weights of shape {tuple(weight.shape)} on {weight.device} cannot be "
            f"orthogonalised; want floating point of width {d_model}, neither quantised nor offloaded"
        )
