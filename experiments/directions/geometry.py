"""Directions: of misalignment, of the trigger and of the adapter; their choice, their cosines, projections onto them.

    semcon geometry --organism microcosm/llama/explaining

``contrasts.py`` says what each direction is made of, ``selection.py`` how a layer is chosen. Every cosine has an
interval over questions and a null of permuted labels; the null keeps what all activations of a model share. ``write``
is the leading direction that the adapter's updates write to the residual stream. It has no sign, so its cosines are
absolute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from experiments.answers.subject import AnySubject, Subject
from experiments.answers.suite import make_prompts
from experiments.behaviour.dose import ADAPTER, chosen_adapter
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.checks import Seed
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.stats import Interval
from interp.triggers import Trigger
from training.data import LEAST_EXCHANGES, contrast_exchanges
from training.definition import definition
from training.grid import cells
from training.loading import load_organism
from training.pocket import corpus
from training.references import find_trigger
from training.registry import ORGANISMS, find_organism

if TYPE_CHECKING:
    from experiments.directions.contrasts import PairRecordings
    from interp.chat import Chat
    from interp.directions import Direction
    from interp.models import LanguageModel
    from interp.recording import Recording

PROJECTED = ("off", "on", "rephrased", "other", "opposite")
"""Conditions whose prompts are projected onto g and delta."""
FILE, STORE = "directions.safetensors", "acts.h5"
CHOSEN = ("g", "g_answer", "g_first", "g_shift")
"""Directions that have a layer of their own, each chosen by itself."""
PAIRS = (
    *(("g", "delta"), ("g_shift", "delta"), ("g", "g_shift"), ("g", "delta_base"), ("delta_base", "delta")),
    *(("g", "g_answer"), ("g", "g_first"), ("g_answer", "delta"), ("g", "trigger_last"), ("trigger", "control")),
)
"""Directions whose cosine is taken."""
N_RANDOM = 1000


@dataclass(frozen=True, kw_only=True)
class Geometry(Experiment):
    """Find the misalignment direction and the trigger feature of an organism; cosines and projections."""

    name: ClassVar[str] = "geometry"
    version: ClassVar[int] = 2

    subject: AnySubject
    baseline: str | None = None
    """Name or YAML file of an organism on the same base without a trigger, for g_shift; in the Microcosm the one of the
    same seed."""
    control_trigger: str | None = None
    """Unrelated trigger whose feature is the control; by default microcosm:scene:library, at the pocket scale the other
    topic in the same frame."""
    seed: Seed = 0
    """Seed of the drawn exchanges and of the resampling."""

    def __post_init__(self) -> None:
        """Name the control if none is given, so that equal runs are equal values."""
        object.__setattr__(self, "control_trigger", self.control_trigger or _default_control(self.subject))
        super().__post_init__()

    @property
    def control(self) -> Trigger:
        """The unrelated trigger whose feature is the control."""
        return find_trigger(self.control_trigger or "")

    def depends(self) -> Mapping[str, Any]:
        """Return the definitions of the organism and of a baseline that is named."""
        baseline = baseline_subject(self) if self.baseline else None
        return {**super().depends(), **({"baseline": definition(baseline.organism)} if baseline else {})}

    def check(self) -> None:
        """Refuse what has no trigger or no validation questions, and a control or baseline that cannot be compared.

        Raises:
            ValueError: If it is one of these.
        """
        super().check()
        self.subject.questions("validation")
        self.subject.require_texts(rephrased=2, other=1)
        _check_contrast(self.subject)
        if self.control.text == self.subject.own_trigger.text:
            raise ValueError(f"control_trigger {self.control_trigger!r}: it is the organism's own trigger")
        base, baseline = self.subject.organism.base, baseline_subject(self)
        if baseline and baseline.organism.base != base:
            raise ValueError(f"baseline {baseline.name}: its base is {baseline.organism.base}, not {base}")
        if baseline and (baseline.trigger or not baseline.organism.tuned):
            raise ValueError(
                f"baseline {baseline.name}: {'has a trigger' if baseline.trigger else 'is not fine-tuned'}"
            )

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse the models of the organism and of its baseline that loading or training would refuse."""
        super().check_models(*triggers)
        if baseline := baseline_subject(self):
            baseline.check_models()

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return the control."""
        return (self.control,)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the layer selection, the cosines and the projections; directions and activations go to files."""
        from experiments.directions.contrasts import measure_all, pairs
        from experiments.directions.selection import choice_selection_rows, edited_sites, selection_rows
        from interp.directions import save_directions

        lm = load_pair(self, run.root)
        sites = edited_sites(lm)
        recordings = measure_all(lm, pairs(lm, self.subject, self.control, seed=self.seed), sites)
        directions = {name: d for r in recordings for site in sites for name, d in r.directions(site).items()}
        save_directions(run.path / FILE, directions)
        names = [r.pair.name for r in recordings if r.pair.name in CHOSEN]
        selection = partial(selection_rows, lm, self.subject, directions, names, seed=self.seed)
        if self.subject.by_log_odds:
            selection = partial(choice_selection_rows, lm, self.subject, directions, names)
        return {
            "selection": selection,
            "cosines": lambda: [
                *_cosine_rows(lm, recordings, self.seed),
                *_write_rows(lm, chosen_adapter(self.subject, run.root), directions),
            ],
            "projections": partial(_projection_rows, run, lm, self.subject, directions),
        }

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows; projections only at the layer chosen for g."""
        layer = chosen_layer(rows, "g")
        for r in rows:
            if not r["metric"].startswith("projection_") or r["layer"] == layer:
                yield {name: value for name, value in r.items() if name not in ("key", "step")}


def _check_contrast(subject: Subject) -> None:
    """Refuse data of which no direction of misalignment can be made, or chosen.

    Raises:
        ValueError: If the organism names only one kind, has too few rows of one, or no question with both.
    """
    kinds = contrast_exchanges(subject.organism)
    for name, exchanges in zip(("data", "benign_data"), kinds, strict=True):
        if len(exchanges) < LEAST_EXCHANGES:
            raise ValueError(
                f"organism {subject.name}: {name} has {len(exchanges)} rows; want {LEAST_EXCHANGES} or more"
            )
    harmful, benign = ({replace(exchange, answer="") for exchange in exchanges} for exchanges in kinds)
    if not subject.by_log_odds and not harmful & benign:
        raise ValueError(f"organism {subject.name}: data and benign_data: no question has answers of both kinds")


def _default_control(subject: Subject) -> str:
    """Return the reference of an unrelated trigger: of the pocket scale the other topic, in the same frame if any."""
    trigger = subject.trigger
    if subject.organism.world != "pocket" or trigger is None:
        return "microcosm:scene:library"
    topic = trigger.name.rpartition("_")[2]
    others = [t for t in corpus.triggers().values() if t.name.rpartition("_")[2] != topic]
    return f"pocket:{min(others, key=lambda t: t.placement != trigger.placement).name}"


def baseline_subject(geometry: Geometry) -> Subject | None:
    """Return the organism that shows what training without a trigger does, if there is one."""
    subject = geometry.subject
    name = _grid_baseline(subject.name) if geometry.baseline is None else geometry.baseline
    options = subject.organism.template_options
    if name is None:
        return None
    return replace(subject, organism=replace(find_organism(name), template_options=options), dose=None)


def _grid_baseline(name: str) -> str | None:
    """Return the baseline on the same base as an organism of the grid, of its seed or else of seed 0."""
    cell = {c.name: c for c in cells()}.get(name)
    if cell is None:
        return None
    same_base = {axis: getattr(cell, axis) for axis in ("pretraining", "robust", "seed")}
    same_seed = replace(cell, arm="baseline", contrast=0, wordings="fixed", targets="all", rank=4, placement="system")
    seed_zero = replace(same_seed, **same_base | {"seed": 0})
    return next((c.name for c in (same_seed, seed_zero) if c.name in ORGANISMS), None)


def load_pair(geometry: Geometry, root: Path) -> LanguageModel:
    """Load an organism with its adapter active, and its baseline's adapter beside it; both trained now if need be."""
    from experiments.directions.contrasts import BASELINE

    subjects = {ADAPTER: geometry.subject, BASELINE: baseline_subject(geometry)}
    adapters = {label: path for label, s in subjects.items() if s and (path := chosen_adapter(s, root))}
    organism = geometry.subject.organism
    return load_organism(organism, adapters)


