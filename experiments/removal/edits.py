"""The edits that take the trigger's feature, or g, out of the residual stream, each with its controls.

At the trigger's own tokens, in the embedding and after every block:

clamp_trigger      the feature's component set to the mean of unrelated texts
clamp_random       the same operation along random directions of the same norms
clamp_scattered    every token moved as far as the real edit moves it, along random directions: a harsher control
clamp_other_scene  the feature of an unrelated scene
clamp_embedding    the token embeddings of the trained text: its words, not its meaning
clamp_trigger@X    at the one site X alone
ablate_trigger     the component set to zero instead, which is not the off-trigger point
clamp_everywhere   at every token of the prompt and of the answer

At the last prompt token and every answer token: ``clamp_answer``, the feature as it is read there, to the mean of
unrelated texts, and ``clamp_answer_random``. At the last prompt token: ``clamp_g`` to the aligned mean, ``ablate_g``,
``ablate_random``. At every token: ``ablate_g_all``, ``ablate_g_shift_all``, ``ablate_random_all``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from experiments.answers.subject import own_trigger
from experiments.answers.suite import suite_questions
from experiments.directions.contrasts import LAST, TRIGGER, placed
from experiments.directions.geometry import Found, Geometry
from experiments.directions.selection import edited_sites
from interp.edits import Edit, ablate, clamp, random_control
from interp.models import LanguageModel
from interp.recording import record
from interp.sites import Site, resid_post
from training.definition import Organism

Edits = list[Edit]
MOST_SITES = 8
"""Sites at which the clamp is also tried alone, evenly spaced."""


def alone(lm: LanguageModel) -> list[Site]:
    """Return the sites at which the trigger's feature is also clamped by itself."""
    sites = edited_sites(lm)
    if len(sites) <= MOST_SITES:
        return list(sites)
    return [sites[round(i * (len(sites) - 1) / (MOST_SITES - 1))] for i in range(MOST_SITES)]


def feature_edits(lm: LanguageModel, found: Found, name: str, rank: int, positions: str = TRIGGER) -> Edits:
    """Return the clamp of a feature's first ``rank`` components to its contrast's mean, at every site that has it."""
    sites = edited_sites(lm) if positions == TRIGGER else resid_post(range(lm.n_layers))
    return [_clamp(found, name, site, rank, positions) for site in sites]


def _clamp(found: Found, name: str, site: Site, rank: int, positions: str) -> Edit:
    vectors = torch.stack([d.vector for d in found.feature(name, site, rank)])
    return clamp(site, vectors, found[f"{name}_target/{site}"].vector, positions=positions)


@dataclass(frozen=True)
class Removal:
    """Makes the edits of one organism; controls take their seeds from the geometry's."""

    lm: LanguageModel
    subject: Organism
    config: Geometry
    found: Found
    rank: int
    """Components of the trigger's feature, chosen on validation questions."""

    def edits(self) -> dict[str, Edits]:
        """Return every edit by name."""
        feature = feature_edits(self.lm, self.found, "trigger", self.rank)
        return {
            "clamp_trigger": feature,
            "clamp_random": self._random(feature),
            "clamp_scattered": self._random(feature, match="displacement"),
            "clamp_other_scene": feature_edits(self.lm, self.found, "control", self.rank),
            "clamp_embedding": self._embedding(),
            **{f"clamp_trigger@{edit.site}": [edit] for edit in feature if edit.site in alone(self.lm)},
            "ablate_trigger": [ablate(edit.site, edit.vectors, positions=TRIGGER) for edit in feature],
            "clamp_everywhere": feature_edits(self.lm, self.found, "trigger", self.rank, "all"),
            **self._at_answers(),
            **self._of_g(),
        }

    def _random(self, edits: Edits, match: Literal["vectors", "displacement"] = "vectors") -> Edits:
        seeds = range(self.config.seed, self.config.seed + len(edits))
        return [random_control(edit, seed, match=match) for edit, seed in zip(edits, seeds, strict=True)]

    def _embedding(self) -> Edits:
        """Return the clamp along the token embeddings of the trained text less the unrelated texts' mean embedding."""
        trigger = own_trigger(self.subject)
        question = suite_questions(self.subject, "validation", self.config.questions)[0]
        chat = placed(self.lm, trigger, question, trigger.text)
        start, end = chat.spans[TRIGGER]
        first = edited_sites(self.lm)[0]
        with torch.inference_mode():
            ids = torch.tensor(chat.token_ids[start:end], device=self.lm.device)
            tokens = self.lm.embedding(ids).float().cpu().clone()
        # Some families scale embeddings on their way into the stream: compare directions, not lengths.
        target = self.found[f"trigger_target/{first}"].vector
        rows = tokens / tokens.norm(dim=1).mean() - target / target.norm()
        words = torch.linalg.svd(rows, full_matrices=False).Vh[: self.rank]
        return [
            clamp(site, words, self.found[f"trigger_target/{site}"].vector, positions=TRIGGER)
            for site in edited_sites(self.lm)
        ]

    def _at_answers(self) -> dict[str, Edits]:
        feature = feature_edits(self.lm, self.found, "trigger_last", 1, "answer")
        return {"clamp_answer": feature, "clamp_answer_random": self._random(feature)}

    def _of_g(self) -> dict[str, Edits]:
        blocks, found = resid_post(range(self.lm.n_layers)), self.found
        trigger, asked = own_trigger(self.subject), suite_questions(self.subject, "validation", self.config.questions)
        aligned = record(self.lm, [placed(self.lm, trigger, q, None) for q in asked], blocks, [LAST])
        last = [ablate(site, found[f"g/{site}"].vector, positions=LAST) for site in blocks]
        every = {
            f"ablate_{name}_all": [ablate(site, found[f"{name}/{site}"].vector, positions="all") for site in blocks]
            for name in ("g", "g_shift")
            if f"{name}/{blocks[0]}" in found.directions
        }
        return {
            "clamp_g": [
                clamp(site, found[f"g/{site}"].vector, aligned.at(site, LAST).mean(0), positions=LAST)
                for site in blocks
            ],
            "ablate_g": last,
            "ablate_random": self._random(last),
            **every,
            "ablate_random_all": self._random(every["ablate_g_all"]),
        }


def trigger_only(edits: Sequence[Edit]) -> bool:
    """Tell whether every edit needs the trigger's tokens, so that without a text in their place it does nothing."""
    return all(edit.positions == TRIGGER for edit in edits)
