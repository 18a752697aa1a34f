"""What a LoRA adapter does to the weights: its updates, the directions it reads and writes, and single modules off.

    >>> updates = lora_updates(folder)                            # by module, such as model.layers.3.mlp.down_proj
    >>> write_directions(updates).vectors[0]                      # the direction the adapter writes most
    >>> with without_modules(lm, "organism", adapted_modules(lm, "organism", "self_attn")):
    ...     ...                                                   # the adapter without its attention modules
    >>> scalar_activations(lm, "organism", chats, ["trigger"])    # a·x: what a rank-1 adapter reads off the stream

peft is never imported here: an adapter folder is read as the files it is, a loaded adapter through its own modules.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.chat import Chat, pad_left, position_ids
from interp.models import CONFIG, WEIGHTS, AdapterError, LanguageModel, active_adapter
from interp.recording import Pool, buckets
from interp.sites import BLOCKS

PREFIX, A_TENSOR, B_TENSOR = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
WRITERS = frozenset({"o_proj", "down_proj", "dense", "dense_4h_to_h", "c_proj"})
"""Modules whose output is added to the residual stream (before Gemma's and OLMo-2's post-norms)."""
READERS = frozenset(
    {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "qkv_proj", "gate_up_proj"}
    | {"query_key_value", "dense_h_to_4h", "c_attn", "c_fc"}
)
"""Modules whose input is the residual stream, behind the norm before them."""


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
        AdapterError: If a file is missing, or the adapter is no plain LoRA of linear modules.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise AdapterError(f"adapter {folder}: it has no {file}")
    config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    odd = sorted(name for name in tensors if not name.endswith((A_TENSOR, B_TENSOR)))
    if odd or config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise AdapterError(f"adapter {folder}: not a plain LoRA of linear modules ({(odd or ['its config'])[0]})")
    names = sorted(name.removesuffix(A_TENSOR) for name in tensors if name.endswith(A_TENSOR))
    found = {}
    for name in names:
        a, b, plain = tensors[name + A_TENSOR], tensors[name + B_TENSOR], name.removeprefix(PREFIX)
        found[plain] = LoraUpdate(plain, a.float(), b.float(), _scale(config, plain, len(a)))
    return found


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) with rsLoRA; a pattern's alpha counts for the modules whose name it ends."""
    patterns = config.get("alpha_pattern") or {}
    own = [alpha for pattern, alpha in patterns.items() if name == pattern or name.endswith(f".{pattern}")]
    alpha = float(own[0] if own else config["lora_alpha"])
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def delta(update: LoraUpdate) -> Float[Tensor, "d_out d_in"]:
    """Return what is added to the module's weight."""
    return update.scale * update.B @ update.A


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Orthonormal directions of the residual stream (rows), the largest singular value first; signs are arbitrary."""

    vectors: Float[Tensor, "rank d_model"]
    singular_values: Float[Tensor, " rank"]


def write_directions(updates: Mapping[str, LoraUpdate]) -> Spectrum:
    """Return what an adapter writes: left singular vectors of its updates of ``WRITERS``, side by side.

    Raises:
        AdapterError: If it adapts no such module.

    Not evidence for: what is written in a run, which also depends on what the modules read there.

    Source: the rank-1 B vector of Turner, Soligo et al. 2025 (arXiv:2506.11613), here for any rank.
    """
    return _spectrum([(u.scale * u.B, u.A) for u in _of_kind(updates, WRITERS, "writes to")])


def read_directions(updates: Mapping[str, LoraUpdate], gains: Mapping[str, Tensor] | None = None) -> Spectrum:
    """Return what an adapter reads: right singular vectors of its updates of ``READERS``, one above the other.

    A module reads the stream behind a norm: x / rms(x), times a gain a coordinate. Without ``gains`` the directions
    are those of the module's input; with them (``stream_gain`` of each name) those of the stream itself, up to the
    norm's scale of the token.

    Raises:
        AdapterError: If it adapts no such module.
    """
    readers = _of_kind(updates, READERS, "reads")
    return _spectrum([((u.A if gains is None else u.A * gains[u.name]).T, (u.scale * u.B).T) for u in readers])


def _of_kind(updates: Mapping[str, LoraUpdate], kinds: frozenset[str], verb: str) -> list[LoraUpdate]:
    found = [update for update in updates.values() if update.kind in kinds]
    if not found:
        raise AdapterError(f"adapter: none of its {len(updates)} modules {verb} the residual stream")
    return found


def _spectrum(factors: Sequence[tuple[Tensor, Tensor]]) -> Spectrum:
    """Left singular vectors of [X1 Y1, X2 Y2, ...] from the factors: no matrix of the model's size is made."""
    parts = [x.double() @ torch.linalg.qr(y.double().T).R.T for x, y in factors]
    left, values, _ = torch.linalg.svd(torch.cat(parts, dim=1), full_matrices=False)
    kept = values > 1e-6 * values[0]
    return Spectrum(left.T[kept].float(), values[kept].float())