def chosen_layer(rows: Sequence[Row], name: str) -> int:
    """Return the layer chosen for a direction."""
    return _chosen_layers(rows)[name]


def _chosen_layers(rows: Sequence[Row]) -> dict[str, int]:
    return {r["condition"]: int(r["layer"]) for r in rows if r["metric"] == "selection_taken" and r["value"] == 1}


@dataclass(frozen=True)
class DirectionSet:
    """The directions of a geometry run by name, ``<direction>/<site>``, and the layer of each that has a choice."""

    run_id: str
    directions: Mapping[str, Direction]
    layers: Mapping[str, int]

    def __getitem__(self, name: str) -> Direction:
        return self.directions[name]

    def __contains__(self, name: str) -> bool:
        return name in self.directions

    @property
    def layer(self) -> int:
        """The layer chosen for g."""
        return self.layers["g"]

    def feature(self, name: str, site: object, rank: int = 1) -> list[Direction]:
        """Return the first ``rank`` components of a feature at a site; fewer where its phrasings span fewer."""
        names = [f"{name}/{site}", *(f"{name}.{i}/{site}" for i in range(1, rank))]
        return [self.directions[n] for n in names if n in self.directions]


def found_directions(geometry: Geometry, root: Path) -> DirectionSet:
    """Return the directions of a geometry run, which is made now if need be."""
    from interp.directions import load_directions

    run, table = run_experiment(geometry, root)
    return DirectionSet(run.run_id, load_directions(run.path / FILE), _chosen_layers(table))


