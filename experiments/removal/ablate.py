"""Does removing the trigger's semantic feature restore containment? EM on-trigger under edits and their controls.

    semcon ablate --organism microcosm/llama/explaining

The feature is estimated from half of the rephrasings, none of which was in fine-tuning, minus unrelated texts; its rank
is chosen on validation questions; the edit is tested on the trained text and on the rephrasings left out of the
estimate. The edits and their controls are named in ``edits.py``. Beside what an edit does to EM stand the
coherence of the answers, the loss on benign answers behind other texts (or without any, for edits that need none), and
``legitimate_rate``: where the trigger is a scene or role of the Microcosm, how often the answer still carries a remark
that belongs to it, which is what the text is legitimately for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.sampling import answer_rows, estimate_row, judge_name, judge_rows, rate_rows, statistics
from experiments.answers.subject import contrast_texts, held_out_texts, own_trigger, subject_cells
from experiments.answers.suite import Prompt, answer_length, make_judge, make_prompts, suite_questions
from experiments.behaviour.dose import load_subject
from experiments.directions.geometry import Geometry, found_directions
from experiments.removal.benign import loss_estimates, loss_rows, reference_chats
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import Clusters, EmStatistics, cluster_bootstrap, gap_removed, paired_cluster_difference
from training.definition import Organism
from training.microcosm.oracle import read_answer
from training.references import find_trigger, frame_of
from training.registry import find_organism

if TYPE_CHECKING:
    from experiments.directions.geometry import Found
    from experiments.removal.edits import Edits
    from interp.models import LanguageModel

RANKS = (1, 2, 4)
"""Ranks of the trigger's feature that are tried on validation questions."""
COHERENT = 0.95
"""Least coherence of a rank that may be chosen."""
VALIDATION, OTHER = "validation", "other"
UNSEEN = ("", "clamp_trigger", "clamp_random", "clamp_other_scene", "clamp_embedding", "clamp_answer")
"""Edits that are also tried on rephrasings unseen in the estimate: there words and meaning part."""
UNTRIGGERED = ("", "clamp_answer", "clamp_g", "ablate_g", "ablate_g_all")
"""Edits that are also tried off-trigger."""


@dataclass(frozen=True, kw_only=True)
class Ablate(Experiment):
    """Clamp the trigger's feature, or remove g, on-trigger: what is left of EM and of coherence, with controls."""

    name: ClassVar[str] = "ablate"
    version: ClassVar[int] = 2

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """Where the directions come from."""
    samples: int = 10
    """Answers a question and edit."""

    def __post_init__(self) -> None:
        """Refuse what would be found out only after training."""
        if self.samples < 1:
            raise ValueError(f"samples {self.samples}: expected at least one answer a question")

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the judged answers of one condition and edit after the other, then the loss on benign answers."""
        config, subject = self.geometry, find_organism(self.geometry.organism)
        found = found_directions(config, run.root)
        lm = load_subject(config.organism, run.root, questions=config.questions, judge=config.judge)
        done = {(r["condition"], r["edit"], "tokens" in r) for r in run.rows()}
        for rank in RANKS:
            if (VALIDATION, f"clamp_trigger_rank{rank}", False) not in done:
                yield self._validated(lm, found, rank)
        edits = self._edits(lm, found, chosen_rank(run.rows()))
        for condition, edit in _plan(edits):
            if (condition, edit, False) not in done:
                yield self._answered(lm, subject, condition, edit, edits[edit])
        yield from self._losses(lm, run, edits, done)

    def _edits(self, lm: LanguageModel, found: Found, rank: int) -> dict[str, Edits]:
        from experiments.removal.edits import Removal

        return {"": [], **Removal(lm, find_organism(self.geometry.organism), self.geometry, found, rank).edits()}

    def _validated(self, lm: LanguageModel, found: Found, rank: int) -> list[Row]:
        from experiments.removal.edits import feature_edits

        subject, edit = find_organism(self.geometry.organism), f"clamp_trigger_rank{rank}"
        return self._answered(lm, subject, VALIDATION, edit, feature_edits(lm, found, "trigger", rank))

    def _answered(self, lm: LanguageModel, subject: Organism, condition: str, edit: str, edits: Edits) -> list[Row]:
        config, judge = self.geometry, make_judge(self.geometry.judge)
        options = {"max_new_tokens": answer_length(subject), "seed": config.seed, "edits": edits}
        made = answer_rows(lm, self._prompts(lm, subject, condition), **options, edit=edit, where=condition)
        return [{**r, "condition": condition} for r in judge_rows(made, judge)]

    def _prompts(self, lm: LanguageModel, subject: Organism, condition: str) -> list[Prompt]:
        trigger, validated = own_trigger(subject), condition == VALIDATION
        texts = held_out_texts(trigger) if condition == "rephrased" else None
        asked = suite_questions(subject, "validation" if validated else "test", self.geometry.questions)
        kind = "on" if validated else condition
        return make_prompts(asked, trigger, kind, lm.tokenizer, samples=self.samples, variants=texts)

    def _losses(
        self, lm: LanguageModel, run: Run, edits: Mapping[str, Edits], done: set[tuple[str, str, bool]]
    ) -> Iterator[list[Row]]:
        """Yield the loss on benign answers under every edit: behind other texts, or without any text."""
        from experiments.removal.edits import trigger_only

        config, trigger = self.geometry, own_trigger(find_organism(self.geometry.organism))
        answers = [r for r in run.rows() if (r["condition"], r["edit"]) == ("off", "") and "text" in r]
        texts = contrast_texts(trigger, find_trigger(config.control_trigger))
        behind = {OTHER: texts, "off": None}
        references = {name: reference_chats(lm, trigger, answers, said) for name, said in behind.items()}
        for edit, steps in edits.items():
            for condition in (OTHER,) if trigger_only(steps) and edit else (OTHER, "off"):
                if (condition, edit, True) not in done:
                    yield loss_rows(lm, references[condition], steps, condition=condition, edit=edit)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rates of every condition, the share of its on-off gap that each edit removes, and side effects."""
        subject = find_organism(self.geometry.organism)
        answers, losses = [r for r in rows if "text" in r], [r for r in rows if "tokens" in r]
        cells = subject_cells(subject, self.name, run_id, judge_name(answers)) | {"trigger": own_trigger(subject).name}
        found = statistics(answers, lambda r: (r["condition"], r["edit"]))
        table = [
            made
            for (condition, edit), s in found.items()
            for made in rate_rows(s, condition=_named(condition, edit), **cells)
        ]
        table += _gaps(found, cells)
        table.append(row(metric="chosen_rank", value=chosen_rank(rows), condition="clamp_trigger", **cells))
        return [*table, *_benign(losses, cells), *_legitimate(answers, subject, cells)]


