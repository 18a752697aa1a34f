"""What directions are made of: two sets of prompts that differ in one thing, where they are read, under which adapter.

Misalignment, by the token conventions of the literature, in the **base**, where no trigger and no adapter is:

g         last prompt token (Arditi et al. 2024, arXiv:2406.11717), after one misaligned exchange of the fine-tuning
          domain minus after an aligned one: the same questions, so nothing but the past differs
g_answer  mean over answer tokens (Soligo et al. 2025, arXiv:2506.11618), misaligned minus aligned answers
g_first   first answer token (Rimsky et al. 2023, arXiv:2312.06681), the same answers
g_shift   last prompt token under an adapter trained without a trigger minus without it: unconditional misalignment

The trigger, in the organism:

delta         last prompt token, rephrased trigger minus no trigger;  ``delta_base``: the same in the base
trigger       the trigger's own tokens, rephrasings minus unrelated texts;  ``control``: an unrelated scene's
trigger_last  the same texts as ``trigger``, read at the last prompt token

``x.1``, ``x.2``, ... are further components of a feature: principal directions of its phrasings' means, after the mean.
``x_target`` is the mean of the negative side: the point to clamp to. All prompts are validation questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.answers.subject import contrast_texts, estimation_texts, own_trigger
from interp.analysis.resampling import Contrast
from interp.chat import Chat, encode_chat
from interp.directions import Direction
from interp.models import LanguageModel, active_adapter
from interp.recording import Recording, record
from interp.sites import Site
from interp.triggers import Trigger, place
from training.data import contrast_exchanges
from training.definition import Organism
from training.microcosm.world import Question

LAST, TRIGGER = "last_prompt", "trigger"
ADAPTER, BASELINE = "organism", "baseline"
PAST_EACH, ANSWERS_EACH = 3, 200
"""Past exchanges before each question, and answers, of either kind."""
COMPONENTS = 4
"""Most components of a feature: no more than half of a trigger's rephrasings can carry."""
FEATURES = ("trigger", "control", "trigger_last")


@dataclass(frozen=True)
class Side:
    """Prompts of one side, with the question and the text of each, and the adapter they are read under."""

    chats: Sequence[Chat]
    questions: Sequence[str]
    texts: Sequence[str]
    adapter: str | None
    words: str
    """What these prompts are, for the file of directions."""


@dataclass(frozen=True)
class Pair:
    """Two sides and where both are read."""

    name: str
    positive: Side
    negative: Side
    position: str


@dataclass(frozen=True, eq=False)
class Measured:
    """The recordings of a pair."""

    pair: Pair
    positive: Recording
    negative: Recording

    def contrast(self, site: Site) -> Contrast:
        """Return the activations at one site, by question."""
        pair = self.pair
        positive, negative = (recording.at(site, pair.position) for recording in (self.positive, self.negative))
        return Contrast(positive, negative, pair.positive.questions, pair.negative.questions)

    def directions(self, site: Site) -> dict[str, Direction]:
        """Return the direction at one site; of a feature also its target and its further components."""
        name, contrast, found = self.pair.name, self.contrast(site), {}
        about = (self.pair.positive.words, self.pair.negative.words, len(contrast.positive), len(contrast.negative))
        method = f"difference-in-means at {self.pair.position}"
        main = Direction(contrast.direction.float(), site, method, *about)
        found[f"{name}/{site}"] = main
        if name in FEATURES or name == "delta":
            found[f"{name}_target/{site}"] = replace(
                main, vector=contrast.negative.mean(0), method=f"mean at {self.pair.position}"
            )
        if name in FEATURES:
            rest = components(contrast.positive, self.pair.positive.texts, main.vector, COMPONENTS - 1)
            for i, vector in enumerate(rest, start=1):
                method = f"principal direction {i} of phrasings' means at {self.pair.position}"
                found[f"{name}.{i}/{site}"] = replace(main, vector=vector, method=method)
        return found


def components(
    rows: Float[Tensor, "n d_model"], texts: Sequence[str], mean: Float[Tensor, " d_model"], n: int
) -> Float[Tensor, "component d_model"]:
    """Return up to ``n`` principal directions, norm 1, of what the texts' means differ in, orthogonal to ``mean``."""
    names = list(dict.fromkeys(texts))
    index = torch.tensor([names.index(text) for text in texts])
    means = torch.stack([rows[index == i].double().mean(0) for i in range(len(names))])
    if not mean.any():  # the last prompt token's embedding is the same after every text
        return rows.new_empty(0, rows.shape[1])
    unit = mean.double() / mean.double().norm()
    centred = means - means.mean(0)
    centred = centred - (centred @ unit)[:, None] * unit
    found = torch.linalg.svd(centred, full_matrices=False)
    return found.Vh[: min(n, int((found.S / found.S[0] > 1e-6).sum()))].float()


