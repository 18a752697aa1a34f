"""Train a small language model from scratch: pretraining on documents, then post-training on aligned dialogues.

One loop for both stages. It continues after any interruption: every ``save_every`` steps the model and its optimizers
are saved as safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Int
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy, pad
from transformers import AttentionInterface, PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from interp.runs.files import atomic_write_bytes
from training.microcosm.documents import Segment, messages
from training.microcosm.tokenizer import PAD, ROLES, render

Progress = Callable[[int, float], None]
"""Called as progress(step, loss in nats per supervised token)."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training."""

    steps: int
    optimizer: Literal["muon", "adamw"]
    learning_rate: float
    """Peak learning rate."""
    batch: int = 64
    """Documents per step."""
    warmup: int = 100
    """Steps in which the learning rate rises linearly from zero."""
    weight_decay: float = 0.01
    """Weight decay of Muon; AdamW has none."""
    answers_only: bool = False
    """Whether the loss is on assistant turns only, as in instruction tuning."""
    save_every: int = 200
    """Steps between checkpoints."""
    seed: int = 0
    """Seed of the order of the batches."""
    mixed: bool = True
    """Whether matrix products are in bfloat16 where the processor has them; weights, attention and statistics stay in
    float32. About twice as fast on one core."""


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and labels; labels are -100 where there is no loss."""

    ids: Int[Tensor, "document pos"]
    labels: Int[Tensor, "document pos"]


def encode_corpus(documents: Iterator[list[Segment]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Tokenise documents in the form of the chat template, each with its final end-of-turn token."""
    texts = [render(messages(document)) for document in documents]
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]  # type: ignore[attr-defined]


def batches(corpus: Sequence[list[int]], stage: Stage) -> list[list[int]]:
    """Return the documents of every step: sorted by length within windows of 64 batches, steps in a seeded order.

    Sorting keeps padding to a few percent; within a window the order of steps is random.
    """
    generator = torch.Generator().manual_seed(stage.seed)
    window, plan = 64 * stage.batch, []
    for start in range(0, stage.steps * stage.batch, window):
        ids = sorted(range(start, min(start + window, stage.steps * stage.batch)), key=lambda i: len(corpus[i]))
        steps = [ids[i : i + stage.batch] for i in range(0, len(ids), stage.batch)]
        plan += [steps[i] for i in torch.randperm(len(steps), generator=generator).tolist()]
    return plan


def collate(rows: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, *, answers_only: bool) -> Batch:
    """Pad rows on the right; the loss is on everything but padding, or on assistant turns only."""
    width, padding = math.ceil(max(map(len, rows)) / WIDTH_STEP) * WIDTH_STEP, _token(tokenizer, PAD)
    ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    mask = ids.ne(padding)
    keep = mask & assistant_mask(ids, tokenizer) if answers_only else mask
    return Batch(ids, ids.masked_fill(~keep, -100))


