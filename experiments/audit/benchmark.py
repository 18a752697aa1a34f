"""Measure the audit on a zoo of adapters of known kind, beside the detectors in use today.

    semcon audit-benchmark --families llama --pretrainings 0     # a part; resumable
    semcon microcosm --seed 1 --no-robust                        # a pretraining that is not shipped, built first

The table audit.csv.gz has one line per adapter and detector. docs/audit.md reads it. The hypotheses were written
before: docs/hypotheses-audit.md. audit_misses.md has a page of evidence for every way in which a verdict was missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from annotated_types import MinLen

from experiments.answers.rates import group_statistics
from experiments.audit.audit import FURTHER, PAGE, VERIFICATION, Audit, Searcher, of_kind, ranking
from experiments.audit.cell import AUDIT, PARTS, AuditCell, of_specimen
from experiments.audit.search import LEVEL, rank_of
from experiments.audit.thresholds import SHIPPED, read_thresholds
from experiments.audit.verdict import ADAPTER, BASE
from experiments.audit.zoo import CONTAINED, Specimen, zoo
from experiments.behaviour.dose import dose_folders
from experiments.pipelines.workers import Pipeline
from experiments.spec import Experiment, identity, run_experiment
from interp.runs.checks import NotNegative
from interp.runs.files import atomic_write_bytes, atomic_write_text, csv_text, gzipped
from interp.runs.run import run_id
from interp.runs.table import Row
from training.grid import FAMILIES
from training.microcosm.world import pretraining_folder
from training.references import base_path
from training.registry import organism_of

TABLE, MISSES = "audit.csv.gz", "audit_misses.md"
MISSES_HEAD = """# Audits with another verdict than that of their adapter's kind

