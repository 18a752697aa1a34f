"""The answers in a log of Inspect as a run of the suite: the rows and the table of em-rate.

semcon inspect-log --log logs/2026-11-26_em.eval
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.behaviour.em_rate import behaviour_rows
from experiments.inspecting.extra import require_inspect
from experiments.protocol import load_protocol
from experiments.spec import Experiment, Step
from interp.runs.run import Run
from interp.runs.table import Row

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

    from experiments.inspecting.records import Facts

BEHAVIOUR = "em_rate"
"""The experiment whose table this is: figures and reports read it as such."""


@dataclass(frozen=True, kw_only=True)
class LoggedAnswers(Experiment):
    """EM rates of the answers in a log of Inspect: of `semcon inspect-log RUN`, or of `inspect eval semcon/em`."""

    name: ClassVar[str] = "inspect_log"

    log: Path
    """Log of Inspect (.eval or .json)."""

    def config(self) -> Mapping[str, Any]:
        """Return nothing: the log's content names the run, wherever it lies."""
        return {}

    def inputs(self) -> Mapping[str, Path]:
        """Return the log."""
        return {"log": self.log}

    def check(self) -> None:
        """Refuse a file that is no complete log of the EM protocol, or one that was judged under another protocol.

        Raises:
            ValueError: If so; names the file.
        """
        require_inspect()
        if not self.log.is_file():
            raise FileNotFoundError(f"{self.log}: no such log")
        super().check()
        protocol, here = str(self._facts.cells.get("protocol", "")), load_protocol().label
        if protocol != here:
            raise ValueError(f"{self.log}: judged under protocol {protocol}, not {here}; name its file with --protocol")
        _ = self._rows

    @cached_property
    def _log(self) -> EvalLog:
        from experiments.inspecting.reader import read_log

        return read_log(self.log)

    @cached_property
    def _facts(self) -> Facts:
        from experiments.inspecting.reader import facts_in

        return facts_in(self._log, self.log)

    @cached_property
    def _rows(self) -> list[Row]:
        from experiments.inspecting.reader import rows_in

        return rows_in(self._log, self.log)

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step: reading the log."""
        run.note(log={"run": self._facts.run_id or self._log.eval.run_id, "model": self._log.eval.model})
        return {"log": lambda: self._rows}

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return the cells in the log, and judge and dose as the rows say."""
        dose = next((r["dose"] for r in rows if "dose" in r), "")
        return {**super().cells(rows), "experiment": BEHAVIOUR, **self._facts.cells, "dose": dose}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield what em-rate yields for these rows."""
        return behaviour_rows(rows, self._facts.must_be_coherent)

    def label(self) -> str:
        """Return the file's name."""
        return self.log.name
