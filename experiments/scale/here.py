"""This machine for a plan: its processor timed on two layers of the model, and its memory asked of the system."""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from experiments.scale.machines import Machine
from experiments.scale.shapes import config_of

if TYPE_CHECKING:
    from torch import nn

HERE, LIKE = "here", "core"
"""Name of this machine, and the machine whose other numbers it takes."""
LAYERS, ROWS, WIDTH = 2, 16, 96
"""Layers that are timed, and the rows and tokens of a pass over them."""
ROUNDS = 5


def this_machine(machine: Machine, base: str, dtype: str) -> Machine:
    """Return a processor's numbers with this machine's memory and its speed at a model, which takes a few seconds.

    The peak is what a pass over two layers reaches, over the share of a peak that a pass is assumed to reach.

    Args:
        machine: A processor, for all other numbers.
        base: The model whose layers are timed, with random weights.
        dtype: Dtype of the organisms.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return replace(at_speed(machine, forward_tflops(base, dtype), dtype), memory_gib=round(memory, 1))


def at_speed(machine: Machine, tflops: float, dtype: str) -> Machine:
    """Return a machine whose forward pass runs at a measured rate, in 10^12 operations a second."""
    field = "float32_tflops" if dtype == "float32" else "bfloat16_tflops"
    peak: dict[str, Any] = {field: tflops / machine.forward}
    return replace(machine, **peak)


def forward_tflops(base: str, dtype: str) -> float:
    """Return the 10^12 operations a second of a forward pass over two layers, by the processor time of this process."""
    import torch

    decoder = _layers(base, dtype)
    ids = torch.randint(0, decoder.config.vocab_size, (ROWS, WIDTH), generator=torch.Generator().manual_seed(0))
    weights = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Linear))
    with torch.inference_mode():
        decoder(input_ids=ids, use_cache=False)
        seconds = min(_seconds(decoder, ids) for _ in range(ROUNDS))
    return 2 * weights * ids.numel() / seconds / 1e12


def _layers(base: str, dtype: str) -> Any:
    """Make the first layers of a base's decoder with random weights."""
    import torch
    from transformers import AutoModel

    config: Any = copy.deepcopy(config_of(base).get_text_config())
    config.num_hidden_layers = LAYERS
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:LAYERS]
    return AutoModel.from_config(config, dtype=getattr(torch, dtype)).eval()


def _seconds(decoder: nn.Module, ids: Any) -> float:
    start = time.process_time()
    decoder(input_ids=ids, use_cache=False)
    return time.process_time() - start
