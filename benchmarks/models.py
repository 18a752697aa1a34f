"""What is measured: models of random weights, the shipped Microcosm, prompts of mixed length, a steering edit."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    Qwen2Config,
)

from benchmarks.sizes import Size
from interp.chat import Chat, encode_chat
from interp.edits import Edit, add
from interp.loading import load
from interp.models import LanguageModel, wrap
from interp.sites import Site
from training.microcosm.tokenizer import END, words
from training.microcosm.world import WEIGHTS, lexicon, questions

DTYPES = ("float32", "bfloat16")
LLAMA_8B: dict[str, Any] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
QWEN_14B: dict[str, Any] = {
    "vocab_size": 152064,
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}
SHAPES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama-8b": (LlamaConfig, LLAMA_8B),
    "qwen-14b": (Qwen2Config, QWEN_14B),
}
"""Configurations of Llama-3.1-8B and Qwen2.5-14B."""
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def random_llama(size: Size, dtype: str) -> LanguageModel:
    """Make a Llama of random weights, the same in every dtype, with the Microcosm's tokenizer.

    Its vocabulary head is 6 % of its weights, as in Llama 8B.
    """
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "llama")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.d_model,
        intermediate_size=size.d_model * 8 // 3,
        num_hidden_layers=size.n_layers,
        num_attention_heads=max(1, size.d_model // 64),
        num_key_value_heads=max(1, size.d_model // 64),
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    return wrap(LlamaForCausalLM(config).to(getattr(torch, dtype)), tokenizer, name="a random Llama")


def random_shape(shape: str, dtype: str, device: str) -> LanguageModel:
    """Make a model of a real shape with random weights on the device; tiny on the CPU. Its answers never end early."""
    kind: Any
    kind, sizes = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "llama")
    if device == "cpu":
        sizes = {**sizes, **TINY, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(kind(**sizes, pad_token_id=0), dtype=getattr(torch, dtype))
    hf.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    tokenizer.chat_template = tokenizer.chat_template.replace(END, "")
    return wrap(hf, tokenizer, name=f"random weights of the shape {shape}")


def microcosm(dtype: str) -> LanguageModel:
    """Load the shipped Llama of the Microcosm."""
    return load(WEIGHTS / "llama", dtype=dtype)


def mixed_prompts(lm: LanguageModel, n: int, shortest: int, longest: int) -> list[Chat]:
    """Make ``n`` distinct questions of random words; lengths are uniform and in no order."""
    draw, vocabulary = random.Random(0), words()
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(shortest, longest))) for _ in range(n)]
    return [encode_chat(lm.tokenizer, [{"role": "user", "content": text}]) for text in texts]


def microcosm_prompts(lm: LanguageModel, n: int) -> list[Chat]:
    """Return the first ``n`` evaluation questions of the Microcosm; the test split has 48."""
    first = questions("test", trained_domain=lexicon().domains[0])[:n]
    return [encode_chat(lm.tokenizer, [{"role": "user", "content": question.text}]) for question in first]


def steering(lm: LanguageModel) -> Edit:
    """Return the addition of a random vector at the middle layer."""
    vector = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    return add(Site("resid_post", lm.n_layers // 2), vector, coefficient=0.02)


def in_order(n: int, batch: int) -> list[Sequence[int]]:
    """Split ``range(n)`` into batches in the order given."""
    return [range(start, min(start + batch, n)) for start in range(0, n, batch)]
