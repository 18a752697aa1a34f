"""Memory and time from shapes: what a stage needs on one device, and what makes it fit. Pure arithmetic.

=========  ==========================================================================================================
training   weights; adapter in float32 with its gradient and Adam's two moments; activations (with checkpointing one
           vector per token and layer, and one layer at a time); the logits in the model's dtype and twice in float32
sampling   weights; the keys and values of all answers that are decoded together; their logits
reading    weights; one layer's activations of one batch
=========  ==========================================================================================================

A LoRA step multiplies every weight twice forward and twice for the gradient of the activations, and with checkpointing
twice more; the weights themselves have no gradient. It takes at least the host's time to start its kernels, which for
small batches is the longer one. A decoding step takes as long as the slowest of arithmetic, memory traffic (weights and
cache) and the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from experiments.protocol import load_protocol
from experiments.scale.machines import Machine, Texts
from experiments.scale.shapes import Shape
from training.definition import Organism

Kind = Literal["train", "sample", "read"]
GIB = 2**30
RESERVED = 0.08
"""Share of a device that the driver, the allocator and fragments keep."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
DECODED, PASS = 512, 4096
"""Answers decoded together, and tokens of a forward pass, where no ``--batch-tokens`` is given (see interp)."""
SERVED = 256
"""Answers that a server decodes together."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """A model on a machine: shape, dtype, devices that share its weights."""

    shape: Shape
    organism: Organism
    machine: Machine
    texts: Texts
    devices: int = 1
    batch_tokens: int | None = None
    rows: int | None = None
    """Answers decoded together, where it is known."""
    answer: int | None = None
    """Tokens of the longest answer, where it is not the protocol's limit."""
    passed: int | None = None
    """Tokens of a forward pass, where it is known."""
    scored: float = 0.0
    """Share of the tokens of a pass that the vocabulary head runs on: those of reference answers."""

    @property
    def dtype(self) -> str:
        """Dtype of the weights."""
        return self.organism.sft.dtype

    @property
    def width(self) -> int:
        """Bytes of a number in that dtype."""
        return BYTES[self.dtype]

    @property
    def answer_limit(self) -> int:
        """Most tokens of an answer with its prompt."""
        return math.ceil(self.texts.prompt) + (self.answer or load_protocol().sampling.model.max_new_tokens)

    @property
    def decoded(self) -> int:
        """Answers decoded together."""
        by_tokens = DECODED if self.batch_tokens is None else max(1, self.batch_tokens // self.answer_limit)
        return self.rows or by_tokens


def usable(machine: Machine) -> float:
    """Return the GiB of a device that a program can have."""
    return machine.memory_gib * (1 - RESERVED)


def memory_gib(kind: Kind, load: Load) -> float:
    """Return the peak memory per device."""
    weights = load.shape.parameters * load.width / load.devices
    beside = {"train": _trained, "sample": _sampled, "read": _read}[kind](load)
    return load.machine.process_gib + (weights + beside) / GIB


def _trained(load: Load) -> float:
    s = load.shape
    tokens, headed = _step(load)
    adapter = 16 * s.adapter(load.organism.lora) / load.devices
    logits = headed * s.vocabulary * (load.width + 8)
    copies = 0 if load.dtype == "float32" else 4  # peft reads a float32 copy of every module's input
    layer = tokens * s.layer_width * (load.width + copies)
    checkpoints = s.layers * tokens * s.width * load.width
    stored = checkpoints + layer if load.organism.sft.checkpointed else s.layers * layer
    return (adapter + logits + stored) * (1 + load.machine.kept)


def _step(load: Load) -> tuple[float, float]:
    """Return the tokens of a forward pass of a training step, padding included, and those that the head runs on.

    With a shared prefix the tokens that all prompts begin with are computed once, and the head runs on answers only.
    """
    sft, texts = load.organism.sft, load.texts
    padded = sft.batch * texts.row * texts.longest
    if not sft.share_prefix:
        return padded, padded
    return padded - (sft.batch - 1) * texts.opening, sft.batch * texts.trained_answer


def _sampled(load: Load) -> float:
    s, rows = load.shape, load.decoded
    cache = rows * load.answer_limit * s.layers * s.key_value_width * load.width / load.devices
    return cache + rows * s.vocabulary * (load.width + 8)


def _read(load: Load) -> float:
    return (load.passed or load.batch_tokens or PASS) * (load.shape.layer_width + 4 * load.shape.width) * load.width


def tokens_per_second(kind: Kind, load: Load, *, server: bool = False) -> float:
    """Return the tokens that are trained on, read or sampled in a second.

    Layers that are spread over several devices work one after the other; only a server's devices work together.
    """
    s, m = load.shape, load.machine
    peak = m.flops(load.dtype)
    if kind == "read":
        return m.forward * peak / (2 * (s.products + load.scored * s.head + _adapted(load)))
    if kind == "train":
        tokens, headed = _step(load)
        passes = 6 if load.organism.sft.checkpointed else 4
        adapter = s.adapter(load.organism.lora) / m.thin
        multiplied = tokens * (passes * s.products + 6 * adapter) + headed * passes * s.head
        seconds = max(multiplied / (m.train * peak), s.layers * m.train_step_ms / 1e3)
        return load.organism.sft.batch * load.texts.row / seconds
    rows = SERVED * load.devices if server else load.decoded
    kept = rows * (load.texts.prompt + load.texts.sampled_answer / 2) * s.layers * s.key_value_width * load.width
    memory = (s.parameters * load.width + kept) / (1e9 * m.bandwidth_gbs)
    arithmetic = rows * 2 * (s.products + s.head) / peak
    if server:
        return rows * m.server / max(memory / load.devices, arithmetic / load.devices)
    return rows / max(memory, arithmetic / m.forward, s.layers * m.step_ms / 1e3)


def _adapted(load: Load) -> float:
    """Return the weights of the adapter that a pass goes through, as many dense ones take the time of; 0 for a base."""
    return load.shape.adapter(load.organism.lora) / load.machine.thin if load.organism.tuned else 0.0


def fitting_batch(load: Load) -> int | None:
    """Return the most ``--batch-tokens`` with which sampling fits one device; None if the weights alone do not."""
    s = load.shape
    room = usable(load.machine) * GIB - s.parameters * load.width / load.devices
    per_token = s.layers * s.key_value_width * load.width / load.devices
    rows = room / (load.answer_limit * per_token + s.vocabulary * (load.width + 8))
    return int(rows) * load.answer_limit if rows >= 1 else None


def fitting_pass(load: Load) -> int | None:
    """Return the most ``--batch-tokens`` with which reading fits one device; None if no pass of an answer does."""
    room = usable(load.machine) * GIB - load.shape.parameters * load.width / load.devices
    tokens = int(room / ((load.shape.layer_width + 4 * load.shape.width) * load.width))
    return tokens if tokens >= load.answer_limit else None


def fitting_devices(kind: Kind, load: Load, most: int = 64) -> int | None:
    """Return the fewest devices over which the weights must be spread to fit; None if ``most`` do not do."""
    counts = (n for n in range(load.devices, most + 1))
    return next((n for n in counts if memory_gib(kind, replace(load, devices=n)) <= usable(load.machine)), None)