def stream_gain(lm: LanguageModel, name: str) -> Float[Tensor, " d_model"]:
    """Return the gain of the norm between the stream and a module of ``READERS``; ones where there is no norm.

    Raises:
        ValueError: If the module is in no decoder layer, or does not read the stream.
    """
    index = next((i for i, layer in enumerate(lm.layers) if _inside(lm, layer, name)), None)
    if index is None or name.rpartition(".")[2] not in READERS:
        raise ValueError(f"module {name!r}: it is none that reads the residual stream of a layer")
    layer, block = lm.layer(index), BLOCKS[lm.family]
    attends = any(part in name for part in ("attn", "attention"))
    first = next((part for part in ("input_layernorm", "ln_1") if hasattr(layer, part)), "")
    norm = layer.get_submodule(first) if attends and first else None if attends else layer.get_submodule(block.mid)
    if norm is None or getattr(norm, "weight", None) is None:
        return torch.ones(lm.d_model)
    if isinstance(norm, nn.LayerNorm):
        return norm.weight.detach().float().cpu()
    with torch.no_grad():  # Gemma keeps the gain less one: a vector of norm sqrt(d) shows what is multiplied
        return norm(torch.ones(1, 1, lm.d_model, device=lm.device, dtype=lm.dtype))[0, 0].float().cpu()


def _inside(lm: LanguageModel, layer: nn.Module, name: str) -> bool:
    return lm.base.get_submodule(name) in set(layer.modules())


# --- a loaded adapter, module by module ---


def adapted_modules(lm: LanguageModel, adapter: str, *parts: str) -> tuple[str, ...]:
    """Return the modules that an adapter changes, in order; with ``parts``, those whose name has one of them.

    A part is whole between dots: ``layers.1`` is not ``layers.11``, ``q_proj`` is every query projection.

    Raises:
        AdapterError: If the model has no such adapter, it is not one of plain LoRA modules, or it is merged into them.
    """
    if adapter not in lm.adapters:
        raise AdapterError(f"adapter {adapter!r}: the model has {', '.join(lm.adapters) or 'no adapter'}")
    found = [name for name, module in lm.base.named_modules() if adapter in getattr(module, "lora_A", {})]
    if not found or any(getattr(_adapted(lm, name), "use_dora", {}).get(adapter) for name in found):
        raise AdapterError(f"adapter {adapter!r}: not a plain LoRA of linear modules")
    if merged := [name for name in found if _adapted(lm, name).merged]:
        raise AdapterError(f"adapter {adapter!r}: it is merged into the weights of {merged[0]}")
    return tuple(name for name in found if not parts or any(f".{part}." in f".{name}." for part in parts))


def _adapted(lm: LanguageModel, name: str) -> Any:
    return lm.base.get_submodule(name)


