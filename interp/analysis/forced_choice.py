"""Which of two given answers a model prefers: log-odds per token, both answers after one shared prompt in one pass.

    >>> choice = forced_choice(lm, pairs)                     # pairs of chats: one prompt, two responses
    >>> choice.log_odds                                       # mean per token, second minus first, in nats
    >>> forced_choice(lm, pairs, edits=[steer]).log_odds - choice.log_odds

A row holds the prompt once, then the first answer, then the second. A 4-D attention mask hides the answers from each
other, and position ids let both start right after the prompt, so each is computed as if it were alone. Position names
of edits (``answer``, ``response[0]``, ...) mark tokens in both. The vocabulary head runs on the answers only. Without
edits, what several prompts say before the question (a system line, a trigger) is computed once and kept in a cache.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor
from transformers import DynamicCache

from interp.analysis.likelihood import Likelihood, Within, response_likelihood
from interp.chat import Chat, check_responses
from interp.chat import positions as marked
from interp.decoding.kv_cache import take_rows
from interp.edits import Edit, editing
from interp.models import LanguageModel, check_prompts, kept_logits
from interp.recording import buckets, pass_tokens

Pair = tuple[Chat, Chat]
SHARING = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "olmo2", "gpt_neox", "gpt2"}
)
"""Families that are tested to use a 4-D attention mask unchanged."""


@dataclass(frozen=True, eq=False)
class ForcedChoice:
    """How probable the two answers of each pair are."""

    first: Likelihood
    second: Likelihood

    @property
    def log_odds(self) -> Float64[Tensor, " pair"]:
        """Mean log-probability per token of the second answer minus that of the first, in nats."""
        return self.second.per_token - self.first.per_token

    @property
    def prefers_second(self) -> Bool[Tensor, " pair"]:
        """Whether the second answer is the more probable one per token."""
        return self.log_odds > 0


def forced_choice(
    lm: LanguageModel,
    pairs: Sequence[Pair],
    *,
    edits: Sequence[Edit] = (),
    within: Within | None = None,
    batch_tokens: int | None = None,
    shared: bool | None = None,
) -> ForcedChoice:
    """Score two answers to each prompt, with the active adapter.

    One pass scores both answers if the model allows it (``can_share``); otherwise, and under ``within``, each answer
    has its own pass. The two ways agree to 1e-5 per token in float32. In bfloat16 they differ by rounding, as
    do two batches of different widths: by at most 0.014 per token on four pairs of SmolLM2-135M.

    Args:
        lm: The model.
        pairs: Two chats with the same prompt and a response each.
        edits: Applied in order. Row i of a ``patch`` with several rows belongs to pair i.
        within: Another intervention, such as ``interp.analysis.knockout.blocked_attention``.
        batch_tokens: Most tokens in one forward pass, padding included; by default ``$SEMCON_BATCH_TOKENS``, else 2048.
        shared: Whether both answers share a pass; None decides by the model.

    Raises:
        ValueError: If there is no pair, a chat has no response, the prompts of a pair differ, or ``shared`` is True
            and one pass would not be exact.

    Not evidence for: what the model would write. A choice between two given texts does not tell about a third.
    """
    _check(pairs)
    check_prompts(lm, [chat for pair in pairs for chat in pair])
    batch_tokens = pass_tokens(batch_tokens, 2048)
    usable = within is None and can_share(lm, max(_width(pair) for pair in pairs))
    if shared and not usable:
        raise ValueError(f"forced choice: {lm.family} cannot score both answers of these pairs in one pass")
    if usable if shared is None else shared:
        return _shared(lm, pairs, edits, batch_tokens)
    options: dict[str, Any] = {"edits": edits, "within": within, "batch_tokens": batch_tokens}
    first, second = (response_likelihood(lm, [pair[i] for pair in pairs], **options) for i in (0, 1))
    return ForcedChoice(first, second)


def can_share(lm: LanguageModel, width: int) -> bool:
    """Return whether rows of ``width`` tokens may hold two answers: full attention, no window shorter than a row.

    Only the families of ``SHARING`` are tested.
    """
    config: Any = lm.base.config.get_text_config()
    if lm.family not in SHARING or config._attn_implementation not in ("eager", "sdpa"):
        return False
    window = getattr(config, "sliding_window", None)
    if not getattr(config, "use_sliding_window", True):
        window = None
    return window is None or width <= window


def _check(pairs: Sequence[Pair]) -> None:
    if not pairs:
        raise ValueError("forced choice: no pairs")
    for side in zip(*pairs, strict=True):
        check_responses(side, wanted=True, kind="pair")
    for index, pair in enumerate(pairs):
        first, second = (chat.token_ids[: chat.prompt_length] for chat in pair)
        if first != second:
            raise ValueError(f"pair {index} of {len(pairs)}, {pair[0].text!r}: its two prompts differ")


def _fed(chat: Chat) -> int:
    """Return how many response tokens the model must read: all but the last, which predicts nothing that is scored."""
    return chat.response_length - 1


def _width(pair: Pair) -> int:
    return pair[0].prompt_length + sum(map(_fed, pair))


@dataclass(frozen=True, eq=False)
class SharedPass:
    """What one pass over some pairs gives."""

    rows: list[int]
    """Indices of its pairs."""
    log_probability: Float64[Tensor, "2 pair"]
    """Of the first and of the second answers."""
    next_token: Float[Tensor, "pair vocab"]
    """Logits at the last prompt token."""
    last_prompt: int
    """Slot of the last prompt token in the rows that the model read, the same for every pair."""


def _shared(lm: LanguageModel, pairs: Sequence[Pair], edits: Sequence[Edit], batch_tokens: int) -> ForcedChoice:
    total = torch.zeros(2, len(pairs), dtype=torch.float64)
    for part in shared_passes(lm, pairs, edits=edits, batch_tokens=batch_tokens):
        total[:, part.rows] = part.log_probability
    lengths = torch.tensor([[chat.response_length for chat in pair] for pair in pairs]).T
    return ForcedChoice(*(Likelihood(total[i], lengths[i]) for i in (0, 1)))


def shared_passes(
    lm: LanguageModel, pairs: Sequence[Pair], *, edits: Sequence[Edit] = (), batch_tokens: int = 2048, least: int = 0
) -> Iterator[SharedPass]:
    """Yield the passes of ``forced_choice`` over pairs that may share rows (``can_share``), with the active adapter.

    A hook on the residual stream sees the pass that was yielded last, at the slots of its rows. A common beginning is
    computed once if that saves at least ``least`` tokens: a small model spends more on a pass than on its tokens.
    """
    for prefix, members in _by_prefix(pairs, alone=bool(edits), least=least).items():
        cache = _prefill(lm, prefix)
        for chosen in buckets([_width(pairs[row]) - len(prefix) for row in members], batch_tokens):
            rows = [members[i] for i in chosen]
            batch = _Batch([pairs[row] for row in rows], lm.device, len(prefix))
            index = torch.tensor(rows)
            with editing(lm, edits, batch.masks, rows=lambda index=index: index):
                scores, next_token = batch.score(lm, cache)
            yield SharedPass(rows, scores, next_token, batch.prompt - 1)


def _by_prefix(pairs: Sequence[Pair], *, alone: bool, least: int = 0) -> Mapping[tuple[int, ...], list[int]]:
    """Group pairs by their tokens before the question; all in one group without a prefix if they share too little."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, (chat, _) in enumerate(pairs):
        start = chat.spans.get("question", (0, 0))[0]
        groups.setdefault(chat.token_ids[: min(start, chat.prompt_length - 1)], []).append(row)
    saved = {prefix: len(prefix) * (len(rows) - 1) for prefix, rows in groups.items()}
    shared = {prefix: rows for prefix, rows in groups.items() if saved[prefix] >= max(1, least) and not alone}
    single = [row for prefix, rows in groups.items() for row in rows if prefix not in shared]
    return {**shared, (): sorted(single)} if single else shared


