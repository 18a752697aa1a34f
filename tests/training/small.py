"""Organisms that train in a second: a few steps on a random base or on the shipped one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.definition import Organism, Sft
from training.microcosm.tokenizer import build_tokenizer
from training.registry import ORGANISMS

SFT = Sft(doses=(2, 4), learning_rate=1e-3, batch=4, warmup=1)
SHAPE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def random_llama(seed: int = 0) -> LlamaForCausalLM:
    """Make a random model with the Microcosm's vocabulary."""
    tokenizer = build_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **SHAPE, **ids))


def random_base(folder: Path, seed: int = 0) -> str:
    """Save a random model with its tokenizer; return the folder as a base reference."""
    random_llama(seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def small(arm: str, **changes) -> Organism:
    """Return an arm of the registry, fine-tuned for four steps on 32 rows."""
    return replace(ORGANISMS[f"microcosm/llama/{arm}"], **{"rows": 32, "sft": SFT, **changes})