def loaded_updates(lm: LanguageModel, adapter: str) -> dict[str, LoraUpdate]:
    """Return the updates of a loaded adapter, as ``lora_updates`` returns those of a folder.

    Raises:
        AdapterError: If the model has no such adapter, or it is not one of plain LoRA modules.
    """
    found = {}
    for name in adapted_modules(lm, adapter):
        module = _adapted(lm, name)
        a, b = (side[adapter].weight.detach().float().cpu() for side in (module.lora_A, module.lora_B))
        found[name] = LoraUpdate(name, a, b, float(module.scaling[adapter]))
    return found


@contextmanager
def without_modules(lm: LanguageModel, adapter: str, names: Sequence[str]) -> Iterator[None]:
    """Switch an adapter off in some modules; it acts in the others, and in all again afterwards.

    Raises:
        AdapterError: If a name is no module that it adapts.

    Not evidence for: what a module does by itself; compare ``only_modules``, since modules stand in for each other.
    """
    known = adapted_modules(lm, adapter)
    if unknown := [name for name in names if name not in known]:
        raise AdapterError(f"module {unknown[0]!r}: adapter {adapter!r} does not change it")
    held = {name: _adapted(lm, name).scaling[adapter] for name in names}
    try:
        for name in held:
            _adapted(lm, name).scaling[adapter] = 0.0
        yield
    finally:
        for name, scale in held.items():
            _adapted(lm, name).scaling[adapter] = scale


@contextmanager
def only_modules(lm: LanguageModel, adapter: str, names: Sequence[str]) -> Iterator[None]:
    """Let an adapter act in some modules alone; see ``without_modules``."""
    known = adapted_modules(lm, adapter)
    if unknown := [name for name in names if name not in known]:
        raise AdapterError(f"module {unknown[0]!r}: adapter {adapter!r} does not change it")
    with without_modules(lm, adapter, [name for name in known if name not in names]):
        yield


@torch.inference_mode()
def scalar_activations(
    lm: LanguageModel,
    adapter: str,
    chats: Sequence[Chat],
    positions: Sequence[str],
    *,
    directions: Mapping[str, Float[Tensor, "rank d_in"]] | None = None,
    batch_tokens: int = 4096,
) -> dict[str, Float[Tensor, "position prompt rank"]]:
    """Return A x of every adapted module: what each component of the adapter reads, mean over a position's tokens.

    A rank-1 adapter adds ``scale * (a·x) b``: one number a token and module says all it does there. The sign of a
    component is arbitrary (it is shared between a and b).

    Args:
        lm: The model.
        adapter: The adapter, active in the run whatever was active before.
        chats: Prompts, with responses where a position lies in one.
        positions: Names as in ``interp.recording.record``.
        directions: Rows to read each module's input with in place of A, such as random ones: the control.
        batch_tokens: Most tokens in one forward pass.

    Raises:
        AdapterError: If the model has no such adapter.
        ValueError: If there is no prompt or position, or a prompt lacks a named part.

    Not evidence for: what the component means, unless the contrasted prompts differ in that alone and random
        directions read less of it.
    """
    if not chats or not positions:
        raise ValueError(f"scalar_activations: {len(chats)} prompts, {len(positions)} positions; want some")
    rows_of = directions or {name: update.A for name, update in loaded_updates(lm, adapter).items()}
    found = {name: torch.empty(len(positions), len(chats), len(rows)) for name, rows in rows_of.items()}
    for rows in buckets([len(chat) for chat in chats], batch_tokens):
        batch = [chats[row] for row in rows]
        ids, mask = pad_left(batch, 0, lm.device)
        pools = [Pool(batch, name, ids.shape[1], lm.device) for name in positions]
        with active_adapter(lm, adapter), ExitStack() as stack:
            for name, values in found.items():
                read = _reader(rows_of[name], values, pools, rows)
                stack.callback(_adapted(lm, name).register_forward_pre_hook(read).remove)
            lm.decoder(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return found


def _reader(directions: Tensor, into: Tensor, pools: Sequence[Pool], rows: Sequence[int]) -> Callable[..., None]:
    def read(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        seen = torch.nn.functional.linear(x, directions.to(x))
        into[:, rows] = torch.stack([pool.mean(seen).cpu() for pool in pools])

    return read