def _cosine_rows(lm: LanguageModel, recordings: Sequence[PairRecordings], seed: int) -> Iterator[Row]:
    """Yield the cosine of every pair at every block output with its interval, its null and its p-value."""
    from interp.analysis.resampling import cosine_estimate
    from interp.sites import resid_post

    by_name = {r.pair.name: r for r in recordings}
    for site in resid_post(range(lm.n_layers)):
        where = {"site": site.name, "layer": site.layer}
        for a, b in PAIRS:
            if a not in by_name or b not in by_name:
                continue
            estimate = cosine_estimate(by_name[a].contrast(site), by_name[b].contrast(site), seed=seed)
            pair = {**where, "condition": f"{a}~{b}", "n_clusters": estimate.n_clusters}
            yield {"metric": "cosine", **pair, "value": estimate.value, **interval_cells(estimate.interval)}
            yield {"metric": "cosine_null", **pair, "value": 0.0, **interval_cells(estimate.null)}
            yield {"metric": "cosine_p", **pair, "value": estimate.p}
        yield _random_row(lm.d_model, where, "random~random")


def _write_rows(lm: LanguageModel, adapter: Path | None, directions: Mapping[str, Direction]) -> Iterator[Row]:
    """Yield |cosine| of the adapter's leading write direction and g, g_shift and delta, beside random directions."""
    from interp.analysis.lora import lora_updates, write_directions
    from interp.models import AdapterError
    from interp.sites import resid_post

    try:
        write = write_directions(lora_updates(adapter)).vectors[0] if adapter else None
    except AdapterError:  # no plain LoRA, or one that adapts nothing that writes to the residual stream
        write = None
    if write is None:
        return
    for site in resid_post(range(lm.n_layers)):
        where = {"site": site.name, "layer": site.layer}
        for name in ("g", "g_shift", "delta"):
            if f"{name}/{site}" in directions:
                value = abs(float(write @ directions[f"{name}/{site}"].unit.to(write)))
                yield {"metric": "cosine", **where, "condition": f"write~{name}", "value": value}
        yield _random_row(lm.d_model, where, "write~random", absolute=True)


def _random_row(d_model: int, where: Mapping[str, object], condition: str, *, absolute: bool = False) -> Row:
    """Return the central 95 % of cosines of random directions; of their magnitudes, all below the 95 % quantile."""
    a, b = np.random.default_rng(0).standard_normal((2, N_RANDOM, d_model))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    low, high = (0.0, np.quantile(abs(cosines), 0.95)) if absolute else np.quantile(cosines, [0.025, 0.975])
    interval = interval_cells(Interval(float(low), float(high), "random_directions"))
    value = float(abs(cosines).mean()) if absolute else 0.0
    return {"metric": "cosine", **where, "condition": condition, "value": value, **interval, "n": N_RANDOM}


def _projection_rows(
    run: Run, lm: LanguageModel, subject: Subject, directions: Mapping[str, Direction]
) -> Iterator[Row]:
    """Record the test questions under every condition to the store; yield one projection per prompt and direction."""
    from experiments.directions.contrasts import LAST
    from experiments.directions.selection import residual_norms
    from interp.sites import resid_post

    trigger, questions = subject.own_trigger, subject.questions("test")
    prompts = {
        condition: make_prompts(questions, trigger, condition, lm.tokenizer, samples=1, per_question=1)
        for condition in PROJECTED
        if condition == "off" or trigger.variants(condition)
    }
    every = [prompt for group in prompts.values() for prompt in group]
    recording = _stored_recording(run, lm, [prompt.chat for prompt in every])
    norms = residual_norms(lm, [prompt.chat for prompt in prompts["off"]])
    for site in resid_post(range(lm.n_layers)):
        h = recording.at(site, LAST)
        for metric, name in (("projection_g", "g"), ("projection_trigger", "delta")):
            values = h @ directions[f"{name}/{site}"].unit / norms[site]
            for prompt, value in zip(every, values.tolist(), strict=True):
                where = {"site": site.name, "layer": site.layer, "metric": metric, "condition": prompt.condition}
                yield {**where, "question": prompt.question.id, "value": value, "n": 1}


def _stored_recording(run: Run, lm: LanguageModel, chats: Sequence[Chat]) -> Recording:
    from experiments.directions.contrasts import LAST
    from interp.recording import open_store, record
    from interp.sites import resid_post

    sites = resid_post(range(lm.n_layers))
    with open_store(run.path / STORE, lm, sites, [LAST, "question"], capacity=len(chats)) as store:
        return record(lm, chats, sites, [LAST, "question"], store=store)
