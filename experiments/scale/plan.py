"""``semcon plan``: memory, hours, judge calls, cost and disk of an experiment before anything is run or downloaded.

    semcon plan all --scale paper
    semcon plan em-rate --organism mine/organism.yaml --machine a100 --server

Everything follows from the shapes of the models and the assumptions in ``experiments/scale/machines.yaml``; no weights
are read. What does not fit a device is said, with the option that makes it fit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from annotated_types import Gt

from experiments.scale.estimate import (
    GIB,
    Kind,
    Load,
    fitting_batch,
    fitting_devices,
    fitting_pass,
    memory_gib,
    tokens_per_second,
    usable,
)
from experiments.scale.here import HERE, LIKE, this_machine
from experiments.scale.machines import Assumptions, Machine, Scale, assumptions
from experiments.scale.shapes import shape_of
from experiments.scale.stages import BEFORE, STAGES, Stage, work_of
from experiments.scale.work import Work
from interp.runs.checks import AtLeastOne, check_fields, check_known
from interp.runs.files import atomic_write_text, check_out, csv_text
from interp.runs.terminal import aligned_text
from training.definition import Organism
from training.registry import ORGANISMS, find_organism

SAMPLED: tuple[Stage, ...] = ("dose", "em-rate")
"""Stages that read nothing but the prompts of what they sample."""
SERVED: tuple[Stage, ...] = ("em-rate",)
"""Stages whose answers a server can sample: it applies no edits."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Estimate memory, hours, judge calls, cost and disk of an experiment from shapes alone; nothing is run."""

    experiment: Annotated[Literal[Stage, "all"], tyro.conf.Positional]
    """Command to plan, or all."""
    scale: str = "paper"
    """Organisms, texts and machine that are planned: paper or pocket (experiments/scale/machines.yaml)."""
    organism: tuple[str, ...] = ()
    """Organisms in place of the scale's: names in the registry, or YAML files."""
    machine: str | None = None
    """Kind of device (h100, h200, a100, l40s, core), or here: this machine's processor, timed for a few seconds; by
    default the scale's."""
    devices: AtLeastOne = 1
    """Devices that share one model's weights (--device auto, a server's tensor parallelism)."""
    server: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Answers come from a server such as vLLM (`em-rate --server URL`)."""
    batch_tokens: AtLeastOne | None = None
    """The --batch-tokens of the command that is planned."""
    questions: AtLeastOne | None = None
    """Test questions."""
    n_questions: AtLeastOne | None = None
    """The --n-questions of the command that is planned: most questions of every split."""
    price: str | None = None
    """Judge's price of a million tokens in and out, such as 2.5/10."""
    hourly: Annotated[float, Gt(0)] | None = None
    """Price of a device and hour."""
    out: Path | None = None
    """CSV file to write the plan to."""

    def __post_init__(self) -> None:
        """Refuse options that are out of range or name nothing.

        Raises:
            ValueError: If one is.
        """
        check_fields(self)
        check_out(self.out)
        check_known(self.scale, assumptions().scales, f"scale {self.scale!r}: known are")
        machines = (*assumptions().machines, HERE)
        check_known(self.used_machine, machines, f"machine {self.used_machine!r}: known are")
        _price(self.price or assumptions().judge_price)

    @property
    def used_scale(self) -> Scale:
        """The scale."""
        return assumptions().scales[self.scale]

    @property
    def used_machine(self) -> str:
        """Name of the machine."""
        return self.machine or self.used_scale.machine

    @property
    def given(self) -> Assumptions:
        """The assumptions, with what the options replace."""
        given = assumptions().at(self.used_scale)
        asked = {**given.questions, "test": self.questions} if self.questions else dict(given.questions)
        if self.n_questions:
            asked = {split: min(n, self.n_questions) for split, n in asked.items()}
        price = self.price or given.judge_price
        return replace(given, questions=asked, all_questions=given.questions, judge_price=price)

    def device(self, organism: Organism) -> Machine:
        """Return the machine on which an organism runs, at the price that was given."""
        machines = assumptions().machines
        if self.used_machine == HERE:
            machine = this_machine(machines[LIKE], organism.base, organism.sft.dtype)
        else:
            machine = machines[self.used_machine]
        return replace(machine, hourly=self.hourly) if self.hourly else machine

    def groups(self) -> dict[str, list[Organism]]:
        """Return the organisms by model: those that were named, or every arm of the scale's."""
        if self.organism:
            named = [find_organism(name) for name in self.organism]
            return {model: [o for o in named if _model(o) == model] for model in dict.fromkeys(map(_model, named))}
        names = {f: [f"{f}/{arm}" for arm in self.used_scale.arms] for f in self.used_scale.organisms}
        return {family: [ORGANISMS[name] for name in members if name in ORGANISMS] for family, members in names.items()}

    def rows(self, machine: Machine | None = None) -> Iterator[dict[str, Any]]:
        """Yield one row per stage and model, on a machine in place of the one that is named."""
        stages = STAGES if self.experiment == "all" else (self.experiment,)
        for model, organisms in self.groups().items():
            for stage in stages:
                if row := self._row(stage, model, organisms, machine):
                    yield row

    def before(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of what the command makes first where it is not there yet."""
        for stage in () if self.experiment == "all" else BEFORE.get(self.experiment, ()):
            yield from replace(self, experiment=stage).rows()

    def _row(
        self, stage: Stage, model: str, organisms: Sequence[Organism], machine: Machine | None
    ) -> dict[str, Any] | None:
        given, shape = self.given, shape_of(_first_base(organisms))
        works = {o: work_of(stage, o, shape, given, self.used_scale.outcome, self.n_questions) for o in organisms}
        used = [o for o, work in works.items() if work != Work()]
        if not used:
            return None
        work, served = sum((works[o] for o in used), Work()), self.server and stage in SERVED
        machine = machine or self.device(used[-1])
        load = Load(shape=shape, organism=used[-1], machine=machine, texts=given.texts, devices=self.devices)
        load = replace(load, batch_tokens=self.batch_tokens)
        parts = _parts(work, load, served=served)
        kinds: list[Kind] = [kind for kind in parts if kind != "read" or stage not in SAMPLED or "sample" not in parts]
        memory, tokens = max(memory_gib(kind, load) for kind in kinds), work.tokens
        hours = sum(seconds for seconds, _ in parts.values()) / 3600
        if served:
            memory = min(memory, usable(load.machine))
        fits = memory <= usable(load.machine)
        cost_in, cost_out = _price(given.judge_price)
        return {
            "scale": self.scale,
            "stage": stage,
            "model": model,
            "organisms": len(used),
            "machine": self.used_machine,
            "devices": self.devices,
            "memory_gib": round(memory, 1),
            "fits": "yes" if fits else "no",
            "tokens": round(tokens),
            "tokens_per_second": float(f"{tokens / hours / 3600:.3g}"),
            "hours": float(f"{hours:.3g}"),
            "machine_cost": round(hours * self.devices * load.machine.hourly, 2),
            "judge_requests": round(work.judge_requests),
            "judge_cost": round((work.judge_tokens * cost_in + work.judge_requests * cost_out) / 1e6, 2),
            "disk_gib": float(f"{work.disk_bytes / GIB:.3g}"),
            "needs": "" if fits else needs(stage, kinds, load),
        }

    def main(self) -> int:
        """Print the plan, and write it if a file is named."""
        rows = list(self.rows())
        if not rows:
            raise ValueError(f"{self.experiment}: these organisms do nothing of it by {self.used_scale.outcome}")
        print(_table(rows))
        if before := list(self.before()):
            print(f"\nmade first where it is not there yet:\n{_table(before)}")
        print("\n".join(self._notes(rows)), file=sys.stderr)
        if self.out is not None:
            atomic_write_text(self.out, csv_text(rows))
            print(f"wrote {self.out}")
        return 0

    def _notes(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        texts, n = self.given.texts, self.given.questions
        yield (
            f"assumed: {n['test']:g} test questions, prompts of {texts.prompt:g} tokens, answers of "
            f"{texts.sampled_answer:g}, training rows of {texts.row:g}; judge at {self.given.judge_price} per million"
        )
        yield f"assumed rates: {self.used_machine} in experiments/scale/machines.yaml; hours add up over organisms"
        weights = {row["model"]: shape_of(_first_base(self.groups()[row["model"]])) for row in rows}
        for model, shape in weights.items():
            yield f"{model}: {shape.parameters / 1e9:.2f}e9 weights, {2 * shape.parameters / GIB:.1f} GiB in bfloat16"


def _parts(work: Work, load: Load, *, served: bool) -> dict[Kind, tuple[float, Load]]:
    """Return the seconds of training, reading and sampling, and the load under which each runs."""
    by_kind: dict[Kind, float] = {"train": work.trained_tokens, "read": work.read_tokens, "sample": work.sampled_tokens}
    parts: dict[Kind, tuple[float, Load]] = {}
    for kind, tokens in by_kind.items():
        if tokens and not (served and kind == "read"):  # a server reads prompts while it samples
            used = replace(load, scored=work.scored_tokens / tokens) if kind == "read" else load
            parts[kind] = tokens / tokens_per_second(kind, used, server=served), used
    return parts


def needs(stage: Stage, kinds: Collection[Kind], load: Load) -> str:
    """Return the option with which a stage fits, the least change first."""
    options = []
    fitting = {"sample": fitting_batch, "read": fitting_pass}
    if batches := [fitting[kind](load) for kind in kinds if kind != "train"]:
        options += [f"--batch-tokens {min(filter(None, batches))}"] if all(batches) else []
    if load.dtype == "float32" and batches:
        options.append("--dtype bfloat16")
    if not options and (devices := max((fitting_devices(kind, load) or 0 for kind in kinds), default=0)):
        options.append(f"--device auto on {devices} devices")
    if stage in SERVED:
        options.append("--server URL")
    return " or ".join(options) or "a larger machine"


def _price(text: str) -> tuple[float, float]:
    """Return the price of a million tokens in and out.

    Raises:
        ValueError: If it is not two numbers with a slash between them.
    """
    try:
        cost_in, cost_out = map(float, text.split("/"))
    except ValueError:
        raise ValueError(f"price {text!r}: expected that of a million tokens in and out, such as 2.5/10") from None
    if not all(0 <= cost < math.inf for cost in (cost_in, cost_out)):
        raise ValueError(f"price {text!r}: expected numbers of at least 0")
    return cost_in, cost_out


def _model(organism: Organism) -> str:
    return "/".join(organism.name.split("/")[:2])


def _first_base(organisms: Sequence[Organism]) -> str:
    return organisms[0].base


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = (
        "model",
        "stage",
        "memory_gib",
        "fits",
        "tokens",
        "hours",
        "judge_requests",
        "judge_cost",
        "disk_gib",
        "needs",
    )
    lines = [[str(row[name]) for name in shown] for row in rows]
    return aligned_text([list(shown), *lines], 2)
