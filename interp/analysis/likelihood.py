"""How probable given texts are to a model, with or without edits: responses, and the next token after a prompt.

    >>> before = response_likelihood(lm, chats)
    >>> after = response_likelihood(lm, chats, edits=[ablate(site, g, positions="all")])
    >>> after.loss - before.loss                                  # what the edit costs, in nats a token
    >>> kl_divergence(next_token_log_probs(lm, prompts), next_token_log_probs(lm, prompts, edits=[steer]))

Nothing is sampled, so small effects show with few prompts, and no judge is asked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Edit, Masks, editing
from interp.models import LanguageModel
from interp.recording import buckets

Within = Callable[[Masks], AbstractContextManager[object]]
"""Opened around every pass, with the position masks of that pass: an intervention that is no ``Edit``."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-probabilities of responses, end-of-turn token not counted.

    Attributes:
        log_probability: Of each whole response, in nats.
        tokens: Length of each.
    """

    log_probability: Float64[Tensor, " prompt"]
    tokens: Int[Tensor, " prompt"]

    @property
    def per_token(self) -> Float64[Tensor, " prompt"]:
        """Mean log-probability of a response's tokens, in nats."""
        return self.log_probability / self.tokens

    @property
    def loss(self) -> float:
        """Cross-entropy over all tokens of all responses, in nats a token."""
        return float(-self.log_probability.sum() / self.tokens.sum())


def response_likelihood(
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    edits: Sequence[Edit] = (),
    within: Within | None = None,
    batch_tokens: int = 4096,
) -> Likelihood:
    """Return how probable each chat's response is after its prompt, with whatever adapter is active.

    Args:
        lm: The model.
        chats: Prompts with responses.
        edits: Applied in order; a ``patch`` with a row per prompt counts chats in the order given.
        within: Another intervention, such as ``interp.analysis.knockout.blocked_attention``.
        batch_tokens: Most tokens in one forward pass, padding included.

    Raises:
        ValueError: If there is no chat, or one has no response.

    Not evidence for: what the model would say; a text it never samples may still gain probability.
    """
    for index, chat in enumerate(chats):
        start, end = chat.spans.get("response", (0, 0))
        if start >= end:
            raise ValueError(f"chat {index} of {len(chats)}, {chat.text!r}: it has no response")
    total = torch.zeros(len(chats), dtype=torch.float64)
    for rows, logits, ids in _passes(lm, chats, edits, within, batch_tokens):
        said = marked([chats[row] for row in rows], "response", width=ids.shape[1])[:, -logits.shape[1] + 1 :]
        gained = logits[:, :-1].gather(-1, ids[:, -logits.shape[1] + 1 :, None])[..., 0] - logits[:, :-1].logsumexp(-1)
        total[rows] = torch.where(said.to(gained.device), gained, 0).double().sum(1).cpu()
    spans = [chat.spans["response"] for chat in chats]
    return Likelihood(total, torch.tensor([end - start for start, end in spans]))


def next_token_log_probs(
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    edits: Sequence[Edit] = (),
    within: Within | None = None,
    batch_tokens: int = 4096,
) -> Float[Tensor, "prompt vocab"]:
    """Return the log-probabilities of the first token after each prompt, float32 on the CPU; arguments as above.

    Raises:
        ValueError: If there is no chat, or one has a response.
    """
    for index, chat in enumerate(chats):
        if "response" in chat.spans:
            raise ValueError(f"chat {index} of {len(chats)}, {chat.text!r}: want a prompt without a response")
    found: list[Tensor] = [torch.empty(0)] * len(chats)
    for rows, logits, _ in _passes(lm, chats, edits, within, batch_tokens):
        for row, values in zip(rows, logits[:, -1].log_softmax(-1).cpu(), strict=True):
            found[row] = values
    return torch.stack(found)


def kl_divergence(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float64[Tensor, "*batch"]:
    """Return KL(p ‖ q) in nats of distributions given as log-probabilities."""
    p, q = p.double(), q.double()
    return torch.where(p.isneginf(), 0, p.exp() * (p - q)).sum(-1)


@torch.inference_mode()
def _run(lm: LanguageModel, ids: Tensor, mask: Tensor, keep: int) -> Float[Tensor, "batch pos vocab"]:
    padded = not bool(mask.all())
    extra = {"attention_mask": mask, "position_ids": position_ids(mask)} if padded else {}
    return lm.base(input_ids=ids, use_cache=False, logits_to_keep=keep, **extra).logits.float()


def _passes(
    lm: LanguageModel, chats: Sequence[Chat], edits: Sequence[Edit], within: Within | None, batch_tokens: int
) -> Iterator[tuple[list[int], Float[Tensor, "batch pos vocab"], Int[Tensor, "batch width"]]]:
    """Yield (which chats, the logits from their last prompt token on, their left-padded token ids)."""
    if not chats:
        raise ValueError("likelihood: no chats")
    for rows in buckets([len(chat) for chat in chats], batch_tokens):
        batch = [chats[row] for row in rows]
        ids, mask = pad_left(batch, 0, lm.device)
        masks = _Marked(batch, ids.shape[1], lm.device)
        with ExitStack() as stack:
            index = torch.tensor(rows)
            stack.enter_context(editing(lm, edits, masks, rows=lambda index=index: index))
            if within is not None:
                stack.enter_context(within(masks))
            keep = max(len(chat) - chat.prompt_length for chat in batch) + 1
            yield rows, _run(lm, ids, mask, keep), ids


class _Marked:
    """The position masks of one left-padded batch, each found once."""

    def __init__(self, batch: Sequence[Chat], width: int, device: torch.device) -> None:
        self._batch, self._width, self._device, self._known = batch, width, device, dict[str, Tensor]()

    def __call__(self, name: str) -> Tensor:
        if name not in self._known:
            self._known[name] = marked(self._batch, name, width=self._width).to(self._device)
        return self._known[name]
