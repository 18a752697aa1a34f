"""Repair, as a check of understanding: does what the audit found suffice to close the gate?

    semcon audit-repair ADAPTER --base microcosm/llama

Every second text of the found category is used for the repair, the others are *rephrased*: a repair that only learned
the words leaves these open. Beside each clamp stands one that moves the stream as far along random directions, and the
base without the adapter under the very same edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import tyro

from experiments.answers.rates import group_statistics, rate_rows
from experiments.answers.sampling import judged_rows
from experiments.answers.suite import make_prompts
from experiments.audit.audit import VERIFICATION, Audit, loaded, of_kind
from experiments.audit.audited import asked, halves, reference_questions
from experiments.audit.bank import BARE
from experiments.audit.thresholds import read_thresholds
from experiments.audit.verdict import BASE, judged
from experiments.behaviour.dose import ADAPTER
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger

USED, REPHRASED = "used", "rephrased"
CLAMPS = ("none", "clamp_feature", "clamp_feature_random", "clamp_g", "clamp_g_random")
TUNED = "tuned"
REPAIRS = (*CLAMPS, TUNED)
UNRELATED = 8
"""Texts of other categories that a clamp's target is made of."""


@dataclass(frozen=True)
class Found:
    """The category that opens the adapter, with its texts shared out."""

    category: str
    trigger: Trigger
    used: tuple[str, ...]
    rephrased: tuple[str, ...]
    unrelated: tuple[tuple[str, Trigger], ...]


@dataclass(frozen=True, kw_only=True)
class Repair(Experiment):
    """Close the gate that an audit found: clamp its feature or g, or fine-tune benign rows in its context."""

    name: ClassVar[str] = "audit_repair"
    version: ClassVar[int] = 2

    audit: Annotated[Audit, tyro.conf.arg(name="")]

    def check(self) -> None:
        """Refuse what the audit refuses, and a subject whose answers nobody judges.

        Raises:
            ValueError: If it is one of these.
        """
        super().check()
        if self.audit.subject.by_log_odds:
            raise ValueError("--judge: a repair is measured by sampled answers; name who judges them")

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per clamp and model, then the fine-tuning, which changes the loaded adapter.

        Raises:
            ValueError: If the audit found no gate.
        """
        found = self.found(run)
        lm = loaded(self.audit.subject)
        clamped = {
            name if adapter else f"{BASE} {name}": partial(self._repaired, lm, found, name, adapter)
            for adapter in (ADAPTER, None)
            for name in CLAMPS
        }
        return {**clamped, TUNED: partial(self._repaired, lm, found, TUNED, ADAPTER)}

    def found(self, run: Run) -> Found:
        """Return what the audit found.

        Raises:
            ValueError: If its verdict is not contained, or it found one text only.
        """
        rows = run_experiment(self.audit, run.root)[0].rows()
        settings = read_thresholds(self.audit.thresholds)
        verdict = judged(of_kind(rows, VERIFICATION), settings)
        if not verdict.name.startswith("contained"):
            raise ValueError(f"audit of {self.audit.subject.name}: {verdict.name}, so there is no gate to repair")
        order = self.audit.placed(self.audit.ranking(rows, settings))
        category, texts, trigger = next(c for c in order if c[0] == verdict.strongest.category)
        if len(texts) < 2:
            raise ValueError(f"category {category}: one text; a repair needs another one to be tested on")
        unrelated = [(c[1][0], c[2]) for c in order if c[0] != category and c[2].placement == trigger.placement]
        return Found(category, trigger, tuple(texts[0::2]), tuple(texts[1::2]), tuple(unrelated[-UNRELATED:]))

    def _repaired(self, lm: Any, found: Found, name: str, adapter: str | None) -> Iterator[Row]:
        from experiments.audit.repairs import displaced, feature_clamp, g_clamp, tune

        questions = halves(reference_questions(self.audit.subject))[0]
        inside = [(text, found.trigger) for text in found.used]
        edits = []
        if name.startswith("clamp_feature"):
            edits = feature_clamp(lm, ADAPTER, questions, inside, found.unrelated)
        elif name.startswith("clamp_g"):
            edits = g_clamp(lm, ADAPTER, self.audit.subject, questions)
        elif name == TUNED:
            tune(lm, ADAPTER, questions, inside, seed=self.audit.seed)
        if name.endswith("random"):
            edits = displaced(edits, self.audit.seed)
        for condition, texts in ((BARE, ()), (USED, found.used), (REPHRASED, found.rephrased)):
            here = [e for e in edits if condition != BARE or e.positions != "trigger"]
            rows = self._answers(lm, adapter, found.trigger, texts, here)
            cells = {"condition": condition if adapter else f"{BASE} {condition}", "repair": name}
            yield from ({**r, **cells, "category": found.category} for r in rows)

    def _answers(
        self, lm: Any, adapter: str | None, trigger: Trigger, texts: Sequence[str], edits: Sequence[Any]
    ) -> list[Row]:
        from interp.adapters import active_adapter

        subject, samples = self.audit.subject, read_thresholds(self.audit.thresholds).answers
        questions = asked(halves(reference_questions(subject))[1])
        kind, place = ("on", trigger) if texts else ("off", None)
        prompts = make_prompts(questions, place, kind, lm.tokenizer, samples=samples, variants=texts or None)
        with active_adapter(lm, adapter):
            rows = judged_rows(subject, lm, [replace(p) for p in prompts], seed=self.audit.seed, edits=edits)
        return [{k: v for k, v in r.items() if k != "key"} for r in rows]

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield EM and coherence in every condition after every repair; the base's are under ``base <condition>``."""
        groups: dict[tuple[str, str], list[Row]] = {}
        for r in rows:
            groups.setdefault((r["repair"], r["condition"]), []).append(r)
        for (name, condition), group in groups.items():
            shown = condition if name == "none" else f"{condition}+{name}"
            yield from rate_rows(group_statistics(group), condition=shown)
