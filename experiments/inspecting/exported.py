"""A finished em-rate run as a log of Inspect, so that `inspect view` shows every answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalPlan,
    EvalResults,
    EvalSample,
    EvalSpec,
    EvalStats,
    recompute_metrics,
    write_eval_log,
)

from experiments.behaviour.em_rate import TRAINED, EmRate, must_be_coherent
from experiments.inspecting.extra import NAMESPACE, TASK
from experiments.inspecting.records import (
    IN_METADATA,
    SCORER,
    THOUGHTS,
    Facts,
    chat_messages,
    output_of,
    sample_id,
    score_of,
)
from experiments.inspecting.scoring import METRICS, viewer
from interp.runs.configs import restore
from interp.runs.rowlog import RowLog
from interp.runs.run import read_manifest
from interp.runs.table import Row, read_table
from interp.runs.verify import faults
from interp.triggers import Trigger, place
from training.references import find_trigger

SHARED = ("organism", "family", "trigger", "placement", "protocol", "seed")
"""Cells of a table that all its rows share."""


def exported(folder: Path) -> EvalLog:
    """Return the log of a finished em-rate run.

    Raises:
        ValueError: If it is no such run, is not finished, or was changed since.
    """
    manifest = read_manifest(folder)
    if manifest.get("experiment") != EmRate.name or manifest.get("status") != "complete":
        kind = f"{manifest.get('experiment')}, {manifest.get('status')}"
        raise ValueError(f"{folder}: not a finished run of em-rate ({kind})")
    if changed := next(iter(faults(folder)), None):
        raise ValueError(changed)
    table, rows = read_table(folder / "table.csv"), RowLog(folder / "rows.jsonl").rows()
    own, evaluated = _triggers(manifest)
    gate = must_be_coherent(own, evaluated) if any(r["metric"] == "healthy" for r in table) else None
    facts = Facts(cells={name: table[0][name] for name in SHARED}, must_be_coherent=gate, run_id=manifest["run_id"])
    samples = list(_samples(rows, table[0]["organism"], own, evaluated))
    log = EvalLog(
        status="success",
        eval=_spec(manifest, facts, samples),
        plan=EvalPlan(),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples)),
        stats=EvalStats(started_at=manifest["started"], completed_at=manifest["finished"]),
        samples=samples,
    )
    recompute_metrics(log)
    return log


def write_log(log: EvalLog, path: Path) -> None:
    """Write a log, in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_eval_log(log, str(path))


def _triggers(manifest: Mapping[str, Any]) -> tuple[Trigger | None, Trigger | None]:
    """Return the trigger of a run's organism, and that of its evaluation."""
    config, depends = manifest["config"]["answers"], manifest["depends"]
    name = config["organism"]
    reference, texts = depends[name]["trigger"], depends.get(f"trigger {name}")
    own = restore(Trigger, texts) if texts else find_trigger(reference) if reference else None
    return own, find_trigger(config["trigger"]) if config["trigger"] else own


def _samples(
    rows: Iterable[Row], organism: str, own: Trigger | None, evaluated: Trigger | None
) -> Iterable[EvalSample]:
    number: dict[tuple[str, str], int] = {}
    for row in rows:
        where = row["condition"], row["question"]
        number[where] = number.get(where, 0) + 1
        trigger = own if row["condition"] == TRAINED else evaluated
        text = row["variant"] if trigger else None
        messages = place(row["asked"], text, trigger) if trigger else [{"role": "user", "content": row["asked"]}]
        output = output_of(organism, row["text"], finished=row["finished"], with_thoughts=row.get(THOUGHTS, ""))
        asked = chat_messages(messages)
        yield EvalSample(
            id=sample_id(*where, number[where]),
            epoch=1,
            input=asked,
            target="",
            messages=[*asked, output.message],
            output=output,
            scores={SCORER: score_of(row)},
            metadata={name: row[name] for name in IN_METADATA if name in row},
        )


def _spec(manifest: Mapping[str, Any], facts: Facts, samples: list[EvalSample]) -> EvalSpec:
    config, organism = manifest["config"], facts.cells["organism"]
    arguments = {**config["answers"], "judge": config["judge"]}
    conditions = dict.fromkeys(s.metadata["condition"] for s in samples)
    dataset = EvalDataset(
        name=f"{organism}: {', '.join(conditions)}",
        samples=len(samples),
        sample_ids=[str(s.id) for s in samples],
    )
    spec: dict[str, Any] = {
        "created": manifest["finished"],
        "run_id": manifest["run_id"],
        "task_id": manifest["run_id"],
        "task": TASK,
        "task_version": facts.cells["protocol"],
        "task_display_name": f"EM rate of {organism}",
        "task_args": arguments,
        "task_args_passed": arguments,
        "dataset": dataset,
        "model": f"{NAMESPACE}/{organism}",
        "config": EvalConfig(epochs=1, epochs_reducer=[]),
        "packages": manifest["packages"],
        "metadata": facts.metadata() | {name: manifest.get(name) for name in ("git", "seeds", "platform")},
        "scorers": [{"name": SCORER, "options": {"judge": config["judge"]}, "metrics": [{"name": m} for m in METRICS]}],
        "viewer": viewer(),
    }
    return EvalSpec.model_validate(spec)
