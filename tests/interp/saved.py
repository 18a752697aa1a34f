"""Tiny bases and adapters on disk, and how to damage them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny

IDS = torch.tensor([[1, 40, 10, 11, 70, 80]])


def save_base(folder: Path, family: str = "llama", **config: Any) -> Path:
    """Save a tiny model with its tokenizer."""
    lm = tiny.model(family, **config)
    lm.hf.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, config: peft.PeftConfig) -> Path:
    """Save an adapter of a base, with random values for everything that it trains."""
    made = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    torch.manual_seed(3)
    for name, parameter in made.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data += torch.randn_like(parameter) * 0.3
    made.save_pretrained(str(folder))
    return folder


def lora(**settings: Any) -> peft.LoraConfig:
    """Return the config of a small LoRA of two kinds of modules."""
    defaults: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"], "r": 2, "lora_alpha": 4}
    return peft.LoraConfig(**{**defaults, "task_type": "CAUSAL_LM", **settings})


def configure(folder: Path, file: str = "adapter_config.json", **settings: Any) -> None:
    """Change settings of a JSON file."""
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **settings}))


def retensor(
    folder: Path,
    change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor] | None],
    file: str = "adapter_model.safetensors",
) -> None:
    """Rename, change or drop tensors of a safetensors file."""
    changed = [change(name, values) for name, values in load_file(folder / file).items()]
    save_file({pair[0]: pair[1].contiguous() for pair in changed if pair}, folder / file, metadata={"format": "pt"})


@torch.no_grad()
def logits(hf: Any) -> torch.Tensor:
    """Return the logits of one short prompt."""
    return hf(input_ids=IDS).logits
