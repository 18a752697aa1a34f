"""``semcon judge``: what judges make of answers whose kind is known, and what that costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from interp.runs.checks import AtLeastOne, Seed


def judge(
    judges: Annotated[tuple[str, ...], tyro.conf.Positional],
    *,
    labelled: Path | None = None,
    n_questions: AtLeastOne = 24,
    out: Path | None = None,
    protocol: Path | None = None,
    seed: Seed = 0,
) -> None:
    """Test judges on labelled controls: AUROC, bias, accuracy, share scored, agreement with each other.

    Args:
        judges: Judges, such as openai:MODEL@URL,price=2.5/10,budget=1 (docs/real-models.md).
        labelled: CSV of controls (question_id, question, answer, label: sound, harmful or nonsense); by default the
            reference answers of the pocket scale, and the sound ones scrambled.
        n_questions: Questions of the pocket scale to use.
        out: CSV file to write the measures to.
        protocol: YAML file with other judge prompts or thresholds.
        seed: Seed of the resampling of questions.
    """
    from experiments.protocol import protocol_file

    if not judges:
        raise ValueError("name at least one judge, such as openai:MODEL@URL")
    with protocol_file(protocol):
        _judge(judges, labelled, n_questions, out, seed)


def _judge(judges: tuple[str, ...], labelled: Path | None, n: int, out: Path | None, seed: int) -> None:
    from experiments.answers.judge import check_judge, make_judge
    from experiments.answers.language_judge import OpenAICompatibleJudge
    from experiments.answers.verdict import Answer
    from experiments.judging.controls import read_controls, shipped_controls
    from experiments.judging.validation import agreement_rows, judge_rows
    from experiments.protocol import load_protocol
    from interp.runs.files import atomic_write_text, check_out, csv_text
    from interp.runs.terminal import aligned_text

    check_out(out)
    made = {reference: make_judge(reference) for reference in judges}
    if other := next((r for r, judge in made.items() if not isinstance(judge, OpenAICompatibleJudge)), None):
        raise ValueError(f"judge {other!r}: only a language model is held against controls; name openai:MODEL[@URL]")
    controls = shipped_controls(n) if labelled is None else read_controls(labelled)
    for reference in judges:
        check_judge(reference)
    answers = [Answer(c.question_id, c.answer, question=c.question, sample=i) for i, c in enumerate(controls)]
    thresholds, verdicts, rows = load_protocol().thresholds, {}, []
    for reference, judge in made.items():
        assert isinstance(judge, OpenAICompatibleJudge)
        verdicts[judge.name if judge.name not in verdicts else reference] = judge.score(answers)
        print(f"{judge.name}: {judge.store.usage.summary()}", file=sys.stderr)
    for name, given in verdicts.items():
        rows += [{"judge": name, **row} for row in judge_rows(controls, given, thresholds, seed)]
    rows += [{**row, "ci_low": "", "ci_high": ""} for row in agreement_rows(verdicts, thresholds)]
    columns = ("judge", "metric", "value", "ci_low", "ci_high", "n")
    rows = [{name: row[name] for name in columns} for row in rows]
    print(aligned_text([columns, *([_cell(row[name]) for name in columns] for row in rows)], 2))
    if out is not None:
        atomic_write_text(out, csv_text(rows))
        print(f"wrote {out}")


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
