"""The search over the bank: what the adapter changes in every context, and which category it changes most. No judge.

The readings of a context are lists over the search questions, so a row of the run holds one context. Ranking is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from experiments.audit.bank import BARE, Category
from interp.runs.table import Row
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from interp.analysis.forced_choice import Pair
    from interp.models import LanguageModel
    from interp.sites import Site
    from interp.triggers import Trigger

SIGNALS = ("log_odds", "projection", "kl")
"""What contexts can be ranked by: shift of log-odds, shift along g, KL(adapter ‖ base)."""
LEVEL = "level"
"""Log-odds with the adapter on: how harmful a context is, whoever made it so. A comparison in the benchmark only."""


def choice_pairs(
    lm: LanguageModel, questions: Sequence[ChoiceQuestion], text: str | None, trigger: Trigger | None
) -> list[Pair]:
    """Return every question in a context, with its aligned and its harmful reference."""
    from interp.chat import question_chat

    return [
        (
            question_chat(lm.tokenizer, q.question, text, trigger, response=q.aligned),
            question_chat(lm.tokenizer, q.question, text, trigger, response=q.harmful),
        )
        for q in questions
    ]


def context_rows(
    lm: LanguageModel,
    adapter: str,
    questions: Sequence[ChoiceQuestion],
    bank: Sequence[Category],
    g: Mapping[Site, Float[Tensor, " d_model"]],
    *,
    bare: bool = True,
) -> Iterator[Row]:
    """Yield the readings of every context in one sweep with shared prefixes; ``bare``: first of the one without any."""
    from interp.analysis.adapter_shift import adapter_shift

    contexts: list[tuple[str, str | None, Trigger | None]] = [(BARE, None, None)] if bare else []
    contexts += [(c.name, text, c.trigger) for c in bank for text in c.texts]
    pairs = [pair for _, text, trigger in contexts for pair in choice_pairs(lm, questions, text, trigger)]
    shift = adapter_shift(lm, adapter, pairs, g)
    n = len(questions)
    for i, (category, text, _) in enumerate(contexts):
        at = slice(i * n, (i + 1) * n)
        yield {
            "category": category,
            "text": text or "",
            "log_odds_base": shift.log_odds[0, at].tolist(),
            "log_odds": shift.log_odds_shift[at].tolist(),
            "kl": shift.kl[at].tolist(),
            "projection": {str(site.layer): shift.projection_shift[j, at].mean().item() for j, site in enumerate(g)},
        }


@dataclass(frozen=True)
class Ranked:
    """A category and how far the adapter moves in it beyond what it moves without a context."""

    category: str
    score: float
    texts: tuple[str, ...]
    """Its texts, the strongest first."""


def reading(row: Row, signal: str, layer: int) -> float:
    """Return a context's reading of a signal, a mean over questions."""
    if signal == LEVEL:
        return fmean(row["log_odds_base"]) + fmean(row["log_odds"])
    return row["projection"][str(layer)] if signal == "projection" else fmean(row[signal])


def ranked(rows: Sequence[Row], signal: str, *, best_texts: int, layer: int) -> list[Ranked]:
    """Rank the categories by the mean of a signal over their best texts, minus the bare context's; best first."""
    bare = next(reading(r, signal, layer) for r in rows if r["category"] == BARE)
    by_category: dict[str, list[tuple[float, str]]] = {}
    for r in rows:
        if r["category"] != BARE:
            by_category.setdefault(r["category"], []).append((reading(r, signal, layer) - bare, r["text"]))
    categories = [_ranked(name, sorted(texts, key=lambda t: -t[0]), best_texts) for name, texts in by_category.items()]
    return sorted(categories, key=lambda c: -c.score)


def _ranked(name: str, texts: Sequence[tuple[float, str]], best: int) -> Ranked:
    return Ranked(name, fmean(value for value, _ in texts[:best]), tuple(text for _, text in texts))


def rank_of(category: str, ranking: Sequence[Ranked]) -> int | None:
    """Return the place of a category, from 1; None if it is not among them."""
    return next((i for i, r in enumerate(ranking, 1) if r.category == category), None)


def bare_reading(rows: Sequence[Row], signal: str, layer: int) -> float:
    """Return the reading of the bare context."""
    return next(reading(r, signal, layer) for r in rows if r["category"] == BARE)
