"""A small experiment that behaves like a long one: steps, resume, a table."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from experiments.spec import Experiment, Step
from interp.runs.checks import NotNegative
from interp.runs.run import Run
from interp.runs.table import Row, interval_cells
from interp.stats import Rate, wilson


@dataclass(frozen=True, kw_only=True)
class Coin(Experiment):
    """Toss a coin and count heads."""

    name: ClassVar[str] = "coin"
    seed: int = 0
    """Seed of the tosses."""
    chunks: NotNegative = 12
    """How many steps of 5 tosses."""
    pause: float = 0.0
    """Seconds that a step takes."""
    notes: Path | None = None
    """A file the result depends on."""

    def steps(self, run: Run) -> Mapping[str, Step]:
        return {f"tosses {chunk}": partial(self._tosses, chunk) for chunk in range(self.chunks)}

    def _tosses(self, chunk: int) -> Iterator[Row]:
        time.sleep(self.pause)
        for heads in np.random.default_rng([self.seed, chunk]).integers(2, size=5):
            yield {"heads": heads}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        rate = Rate(sum(r["heads"] for r in rows), len(rows))
        yield {"metric": "heads", "value": rate.value, "n": rate.n, **interval_cells(wilson(rate))}

    def cells(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        return {**super().cells(rows), "seed": self.seed}

    def inputs(self) -> Mapping[str, Path]:
        return {"notes": self.notes} if self.notes else {}

    def total(self) -> int:
        return 5 * self.chunks


@dataclass(frozen=True, kw_only=True)
class Broken(Coin):
    """A coin that is not there."""

    name: ClassVar[str] = "broken"
    live: bool = True
    """Whether the coin is what is missing, not an adapter."""

    def steps(self, run: Run) -> Mapping[str, Step]:
        from interp.models import AdapterError

        raise ValueError("the coin is lost") if self.live else AdapterError("adapter 'organism': it changes no logit")
