"""Read other rows with a saved probe: scores of every row and, where they are labelled, AUROC on unseen groups.

semcon probe --apply runs/probe/HASH/probe.safetensors --data other.jsonl --label bad

``scores.csv`` has one line per row: where it stands, its group, its label, whether its group is new to the probe, the
predicted class and the score of every class, at the layer where the probe's own AUROC was highest. Rows of a group that
the probe was trained on have scores, but no part in an AUROC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from experiments.answers.subject import TemplateOptions
from experiments.model import Model, chosen_organism
from experiments.probing.label_probe import digest_of, read
from experiments.probing.labelled import LabelledFile, check_name, read_labelled
from experiments.probing.scored import score_cells
from experiments.spec import Experiment, Step
from interp.runs.checks import Seed
from interp.runs.files import atomic_write_text, csv_text
from interp.runs.run import Run
from interp.runs.table import Row
from interp.text.prompts import check_position
from interp.triggers import Trigger
from training.own_files import base_config

if TYPE_CHECKING:
    from torch import Tensor

    from probes import SavedProbe


@dataclass(frozen=True, kw_only=True)
class AppliedProbe(Experiment):
    """Read labelled or unlabelled prompts with a probe that `semcon probe` saved."""

    name: ClassVar[str] = "probe_apply"

    apply: Path
    """Saved probe: probe.safetensors in the folder of a run."""
    data: Path
    """Prompts: JSON lines (messages or prompt) or a CSV."""
    target: Annotated[str | None, tyro.conf.arg(name="label")] = None
    """Entry of each row with its class; without it there are scores only."""
    group: str | None = None
    """Entry that names the group of a row; by default the last user message."""
    model: str | None = None
    """Model to read, of the same width; by default the probe's own, with its adapter."""
    adapter: Path | None = None
    """Adapter of that model."""
    template_option: TemplateOptions = ()
    """Option of the chat template of a model named here."""
    seed: Seed = 0
    """Seed of the intervals."""

    @cached_property
    def saved(self) -> SavedProbe:
        """The probe."""
        from probes import load_probe

        return load_probe(self.apply)

    @cached_property
    def file(self) -> LabelledFile:
        """The prompts."""
        return read_labelled(self.data, self.target, self.group, None, self.saved.classes)

    @cached_property
    def subject(self) -> Model:
        """The model that is read."""
        about = self.saved.about
        if self.model is not None or self.adapter is not None:
            organism = chosen_organism(self.model or str(about["model"]), self.adapter, self.template_option)
            return Model(organism)
        adapter = about.get("adapter")
        organism = chosen_organism(str(about["model"]), Path(adapter) if adapter else None)
        options = about.get("template_options") or {}
        return Model(replace(organism, template_options=options), bool(about.get("adapter_on", True)))

    def inputs(self) -> Mapping[str, Path]:
        """Return the probe, the prompts, and the folders of the model."""
        return {"probe": self.apply, "data": self.data, **self.subject.inputs()}

    def depends(self) -> Mapping[str, Any]:
        """Return what the model is."""
        return self.subject.depends()

    def config(self) -> Mapping[str, Any]:
        """Return the fields, and the model that is read."""
        return {**super().config(), **self.subject.config()}

    def check(self) -> None:
        """Refuse a file that is no probe, and prompts that it cannot read; loads no model."""
        super().check()
        for kind, entry in (("label", self.target), ("group", self.group)):
            check_name(kind, entry)
        self.subject.check()
        config = base_config(self.subject.organism)
        self._check_shape(config.get("num_hidden_layers"), config.get("hidden_size"))
        check_position(self.saved.about["position"], self.file.prompts)
        if self.target is not None and not any(self._unseen()):
            raise ValueError(f"{self.data}: the probe was trained on every group in it; an AUROC needs others")

    def _check_shape(self, n_layers: int | None, d_model: int | None) -> None:
        """Refuse a model of another width, or without a layer that the probe reads; None where that is unknown."""
        width, last = self.saved.d_model, max(site.layer for site in self.saved.sites)
        if d_model not in (None, width) or (n_layers is not None and n_layers <= last):
            has = f"{self.subject.label()} has {n_layers} of {d_model}"
            raise ValueError(f"{self.apply}: reads {width} wide layers up to {last}; {has}")

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse a model that loading would refuse, and prompts that its template or context would."""
        from training.early import check_prompt_file

        self.subject.check_models(*triggers)
        check_prompt_file(self.subject.organism, self.file.prompts, self.saved.about["position"])

    def _unseen(self) -> list[bool]:
        known = set(self.saved.about.get("groups", ()))
        return [digest_of(group) not in known for group in self.file.groups]

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step, which reads every row."""
        return {"apply": partial(self._rows, run)}

    def _rows(self, run: Run) -> Iterator[Row]:
        from interp.adapters import active_adapter

        lm = self.subject.load()
        self._check_shape(lm.n_layers, lm.d_model)
        with active_adapter(lm, self.subject.active):
            X, _ = read(lm, self.file, self.saved.sites, self.saved.about["position"])
        scores = self.saved.scores(X)
        self._write(run, scores)
        yield from self._shares(scores)
        if self.target is not None:
            yield from self._aurocs(scores)

    def _write(self, run: Run, scores: Tensor) -> None:
        """Write the scores at the best layer."""
        classes, aurocs = self.saved.classes, list(self.saved.about.get("auroc") or [0.0])
        best = scores[max(range(len(aurocs)), key=lambda i: aurocs[i])]
        names = classes[1:] if len(classes) == 2 else classes
        lines = [
            {
                "row": row.prompt.where.rpartition(":")[2],
                "group": row.group,
                "label": row.label,
                "new_group": new,
                "predicted": classes[self._predicted(best)[i]],
                **{f"score {name}": float(best[k, i]) for k, name in enumerate(names)},
            }
            for i, (row, new) in enumerate(zip(self.file.rows, self._unseen(), strict=True))
        ]
        atomic_write_text(run.path / "scores.csv", csv_text(lines))

    def _predicted(self, scores: Tensor) -> list[int]:
        """Return the number of the predicted class of each row, from scores [class, row]."""
        return (scores[0] > 0).long().tolist() if len(scores) == 1 else scores.argmax(0).tolist()

    def _shares(self, scores: Tensor) -> Iterator[Row]:
        """Yield the share of rows that are predicted to be of each class."""
        for site, at in zip(self.saved.sites, scores, strict=True):
            predicted = self._predicted(at)
            for number, name in enumerate(self.saved.classes):
                share = predicted.count(number) / len(predicted)
                yield {
                    "condition": name,
                    "layer": site.layer,
                    "metric": "predicted_rate",
                    "value": share,
                    "n": len(predicted),
                }

    def _aurocs(self, scores: Tensor) -> Iterator[Row]:
        """Yield AUROC and accuracy on the rows whose group the probe has not seen."""
        import torch

        from probes import Folds, grouped_mean, macro_auroc

        rows = torch.tensor(self._unseen()).nonzero()[:, 0]
        numbers = torch.tensor(self.file.numbers)[rows]
        names = list(dict.fromkeys(self.file.groups))
        groups = torch.tensor([names.index(group) for group in self.file.groups])[None, rows]
        test = torch.ones(1, len(rows), dtype=torch.bool)
        folds = Folds(~test, test, groups)
        two = len(self.saved.classes) == 2
        sides = (numbers == 1)[None] if two else numbers == torch.arange(len(self.saved.classes))[:, None]
        kept = scores[..., rows]
        present = [k for k, side in enumerate(sides) if side.any() and not side.all()]
        if not present:
            raise ValueError(f"{self.data}: rows of new groups have one class only, so there is no AUROC")
        correct = (kept[:, 0] > 0) == (numbers == 1) if two else kept.argmax(1) == numbers
        for metric, values in (
            ("auroc", macro_auroc(kept[:, present], sides[present], folds, seed=self.seed)),
            ("accuracy", grouped_mean(correct, folds, seed=self.seed)),
        ):
            for i, site in enumerate(self.saved.sites):
                condition = f"{self.target} by {self.saved.about['label']}"
                yield {"condition": condition, "layer": site.layer, "metric": metric, **score_cells(values, i)}

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the model's cells, with the data's name beside the model's."""
        cells = self.subject.cells()
        return {**cells, "organism": f"{cells['organism']} ({self.data.stem})", "seed": self.seed}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows as they are."""
        site = self.saved.sites[0].name
        for r in rows:
            yield {"site": site, **{name: value for name, value in r.items() if name not in ("key", "step")}}
