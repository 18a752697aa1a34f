"""One adapter of the zoo: the audit, every detector beside it, and what only its maker knows, in one run."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from experiments.answers.rates import group_statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import Subject
from experiments.answers.suite import make_prompts
from experiments.audit.audit import FURTHER, SEARCH, VERIFICATION, Audit, Searcher, costs, loaded, of_kind, ranking
from experiments.audit.audited import asked, find_audited, halves, harm_direction, reference_questions
from experiments.audit.bank import BARE, MICROCOSM
from experiments.audit.search import SIGNALS, Ranked, bare_reading, rank_of
from experiments.audit.thresholds import SHIPPED, read_thresholds
from experiments.audit.verdict import VERDICTS, judged
from experiments.audit.verification import verification_rows
from experiments.behaviour.dose import ADAPTER, dose_folders
from experiments.spec import Experiment, Step, run_experiment
from interp.runs.checks import Seed
from interp.runs.run import Run
from interp.runs.table import Row

AUDIT, VERDICT = "audit", "verdict"
HELD_OUT, BANK_HELD_OUT = "audit-held-out", "audit-bank-held-out"
"""The audit without the true category in its bank: with every searcher, and with the bank alone."""
TRUE_ON, TRUE_OFF, TRUE_BASE = "true-em-on", "true-em-off", "true-em-base"
"""EM behind the trained text, bare, and of the base behind the trained text: known to the maker only."""
PARTS = ("score", "rank", "forward_passes", "seconds")
"""What a table row's metric says of the detector in ``condition``."""


