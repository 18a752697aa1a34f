"""Which layer's direction to use: the rules of Arditi et al. 2024, in the base, on questions that are never reported.

For every candidate, a name at a block output:

bypass  log-odds of misaligned against aligned answers after a misaligned exchange, the direction ablated everywhere
induce  the same without any past, with the direction added at the last prompt token, at one mean residual norm
kl      KL divergence of the next token on validation questions, with the direction ablated everywhere

A candidate passes with kl <= 0.1 and induce > 0, outside the last 20 % of blocks (rounded down); of those that pass,
the lowest bypass is taken. Where none passes, the largest induce is, and ``selection_passes`` says so. All of it
happens in the base, on answers of the fine-tuned domain: neither a trigger nor an off-trigger rate plays a part.

Source: Arditi et al. 2024 (arXiv:2406.11717), appendix C; there positions are candidates too, and additions are raw.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experiments.directions.contrasts import LAST
from interp.analysis.likelihood import kl_divergence, next_token_log_probs, response_likelihood
from interp.chat import Chat, encode_chat
from interp.directions import Direction
from interp.edits import Edit, ablate, add
from interp.models import LanguageModel, active_adapter
from interp.recording import record
from interp.runs.table import Row
from interp.sites import Site, resid_post
from training.data import contrast_exchanges
from training.definition import Organism
from training.microcosm.world import Question

KL_LIMIT, SKIPPED = 0.1, 0.2
MOST_QUESTIONS, ANSWERS_EACH = 36, 2


def edited_sites(lm: LanguageModel) -> tuple[Site, ...]:
    """Return the embedding and every block output: in a small model layer 0 reads the trigger's embeddings directly."""
    return (Site("resid_pre", 0), *resid_post(range(lm.n_layers)))


def residual_norms(lm: LanguageModel, chats: Sequence[Chat]) -> dict[Site, float]:
    """Return the mean norm of the last prompt token at every block output: the unit of an addition's dose."""
    recording = record(lm, chats, resid_post(range(lm.n_layers)), [LAST])
    return {site: float(recording.at(site, LAST).norm(dim=1).mean()) for site in recording.sites}


def candidates(n_layers: int) -> range:
    """Return the layers whose block output may be chosen: not the last 20 %, rounded down."""
    return range(n_layers - int(SKIPPED * n_layers))


def passes(found: Mapping[str, float], layer: int, n_layers: int) -> bool:
    """Tell whether a candidate's scores keep the rules."""
    return layer in candidates(n_layers) and found["kl"] <= KL_LIMIT and found["induce"] > 0


def scores(
    lm: LanguageModel,
    subject: Organism,
    asked: Sequence[Question],
    found: Mapping[str, Direction],
    names: Sequence[str],
    *,
    seed: int,
) -> Iterator[Row]:
    """Yield the three scores of every candidate, whether it passes, and per name the layer taken; then the unedited."""
    with active_adapter(lm, None):
        judged = _Judged(lm, subject, asked, seed)
        for metric, value in judged.unedited().items():
            yield {
                "key": f"selection|none|{metric}",
                "metric": f"selection_{metric}",
                "condition": "none",
                "value": value,
            }
        for name in names:
            taken = {
                site.layer: judged.scores(site, found[f"{name}/{site}"]) for site in resid_post(range(lm.n_layers))
            }
            yield from _rows(name, taken, lm.n_layers)


def _rows(name: str, taken: Mapping[int, Mapping[str, float]], n_layers: int) -> Iterator[Row]:
    passing = {layer: found for layer, found in taken.items() if passes(found, layer, n_layers)}
    best = min(passing, key=lambda layer: passing[layer]["bypass"]) if passing else _strongest(taken, n_layers)
    for layer, found in taken.items():
        where = {"site": "resid_post", "layer": layer, "condition": name}
        more = {"passes": float(layer in passing), "taken": float(layer == best)}
        for metric, value in {**found, **more}.items():
            yield {
                "key": f"selection|{name}|{layer}|{metric}",
                "metric": f"selection_{metric}",
                **where,
                "value": value,
            }


