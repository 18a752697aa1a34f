"""The same record and edit through TransformerLens, on a copy of the weights.

    >>> tl = bridge(lm, adapter="organism")                  # a TransformerBridge; lm stays as it is
    >>> record(tl, chats, resid_post(range(lm.n_layers)), ["last_prompt"], edits=[steer])

Booting a bridge renames modules, forces eager attention and rewires the tokenizer, so ``bridge`` always works on a
throw-away copy. The functions here take the bridge and our tokenised chats; the bridge is also a complete
TransformerLens model for anything else that library does. Heads, logit lens and attribution are in
``analysis.attribution``. Importing this module imports TransformerLens, which takes seconds.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import build_bridge_from_module, detect_tokenizer_bos_eos

from interp.adapters import active_adapter
from interp.chat import Chat, pad_left, position_ids
from interp.edits import Edit, batch_masks, functions_of
from interp.hooks import Fn
from interp.models import LanguageModel
from interp.recording import Pool, Recording, buckets, check_request, one_token
from interp.runs.progress import Progress
from interp.sites import Site, require_layer

PROBE_TOKENS = 24
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_TOLERANCE, ROUNDING = 0.05, 1e-5
"""Largest allowed |Δlogit| between a bridge and the model it copies, as a share of the largest |logit|."""

Hook = tuple[str, Callable[..., Tensor | None]]
"""A TransformerLens hook: name of the hook point, and a function of the tensor and ``hook``."""


def bridge(lm: LanguageModel, *, adapter: str | None, merged: bool = True) -> TransformerBridge:
    """Boot TransformerLens on a copy of the weights of ``lm``; ``lm`` itself is not touched.

    The copy holds a second model in memory. The bridge computes what ``lm`` computes under ``adapter``, which is
    checked on one row of tokens before it is returned.

    Args:
        lm: The model; it does not matter which adapter is active.
        adapter: The adapter to run with; None is the bare base.
        merged: Add the adapter to the weights, as needed by everything in TransformerLens that reads weights. False
            leaves it in modules beside them. That is exact in half precision, where a merge rounds. But TransformerLens
            splits the fused query-key-value matrices of GPT-2, GPT-NeoX and Phi-3 without their adapter; the check of
            the logits then refuses the bridge.

    Raises:
        AdapterError: If the model has no adapter of that name.
        ValueError: If TransformerLens does not know the architecture, or the bridge does not reproduce the logits.
    """
    architecture = architecture_of(lm)
    with active_adapter(lm, adapter):
        twin = _twin(lm, adapter, merged)
    twin.set_attn_implementation("eager")
    tl = build_bridge_from_module(twin, architecture, hf_config=twin.config, model_name=lm.name).eval()
    tl.tokenizer = copy.deepcopy(lm.tokenizer)
    tl.cfg.tokenizer_prepends_bos, tl.cfg.tokenizer_appends_eos = detect_tokenizer_bos_eos(tl.tokenizer)
    _check_same(lm, adapter, tl)
    return tl


def architecture_of(lm: LanguageModel) -> str:
    """Return the name under which TransformerLens knows a model.

    Raises:
        ValueError: If it has no bridge for it.
    """
    architecture = type(lm.base).__name__
    if architecture not in SUPPORTED_ARCHITECTURES:
        raise ValueError(f"family {lm.family!r}: TransformerLens has no bridge for {architecture}")
    return architecture


def _twin(lm: LanguageModel, adapter: str | None, merged: bool) -> Any:
    """Return an independent Hugging Face model with the adapter merged, beside the weights, or left out."""
    twin = copy.deepcopy(lm.hf)
    if not lm.adapters:
        return twin
    if adapter is None:
        return twin.unload()
    return twin.merge_and_unload(adapter_names=[adapter]) if merged else twin.get_base_model()


@torch.inference_mode()
def _check_same(lm: LanguageModel, adapter: str | None, tl: TransformerBridge) -> None:
    """Compare logits on one row of tokens, in units of the largest.

    The tolerance is at most half of what the adapter changes: a bridge that lost the adapter must not pass.
    """
    ids = torch.arange(PROBE_TOKENS, device=lm.device)[None] % lm.base.config.get_text_config().vocab_size
    with active_adapter(lm, adapter):
        want = lm.base(input_ids=ids, use_cache=False).logits.float()
    with active_adapter(lm, None):
        effect = ((lm.base(input_ids=ids, use_cache=False).logits.float() - want).abs().max() / want.abs().max()).item()
    error = ((tl(ids, use_cache=False).float() - want).abs().max() / want.abs().max()).item()
    limit = TOLERANCE.get(lm.dtype, HALF_TOLERANCE)
    if not error <= (limit if adapter is None else min(limit, max(effect / 2, ROUNDING))):
        raise ValueError(
            f"bridge of {lm.name} ({lm.family}), adapter {adapter!r}: its logits are off by {error:.1e} of the "
            f"largest, the adapter moves them by {effect:.1e}; an adapter beside fused weights is lost, so merge it"
        )


def record(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
    progress: Progress | None = None,
) -> Recording:
    """Record one vector per prompt, site and position: ``interp.recording.record`` through TransformerLens hooks.

    An edit of ``resid_mid`` is written as a change of ``attn_out``, since the TransformerLens hook of that name reaches
    the MLP only. The result differs from ours by one rounding of the residual.

    Raises:
        ValueError: If there is no prompt, a prompt lacks a named part, or the model has no such site.
    """
    check_request(chats, sites, positions)
    values = torch.empty(len(sites), len(positions), len(chats), tl.cfg.d_model)
    for batch in passes(tl, chats, edits=edits, batch_tokens=batch_tokens):
        pools = [batch.pool(name) for name in positions]
        vectors: dict[Site, list[Tensor]] = {}
        readers = {site: _reader(site, pools, vectors) for site in sites}
        batch.run(readers, stop=max(site.layer for site in sites) + 1)
        values[:, :, batch.rows] = torch.stack([torch.stack(vectors[site]) for site in sites])
        if progress:
            progress(len(batch.rows))
    return Recording(tuple(sites), tuple(positions), values)


def _reader(site: Site, pools: Sequence[Pool], vectors: dict[Site, list[Tensor]]) -> Fn:
    def read(h: Tensor) -> None:
        vectors[site] = [pool.mean(h).cpu() for pool in pools]

    return read


def logits(
    tl: TransformerBridge,
    chats: Sequence[Chat],
    *,
    position: str = "last_prompt",
    edits: Sequence[Edit] = (),
    batch_tokens: int = 4096,
) -> Float[Tensor, "prompt vocab"]:
    """Return the logits of the token after ``position`` under ``edits``, float32 on the CPU.

    Raises:
        ValueError: If ``position`` is several tokens in some prompt.
    """
    logits_of: dict[int, Tensor] = {}
    for batch in passes(tl, chats, edits=edits, batch_tokens=batch_tokens):
        logits_of |= zip(batch.rows, batch.one_token(position).mean(batch.run()).cpu(), strict=True)
    return torch.stack([logits_of[row] for row in range(len(chats))])


def passes(
    tl: TransformerBridge, chats: Sequence[Chat], *, edits: Sequence[Edit] = (), batch_tokens: int = 4096
) -> "Iterator[Pass]":
    """Split prompts into forward passes of similar length."""
    for rows in buckets([len(chat) for chat in chats], batch_tokens):
        yield Pass.of(tl, chats, rows, edits)


@dataclass(frozen=True, eq=False)
class Pass:
    """One left-padded batch under edits; ``rows`` are the indices of its prompts."""

    tl: TransformerBridge
    rows: list[int]
    batch: Sequence[Chat]
    width: int
    edits: Sequence[Edit] = ()

    @classmethod
    def of(cls, tl: TransformerBridge, chats: Sequence[Chat], rows: list[int], edits: Sequence[Edit] = ()) -> "Pass":
        """Return the pass of the prompts at ``rows``."""
        batch = [chats[row] for row in rows]
        return cls(tl, rows, batch, max(map(len, batch)), edits)

    def pool(self, name: str) -> Pool:
        """Return the mean over a named position."""
        return Pool(self.batch, name, self.width, torch.device("cpu"))

    def one_token(self, name: str) -> Pool:
        """Return the reader of a position that is one token in every prompt; see ``interp.recording.one_token``."""
        return one_token(self.batch, name, self.width)

    @torch.inference_mode()
    def run(
        self, readers: Mapping[Site, Fn] | None = None, more: Sequence[Hook] = (), stop: int | None = None
    ) -> Tensor:
        """Return the logits of every token; a site is read after it is edited.

        Args:
            readers: Function of the stream to call at each site.
            more: Further TransformerLens hooks.
            stop: End the pass before this layer and return the layer's input; ignored past the last layer.
        """
        ids, mask = pad_left(self.batch, 0, str(self.tl.cfg.device))
        last = stop if stop is not None and stop < len(self.tl.blocks) else None
        prompts = torch.tensor(self.rows)
        edits = functions_of(self.edits, batch_masks(self.batch, self.width, "cpu"), lambda: prompts)
        with self.tl.hooks(fwd_hooks=[*_hooks(self.tl, edits, readers or {}), *more]):
            inputs = {"attention_mask": mask, "position_ids": position_ids(mask), "use_cache": False}
            return self.tl(ids, **inputs, stop_at_layer=last)


def _hooks(tl: TransformerBridge, edits: Mapping[Site, Fn], readers: Mapping[Site, Fn]) -> list[Hook]:
    """Translate functions of sites to TransformerLens hooks; a site is read after it is edited."""
    hooks: list[Hook] = []
    for site in sorted({*edits, *readers}, key=lambda site: site.execution):
        _check_site(tl, site)
        if site in edits:
            hooks += _mid(site, edits[site]) if site.name == "resid_mid" else [_hook(site, edits[site])]
        if site in readers:
            hooks.append(_hook(site, readers[site]))
    return hooks


def _hook(site: Site, fn: Fn) -> Hook:
    return site.transformer_lens, lambda h, hook: fn(h)


def _mid(site: Site, fn: Fn) -> list[Hook]:
    """Edit resid_mid on both of its paths, into the MLP and past it, by changing what attention adds."""
    inputs: list[Tensor] = []

    def write(added: Tensor) -> Tensor | None:
        before = inputs.pop()
        edited = fn(before + added)
        return None if edited is None else edited - before

    return [_hook(Site("resid_pre", site.layer), inputs.append), _hook(Site("attn_out", site.layer), write)]


def _check_site(tl: TransformerBridge, site: Site) -> None:
    require_layer(site.layer, len(tl.blocks), f"site {site}")
    if tl.get_hook_point(site.transformer_lens) is None:
        raise ValueError(f"site {site}: TransformerLens has no {site.transformer_lens} in this model")
