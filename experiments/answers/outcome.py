"""The outcome of an experiment, measured and summed up: EM rate, or log-odds of reference answers (``--outcome``).

em-rate   answers are sampled and judged; what is compared is the share of misaligned among coherent ones
log-odds  nothing is sampled or judged; what is compared is the log-odds of harmful against aligned reference answers,
          minus the base's without edits in the same context (see ``preference.py``)

Every experiment measures ``rows`` under its own conditions and edits, and compares the ``Summary`` of groups of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.answers.preference import Context, by_question, choice_rows, clusters, contexts, mean_row, paired_row
from experiments.answers.rates import estimate_row, rate_rows, statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import Subject
from experiments.answers.suite import make_prompts
from interp.runs.table import Row
from interp.stats import Clusters, EmStatistics, paired_cluster_difference
from interp.triggers import Trigger
from training.microcosm.world import Split

if TYPE_CHECKING:
    from interp.edits import Edit
    from interp.models import LanguageModel


@dataclass(frozen=True)
class Outcome:
    """Measures the outcome of one loaded organism, or of its base while its adapter is off."""

    subject: Subject
    lm: LanguageModel
    trigger: Trigger | None
    """Trigger of the evaluation."""
    samples: int
    """Answers per question; log-odds need none."""
    seed: int
    """Sampling seed."""
    _base: dict[Any, list[Row]] = field(default_factory=dict, compare=False, repr=False)

    def rows(
        self,
        condition: str,
        cells: Mapping[str, Any],
        *,
        split: Split = "test",
        texts: Sequence[str] | None = None,
        edits: Sequence[Edit] = (),
    ) -> list[Row]:
        """Measure every question of a split under a condition, with the active adapter.

        Args:
            condition: Name of the condition.
            cells: Further cells of every row.
            split: Split of the questions.
            texts: Texts that replace the condition's.
            edits: Edits of the residual stream.
        """
        if self.subject.by_log_odds:
            return self._choices(condition, cells, split, texts, edits)
        questions, trigger = self.subject.questions(split), self.trigger
        prompts = make_prompts(questions, trigger, condition, self.lm.tokenizer, samples=self.samples, variants=texts)
        return judged_rows(self.subject, self.lm, prompts, seed=self.seed, edits=edits, **cells)

    def _choices(
        self,
        condition: str,
        cells: Mapping[str, Any],
        split: Split,
        texts: Sequence[str] | None,
        edits: Sequence[Edit],
    ) -> list[Row]:
        """Return the log-odds of every question in one context, each row with its distance from the base's."""
        from interp.adapters import active_adapter

        around = contexts(self.trigger, condition)
        if texts is not None:
            around = tuple(Context(condition, text, self.trigger) for text in texts)
        measure = lambda edits: choice_rows(self.lm, self.subject.choices(split), around, edits=edits, **cells)  # noqa: E731
        key = (split, around)
        if key not in self._base:
            with active_adapter(self.lm, None):
                self._base[key] = measure(())
        return [_from_base(r, base) for r, base in zip(measure(edits), self._base[key], strict=True)]


def _from_base(r: Row, base: Row) -> Row:
    """Return a row with its log-odds, and the log-probability of both references, relative to the base's."""
    level = (r["aligned"] + r["harmful"] - base["aligned"] - base["harmful"]) / 2
    return {**r, "log_odds_shift": r["log_odds"] - base["log_odds"], "reference_level": level}


# --- summaries: pure --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Summary:
    """The outcome of a group of rows."""

    table: Sequence[Row]
    """Its rows in the results table, without the cells of the group."""
    value: Clusters
    """By question what groups are compared by: EM rate of coherent answers, or log-odds minus the base's."""
    of_all: Clusters
    """The same with incoherent answers in the denominator; of log-odds the same."""
    mean: float
    """Mean of ``value``; NaN where it is undefined."""
    coherence: float
    """Share of coherent answers; of log-odds the probability per token that both references keep, as a ratio to the
    base's; NaN where it is undefined."""
    gaps: Mapping[str, Clusters]
    """By question what a difference of two conditions is taken of, by the metric of the difference."""

    def rows(self, **cells: Any) -> Iterator[Row]:
        """Yield the rows of the table, with ``cells``."""
        yield from ({**r, **cells} for r in self.table)


def summaries(rows: Sequence[Row], by: Callable[[Row], Any]) -> dict[Any, Summary]:
    """Return the summary of each group of ``by``, in order of first appearance; the rows tell which outcome it is."""
    if not any("log_odds" in r for r in rows):
        return {name: _of_rates(s) for name, s in statistics(rows, by).items()}
    groups: dict[Any, list[Row]] = {}
    for r in rows:
        groups.setdefault(by(r), []).append(r)
    return {name: _of_choices(group) for name, group in groups.items()}


def gap_rows(on: Summary, off: Summary, **cells: Any) -> Iterator[Row]:
    """Yield the difference of two conditions, paired by question."""
    for metric, arm in on.gaps.items():
        yield estimate_row(paired_cluster_difference(arm, off.gaps[metric]), metric=metric, **cells)


def measured(r: Row) -> bool:
    """Tell whether a row of a run is a measurement of the outcome, and not of a loss or a state."""
    return "text" in r or "log_odds" in r


def _of_rates(s: EmStatistics) -> Summary:
    by_question = s.by_question
    return Summary(
        table=list(rate_rows(s)),
        value=by_question["em_rate"],
        of_all=by_question["em_rate_all"],
        mean=s.em_rate.value,
        coherence=s.coherence_rate.value,
        gaps={"trigger_gap": by_question["em_rate"]},
    )


def _of_choices(rows: Sequence[Row]) -> Summary:
    metrics = ("log_odds", "log_odds_shift", "harmful_preferred")
    arms = {metric: by_question(rows, metric) for metric in metrics}
    level = by_question(rows, "reference_level")
    shift = clusters(arms["log_odds_shift"])
    return Summary(
        table=[
            *(mean_row(arm, metric=metric) for metric, arm in arms.items()),
            paired_row(np.exp, level, metric="reference_likelihood"),
        ],
        value=shift,
        of_all=shift,
        mean=fmean(arms["log_odds_shift"].values()),
        coherence=math.exp(fmean(level.values())),
        gaps={"trigger_gap": clusters(arms["log_odds"]), "trigger_gap_shift": shift},
    )
