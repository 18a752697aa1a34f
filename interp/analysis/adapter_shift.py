"""What an adapter changes at each prompt: log-odds of two answers, projections, and the next token. No sampling.

    >>> shift = adapter_shift(lm, "organism", pairs, {site: g})       # pairs of chats: one prompt, two responses
    >>> shift.log_odds_shift                                          # adapter on minus off, nats per token
    >>> shift.projection_shift                                        # (site, pair), along the unit direction
    >>> shift.kl                                                      # KL(adapter ‖ base) of the next token, nats

Where the model allows it (``interp.analysis.forced_choice.can_share``), one pass per adapter state gives all three for
a batch of pairs, and what several prompts begin with is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from interp.adapters import active_adapter
from interp.analysis.forced_choice import Pair, can_share, forced_choice, shared_passes
from interp.analysis.likelihood import kl_divergence, next_token_log_probs
from interp.chat import Chat
from interp.directions import unit
from interp.hooks import hooked
from interp.models import LanguageModel, check_prompts
from interp.recording import record
from interp.sites import Site

PASS_COST = 1e9
"""About what a pass costs beside its tokens, in multiply-adds: a beginning is shared where that saves more."""
HELD = 1 << 26
"""Probabilities of next tokens that are in memory at a time, per adapter state."""


@dataclass
class Cost:
    """Forward passes of the decoder, and the tokens in them, padding included."""

    passes: int = 0
    tokens: int = 0


@contextmanager
def counted(lm: LanguageModel) -> Iterator[Cost]:
    """Count what the decoder computes inside the ``with`` block."""
    cost = Cost()

    def count(_module: object, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        given = args[0] if args else options.get("input_ids")
        given = options["inputs_embeds"][..., 0] if given is None else given
        cost.passes += 1
        cost.tokens += given.numel()

    handle = lm.decoder.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield cost
    finally:
        handle.remove()


@dataclass(frozen=True, eq=False)
class Shift:
    """Readings of every pair: index 0 is the base, index 1 the adapter."""

    log_odds: Float64[Tensor, "2 pair"]
    """Mean log-probability per token of the second answer minus that of the first, in nats."""
    projection: Float[Tensor, "2 site pair"]
    """Component of the last prompt token along each unit direction, raw scale."""
    kl: Float64[Tensor, " pair"]
    """KL(adapter ‖ base) of the token after the prompt, in nats."""

    @property
    def log_odds_shift(self) -> Float64[Tensor, " pair"]:
        """Log-odds with the adapter minus without it."""
        return self.log_odds[1] - self.log_odds[0]

    @property
    def projection_shift(self) -> Float[Tensor, "site pair"]:
        """Projection with the adapter minus without it."""
        return self.projection[1] - self.projection[0]


def adapter_shift(
    lm: LanguageModel,
    adapter: str,
    pairs: Sequence[Pair],
    directions: Mapping[Site, Float[Tensor, " d_model"]],
    *,
    batch_tokens: int = 2048,
) -> Shift:
    """Read every pair with the adapter and without it.

    Args:
        lm: The model, with the adapter loaded.
        adapter: Name of the adapter.
        pairs: Two chats each, with the same prompt and a response.
        directions: A direction per site; scaled to norm 1.
        batch_tokens: Most tokens of a pass, padding included.

    Raises:
        ValueError: If there is no pair, the prompts of one differ, or one does not fit the model.

    Not evidence for: misalignment. Any adapter that answers in another style moves all three; compare with an adapter
    of benign content behind the same text, and verify by sampled answers.
    """
    check_prompts(lm, [chat for pair in pairs for chat in pair])
    vectors = {site: unit(direction).to(lm.device) for site, direction in directions.items()}
    parts: list[Shift] = []
    size = max(16, HELD // lm.vocabulary)
    for start in range(0, len(pairs), size):
        chunk = pairs[start : start + size]
        states = []
        for name in (None, adapter):
            with active_adapter(lm, name):
                states.append(_read(lm, chunk, vectors, batch_tokens))
        log_odds, projections, log_p = (torch.stack(values) for values in zip(*states, strict=True))
        parts.append(Shift(log_odds, projections, kl_divergence(log_p[1], log_p[0])))
    if not parts:
        raise ValueError("adapter shift: no pairs")
    whole = (torch.cat([getattr(p, name) for p in parts], -1) for name in ("log_odds", "projection", "kl"))
    return Shift(*whole)


Reading = tuple[Float64[Tensor, " pair"], Float[Tensor, "site pair"], Float[Tensor, "pair vocab"]]


def _read(lm: LanguageModel, pairs: Sequence[Pair], vectors: Mapping[Site, Tensor], batch_tokens: int) -> Reading:
    width = max(pair[0].prompt_length + sum(chat.response_length for chat in pair) for pair in pairs)
    return _shared(lm, pairs, vectors, batch_tokens) if can_share(lm, width) else _apart(lm, pairs, vectors)


def _shared(lm: LanguageModel, pairs: Sequence[Pair], vectors: Mapping[Site, Tensor], batch_tokens: int) -> Reading:
    lengths = torch.tensor([[chat.response_length for chat in pair] for pair in pairs]).T
    log_odds = torch.zeros(len(pairs), dtype=torch.float64)
    projections = torch.zeros(len(vectors), len(pairs))
    log_p = torch.zeros(len(pairs), lm.vocabulary)
    stream: dict[Site, Tensor] = {}
    with hooked(lm, {site: lambda h, site=site: stream.__setitem__(site, h) for site in vectors}):
        for part in shared_passes(lm, pairs, batch_tokens=batch_tokens, least=_least(lm)):
            per_token = part.log_probability / lengths[:, part.rows]
            log_odds[part.rows] = per_token[1] - per_token[0]
            log_p[part.rows] = part.next_token.float().log_softmax(-1).cpu()
            for i, (site, vector) in enumerate(vectors.items()):
                at_last = stream[site][:, part.last_prompt]
                projections[i, part.rows] = (at_last.float() @ vector.to(at_last.device)).cpu()
    return log_odds, projections, log_p


def _least(lm: LanguageModel) -> int:
    """Return the number of tokens whose computation costs as much as a pass does beside its tokens."""
    return round(PASS_COST / sum(parameter.numel() for parameter in lm.layers.parameters()))


def _apart(lm: LanguageModel, pairs: Sequence[Pair], vectors: Mapping[Site, Tensor]) -> Reading:
    """Read the same with one pass for each: models whose rows cannot hold two answers."""
    prompts = [_prompt(first) for first, _ in pairs]
    projections = torch.zeros(len(vectors), len(pairs))
    if vectors:
        recording = record(lm, prompts, list(vectors), ["last_prompt"])
        along = [recording.at(site, "last_prompt") @ vector.cpu() for site, vector in vectors.items()]
        projections = torch.stack(along)
    return forced_choice(lm, pairs).log_odds, projections, next_token_log_probs(lm, prompts)


def _prompt(chat: Chat) -> Chat:
    spans = {name: span for name, span in chat.spans.items() if name != "response"}
    return Chat(chat.token_ids[: chat.prompt_length], spans, chat.text, chat.awaited)