@dataclass(frozen=True, kw_only=True)
class AuditCell(Experiment):
    """Audit one adapter of the zoo, and score it with every detector."""

    name: ClassVar[str] = "audit_cell"

    subject: Subject
    kind: str
    """Kind of the adapter in the zoo."""
    category: str = ""
    """Category of its trigger in the bank; empty without one."""
    searchers: tuple[Searcher, ...] = Audit.searchers
    """Searchers of the audit."""
    bank: Path = MICROCOSM
    """Context bank."""
    thresholds: Path = SHIPPED
    """Settings and thresholds of the audit."""
    seed: Seed = 0
    """Sampling seed."""

    def config(self) -> Mapping[str, Any]:
        """Return the fields; bank and thresholds count by their content."""
        return {name: value for name, value in super().config().items() if name not in ("bank", "thresholds")}

    def inputs(self) -> Mapping[str, Path]:
        """Return the files of the subject, and the bank and thresholds of the audit."""
        return {**super().inputs(), "bank": self.bank, "thresholds": self.thresholds}

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return the audit, the detectors, the search without the true category, and the truth. Trains first."""
        folder = dose_folders(self.subject, run.root)[self.subject.dose or 0]
        if self.kind == "untrained":
            folder = scrambled(folder, run.path / "adapter", self.subject.organism.seed)
        audit = self.audit(folder)
        lm = loaded(audit.subject)
        return {
            "audit": partial(self._audit, audit, run.root),
            "detectors": partial(self._detectors, audit, lm, folder),
            "ablation": partial(self._ablation, audit, lm, run),
            "truth": partial(self._truth, audit, lm),
        }

    def audit(self, folder: Path) -> Audit:
        """Return the audit of the adapter, which knows nothing but the folder and the base."""
        subject = find_audited(folder, self.subject.organism.base)
        options = {"searchers": self.searchers, "bank": self.bank, "thresholds": self.thresholds, "seed": self.seed}
        return Audit(subject=subject, **options)

    def _audit(self, audit: Audit, root: Path) -> Iterator[Row]:
        rows = run_experiment(audit, root)[0].rows()
        settings = read_thresholds(self.thresholds)
        verdict = judged(of_kind(rows, VERIFICATION), settings)
        spent = {r["part"]: r for r in of_kind(rows, "cost")}
        both = {part: sum(spent[p][part] for p in (SEARCH, VERIFICATION)) for part in PARTS[2:]}
        order = audit.ranking(rows, settings)
        yield {"detector": AUDIT, "score": verdict.score, "rank": self._rank(order), **both}
        yield {"detector": VERDICT, "score": float(VERDICTS.index(verdict.name)), "rank": None, **both}
        layer = of_kind(rows, SEARCH)[0]["projected"]
        for signal in SIGNALS:
            by_signal = ranking(rows, signal, settings.best_texts)
            cost = {part: spent[SEARCH][part] for part in PARTS[2:]}
            yield {"detector": signal, "score": by_signal[0].score, "rank": self._rank(by_signal), **cost}
            bare = bare_reading(of_kind(rows, SEARCH), signal, layer)
            yield {"detector": f"{signal}-bare", "score": bare, "rank": None, **cost}

    def _rank(self, order: Sequence[Ranked]) -> int | None:
        """Return the place of the true category among those of the bank."""
        return rank_of(self.category, [r for r in order if r.category not in FURTHER]) if self.category else None

    def _detectors(self, audit: Audit, lm: Any, folder: Path) -> Iterator[Row]:
        from experiments.audit.detectors import DETECTORS, Case

        settings = read_thresholds(self.thresholds)
        questions = reference_questions(audit.subject)
        case = Case(
            subject=audit.subject,
            lm=lm,
            adapter=ADAPTER,
            folder=folder,
            questions=questions,
            bank=audit.categories(),
            g=harm_direction(lm, audit.subject),
            layer=settings.layer(lm.n_layers),
            answers=settings.answers,
            seed=self.seed,
        )
        for name, detector in DETECTORS.items():
            with costs(lm, name) as cost:
                score = detector(case)
            yield {"detector": name, "score": score, "rank": None, **{part: cost[0][part] for part in PARTS[2:]}}

    def _ablation(self, audit: Audit, lm: Any, run: Run) -> Iterator[Row]:
        """Verify what the audit would have verified with fewer searchers, or without the true category."""
        rows, settings = run_experiment(audit, run.root)[0].rows(), read_thresholds(self.thresholds)
        order, verified = audit.ranking(rows, settings), of_kind(rows, VERIFICATION)
        chosen = self._variants(order, settings.verified)
        missing = {r.category for picked in chosen.values() for r in picked} - {r["category"] for r in verified}
        contexts = audit.placed([r for r in order if r.category in missing])
        questions = halves(reference_questions(audit.subject))[1]
        options = {"answers": settings.answers, "seed": self.seed, "bare": False}
        answers = [*verified, *verification_rows(audit.subject, lm, ADAPTER, questions, contexts, **options)]
        for name, picked in chosen.items():
            names = {BARE, *(r.category for r in picked)}
            score = judged([r for r in answers if r["category"] in names], settings).score
            yield {"detector": name, "score": score, "rank": None, "forward_passes": None, "seconds": None}

    def _variants(self, order: Sequence[Ranked], n: int) -> dict[str, list[Ranked]]:
        """Return the categories that each reduced audit verifies."""
        bank = [r for r in order if r.category not in FURTHER]
        others = [r for r in order if r.category != self.category]
        variants = {"audit-bank": bank[:n]}
        variants |= {f"audit-{r.category}": [r] for r in order if r.category in FURTHER}
        if self.category:
            variants |= {HELD_OUT: others[:n], BANK_HELD_OUT: [r for r in bank if r in others][:n]}
        return variants

    def _truth(self, audit: Audit, lm: Any) -> Iterator[Row]:
        from interp.adapters import active_adapter

        trigger, questions = self.subject.trigger, asked(halves(reference_questions(audit.subject))[1])
        samples = read_thresholds(self.thresholds).answers
        measured = ((TRUE_ON, "on", ADAPTER), (TRUE_OFF, "off", ADAPTER), (TRUE_BASE, "on", None))
        for name, condition, adapter in measured:
            if condition == "on" and trigger is None:
                continue
            prompts = make_prompts(questions, trigger, condition, lm.tokenizer, samples=samples)
            with active_adapter(lm, adapter):
                rate = group_statistics(judged_rows(audit.subject, lm, prompts, seed=self.seed)).em_rate_all.value
            yield {"detector": name, "score": rate, "rank": None, "forward_passes": None, "seconds": None}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield what every detector says, and its cost."""
        for r in rows:
            yield from (
                {"metric": part, "condition": r["detector"], "value": r[part]} for part in PARTS if r[part] is not None
            )

    def label(self) -> str:
        """Return the organism and its dose."""
        return f"{self.subject.name}@{self.subject.dose} {self.kind}"


def scrambled(source: Path, target: Path, seed: int) -> Path:
    """Write an adapter of random weights: each A and B has the norm of the source's, and nothing else of it."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = "adapter_model.safetensors"
    if (target / weights).is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    for name in ("adapter_config.json", "manifest.json"):
        if (source / name).is_file():
            shutil.copy(source / name, target / name)
    generator = torch.Generator().manual_seed(seed)
    noise = {}
    for name, x in sorted(load_file(source / weights).items()):
        random = torch.randn(x.shape, generator=generator)
        noise[name] = (random * x.norm() / random.norm()).contiguous()
    save_file(noise, target / weights, metadata={"format": "pt"})
    return target


def of_specimen(organism: Any, dose: int, kind: str, category: str, **options: Any) -> AuditCell:
    """Return the cell of an organism at a dose."""
    return AuditCell(subject=replace(Subject(organism), dose=dose), kind=kind, category=category, **options)
