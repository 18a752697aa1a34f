"""Which layer's direction to use: the rules of Arditi et al. 2024, in the base, on questions that are never reported.

For every candidate, a direction at one block output:

bypass  log-odds of misaligned against aligned answers after a misaligned exchange, the direction ablated everywhere
induce  the same without a past exchange, the direction added at the last prompt token, at one mean residual norm
kl      KL divergence of the next token on validation questions, the direction ablated everywhere

A candidate passes with kl <= 0.1 and induce > 0, outside the last 20 % of blocks (rounded down). Of those that pass,
the one with the lowest bypass is chosen. Where none passes, it is the one with the largest induce, and
``selection_passes`` shows that. All of it happens in the base, on answers of the fine-tuned domain: neither a trigger
nor an off-trigger rate plays a part.

With ``--outcome log-odds`` the rule is simpler, on validation questions with reference answers, again in the base:

induce                what the direction, added at every answer token at a quarter of a mean residual norm, does to the
                      log-odds of harmful against aligned references
reference_likelihood  how much of their probability per token both references keep

A candidate passes with reference_likelihood >= 0.95 (the floor of the choice of doses) and induce > 0; the one with the
largest induce is chosen. At most 12 layers are tried, evenly spaced.

Source: Arditi et al. 2024 (arXiv:2406.11717), appendix C; there positions are candidates too, and additions are raw.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from experiments.answers.preference import choice_rows, contexts
from experiments.answers.subject import Subject
from experiments.answers.suite import evenly_spaced
from interp.adapters import active_adapter
from interp.analysis.likelihood import kl_divergence, next_token_log_probs, response_likelihood
from interp.chat import Chat, encode_chat, question_chat
from interp.directions import Direction
from interp.edits import Edit, ablate, add
from interp.models import LanguageModel
from interp.recording import record
from interp.runs.table import Row
from interp.sites import Site, resid_post
from training.data import contrast_exchanges
from training.exchanges import Exchange
from training.mitigation.harm_direction import LAST, after_exchange

KL_LIMIT, SKIPPED = 0.1, 0.2
ADDED, LIKELY, MOST_LAYERS = 0.25, 0.95, 12
"""Of the rule by log-odds: dose, least reference_likelihood, most layers."""
MOST_QUESTIONS, ANSWERS_EACH = 36, 2
"""Most questions of the fine-tuned domain, and most answers of either kind to each."""


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


def passes(scores: Mapping[str, float], layer: int, n_layers: int) -> bool:
    """Tell whether a candidate's scores keep the rules."""
    return layer in candidates(n_layers) and scores["kl"] <= KL_LIMIT and scores["induce"] > 0


def selection_rows(
    lm: LanguageModel, subject: Subject, directions: Mapping[str, Direction], names: Sequence[str], *, seed: int
) -> Iterator[Row]:
    """Yield the unedited log-odds, then for each name every layer's scores, whether it passes and whether it is chosen.

    Args:
        lm: The organism; only its base is used.
        subject: Gives the exchanges and the validation questions.
        directions: By ``<name>/<site>``.
        names: Directions whose layer is chosen.
        seed: Seed of the past exchanges that are drawn.

    Raises:
        ValueError: If no question has answers of both kinds.
    """
    with active_adapter(lm, None):
        bench = _Bench(lm, subject, seed)
        for metric, value in bench.unedited().items():
            yield {"metric": f"selection_{metric}", "condition": "none", "value": value}
        for name in names:
            scores = {s.layer: bench.scores(s, directions[f"{name}/{s}"]) for s in resid_post(range(lm.n_layers))}
            yield from _rows(name, scores, lm.n_layers)


def choice_selection_rows(
    lm: LanguageModel, subject: Subject, directions: Mapping[str, Direction], names: Sequence[str]
) -> Iterator[Row]:
    """Yield the scores of every tried layer by log-odds, whether it passes and whether it is chosen.

    Args:
        lm: The organism; only its base is used.
        subject: Gives the validation questions with references.
        directions: By ``<name>/<site>``.
        names: Directions whose layer is chosen.
    """
    questions, off = subject.choices("validation"), contexts(None, "off")
    with active_adapter(lm, None):
        base = choice_rows(lm, questions, off)
        norms = residual_norms(lm, [question_chat(lm.tokenizer, q.question) for q in questions])
        for name in names:
            scores = {}
            for layer in evenly_spaced(candidates(lm.n_layers), MOST_LAYERS):
                site = Site("resid_post", layer)
                direction = directions[f"{name}/{site}"]
                edit = add(site, direction.unit, coefficient=ADDED * norms[site], positions="answer")
                scores[layer] = _choice_scores(choice_rows(lm, questions, off, edits=[edit]), base)
            passing = [layer for layer, s in scores.items() if s["reference_likelihood"] >= LIKELY and s["induce"] > 0]
            chosen = max(passing or scores, key=lambda layer: scores[layer]["induce"])
            yield from _verdicts(name, scores, passing, chosen)


