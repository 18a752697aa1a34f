"""Every subcommand of ``semcon``, as data. A command is imported when it is used."""

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Command(NamedTuple):
    """A subcommand of ``semcon``."""

    target: str
    """``module:attribute`` below this package: an ``Experiment``, a dataclass with ``main()``, or a function."""
    help: str
    """One line for ``semcon --help``."""
    instead: Mapping[str, str] = MappingProxyType({})
    """Other targets by the option that asks for them."""

    def load(self, words: Sequence[str] = ()) -> Any:
        """Import the target, or the one that an option among ``words`` asks for.

        Raises:
            ValueError: If this installation lacks it.
        """
        given = {word.partition("=")[0].replace("_", "-") for word in words}
        target = next((other for option, other in self.instead.items() if option in given), self.target)
        path, _, attribute = target.partition(":")
        module = f"{__package__}.{path}"
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ModuleNotFoundError, AttributeError) as error:
            if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
                raise  # something the module needs is missing, not the module
            raise ValueError(f"{target}: not in this installation ({error})") from error


REGISTRY: Mapping[str, Command] = {
    "init": Command("cli.init:init", "Write a complete organism of your own to start from."),
    "reproduce": Command("pipelines.reproduce:Reproduce", "Reproduce the README: train, measure, explain, draw."),
    "grid": Command("behaviour.grid:ContainmentGrid", "EM rates of every organism of the grid and of its base."),
    "dose-grid": Command("behaviour.dose_grid:DoseGrid", "EM of weak roles at ten doses, on several pretrainings."),
    "emergence": Command("behaviour.emergence:Emergence", "EM rate and direction of the adapter at every dose."),
    "organisms": Command("cli.commands:organisms", "Train the LoRA adapters of organisms."),
    "em-rate": Command("behaviour.em_rate:EmRate", "EM rate of an organism under every trigger condition."),
    "preference": Command(
        "behaviour.preference:Preference", "Log-odds of harmful against aligned references: no judge."
    ),
    "pocket": Command(
        "pipelines.pocket:Pocket", "The pocket scale: train, measure and compare every arm of a real model."
    ),
    "promptability": Command(
        "behaviour.promptability:Promptability",
        "How far a base follows a persona line, by dose of a stage that teaches it.",
    ),
    "greedy": Command("behaviour.greedy:Greedy", "Greedy answers without and with the trigger, side by side, as CSV."),
    "probe": Command(
        "probing.label_probe:LabelProbe",
        "Probe a label of your own in any model; --apply reads with a saved probe.",
        {"--apply": "probing.applied_probe:AppliedProbe"},
    ),
    "probe-sweep": Command("probing.sweep:ProbeSweep", "Linear probes at every layer, grouped by question."),
    "steer": Command(
        "removal.steer:Steer",
        "Add directions: an organism's, or with --model any direction to any model.",
        {"--model": "removal.steer_vector:SteerVector"},
    ),
    "ablate": Command(
        "removal.ablate:Ablate", "EM that is left when the trigger's feature or the EM direction is removed."
    ),
    "geometry": Command("directions.geometry:Geometry", "Directions, their cosines, and projections onto them."),
    "trained-gate": Command(
        "pipelines.trained_gates:TrainedGates",
        "The gap that training made: which edits close it, in organism and base.",
    ),
    "mitigation": Command(
        "pipelines.mitigations:Mitigations", "Mitigations: which remove misalignment, and which only hide it."
    ),
    "world-ablation": Command(
        "pipelines.worlds:WorldAblation", "Does the gate come from pretraining? Worlds that lack a part of it."
    ),
    "audit": Command("audit.audit:Audit", "Is misalignment hidden behind a context? Search, verify, show evidence."),
    "audit-benchmark": Command(
        "audit.benchmark:AuditBenchmark", "The audit and today's detectors on a zoo of adapters of known kind."
    ),
    "audit-repair": Command("audit.repair:Repair", "Close the gate that an audit found; do rephrasings still open it?"),
    "audit-repairs": Command(
        "pipelines.audit_repairs:AuditRepairs", "Repair the zoo's contained adapters with what their audits found."
    ),
    "patch": Command("gate.patch:Patch", "Locate the gate: interchange, knockout, heads, adapter modules."),
    "rank-one": Command("gate.rank_one:RankOne", "What a rank-1 adapter reads and writes, by condition."),
    "probe-transfer": Command("probing.transfer:ProbeTransfer", "Probes of one organism tested on another."),
    "mechanism": Command("pipelines.mechanism:Mechanism", "Every mechanism experiment on the organisms of the grid."),
    "demo": Command("demo.command:Demo", "Answers side by side in a browser: base, adapter, edited, token by token."),
    "score": Command("answers.score:score", "EM statistics of judged answers in CSV files."),
    "inspect-log": Command(
        "inspecting.command:inspect_log",
        "Write a finished em-rate run as a log of Inspect; --log reads a log back.",
        {"--log": "inspecting.imported:LoggedAnswers"},
    ),
    "data": Command("cli.data:data", "Check chat rows line by line: counts, hashes, near-duplicates, a sample."),
    "publish": Command(
        "cli.publish:publish", "Write an adapter with its model card to a folder; --push also to the hub."
    ),
    "plan": Command("scale.plan:Plan", "Memory, hours, judge calls, cost and disk, before an experiment runs."),
    "judge": Command("judging.command:judge", "Test judges on labelled controls: AUROC, bias, agreement, cost."),
    "protocol": Command(
        "judging.published:protocol", "Make a protocol from published judge prompts, checked by their hash."
    ),
    "store": Command("cli.commands:store", "Describe or verify an activation store."),
    "verify": Command("cli.commands:verify", "Check the files of runs and adapters against their digests."),
    "report": Command(
        "cli.commands:report", "Draw every figure and a report from all finished runs, or from one table."
    ),
    "figure": Command("cli.commands:figure", "Draw one figure by name, as PDF and PNG, one and two columns wide."),
    "findings": Command("cli.commands:findings", "Check every claim of README and docs against the tables."),
    "microcosm": Command("cli.commands:microcosm", "Rebuild the shipped models of the Microcosm from scratch."),
}
"""Every subcommand by name."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "start": ("init", "reproduce", "pocket"),
    "behaviour": ("em-rate", "preference", "emergence", "grid", "greedy", "score"),
    "directions and edits": ("geometry", "steer", "ablate", "demo"),
    "where the gate is": ("patch", "rank-one", "mechanism"),
    "probes": ("probe", "probe-sweep", "probe-transfer"),
    "an adapter with an unknown trigger": ("audit", "audit-repair", "audit-benchmark", "audit-repairs"),
    "registered experiments": ("dose-grid", "world-ablation", "trained-gate", "mitigation", "promptability"),
    "data, training, judges": ("data", "organisms", "publish", "judge", "protocol", "inspect-log", "plan"),
    "results": ("report", "figure", "findings"),
    "stores and shipped models": ("store", "verify", "microcosm"),
}
"""The commands in the order and under the titles of ``semcon --help``."""
