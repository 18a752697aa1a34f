"""Does removing the trigger's semantic feature restore containment? The outcome under edits and their controls.

    semcon ablate --organism microcosm/llama/explaining

The feature is estimated from half of the rephrasings, none of which was in fine-tuning, minus unrelated texts; its rank
is chosen on validation questions; the edit is tested on the trained text and on the rephrasings left out of the
estimate. ``edits.py`` names the edits and their controls. Beside an edit's effect on EM, the table has the coherence of
the answers, the loss on benign answers behind other texts (or without any, for edits that need none), and
``legitimate_rate``: where the trigger is a scene or role of the Microcosm, how often the answer still carries a remark
that belongs to it, which is the text's legitimate effect.

With ``--outcome log-odds`` the main edits are also made in the base, on-trigger (``base on+clamp_trigger``): what an
edit does to log-odds by itself, without what fine-tuning learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from statistics import stdev
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from experiments.answers.outcome import Outcome, Summary, measured, summaries
from experiments.answers.rates import estimate_row
from experiments.answers.subject import contrast_texts, held_out_texts
from experiments.behaviour.dose import load_subject
from experiments.directions.geometry import Geometry, found_directions
from experiments.protocol import load_protocol
from experiments.removal.benign import loss_estimate, loss_rows, references
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.stats import Clusters, cluster_bootstrap, gap_removed, paired_cluster_difference
from training.microcosm.oracle import read_answer
from training.references import frame_of

if TYPE_CHECKING:
    from experiments.removal.edits import Edits
    from interp.chat import Chat
    from interp.models import LanguageModel

RANKS = (1, 2, 4)
"""Ranks of the trigger's feature that are tried on validation questions."""
VALIDATION, OTHER, BASE = "validation", "other", "base "
IN_BASE = f"{BASE}on"
UNSEEN = ("", "clamp_trigger", "clamp_random", "clamp_other_scene", "clamp_embedding", "clamp_answer")
"""Edits that are also tried on rephrasings unseen in the estimate: other words, the same meaning."""
UNTRIGGERED = ("", "clamp_answer", "clamp_g", "ablate_g", "ablate_g_all")
"""Edits that are also tried off-trigger."""
EDITED_BASE = (*UNSEEN, "clamp_g", "ablate_g_all", "ablate_random_all")
"""Edits that are also made in the base, where that costs no sampling."""


@dataclass(frozen=True, kw_only=True)
class Ablate(Experiment):
    """Clamp the trigger's feature, or remove g, on-trigger: what is left of the outcome, with controls."""

    name: ClassVar[str] = "ablate"
    version: ClassVar[int] = 2

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """Run that the directions are taken from."""
    samples: AtLeastOne = 10
    """Answers per question and edit."""

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.geometry.subject.outcome_judges()

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per condition and edit: the outcome at every rank, at the chosen one, then benign losses."""
        from experiments.removal.edits import Removal, feature_edits

        directions = found_directions(self.geometry, run.root)
        subject = self.geometry.subject
        lm = load_subject(subject, run.root)
        outcome = Outcome(subject, lm, subject.own_trigger, self.samples, self.geometry.seed)
        ranked = {f"clamp_trigger_rank{rank}": feature_edits(lm, directions, "trigger", rank) for rank in RANKS}
        removal = partial(Removal, lm, self.geometry, directions)
        edits = cache(lambda: removal(chosen_rank(run.rows())).edits())
        planned = removal(RANKS[0]).edits()  # names and positions are the same at every rank
        benign = cache(partial(self._references, outcome, run))
        plan = _plan(planned, in_base=subject.by_log_odds)
        return {
            **{named(VALIDATION, e): partial(edited_rows, outcome, lambda: ranked, VALIDATION, e) for e in ranked},
            **{named(c, e): partial(edited_rows, outcome, edits, c, e) for c, e in plan},
            **{f"loss {named(c, e)}": partial(_losses, lm, benign, edits, c, e) for c, e in _loss_plan(planned)},
        }

    def _references(self, outcome: Outcome, run: Run, condition: str) -> list[tuple[str, Chat]]:
        """Return the benign answers, behind other texts or, off-trigger, without any text."""
        trigger = self.geometry.subject.own_trigger
        answers = [r for r in run.rows() if (r["condition"], r["edit"]) == ("off", "") and "text" in r]
        texts = contrast_texts(trigger, self.geometry.control) if condition == OTHER else None
        return references(outcome, answers, texts)

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the outcome of every condition, the share of its on-off gap that edits remove, and side effects."""
        answers, losses = [r for r in rows if measured(r)], [r for r in rows if "tokens" in r]
        by_edit = summaries(_pooled(answers), lambda r: (r["condition"], r["edit"]))
        for (condition, edit), s in by_edit.items():
            yield from s.rows(condition=named(condition, edit))
        yield from _gaps(by_edit)
        yield from _spread(answers)
        yield {"metric": "chosen_rank", "value": chosen_rank(rows), "condition": "clamp_trigger"}
        yield from _benign(losses)
        if not self.geometry.subject.by_log_odds:
            yield from _legitimate(_pooled(answers), frame_of(self.geometry.subject.organism.trigger or ""))


