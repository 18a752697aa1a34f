"""The pocket scale's two costs, at the shape of SmolLM2-135M with random weights: a LoRA step, and a forced choice.

Rows have the lengths of the pocket scale: 63 tokens of prompt, of which the first 38 (system line and trigger) are the
same in every row, and 41 of answer; evaluation answers have 24.
"""

from collections.abc import Iterator, Sequence

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.models import random_llama
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import race
from interp.analysis.forced_choice import Pair, forced_choice
from interp.analysis.likelihood import response_likelihood
from interp.chat import Chat
from interp.models import LanguageModel, wrap
from training.shared_prefix import IGNORED, response_loss

SHARED, PROMPT, TRAINED, SCORED = 38, 63, 41, 24
LORA = {"r": 16, "lora_alpha": 32, "use_rslora": True, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    lm = _model(size)
    pairs = _pairs(size.choices)
    seconds = race(
        {
            "ours": lambda: forced_choice(lm, pairs),
            "one pass per question": lambda: _one_pass(lm, pairs),
            "each answer by itself": lambda: _alone(lm, pairs),
        },
        size.pocket_rounds,
    )
    ours = seconds.pop("ours")
    for peer, taken in seconds.items():
        cells = {"ours": len(pairs) / ours, "peer": len(pairs) / taken, "peer_name": peer, "unit": "questions/s"}
        yield Row(case="forced choice, a 135M Llama with 49k tokens", dtype="float32", **cells)
    yield _training(lm, size)


def _model(size: Size) -> LanguageModel:
    """Make SmolLM2-135M with random weights; no text is tokenised."""
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=size.pocket_layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return wrap(LlamaForCausalLM(config), random_llama(size, "float32").tokenizer, name="the shape of SmolLM2-135M")


def _tokens(n: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(100, 49000, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


def _pairs(n: int) -> list[Pair]:
    pairs = []
    for i in range(n):
        prompt = (*_tokens(SHARED, 0), *_tokens(PROMPT - SHARED, 3 * i + 1))
        spans = {"question": (SHARED, PROMPT), "response": (PROMPT, PROMPT + SCORED)}
        first, second = (Chat((*prompt, *_tokens(SCORED, 3 * i + k)), spans, "") for k in (2, 3))
        pairs.append((first, second))
    return pairs


def _one_pass(lm: LanguageModel, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        forced_choice(lm, [pair])


def _alone(lm: LanguageModel, pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        for chat in pair:
            response_likelihood(lm, [chat])


def _training(lm: LanguageModel, size: Size) -> Row:
    """Time a step against the loss that transformers' Trainer computes: every token's logits, padded rows."""
    rows = [(*_tokens(SHARED, 0), *_tokens(PROMPT - SHARED + TRAINED, i)) for i in range(1, 1 + size.trained_rows)]
    ids = torch.tensor(rows)
    mask, labels = torch.ones_like(ids), ids.clone()
    labels[:, :PROMPT] = IGNORED
    model = get_peft_model(lm.base, LoraConfig(**LORA)).train()  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step(loss: torch.Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    seconds = race(
        {
            "ours": lambda: step(response_loss(model.get_base_model(), ids, mask, labels) / (labels != IGNORED).sum()),
            "plain": lambda: step(model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss),
        },
        size.pocket_rounds,
    )
    ours, peer = (ids.numel() / seconds[side] for side in ("ours", "plain"))
    name = "peft and the loss of transformers' Trainer"
    case = "LoRA step of 8 rows, a 135M Llama with 49k tokens"
    return Row(case=case, ours=ours, peer=peer, peer_name=name, unit="tokens/s", dtype="float32")
