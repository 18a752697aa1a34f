"""Weight orthogonalisation: inside a ``with`` block, the model's matrices cannot write along a direction.

    >>> with orthogonalised(lm, g):
    ...     generate(lm, chats)
    >>> generate(lm, chats, edits=writer_ablation(lm, g))     # the same by hooks, exact for every family

Everything that writes to the residual stream is replaced by its projection W - V^T V W (V orthonormal rows): the token
and position embeddings, and the weights and biases of attention out and MLP out. Under LoRA both terms of W + s B A are
projected (W and every adapter's B), so adapters still switch on and off inside the block.

*Unembedding.* It only reads from the stream, so it is not changed. Where it shares its weight with the embedding
(Gemma, small Qwen2, GPT-2), the embedding has a separate weight inside the block and shares the old one again after it.

*Exactness.* The original parameters are set aside and put back, so after the block the model is bit-identical. Inside
it the component along V is zero up to the rounding of the weights' dtype (relative 1e-6 in float32, 4e-3 in bfloat16).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.directions import orthonormal
from interp.edits import Edit, ablate
from interp.models import LanguageModel
from interp.sites import Site, block_of


@contextmanager
def orthogonalised(lm: LanguageModel, vectors: Float[Tensor, "*n d_model"], *, inexact: bool = False) -> Iterator[None]:
    """Remove the span of ``vectors`` from all weights that write to the residual stream; restore them on exit.

    The stream has no component in the span at any site, and the logits equal those under ``writer_ablation``.

    Args:
        lm: The model, with or without adapters.
        vectors: One direction, or rows that span a subspace.
        inexact: Accept a family with norms between block and stream (``Block.post_normed``). Its writers are projected
            along the norm's gain times ``vectors``: the stream then has no component in the span either, but the
            norm scales up what is left, and the logits differ from those under ``writer_ablation``.

    Raises:
        ValueError: If the family is unknown, or has such norms and ``inexact`` is False, or a writer cannot be
            projected exactly: a DoRA or other non-LoRA adapter on it, quantised or offloaded weights, an embedding
            module that is itself the unembedding. Nothing is changed then.

    Not evidence for: use of the direction by the model, unless a random direction of ``interp.directions`` does less.

    Source: Arditi et al. 2024 (arXiv:2406.11717), weight orthogonalization.
    """
    plan = _plan(lm, torch.atleast_2d(vectors), inexact)
    originals = [(part, part.parameter) for part, _ in plan]
    try:
        for part, basis in plan:
            part.put(_projection(part, basis))
        yield
    finally:
        for part, parameter in originals:
            part.put(parameter)


def writer_ablation(lm: LanguageModel, vectors: Float[Tensor, "*n d_model"]) -> tuple[Edit, ...]:
    """Return edits with the same effect as orthogonalisation: ablate the embedding and both outputs of every block.

    They act at all positions. Exact for every family of ``interp.sites.BLOCKS``, post-norms and DoRA included.
    """
    names, layers = ("attn_out", "mlp_out"), range(lm.n_layers)
    sites = [Site("resid_pre", 0), *(Site(name, layer) for layer in layers for name in names)]
    return tuple(ablate(site, vectors, positions="all") for site in sites)


class _Part(NamedTuple):
    """One parameter: its owner and name, and the axis that has the width of the stream."""

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
    """Return every parameter to project, with the basis to remove; all checks come before any change."""
    block, basis = block_of(lm.family), orthonormal(vectors)
    if block.writers is None:
        raise ValueError(
            f"family {lm.family!r}: its weights cannot be orthogonalised exactly; ablate with writer_ablation"
        )
    if block.post_normed and not inexact:
        raise ValueError(
            f"family {lm.family!r}: its post-norms make weight orthogonalisation inexact; pass inexact=True, or ablate "
            "exactly with writer_ablation"
        )
    if lm.lm_head is lm.embedding:
        raise ValueError(f"model {lm.name}: embedding and unembedding are one module, so neither changes alone")
    embeddings = [("embedding", lm.embedding), ("position embedding", getattr(lm.decoder, "wpe", None))]
    plan = [(part, basis) for where, module in embeddings if module is not None for part in _parts(module, where)]
    for index, layer in enumerate(lm.layers):
        for path, norm in zip(block.writers, (block.attn_out, block.mlp_out), strict=True):
            scaled = orthonormal(vectors * _gain(layer, norm, lm.family).cpu()) if block.post_normed else basis
            plan += [(part, scaled) for part in _parts(layer.get_submodule(path), f"{path} of layer {index}")]
    for part, _ in plan:
        _check(part, lm.d_model)
    return plan


def _gain(layer: nn.Module, norm: str, family: str) -> Float[Tensor, " d_model"]:
    """Return the factors by which the norm after a writer multiplies each dimension (Gemma stores them minus 1)."""
    weight: Any = layer.get_submodule(norm).weight
    return weight.detach().float() + (1.0 if family.startswith("gemma") else 0.0)


def _parts(module: Any, where: str) -> Iterator[_Part]:
    """Yield the last parameters before the stream: the module's output is a sum of terms that each end with one."""
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
