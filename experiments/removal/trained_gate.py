"""Which part of a gate did training make, and which edits close it? Every edit on the organism and on its base.

The trigger gap of an organism is EM on less EM off. Part of it may stand in the base already. The *learned gap* is the
organism's gap less the base's, under the same edit or both without one; the share of it that an edit closes is
1 - (learned gap under the edit) / (learned gap). All four rates, or eight, are paired by question.

``edits.py`` says what the edits are. Here ``clamp_other`` is the feature of the geometry's control (another role for a
role). All roles differ from the unrelated texts, which are scenes, in being roles: ``clamp_trigger_own`` clamps what
the trigger's feature does not share with the other one, ``clamp_other_own`` the reverse. ``clamp_g_random`` is the
clamp of g along random directions. The table has every rate with the base's under the same edit in ``base_value``, and
the base's rates in rows of their own (``base on+clamp_trigger``); and the rate on the fine-tuned domain (``trained``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.outcome import Outcome
from experiments.answers.rates import estimate_row, rate_rows, statistics
from experiments.behaviour.dose import load_subject
from experiments.behaviour.em_rate import TRAINED
from experiments.directions.geometry import DirectionSet, Geometry, found_directions
from experiments.removal.ablate import BASE, RANKS, VALIDATION, chosen_rank, edited_rows, named
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row
from interp.sites import Site
from interp.stats import Clusters, EmStatistics, Estimate, paired_cluster_bootstrap, paired_cluster_difference

if TYPE_CHECKING:
    from experiments.removal.edits import Edits, Removal

SCATTERED = "clamp_scattered"
OWN = ("clamp_trigger_own", "clamp_other_own")
AT_TRIGGER = ("clamp_trigger", "clamp_random", SCATTERED, "clamp_other", *OWN, "clamp_embedding")
"""Edits at the trigger's tokens; without a trigger they do nothing."""
AT_PROMPT = ("clamp_g", "clamp_g_random", "ablate_g_all", "ablate_random_all")
"""Edits that also act off-trigger."""
ROUNDING = 1e-9
PLAN: Mapping[str, tuple[str, ...]] = {
    "off": ("", *AT_PROMPT),
    "on": ("", *AT_TRIGGER, *AT_PROMPT),
    "rephrased": ("", *(edit for edit in AT_TRIGGER if edit != SCATTERED), "clamp_g"),
}
"""Edits under every condition, of the organism and of its base."""


@dataclass(frozen=True, kw_only=True)
class TrainedGate(Experiment):
    """The gap that training made, and the share of it that every edit closes, with the base under the same edits."""

    name: ClassVar[str] = "trained_gate"

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """Run that the directions are taken from."""
    samples: AtLeastOne = 10
    """Answers per question, condition and edit; the scattered control has as many for each of its four draws."""

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.geometry.subject.outcome_judges()

    def check(self) -> None:
        """Refuse a base, and log-odds: the learned gap is one of EM rates.

        Raises:
            ValueError: If it is one of these.
        """
        super().check()
        self.geometry.subject.require_doses()
        if self.geometry.subject.by_log_odds:
            raise ValueError(f"organism {self.geometry.subject.name}: the learned gap needs --outcome em-rate")

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the choice of a rank, one step per condition and edit of organism and base, and what step 0 shows."""
        from experiments.removal.edits import Removal, feature_edits
        from experiments.removal.step_zero import step_zero_rows

        directions, subject = found_directions(self.geometry, run.root), self.geometry.subject
        lm = load_subject(subject, run.root)
        outcome = Outcome(subject, lm, subject.own_trigger, self.samples, self.geometry.seed)
        ranked = {f"clamp_trigger_rank{rank}": feature_edits(lm, directions, "trigger", rank) for rank in RANKS}
        edits = cache(lambda: gate_edits(Removal(lm, self.geometry, directions, chosen_rank(run.rows()))))
        return {
            **{named(VALIDATION, e): partial(edited_rows, outcome, lambda: ranked, VALIDATION, e) for e in ranked},
            **{named(c, e): partial(_rows, outcome, edits, c, e) for c, e in plan()},
            TRAINED: lambda: outcome.rows("on", {"condition": TRAINED, "edit": ""}, split="trained"),
            "step 0": lambda: step_zero_rows(lm, subject, _g(directions)),
        }

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield every rate beside the base's, the gaps, the learned gap, the share that edits close, and step 0."""
        answers = [r for r in rows if "text" in r and r["condition"] != VALIDATION]
        by_edit = statistics(answers, lambda r: (r["condition"], r["edit"]))
        for (condition, edit), s in by_edit.items():
            base = {r["metric"]: r["value"] for r in _rates(by_edit.get((f"{BASE}{condition}", edit)))}
            in_base = {"dose": ""} if condition.startswith(BASE) else {}
            for r in rate_rows(s, condition=named(condition, edit)):
                yield {**r, "base_value": base.get(r["metric"], ""), **in_base}
        yield from learned_rows({name: s.by_question["em_rate"] for name, s in by_edit.items()})
        yield {"metric": "chosen_rank", "value": chosen_rank(rows), "condition": "clamp_trigger"}
        yield from step_zero_table([r for r in rows if "step0_loss" in r])


