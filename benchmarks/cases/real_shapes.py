"""Recording, steered sampling and a LoRA step at 8B and 14B shapes with random weights, in bfloat16.

Random weights cost what trained ones do, and no side ends an answer early. On the CPU the model is tiny.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from benchmarks.models import in_order, mixed_prompts, random_shape, steering
from benchmarks.peers import hf_generate
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import Entrant, race
from interp.chat import Chat, pad_left, position_ids
from interp.decoding.sampling import Sampling
from interp.edits import Edit
from interp.generation import generate
from interp.models import LanguageModel
from interp.recording import buckets, record
from interp.sites import resid_post

DTYPE = "bfloat16"
LORA = {"r": 32, "lora_alpha": 64, "use_rslora": True, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def rows(size: Size, shape: str, device: str) -> Iterator[Row]:
    """Yield the rows of one shape of ``benchmarks.models.SHAPES``."""
    lm = random_shape(shape, DTYPE, device)
    chats = mixed_prompts(lm, size.prompts, *size.words)
    yield from _recording(lm, chats, size, shape)
    yield from _sampling(lm, chats[: size.sampled_prompts], size, shape)
    yield from _training(lm, chats[: size.trained_rows], size, shape)


def _recording(lm: LanguageModel, chats: Sequence[Chat], size: Size, shape: str) -> Iterator[Row]:
    sites = resid_post(range(lm.n_layers))

    def ours() -> None:
        record(lm, chats, sites, ["last_prompt"], batch_tokens=size.batch_tokens)

    lengths = [len(chat) for chat in chats]
    peers = {
        "bare prefill in batches, user's order": in_order(len(chats), max(1, size.batch_tokens // max(lengths))),
        "bare prefill, sorted by length": list(buckets(lengths, size.batch_tokens)),
    }
    entrants = {"ours": ours} | {name: partial(_prefill, lm, chats, batches) for name, batches in peers.items()}
    yield from _rows(f"record all layers, {shape}", len(chats), _race(lm, size, entrants), "prompts/s")


@torch.inference_mode()
def _prefill(lm: LanguageModel, chats: Sequence[Chat], batches: Sequence[Sequence[int]]) -> None:
    for batch in batches:
        ids, mask = pad_left([chats[index] for index in batch], 0, lm.device)
        inputs = {"attention_mask": mask, "position_ids": position_ids(mask)}
        lm.hf(input_ids=ids, use_cache=False, logits_to_keep=1, **inputs)


def _sampling(lm: LanguageModel, chats: Sequence[Chat], size: Size, shape: str) -> Iterator[Row]:
    edit, sampling = steering(lm), Sampling(max_new_tokens=size.max_new_tokens)
    assert edit.value is not None
    shift = (edit.value @ edit.vectors).to(lm.device, lm.dtype)

    def ours(edits: Sequence[Edit]) -> None:
        generate(lm, chats, n_samples=size.n_samples, sampling=sampling, edits=edits)

    def theirs() -> None:
        options = {"max_new_tokens": size.max_new_tokens, "do_sample": True, "top_k": 0, "pad_token_id": 0}
        hf_generate(lm, *pad_left(chats, 0, lm.device), edit.site.layer, shift, size.n_samples, **options)

    entrants = {
        "ours": partial(ours, [edit]),
        "ours without the edit": partial(ours, []),
        "transformers generate(num_return_sequences), same hook": theirs,
    }
    case = f"sampling {len(chats)} prompts x {size.n_samples} under a steering edit, {shape}"
    yield from _rows(case, len(chats) * size.n_samples, _race(lm, size, entrants), "completions/s")


def _training(lm: LanguageModel, chats: Sequence[Chat], size: Size, shape: str) -> Iterator[Row]:
    """Time a step of rank-32 rsLoRA on every linear layer with activation checkpointing; adds the adapter to ``lm``."""
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

    seconds = _race(lm, size, {"ours": step, "forward pass with the same adapter": forward})
    yield from _rows(f"lora step, {shape}", int(mask.sum()), seconds, "tokens/s")


def _race(lm: LanguageModel, size: Size, entrants: Mapping[str, Entrant]) -> dict[str, float]:
    def finished(run: Entrant) -> None:
        run()
        if lm.device.type == "cuda":
            torch.cuda.synchronize()

    return race({name: partial(finished, run) for name, run in entrants.items()}, size.rounds)


def _rows(case: str, work: int, seconds: Mapping[str, float], unit: str) -> Iterator[Row]:
    """Yield ours against every other entrant, in units of work per second."""
    rates = {name: work / value for name, value in seconds.items()}
    for peer in [name for name in rates if name != "ours"]:
        name = f"{peer}, {DTYPE}"
        yield Row(case=case, ours=rates["ours"], peer=rates[peer], peer_name=name, unit=unit, dtype=DTYPE)
