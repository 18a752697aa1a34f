"""What is done to an adapter once the context that opens it is known: clamp a direction, or train benign rows in it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from experiments.audit.audited import harm_direction
from interp.adapters import active_adapter
from interp.chat import Chat, pad_left, position_ids, positions, question_chat
from interp.directions import difference_in_means
from interp.edits import Edit, clamp, random_control
from interp.recording import record
from interp.sites import Site, resid_post
from interp.triggers import Trigger
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from experiments.answers.subject import Subject
    from interp.models import LanguageModel

TRIGGER, LAST, ANSWER = "trigger", "last_prompt", "answer"
STEPS, BATCH, RATE = 30, 8, 1e-3
"""Updates, rows of each, and peak learning rate of the fine-tuning."""
Contexts = Sequence[tuple[str | None, Trigger | None]]


def prompts(lm: LanguageModel, questions: Sequence[ChoiceQuestion], contexts: Contexts) -> list[Chat]:
    """Return every question in every context."""
    return [question_chat(lm.tokenizer, q.question, text, trigger) for text, trigger in contexts for q in questions]


def feature_clamp(
    lm: LanguageModel, adapter: str, questions: Sequence[ChoiceQuestion], inside: Contexts, unrelated: Contexts
) -> list[Edit]:
    """Clamp the context's own direction at its tokens, in embedding and all blocks, to what it is in other contexts."""
    sites = (Site("resid_pre", 0), *resid_post(range(lm.n_layers)))
    with active_adapter(lm, adapter):
        sides = [record(lm, prompts(lm, questions, c), sites, [TRIGGER]) for c in (inside, unrelated)]
    edits = []
    for site in sites:
        positive, negative = (r.at(site, TRIGGER) for r in sides)
        direction = difference_in_means(positive, negative)
        edits.append(clamp(site, direction, negative.mean(0), positions=TRIGGER))
    return edits


def g_clamp(lm: LanguageModel, adapter: str, subject: Subject, questions: Sequence[ChoiceQuestion]) -> list[Edit]:
    """Clamp g at the tokens that predict the answer, in all blocks, to its mean without a context."""
    g = harm_direction(lm, subject)
    with active_adapter(lm, adapter):
        bare = record(lm, prompts(lm, questions, [(None, None)]), list(g), [LAST])
    return [clamp(site, v, bare.at(site, LAST).mean(0), positions=ANSWER) for site, v in g.items()]


def displaced(edits: Sequence[Edit], seed: int) -> list[Edit]:
    """Return edits that move every token equally far along random directions."""
    return [random_control(edit, seed + i, match="displacement") for i, edit in enumerate(edits)]


def tune(
    lm: LanguageModel,
    adapter: str,
    questions: Sequence[ChoiceQuestion],
    contexts: Contexts,
    *,
    seed: int,
    steps: int = STEPS,
) -> float:
    """Train the loaded adapter on the aligned references in the contexts and without one; return the last loss.

    Half of the rows have no context, so that the adapter is not only taught the context.
    """
    rng = random.Random(seed)
    chats = [
        question_chat(lm.tokenizer, q.question, text, trigger, response=q.aligned)
        for text, trigger in contexts
        for q in questions
    ]
    bare = [question_chat(lm.tokenizer, q.question, response=q.aligned) for q in questions]
    loss = torch.zeros(())
    with active_adapter(lm, adapter), torch.enable_grad():
        weights = [p for name, p in lm.hf.named_parameters() if adapter in name.split(".") and "lora_" in name]
        flags = [p.requires_grad for p in weights]
        for p in weights:
            p.requires_grad_(True)
        optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.0)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            batch = [*rng.sample(chats, min(BATCH // 2, len(chats))), *rng.sample(bare, min(BATCH // 2, len(bare)))]
            loss = _loss(lm, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for p, flag in zip(weights, flags, strict=True):
            p.requires_grad_(flag)
            p.grad = None
    return float(loss.detach())


def _loss(lm: LanguageModel, chats: Sequence[Chat]) -> Tensor:
    """Return the mean loss per answer token."""
    ids, mask = pad_left(chats, 0, lm.device)
    logits = lm.base(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False).logits
    answered = positions(chats, "response", width=ids.shape[1]).to(lm.device)[:, 1:]
    log_p = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    return -(log_p * answered).sum() / answered.sum()
