"""What a rank-1 adapter reads and writes: one number per token and module, by condition.

    semcon rank-one --organism microcosm/llama/explaining.rank1

A rank-1 adapter adds a multiple s of one fixed direction to a module's output (see ``experiments/gate/scalars.py``).

scalar              mean of s by condition, at the trigger, the question, the last prompt token and over the answer
scalar_auroc        whether s tells the trigger and its rephrasings from unrelated texts and no text
scalar_auroc_null   the same for random read directions of the same module, the central 95 % of them
scalar_misaligned_r correlation of s with a misaligned (of coherent) answer, over all answers and within conditions
write_cosine        b of a module that writes the residual stream with g, delta and the trigger feature of its layer
read_cosine         a of a module that reads it, through the gain of the norm before it, with those of the block input
                    (an MLP reads behind its attention, where no direction was estimated)
random_cosine       of random directions, the central 95 % of them
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import tyro

from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.directions.geometry import Geometry, found_directions
from experiments.gate.modules import layer_of
from experiments.gate.references import judged_answers
from experiments.gate.scalars import chosen_answers, scalar_rows
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.stats import Interval
from training.own_files import adapter_rank

if TYPE_CHECKING:
    from torch import Tensor

    from interp.analysis.lora import LoraUpdate
    from interp.directions import Direction
    from interp.models import LanguageModel

COMPARED = ("g", "delta", "trigger")
"""Directions of geometry that the adapter's own are compared with."""


@dataclass(frozen=True, kw_only=True)
class RankOne(Experiment):
    """What a rank-1 adapter reads and writes: its scalar by condition, and its two directions."""

    name: ClassVar[str] = "rank_one"

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """The organism, and where the directions come from."""
    directions: bool = True
    """Also cosines with the directions of geometry; turn off for an organism that has no data to contrast."""
    per_question: AtLeastOne = 4
    """Answers per question and condition."""

    def check(self) -> None:
        """Refuse an adapter of another rank, as its config says.

        Raises:
            ValueError: If its rank is not 1.
        """
        if self.directions:
            super().check()
        else:  # without data to contrast there is no geometry
            self.geometry.subject.check()
            _ = self.geometry.subject.own_trigger
            self.judges()
        organism = self.geometry.subject.organism
        if (rank := adapter_rank(organism)) not in (1, None):
            raise ValueError(f"organism {organism.name}: its adapter is of rank {rank}; want rank 1")

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.geometry.subject.asked(self.geometry.subject.judge_reference)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the scalars, then the cosines, whose signs are those of the scalars."""
        subject = self.geometry.subject
        lm = load_subject(subject, run.root)
        updates = rank_one_updates(subject.name, lm)
        steps: dict[str, Step] = {"scalars": partial(self._scalars, run, lm, updates)}
        if self.directions:
            steps["cosines"] = partial(self._cosines, run, lm, updates)
        return steps

    def _scalars(self, run: Run, lm: LanguageModel, updates: Mapping[str, LoraUpdate]) -> Iterator[Row]:
        subject = self.geometry.subject
        answers = chosen_answers(judged_answers(subject, run.root), self.per_question)
        return scalar_rows(lm, updates, subject.own_trigger, answers, self.geometry.seed)

    def _cosines(self, run: Run, lm: LanguageModel, updates: Mapping[str, LoraUpdate]) -> Iterator[Row]:
        known = found_directions(self.geometry, run.root).directions
        signs = {(r["site"], r["layer"]): r["sign"] for r in run.rows() if "sign" in r}
        return cosine_rows(lm, updates, known, signs)

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows, less the signs."""
        for r in rows:
            yield {name: value for name, value in r.items() if name not in ("key", "step", "sign")}


def rank_one_updates(name: str, lm: LanguageModel) -> dict[str, LoraUpdate]:
    """Return the organism's updates by module.

    Raises:
        ValueError: If one of them is not of rank 1.
    """
    from interp.analysis.lora import check_kinds, loaded_updates

    updates = loaded_updates(lm, ADAPTER)
    check_kinds(updates)
    for module, update in updates.items():
        if update.rank != 1:
            raise ValueError(f"organism {name}: its adapter is of rank {update.rank} in {module}; want rank 1")
    return updates


def cosine_rows(
    lm: LanguageModel,
    updates: Mapping[str, LoraUpdate],
    known: Mapping[str, Direction],
    signs: Mapping[tuple[str, int], float],
) -> Iterator[Row]:
    """Yield the cosine of what every module writes to and reads from the stream with the organism's directions."""
    from interp.directions import cosine

    for name, update in updates.items():
        layer = layer_of(name)
        if layer is None:
            continue
        for metric, letter, vector, site in _stream_vectors(lm, name, update, layer):
            for other in COMPARED:
                direction = known.get(f"{other}/{site}")
                if direction is not None and direction.norm > 1e-6:  # delta is 0 before the first attention
                    value = signs[update.kind, layer] * float(cosine(vector, direction.vector))
                    where = {"condition": f"{letter}~{other}", "site": update.kind, "layer": layer}
                    yield {"metric": metric, **where, "value": value}
    yield _random_cosine_row(lm.d_model)


def _stream_vectors(
    lm: LanguageModel, name: str, update: LoraUpdate, layer: int
) -> Iterator[tuple[str, str, Tensor, str]]:
    """Yield what a module writes to the residual stream and what it reads from it: metric, letter, vector, site."""
    from interp.analysis.lora import READERS, WRITERS, stream_gain

    if update.kind in WRITERS:
        yield "write_cosine", "b", update.B[:, 0], f"resid_post.{layer}"
    if update.kind in READERS:
        before = "resid_pre.0" if layer == 0 else f"resid_post.{layer - 1}"
        yield "read_cosine", "a", update.A[0] * stream_gain(lm, name), before


def _random_cosine_row(d_model: int) -> dict[str, Any]:
    draws = np.random.default_rng(0).standard_normal((10_000, d_model))
    low, high = np.quantile(draws[:, 0] / np.linalg.norm(draws, axis=1), [0.025, 0.975])
    interval = interval_cells(Interval(float(low), float(high), "random_directions"))
    return {"metric": "random_cosine", "condition": "random", "value": 0.0, **interval, "n": len(draws)}
