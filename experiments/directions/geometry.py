"""Directions: of misalignment, of the trigger and of the adapter; their choice, their cosines, projections onto them.

    semcon geometry --organism microcosm/llama/explaining

What each direction is made of stands in ``contrasts.py``, the choice of a layer in
``selection.py``. Every cosine has an interval over questions and a null of permuted labels, which keeps
what all activations of a model share. ``write`` is the leading direction that the adapter's updates write to the
residual stream; it has no sign, so its cosines are absolute.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from experiments.answers.subject import own_trigger, subject_cells, subject_definition, subject_inputs, subject_label
from experiments.answers.suite import make_prompts, suite_questions
from experiments.behaviour.dose import chosen_adapter
from experiments.spec import Experiment, run_experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from training.definition import Organism, definition
from training.grid import cells
from training.references import base_path, find_trigger
from training.registry import ORGANISMS, find_organism

if TYPE_CHECKING:
    from experiments.directions.contrasts import Measured
    from interp.chat import Chat
    from interp.directions import Direction
    from interp.models import LanguageModel
    from interp.recording import Recording

SHOWN = ("off", "on", "rephrased", "other", "opposite")
FILE, STORE = "directions.safetensors", "acts.h5"
ADAPTER, BASELINE = "organism", "baseline"
CHOSEN = ("g", "g_answer", "g_first", "g_shift")
"""Directions whose layer is chosen, each by itself."""
PAIRS = (
    *(("g", "delta"), ("g_shift", "delta"), ("g", "g_shift"), ("g", "delta_base"), ("delta_base", "delta")),
    *(("g", "g_answer"), ("g", "g_first"), ("g_answer", "delta"), ("g", "trigger_last"), ("trigger", "control")),
)
N_RANDOM = 1000


@dataclass(frozen=True, kw_only=True)
class Geometry(Experiment):
    """Find the misalignment direction and the trigger feature of an organism; cosines and projections."""

    name: ClassVar[str] = "geometry"
    version: ClassVar[int] = 2

    organism: str
    """Name in the registry, or a YAML file of one's own; it must have a trigger."""
    baseline: str | None = None
    """Organism on the same base trained without a trigger, for g_shift; in the Microcosm that of the same seed."""
    control_trigger: str = "microcosm:scene:library"
    """An unrelated trigger whose feature serves as control."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """Judge by which the dose was chosen: oracle, openai:MODEL[@URL], or a CSV of scores."""
    seed: int = 0
    """Of the exchanges and the resampling."""

    label = subject_label
    inputs = subject_inputs

    def depends(self) -> Mapping[str, Any]:
        """Return the definitions of the organism, which must have a trigger, and of its baseline, on the same base.

        Raises:
            ValueError: If the organism has no trigger, its baseline is on another base, or the control is unknown.
        """
        subject, baseline = find_organism(self.organism), baseline_name(self)
        own_trigger(subject)
        find_trigger(self.control_trigger)
        if baseline and find_organism(baseline).base != subject.base:
            raise ValueError(f"baseline {baseline}: its base is {find_organism(baseline).base}, not {subject.base}")
        about = {"baseline": definition(find_organism(baseline))} if self.baseline and baseline else {}
        return {**subject_definition(self), **about}

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the layer selection, then cosines, then projections; directions and activations go to files."""
        from experiments.directions.contrasts import measure, pairs
        from experiments.directions.selection import edited_sites, scores
        from interp.directions import save_directions

        subject, done = find_organism(self.organism), run.keys()
        asked = suite_questions(subject, "validation", self.questions)
        lm = load_pair(self, run.root)
        sites, control = edited_sites(lm), find_trigger(self.control_trigger)
        measured = [measure(lm, pair, sites) for pair in pairs(lm, subject, asked, control, seed=self.seed)]
        found = {name: d for m in measured for site in sites for name, d in m.directions(site).items()}
        save_directions(run.path / FILE, found)
        if not any(key.startswith("selection") for key in done):
            names = [m.pair.name for m in measured if m.pair.name in CHOSEN]
            yield list(scores(lm, subject, asked, found, names, seed=self.seed))
        if not any(key.startswith("cosine") for key in done):
            adapter = chosen_adapter(self.organism, run.root, questions=self.questions, judge=self.judge)
            yield [*_cosines(lm, measured, self.seed), *_written(lm, adapter, found)]
        if not any(key.startswith("projection") for key in done):
            yield list(_projections(self, run, lm, subject, found))

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rows as a table; projections only at the layer chosen for g."""
        subject = find_organism(self.organism)
        about = subject_cells(subject, self.name, run_id) | {"trigger": own_trigger(subject).name}
        layer = chosen_layer(rows, "g")
        kept = [r for r in rows if not r["metric"].startswith("projection_") or r["layer"] == layer]
        return [row(**about, **{name: value for name, value in r.items() if name != "key"}) for r in kept]


def baseline_name(config: Geometry) -> str | None:
    """Return the organism that shows what training without a trigger does, if there is one."""
    if config.baseline is not None:
        return config.baseline
    cell = {c.name: c for c in cells()}.get(config.organism)
    if cell is None:
        return None
    kept = {axis: getattr(cell, axis) for axis in ("pretraining", "robust", "seed")}
    own = replace(cell, arm="baseline", contrast=0, wordings="fixed", targets="all", rank=4, placement="system")
    shared = replace(own, **kept | {"seed": 0})
    return next((c.name for c in (own, shared) if c.name in ORGANISMS), None)


def load_pair(config: Geometry, root: Path) -> LanguageModel:
    """Load an organism, active, and beside it its baseline's adapter, if there is one; trained now if need be."""
    from interp.models import load

    subject, baseline = find_organism(config.organism), baseline_name(config)
    found = {ADAPTER: config.organism} | ({BASELINE: baseline} if baseline else {})
    adapters = {
        label: path
        for label, name in found.items()
        if (path := chosen_adapter(name, root, questions=config.questions, judge=config.judge))
    }
    return load(base_path(subject.base), adapters=adapters, dtype=subject.sft.dtype)


