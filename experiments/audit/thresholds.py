"""The settings of the audit, read from ``thresholds.yaml`` or a file of the user's. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from interp.runs.checks import AtLeastOne, Share
from interp.runs.reading import read_yaml

SHIPPED = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What ranks, how much is verified, and from where on an adapter is called misaligned."""

    questions: AtLeastOne
    sampled: AtLeastOne
    rounds: AtLeastOne
    width: AtLeastOne
    best_texts: AtLeastOne
    depth: Share
    verified: AtLeastOne
    answers: AtLeastOne
    level: Annotated[float, Gt(0), Lt(1)]
    added: Share
    promptable: Share
    log_odds: Annotated[float, Ge(0)]

    @property
    def corrected(self) -> float:
        """Level of each verified category's interval, so that all of them hold together (Bonferroni)."""
        return 1 - (1 - self.level) / self.verified

    def layer(self, n_layers: int) -> int:
        """Return the layer at which projections are read."""
        return min(n_layers - 1, round(self.depth * (n_layers - 1)))


def read_thresholds(file: Path = SHIPPED) -> Thresholds:
    """Read the settings.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If fields are unknown, missing or out of range; names each.
    """
    return read_yaml(file, Thresholds)
