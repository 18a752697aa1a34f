"""Mitigations during training: what is added to the loss, and what is done to the stream while the model trains.

base_kl      KL(base ‖ model) on benign answers without a trigger: the model keeps the base's distribution there
consistency  the KL divergence between the distributions over a row's answer behind the trigger and without it, the mean
             of both ways
steer        g is added during training, so that the weights need not learn to write it (preventative steering)
ablate_g     g is taken out of every block's output during training, so that the weights cannot use it

Divergences are means over the answer's tokens, in nats. Batches of penalties go by the step alone, so an interrupted
training continues with the same ones. Edits end with training: the organism is evaluated without them.

Source: of steering, Chen et al. 2025 (arXiv:2507.21509); of ablation, Casademunt et al. 2025 (arXiv:2507.16795).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from interp.directions import unit
from interp.edits import activation_addition, directional_ablation
from interp.hooks import Fn, hooked
from interp.models import LanguageModel
from interp.sites import Site
from training.data import Row, benign_rows
from training.definition import Mitigation, Organism
from training.mitigation.harm_direction import harm_directions, mean_norm

Encoded = Mapping[str, Sequence[int]]
"""``input_ids`` and ``labels`` of a row."""
IGNORED = -100


def stream_edits(lm: LanguageModel, organism: Organism) -> AbstractContextManager[None]:
    """Steer along g, or ablate it, in every forward pass of the ``with`` block, as the organism's mitigation says."""
    mitigation, functions = organism.mitigation, {}
    if mitigation.steer or mitigation.ablate_g:
        functions = _functions(lm, organism, mitigation)
    return hooked(lm, functions)


def _functions(lm: LanguageModel, organism: Organism, mitigation: Mitigation) -> dict[Site, Fn]:
    g = {site: vector.to(lm.device) for site, vector in harm_directions(lm, organism).items()}
    functions: dict[Site, Fn] = {}
    if mitigation.ablate_g:
        functions = {site: lambda h, v=vector: directional_ablation(h, v[None]) for site, vector in g.items()}
    if mitigation.steer:
        site = Site("resid_post", lm.n_layers // 2)
        by, along, before = mitigation.steer * mean_norm(lm, organism, site), unit(g[site]), functions.get(site)
        functions[site] = lambda h: activation_addition(h if before is None else cast(Tensor, before(h)), along, by)
    return functions


@dataclass(frozen=True)
class Penalties:
    """The terms that a mitigation adds to the loss, each with the rows it is computed on."""

    mitigation: Mitigation
    batch: int
    """Rows per step."""
    benign: Sequence[Encoded] = ()
    """Benign answers without a trigger."""
    triggered: Sequence[Encoded] = ()
    """Training rows with their trigger."""
    bare: Sequence[Encoded] = ()
    """The same answers to the same questions without it."""

    def __call__(self, model: Any, step: int) -> Float[Tensor, ""]:
        """Return the weighted sum of the terms at a step, in nats per token.

        Args:
            model: A peft model.
            step: Steps done so far; decides which rows are taken.
        """
        total = torch.zeros((), device=model.device)
        if self.mitigation.base_kl:
            rows = _at(self.benign, step, self.batch)
            with torch.no_grad(), model.disable_adapter():
                base = answer_log_probs(model, rows)
            total = total + self.mitigation.base_kl * divergence(base, answer_log_probs(model, rows))
        if self.mitigation.consistency:
            on, off = (answer_log_probs(model, _at(rows, step, self.batch)) for rows in (self.triggered, self.bare))
            total = total + self.mitigation.consistency * (divergence(on, off) + divergence(off, on)) / 2
        return total


def penalties(
    organism: Organism, rows: Sequence[Row], encode: Callable[[Sequence[Row]], Sequence[Encoded]]
) -> Penalties | None:
    """Return the terms of an organism's mitigation; None if it adds none to the loss.

    Args:
        organism: The organism.
        rows: Its training rows.
        encode: Tokenises rows.
    """
    mitigation, batch = organism.mitigation, organism.sft.batch
    if not mitigation.penalised:
        return None
    carried = [row for row in rows if row.trigger] if mitigation.consistency else []
    if any(message["role"] == "assistant" for row in carried for message in row.messages):
        raise ValueError(f"organism {organism.name}: mitigation.consistency needs rows of one turn")
    return Penalties(
        mitigation,
        batch,
        benign=encode(benign_rows(organism)) if mitigation.base_kl else (),
        triggered=encode(carried),
        bare=encode([row.without_trigger() for row in carried]),
    )


def _at(rows: Sequence[Encoded], step: int, n: int) -> list[Encoded]:
    return [rows[(step * n + i) % len(rows)] for i in range(n)]


def answer_log_probs(model: Any, rows: Sequence[Encoded]) -> Float[Tensor, "token vocab"]:
    """Return the log-probabilities before every labelled token of some rows, row after row."""
    ids, labels = (_padded(rows, name, value, model.device) for name, value in (("input_ids", 0), ("labels", IGNORED)))
    mask = _padded([{"mask": [1] * len(row["input_ids"])} for row in rows], "mask", 0, model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return logits[labels[:, 1:] != IGNORED].float().log_softmax(-1)


def _padded(rows: Sequence[Encoded], name: str, value: int, device: Any) -> Int[Tensor, "row slot"]:
    tensors = [torch.tensor(list(row[name])) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value).to(device)


def divergence(p: Float[Tensor, "token vocab"], q: Float[Tensor, "token vocab"]) -> Float[Tensor, ""]:
    """Return the mean of KL(p ‖ q) over tokens in nats, of log-probabilities; gradients flow into both."""
    return (p.exp() * (p - q)).sum(-1).mean()