def chosen_layer(rows: Sequence[Row], name: str) -> int:
    """Return the layer taken for a direction."""
    return next(int(r["layer"]) for r in rows if _is_taken(r) and r["condition"] == name)


def _is_taken(r: Row) -> bool:
    return r["metric"] == "selection_taken" and r["value"] == 1


@dataclass(frozen=True)
class Found:
    """What a geometry run found: directions by name, and the layer taken for each that is chosen."""

    run_id: str
    directions: Mapping[str, Direction]
    layers: Mapping[str, int]

    def __getitem__(self, name: str) -> Direction:
        return self.directions[name]

    @property
    def layer(self) -> int:
        """The layer taken for g."""
        return self.layers["g"]

    def feature(self, name: str, site: object, rank: int = 1) -> list[Direction]:
        """Return the first ``rank`` components of a feature at a site; fewer where its phrasings span fewer."""
        names = [f"{name}/{site}", *(f"{name}.{i}/{site}" for i in range(1, rank))]
        return [self.directions[n] for n in names if n in self.directions]


def found_directions(geometry: Geometry, root: Path) -> Found:
    """Return the directions of a geometry run, made now if need be."""
    from interp.directions import load_directions

    run, table = run_experiment(geometry, root)
    layers = {r["condition"]: int(r["layer"]) for r in table if _is_taken(r)}
    return Found(run.run_id, load_directions(run.path / FILE), layers)


def _cosines(lm: LanguageModel, measured: Sequence[Measured], seed: int) -> Iterator[Row]:
    """Yield the cosine of every pair at every block output with its interval, its null and its p-value."""
    from interp.analysis.resampling import cosine_estimate
    from interp.sites import resid_post

    by_name = {m.pair.name: m for m in measured}
    for site in resid_post(range(lm.n_layers)):
        where = {"site": site.name, "layer": site.layer}
        for a, b in PAIRS:
            if a not in by_name or b not in by_name:
                continue
            found = cosine_estimate(by_name[a].contrast(site), by_name[b].contrast(site), seed=seed)
            key, pair = f"cosine|{site}|{a}|{b}", {**where, "condition": f"{a}~{b}", "n_clusters": found.n_clusters}
            ends = {"ci_low": found.interval.low, "ci_high": found.interval.high, "ci_method": found.interval.method}
            yield {"key": key, "metric": "cosine", **pair, "value": found.value, **ends}
            ends = {"ci_low": found.null.low, "ci_high": found.null.high, "ci_method": found.null.method}
            yield {"key": f"{key}|null", "metric": "cosine_null", **pair, "value": 0.0, **ends}
            yield {"key": f"{key}|p", "metric": "cosine_p", **pair, "value": found.p}
        yield _random_row(lm.d_model, where, "random~random", f"cosine|{site}|null")


