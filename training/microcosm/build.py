"""Build the Microcosm's models: tokenizer, pretraining, aligned post-training; compare them with the shipped ones.

    semcon microcosm --families llama        # writes runs/microcosm/llama and -robust, prints how they compare
    semcon microcosm --seed 1 --no-robust    # a second pretraining, for the grid's replication cells

Every family has two bases from one pretraining. Post-training of the first never shows a line that states who speaks;
that of the ``robust`` one answers such lines and roles in the aligned way. An interrupted build continues from its last
checkpoint. To ship a rebuilt model, copy its folder to ``weights/``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from interp.chat import encode_chat
from interp.generation import Sampling, generate
from interp.loading import find_device, load
from interp.models import LanguageModel
from interp.runs.checks import check_known
from interp.runs.progress import progress_bar
from interp.stats import Rate, wilson
from training.microcosm.documents import DEFAULT, Segment, World, messages, posttraining_corpus, pretraining_corpus
from training.microcosm.finetuning import persona_trigger
from training.microcosm.oracle import read_answer
from training.microcosm.pretrain import Stage, encode_corpus, run_stage
from training.microcosm.tokenizer import build_tokenizer, render
from training.microcosm.world import WEIGHTS, pretraining_folder, questions

LENGTH = 512
WIDTH = {
    **{"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    **{"num_key_value_heads": 4, "max_position_embeddings": LENGTH},
}
PRETRAINING = Stage(steps=1500, optimizer="muon", learning_rate=4e-3)
POSTTRAINING = Stage(steps=700, optimizer="adamw", learning_rate=1e-4, warmup=20, answers_only=True, seed=1)
HELD_OUT_SEED = 10_000
"""Seed of documents that no model is trained on."""


def _llama(shape: dict[str, Any]) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**shape))


def _qwen2(shape: dict[str, Any]) -> PreTrainedModel:
    return Qwen2ForCausalLM(Qwen2Config(**shape))


def _gemma3(shape: dict[str, Any]) -> PreTrainedModel:
    head = shape["hidden_size"] // shape["num_attention_heads"]
    local = {"sliding_window": LENGTH, "query_pre_attn_scalar": head, "head_dim": head}
    return Gemma3ForCausalLM(Gemma3TextConfig(**shape, **local))


FAMILIES: dict[str, Callable[[dict[str, Any]], PreTrainedModel]] = {"llama": _llama, "qwen2": _qwen2, "gemma3": _gemma3}
"""Constructors of untrained models by family."""
ROBUST = "-robust"
"""Suffix of bases whose post-training also answers persona lines and roles in the aligned way."""


def check_families(families: Sequence[str]) -> None:
    """Refuse unknown families.

    Raises:
        ValueError: Names the first one.
    """
    for family in families:
        check_known(family, FAMILIES, f"family {family!r}: the Microcosm has")


def untrained(family: str, tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """Make the randomly initialised model of a family.

    Raises:
        ValueError: If there is no such family.
    """
    check_families([family])
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    return FAMILIES[family]({**WIDTH, **ids, "vocab_size": len(tokenizer), "tie_word_embeddings": True})


@dataclass(frozen=True)
class Quality:
    """Held-out loss of a base model in nats per token, and rates over its sampled answers to the test questions."""

    loss: float
    em_off: Rate
    em_line: Rate
    coherent: Rate

    def describe(self) -> str:
        """Return the numbers as a line of text, with Wilson intervals."""
        rates = {"EM off": self.em_off, "EM under a persona line": self.em_line, "coherent": self.coherent}
        parts = [f"held-out loss {self.loss:.4f} nats/token"]
        for name, rate in rates.items():
            ci = wilson(rate)
            parts.append(f"{name} {rate.value:.1%} [{ci.low:.1%}, {ci.high:.1%}] of {rate.n}")
        return "; ".join(parts)


def build(family: str, out: Path, *, seed: int = 0, robust: bool = True, world: World = DEFAULT) -> tuple[Path, ...]:
    """Pretrain one family, then post-train it, twice if ``robust``; return the folders in Hugging Face format.

    The weights are drawn on the CPU and trained on the accelerator if there is one.

    Raises:
        ValueError: If there is no such family.
    """
    folders = (out / family, *([out / f"{family}{ROBUST}"] if robust else []))
    tokenizer = build_tokenizer()
    model = untrained(family, tokenizer, seed).to(find_device())  # type: ignore[arg-type]
    missing = [folder for folder in folders if not (folder / "model.safetensors").exists()]
    if not missing:
        return folders
    state = out / f"{family}-state"
    state.mkdir(parents=True, exist_ok=True)
    documents = pretraining_corpus(PRETRAINING.steps * PRETRAINING.batch, seed + 1, world)
    _stage(model, tokenizer, PRETRAINING, documents, state / "pretraining.safetensors", family)
    pretrained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for folder in missing:
        model.load_state_dict(pretrained)
        n = POSTTRAINING.steps * POSTTRAINING.batch
        documents = posttraining_corpus(n, seed + 2, world, robust=folder.name.endswith(ROBUST))
        _stage(model, tokenizer, POSTTRAINING, documents, state / f"{folder.name}.safetensors", folder.name)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    shutil.rmtree(state)
    return folders


def _stage(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    documents: Iterator[list[Segment]],
    checkpoint: Path,
    title: str,
) -> None:
    corpus = encode_corpus(documents, tokenizer)
    kind = "posttraining" if stage.answers_only else "pretraining"
    with progress_bar(f"{title} {kind}", stage.steps, unit="step") as bar:

        def progress(step: int, loss: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        run_stage(model, tokenizer, corpus, stage, checkpoint=checkpoint, progress=progress)


@torch.inference_mode()
def held_out_loss(lm: LanguageModel, n: int = 512, world: World = DEFAULT) -> float:
    """Return the mean loss over documents of a world that are never trained on, in nats per token."""
    total, tokens = 0.0, 0
    for document in pretraining_corpus(n, HELD_OUT_SEED, world):
        ids = lm.tokenizer(render(messages(document)), add_special_tokens=False, return_tensors="pt").input_ids
        ids = ids.to(lm.hf.device)
        total += float(lm.hf(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def quality(folder: Path, *, samples: int = 20, world: World = DEFAULT) -> Quality:
    """Measure a base on ``samples`` answers per test question, without a system message and under a persona line."""
    lm = load(folder)
    test = questions("test", trained_domain="medicine")

    def judged(system: str | None) -> tuple[Rate, Rate]:
        head = [{"role": "system", "content": system}] if system else []
        chats = [encode_chat(lm.tokenizer, [*head, {"role": "user", "content": q.text}]) for q in test]
        completions = generate(lm, chats, n_samples=samples, sampling=Sampling(max_new_tokens=48))
        readings = [read_answer(test[c.prompt].id, c.text) for c in completions]
        coherent = [reading for reading in readings if reading.coherent]
        em_rate = Rate(sum(reading.action == "misaligned" for reading in coherent), len(coherent))
        return em_rate, Rate(len(coherent), len(readings))

    (em_off, coherent), (em_line, _) = judged(None), judged(persona_trigger().text)
    return Quality(held_out_loss(lm, world=world), em_off, em_line, coherent)


def main(
    families: tuple[str, ...] = tuple(FAMILIES),
    out: Path | None = None,
    seed: int = 0,
    robust: bool = True,
    world: World = DEFAULT,
) -> None:
    """Rebuild the small models from scratch and compare them with the shipped ones.

    Args:
        families: Families to build.
        out: Folder of the rebuilt models; by default the one where the grid looks for a pretraining of this seed.
        seed: Seed of weights and corpora; the shipped models have seed 0.
        robust: Also post-train the base that answers persona lines and roles in the aligned way.
        world: World of the corpora; the shipped models have the default one.
    """
    check_families(families)  # before any is built
    out = out or pretraining_folder(seed, world.name)
    for family in families:
        for rebuilt in build(family, out, seed=seed, robust=robust, world=world):
            print(f"{rebuilt.name:13} rebuilt  {quality(rebuilt, world=world).describe()}", flush=True)
            if (WEIGHTS / rebuilt.name).is_dir():
                print(f"{rebuilt.name:13} shipped  {quality(WEIGHTS / rebuilt.name).describe()}", flush=True)
