"""What directions are made of: two sets of prompts that differ in one thing, where they are read, under which adapter.

Misalignment, by the token conventions of the literature, in the **base**, without trigger and adapter:

g         last prompt token (Arditi et al. 2024, arXiv:2406.11717), after a misaligned exchange of the fine-tuning
          domain minus after an aligned one: the same questions, so only the past exchange differs
g_answer  mean over answer tokens (Soligo et al. 2025, arXiv:2506.11618), misaligned minus aligned answers
g_first   first answer token (Rimsky et al. 2023, arXiv:2312.06681), the same answers
g_shift   last prompt token under an adapter trained without a trigger minus without it: unconditional misalignment

The trigger, in the organism:

delta         last prompt token, rephrased trigger minus no trigger;  ``delta_base``: the same in the base
trigger       the trigger's own tokens, rephrasings minus unrelated texts;  ``control``: an unrelated scene's
trigger_last  the same texts as ``trigger``, read at the last prompt token

``x.1``, ``x.2``, ... are further components of a feature: principal directions of the means of its phrasings, after the
mean over all of them. ``x_target`` is the mean of the negative side: the point to clamp to. All prompts are validation
questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.answers.subject import Subject, contrast_texts, estimation_texts
from experiments.behaviour.dose import ADAPTER
from interp.adapters import active_adapter
from interp.analysis.resampling import Contrast
from interp.chat import Chat, encode_chat, question_chat
from interp.directions import Direction
from interp.models import LanguageModel
from interp.recording import Recording, record
from interp.sites import Site
from interp.triggers import Trigger
from training.data import contrast_exchanges
from training.exchanges import Exchange
from training.microcosm.world import Question
from training.mitigation.harm_direction import LAST, after_exchanges

TRIGGER = "trigger"
BASELINE = "baseline"
"""Label of the adapter that was trained without a trigger."""
MOST_ANSWERS, ANSWERS_EACH = 200, 4
"""Most answers, and, of few questions, most answers per question; of either kind."""
COMPONENTS = 4
"""Most components of a feature: no more than half of a trigger's rephrasings can carry."""
FEATURES = ("trigger", "control", "trigger_last")


@dataclass(frozen=True)
class Side:
    """Prompts of one side, with the question and the text of each, and the adapter under which they are read."""

    chats: Sequence[Chat]
    questions: Sequence[str]
    texts: Sequence[str]
    adapter: str | None
    description: str
    """What these prompts are, for the file of directions."""


@dataclass(frozen=True)
class Pair:
    """Two sides, and the position at which both are read."""

    name: str
    positive: Side
    negative: Side
    position: str


@dataclass(frozen=True, eq=False)
class PairRecordings:
    """The activations of both sides of a pair."""

    pair: Pair
    positive: Recording
    negative: Recording

    def contrast(self, site: Site) -> Contrast:
        """Return the activations at one site, by question."""
        pair = self.pair
        positive, negative = (recording.at(site, pair.position) for recording in (self.positive, self.negative))
        return Contrast(positive, negative, pair.positive.questions, pair.negative.questions)

    def directions(self, site: Site) -> dict[str, Direction]:
        """Return the direction at one site by name; of a feature also its target and its further components."""
        pair, contrast = self.pair, self.contrast(site)
        about = (pair.positive.description, pair.negative.description, len(contrast.positive), len(contrast.negative))
        main = Direction(contrast.direction.float(), site, f"difference-in-means at {pair.position}", *about)
        directions = {pair.name: main}
        if pair.name in (*FEATURES, "delta"):
            target = contrast.negative.mean(0)
            directions[f"{pair.name}_target"] = replace(main, vector=target, method=f"mean at {pair.position}")
        if pair.name in FEATURES:
            further = components(contrast.positive, pair.positive.texts, main.vector, COMPONENTS - 1)
            for i, vector in enumerate(further, start=1):
                method = f"principal direction {i} of phrasings' means at {pair.position}"
                directions[f"{pair.name}.{i}"] = replace(main, vector=vector, method=method)
        return {f"{name}/{site}": direction for name, direction in directions.items()}


def components(
    rows: Float[Tensor, "n d_model"], texts: Sequence[str], mean: Float[Tensor, " d_model"], n: int
) -> Float[Tensor, "component d_model"]:
    """Return up to ``n`` principal directions, norm 1, along which the texts' means differ, orthogonal to ``mean``.

    Args:
        rows: Activations, one per prompt.
        texts: The text in each prompt.
        mean: The feature's first component.
        n: Most directions.
    """
    names = list(dict.fromkeys(texts))
    index = torch.tensor([names.index(text) for text in texts])
    means = torch.stack([rows[index == i].double().mean(0) for i in range(len(names))])
    if not mean.any():  # the last prompt token's embedding is the same after every text
        return rows.new_empty(0, rows.shape[1])
    unit = mean.double() / mean.double().norm()
    centred = means - means.mean(0)
    centred = centred - (centred @ unit)[:, None] * unit
    svd = torch.linalg.svd(centred, full_matrices=False)
    rank = int((svd.S / svd.S[0] > 1e-6).sum())  # what remains beyond it is rounding error
    return svd.Vh[: min(n, rank)].float()


