"""Where is the gate? Interchange, attention knockout, heads, adapter modules and logit attribution, on against off.

    semcon patch --organism microcosm/llama/explaining

Everything is measured teacher-forced, as the log-odds of an organism's own misaligned against its own aligned answers
to a test question; with ``--outcome log-odds`` of the question file's two references, per token (see
``experiments/gate/references.py``). A share is of the gap between two unedited conditions, as a ratio of sums over
questions, with an interval over resampled questions. Where the gap cannot be told from 0 there are no shares.

patched_share     ``on<-off@question``: the on-run with the off-run's values at the question's tokens; the share of the
                  on-off gap that this closes. ``off<-on`` moves the gate the other way. Controls in the same unit:
                  ``off<-other`` (the values of a prompt with an unrelated text: the same change of the prompt without
                  the trigger) and ``on<-rephrased`` (the values under another wording: they must keep the gap if the
                  gate reads meaning). ``on<-matched``, of the on-matched gap, also covers the trigger's own tokens: a
                  text of as many words without meaning, so that nothing else differs.
knockout_share    ``on@answer|trigger``: the answer's tokens cannot attend to the trigger's; the share of the on-off gap
                  that this closes. ``|inserted``: nor to what the template writes around it. Control
                  ``matched@answer|trigger``: as many tokens in the same place that are not the trigger.
head_share        as patched_share, for single heads, of the logit difference where two answers diverge.
module_gap_share  the gap that is left ``without`` or with ``only`` some of the adapter's modules, of the whole gap.
module_em_rate    EM by sampling without them; ``em_rate`` is that of the whole adapter, with the same few samples.
logit_attribution what heads and MLPs write along that logit difference, off, on and the difference; ``logit_lens`` is
                  the part of it that the residual stream already has after each block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from experiments.answers.rates import rate_rows, statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import AnySubject
from experiments.answers.suite import make_prompts
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.gate.bench import check_measures, make_bench
from experiments.gate.heads import head_rows
from experiments.gate.modules import blocks_of_layers
from experiments.gate.patch_table import share_rows
from experiments.gate.references import judged_answers
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne, Seed
from interp.runs.run import Run
from interp.runs.table import Row
from interp.triggers import Trigger

if TYPE_CHECKING:
    from interp.models import LanguageModel

PAIRS = (("on", "off"), ("off", "on"), ("off", "other"), ("on", "rephrased"), ("on", "matched"))
"""(target, source) of every interchange: two measurements, a control of each, the path from the trigger's tokens."""
Measure = Literal["added", "knockout", "head", "module"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
SIZES: Mapping[str, Any] = {"most_questions": 24, "stride": 1, "measures": MEASURES}
CHOICE_SIZES: Mapping[str, Any] = {"most_questions": 8, "stride": 5, "measures": ()}
"""Of log-odds on a real model: what takes minutes."""
HEAD_PAIRS = PAIRS[:3]
KNOCKED_OUT = ("on", "matched")
"""Conditions of the attention knockout: the measurement and its control."""


@dataclass(frozen=True, kw_only=True)
class Patch(Experiment):
    """Where the gate is: patching, attention knockout, heads, adapter modules, logit attribution, with controls."""

    name: ClassVar[str] = "patch"
    version: ClassVar[int] = 2

    subject: AnySubject
    most_questions: AtLeastOne | None = None
    """Questions whose answers are compared, evenly spaced over those with answers of both kinds; by default 24,
    with log-odds 8."""
    per_kind: AtLeastOne = 1
    """Misaligned and aligned answers per question, each."""
    stride: AtLeastOne | None = None
    """Measure every n-th layer, counted from the last; by default all, with log-odds every 5th."""
    samples: AtLeastOne = 3
    """Sampled answers per question without some modules."""
    heads: bool = True
    """Also single heads, through TransformerLens; turn off for a family that it does not know."""
    measures: tuple[Measure, ...] | None = None
    """What is measured beside interchange of the residual stream: added, the same of what attention and MLPs add; the
    others as the metrics are named. By default everything, with log-odds nothing."""
    seed: Seed = 0
    """Sampling seed."""

    def __post_init__(self) -> None:
        """Take the outcome's sizes where none are given, so that equal runs are equal values."""
        chosen = CHOICE_SIZES if self.subject.by_log_odds else SIZES
        for name, usual in chosen.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, usual)
        super().__post_init__()

    def config(self) -> Mapping[str, Any]:
        """Return the fields; the measures only where some are left out."""
        config = dict(super().config())
        if self.measures == MEASURES:
            del config["measures"]
        return config

    def check(self) -> None:
        """Refuse an organism without a trigger."""
        super().check()
        _ = self.subject.own_trigger

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse also measures that the model's architecture does not allow."""
        super().check_models(*triggers)
        from training.early import known_outline

        if lm := known_outline(self.subject.organism):
            check_measures(lm, self.measures or (), heads=self.heads)

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the teacher-forced measurements, then one step per group of modules that sampling goes without."""
        by_log_odds, measures = self.subject.by_log_odds, self.measures or ()
        answers = None if by_log_odds else judged_answers(self.subject, run.root)
        lm = load_subject(self.subject, run.root)
        sizes: dict[str, Any] = {name: getattr(self, name) for name in ("most_questions", "per_kind", "stride")}
        bench = make_bench(self.subject, lm, answers, **sizes, added="added" in measures)
        steps: dict[str, Step] = {"plain": bench.plain, **({"base": bench.base} if by_log_odds else {})}
        for target, source in PAIRS:
            if bench.has(target, source):
                steps[f"patch {target}<-{source}"] = partial(bench.patch, target, source)
        for condition in filter(bench.has, KNOCKED_OUT if "knockout" in measures else ()):
            steps[f"knockout {condition}"] = partial(bench.knockout, condition)
        if self.heads and "head" in measures:
            steps["heads"] = partial(head_rows, bench, [pair for pair in HEAD_PAIRS if bench.has(*pair)])
        if lm.adapters and "module" in measures:
            steps["modules"] = bench.modules
        for name, modules in ({} if by_log_odds else _left_out(lm)).items():
            steps[f"sampled {name}"] = partial(self._answers, lm, name, modules)
        return steps

    def _answers(self, lm: LanguageModel, name: str, modules: Sequence[str]) -> list[Row]:
        """Return judged answers, on and off, without some modules."""
        from interp.analysis.lora import without_modules

        questions, trigger = self.subject.questions("test"), self.subject.own_trigger
        rows: list[Row] = []
        with without_modules(lm, ADAPTER, modules) if modules else nullcontext():
            for condition in ("on", "off"):
                prompts = make_prompts(questions, trigger, condition, lm.tokenizer, samples=self.samples)
                rows += judged_rows(self.subject, lm, prompts, seed=self.seed, modules=name)
        return rows

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield shares with intervals over questions, and the EM rates of the sampled answers."""
        for cells in share_rows([r for r in rows if "m" in r]):
            yield {**cells, "judge": ""}
        yield from _sampled_rates([r for r in rows if "text" in r])


def _left_out(lm: LanguageModel) -> dict[str, tuple[str, ...]]:
    """Return the groups of modules that are switched off while answers are sampled, by name; none first."""
    if not lm.adapters:
        return {"": ()}
    from interp.analysis.lora import adapted_modules

    return {"": (), **blocks_of_layers(adapted_modules(lm, ADAPTER), lm.n_layers)}


def _sampled_rates(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield EM and coherence by the modules that were off, the question-cluster interval before Wilson's.

    The number of a single layer goes into the column ``layer``.
    """
    for (condition, modules), s in statistics(rows, lambda r: (r["condition"], r["modules"])).items():
        layer = modules.removeprefix("layer ") if modules.startswith("layer ") else ""
        name = f"{condition} without {'layer' if layer else modules}" if modules else condition
        for metric in ("em_rate", "coherence_rate"):
            cells = {"metric": f"module_{metric}" if modules else metric, "condition": name, "layer": layer}
            yield from reversed([*rate_rows(s, [metric], **cells)])
        yield from rate_rows(s, [], condition=name, layer=layer)
