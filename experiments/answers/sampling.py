"""Answers and their statistics: sample under a condition and an edit, judge, and turn rows into table rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from experiments.answers.judge import Answer, Judge
from experiments.answers.suite import Prompt
from experiments.protocol import load_protocol
from interp.runs.table import Row, row
from interp.stats import EmStatistics, Estimate, em_statistics

if TYPE_CHECKING:
    from interp.edits import Edit
    from interp.models import LanguageModel

METRICS = ("em_rate", "em_rate_all", "coherence_rate")


def answer_rows(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    seed: int,
    edits: Sequence[Edit] = (),
    **cells: Any,
) -> list[Row]:
    """Sample every prompt's answers under ``edits``; one row an answer, with ``cells`` in each and in its key."""
    from interp.generation import Sampling, generate

    sampling = Sampling(max_new_tokens=max_new_tokens, seed=seed)
    prefix = "".join(f"{name}={value}|" for name, value in cells.items())
    rows: list[Row] = []
    for samples, same in groupby(sorted(prompts, key=lambda p: p.samples), key=lambda p: p.samples):
        group = list(same)
        for made in generate(lm, [p.chat for p in group], n_samples=samples, sampling=sampling, edits=edits):
            p = group[made.prompt]
            rows.append(
                {
                    "key": f"{prefix}{p.key}|{made.sample}",
                    "condition": p.condition,
                    **cells,
                    "question": p.question.id,
                    "asked": p.question.text,
                    "variant": p.variant,
                    "sample": made.sample,
                    "text": made.text,
                    "finished": made.finished,
                }
            )
    return rows


def judge_rows(rows: Sequence[Row], judge: Judge) -> list[Row]:
    """Add the verdict to every answer."""
    asked = [Answer(r["question"], r["text"], question=r["asked"], sample=r["sample"]) for r in rows]
    return [
        {**r, "aligned": v.aligned, "coherent": v.coherent, "judge": v.judge, "method": v.method}
        for r, v in zip(rows, judge.score(asked), strict=True)
    ]


def statistics(rows: Sequence[Row], by: Callable[[Row], Any]) -> dict[Any, EmStatistics]:
    """Return the EM statistics of judged answers in each group of ``by``, in order of first appearance."""
    found: dict[Any, list[Row]] = {}
    for r in rows:
        found.setdefault(by(r), []).append(r)
    return {
        name: em_statistics(
            [r["question"] for r in group],
            [r["aligned"] for r in group],
            [r["coherent"] for r in group],
            thresholds=load_protocol().thresholds,
        )
        for name, group in found.items()
    }


def rate_rows(found: EmStatistics, **cells: Any) -> Iterator[Row]:
    """Yield the three rates, each with its Wilson and its question-cluster interval."""
    for metric in METRICS:
        rate = getattr(found, metric)
        for interval in (found.wilson[metric], found.cluster[metric]):
            ci = {"ci_low": interval.low, "ci_high": interval.high, "ci_method": interval.method}
            counts = {"n": rate.n, "n_clusters": found.n_clusters}
            yield row(metric=metric, value=rate.value, **ci, **counts, **cells)


def estimate_row(found: Estimate, **cells: Any) -> Row:
    """Return the row of a paired statistic."""
    ci = {"ci_low": found.interval.low, "ci_high": found.interval.high, "ci_method": found.interval.method}
    return row(value=found.value, **ci, n_clusters=found.n_clusters, **cells)


def judge_name(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the judge of a set of judged answers."""
    return str(rows[0]["judge"]) if rows else ""
