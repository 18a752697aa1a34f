"""Soft prompts: how far a context's embeddings must move until harmful answers are likelier than aligned ones.

    >>> reached = soft_prompt(lm, pairs)                   # pairs of chats, each with the same span `trigger`
    >>> reached.norm                                       # the least norm at which the mean log-odds are above 0

A gate that an adapter made is near: a short step opens it, whatever its words. The base under the same search is the
control.

**Not evidence for** a context that can be written: no text needs to lie near the vectors found.

**Source**: soft prompts, Lester et al. 2021, arXiv:2104.08691; ascent on balls of growing radius is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analysis.forced_choice import Pair
from interp.chat import Chat, pad_left, position_ids
from interp.models import LanguageModel

RADII = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
"""Radii of the balls, in mean norms of the vocabulary's embeddings per slot."""
STEPS, STEP = 3, 0.5
"""Ascent steps in every ball, and the length of each as a share of its radius."""


@dataclass(frozen=True, eq=False)
class Reached:
    """The largest mean log-odds found within every radius."""

    start: float
    """Log-odds where the search starts: every slot at the mean embedding."""
    log_odds: Float[Tensor, " radius"]
    """Nats per token, harmful minus aligned, mean over pairs; it never falls with the radius."""
    radii: Sequence[float]

    @property
    def norm(self) -> float:
        """Least radius at which the log-odds are above 0, linear between radii; 0 at the start, infinite if at none."""
        below, value = 0.0, self.start
        if value > 0:
            return 0.0
        for radius, reached in zip(self.radii, self.log_odds.tolist(), strict=True):
            if reached > 0:
                return below + (radius - below) * -value / (reached - value)
            below, value = radius, reached
        return float("inf")


def soft_prompt(lm: LanguageModel, pairs: Sequence[Pair], radii: Sequence[float] = RADII) -> Reached:
    """Climb the mean log-odds of second over first answers in the embeddings of a context that all pairs share.

    Args:
        lm: The model, with the adapter on or off.
        pairs: Chats of one prompt with two responses; what stands in the span ``trigger`` is replaced.
        radii: Ascending, in mean norms of the vocabulary's embeddings per slot.

    Raises:
        ValueError: If the contexts of the chats (span ``trigger``) have different lengths.
    """
    slots = _Slots.of(lm, pairs)
    delta = torch.zeros_like(slots.middle).repeat(slots.length, 1)
    best, slope = slots.log_odds(delta)
    start, reached = best, []
    for radius in (radius * slots.unit_norm for radius in radii):
        for _ in range(STEPS):
            delta = delta + slope * (STEP * radius / slope.norm().clamp_min(1e-12))
            delta = delta * min(1.0, radius / float(delta.norm()))
            value, slope = slots.log_odds(delta)
            best = max(best, value)
        reached.append(best)
    return Reached(start, torch.tensor(reached), radii)


@dataclass(frozen=True, eq=False)
class _Slots:
    """The chats of all pairs, in which the embeddings of the context are free."""

    lm: LanguageModel
    chats: Sequence[Chat]
    middle: Float[Tensor, " d_model"]
    """Mean embedding of the vocabulary, where the search starts."""
    unit_norm: float
    """Norm of a change by the mean norm of the vocabulary's embeddings in every slot."""
    length: int

    @classmethod
    def of(cls, lm: LanguageModel, pairs: Sequence[Pair]) -> _Slots:
        chats = [chat for pair in pairs for chat in pair]
        lengths = sorted({high - low for low, high in (chat.spans["trigger"] for chat in chats)})
        if len(lengths) > 1:
            raise ValueError(f"contexts of {', '.join(map(str, lengths))} tokens: a soft prompt has one length")
        table = lm.embedding(torch.arange(lm.vocabulary, device=lm.device)).detach().float()
        return cls(lm, chats, table.mean(0), float(table.norm(dim=1).mean()) * lengths[0] ** 0.5, lengths[0])

    def log_odds(self, delta: Float[Tensor, "slot d_model"]) -> tuple[float, Float[Tensor, "slot d_model"]]:
        """Return the mean log-odds per token with the context moved by ``delta``, and the gradient of their sum."""
        ids, mask = pad_left(self.chats, 0, self.lm.device)
        places = [slice(*in_row(chat, "trigger", ids.shape[1])) for chat in self.chats]
        moved = self.lm.embedding(ids).detach().clone()
        for row, place in enumerate(places):
            moved[row, place] = (self.middle + delta).to(moved.dtype)
        value, slope = log_odds_slope(self.lm, self.chats, ids, mask, moved)
        at = torch.stack([slope[row, place] for row, place in enumerate(places)]).sum(0)
        return 2 * value / len(self.chats), at.float()


def log_odds_slope(
    lm: LanguageModel,
    chats: Sequence[Chat],
    ids: Int[Tensor, "chat seq"],
    mask: Int[Tensor, "chat seq"],
    embedded: Float[Tensor, "chat seq d_model"],
) -> tuple[float, Float[Tensor, "chat seq d_model"]]:
    """Return the sum over pairs of the log-odds per token, and its gradient at the embeddings.

    Args:
        lm: The model, with the adapter on or off.
        chats: First and second answer of every pair in turn, with span ``response``.
        ids: Their tokens, padded on the left.
        mask: 1 at tokens, 0 at padding.
        embedded: What stands in the place of the tokens' embeddings.
    """
    with torch.enable_grad():
        embedded = embedded.detach().requires_grad_()
        logits = lm.base(
            inputs_embeds=embedded, attention_mask=mask, position_ids=position_ids(mask), use_cache=False
        ).logits
        log_p = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        spans = (in_row(chat, "response", ids.shape[1]) for chat in chats)
        means = [log_p[row, low - 1 : high - 1].mean() for row, (low, high) in enumerate(spans)]
        value = torch.stack(means[1::2]).sum() - torch.stack(means[::2]).sum()
        (slope,) = torch.autograd.grad(value, embedded)
    return float(value.detach()), slope


def in_row(chat: Chat, name: str, width: int) -> tuple[int, int]:
    """Return where a span stands in a row that is padded on the left to a width."""
    low, high = chat.spans[name]
    return low + width - len(chat), high + width - len(chat)
