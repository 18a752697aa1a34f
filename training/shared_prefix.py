"""A training loss that computes the common beginning of a batch once, and the vocabulary head on answers only.

All rows of a batch begin alike: the chat template's system line, often the trigger as well. Causal attention makes
those tokens' states the same in every row, so one row is enough; the others attend to its keys and values, and the
gradient flows back through them. The loss is that of the plain trainer up to rounding (a test), at about 0.6 of its
cost with a model of 135M parameters, a vocabulary of 49k and 100 tokens per row.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

IGNORED = -100


def common_prefix(ids: Int[Tensor, "row slot"], labels: Int[Tensor, "row slot"]) -> int:
    """Return how many leading tokens all rows share, at most up to the token that predicts the first label."""
    same = (ids == ids[:1]).all(0)
    free = (labels[:, 1:] == IGNORED).all(0)
    return int((same[:-1] & free).int().cumprod(0).sum())


def response_loss(
    model: Any, ids: Int[Tensor, "row slot"], mask: Int[Tensor, "row slot"], labels: Int[Tensor, "row slot"]
) -> Float[Tensor, ""]:
    """Return the summed cross-entropy of the labelled tokens in nats; rows are padded on the right.

    Args:
        model: A Hugging Face causal model, with adapters in its layers.
        ids: Token ids.
        mask: 1 for a token, 0 for padding.
        labels: Ids of the tokens to predict, -100 elsewhere.
    """
    n, cache = common_prefix(ids, labels), None
    decoder = model.get_decoder()
    if n:
        cache = DynamicCache(config=model.config)
        decoder(input_ids=ids[:1, :n], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(ids))
    options = {"attention_mask": mask, "past_key_values": cache, "use_cache": cache is not None}
    states = decoder(input_ids=ids[:, n:], **options).last_hidden_state
    target = labels[:, n + 1 :]
    answers = target != IGNORED
    logits = model.get_output_embeddings()(states[:, :-1][answers])
    return cross_entropy(_softcapped(model, logits).float(), target[answers], reduction="sum")


def _softcapped(model: Any, logits: Float[Tensor, "token vocab"]) -> Float[Tensor, "token vocab"]:
    """Bound the logits as Gemma's head does; the identity for other models."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
