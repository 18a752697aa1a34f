"""The edits that take the trigger's feature, or g, out of the residual stream, each with its controls.

At the trigger's own tokens, in the embedding and after every block:

clamp_trigger      the feature's component set to the mean of unrelated texts
clamp_random       the same operation along random directions of the same norms
clamp_scattered    every token moved as far as the real edit moves it, along random directions: a harsher control, drawn
                   four times (``SCATTERED``), because a direction and its opposite do not do the same
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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.answers.suite import evenly_spaced
from experiments.directions.contrasts import LAST, TRIGGER
from experiments.directions.geometry import DirectionSet, Geometry
from experiments.directions.selection import edited_sites
from interp.chat import question_chat
from interp.edits import Edit, ablate, clamp, random_control
from interp.models import LanguageModel
from interp.recording import record
from interp.sites import Site, resid_post

Edits = list[Edit]
SCATTERED = ("clamp_scattered", "clamp_scattered_2", "clamp_scattered_3", "clamp_scattered_4")
"""The draws of one control; the table has their mean under the first name."""
DRAW_SEEDS = 1000
"""Distance between the seeds of two draws; more than there are sites."""
MOST_SITES = 8
"""Most sites at which the clamp is also tried alone."""


def feature_edits(lm: LanguageModel, directions: DirectionSet, name: str, rank: int, positions: str = TRIGGER) -> Edits:
    """Return the clamp of a feature's first ``rank`` components to its contrast's mean, at every site that has it."""
    sites = edited_sites(lm) if positions == TRIGGER else resid_post(range(lm.n_layers))
    return [
        clamp(
            site,
            torch.stack([d.vector for d in directions.feature(name, site, rank)]),
            directions[f"{name}_target/{site}"].vector,
            positions=positions,
        )
        for site in sites
    ]


def trigger_only(edits: Sequence[Edit]) -> bool:
    """Tell whether every edit acts on the trigger's tokens alone, so that without a text in their place it is idle."""
    return all(edit.positions == TRIGGER for edit in edits)


@dataclass(frozen=True)
class Removal:
    """Makes the edits of one organism; controls take their seeds from the geometry's."""

    lm: LanguageModel
    geometry: Geometry
    directions: DirectionSet
    rank: int
    """Components of the trigger's feature, chosen on validation questions."""

    def edits(self) -> Mapping[str, Edits]:
        """Return every edit by name, no edit at all first."""
        feature = feature_edits(self.lm, self.directions, "trigger", self.rank)
        single = evenly_spaced(feature, MOST_SITES)
        return {
            "": [],
            "clamp_trigger": feature,
            "clamp_random": self._random(feature),
            **{name: self._random(feature, "displacement", draw) for draw, name in enumerate(SCATTERED)},
            "clamp_other_scene": feature_edits(self.lm, self.directions, "control", self.rank),
            "clamp_embedding": self._embedding(),
            **{f"clamp_trigger@{edit.site}": [edit] for edit in single},
            "ablate_trigger": [ablate(edit.site, edit.vectors, positions=TRIGGER) for edit in feature],
            "clamp_everywhere": feature_edits(self.lm, self.directions, "trigger", self.rank, "all"),
            **self._at_answers(),
            **self._of_g(),
        }

    def _random(self, edits: Edits, match: Literal["vectors", "displacement"] = "vectors", draw: int = 0) -> Edits:
        seed = self.geometry.seed + DRAW_SEEDS * draw
        return [random_control(edit, seed + i, match=match) for i, edit in enumerate(edits)]

    def _embedding(self) -> Edits:
        """Return the clamp along the token embeddings of the trained text less the unrelated texts' mean embedding."""
        target = self.directions[f"trigger_target/{edited_sites(self.lm)[0]}"].vector
        tokens = self._text_embeddings()
        # Some families scale embeddings on their way into the stream: compare directions, not lengths.
        rows = tokens / tokens.norm(dim=1).mean() - target / target.norm()
        words = torch.linalg.svd(rows, full_matrices=False).Vh[: self.rank]
        return [
            clamp(site, words, self.directions[f"trigger_target/{site}"].vector, positions=TRIGGER)
            for site in edited_sites(self.lm)
        ]

    def _text_embeddings(self) -> Float[Tensor, "n d_model"]:
        """Return the embeddings of the trained text's tokens, as a prompt has them."""
        subject = self.geometry.subject
        question, trigger = subject.questions("validation")[0], subject.own_trigger
        chat = question_chat(self.lm.tokenizer, question.text, trigger.text, trigger)
        start, end = chat.spans[TRIGGER]
        with torch.inference_mode():
            ids = torch.tensor(chat.token_ids[start:end], device=self.lm.device)
            return self.lm.embedding(ids).float().cpu().clone()

    def _at_answers(self) -> dict[str, Edits]:
        feature = feature_edits(self.lm, self.directions, "trigger_last", 1, "answer")
        return {"clamp_answer": feature, "clamp_answer_random": self._random(feature)}

    def _of_g(self) -> dict[str, Edits]:
        blocks, means = resid_post(range(self.lm.n_layers)), self._aligned_means()
        g = {site: self.directions[f"g/{site}"].vector for site in blocks}
        last = [ablate(site, g[site], positions=LAST) for site in blocks]
        everywhere = {
            f"ablate_{name}_all": [
                ablate(site, self.directions[f"{name}/{site}"].vector, positions="all") for site in blocks
            ]
            for name in ("g", "g_shift")
            if f"{name}/{blocks[0]}" in self.directions
        }
        return {
            "clamp_g": [clamp(site, g[site], means[site], positions=LAST) for site in blocks],
            "ablate_g": last,
            "ablate_random": self._random(last),
            **everywhere,
            "ablate_random_all": self._random(everywhere["ablate_g_all"]),
        }

    def _aligned_means(self) -> dict[Site, Float[Tensor, " d_model"]]:
        """Return the mean of the last prompt token off-trigger, at every block output."""
        blocks, questions = resid_post(range(self.lm.n_layers)), self.geometry.subject.questions("validation")
        chats = [question_chat(self.lm.tokenizer, question.text) for question in questions]
        recording = record(self.lm, chats, blocks, [LAST])
        return {site: recording.at(site, LAST).mean(0) for site in blocks}
