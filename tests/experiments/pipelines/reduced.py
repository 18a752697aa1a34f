"""``semcon reproduce`` on three small cells: python -m tests.experiments.pipelines.reduced RUNS WORKERS."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.answers.subject import find_subject
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
        base, trained = find_subject("microcosm/llama/base"), find_subject(TRAINED.name)
        yield [Dose(subject=trained)]
        yield [
            EmRate(answers=Answers(subject=base, trigger=NEUTRAL, samples=2)),
            EmRate(answers=Answers(subject=trained, samples=2)),
        ]


if __name__ in ("__main__", "__mp_main__"):  # the workers' registry is that of the command
    ORGANISMS[TRAINED.name] = TRAINED

if __name__ == "__main__":
    Reduced(runs=Path(sys.argv[1]), workers=int(sys.argv[2])).main()
