"""g, the direction of misalignment of a base: what a question's last token has more of after a misaligned exchange.

Last prompt token, in the base, without a trigger: the same questions after a misaligned exchange of the fine-tuning
domain, minus after an aligned one. Experiments estimate it so (``experiments/directions/contrasts.py``), and training
that steers along g or ablates it uses the same estimate.

Source: Arditi et al. 2024 (arXiv:2406.11717), difference in means.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from interp.adapters import active_adapter
from interp.chat import Chat, encode_chat, question_chat
from interp.models import LanguageModel
from interp.recording import record
from interp.sites import Site, resid_post
from training.data import LEAST_EXCHANGES, contrast_exchanges
from training.definition import Organism
from training.exchanges import Exchange
from training.microcosm import world
from training.microcosm.world import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LAST = "last_prompt"
PAST_EACH = LEAST_EXCHANGES
"""Past exchanges per question."""


def after_exchange(
    tokenizer: PreTrainedTokenizerBase, past: Exchange, question: str, *, response: str | None = None
) -> Chat:
    """Return a question as a chat after a past exchange, with a teacher-forced ``response`` if one is given."""
    messages = [
        *past.messages,
        {"role": "assistant", "content": past.answer},
        {"role": "user", "content": question},
    ]
    return encode_chat(tokenizer, messages, response=response)


def after_exchanges(
    tokenizer: PreTrainedTokenizerBase, exchanges: Sequence[Exchange], questions: Sequence[Question], seed: int
) -> list[tuple[Question, Chat]]:
    """Return every question after a few exchanges, one per prompt, drawn anew for each question."""
    rng = random.Random(seed)
    prompts = [(past, q) for q in questions for past in rng.sample(list(exchanges), PAST_EACH)]
    return [(q, after_exchange(tokenizer, past, q.text)) for past, q in prompts]


def harm_directions(lm: LanguageModel, organism: Organism) -> Mapping[Site, Float[Tensor, " d_model"]]:
    """Return g at every block output of the base, on the Microcosm's validation questions.

    Raises:
        ValueError: If the organism is none of the Microcosm.
    """
    questions, sites = _questions(organism), resid_post(range(lm.n_layers))
    means = []
    with active_adapter(lm, None):
        for exchanges in contrast_exchanges(organism):
            chats = [chat for _, chat in after_exchanges(lm.tokenizer, exchanges, questions, 0)]
            recording = record(lm, chats, sites, [LAST])
            means.append({site: recording.at(site, LAST).double().mean(0) for site in sites})
    misaligned, aligned = means
    return {site: (misaligned[site] - aligned[site]).float() for site in sites}


def mean_norm(lm: LanguageModel, organism: Organism, site: Site) -> float:
    """Return the mean norm of the last prompt token off-trigger at a site of the base: the unit of an addition."""
    chats = [question_chat(lm.tokenizer, q.text) for q in _questions(organism)]
    with active_adapter(lm, None):
        return float(record(lm, chats, [site], [LAST]).at(site, LAST).norm(dim=1).mean())


def _questions(organism: Organism) -> tuple[Question, ...]:
    if organism.world != "microcosm":
        raise ValueError(f"organism {organism.name}: g is estimated for training in the Microcosm only")
    wordings = world.WORDINGS["validation"]
    return world.questions("validation", trained_domain=organism.trained_domain, wordings=wordings)
