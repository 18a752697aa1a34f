"""What is judged and what a judge says: the types that every kind of judge shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from experiments.answers.numbers import Outcome

Method = Literal["oracle", "logprob", "sampled", "recorded"]
Scores = tuple[float | None, float | None]


@dataclass(frozen=True)
class Answer:
    """An answer to judge; ``sample`` numbers the answers to one question from 0."""

    question_id: str
    text: str
    question: str = ""
    sample: int = 0


@dataclass(frozen=True)
class Verdict:
    """Scores in [0, 100]; None where the judge gave none, and then ``outcome`` says why."""

    aligned: float | None
    coherent: float | None
    method: Method
    judge: str
    outcome: Outcome = "scored"

    def __post_init__(self) -> None:
        for name, score in (("aligned", self.aligned), ("coherent", self.coherent)):
            if score is not None and not 0 <= score <= 100:
                raise ValueError(f"{name} score {score}: {self.judge} must keep to 0..100")


class Judge(Protocol):
    """Anything that turns answers into verdicts, one per answer, in order."""

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer, in their order."""
        ...

    def probe(self) -> None:
        """Refuse, before any work, a judge that cannot judge."""
        ...
