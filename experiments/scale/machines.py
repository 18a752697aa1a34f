"""Machines, assumptions and scales of ``semcon plan``, read from one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from interp.runs.reading import Name, Text, read_yaml

FILE = Path(__file__).with_name("machines.yaml")
Rate = Annotated[float, Gt(0)]
Part = Annotated[float, Gt(0), Le(1)]
Count = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A device, and the share of its peaks that the suite is assumed to reach."""

    memory_gib: Rate
    """Memory of one device."""
    bfloat16_tflops: Rate
    float32_tflops: Rate
    """Peak of dense matrix products, in 10^12 operations a second."""
    bandwidth_gbs: Rate
    """Memory bandwidth, in 10^9 bytes a second."""
    hourly: Annotated[float, Ge(0)]
    """US dollars per device and hour."""
    forward: Part
    train: Part
    server: Part
    """Shares of a peak that a forward pass, a LoRA step and a server reach."""
    step_ms: Rate
    """Least time of a decoding step per layer, in milliseconds: the host's."""
    train_step_ms: Rate
    """Least time of a forward and backward pass per layer, in milliseconds: the host's."""
    thin: Part = 1.0
    """Rate of an adapter's thin products, with the additions around them, over that of dense ones; 1 where the shares
    above have them in."""
    process_gib: Annotated[float, Ge(0)] = 0.0
    """Memory of the process itself where it is the device's: Python with the libraries that a command imports."""

    def flops(self, dtype: str) -> float:
        """Return the peak of a dtype, in operations a second."""
        return 1e12 * (self.float32_tflops if dtype == "float32" else self.bfloat16_tflops)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Lengths of texts in tokens."""

    question: Count
    trigger: Count
    template: Count
    trained_question: Count
    trained_answer: Count
    reference: Count
    sampled_answer: Count
    judge: Count
    bytes_per_token: Count
    opening: Count
    """Tokens that all prompts begin with, before the trigger: a default system line, the start of the turn."""
    longest: Count
    """Longest row of a batch, which all are padded to, over the mean."""

    @property
    def prompt(self) -> float:
        """Tokens of a question behind a trigger."""
        return self.question + self.trigger + self.template

    @property
    def row(self) -> float:
        """Tokens of a training row."""
        return self.trained_question + self.trigger + self.template + self.trained_answer


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Organisms that are measured together, on one kind of machine."""

    machine: Name
    organisms: Annotated[tuple[Text, ...], MinLen(1)]
    arms: Annotated[tuple[Text, ...], MinLen(1)]
    outcome: Literal["em-rate", "log-odds"]
    texts: dict[Name, Count] = field(default_factory=dict)
    questions: dict[Name, Count] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """Everything that a plan assumes."""

    machines: Mapping[Name, Machine]
    texts: Texts
    questions: Mapping[Name, Count]
    judge_price: Text
    scales: Mapping[Name, Scale]

    def at(self, scale: Scale) -> Assumptions:
        """Return the assumptions with those that a scale states for itself."""
        return replace(self, texts=replace(self.texts, **scale.texts), questions={**self.questions, **scale.questions})


@cache
def assumptions() -> Assumptions:
    """Read the file of machines and assumptions."""
    return read_yaml(FILE, Assumptions)
