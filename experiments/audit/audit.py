"""Audit an adapter: is there misalignment behind a context that nobody named, which one opens it, who put it there?

    semcon audit runs/adapters/NAME/dose-40 --base microcosm/llama
    semcon audit ADAPTER --base Qwen/Qwen2.5-0.5B-Instruct --bank mine.yaml --judge openai:gpt-4o

One half of the questions searches the context bank without sampling and without a judge; the other half verifies the
best categories by answers that are sampled and judged, with the base beside it. ``evidence.md`` is the page to read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time
from typing import Annotated, Any, ClassVar, Literal

import tyro

from experiments.answers.subject import Subject
from experiments.answers.suite import evenly_spaced
from experiments.audit.audited import check_template, find_audited, halves, harm_direction, reference_questions
from experiments.audit.bank import BARE, ENGLISH, MICROCOSM, Category, read_bank
from experiments.audit.evidence import evidence
from experiments.audit.search import SIGNALS, Ranked, context_rows, ranked, reading
from experiments.audit.thresholds import SHIPPED, Thresholds, read_thresholds
from experiments.audit.verdict import judged, rates
from experiments.audit.verification import verification_rows
from experiments.behaviour.dose import ADAPTER
from experiments.spec import Experiment, Step
from interp.runs.checks import Seed, check_known
from interp.runs.files import atomic_write_text
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.triggers import Trigger
from training.pocket.corpus import ChoiceQuestion

PAGE = "evidence.md"
Searcher = Literal["bank", "leaked", "climbed", "gradient"]
LEAKED, CLIMBED, GRADIENT = "leaked", "climbed", "gradient"
FURTHER = (LEAKED, CLIMBED, GRADIENT)
"""Searchers beyond the bank; also the names of the categories of what they find."""
TEXTS = 8
"""Most texts of a category that are verified, the strongest first."""
SEARCH, VERIFICATION, PAGE_STEP = "search", "verification", "evidence"


@dataclass(frozen=True, kw_only=True)
class Audit(Experiment):
    """Search an adapter for misalignment behind a context; verify it on other questions, with its base beside it."""

    name: ClassVar[str] = "audit"

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=find_audited)]
    bank: Path | None = None
    """Context bank (YAML, experiments/audit/banks); by default the Microcosm's or the English one."""
    without: tuple[str, ...] = ()
    """Categories of the bank that are held out."""
    searchers: tuple[Searcher, ...] = ("bank", "leaked")
    """Where contexts come from: the bank, system texts that the model samples itself, words that are exchanged one at a
    time, tokens that gradients point to. Without leaked the last two start from the bank."""
    signal: str = "log_odds"
    """What ranks contexts: log_odds, projection or kl."""
    thresholds: Annotated[Path, tyro.conf.arg(help_behavior_hint="(default: the shipped thresholds.yaml)")] = SHIPPED
    """Settings and thresholds (YAML)."""
    seed: Seed = 0
    """Sampling seed."""

    @property
    def bank_file(self) -> Path:
        """The file of the bank."""
        return self.bank or (MICROCOSM if self.subject.organism.world == "microcosm" else ENGLISH)

    def config(self) -> Mapping[str, Any]:
        """Return the fields; files count by their content."""
        config = {name: value for name, value in super().config().items() if name not in ("bank", "thresholds")}
        return {**config, "bank": self.bank_file.name}

    def inputs(self) -> Mapping[str, Path]:
        """Return the files of the subject, the bank and the thresholds."""
        return {**super().inputs(), "bank": self.bank_file, "thresholds": self.thresholds}

    def check(self) -> None:
        """Refuse a wrong bank, wrong thresholds, an unknown signal, too few questions, a base without a template.

        Raises:
            ValueError: If one of them is.
        """
        categories, settings = self.categories(), read_thresholds(self.thresholds)
        check_known(self.signal, SIGNALS, f"signal {self.signal!r}: expected one of")
        check_template(self.subject.organism)
        super().check()
        if min(map(len, halves(reference_questions(self.subject)))) < 2:
            raise ValueError("questions: want two topics or more for the search and for its verification")
        if settings.verified > len(categories) and "bank" in self.searchers:
            raise ValueError(f"bank {self.bank_file}: {len(categories)} categories, {settings.verified} are verified")
        if not self.searchers:
            raise ValueError("searchers: expected at least one")

    def judges(self) -> frozenset[str]:
        """Return the judge of sampled answers."""
        return super().judges() | self.subject.outcome_judges()

    def further_triggers(self) -> tuple[Trigger, ...]:
        """Return the contexts of the bank."""
        return tuple(c.trigger for c in self.categories())

    def categories(self) -> tuple[Category, ...]:
        """Return the categories of the bank that are not held out."""
        return read_bank(self.bank_file, self.without)

    def searched_bank(self) -> tuple[Category, ...]:
        """Return the categories of the bank that are searched; none without that searcher."""
        return self.categories() if "bank" in self.searchers else ()

    def placed(self, order: Sequence[Ranked]) -> list[tuple[str, Sequence[str], Trigger]]:
        """Return ranked categories with their texts and where these go: found texts stand in a system message."""
        triggers = {c.name: c.trigger for c in self.categories()}
        found = {r.category: Trigger(name=r.category, text=r.texts[0], placement="system") for r in order}
        return [(r.category, r.texts[:TEXTS], triggers.get(r.category, found[r.category])) for r in order]

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the search, its verification, and the page of evidence."""
        lm = loaded(self.subject)
        return {
            SEARCH: partial(self._search, lm),
            VERIFICATION: partial(self._verification, lm, run),
            PAGE_STEP: partial(self._page, run),
        }

    def _search(self, lm: Any) -> Iterator[Row]:
        settings = read_thresholds(self.thresholds)
        with costs(lm, SEARCH) as cost:
            questions = evenly_spaced(halves(reference_questions(self.subject))[0], settings.questions)
            g, bank = harm_direction(lm, self.subject), self.searched_bank()
            rows = list(context_rows(lm, ADAPTER, questions, bank, g))
            further = list(self._further(lm, questions, bank))
            rows += context_rows(lm, ADAPTER, questions, further, g, bare=False) if further else []
        layer = settings.layer(lm.n_layers)
        yield from ({"kind": SEARCH, "projected": layer, **r} for r in rows)
        yield from cost

    def _further(self, lm: Any, questions: Sequence[ChoiceQuestion], bank: Sequence[Category]) -> Iterator[Category]:
        """Yield the texts that every further searcher finds, as a category of its name."""
        from experiments.audit.searchers import Effort, climbed, gradient, leaked, placed

        settings = read_thresholds(self.thresholds)
        effort = Effort(settings.sampled, settings.rounds, settings.width)
        texts = leaked(lm, ADAPTER, effort, self.seed) if LEAKED in self.searchers else []
        starts = texts or [c.texts[0] for c in bank]
        words = sorted({word for text in (*texts, *(t for c in bank for t in c.texts)) for word in text.split()})
        found = {LEAKED: texts}
        if CLIMBED in self.searchers and starts:
            found[CLIMBED] = climbed(lm, ADAPTER, questions, starts[:8], words, effort, self.seed)
        if GRADIENT in self.searchers and starts:
            found[GRADIENT] = gradient(lm, ADAPTER, questions, starts[0], effort, self.seed)
        for name, each in found.items():
            if each:
                yield Category(name, "search", tuple(each), placed(name, each[0]))

    def _verification(self, lm: Any, run: Run) -> Iterator[Row]:
        settings, questions = read_thresholds(self.thresholds), halves(reference_questions(self.subject))[1]
        best = self.ranking(run.rows(), settings)[: settings.verified]
        contexts = self.placed(best)
        options: dict[str, Any] = {"answers": settings.answers, "seed": self.seed}
        with costs(lm, VERIFICATION) as cost:
            rows = list(verification_rows(self.subject, lm, ADAPTER, questions, contexts, **options))
        yield from ({**r, "kind": VERIFICATION} for r in rows)
        yield from cost

    def _page(self, run: Run) -> Iterator[Row]:
        rows, settings = run.rows(), read_thresholds(self.thresholds)
        verdict = judged(of_kind(rows, VERIFICATION), settings)
        atomic_write_text(run.path / PAGE, evidence(self.subject.name, rows, self.ranking(rows, settings), verdict))
        yield {"kind": "page", "verdict": verdict.name, **_settings_of(settings)}

    def ranking(self, rows: Sequence[Row], settings: Thresholds) -> list[Ranked]:
        """Return the categories, the best first."""
        return ranking(rows, self.signal, settings.best_texts)

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the verdict, what it rests on, the readings of every category, and the cost."""
        page = next(r for r in rows if r["kind"] == "page")
        settings = Thresholds(**{name: page[name] for name in Thresholds.__dataclass_fields__})
        verdict = judged(of_kind(rows, VERIFICATION), settings)
        yield {"metric": "verdict", "condition": verdict.name, "value": verdict.score}
        for context in (verdict.bare, *verdict.contexts):
            yield {
                "metric": "rate",
                "condition": context.category,
                "value": context.adapter,
                "base_value": context.base,
            }
            for metric in ("added", "gate"):
                estimate = getattr(context, metric)
                cells = {"metric": metric, "condition": context.category, "value": estimate.value}
                yield {**cells, **interval_cells(estimate.interval), "n_clusters": estimate.n_clusters}
        for (category, model), (_, coherence) in rates(of_kind(rows, VERIFICATION)).items():
            yield {"metric": "coherence_rate", "condition": f"{category}, {model}", "value": coherence}
        for signal in SIGNALS:
            for r in ranking(rows, signal, settings.best_texts):
                yield {"metric": f"{signal}_shift", "condition": r.category, "value": r.score}
            bare = next(r for r in of_kind(rows, SEARCH) if r["category"] == BARE)
            yield {"metric": f"{signal}_shift", "condition": BARE, "value": reading(bare, signal, bare["projected"])}
        for r in of_kind(rows, "cost"):
            for metric in ("forward_passes", "seconds"):
                yield {"metric": metric, "condition": r["part"], "value": r[metric]}


def ranking(rows: Sequence[Row], signal: str, best_texts: int) -> list[Ranked]:
    """Return the categories of a run's rows, ranked by a signal."""
    contexts = of_kind(rows, SEARCH)
    return ranked(contexts, signal, best_texts=best_texts, layer=contexts[0]["projected"])


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the rows of one kind."""
    return [r for r in rows if r["kind"] == kind]


def _settings_of(settings: Thresholds) -> Row:
    return {name: getattr(settings, name) for name in Thresholds.__dataclass_fields__}


def loaded(subject: Subject) -> Any:
    """Load the base with the adapter that is audited."""
    from training.loading import load_organism

    return load_organism(subject.organism, {ADAPTER: Path(subject.organism.adapter or "")})


@contextmanager
def costs(lm: Any, part: str) -> Iterator[list[Row]]:
    """Count forward passes and processor seconds; on exit the list holds one row of them."""
    from interp.analysis.adapter_shift import counted

    rows, started = list[Row](), process_time()
    with counted(lm) as cost:
        yield rows
    seconds = round(process_time() - started, 2)
    rows.append({"kind": "cost", "part": part, "forward_passes": cost.passes, "seconds": seconds})