def pairs(lm: LanguageModel, subject: Subject, control: Trigger, *, seed: int) -> list[Pair]:
    """Return every pair that an organism allows; ``g_shift`` needs a baseline adapter.

    Raises:
        ValueError: If the organism has no trigger, or names no data and benign data to contrast.
    """
    trigger, questions = subject.own_trigger, subject.questions("validation")
    return [
        *misalignment_pairs(lm, subject, questions, seed),
        *_shift(lm, trigger, questions),
        *_trigger(lm, trigger, questions),
        *feature_pairs(lm, trigger, control, questions),
    ]


def measure(lm: LanguageModel, pair: Pair, sites: Sequence[Site]) -> PairRecordings:
    """Record both sides of a pair, each under its own adapter."""
    return measure_all(lm, [pair], sites)[0]


def measure_all(lm: LanguageModel, compared: Sequence[Pair], sites: Sequence[Site]) -> list[PairRecordings]:
    """Record every pair as ``measure`` does, a side that several pairs share only once, at all their positions."""
    sides = {id(side): side for pair in compared for side in (pair.positive, pair.negative)}
    positions: dict[int, list[str]] = {key: [] for key in sides}
    for pair in compared:
        for side in (pair.positive, pair.negative):
            if pair.position not in positions[id(side)]:
                positions[id(side)].append(pair.position)
    recordings = {}
    for key, side in sides.items():
        with active_adapter(lm, side.adapter if side.adapter in lm.adapters else None):
            recordings[key] = record(lm, side.chats, sites, positions[key])
    return [PairRecordings(pair, recordings[id(pair.positive)], recordings[id(pair.negative)]) for pair in compared]


def _text_side(
    lm: LanguageModel,
    trigger: Trigger,
    questions: Sequence[Question],
    texts: Sequence[str | None],
    description: str,
    adapter: str | None = ADAPTER,
) -> Side:
    """Return every question with every text where the trigger goes."""
    prompts = [(q, text) for q in questions for text in texts]
    chats = [question_chat(lm.tokenizer, q.text, text, trigger) for q, text in prompts]
    return Side(chats, [q.id for q, _ in prompts], [text or "" for _, text in prompts], adapter, description)


def misalignment_pairs(lm: LanguageModel, subject: Subject, questions: Sequence[Question], seed: int) -> list[Pair]:
    """Return the pairs of the misalignment directions.

    Raises:
        ValueError: If the organism names no data and benign data to contrast.
    """
    harmful, benign = contrast_exchanges(subject.organism)
    after_misaligned = _after_side(lm, harmful, questions, seed, "misaligned")
    after_aligned = _after_side(lm, benign, questions, seed, "aligned")
    most = MOST_ANSWERS if subject.n_questions is None else ANSWERS_EACH * subject.n_questions
    misaligned, aligned = _answer_side(lm, harmful[:most], "misaligned"), _answer_side(lm, benign[:most], "aligned")
    return [
        Pair("g", after_misaligned, after_aligned, LAST),
        Pair("g_answer", misaligned, aligned, "response_mean"),
        Pair("g_first", misaligned, aligned, "response[0]"),
    ]


def _after_side(
    lm: LanguageModel, exchanges: Sequence[Exchange], questions: Sequence[Question], seed: int, kind: str
) -> Side:
    prompts = after_exchanges(lm.tokenizer, exchanges, questions, seed)
    asked = [q.id for q, _ in prompts]
    return Side([chat for _, chat in prompts], asked, [""] * len(asked), None, f"after an exchange that is {kind}")


def _answer_side(lm: LanguageModel, exchanges: Sequence[Exchange], kind: str) -> Side:
    chats = [encode_chat(lm.tokenizer, e.messages, response=e.answer) for e in exchanges]
    return Side(chats, [e.question for e in exchanges], [""] * len(exchanges), None, f"{kind} answers")


def _shift(lm: LanguageModel, trigger: Trigger, questions: Sequence[Question]) -> list[Pair]:
    if BASELINE not in lm.adapters:
        return []
    tuned = _text_side(lm, trigger, questions, (None,), "adapter trained without trigger", BASELINE)
    base = _text_side(lm, trigger, questions, (None,), "base", None)
    return [Pair("g_shift", tuned, base, LAST)]


def _trigger(lm: LanguageModel, trigger: Trigger, questions: Sequence[Question]) -> list[Pair]:
    pairs = []
    for name, adapter in (("delta", ADAPTER), ("delta_base", None)):
        present = _text_side(lm, trigger, questions, estimation_texts(trigger), "rephrased trigger", adapter)
        absent = _text_side(lm, trigger, questions, (None,), "no trigger", adapter)
        pairs.append(Pair(name, present, absent, LAST))
    return pairs


def feature_pairs(lm: LanguageModel, trigger: Trigger, control: Trigger, questions: Sequence[Question]) -> list[Pair]:
    """Return the pairs of the trigger's feature and of an unrelated text's, all against unrelated texts."""
    unrelated = _text_side(lm, trigger, questions, contrast_texts(trigger, control), "unrelated texts")
    feature, other = (
        _text_side(lm, trigger, questions, estimation_texts(t), f"texts of {t.name}") for t in (trigger, control)
    )
    return [
        Pair("trigger", feature, unrelated, TRIGGER),
        Pair("control", other, unrelated, TRIGGER),
        Pair("trigger_last", feature, unrelated, LAST),
    ]
