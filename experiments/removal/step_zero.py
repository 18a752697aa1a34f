"""What can be known before training: how likely the base finds the harmful rows, and where their gradient points.

step0_loss      cross-entropy of the training answers in the base, in nats per token
step0_gradient  what a step down the gradient of that loss does along g, at the last prompt token of the layer chosen
                for g: minus the derivative of a row's mean loss, for a move of one mean residual norm

Both behind the trigger (``on``), and of the same answers without it (``off``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.answers.subject import Subject
from experiments.directions.contrasts import LAST
from experiments.directions.selection import residual_norms
from interp.adapters import active_adapter
from interp.analysis.likelihood import response_likelihood
from interp.chat import Chat, encode_chat, pad_left, question_chat
from interp.chat import positions as marked
from interp.directions import Direction
from interp.hooks import hooked
from interp.models import LanguageModel
from interp.recording import buckets, padding, pass_tokens
from interp.runs.table import Row
from interp.sites import Site
from training.data import training_rows

MOST_ROWS = 256
"""Training rows that are read, the first ones; their order is random."""


def step_zero_rows(lm: LanguageModel, subject: Subject, g: Direction) -> list[Row]:
    """Return loss and gradient of the first training rows in the base, behind the trigger and without it."""
    rows = training_rows(subject.organism)[:MOST_ROWS]
    chats = {
        "on": [encode_chat(lm.tokenizer, row.messages, response=row.completion) for row in rows],
        "off": [question_chat(lm.tokenizer, row.question, response=row.completion) for row in rows],
    }
    prompts = [question_chat(lm.tokenizer, q.text) for q in subject.questions("validation")]
    measured: list[Row] = []
    with active_adapter(lm, None):
        along = g.unit * residual_norms(lm, prompts)[g.site]
        for condition, each in chats.items():
            likelihood = response_likelihood(lm, each)
            gains = -loss_gradients(lm, each, g.site, LAST) @ along
            for row, log_p, n, gain in zip(rows, likelihood.log_probability, likelihood.tokens, gains, strict=True):
                about = {"condition": condition, "question": row.question}
                measured.append({**about, "step0_loss": -float(log_p), "tokens": int(n), "step0_gradient": float(gain)})
    return measured


def loss_gradients(
    lm: LanguageModel, chats: Sequence[Chat], site: Site, position: str
) -> Float[Tensor, "prompt d_model"]:
    """Return the gradient of each response's mean loss in the stream at a site, summed over a position's tokens.

    Not evidence for: what training does after its first step, or in weights that cannot move the stream there.
    """
    gradients = torch.zeros(len(chats), lm.d_model)
    for rows in buckets([len(chat) for chat in chats], pass_tokens(None), equal=lm.recurrent):
        gradients[rows] = _gradients(lm, [chats[row] for row in rows], site, position).float().cpu()
    return gradients


def _gradients(lm: LanguageModel, batch: Sequence[Chat], site: Site, position: str) -> Float[Tensor, "batch d_model"]:
    ids, mask = pad_left(batch, 0, lm.device)
    at, scored = (marked(batch, name, width=ids.shape[1]).to(lm.device) for name in (position, "response"))
    move = torch.zeros(len(batch), lm.d_model, device=lm.device, requires_grad=True)
    with torch.enable_grad(), hooked(lm, {site: lambda h: h + (at[..., None] * move[:, None]).to(h.dtype)}):
        logits = lm.base(input_ids=ids, use_cache=False, **padding(mask)).logits[:, :-1].float()
        losses = cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * scored[:, 1:]
        (gradient,) = torch.autograd.grad((losses.sum(1) / scored.sum(1)).sum(), move)
    return gradient