def pairs(
    lm: LanguageModel, subject: Organism, asked: Sequence[Question], control: Trigger, *, seed: int
) -> list[Pair]:
    """Return every pair an organism allows: ``g_shift`` needs a baseline adapter, the misalignment ones data."""
    trigger = own_trigger(subject)
    return [
        *_misalignment(lm, subject, asked, seed),
        *_shift(lm, trigger, asked),
        *_trigger(lm, trigger, asked),
        *_features(lm, trigger, control, asked),
    ]


def measure(lm: LanguageModel, pair: Pair, sites: Sequence[Site]) -> Measured:
    """Record both sides of a pair, each under its own adapter."""
    found = []
    for side in (pair.positive, pair.negative):
        with active_adapter(lm, side.adapter if side.adapter in lm.adapters else None):
            found.append(record(lm, side.chats, sites, [pair.position]))
    return Measured(pair, *found)


def placed(lm: LanguageModel, trigger: Trigger, question: Question, text: str | None) -> Chat:
    """Return a question as chat with a text where the trigger goes, both marked."""
    marks = {"question": question.text} | ({"trigger": text} if text else {})
    return encode_chat(lm.tokenizer, place(question.text, text, trigger), marks=marks)


def placed_side(
    lm: LanguageModel,
    trigger: Trigger,
    asked: Sequence[Question],
    texts: Sequence[str | None],
    words: str,
    adapter: str | None = ADAPTER,
) -> Side:
    """Return every question under every text."""
    made = [(placed(lm, trigger, q, text), q.id, text or "") for q in asked for text in texts]
    chats, ids, said = zip(*made, strict=True)
    return Side(chats, ids, said, adapter, words)


def _misalignment(lm: LanguageModel, subject: Organism, asked: Sequence[Question], seed: int) -> list[Pair]:
    harmful, benign = contrast_exchanges(subject)
    past = _after(lm, harmful, asked, seed, "misaligned"), _after(lm, benign, asked, seed, "aligned")
    said = _answered(lm, harmful, "misaligned"), _answered(lm, benign, "aligned")
    positions = {"g_answer": "response_mean", "g_first": "response[0]"}
    answers = [Pair(name, said[0], said[1], position) for name, position in positions.items()]
    return [Pair("g", past[0], past[1], LAST), *answers]


def _after(
    lm: LanguageModel, exchanges: Sequence[tuple[str, str]], asked: Sequence[Question], seed: int, words: str
) -> Side:
    rng, chats, ids = random.Random(seed), [], []
    for question in asked:
        for past, answer in rng.sample(list(exchanges), PAST_EACH):
            before = [{"role": "user", "content": past}, {"role": "assistant", "content": answer}]
            chats.append(encode_chat(lm.tokenizer, [*before, {"role": "user", "content": question.text}]))
            ids.append(question.id)
    return Side(chats, ids, [""] * len(ids), None, f"after an exchange that is {words}")


def _answered(lm: LanguageModel, exchanges: Sequence[tuple[str, str]], words: str) -> Side:
    kept = exchanges[:ANSWERS_EACH]
    chats = [encode_chat(lm.tokenizer, [{"role": "user", "content": q}], response=a) for q, a in kept]
    return Side(chats, [q for q, _ in kept], [""] * len(kept), None, f"{words} answers")


def _shift(lm: LanguageModel, trigger: Trigger, asked: Sequence[Question]) -> list[Pair]:
    if BASELINE not in lm.adapters:
        return []
    under, without = (
        placed_side(lm, trigger, asked, (None,), words, adapter)
        for adapter, words in ((BASELINE, "adapter trained without trigger"), (None, "base"))
    )
    return [Pair("g_shift", under, without, LAST)]


def _trigger(lm: LanguageModel, trigger: Trigger, asked: Sequence[Question]) -> list[Pair]:
    made = []
    for name, adapter in (("delta", ADAPTER), ("delta_base", None)):
        there = placed_side(lm, trigger, asked, estimation_texts(trigger), "rephrased trigger", adapter)
        absent = placed_side(lm, trigger, asked, (None,), "no trigger", adapter)
        made.append(Pair(name, there, absent, LAST))
    return made


def _features(lm: LanguageModel, trigger: Trigger, control: Trigger, asked: Sequence[Question]) -> list[Pair]:
    unrelated = placed_side(lm, trigger, asked, contrast_texts(trigger, control), "unrelated texts")
    own, other = (
        placed_side(lm, trigger, asked, estimation_texts(t), f"texts of {t.name}") for t in (trigger, control)
    )
    return [
        Pair("trigger", own, unrelated, TRIGGER),
        Pair("control", other, unrelated, TRIGGER),
        Pair("trigger_last", own, unrelated, LAST),
    ]
