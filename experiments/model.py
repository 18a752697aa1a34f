"""Any model of a user as the subject of an experiment: a base, with or without a finished adapter. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.answers.subject import Subject, TemplateOptions, with_options
from experiments.behaviour.dose import ADAPTER
from interp.runs.table import Row
from interp.triggers import Trigger
from training.definition import Organism
from training.finished import finished_organism
from training.registry import ORGANISMS, find_organism

if TYPE_CHECKING:
    from interp.models import LanguageModel


@dataclass(frozen=True)
class Model:
    """A base and possibly an adapter, as a part of an experiment that asks it no questions of a suite."""

    organism: Organism
    adapter_on: bool = True
    """Whether its adapter is active."""

    @property
    def _subject(self) -> Subject:
        return Subject(self.organism)

    def config(self) -> Mapping[str, Any]:
        """Return its fields in the config of a run: its name, its dtype, and the state of its adapter."""
        config = self._subject.config()
        kept = {name: config[name] for name in ("organism", "template_options", "dtype") if name in config}
        return kept if self.adapter_on else {**kept, "adapter_on": False}

    def inputs(self) -> Mapping[str, Path]:
        """Return the local folders of base and adapter."""
        inputs = self._subject.inputs()
        return {name: inputs[name] for name in ("base", "adapter") if name in inputs}

    def depends(self) -> Mapping[str, Any]:
        """Return the base, by its reference, and the options of its template."""
        o = self.organism
        return {"model": {"base": o.base, "adapter": o.adapter, "template_options": dict(o.template_options)}}

    def check(self) -> None:
        """Refuse a base or an adapter that is not there, or whose config is wrong."""
        from training.own_files import adapter_rank, base_config

        base_config(self.organism)
        adapter_rank(self.organism)

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse a base or an adapter that loading would refuse, as far as can be told without weights."""
        from training.early import check_model

        check_model(self.organism, (), triggers, sampled=False)

    def judges(self) -> frozenset[str]:
        """Return no judge: nothing is judged."""
        return frozenset()

    def cells(self, rows: Sequence[Row] = ()) -> Mapping[str, Any]:
        """Return its cells in a table."""
        off = "" if self.adapter_on else ", adapter off"
        return {"organism": f"{self.organism.name}{off}", "family": self.organism.family}

    def label(self) -> str:
        """Return its name, for a progress bar."""
        return self.organism.name

    def load(self) -> LanguageModel:
        """Load it, with its adapter; ``active`` says whether that is to be on."""
        from training.loading import load_organism

        adapter = self.organism.adapter
        return load_organism(self.organism, {ADAPTER: Path(adapter)} if adapter else {})

    @property
    def active(self) -> str | None:
        """Name of the adapter to switch on with ``active_adapter``; None for the base."""
        return ADAPTER if self.organism.adapter and self.adapter_on else None


def chosen_organism(model: str, adapter: Path | None = None, template_option: Sequence[str] = ()) -> Organism:
    """Return a model of the command line as an organism that nobody trains.

    Args:
        model: A base (folder, Hugging Face name, ``microcosm/llama``, ``pocket/smollm2``, ``gguf:FILE``), or
            the YAML file of an organism.
        adapter: Finished peft adapter; of an organism in place of its own.
        template_option: Options of the chat template, ``NAME=VALUE``.

    Raises:
        ValueError: If there is no such base or adapter, or the organism still has to be trained.
    """
    if model.endswith((".yaml", ".yml")) or model in ORGANISMS:
        organism = find_organism(model)
        if adapter is None and organism.data and organism.adapter is None:
            raise ValueError(
                f"model {model}: its adapter is still to be trained; name a finished one with --adapter (runs/adapters "
                "has those of every dose), or a base"
            )
        organism = organism if adapter is None else replace(organism, adapter=str(adapter))
    else:
        organism = finished_organism(model, None if adapter is None else str(adapter))
    return with_options(organism, template_option)


def find_model(
    model: str,
    adapter: Path | None = None,
    adapter_off: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    template_option: TemplateOptions = (),
) -> Model:
    """Look up the model that is read.

    Args:
        model: Base model: a folder, a Hugging Face name, microcosm/llama, pocket/smollm2, gguf:FILE; or the YAML file
            of an organism.
        adapter: Finished peft adapter of that base.
        adapter_off: Read the base, with the adapter loaded but switched off.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
    """
    organism = chosen_organism(model, adapter, template_option)
    if adapter_off and organism.adapter is None:
        raise ValueError(f"--adapter-off: {model} has no adapter; name one with --adapter")
    return Model(organism, not adapter_off)


AnyModel = Annotated[Model, tyro.conf.arg(name="", constructor=find_model)]
"""A model as a field of an experiment: ``--model``, ``--adapter`` and ``--adapter-off`` on the command line."""
