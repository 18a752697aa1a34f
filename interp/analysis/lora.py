"""LoRA adapters: their weight updates, the directions they read and write, and single modules switched off.

    >>> updates = lora_updates(folder)                            # by module, such as model.layers.3.mlp.down_proj
    >>> write_directions(updates).vectors[0]                      # the direction the adapter writes most
    >>> with without_modules(lm, "organism", adapted_modules(lm, "organism", "self_attn")):
    ...     ...                                                   # the adapter without its attention modules
    >>> scalar_activations(lm, "organism", chats, ["trigger"])    # a·x: what a rank-1 adapter reads from the stream

An adapter folder is read as JSON and safetensors, a loaded adapter through its modules.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.adapters import WEIGHTS, active_adapter, adapter_config, check_files, of_module, require_adapter
from interp.chat import Chat, pad_left, position_ids
from interp.models import AdapterError, LanguageModel, check_prompts
from interp.recording import Pool, buckets, pass_tokens

PREFIX, A_TENSOR, B_TENSOR = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
WRITERS = frozenset({"o_proj", "out_proj", "down_proj", "c_proj", "fc2", "fc_out", "w2", "dense", "dense_4h_to_h"})
"""Modules whose output is added to the residual stream (before Gemma's and OLMo-2's post-norms)."""
READERS = frozenset(
    {"q_proj", "k_proj", "v_proj", "qkv_proj", "q_a_proj", "kv_a_proj_with_mqa", "query_key_value", "c_attn", "Wqkv"}
    | {"gate_proj", "up_proj", "gate_up_proj", "dense_h_to_4h", "c_fc", "fc1", "fc_in", "w1", "w3", "gate", "in_proj"}
    | {"in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"}
)
"""Modules whose input is the residual stream after a norm."""
INNER = frozenset({"q_b_proj", "kv_b_proj", "x_proj", "dt_proj"})
"""Modules between a reader and a writer."""
PLAIN = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations (``init_lora_weights``) that leave the base's weights as they are."""


@dataclass(frozen=True, eq=False)
class LoraUpdate:
    """The update of one linear module: ``scale * B @ A`` is added to its weight."""

    name: str
    A: Float[Tensor, "rank d_in"]
    B: Float[Tensor, "d_out rank"]
    scale: float

    @property
    def kind(self) -> str:
        """Last part of the name, such as ``down_proj``."""
        return self.name.rpartition(".")[2]

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.A)


