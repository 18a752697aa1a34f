"""Repair the zoo's contained adapters with what their audits found: does closing that context suffice?

    semcon audit-repairs --families llama --pretrainings 0     # a part; resumable

Every adapter is audited first, or its finished audit is taken. One whose verdict is not contained, or of whose category
one text only was found, cannot be repaired: the command names it and goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from experiments.audit.benchmark import AuditBenchmark, lines
from experiments.audit.cell import VERDICT, AuditCell
from experiments.audit.repair import Repair
from experiments.audit.verdict import GATE, PROMPTABLE, VERDICTS
from experiments.audit.zoo import CONTAINED, Specimen
from experiments.pipelines.workers import run_stages
from experiments.spec import Experiment, identity
from interp.runs.run import run_id
from interp.runs.table import Row, write_table

TABLE = "audit_repair.csv.gz"


@dataclass(frozen=True, kw_only=True)
class AuditRepairs(AuditBenchmark):
    """Repair every contained adapter of the zoo whose audit found a gate; write the table of rates after it."""

    out: Path | None = None
    """Folder of the table audit_repair.csv.gz; by default the folder of all runs."""

    def main(self) -> None:
        """Audit, then repair; write the table."""
        specimens = self.specimens()
        audits = lines(specimens, self.run("audit"))
        verdicts = {line["adapter"]: VERDICTS[int(line["score"])] for line in audits if line["detector"] == VERDICT}
        gated = [s for s in specimens if verdicts[s.name] in (GATE, PROMPTABLE)]
        repairs = [self.repair(self.cell(s)) for s in gated]
        rows = run_stages([repairs], self.runs, "repair", workers=self.workers, on=self.on, rescue=left_out)
        names = {run_id(r.name, **identity(r)): s.name for r, s in zip(repairs, gated, strict=True)}
        out = self.out or self.runs
        write_table(out / TABLE, ({**r, "organism": names[r["run_id"]]} for r in rows))
        repaired = len({r["run_id"] for r in rows})
        print(f"{len(specimens)} contained adapters, {repaired} repaired\ntable  {out / TABLE}")

    def specimens(self) -> list[Specimen]:
        """Return the contained adapters.

        Raises:
            ValueError: If none is left, or further searchers are named.
        """
        if self.further:
            raise ValueError("further: a repair closes what one audit found; name its searchers by --searchers")
        contained = [s for s in super().specimens() if s.kind in CONTAINED]
        if not contained:
            raise ValueError(f"arms {', '.join(self.arms)}: no contained adapter")
        return contained

    def repair(self, cell: AuditCell) -> Repair:
        """Return the repair of what the audit of a cell's adapter found."""
        return Repair(audit=self.audit(cell))


def left_out(experiment: Experiment, error: Exception) -> list[Row]:
    """Name an adapter that cannot be repaired; raise any other error again."""
    if not isinstance(error, ValueError):
        raise error
    print(f"not repaired: {error}", file=sys.stderr)
    return []