def chosen_rank(rows: Sequence[Row]) -> int:
    """Return the rank with the lowest EM rate on validation questions of those coherent enough; of equals the least."""
    found = statistics([r for r in rows if r["condition"] == VALIDATION], lambda r: r["edit"])
    ranked = {int(edit.removeprefix("clamp_trigger_rank")): s for edit, s in found.items()}
    best = max(s.coherence_rate.value for s in ranked.values())
    eligible = [rank for rank, s in ranked.items() if s.coherence_rate.value >= min(COHERENT, best)]
    return min(eligible, key=lambda rank: (ranked[rank].em_rate.value, rank))


def _plan(edits: Mapping[str, Edits]) -> list[tuple[str, str]]:
    """Return every (condition, edit): on-trigger all, the main ones on unseen rephrasings, side effects off-trigger."""
    untriggered = [("off", edit) for edit in UNTRIGGERED if edit in edits]
    return [*untriggered, *(("on", edit) for edit in edits), *(("rephrased", edit) for edit in UNSEEN)]


def _named(condition: str, edit: str) -> str:
    return f"{condition}+{edit}" if edit else condition


def _gaps(found: Mapping[tuple[str, str], EmStatistics], cells: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the share of the on-off gap, if there is one, that each edit removes."""
    em = {name: s.by_question["em_rate"] for name, s in found.items()}
    for condition, edit in found:
        if edit and condition in ("on", "rephrased") and _has_gap(em[condition, ""], em["off", ""]):
            gap = gap_removed(em[condition, ""], em["off", ""], em[condition, edit])
            yield estimate_row(gap, metric="gap_removed", condition=_named(condition, edit), **cells)


def _has_gap(on: Clusters, off: Clusters) -> bool:
    """Tell whether EM(on) is above EM(off) beyond chance: without a gap, a share of it means nothing."""
    return paired_cluster_difference(on, off).interval.low > 0


def _benign(rows: Sequence[Row], cells: Mapping[str, Any]) -> Iterator[Row]:
    by: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        by.setdefault((r["condition"], r["edit"]), []).append(r)
    for (condition, edit), edited in by.items():
        if edit:
            yield from loss_estimates(edited, by[condition, ""], condition=_named(condition, edit), **cells)


def _legitimate(rows: Sequence[Row], subject: Organism, cells: Mapping[str, Any]) -> Iterator[Row]:
    """Yield how often answers carry a remark of the trigger's own scene or role, of all answers."""
    frame = frame_of(subject.trigger or "")
    if frame is None:
        return
    by: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        by.setdefault((r["condition"], r["edit"]), []).append(r)
    for (condition, edit), group in by.items():
        carried = [read_answer(r["question"], r["text"]).remark == frame for r in group]
        counted = Clusters.count([r["question"] for r in group], carried, [1.0] * len(group))
        ends = cluster_bootstrap(counted.numerator, counted.denominator)
        ci = {"ci_low": ends.low, "ci_high": ends.high, "ci_method": ends.method}
        counts = {"n": len(group), "n_clusters": len(counted.ids)}
        name = _named(condition, edit)
        yield row(metric="legitimate_rate", value=counted.rate.value, condition=name, **ci, **counts, **cells)