def lora_updates(folder: Path | str) -> dict[str, LoraUpdate]:
    """Read the updates of an adapter folder, by the module's name in the base model.

    Raises:
        AdapterError: If a file is missing, or the adapter is not plain LoRA of linear modules.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    check_files(folder.name, folder)
    config, tensors = adapter_config(folder.name, folder), load_file(folder / WEIGHTS)
    other = sorted(name for name, x in tensors.items() if not name.endswith((A_TENSOR, B_TENSOR)) or x.ndim != 2)
    settings = [name for name in ("use_dora", "target_parameters", "layer_replication") if config.get(name)]
    if config.get("init_lora_weights") not in PLAIN:
        settings.append("init_lora_weights")
    if other or settings or config.get("peft_type") != "LORA":
        raise AdapterError(
            f"adapter {folder}: not a plain LoRA of linear modules ({[*other, *settings, 'its type'][0]})"
        )
    updates = {}
    for name in sorted(name.removesuffix(A_TENSOR) for name in tensors if name.endswith(A_TENSOR)):
        a, b, plain = tensors[name + A_TENSOR], tensors[name + B_TENSOR], name.removeprefix(PREFIX)
        updates[plain] = LoraUpdate(plain, a.float(), b.float(), _scale(config, plain, len(a)))
    return updates


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """Return alpha / rank, or alpha / sqrt(rank) with rsLoRA; a module may have an alpha of its own."""
    alpha = float(of_module(config.get("alpha_pattern") or {}, name, config["lora_alpha"]))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def delta(update: LoraUpdate) -> Float[Tensor, "d_out d_in"]:
    """Return the matrix that is added to the module's weight."""
    return update.scale * update.B @ update.A


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Orthonormal directions of the residual stream (rows), largest singular value first; signs are arbitrary."""

    vectors: Float[Tensor, "rank d_model"]
    singular_values: Float[Tensor, " rank"]


def write_directions(updates: Mapping[str, LoraUpdate]) -> Spectrum:
    """Return what an adapter writes: left singular vectors of its updates of ``WRITERS``, concatenated by columns.

    Raises:
        AdapterError: If it adapts no such module, or one of an unknown kind.

    Not evidence for: what is written in a run, which also depends on the input of the modules.

    Source: the rank-1 B vector of Turner, Soligo et al. 2025 (arXiv:2506.11613), here for any rank.
    """
    return _spectrum([(u.scale * u.B, u.A) for u in _of_kind(updates, WRITERS, "writes to")])


def read_directions(updates: Mapping[str, LoraUpdate], gains: Mapping[str, Tensor] | None = None) -> Spectrum:
    """Return what an adapter reads: right singular vectors of its updates of ``READERS``, concatenated by rows.

    A module reads the stream through a norm: x / rms(x), times a gain per coordinate. Without ``gains`` the directions
    are those of the module's input; with them (``stream_gain`` of each name) those of the stream itself, up to the
    norm's scale at the token.

    Raises:
        AdapterError: If it adapts no such module, or one of an unknown kind.
    """
    readers = _of_kind(updates, READERS, "reads")
    return _spectrum([((u.A if gains is None else u.A * gains[u.name]).T, (u.scale * u.B).T) for u in readers])


def check_kinds(updates: Mapping[str, LoraUpdate]) -> None:
    """Refuse a module of which it is unknown whether it reads or writes the residual stream.

    Raises:
        AdapterError: Names the module.
    """
    if unknown := next((u.name for u in updates.values() if u.kind not in READERS | WRITERS | INNER), None):
        raise AdapterError(f"adapter: whether its module {unknown} reads or writes the residual stream is unknown")


def _of_kind(updates: Mapping[str, LoraUpdate], kinds: frozenset[str], verb: str) -> list[LoraUpdate]:
    check_kinds(updates)
    selected = [update for update in updates.values() if update.kind in kinds]
    if not selected:
        raise AdapterError(f"adapter: none of its {len(updates)} modules {verb} the residual stream")
    return selected


def _spectrum(factors: Sequence[tuple[Tensor, Tensor]]) -> Spectrum:
    """Return the left singular vectors of [X1 Y1, X2 Y2, ...] from the factors."""
    # With Yᵀ = Q R, X Y = (X Rᵀ) Qᵀ, and Q has orthonormal columns: X Rᵀ has the same left singular vectors and
    # values, but only as many columns as the rank. No matrix of a weight's size is computed.
    parts = [x.double() @ torch.linalg.qr(y.double().T).R.T for x, y in factors]
    left, values, _ = torch.linalg.svd(torch.cat(parts, dim=1), full_matrices=False)
    nonzero = values > 1e-6 * values[0]
    return Spectrum(left.T[nonzero].float(), values[nonzero].float())


def stream_gain(lm: LanguageModel, name: str) -> Float[Tensor, " d_model"]:
    """Return the gain of the norm between the stream and a module that reads it; ones if there is no norm.

    Raises:
        ValueError: If the module is in no decoder layer, or its input is not the stream after at most one norm.
    """
    module = lm.base.get_submodule(name)
    paths = [{part: path for path, part in layer.named_modules()}.get(module) for layer in lm.layers]
    layer = next((layer for layer, path in zip(lm.layers, paths, strict=True) if path), None)
    path = next(filter(None, paths), "")
    norm = None if layer is None else _norm_before(lm, path)
    if layer is None or norm is None:
        raise ValueError(f"module {name!r}: not a module that reads the residual stream of a layer")
    return norm_gain(layer.get_submodule(norm), lm) if norm else torch.ones(lm.d_model)


class _Stop(Exception):  # noqa: N818  (not an error: the layer has run)
    """Stops a forward pass behind one layer."""


@torch.inference_mode()
def _norm_before(lm: LanguageModel, path: str) -> str | None:
    """Return which norm of a layer a module reads, "" if it reads the stream itself, None if it reads anything else.

    The first layer that has such a module runs on a few tokens. The stream is the layer's input, or that plus the
    output of one of its modules.
    """
    layer = next(layer for layer in lm.layers if path in dict(layer.named_modules()))
    inputs, outputs = dict[str, Tensor](), dict[str, Tensor]()

    def keep(at: str, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        result = output[0] if isinstance(output, tuple) else output
        for values, into in ((args[0] if args else kwargs.get("hidden_states"), inputs), (result, outputs)):
            if isinstance(values, Tensor):
                into.setdefault(at, values.clone())
        if not at:
            raise _Stop

    with ExitStack() as stack, suppress(_Stop):
        for at, part in layer.named_modules():
            stack.callback(part.register_forward_hook(functools.partial(keep, at), with_kwargs=True).remove)
        lm.decoder(input_ids=torch.tensor([[1, 2, 3, 4]], device=lm.device), use_cache=False)
    start, read = inputs[""], inputs.get(path)
    streams = [start, *(start + part for part in outputs.values() if part.shape == start.shape)]

    def is_stream(h: Tensor) -> bool:
        return any(h.shape == stream.shape and torch.allclose(h, stream, rtol=1e-5, atol=1e-6) for stream in streams)

    if read is None or read.numel() != start.numel():
        return None
    read = read.view_as(start)
    if is_stream(read):
        return ""
    norms = [at for at, output in outputs.items() if at and output.shape == read.shape and torch.equal(output, read)]
    return next((at for at in norms if at in inputs and is_stream(inputs[at])), None)


@torch.inference_mode()
def norm_gain(norm: nn.Module, lm: LanguageModel) -> Float[Tensor, " d_model"]:
    """Return the factor of each coordinate in a norm, whatever form the module stores it in.

    Raises:
        ValueError: If the module is neither an RMS norm nor a layer norm.
    """
    if type(norm) is nn.LayerNorm and not norm.weight.is_meta:
        return norm.weight.detach().float().cpu()

    def run(x: Tensor) -> Tensor:
        return norm(x.to(lm.device, lm.dtype)[None, None])[0, 0].float().cpu()

    def close(a: Tensor, b: Tensor) -> bool:
        return torch.allclose(a, b, rtol=0, atol=(1e-3 if lm.dtype == torch.float32 else 5e-2) * float(b.abs().max()))

    n = torch.arange(lm.d_model)
    x, y = ((n % 2 * 2 - 1) * (1 + n / lm.d_model), 1 + n.sin())
    ones = run(torch.ones(lm.d_model))  # a vector of ones has rms 1, so an RMS norm returns its gain
    if all(close(run(v), v / v.square().mean().sqrt() * ones) for v in (x, y)):
        return ones
    unit = torch.nn.functional.layer_norm
    shift = run(torch.zeros(lm.d_model))
    gain = (run(x) - shift) / unit(x, x.shape)
    if not close(run(y), unit(y, y.shape) * gain + shift):
        raise ValueError(f"{type(norm).__name__}: neither an RMS norm nor a layer norm, so it has no gain")
    return gain


# --- a loaded adapter, module by module ---


def adapted_modules(lm: LanguageModel, adapter: str, *parts: str) -> tuple[str, ...]:
    """Return the modules that an adapter changes, in order; with ``parts``, those whose name contains one of them.

    Parts match whole names between dots: ``layers.1`` does not match ``layers.11``, ``q_proj`` matches every query
    projection.

    Raises:
        AdapterError: If the model has no such adapter, or it is not plain LoRA, or it is merged into the weights.
    """
    require_adapter(lm, adapter)
    adapted = {name: m for name, m in lm.base.named_modules() if adapter in getattr(m, "lora_A", {})}
    names = [name for name, m in adapted.items() if _is_plain(m, adapter)]
    matrices = {f"{name}.lora_{side}.{adapter}.weight" for name in names for side in "AB"}
    other = (n for n, _ in lm.base.named_parameters() if adapter in n.split(".") and n not in matrices)
    if (first := next(other, None)) or not names:
        raise AdapterError(f"adapter {adapter!r}: not a plain LoRA of linear modules ({first or 'its type'})")
    if merged := [name for name in names if _adapted(lm, name).merged]:
        raise AdapterError(f"adapter {adapter!r}: it is merged into the weights of {merged[0]}")
    return tuple(name for name in names if not parts or any(f".{part}." in f".{name}." for part in parts))


def _is_plain(module: Any, adapter: str) -> bool:
    """Tell whether a layer of peft adds B A to the weight of a linear module, and not to fused experts."""
    return isinstance(module.lora_A[adapter], nn.Linear) and not hasattr(module, "parameter_name")


def _modules_but(lm: LanguageModel, adapter: str, names: Sequence[str]) -> list[str]:
    """Return the modules that an adapter changes, except ``names``; refuse a name that it does not change."""
    known = adapted_modules(lm, adapter)
    if unknown := [name for name in names if name not in known]:
        raise AdapterError(f"module {unknown[0]!r}: adapter {adapter!r} does not change it")
    return [name for name in known if name not in names]


def _adapted(lm: LanguageModel, name: str) -> Any:
    return lm.base.get_submodule(name)


def loaded_updates(lm: LanguageModel, adapter: str) -> dict[str, LoraUpdate]:
    """Return the updates of a loaded adapter, as ``lora_updates`` returns those of a folder.

    Raises:
        AdapterError: If the model has no such adapter, or it is not plain LoRA.
    """
    updates = {}
    for name in adapted_modules(lm, adapter):
        module = _adapted(lm, name)
        if module.lora_A[adapter].weight.is_meta:
            raise AdapterError(f"adapter {adapter!r}: its weights are offloaded, and cannot be read; load it in memory")
        a, b = (side[adapter].weight.detach().float().cpu() for side in (module.lora_A, module.lora_B))
        updates[name] = LoraUpdate(name, a, b, float(module.scaling[adapter]))
    return updates


@contextmanager
def without_modules(lm: LanguageModel, adapter: str, names: Sequence[str]) -> Iterator[None]:
    """Switch an adapter off in some modules; on exit it acts in all of them again.

    Raises:
        AdapterError: If the adapter does not change one of the modules.

    Not evidence for: what a module does alone; compare ``only_modules``, since modules can compensate for each other.
    """
    _modules_but(lm, adapter, names)
    scales = {name: _adapted(lm, name).scaling[adapter] for name in names}
    try:
        for name in scales:
            _adapted(lm, name).scaling[adapter] = 0.0
        yield
    finally:
        for name, scale in scales.items():
            _adapted(lm, name).scaling[adapter] = scale


@contextmanager
def only_modules(lm: LanguageModel, adapter: str, names: Sequence[str]) -> Iterator[None]:
    """Switch an adapter off in all modules except some; see ``without_modules``."""
    with without_modules(lm, adapter, _modules_but(lm, adapter, names)):
        yield


@torch.inference_mode()
def scalar_activations(
    lm: LanguageModel,
    adapter: str,
    chats: Sequence[Chat],
    positions: Sequence[str],
    *,
    directions: Mapping[str, Float[Tensor, "rank d_in"]] | None = None,
    batch_tokens: int | None = None,
) -> dict[str, Float[Tensor, "position prompt rank"]]:
    """Return A x of every adapted module: what each component of the adapter reads, averaged over a position's tokens.

    A rank-1 adapter adds ``scale * (a·x) b``: one number per token and module describes all that it does there. The
    sign of a component is arbitrary, since a and b can both change sign.

    Args:
        lm: The model.
        adapter: The adapter; active during the call, whichever was active before.
        chats: Prompts, with responses if a position lies in the response.
        positions: Names as in ``interp.recording.record``.
        directions: Rows to use instead of A for each module, such as random ones: the control.
        batch_tokens: Most tokens in one forward pass; see ``interp.recording.pass_tokens``.

    Raises:
        AdapterError: If the model has no such adapter.
        ValueError: If there is no prompt or position, or a prompt lacks a named part.

    Not evidence for: the meaning of a component, unless the contrasted prompts differ in that meaning alone and
        random directions read less of it.
    """
    if not chats or not positions:
        raise ValueError(f"scalar_activations: {len(chats)} prompts, {len(positions)} positions; want some")
    check_prompts(lm, chats)
    rows_of = directions or {name: update.A for name, update in loaded_updates(lm, adapter).items()}
    activations = {name: torch.empty(len(positions), len(chats), len(rows)) for name, rows in rows_of.items()}
    for rows in buckets([len(chat) for chat in chats], pass_tokens(batch_tokens), equal=lm.recurrent):
        batch = [chats[row] for row in rows]
        ids, mask = pad_left(batch, 0, lm.device)
        pools = [Pool(batch, name, ids.shape[1], lm.device) for name in positions]
        with active_adapter(lm, adapter), ExitStack() as stack:
            for name, values in activations.items():
                read = _reader(rows_of[name], values, pools, rows)
                stack.callback(_adapted(lm, name).register_forward_pre_hook(read).remove)
            lm.decoder(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return activations


def _reader(directions: Tensor, into: Tensor, pools: Sequence[Pool], rows: Sequence[int]) -> Callable[..., None]:
    def read(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = torch.nn.functional.linear(args[0], directions.to(args[0]))
        into[:, rows] = torch.stack([pool.mean(values).cpu() for pool in pools])

    return read
