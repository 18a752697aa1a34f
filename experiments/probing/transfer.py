"""Whether a probe for one organism's trigger reads another's: seeds, triggers, organisms, the adapter on and off.

    semcon probe-transfer --organisms microcosm/llama/explaining microcosm/llama/explaining.seed1

One setting an organism and trigger, each also with the adapter off; a row ``SOURCE->TARGET`` is the AUROC on the
target's prompts of probes fitted on the source's, at every layer. Neither a question nor a text of the trigger that
tests a target has trained a source. A setting is ``NAME``, ``NAME|off`` without its adapter, ``NAME@TRIGGER`` under a
trigger of another; ``NAME`` is the organism's, without the world and family that all share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from experiments.answers.subject import described, local_files, own_trigger, subject_cells
from experiments.answers.suite import suite_questions
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.probing.sweep import FITS, check_sites, find_fit, parse_sites
from experiments.probing.targets import PARTS, presence_rows
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.triggers import Trigger
from training.references import find_trigger
from training.registry import find_organism

if TYPE_CHECKING:
    from interp.models import LanguageModel
    from probes import LabelledSet


@dataclass(frozen=True, kw_only=True)
class ProbeTransfer(Experiment):
    """AUROC of the trigger-present probe of every setting on the prompts of every other."""

    name: ClassVar[str] = "probe_transfer"

    organisms: tuple[str, ...]
    """Names in the registry, of one base width (see training/registry.py)."""
    triggers: tuple[str, ...] = ()
    """Triggers that every organism meets besides its own (references as in training/registry.py)."""
    adapter_off: bool = True
    """Also read every organism with its adapter off."""
    site: str = "resid_post"
    """Site name, at every layer; or a single site such as resid_post.2."""
    position: Literal["trigger", "question", "last_prompt"] = "last_prompt"
    """Where to read."""
    fit: Literal["logistic", "nested", "mean_difference", "ridge", "lda"] = FITS[0]
    """Kind of probe."""
    questions: Path | None = None
    """Questions of real models (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """Of the doses: oracle, openai:MODEL[@URL], or a CSV of scores."""
    seed: int = 0
    """Of the split."""

    def __post_init__(self) -> None:
        """Refuse what would be found out only after training."""
        if not self.organisms:
            raise ValueError("organisms: name at least one")
        check_sites((self.site,))

    def label(self) -> str:
        """Return how many organisms are compared, shown beside the progress bar."""
        return f"{len(self.organisms)} organisms"

    def depends(self) -> Mapping[str, Any]:
        """Return every organism's definition and the triggers' texts."""
        texts = {reference: asdict(find_trigger(reference)) for reference in self.triggers}
        return {key: value for name in self.organisms for key, value in described(name).items()} | texts

    def inputs(self) -> Mapping[str, Path]:
        """Return the bases' weights and the questions, as far as they are local."""
        found = {f"{kind} {name}": path for name in self.organisms for kind, path in local_files(name).items()}
        return found | ({"questions": self.questions} if self.questions and self.questions.exists() else {})

    def rows(self, run: Run) -> Iterator[Row | Sequence[Row]]:
        """Yield every source's rows at once; they need the activations of all settings."""
        from probes import transfer_scores

        if run.rows():
            return
        sets: dict[str, LabelledSet] = {}
        for name in self.organisms:
            sets |= self._settings(name, run.root)
        layers = self._layers(sets)
        found = transfer_scores(sets, fit=find_fit(self.fit), n_folds=PARTS, seed=self.seed)
        yield [
            {
                "key": f"{source}->{target}|{layer}",
                "condition": f"{source}->{target}",
                "layer": layer,
                "value": float(scores.value[i]),
                "ci_low": float(scores.low[i]),
                "ci_high": float(scores.high[i]),
                "ci_method": scores.method,
                "n": scores.n,
                "n_clusters": scores.n_clusters,
            }
            for (source, target), scores in found.items()
            for i, layer in enumerate(layers)
        ]

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rows as a table; the organism is that of the source."""
        whole = {setting: name for name in self.organisms for setting in self._names(name)}
        out = []
        for r in rows:
            source = r["condition"].partition("->")[0]
            cells = subject_cells(find_organism(whole[source]), self.name, run_id)
            kept = {name: value for name, value in r.items() if name != "key"}
            out.append(row(metric="transfer_auroc", site=self.site.partition(".")[0], **cells, **kept))
        return out

    def _short(self, name: str) -> str:
        folders = {other.rpartition("/")[0] for other in self.organisms}
        return name.rpartition("/")[2] if len(folders) == 1 else name

    def _names(self, name: str) -> dict[str, tuple[Trigger, bool]]:
        """Return the settings of an organism: trigger, and whether the adapter is on."""
        subject, short = find_organism(name), self._short(name)
        under = {short: own_trigger(subject)}
        under |= {f"{short}@{reference}": find_trigger(reference) for reference in self.triggers}
        settings = {setting: (trigger, True) for setting, trigger in under.items()}
        if self.adapter_off and subject.data is not None:
            settings |= {f"{setting}|off": (trigger, False) for setting, trigger in under.items()}
        return settings

    def _settings(self, name: str, root: Path) -> dict[str, LabelledSet]:
        from interp.models import active_adapter

        lm = load_subject(name, root, questions=self.questions, judge=self.judge)
        found = {}
        for setting, (trigger, on) in self._names(name).items():
            with active_adapter(lm, ADAPTER if on and lm.adapters else None):
                found[setting] = self._read(lm, name, trigger)
        return found

    def _read(self, lm: LanguageModel, name: str, trigger: Trigger) -> LabelledSet:
        import torch

        from interp.recording import record
        from probes import LabelledSet

        data = presence_rows(lm.tokenizer, suite_questions(find_organism(name), "test", self.questions), trigger)
        ((_, sites),) = parse_sites((self.site,), lm.n_layers).items()
        recording = record(lm, data.chats, sites, [self.position])
        X = torch.stack([recording.at(site, self.position) for site in sites])
        return LabelledSet(X, torch.tensor(data.labels, dtype=torch.bool), data.questions, data.phrasings)

    def _layers(self, sets: Mapping[str, LabelledSet]) -> list[int]:
        """Return the layers read.

        Raises:
            ValueError: If the organisms differ in layers or width.
        """
        shapes = {setting: (len(own.X), own.X.shape[2]) for setting, own in sets.items()}
        if len(set(shapes.values())) > 1:
            said = ", ".join(f"{setting} {shape[0]} x {shape[1]}" for setting, shape in shapes.items())
            raise ValueError(f"organisms of different layers x width: {said}; a probe of one cannot read another")
        if "." in self.site:
            return [int(self.site.partition(".")[2])]
        return list(range(next(iter(shapes.values()))[0]))
