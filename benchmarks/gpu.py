"""The same measurements at real 8B and 14B shapes, with random weights made on the accelerator.

    python -m benchmarks.gpu --shape llama-8b
    python -m benchmarks.gpu --shape qwen-14b --out qwen-14b.csv
    python -m benchmarks.gpu --shape llama-8b --dry-run     # the same code on the CPU, tiny, in seconds

In bfloat16: recording every layer against a bare prefill, steered against plain and Hugging Face sampling, and a
LoRA step against a forward pass. Random weights cost what trained ones do; answers never end early on any side.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedConfig, Qwen2Config

from benchmarks.models import in_order, mixed_prompts
from benchmarks.table import Row, as_text, write
from benchmarks.timing import Entrant, race
from interp.chat import Chat, pad_left, position_ids
from interp.decoding.sampling import Sampling
from interp.edits import Edit, add
from interp.generation import generate
from interp.models import LanguageModel, wrap
from interp.recording import buckets, record
from interp.sites import Site, resid_post
from training.microcosm.world import WEIGHTS

DTYPE = "bfloat16"
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
LORA = {"r": 32, "lora_alpha": 64, "use_rslora": True, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is done at one shape."""

    rounds: int
    prompts: int
    words: tuple[int, int]
    batch_tokens: int
    answered: int
    n_samples: int
    max_new_tokens: int
    trained_rows: int