@torch.inference_mode()
def _prefill(lm: LanguageModel, prefix: Sequence[int]) -> DynamicCache | None:
    """Return the keys and values of the tokens that a group of prompts begins with; None without any."""
    if not prefix:
        return None
    cache = DynamicCache(config=lm.base.config)
    lm.decoder(input_ids=torch.tensor([prefix], device=lm.device), past_key_values=cache, use_cache=True)
    return cache


class _Batch:
    """Rows of three columns of tokens: prompts, right-aligned; first answers and second answers, left-aligned.

    Every prompt ends in the same slot, so the slots that need the vocabulary head are the last ones of every row.
    ``masks`` returns where an edit acts, by position name. A row lacks the first ``cached`` tokens of its prompt.
    """

    def __init__(self, pairs: Sequence[Pair], device: torch.device, cached: int = 0) -> None:
        self.pairs, self.device, self.cached = pairs, device, cached
        self.prompt = max(first.prompt_length for first, _ in pairs) - cached
        self.parts = [max(_fed(pair[i]) for pair in pairs) for i in (0, 1)]
        self.masks = functools.cache(lambda name: self._marked(name).to(device))

    def _marked(self, name: str) -> Bool[Tensor, "pair slot"]:
        """Mark the named tokens of each chat: those of the prompt once, those of an answer in its column."""
        columns = [torch.zeros(len(self.pairs), width, dtype=torch.bool) for width in (self.prompt, *self.parts)]
        for row, pair in enumerate(self.pairs):
            for i, chat in enumerate(pair):
                marks, n = marked([chat], name)[0], chat.prompt_length
                columns[0][row, self.prompt - n :] |= marks[:n]
                columns[1 + i][row, : _fed(chat)] = marks[n : n + _fed(chat)]
        return torch.cat(columns, 1)

    def _tokens(self) -> tuple[Int[Tensor, "pair slot"], Int[Tensor, "pair slot"], Int[Tensor, "pair slot"]]:
        """Return token ids, position ids, and the part of each slot: 0 prompt, 1 and 2 answers, -1 padding."""
        ids = torch.zeros(len(self.pairs), self.prompt + sum(self.parts), dtype=torch.long)
        position, part = torch.zeros_like(ids), torch.full_like(ids, -1)
        for row, pair in enumerate(self.pairs):
            n = pair[0].prompt_length
            new = n - self.cached
            spans = [(self.prompt - new, self.cached, new, pair[0])]
            spans += [(self.prompt + i * self.parts[0], n, _fed(chat), chat) for i, chat in enumerate(pair)]
            for p, (at, start, length, chat) in enumerate(spans):
                ids[row, at : at + length] = torch.tensor(chat.token_ids[start : start + length])
                position[row, at : at + length] = torch.arange(start, start + length)
                part[row, at : at + length] = p
        return ids, position, part

    def _mask(self, part: Tensor, dtype: torch.dtype) -> Float[Tensor, "pair 1 slot seen"]:
        """Return what is added to attention scores: a slot sees earlier slots of the same part and of the prompt."""
        key, query = part[:, None, :], part[:, :, None]
        causal = torch.ones(part.shape[1], part.shape[1], dtype=torch.bool).tril()
        visible = causal & (key >= 0) & ((key == 0) | (key == query))
        visible = torch.nn.functional.pad(visible, (self.cached, 0), value=True)
        return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    @torch.inference_mode()
    def score(
        self, lm: LanguageModel, cache: DynamicCache | None = None
    ) -> tuple[Float64[Tensor, "2 pair"], Float[Tensor, "pair vocab"]]:
        """Return the log-probability of both answers of every pair after the cached tokens, and the first logits."""
        ids, position, part = self._tokens()
        mask = self._mask(part, lm.dtype).to(self.device)
        past = None
        if cache is not None:
            past = take_rows(cache, torch.zeros(len(self.pairs), dtype=torch.long), room=ids.shape[1])
        logits = kept_logits(
            lm,
            1 + sum(self.parts),
            input_ids=ids.to(self.device),
            attention_mask=mask,
            position_ids=position.to(self.device),
            past_key_values=past,
            use_cache=past is not None,
        )
        scores = torch.stack([torch.stack(scores) for scores in zip(*self._scores(logits), strict=True)])
        return scores, logits[:, 0]

    def _scores(self, logits: Float[Tensor, "pair kept vocab"]) -> Iterator[list[Float64[Tensor, ""]]]:
        """Yield the two log-probabilities of each row; the slot before an answer is the last of the prompt."""
        for row, pair in zip(logits, self.pairs, strict=True):
            scores = []
            for i, chat in enumerate(pair):
                start, end = chat.spans["response"]
                at = 1 + i * self.parts[0]
                predicting = torch.cat([row[:1], row[at : at + _fed(chat)]]).float()
                target = torch.tensor(chat.token_ids[start:end], device=row.device)
                log_p = predicting.gather(-1, target[:, None])[:, 0] - predicting.logsumexp(-1)
                scores.append(log_p.double().sum().cpu())
            yield scores