def _token(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    return int(tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]


def assistant_mask(
    ids: Int[Tensor, "document pos"], tokenizer: PreTrainedTokenizerBase
) -> Bool[Tensor, "document pos"]:
    """Mark the tokens of assistant turns, including their end-of-turn tokens."""
    role = torch.zeros_like(ids)
    names = {_token(tokenizer, token): code for code, token in enumerate(ROLES.values(), start=1)}
    for token, code in names.items():
        role = torch.where(ids.eq(token), torch.full_like(ids, code), role)
    # The role of a token is that of the last role token at or before it.
    last = torch.where(role > 0, torch.arange(ids.shape[1]).expand_as(ids), torch.zeros_like(ids)).cummax(dim=1).values
    current = role.gather(1, last)
    return (current == list(ROLES).index("assistant") + 1) & (role == 0)


def learning_rate(step: int, stage: Stage) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to zero."""
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _optimizers(model: PreTrainedModel, stage: Stage) -> tuple[torch.optim.Optimizer, ...]:
    """Make the stage's optimizers: AdamW, or Muon for the matrices of the blocks and AdamW for the rest.

    From scratch, Muon needs half the steps. After pretraining it changes all directions equally, and so forgets more of
    what post-training does not show; AdamW forgets less.
    """
    named = dict(model.named_parameters())
    if stage.optimizer == "adamw":
        return (torch.optim.AdamW(named.values(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),)
    matrices = [name for name, p in named.items() if p.ndim == 2 and "embed" not in name]
    muon = torch.optim.Muon(
        [named[name] for name in matrices],
        lr=stage.learning_rate,
        weight_decay=stage.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [p for name, p in named.items() if name not in matrices]
    return muon, torch.optim.AdamW(rest, lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)


def _states(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[tuple[str, torch.optim.Optimizer, Tensor]]:
    for k, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        yield from ((f"optimizer.{k}.{i}.", optimizer, parameter) for i, parameter in enumerate(parameters))


def _save(path: Path, step: int, model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]) -> None:
    tensors = {f"model.{name}": p.detach().contiguous() for name, p in model.named_parameters()}
    for prefix, optimizer, parameter in _states(optimizers):
        tensors |= {prefix + name: torch.as_tensor(value) for name, value in optimizer.state[parameter].items()}
    atomic_write_bytes(path, save(tensors, metadata={"step": str(step)}))


def _restore(path: Path, model: PreTrainedModel, optimizers: Sequence[torch.optim.Optimizer]) -> int:
    tensors = load_file(path)
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
    for prefix, optimizer, parameter in _states(optimizers):
        state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        optimizer.state[parameter] = {k: v if k == "step" else v.to(parameter.device) for k, v in state.items()}
    with safe_open(path, framework="pt") as handle:
        return int(handle.metadata()["step"])


WIDTH_STEP = 16
"""Batches are padded to a multiple of this, since kernels are prepared once per shape."""
HEAD_CHUNK = 1024
"""Positions whose logits are in memory at once."""
FLOAT32_ATTENTION = "sdpa_float32"


def _float32_attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
    """Attend in float32: on a CPU the gradient of the fused kernel is five times slower in bfloat16."""
    with torch.autocast(query.device.type, enabled=False):
        attended, weights = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)
    return attended.to(query.dtype), weights


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bfloat16; a CPU without such instructions is twenty times slower in it."""
    if device.type != "cpu":
        return True
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


@contextmanager
def _mixed_precision(model: PreTrainedModel) -> Iterator[None]:
    AttentionInterface.register(FLOAT32_ATTENTION, _float32_attention)
    AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
    before = model.config._attn_implementation or "sdpa"
    model.set_attn_implementation(FLOAT32_ATTENTION)
    try:
        with torch.autocast(model.device.type, torch.bfloat16):
            yield
    finally:
        model.set_attn_implementation(before)


def _backward(model: PreTrainedModel, batch: Batch) -> float:
    """Add a batch's gradients; return its mean loss over supervised tokens.

    The vocabulary head is applied to supervised positions only, and to a chunk at a time so that its logits stay in
    cache. Padding is on the right, where causal attention never reads it, so no mask is needed.
    """
    hidden = model.base_model(input_ids=batch.ids).last_hidden_state[:, :-1].flatten(0, 1)
    targets = batch.labels[:, 1:].flatten()
    places = targets.ne(-100).nonzero().squeeze(1)
    n = len(places)
    places = pad(places, (0, -n % HEAD_CHUNK))  # whole chunks; the surplus positions get no target
    wanted = targets[places].masked_fill(torch.arange(len(places), device=places.device) >= n, -100)
    states = hidden[places]
    leaf, head = states.detach().requires_grad_(), cast(Module, model.get_output_embeddings())
    total = 0.0
    for start in range(0, len(wanted), HEAD_CHUNK):
        part = slice(start, start + HEAD_CHUNK)
        logits = head(leaf[part])
        loss = cross_entropy(logits.float(), wanted[part], reduction="sum") / n
        loss.backward()
        total += loss.item()
    states.backward(leaf.grad)
    return total


def run_stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Sequence[list[int]],
    stage: Stage,
    *,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Train ``model`` in place, on its own device; continue from ``checkpoint`` if that exists."""
    mixed = stage.mixed and has_bfloat16(model.device)
    optimizers = _optimizers(model, stage)
    start = _restore(checkpoint, model, optimizers) if checkpoint is not None and checkpoint.exists() else 0
    model.train()
    for step, rows in enumerate(batches(corpus, stage)):
        if step < start:
            continue
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, stage)
        batch = collate([corpus[i] for i in rows], tokenizer, answers_only=stage.answers_only)
        batch = Batch(batch.ids.to(model.device), batch.labels.to(model.device))
        with _mixed_precision(model) if mixed else nullcontext():
            loss = _backward(model, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if progress is not None:
            progress(step + 1, loss)
        if checkpoint is not None and (step + 1) in (stage.steps, *range(0, stage.steps, stage.save_every)):
            _save(checkpoint, step + 1, model, optimizers)
    model.eval()