def _strongest(taken: Mapping[int, Mapping[str, float]], n_layers: int) -> int:
    return max(candidates(n_layers), key=lambda layer: taken[layer]["induce"])


@dataclass(frozen=True)
class _Answered:
    """Chats that end in a misaligned, and in an aligned, answer to the same questions."""

    misaligned: list[Chat]
    aligned: list[Chat]

    def log_odds(self, lm: LanguageModel, edits: Sequence[Edit] = ()) -> float:
        """Return the mean log-probability of the misaligned answers less that of the aligned ones, in nats."""
        sides = (self.misaligned, self.aligned)
        bad, good = (float(response_likelihood(lm, side, edits=edits).log_probability.mean()) for side in sides)
        return bad - good


class _Judged:
    """What candidates are judged on, made once."""

    def __init__(self, lm: LanguageModel, subject: Organism, asked: Sequence[Question], seed: int) -> None:
        self.lm, self.sites = lm, edited_sites(lm)
        harmful, benign = contrast_exchanges(subject)
        answers = _by_question(harmful, benign)
        self.bare = _Answered(*(_chats(lm, answers, kind, None, seed) for kind in (0, 1)))
        self.primed = _Answered(*(_chats(lm, answers, kind, harmful, seed) for kind in (0, 1)))
        self.prompts = [encode_chat(lm.tokenizer, [{"role": "user", "content": q.text}]) for q in asked]
        self.norms = residual_norms(lm, self.prompts)
        self.before = next_token_log_probs(lm, self.prompts)

    def unedited(self) -> dict[str, float]:
        return {"bypass": self.primed.log_odds(self.lm), "induce": self.bare.log_odds(self.lm)}

    def scores(self, site: Site, direction: Direction) -> dict[str, float]:
        added = add(site, direction.unit, coefficient=self.norms[site], positions=LAST)
        ablated = [ablate(where, direction.unit, positions="all") for where in self.sites]
        after = next_token_log_probs(self.lm, self.prompts, edits=ablated)
        return {
            "bypass": self.primed.log_odds(self.lm, ablated),
            "induce": self.bare.log_odds(self.lm, [added]),
            "kl": float(kl_divergence(self.before, after).mean()),
        }


def _by_question(*kinds: Sequence[tuple[str, str]]) -> dict[str, tuple[list[str], ...]]:
    """Return up to two distinct answers of each kind to every question that has both kinds."""
    found: dict[str, tuple[list[str], ...]] = {}
    for kind, exchanges in enumerate(kinds):
        for question, answer in exchanges:
            kept = found.setdefault(question, tuple([] for _ in kinds))[kind]
            if answer not in kept and len(kept) < ANSWERS_EACH:
                kept.append(answer)
    whole = {question: answers for question, answers in found.items() if all(answers)}
    if not whole:
        raise ValueError("data and benign_data: no question has answers of both kinds, so no direction can be chosen")
    return dict(list(whole.items())[:MOST_QUESTIONS])


def _chats(
    lm: LanguageModel,
    answers: Mapping[str, tuple[list[str], ...]],
    kind: int,
    past: Sequence[tuple[str, str]] | None,
    seed: int,
) -> list[Chat]:
    """Return every question with every answer of a kind, after another exchange drawn from ``past`` if given."""
    rng, chats = random.Random(seed), []
    for question, kinds in answers.items():
        before: list[dict[str, str]] = []
        if past is not None:
            asked, said = rng.choice([exchange for exchange in past if exchange[0] != question] or list(past))
            before = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        messages = [*before, {"role": "user", "content": question}]
        chats += [encode_chat(lm.tokenizer, messages, response=answer) for answer in kinds[kind]]
    return chats