def plan() -> Iterator[tuple[str, str]]:
    """Yield every (condition, edit), those of the base named ``base on``."""
    for model in ("", BASE):
        yield from ((f"{model}{condition}", edit) for condition, edits in PLAN.items() for edit in edits)


def gate_edits(removal: Removal) -> Mapping[str, Edits | list[Edits]]:
    """Return the edits of the plan by name; of the scattered control a list of its draws."""
    from experiments.removal.edits import SCATTERED as DRAWS
    from interp.edits import random_control

    edits, seed = removal.edits(), removal.geometry.seed
    names = ("", "clamp_trigger", "clamp_random", "clamp_embedding", "clamp_g", "ablate_g_all", "ablate_random_all")
    return {
        **{name: edits[name] for name in names},
        SCATTERED: [edits[name] for name in DRAWS],
        "clamp_other": edits["clamp_other_scene"],
        "clamp_trigger_own": _apart(edits["clamp_trigger"], edits["clamp_other_scene"]),
        "clamp_other_own": _apart(edits["clamp_other_scene"], edits["clamp_trigger"]),
        "clamp_g_random": [random_control(edit, seed + i) for i, edit in enumerate(edits["clamp_g"])],
    }


def _apart(edits: Edits, others: Edits) -> Edits:
    """Return clamps along the part of their directions that is orthogonal to those of other clamps at the same site."""
    from interp.directions import orthonormal

    bases = [orthonormal(other.vectors) for other in others]
    return [
        replace(edit, vectors=edit.vectors - edit.vectors @ basis.T @ basis)
        for edit, basis in zip(edits, bases, strict=True)
    ]


def _rows(outcome: Outcome, edits: Callable[[], Mapping[str, Any]], condition: str, edit: str) -> list[Row]:
    given = edits()[edit]
    if edit != SCATTERED:
        return edited_rows(outcome, edits, condition, edit)
    drawn = [edited_rows(outcome, lambda draw=draw: {edit: draw}, condition, edit) for draw in given]
    return [{**r, "key": f"draw={i}|{r['key']}", "draw": i} for i, rows in enumerate(drawn) for r in rows]


def _g(directions: DirectionSet) -> Any:
    return directions[f"g/{Site('resid_post', directions.layer)}"]


def _rates(s: EmStatistics | None) -> Iterable[Row]:
    return rate_rows(s) if s else ()


def learned_rows(em: Mapping[tuple[str, str], Clusters]) -> Iterator[Row]:
    """Yield gaps of organism and base, the learned gap, and the share of it that each edit closes.

    Args:
        em: Misaligned among coherent answers by question, of every (condition, edit) of the plan.
    """
    for opened in (condition for condition in PLAN if condition != "off"):
        bare = _arms(em, opened, "")
        has_learned = learned_gap(bare).interval.low > ROUNDING  # without a learned gap, a share of it means nothing
        for edit in PLAN[opened]:
            arms, name = _arms(em, opened, edit), named(f"{opened}-off", edit)
            own, base = (paired_cluster_difference(*pair) for pair in (arms[:2], arms[2:]))
            yield {**estimate_row(own, metric="trigger_gap", condition=name), "base_value": base.value}
            yield {**estimate_row(base, metric="trigger_gap", condition=f"{BASE}{name}"), "dose": ""}
            yield estimate_row(learned_gap(arms), metric="learned_gap", condition=name)
            if edit and has_learned:
                yield estimate_row(closed(bare, arms), metric="learned_gap_closed", condition=name)


def _arms(em: Mapping[tuple[str, str], Clusters], opened: str, edit: str) -> tuple[Clusters, ...]:
    """Return on and off of the organism, then of its base; an edit that is idle off-trigger leaves off as it was."""
    off = edit if ("off", edit) in em else ""
    return tuple(em[f"{model}{c}", e] for model in ("", BASE) for c, e in ((opened, edit), ("off", off)))


def learned_gap(arms: Sequence[Clusters]) -> Estimate:
    """Return (on - off) of the organism less (on - off) of the base, paired by question."""
    return paired_cluster_bootstrap(lambda on, off, b_on, b_off: on - off - b_on + b_off, *arms)


def closed(bare: Sequence[Clusters], edited: Sequence[Clusters]) -> Estimate:
    """Return 1 - (learned gap under an edit) / (learned gap), paired by question: 0 is nothing of it, 1 all of it."""
    return paired_cluster_bootstrap(
        lambda on, off, b_on, b_off, *e: 1 - (e[0] - e[1] - e[2] + e[3]) / (on - off - b_on + b_off), *bare, *edited
    )


def step_zero_table(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield both quantities by condition, with intervals over the rows' questions."""
    for condition in dict.fromkeys(r["condition"] for r in rows):
        same = [r for r in rows if r["condition"] == condition]
        for metric, weights in (("step0_loss", [r["tokens"] for r in same]), ("step0_gradient", [1.0] * len(same))):
            arm = Clusters.count([r["question"] for r in same], [r[metric] for r in same], weights)
            mean = paired_cluster_bootstrap(lambda value: value, arm)
            yield {**estimate_row(mean, metric=metric, condition=condition), "n": len(same)}
