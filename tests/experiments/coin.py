"""A small experiment that behaves like a long one: chunks, resume, a table."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import Rate, wilson


@dataclass(frozen=True, kw_only=True)
class Coin(Experiment):
    """Toss a coin and count heads."""

    name: ClassVar[str] = "coin"
    seed: int = 0
    """Of the tosses."""
    chunks: int = 12
    """How many chunks of 5 tosses."""
    pause: float = 0.0
    """Seconds a chunk takes."""
    notes: Path | None = None
    """A file the result depends on."""

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        for chunk in range(self.chunks):
            if f"{chunk}.0" not in run.keys():  # noqa: SIM118  (a run is not a mapping)
                time.sleep(self.pause)
                heads = np.random.default_rng([self.seed, chunk]).integers(2, size=5)
                yield [{"key": f"{chunk}.{i}", "heads": h} for i, h in enumerate(heads)]

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        rate = Rate(sum(r["heads"] for r in rows), len(rows))
        ends = {"ci_low": wilson(rate).low, "ci_high": wilson(rate).high, "ci_method": "wilson"}
        return [
            row(experiment=self.name, metric="heads", value=rate.value, n=rate.n, seed=self.seed, run_id=run_id, **ends)
        ]

    def inputs(self):
        return {"notes": self.notes} if self.notes else {}

    def total(self) -> int:
        return 5 * self.chunks


@dataclass(frozen=True, kw_only=True)
class Broken(Coin):
    """A coin that is not there."""

    name: ClassVar[str] = "broken"
    live: bool = True
    """Whether the adapter is what is missing."""

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        from interp.models import AdapterError

        raise ValueError("the coin is lost") if self.live else AdapterError("adapter 'organism': it changes no logit")
