"""Whether a probe for one organism's trigger reads another's: seeds, triggers, organisms, the adapter on and off.

    semcon probe-transfer --organisms microcosm/llama/explaining microcosm/llama/explaining.seed1

A setting is one organism under one trigger, with its adapter on or off. A row ``SOURCE->TARGET`` is the AUROC, at one
layer, on the target's prompts of probes fitted on the source's. No question and no text of the trigger that tests a
target has trained a source. A setting is written ``NAME``, ``NAME|off`` without its adapter, and ``NAME@TRIGGER`` under
another organism's trigger; ``NAME`` is the organism's, without the world and family where all organisms share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.subject import Subject, TemplateOptions, find_subject, trigger_cells
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.probing.scored import FITS, FitName, find_fit, score_cells
from experiments.probing.sweep import Position, check_model_sites, check_sites, parse_sites
from experiments.probing.targets import PARTS, presence_rows
from experiments.spec import Experiment, Part, Step
from interp.runs.checks import Seed
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger
from training.definition import definition
from training.own_files import base_config
from training.references import find_trigger

if TYPE_CHECKING:
    from interp.models import LanguageModel
    from probes import LabelledSet

SHARED_INPUTS = ("questions", "judge")
"""Files that all organisms have in common."""


def find_subjects(
    organisms: tuple[str, ...],
    questions: Path | None = None,
    judge: str = "oracle",
    template_option: TemplateOptions = (),
) -> tuple[Subject, ...]:
    """Look up the organisms under study.

    Args:
        organisms: Names in the registry (training/registry.py) or YAML files, of one base width.
        questions: Questions of real models (YAML: validation and test, id: text).
        judge: Judge by which the doses are chosen: oracle, openai:MODEL[@URL], or a CSV of scores.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
    """
    return tuple(find_subject(organism, questions, judge, template_option) for organism in organisms)


@dataclass(frozen=True, kw_only=True)
class ProbeTransfer(Experiment):
    """AUROC of the trigger-present probe of every setting on the prompts of every other."""

    name: ClassVar[str] = "probe_transfer"

    subjects: Annotated[tuple[Subject, ...], tyro.conf.arg(name="", constructor=find_subjects)]
    triggers: tuple[str, ...] = ()
    """Triggers under which every organism is also read (references as in training/registry.py)."""
    adapter_off: bool = True
    """Also read every organism with its adapter off."""
    site: str = "resid_post"
    """Site name, at every layer; or a single site such as resid_post.2."""
    position: Position = "last_prompt"
    """Where to read."""
    fit: FitName = FITS[0]
    """Kind of probe."""
    seed: Seed = 0
    """Seed of the split."""

    def parts(self) -> list[Part]:
        """Return the organisms."""
        return list(self.subjects)

    def check(self) -> None:
        """Refuse missing organisms, an organism or reference without a trigger, and sites that no model has.

        Raises:
            ValueError: If there is nothing to compare.
        """
        super().check()
        if not self.subjects:
            raise ValueError("organisms: name at least one")
        if len({(subject.question_file, subject.judge_reference) for subject in self.subjects}) > 1:
            raise ValueError("organisms: all need the same questions and judge")
        for subject in self.subjects:
            check_sites((self.site,), base_config(subject.organism).get("num_hidden_layers"))
            self._settings_of(subject)

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse also sites that one of the models lacks."""
        super().check_models(*triggers)
        for subject in self.subjects:
            check_model_sites(subject.organism, (self.site,))

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return the triggers under which every organism is also read."""
        return tuple(find_trigger(reference) for reference in self.triggers)

    def label(self) -> str:
        """Return how many organisms are compared, for a progress bar."""
        return f"{len(self.subjects)} organisms"

    def config(self) -> Mapping[str, Any]:
        """Return the fields, with the organisms' names and what they share in place of the subjects."""
        config = dict(super().config())
        for subject in config.pop("subjects"):
            config |= subject.config()
        config.pop("organism", None)
        return {**config, "organisms": [subject.name for subject in self.subjects]}

    def depends(self) -> Mapping[str, Any]:
        """Return every organism's definition and the triggers' texts."""
        organisms = [subject.organism for subject in self.subjects]
        definitions = {o.name: {"adapter": None, **definition(o)} for o in organisms}  # committed ids hash these
        texts = {reference: asdict(find_trigger(reference)) for reference in self.triggers}
        return {**super().depends(), **definitions, **texts}

    def inputs(self) -> Mapping[str, Path]:
        """Return the organisms' local files under their names, and the files that they share."""
        return {
            kind if kind in SHARED_INPUTS else f"{kind} {subject.name}": path
            for subject in self.subjects
            for kind, path in subject.inputs().items()
        }

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step: a transfer needs the activations of all settings."""
        return {"transfer": partial(self._transfer, run.root)}

    def _transfer(self, root: Path) -> list[Row]:
        from probes import transfer_scores

        sets: dict[str, LabelledSet] = {}
        for subject in self.subjects:
            sets |= self._read(subject, root)
        layers = self._layers(sets)
        transfers = transfer_scores(sets, fit=find_fit(self.fit), n_folds=PARTS, seed=self.seed)
        return [
            {"condition": f"{source}->{target}", "layer": layer, **score_cells(scores, i)}
            for (source, target), scores in transfers.items()
            for i, layer in enumerate(layers)
        ]

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows; the organism is that of the source."""
        source_of = {setting: subject for subject in self.subjects for setting in self._settings_of(subject)}
        metric = {"metric": "transfer_auroc", "site": self.site.partition(".")[0]}
        for r in rows:
            subject = source_of[r["condition"].partition("->")[0]]
            scores = {name: value for name, value in r.items() if name not in ("key", "step")}
            yield {**metric, **subject.cells(), **trigger_cells(None), **scores}

    def _short_name(self, subject: Subject) -> str:
        folders = {other.name.rpartition("/")[0] for other in self.subjects}
        return subject.name.rpartition("/")[2] if len(folders) == 1 else subject.name

    def _settings_of(self, subject: Subject) -> dict[str, tuple[Trigger, bool]]:
        """Return the settings of an organism: trigger, and whether the adapter is on."""
        name = self._short_name(subject)
        under = {name: subject.own_trigger}
        under |= {f"{name}@{reference}": find_trigger(reference) for reference in self.triggers}
        settings = {setting: (trigger, True) for setting, trigger in under.items()}
        if self.adapter_off and subject.organism.data is not None:
            settings |= {f"{setting}|off": (trigger, False) for setting, trigger in under.items()}
        return settings

    def _read(self, subject: Subject, root: Path) -> dict[str, LabelledSet]:
        """Return the activations of every setting of an organism, with their labels."""
        from interp.adapters import active_adapter

        lm = load_subject(subject, root)
        sets = {}
        for setting, (trigger, on) in self._settings_of(subject).items():
            with active_adapter(lm, ADAPTER if on and lm.adapters else None):
                sets[setting] = self._read_setting(lm, subject, trigger)
        return sets

    def _read_setting(self, lm: LanguageModel, subject: Subject, trigger: Trigger) -> LabelledSet:
        import torch

        from interp.recording import record
        from probes import LabelledSet

        data = presence_rows(lm.tokenizer, subject.questions("test"), trigger)
        ((_, sites),) = parse_sites((self.site,), lm.n_layers).items()
        recording = record(lm, data.chats, sites, [self.position])
        X = torch.stack([recording.at(site, self.position) for site in sites])
        return LabelledSet(X, torch.tensor(data.labels, dtype=torch.bool), data.questions, data.phrasings)

    def _layers(self, sets: Mapping[str, LabelledSet]) -> list[int]:
        """Return the layers that were read.

        Raises:
            ValueError: If the organisms differ in layers or width.
        """
        shapes = {setting: (len(labelled.X), labelled.X.shape[2]) for setting, labelled in sets.items()}
        if len(set(shapes.values())) > 1:
            shape_list = ", ".join(f"{setting} {layers} x {width}" for setting, (layers, width) in shapes.items())
            raise ValueError(f"organisms of different layers x width: {shape_list}; a probe of one cannot read another")
        if "." in self.site:
            return [int(self.site.partition(".")[2])]
        return list(range(next(iter(shapes.values()))[0]))
