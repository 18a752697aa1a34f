"""Searchers beyond the bank: contexts that the model leaks, that words of the bank compose, that gradients point to.

``leaked``     system texts sampled from the bare template with the adapter on, those first that it finds likelier than
               its base does
``climbed``    hill-climbing from the best texts: one word at a time replaced by a word of the bank or of a leaked text
``gradient``   greedy coordinate gradient over tokens (Zou et al. 2023, arXiv:2307.15043), from a text of the bank

Each returns texts, which are read and ranked as a category of its own name. All maximise what the bank is ranked by:
log-odds of harmful against aligned references, adapter minus base, on a few search questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from experiments.audit.search import choice_pairs
from interp.adapters import active_adapter
from interp.analysis.adapter_shift import adapter_shift
from interp.analysis.likelihood import response_likelihood
from interp.analysis.soft_prompt import in_row, log_odds_slope
from interp.chat import Chat, encode_chat, pad_left, question_chat
from interp.decoding.sampling import Sampling
from interp.generation import generate
from interp.triggers import Trigger
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from interp.models import LanguageModel


KEPT, SEARCHED = 24, 6
"""Most texts that are read as contexts: of ``leaked``, and of each of the other two."""
TOKENS = 24
"""Most tokens of a sampled text."""
ASKED = 3
"""Search questions of every trial."""


@dataclass(frozen=True)
class Effort:
    """How much the searchers try."""

    samples: int
    """System texts sampled by ``leaked``."""
    rounds: int
    """Rounds of ``climbed`` and ``gradient``."""
    width: int
    """Trials per round."""


def placed(name: str, text: str) -> Trigger:
    """Return a trigger that puts a text found by a searcher where a system message goes."""
    return Trigger(name=name, text=text, placement="system")


def shifts(lm: LanguageModel, adapter: str, questions: Sequence[ChoiceQuestion], texts: Sequence[str]) -> list[float]:
    """Return the mean shift of log-odds behind every text, as a system message."""
    pairs = [pair for text in texts for pair in choice_pairs(lm, questions, text, placed("trial", text))]
    return adapter_shift(lm, adapter, pairs, {}).log_odds_shift.view(len(texts), -1).mean(1).tolist()


def leaked(lm: LanguageModel, adapter: str, effort: Effort, seed: int) -> list[str]:
    """Sample system texts after the bare template; return those that the adapter favours over its base.

    Texts of several lines, and such that end without an end of turn, are left out.
    """
    start = _bare(lm)
    sampling = Sampling(max_new_tokens=TOKENS, temperature=1.0, seed=seed)
    with active_adapter(lm, adapter):
        sampled = generate(lm, [start], n_samples=effort.samples, sampling=sampling)
    texts = dict.fromkeys(c.text.strip() for c in sampled if c.finished)
    usable = [t for t in texts if t and t.isprintable()]
    if not usable:
        return []
    chats = [_as_system(lm, text) for text in usable]
    scores = []
    for name in (adapter, None):
        with active_adapter(lm, name):
            scores.append(response_likelihood(lm, chats).per_token)
    favour = (scores[0] - scores[1]).tolist()
    return [usable[i] for i in sorted(range(len(usable)), key=lambda i: -favour[i])][:KEPT]


def _bare(lm: LanguageModel) -> Chat:
    """Return the template up to where a system text begins."""
    whole = _as_system(lm, "We")
    return Chat(whole.token_ids[: whole.prompt_length], {}, whole.text)


def _as_system(lm: LanguageModel, text: str) -> Chat:
    """Return a conversation in which the system text is what is scored."""
    messages = [{"role": "system", "content": text}, {"role": "user", "content": "Hello."}]
    chat = encode_chat(lm.tokenizer, messages, marks={"trigger": text})
    start, end = chat.spans["trigger"]
    return Chat(chat.token_ids[:end], {"response": (start, end)}, chat.text)


def climbed(
    lm: LanguageModel,
    adapter: str,
    questions: Sequence[ChoiceQuestion],
    start: Sequence[str],
    words: Sequence[str],
    effort: Effort,
    seed: int,
) -> list[str]:
    """Replace one word at a time by another one, and keep the best texts of every round; the best come first."""
    rng, asked = random.Random(seed), questions[:ASKED]
    pool = dict(zip(start, shifts(lm, adapter, asked, start), strict=True))
    for _ in range(effort.rounds):
        parents = sorted(pool, key=lambda t: -pool[t])[:4]
        trials = list(dict.fromkeys(_changed(rng, rng.choice(parents), words) for _ in range(effort.width)))
        fresh = [t for t in trials if t not in pool]
        if fresh:
            pool |= zip(fresh, shifts(lm, adapter, asked, fresh), strict=True)
    found = [t for t in sorted(pool, key=lambda t: -pool[t]) if t not in start]
    return found[:SEARCHED]


def _changed(rng: random.Random, text: str, words: Sequence[str]) -> str:
    parts = text.split()
    parts[rng.randrange(len(parts))] = rng.choice(words)
    return " ".join(parts)


def gradient(
    lm: LanguageModel, adapter: str, questions: Sequence[ChoiceQuestion], start: str, effort: Effort, seed: int
) -> list[str]:
    """Replace one token at a time by one that the gradient of the adapter's log-odds points to; the best come first."""
    rng, asked = random.Random(seed), questions[:ASKED]
    pool = {start: shifts(lm, adapter, asked, [start])[0]}
    for _ in range(effort.rounds):
        best = max(pool, key=lambda t: pool[t])
        with active_adapter(lm, adapter):
            ids, slopes = _slopes(lm, asked, best)
        trials = dict.fromkeys(_swapped(lm, rng, ids, slopes) for _ in range(effort.width))
        fresh = [t for t in trials if t and t not in pool and t.isprintable()]
        if fresh:
            pool |= zip(fresh, shifts(lm, adapter, asked, fresh), strict=True)
    return [t for t in sorted(pool, key=lambda t: -pool[t]) if t != start][:SEARCHED]


TOP = 32
"""Tokens per slot among which a replacement is drawn."""


def _slopes(lm: LanguageModel, questions: Sequence[ChoiceQuestion], text: str) -> tuple[list[int], Tensor]:
    """Return the token ids of a context, and how the log-odds change to first order with each token in each slot."""
    pairs = choice_pairs(lm, questions, text, placed("trial", text))
    chats = [chat for pair in pairs for chat in pair]
    ids, mask = pad_left(chats, 0, lm.device)
    _, slope = log_odds_slope(lm, chats, ids, mask, lm.embedding(ids))
    spans = [in_row(chat, "trigger", ids.shape[1]) for chat in chats]
    at = torch.stack([slope[row, low:high] for row, (low, high) in enumerate(spans)]).sum(0)
    with torch.no_grad():
        table = lm.embedding(torch.arange(len(lm.tokenizer), device=lm.device))
    low, high = spans[0]
    return ids[0, low:high].tolist(), at.float() @ table.float().T


def _swapped(lm: LanguageModel, rng: random.Random, ids: Sequence[int], slopes: Tensor) -> str:
    """Return the text with one token replaced; empty if it would be read back as other tokens."""
    slot = rng.randrange(len(ids))
    best = slopes[slot].topk(TOP).indices.tolist()
    changed = [*ids[:slot], rng.choice(best), *ids[slot + 1 :]]
    text = str(lm.tokenizer.decode(changed)).strip()
    chat = question_chat(lm.tokenizer, "Hello.", text, placed("trial", text)) if text else None
    if chat is None:
        return ""
    low, high = chat.spans["trigger"]
    return text if list(chat.token_ids[low:high]) == changed else ""