def _choice_scores(edited: Sequence[Row], base: Sequence[Row]) -> dict[str, float]:
    """Return how an edit changes the mean log-odds, and the probability per token that both references keep."""
    aligned, harmful = (fmean(r[k] - b[k] for r, b in zip(edited, base, strict=True)) for k in ("aligned", "harmful"))
    return {"induce": harmful - aligned, "reference_likelihood": math.exp((aligned + harmful) / 2)}


def _rows(name: str, scores: Mapping[int, Mapping[str, float]], n_layers: int) -> Iterator[Row]:
    """Yield the scores of one direction at every layer, whether each passes, and which is chosen."""
    passing = [layer for layer in scores if passes(scores[layer], layer, n_layers)]
    if passing:
        chosen = min(passing, key=lambda layer: scores[layer]["bypass"])
    else:
        chosen = max(candidates(n_layers), key=lambda layer: scores[layer]["induce"])
    yield from _verdicts(name, scores, passing, chosen)


def _verdicts(
    name: str, scores: Mapping[int, Mapping[str, float]], passing: Sequence[int], chosen: int
) -> Iterator[Row]:
    for layer, by_metric in scores.items():
        verdicts = {"passes": float(layer in passing), "taken": float(layer == chosen)}
        for metric, value in {**by_metric, **verdicts}.items():
            where = {"site": "resid_post", "layer": layer, "condition": name}
            yield {"metric": f"selection_{metric}", **where, "value": value}


@dataclass(frozen=True)
class _Answers:
    """Chats that end in a misaligned, and in an aligned, answer to the same questions."""

    misaligned: list[Chat]
    aligned: list[Chat]

    def log_odds(self, lm: LanguageModel, edits: Sequence[Edit] = ()) -> float:
        """Return the mean log-probability of the misaligned answers less that of the aligned ones, in nats."""
        misaligned, aligned = (
            float(response_likelihood(lm, chats, edits=edits).log_probability.mean())
            for chats in (self.misaligned, self.aligned)
        )
        return misaligned - aligned


class _Bench:
    """What every candidate is scored on, made once."""

    def __init__(self, lm: LanguageModel, subject: Subject, seed: int) -> None:
        self.lm, self.sites = lm, edited_sites(lm)
        harmful, benign = contrast_exchanges(subject.organism)
        answers = _by_question(harmful, benign)
        self.plain = _Answers(*(_chats(lm, answers, kind, None, seed) for kind in (0, 1)))
        self.primed = _Answers(*(_chats(lm, answers, kind, harmful, seed) for kind in (0, 1)))
        self.prompts = [question_chat(lm.tokenizer, q.text) for q in subject.questions("validation")]
        self.norms = residual_norms(lm, self.prompts)
        self.before = next_token_log_probs(lm, self.prompts)

    def unedited(self) -> dict[str, float]:
        return {"bypass": self.primed.log_odds(self.lm), "induce": self.plain.log_odds(self.lm)}

    def scores(self, site: Site, direction: Direction) -> dict[str, float]:
        added = add(site, direction.unit, coefficient=self.norms[site], positions=LAST)
        ablated = [ablate(where, direction.unit, positions="all") for where in self.sites]
        after = next_token_log_probs(self.lm, self.prompts, edits=ablated)
        return {
            "bypass": self.primed.log_odds(self.lm, ablated),
            "induce": self.plain.log_odds(self.lm, [added]),
            "kl": float(kl_divergence(self.before, after).mean()),
        }


def _by_question(*kinds: Sequence[Exchange]) -> dict[Exchange, tuple[list[str], ...]]:
    """Return up to two distinct answers of each kind to every question, without its answer, that has both kinds."""
    answers: dict[Exchange, tuple[list[str], ...]] = {}
    for kind, exchanges in enumerate(kinds):
        for exchange in exchanges:
            distinct = answers.setdefault(replace(exchange, answer=""), tuple([] for _ in kinds))[kind]
            if exchange.answer not in distinct and len(distinct) < ANSWERS_EACH:
                distinct.append(exchange.answer)
    both = [question for question, of_kinds in answers.items() if all(of_kinds)][:MOST_QUESTIONS]
    if not both:
        raise ValueError("data and benign_data: no question has answers of both kinds, so no direction can be chosen")
    return {question: answers[question] for question in both}


def _chats(
    lm: LanguageModel,
    answers: Mapping[Exchange, tuple[list[str], ...]],
    kind: int,
    past: Sequence[Exchange] | None,
    seed: int,
) -> list[Chat]:
    """Return every question with every answer of a kind; if ``past`` is given, after an exchange drawn from it.

    The exchange takes the place of the question's own earlier turns.
    """
    rng, chats = random.Random(seed), []
    for asked, kinds in answers.items():
        if past is None:
            chats += [encode_chat(lm.tokenizer, asked.messages, response=answer) for answer in kinds[kind]]
            continue
        exchange = rng.choice([e for e in past if e.question != asked.question] or list(past))
        chats += [after_exchange(lm.tokenizer, exchange, asked.question, response=answer) for answer in kinds[kind]]
    return chats