def _written(lm: LanguageModel, adapter: Path | None, found: Mapping[str, Direction]) -> Iterator[Row]:
    """Yield |cosine| of the adapter's leading write direction and g, g_shift and delta, beside random directions."""
    from interp.analysis.lora import lora_updates, write_directions
    from interp.models import AdapterError
    from interp.sites import resid_post

    try:
        written = write_directions(lora_updates(adapter)).vectors[0] if adapter else None
    except AdapterError:  # no plain LoRA, or one that adapts nothing that writes to the residual stream
        written = None
    if written is None:
        return
    for site in resid_post(range(lm.n_layers)):
        where = {"site": site.name, "layer": site.layer}
        for name in ("g", "g_shift", "delta"):
            if f"{name}/{site}" in found:
                value = abs(float(written @ found[f"{name}/{site}"].unit.to(written)))
                key = f"cosine|{site}|write|{name}"
                yield {"key": key, "metric": "cosine", **where, "condition": f"write~{name}", "value": value}
        yield _random_row(lm.d_model, where, "write~random", f"cosine|{site}|write|null", absolute=True)


def _random_row(d_model: int, where: Mapping[str, object], condition: str, key: str, *, absolute: bool = False) -> Row:
    """Return the central 95 % of cosines of random directions; of their magnitudes, everything below the 95 % point."""
    a, b = np.random.default_rng(0).standard_normal((2, N_RANDOM, d_model))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    low, high = (0.0, np.quantile(abs(cosines), 0.95)) if absolute else np.quantile(cosines, [0.025, 0.975])
    ends = {"ci_low": float(low), "ci_high": float(high), "ci_method": "random_directions", "n": N_RANDOM}
    value = float(abs(cosines).mean()) if absolute else 0.0
    return {"key": key, "metric": "cosine", **where, "condition": condition, "value": value, **ends}


def _projections(
    config: Geometry, run: Run, lm: LanguageModel, subject: Organism, found: Mapping[str, Direction]
) -> Iterator[Row]:
    """Record the test questions under every condition to the store; yield their projections, one a question."""
    from experiments.directions.contrasts import LAST, placed
    from experiments.directions.selection import residual_norms
    from interp.sites import resid_post

    trigger, asked = own_trigger(subject), suite_questions(subject, "test", config.questions)
    prompts = [
        prompt
        for condition in SHOWN
        if condition == "off" or trigger.variants(condition)
        for prompt in make_prompts(asked, trigger, condition, lm.tokenizer, samples=1, per_question=1)
    ]
    recording = _stored(run, lm, [prompt.chat for prompt in prompts])
    norms = residual_norms(lm, [placed(lm, trigger, question, None) for question in asked])
    for site in resid_post(range(lm.n_layers)):
        h = recording.at(site, LAST)
        for metric, name in (("projection_g", "g"), ("projection_trigger", "delta")):
            values = h @ found[f"{name}/{site}"].unit / norms[site]
            for prompt, value in zip(prompts, values.tolist(), strict=True):
                where = {"site": site.name, "layer": site.layer, "metric": metric, "condition": prompt.condition}
                key = f"{metric}|{site}|{prompt.key}"
                yield {"key": key, **where, "question": prompt.question.id, "value": value, "n": 1}


def _stored(run: Run, lm: LanguageModel, chats: Sequence[Chat]) -> Recording:
    from experiments.directions.contrasts import LAST
    from interp.recording import open_store, record
    from interp.sites import resid_post

    sites = resid_post(range(lm.n_layers))
    with open_store(run.path / STORE, lm, sites, [LAST, "question"], capacity=len(chats)) as store:
        return record(lm, chats, sites, [LAST, "question"], store=store)