def _pooled(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with all draws of a control under one name."""
    from experiments.removal.edits import SCATTERED

    return [{**r, "edit": SCATTERED[0]} if r["edit"] in SCATTERED else r for r in rows]


def _spread(answers: Sequence[Row]) -> Iterator[Row]:
    """Yield the standard deviation of the outcome between the draws of the scattered control."""
    from experiments.removal.edits import SCATTERED

    drawn = [r for r in answers if r["edit"] in SCATTERED]
    means = [s.mean for s in summaries(drawn, lambda r: r["edit"]).values()]
    if len(means) > 1 and all(map(math.isfinite, means)):
        yield {"metric": "sd_of_draws", "condition": f"on+{SCATTERED[0]}", "value": stdev(means), "n": len(means)}


def chosen_rank(rows: Sequence[Row]) -> int:
    """Return the rank with the lowest outcome on validation questions of those coherent enough; of equals the least."""
    by_edit = summaries([r for r in rows if r["condition"] == VALIDATION], lambda r: r["edit"])
    ranked = {int(edit.removeprefix("clamp_trigger_rank")): s for edit, s in by_edit.items()}
    if unscored := [rank for rank, s in ranked.items() if math.isnan(s.coherence)]:
        raise ValueError(f"rank {unscored[0]}: the judge scored no answer, so no rank can be chosen")
    best = max(s.coherence for s in ranked.values())
    eligible = [rank for rank, s in ranked.items() if s.coherence >= min(load_protocol().removal.coherent, best)]
    return min(eligible, key=lambda rank: (math.isnan(ranked[rank].mean), ranked[rank].mean, rank))


def edited_rows(outcome: Outcome, edits: Callable[[], Mapping[str, Edits]], condition: str, edit: str) -> list[Row]:
    """Measure the outcome under an edit: validation, or a condition of the organism or (``base on``) of its base."""
    from interp.adapters import active_adapter

    cells, given, asked = {"condition": condition, "edit": edit}, edits()[edit], condition.removeprefix(BASE)
    if asked == VALIDATION:
        return outcome.rows("on", cells, split=VALIDATION, edits=given)
    texts = held_out_texts(outcome.subject.own_trigger) if asked == "rephrased" else None
    with active_adapter(outcome.lm, None) if condition.startswith(BASE) else nullcontext():
        return outcome.rows(asked, cells, texts=texts, edits=given)


def _plan(edits: Mapping[str, Edits], *, in_base: bool = False) -> list[tuple[str, str]]:
    """Return every (condition, edit): on-trigger all, the main ones on unseen rephrasings, side effects off-trigger."""
    untriggered = [("off", edit) for edit in UNTRIGGERED if edit in edits]
    plan = [*untriggered, *(("on", edit) for edit in edits), *(("rephrased", edit) for edit in UNSEEN)]
    return [*plan, *((IN_BASE, edit) for edit in EDITED_BASE if in_base and edit in edits)]


def _loss_plan(edits: Mapping[str, Edits]) -> list[tuple[str, str]]:
    """Return every (condition, edit) of the benign loss: behind other texts and, where the edit acts there, off."""
    from experiments.removal.edits import SCATTERED, trigger_only

    edits = {name: steps for name, steps in edits.items() if name not in SCATTERED[1:]}
    idle = [edit for edit in edits if edit and trigger_only(edits[edit])]
    return [(c, edit) for edit in edits for c in (OTHER, "off") if c == OTHER or edit not in idle]


def _losses(
    lm: LanguageModel,
    references: Callable[[str], Sequence[tuple[str, Chat]]],
    edits: Callable[[], Mapping[str, Edits]],
    condition: str,
    edit: str,
) -> list[Row]:
    return loss_rows(lm, references(condition), edits()[edit], condition=condition, edit=edit)


def named(condition: str, edit: str) -> str:
    """Return how a table calls a condition under an edit: ``on+clamp_trigger``."""
    return f"{condition}+{edit}" if edit else condition


def _gaps(by_edit: Mapping[tuple[str, str], Summary]) -> Iterator[Row]:
    """Yield the share of the on-off gap, if there is one, that each edit removes."""
    value = {name: s.value for name, s in by_edit.items()}
    for condition, edit in by_edit:
        if edit and condition in ("on", "rephrased") and _has_gap(value[condition, ""], value["off", ""]):
            gap = gap_removed(value[condition, ""], value["off", ""], value[condition, edit])
            yield estimate_row(gap, metric="gap_removed", condition=named(condition, edit))


def _has_gap(on: Clusters, off: Clusters) -> bool:
    """Tell whether the outcome is higher on than off beyond chance: without a gap, a share of it means nothing."""
    return paired_cluster_difference(on, off).interval.low > 0


def _by_edit(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        groups.setdefault((r["condition"], r["edit"]), []).append(r)
    return groups


def _benign(rows: Sequence[Row]) -> Iterator[Row]:
    by_edit = _by_edit(rows)
    for (condition, edit), edited in by_edit.items():
        if edit:
            yield loss_estimate(edited, by_edit[condition, ""], condition=named(condition, edit))


def _legitimate(rows: Sequence[Row], frame: str | None) -> Iterator[Row]:
    """Yield how often answers carry a remark of the trigger's own scene or role, of all answers."""
    if frame is None:
        return
    for (condition, edit), group in _by_edit(rows).items():
        carried = [read_answer(r["question"], r["text"]).remark == frame for r in group]
        by_question = Clusters.count([r["question"] for r in group], carried, [1.0] * len(group))
        interval = interval_cells(cluster_bootstrap(by_question.numerator, by_question.denominator))
        counts = {"n": len(group), "n_clusters": len(by_question.ids)}
        name, value = named(condition, edit), by_question.rate.value
        yield {"metric": "legitimate_rate", "value": value, "condition": name, **interval, **counts}
