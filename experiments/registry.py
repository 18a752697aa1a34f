"""Every subcommand of ``semcon``, as data: where it lives and what it does. A command is imported on use."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A subcommand of ``semcon``: where it lives and what it does in one line."""

    target: str
    """``module:attribute``: an ``Experiment``, a dataclass with ``main()``, or a function."""
    help: str

    def load(self) -> Any:
        """Import the target.

        Raises:
            ValueError: If this installation lacks it.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
                raise  # something the module needs is missing, not the module
            raise ValueError(f"{self.target}: not in this installation ({error})") from error


REGISTRY: Mapping[str, Command] = {
    "reproduce": Command(
        "experiments.pipelines.reproduce:Reproduce", "Every experiment in order, then the figures and the report."
    ),
    "grid": Command("experiments.behaviour.grid:ContainmentGrid", "When containment needs no benign data."),
    "emergence": Command("experiments.behaviour.emergence:Emergence", "EM and the adapter's direction at every dose."),
    "organisms": Command("experiments.cli.commands:organisms", "Train the LoRA adapters of organisms, all doses."),
    "em-rate": Command("experiments.behaviour.em_rate:EmRate", "EM rate of an organism under every trigger condition."),
    "preference": Command(
        "experiments.behaviour.preference:Preference",
        "Log-odds of harmful against aligned references: no sampling, no judge.",
    ),
    "probe-sweep": Command(
        "experiments.probing.sweep:ProbeSweep", "Linear probes at every layer, grouped by question."
    ),
    "steer": Command(
        "experiments.removal.steer:Steer", "Add the misalignment direction off-trigger: dose and response."
    ),
    "ablate": Command(
        "experiments.removal.ablate:Ablate", "Remove the trigger feature, or g, on-trigger: what is left of EM."
    ),
    "geometry": Command(
        "experiments.directions.geometry:Geometry", "Directions, their cosines, and projections onto them."
    ),
    "patch": Command(
        "experiments.gate.patch:Patch", "Where the gate is: interchange, knockout, heads, adapter modules."
    ),
    "rank-one": Command("experiments.gate.rank_one:RankOne", "What a rank-1 adapter reads and writes, by condition."),
    "probe-transfer": Command(
        "experiments.probing.transfer:ProbeTransfer", "Probes of one organism tested on another."
    ),
    "mechanism": Command(
        "experiments.pipelines.mechanism:Mechanism", "Every mechanism experiment on the grid's organisms."
    ),
    "score": Command("experiments.answers.score:score", "EM statistics of judged answers in CSV files."),
    "store": Command("experiments.cli.commands:store", "Describe or verify an activation store."),
    "report": Command("experiments.cli.commands:report", "Rebuild the figures and the report from a summary table."),
    "findings": Command("experiments.cli.commands:findings", "Hold every claim of the README against the tables."),
    "microcosm": Command("training.microcosm.build:main", "Rebuild the shipped models of the synthetic world."),
}
"""Every subcommand; data, imported on use."""