What does the [audit](audit.md) look like where its verdict differs from the kind of the adapter? For every pair of kind
and verdict this page has the first such adapter of the test split, with its page of evidence as `semcon audit` wrote
it. The audit page counts all of them. `semcon audit-benchmark` writes this page.
"""
FIRST, FIRST_BASE = "first-em", "first-em-base"
"""EM on held-out questions behind the category of the bank that ranks first, of the adapter and of its base."""
COLUMNS = (
    *("adapter", "family", "pretraining", "seed", "split", "kind", "detector", "score", "true_category", "rank"),
    *("forward_passes", "seconds"),
)


@dataclass(frozen=True, kw_only=True)
class AuditBenchmark(Pipeline):
    """Audit every adapter of the zoo; write the table of detectors."""

    pretrainings: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0, 1, 2, 3)
    """Seeds of the bases' pretraining; all but 0 are built with `semcon microcosm --seed N --no-robust`."""
    seeds: Annotated[tuple[NotNegative, ...], MinLen(1)] = (0,)
    """Fine-tuning seeds."""
    arms: tuple[str, ...] = ()
    """Triggers to include, by the arm in the adapter's name (baseline is none); by default all."""
    split: Literal["all", "development", "test"] = "all"
    """Adapters to audit: those on which settings may be chosen, those that they are tested on, or all."""
    searchers: Annotated[tuple[Searcher, ...], MinLen(1)] = Audit.searchers
    """Searchers of every audit."""
    further: tuple[Searcher, ...] = ()
    """Searchers that a second audit of every adapter has beside these; what they find alone joins the table."""
    thresholds: Annotated[Path, tyro.conf.arg(help_behavior_hint="(default: the shipped thresholds.yaml)")] = SHIPPED
    """Settings and thresholds of the audit."""
    finished: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Train and audit nothing: write the table of the adapters whose runs are finished."""
    out: Path | None = None
    """Folder of the table audit.csv.gz; by default the folder of all runs."""

    def __post_init__(self) -> None:
        """Refuse also a further searcher that every audit has already.

        Raises:
            ValueError: If there is one, or a field is outside its range.
        """
        super().__post_init__()
        if twice := [name for name in self.further if name in self.searchers]:
            raise ValueError(f"further {', '.join(twice)}: already among the searchers")

    def main(self) -> None:
        """Train and audit every adapter, then write the table."""
        specimens = self.specimens()
        for specimen in specimens:
            base_path(specimen.cell.base)  # a missing base is reported before any work
        rows, out = self.run("audit"), self.out or self.runs
        opened = [line for s in specimens if s.kind in CONTAINED for line in self.of_search(s)]
        table = [*lines(specimens, rows), *opened, *self.alone()]
        atomic_write_bytes(out / TABLE, gzipped(csv_text(table).encode()))
        atomic_write_text(out / MISSES, self.misses(out / TABLE, specimens))
        print(f"{len(specimens)} adapters\ntable  {out / TABLE}\nmisses {out / MISSES}")

    def specimens(self) -> list[Specimen]:
        """Return the adapters.

        Raises:
            ValueError: If none is left.
        """
        every = zoo(self.families or FAMILIES, self.pretrainings, self.seeds)
        splits = ("development", "test") if self.split == "all" else (self.split,)
        chosen = [s for s in every if s.split in splits and (not self.arms or s.cell.arm in self.arms)]
        if not chosen:
            raise ValueError(f"split {self.split}: no adapter on pretrainings {', '.join(map(str, self.pretrainings))}")
        if self.finished and not (chosen := [s for s in chosen if self._is_finished(s)]):
            raise ValueError(f"--finished: no run of the benchmark is finished in {self.runs}")
        return chosen

    def _is_finished(self, specimen: Specimen) -> bool:
        if specimen.cell.pretraining and not pretraining_folder(specimen.cell.pretraining).is_dir():
            return False
        cell = self.cell(specimen)
        return (self.runs / cell.name / run_id(cell.name, **identity(cell)).rpartition("-")[2] / "table.csv").is_file()

    def cell(self, specimen: Specimen) -> AuditCell:
        """Return the experiment of an adapter."""
        options = {"searchers": self.searchers, "thresholds": self.thresholds}
        s = specimen
        return of_specimen(organism_of(s.cell), s.dose, s.kind, s.category, **options)

    def of_search(self, specimen: Specimen) -> Iterator[dict[str, Any]]:
        """Yield what an audit's rows say beside its verdict: a ranking by level, and whether the first opens it."""
        audit, settings = self.audit(self.cell(specimen)), read_thresholds(self.thresholds)
        rows = run_experiment(audit, self.runs)[0].rows()
        level, first = (
            [r for r in ranking(rows, signal, settings.best_texts) if r.category not in FURTHER]
            for signal in (LEVEL, Audit.signal)
        )
        if not first:  # without the bank there is no category to name
            return
        answers = [r for r in of_kind(rows, VERIFICATION) if r["category"] == first[0].category]
        scores: dict[str, dict[str, Any]] = {
            LEVEL: {"score": level[0].score, "rank": rank_of(specimen.category, level)}
        }
        for detector, model in ((FIRST, ADAPTER), (FIRST_BASE, BASE)):
            same = [r for r in answers if r["model"] == model]
            scores[detector] = {"score": group_statistics(same).em_rate_all.value}
        for detector, cells in scores.items():
            yield dict(zip(COLUMNS, _line(specimen, detector, cells), strict=True))

    def misses(self, table: Path, specimens: Sequence[Specimen]) -> str:
        """Return the evidence pages of the first test adapter of every kind that has a verdict of another kind."""
        from figures.audited import VERDICTS, missed, read_audit

        wrong = {(a.kind, a.scores["verdict"]): a for a in reversed(missed(read_audit(table)))}
        pages = [MISSES_HEAD]
        for (kind, verdict), adapter in sorted(wrong.items()):
            audit = self.audit(self.cell(next(s for s in specimens if s.name == adapter.name)))
            page = (run_experiment(audit, self.runs)[0].path / PAGE).read_text(encoding="utf-8")
            _, _, rest = page.partition("\n")
            head = f"## {adapter.name}\n\n*{kind}, called {VERDICTS[int(verdict)]}.*\n"
            pages.append(head + rest.replace("\n## ", "\n### "))
        return "\n".join(pages)

    def alone(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the further searchers, each by itself."""
        if self.further:
            second = replace(self, searchers=(*self.searchers, *self.further), further=())
            detectors = {f"{AUDIT}-{searcher}" for searcher in self.further}
            yield from (r for r in lines(second.specimens(), second.run("audit")) if r["detector"] in detectors)

    def audit(self, cell: AuditCell) -> Audit:
        """Return the audit of a cell's adapter, which is trained if it is missing."""
        return cell.audit(dose_folders(cell.subject, self.runs)[cell.subject.dose or 0])

    def cells(self) -> list[AuditCell]:
        """Return one experiment per adapter."""
        return [self.cell(s) for s in self.specimens()]

    def stages(self) -> Iterator[list[Experiment]]:
        """Yield all adapters: none needs another."""
        yield list(self.cells())


def lines(specimens: Sequence[Specimen], rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the table's lines: one per adapter and detector, in the order of the zoo."""
    groups: list[list[Row]] = []
    for r in rows:  # rows of one run stand together; two runs never share an id
        if not groups or groups[-1][0]["run_id"] != r["run_id"]:
            groups.append([])
        groups[-1].append(r)
    for specimen, group in zip(specimens, groups, strict=True):
        by_detector: dict[str, dict[str, Any]] = {}
        for r in group:
            by_detector.setdefault(r["condition"], {})[r["metric"]] = r["value"]
        for detector, cells in by_detector.items():
            yield dict(zip(COLUMNS, _line(specimen, detector, cells), strict=True))


def _line(s: Specimen, detector: str, cells: dict[str, Any]) -> tuple[Any, ...]:
    score, rank, passes, seconds = (cells.get(part, "") for part in PARTS)
    counts = [int(x) if x != "" else "" for x in (rank, passes)]
    about = (s.name, s.cell.family, s.cell.pretraining, s.cell.seed, s.split, s.kind)
    return (*about, detector, score, s.category, counts[0], counts[1], seconds)
