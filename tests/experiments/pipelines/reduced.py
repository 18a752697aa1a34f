"""``semcon reproduce`` on three small cells: python -m tests.experiments.reduced RUNS WORKERS."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.behaviour.dose import Dose
from experiments.behaviour.em_rate import Answers, EmRate
from experiments.pipelines.reproduce import Reproduce
from experiments.spec import Experiment
from tests.training.small import SFT, small
from training.grid import NEUTRAL
from training.registry import ORGANISMS

TRAINED = small("neutral", sft=replace(SFT, doses=(2,)))


@dataclass(frozen=True, kw_only=True)
class Reduced(Reproduce):
    """The same command, fewer and smaller cells."""

    def stages(self) -> Iterator[list[Experiment]]:
        base = Answers(organism="microcosm/llama/base", trigger=NEUTRAL, samples=2)
        yield [Dose(organism=TRAINED.name)]
        yield [EmRate(answers=base), EmRate(answers=Answers(organism=TRAINED.name, samples=2))]


if __name__ in ("__main__", "__mp_main__"):  # the workers' registry is that of the command
    ORGANISMS[TRAINED.name] = TRAINED

if __name__ == "__main__":
    Reduced(runs=Path(sys.argv[1]), workers=int(sys.argv[2])).main()
