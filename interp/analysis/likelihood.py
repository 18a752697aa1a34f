"""How probable given texts are under a model, with or without edits: responses, and the token after a prompt.

    >>> before = response_likelihood(lm, chats)
    >>> after = response_likelihood(lm, chats, edits=[ablate(site, g, positions="all")])
    >>> after.loss - before.loss                                  # cost of the edit, in nats per token
    >>> kl_divergence(next_token_log_probs(lm, prompts), next_token_log_probs(lm, prompts, edits=[steer]))

Nothing is sampled, so few prompts show small effects, and no judge is needed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from interp.chat import Chat, check_responses, pad_left
from interp.chat import positions as marked
from interp.edits import Edit, Masks, batch_masks, editing
from interp.models import LanguageModel, check_prompts, kept_logits
from interp.recording import buckets, padding, pass_tokens

Within = Callable[[Masks], AbstractContextManager[object]]
"""An intervention that is not an ``Edit``: a context entered around every pass, given the masks of that pass."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-probabilities of responses, without the end-of-turn token.

    Attributes:
        log_probability: Log-probability of each whole response, in nats.
        tokens: Number of tokens of each response.
    """

    log_probability: Float64[Tensor, " prompt"]
    tokens: Int[Tensor, " prompt"]

    def __post_init__(self) -> None:
        """Refuse a log-probability that is not finite, as an overflow of the model gives it.

        Raises:
            ValueError: Names the first response.
        """
        finite = self.log_probability.isfinite()
        if not bool(finite.all()):
            raise ValueError(f"likelihood: that of response {int((~finite).int().argmax())} is not finite")

    @property
    def per_token(self) -> Float64[Tensor, " prompt"]:
        """Mean log-probability of a response's tokens, in nats."""
        return self.log_probability / self.tokens

    @property
    def loss(self) -> float:
        """Cross-entropy over all tokens of all responses, in nats per token."""
        return float(-self.log_probability.sum() / self.tokens.sum())


def response_likelihood(
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    edits: Sequence[Edit] = (),
    within: Within | None = None,
    batch_tokens: int | None = None,
) -> Likelihood:
    """Return how probable each chat's response is after its prompt, with the active adapter.

    Args:
        lm: The model.
        chats: Prompts with responses.
        edits: Applied in order. Row i of a ``patch`` with several rows belongs to chat i.
        within: Another intervention, such as ``interp.analysis.knockout.blocked_attention``.
        batch_tokens: Most tokens in one forward pass, padding included; see ``interp.recording.pass_tokens``.

    Raises:
        ValueError: If there is no chat, or one has no response.

    Not evidence for: what the model would answer. A text that it never samples may still gain probability.
    """
    check_responses(chats, wanted=True)
    total = torch.zeros(len(chats), dtype=torch.float64)
    for rows, logits, ids in _passes(lm, chats, edits, within, batch_tokens):
        # The logits begin one token before the first scored one, so logits[:, t] predict token t + 1 of the tail.
        tail = ids[:, -logits.shape[1] + 1 :]
        scored = marked([chats[row] for row in rows], "response", width=ids.shape[1])[:, -tail.shape[1] :]
        log_p = logits[:, :-1].gather(-1, tail[..., None])[..., 0] - logits[:, :-1].logsumexp(-1)
        total[rows] = torch.where(scored.to(log_p.device), log_p, 0).double().sum(1).cpu()
    return Likelihood(total, torch.tensor([chat.response_length for chat in chats]))


def next_token_log_probs(
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    edits: Sequence[Edit] = (),
    within: Within | None = None,
    batch_tokens: int | None = None,
) -> Float[Tensor, "prompt vocab"]:
    """Return the log-probabilities of the first token after each prompt, float32 on the CPU.

    Arguments as in ``response_likelihood``.

    Raises:
        ValueError: If there is no chat, or one has a response.
    """
    check_responses(chats, wanted=False)
    log_probs: list[Tensor] = [torch.empty(0)] * len(chats)
    for rows, logits, _ in _passes(lm, chats, edits, within, batch_tokens):
        for row, values in zip(rows, logits[:, -1].log_softmax(-1).cpu(), strict=True):
            log_probs[row] = values
    stacked = torch.stack(log_probs)
    if bool((undefined := stacked.isnan().any(-1)).any()):
        raise ValueError(f"next token: the logits after prompt {int(undefined.int().argmax())} are not finite")
    return stacked


def kl_divergence(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float64[Tensor, "*batch"]:
    """Return KL(p ‖ q) in nats of distributions given as log-probabilities."""
    p, q = p.double(), q.double()
    return torch.where(p.isneginf(), 0, p.exp() * (p - q)).sum(-1)


@torch.inference_mode()
def _run(lm: LanguageModel, ids: Tensor, mask: Tensor, keep: int) -> Float[Tensor, "batch pos vocab"]:
    return kept_logits(lm, keep, input_ids=ids, use_cache=False, **padding(mask)).float()


def _passes(
    lm: LanguageModel, chats: Sequence[Chat], edits: Sequence[Edit], within: Within | None, batch_tokens: int | None
) -> Iterator[tuple[list[int], Float[Tensor, "batch pos vocab"], Int[Tensor, "batch width"]]]:
    """Yield per pass: indices of its chats, logits from their last prompt token on, left-padded token ids."""
    if not chats:
        raise ValueError("likelihood: no chats")
    check_prompts(lm, chats)
    for rows in buckets([len(chat) for chat in chats], pass_tokens(batch_tokens), equal=lm.recurrent):
        batch = [chats[row] for row in rows]
        ids, mask = pad_left(batch, 0, lm.device)
        masks = batch_masks(batch, ids.shape[1], lm.device)
        with ExitStack() as stack:
            index = torch.tensor(rows)
            stack.enter_context(editing(lm, edits, masks, rows=lambda index=index: index))
            if within is not None:
                stack.enter_context(within(masks))
            keep = max(len(chat) - chat.prompt_length for chat in batch) + 1
            yield rows, _run(lm, ids, mask, keep), ids