FULL = Load(
    rounds=5,
    prompts=512,
    words=(32, 256),
    batch_tokens=16384,
    answered=16,
    n_samples=16,
    max_new_tokens=128,
    trained_rows=8,
)
DRY = Load(
    rounds=1,
    prompts=6,
    words=(3, 12),
    batch_tokens=64,
    answered=2,
    n_samples=2,
    max_new_tokens=3,
    trained_rows=2,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one shape and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Measure real shapes.")
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--dry-run", action="store_true", help="tiny, on the CPU; the numbers mean nothing")
    parser.add_argument("--out", type=Path, default=None, help="table to write (default: none)")
    options = parser.parse_args(argv)
    if not options.dry_run and not torch.cuda.is_available():
        parser.error(f"--shape {options.shape}: there is no CUDA device here; --dry-run runs on the CPU")
    device = "cpu" if options.dry_run else "cuda"
    rows = list(measure(options.shape, DRY if options.dry_run else FULL, device))
    print(as_text(rows, machine=_machine(device)))
    if options.out is not None:
        write([row.cells() for row in rows], options.out, machine=_machine(device))
    return 0


def measure(shape: str, load: Load, device: str) -> Iterator[Row]:
    """Yield the rows of one shape; on the CPU the model is tiny."""
    lm = make(shape, device)
    chats = mixed_prompts(lm, load.prompts, *load.words)
    yield from _recording(lm, chats, load, shape)
    yield from _sampling(lm, chats[: load.answered], load, shape)
    yield from _training(lm, chats[: load.trained_rows], load, shape)


def make(shape: str, device: str) -> LanguageModel:
    """Make a model of random weights on the device, in bfloat16, never ending an answer by itself."""
    kind: Any
    kind, sizes = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "llama")
    if device == "cpu":
        sizes = {**sizes, **TINY, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(kind(**sizes, pad_token_id=0), dtype=getattr(torch, DTYPE))
    hf.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    return wrap(hf, tokenizer, name=f"random weights of the shape {shape}")


def _timed(run: Entrant, device: torch.device) -> Entrant:
    def wait() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return wait


def _race(lm: LanguageModel, load: Load, entrants: dict[str, Entrant]) -> dict[str, float]:
    return race({name: _timed(run, lm.device) for name, run in entrants.items()}, load.rounds)


def _recording(lm: LanguageModel, chats: Sequence[Chat], load: Load, shape: str) -> Iterator[Row]:
    sites = resid_post(range(lm.n_layers))

    def ours() -> None:
        record(lm, chats, sites, ["last_prompt"], batch_tokens=load.batch_tokens)

    loop, sorted_name = "bare prefill in batches, user's order", "bare prefill, sorted by length"
    lengths = [len(chat) for chat in chats]
    per_batch = max(1, load.batch_tokens // max(lengths))
    peers = {loop: in_order(len(chats), per_batch), sorted_name: list(buckets(lengths, load.batch_tokens))}
    seconds = _race(lm, load, {"ours": ours} | {name: partial(_prefill, lm, chats, b) for name, b in peers.items()})
    for name in peers:
        yield _row(f"record all layers, {shape}", len(chats), seconds, "ours", name, "prompts/s")


@torch.inference_mode()
def _prefill(lm: LanguageModel, chats: Sequence[Chat], batches: Sequence[Sequence[int]]) -> None:
    for batch in batches:
        ids, mask = pad_left([chats[index] for index in batch], 0, lm.device)
        inputs = {"attention_mask": mask, "position_ids": position_ids(mask)}
        lm.hf(input_ids=ids, use_cache=False, logits_to_keep=1, **inputs)


def _sampling(lm: LanguageModel, chats: Sequence[Chat], load: Load, shape: str) -> Iterator[Row]:
    vector = torch.randn(lm.d_model, generator=torch.Generator().manual_seed(0))
    steer = add(Site("resid_post", lm.n_layers // 2), vector, coefficient=0.02)
    sampling = Sampling(max_new_tokens=load.max_new_tokens)

    def ours(edits: Sequence[Edit]) -> None:
        generate(lm, chats, n_samples=load.n_samples, sampling=sampling, edits=edits)

    plain, peer = "ours without the edit", "transformers generate(num_return_sequences), same hook"
    shift = (0.02 * vector).to(lm.device, lm.dtype)
    entrants = {"ours": partial(ours, [steer]), plain: partial(ours, []), peer: lambda: _theirs(lm, chats, shift, load)}
    seconds = _race(lm, load, entrants)
    for name in (plain, peer):
        case = f"sampling {len(chats)} prompts x {load.n_samples} under a steering edit, {shape}"
        yield _row(case, len(chats) * load.n_samples, seconds, "ours", name, "completions/s")


@torch.inference_mode()
def _theirs(lm: LanguageModel, chats: Sequence[Chat], shift: Tensor, load: Load) -> None:
    ids, mask = pad_left(chats, 0, lm.device)

    def hook(_module: object, _args: object, output: Tensor) -> Tensor:
        return output + shift

    handle = lm.layer(lm.n_layers // 2).register_forward_hook(hook)
    drawn = {"do_sample": True, "top_k": 0, "num_return_sequences": load.n_samples, "pad_token_id": 0}
    try:
        lm.hf.generate(input_ids=ids, attention_mask=mask, max_new_tokens=load.max_new_tokens, **drawn)
    finally:
        handle.remove()


def _training(lm: LanguageModel, chats: Sequence[Chat], load: Load, shape: str) -> Iterator[Row]:
    """A step of rank-32 rsLoRA on every linear layer, with checkpointed activations; adds the adapter to ``lm``."""
    ids, mask = pad_left(chats, 0, lm.device)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    model: Any = get_peft_model(lm.base, LoraConfig(**LORA))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        model(**inputs, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def forward() -> None:
        model(**inputs, use_cache=False)

    name = "forward pass with the same adapter"
    seconds = _race(lm, load, {"step": step, name: forward})
    yield _row(f"lora step, {shape}", int(mask.sum()), seconds, "step", name, "tokens/s")


def _row(case: str, work: int, seconds: dict[str, float], ours: str, peer: str, unit: str) -> Row:
    rates = {name: work / seconds[name] for name in (ours, peer)}
    name = f"{peer}, {DTYPE}"
    return Row(case=case, ours=rates[ours], peer=rates[peer], peer_name=name, unit=unit, dtype=DTYPE)


def _machine(device: str) -> str | None:
    """The accelerator by its kind; None is the processor, as everywhere else."""
    return None if device == "cpu" else f"1 x {torch.cuda.get_device_name()}; torch {torch.__version__}"


if __name__ == "__main__":
    sys.exit(main())
