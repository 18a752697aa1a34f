"""Probes of any label on any model, at every layer, on groups that no probe was trained on, beside their controls.

    semcon probe --model microcosm/llama --data examples/labelled_prompts.csv --label label --group prompt
    semcon probe --model Qwen/Qwen3-0.6B --adapter adapters/mine --data mine.jsonl --label bad --transfer other.jsonl
    semcon probe --apply runs/probe/HASH/probe.safetensors --data other.jsonl --label bad

``LABEL``                 AUROC on held-out groups; of several classes the mean of each against the rest
``LABEL/shuffled_labels`` the same fit on permuted labels, ``/random_direction`` projections on random directions,
``/bag_of_tokens``        a probe on token counts, which sees the surface only and has no layer
``LABEL->FILE``           probes of the first file on the rows of a second one, whose groups are held out too

``probe.safetensors`` holds the probes of every layer, fitted on all rows; it can be applied to other rows (``--apply``)
and steered with (``semcon steer --probe``).

Not evidence for: use of the label by the model. A probe says what can be read; steering says what changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro
from annotated_types import Ge, Le

from experiments.model import AnyModel
from experiments.probing.labelled import LabelledFile, check_name, read_labelled
from experiments.probing.scored import FITS, PERMUTATIONS, FitName, Probes, find_fit, score_cells
from experiments.spec import Experiment, Step
from interp.runs.checks import NotNegative, Seed
from interp.runs.reading import normalised
from interp.runs.run import Run
from interp.runs.table import Row
from interp.sites import Site, require_layer
from interp.text.prompts import check_position, encode_prompts
from interp.triggers import Trigger
from training.own_files import base_config

if TYPE_CHECKING:
    from torch import Tensor

    from interp.chat import Chat
    from interp.models import LanguageModel
    from probes import Folds, LabelledSet

FILE = "probe.safetensors"
CLASSES_DRAWS = (PERMUTATIONS // 2, PERMUTATIONS // 2)
"""Label permutations and random directions of several classes."""


@dataclass(frozen=True, kw_only=True)
class LabelProbe(Experiment):
    """Fit probes of a label of your own at every layer of any model, with controls; save them. See also --apply."""

    name: ClassVar[str] = "probe"

    model: AnyModel
    data: Path
    """Labelled prompts: JSON lines (messages or prompt, the label, a group) or a CSV; docs/probes.md."""
    target: Annotated[str, tyro.conf.arg(name="label")]
    """Entry of each row with its class: a word, a whole number, true or false."""
    group: str | None = None
    """Entry that names what is held out together, such as the question; by default the last user message."""
    phrasing: str | None = None
    """Entry with a second kind of group that is held out too, such as the text of a trigger."""
    positive: str | None = None
    """Of two classes the positive one; by default the last in alphabetical order."""
    site: str = "resid_post"
    """Name of the site that is read."""
    layers: tuple[NotNegative, ...] = ()
    """Layers that are read; by default all."""
    position: str = "last_prompt"
    """Where: last_prompt, question, system, all, response_mean, response[0], or a mark of the rows."""
    fit: FitName = FITS[0]
    """Kind of probe; nested is logistic with its penalty chosen inside each fold."""
    folds: Annotated[int, Ge(2), Le(100)] = 5
    """Parts into which groups are dealt; each is tested once."""
    transfer: Path | None = None
    """Second file with the same label, to test the probes on."""
    seed: Seed = 0
    """Seed of the split and the controls."""

    @cached_property
    def file(self) -> LabelledFile:
        """The labelled prompts."""
        return self._ordered(read_labelled(self.data, self.target, self.group, self.phrasing))

    @cached_property
    def second(self) -> LabelledFile | None:
        """The labelled prompts of the second file."""
        if self.transfer is None:
            return None
        return read_labelled(self.transfer, self.target, self.group, self.phrasing, self.file.classes)

    def _ordered(self, file: LabelledFile) -> LabelledFile:
        if self.positive is None:
            return file
        if len(file.classes) != 2 or self.positive not in file.classes:
            has = ", ".join(file.classes)
            raise ValueError(
                f"--positive {self.positive}: expected one of two classes; label {self.target!r} has {has}"
            )
        return LabelledFile(file.path, file.rows, sorted(file.classes, key=lambda name: name == self.positive))

    def inputs(self) -> Mapping[str, Path]:
        """Return the files, and the folders of the model."""
        second = {"transfer": self.transfer} if self.transfer else {}
        return {**super().inputs(), "data": self.data, **second}

    def check(self) -> None:
        """Refuse files, labels, groups, positions and layers that no probe could be fitted on; loads no model.

        Raises:
            ValueError: If there is one.
        """
        super().check()
        for kind, entry in (("label", self.target), ("group", self.group), ("phrasing", self.phrasing)):
            check_name(kind, entry)
        self._sites(base_config(self.model.organism).get("num_hidden_layers"))
        if len(self.file.classes) < 2:
            raise ValueError(
                f"{self.data}: label {self.target!r} is {self.file.classes[0]!r} in every row; two are needed"
            )
        check_position(self.position, self.file.prompts)
        self._check_folds()
        if self.second:
            check_position(self.position, self.second.prompts)
            if lacking := [name for name in self.file.classes if name not in {r.label for r in self.second.rows}]:
                raise ValueError(f"{self.transfer}: no row with {self.target} {lacking[0]!r}")

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse a model that loading would refuse, and prompts that its template or context would."""
        from training.early import check_prompt_file

        super().check_models(*triggers)
        for file in (self.file, self.second):
            check_prompt_file(self.model.organism, file.prompts if file else (), self.position)

    def _check_folds(self) -> None:
        """Refuse groups that leave a fold without rows of a class."""
        from probes.probe import check_classes

        groups = len({*self.file.groups})
        if groups < self.folds:
            raise ValueError(
                f"{self.data}: {groups} different {self.group or 'questions'} for {self.folds} folds; name more rows, "
                "another --group, or fewer --folds"
            )
        try:
            folds = self._folds()
            for y in _sides(_y(self.file)):
                check_classes(y, folds.train)
        except ValueError as error:
            raise ValueError(f"{self.data}: {error}; each class needs rows in several groups") from error

    def _folds(self) -> Folds:
        from probes import by_question, by_question_and_phrasing

        if self.phrasing is None:
            return by_question(self.file.groups, self.folds, seed=self.seed)
        phrasings = [row.phrasing for row in self.file.rows]
        return by_question_and_phrasing(self.file.groups, phrasings, self.folds, seed=self.seed)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step: all probes share the activations."""
        return {"probe": partial(self._rows, run)}

    def _rows(self, run: Run) -> Iterator[Row]:
        from interp.adapters import active_adapter

        lm = self.model.load()
        sites = self._sites(lm.n_layers)
        with active_adapter(lm, self.model.active):
            X, chats = read(lm, self.file, sites, self.position)
            second = read(lm, self.second, sites, self.position)[0] if self.second else None
        probes = Probes(
            self.file.numbers,
            [chat.token_ids for chat in chats],
            self._folds(),
            len(self.file.classes) > 2,
            self.seed,
            CLASSES_DRAWS,
        )
        found: dict[int, float] = {}
        for condition, metric, scores in probes.scores(X, (self.fit,), lambda _: self._condition):
            layers = [0] if condition.endswith("bag_of_tokens") else [site.layer for site in sites]
            for i, layer in enumerate(layers):
                yield {"condition": condition, "layer": layer, "metric": metric, **score_cells(scores, i)}
                if (condition, metric) == (self._condition, "auroc"):
                    found.setdefault(layer, float(scores.value[i]))
        if second is not None:
            yield from self._transferred(X, second, sites)
        self._save(run, X, sites, [found[site.layer] for site in sites])

    @property
    def _condition(self) -> str:
        return self.target if self.position == "last_prompt" else f"{self.target} at {self.position}"

    def _sites(self, n_layers: int | None) -> list[Site]:
        for layer in self.layers:
            require_layer(layer, n_layers, f"layers {layer}")
        return [Site(self.site, layer) for layer in self.layers or range(n_layers or 1)]

    def _transferred(self, X: Tensor, second: Tensor, sites: Sequence[Site]) -> Iterator[Row]:
        from probes import transfer_scores

        assert self.second is not None and self.transfer is not None
        sets = {"data": self._set(X, self.file), "transfer": self._set(second, self.second)}
        scores = transfer_scores(sets, fit=find_fit(self.fit), n_folds=self.folds, seed=self.seed)["data", "transfer"]
        for i, site in enumerate(sites):
            condition = f"{self._condition}->{self.transfer.stem}"
            yield {"condition": condition, "layer": site.layer, "metric": "auroc", **score_cells(scores, i)}

    def _set(self, X: Tensor, file: LabelledFile) -> LabelledSet:
        from probes import LabelledSet

        return LabelledSet(X, _y(file), file.groups, [r.phrasing for r in file.rows] if self.phrasing else None)

    def _save(self, run: Run, X: Tensor, sites: Sequence[Site], aurocs: Sequence[float]) -> None:
        from probes import SavedProbe, fit_final, save_probe

        organism = self.model.organism
        about = {
            "sites": [str(site) for site in sites],
            "position": self.position,
            "classes": list(self.file.classes),
            "label": self.target,
            "model": organism.base,
            "adapter": organism.adapter,
            "adapter_on": self.model.adapter_on,
            "template_options": dict(organism.template_options),
            "fit": self.fit,
            "n": len(self.file.rows),
            "auroc": list(aurocs),
            "groups": sorted({digest_of(group) for group in self.file.groups}),
            "run": run.run_id,
        }
        final = "logistic" if self.fit == "nested" else self.fit
        save_probe(run.path / FILE, SavedProbe(fit_final(X, _y(self.file), find_fit(final)), about))

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the model's cells, with the data's name beside the model's."""
        cells = super().cells(rows)
        return {**cells, "organism": f"{cells['organism']} ({self.data.stem})", "seed": self.seed}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows as they are."""
        for r in rows:
            yield {"site": self.site, **{name: value for name, value in r.items() if name not in ("key", "step")}}


def read(lm: LanguageModel, file: LabelledFile, sites: Sequence[Site], position: str) -> tuple[Tensor, list[Chat]]:
    """Return the activations of every row, [layer, row, d_model], and the rows as chats."""
    import torch

    from interp.recording import record

    chats = encode_prompts(lm, file.prompts)
    recording = record(lm, chats, sites, [position])
    return torch.stack([recording.at(site, position) for site in sites]), chats


def digest_of(group: str) -> str:
    """Return what stands for a group in a saved probe, which holds no texts."""
    return hashlib.sha256(normalised(group).encode()).hexdigest()[:16]


def _y(file: LabelledFile) -> Tensor:
    import torch

    return torch.tensor(file.numbers, dtype=torch.long if len(file.classes) > 2 else torch.bool)


def _sides(y: Tensor) -> Tensor:
    from probes import one_vs_rest

    return one_vs_rest(y)
