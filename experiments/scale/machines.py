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
    kept: Annotated[float, Ge(0)] = 0.0
    """Memory that the C allocator keeps after it was freed, as a share of what a training step takes beside the
    weights; an accelerator's allocator uses it again."""
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
    def bare(self) -> float:
        """Tokens of a question without a text beside it."""
        return self.question + self.template

    @property
    def prompt(self) -> float:
        """Tokens of a question behind a trigger."""
        return self.bare + self.trigger

    @property
    def exchange(self) -> float:
        """Tokens of a training question with its answer, without a trigger."""
        return self.trained_question + self.template + self.trained_answer

    @property
    def past(self) -> float:
        """Tokens of such an exchange before a question: the template opens once."""
        return self.exchange - self.opening

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
    all_questions: Mapping[Name, Count] = field(default_factory=dict)
    """Questions of every split where fewer are asked: the dose is chosen on all of them."""

    @property
    def whole(self) -> Mapping[Name, Count]:
        """All questions of every split."""
        return self.all_questions or self.questions

    def of_rows(self) -> Assumptions:
        """Return the assumptions with training rows in place of the questions and their references."""
        texts = self.texts
        return replace(self, texts=replace(texts, question=texts.trained_question, reference=texts.trained_answer))

    def at(self, scale: Scale) -> Assumptions:
        """Return the assumptions with those that a scale states for itself."""
        return replace(self, texts=replace(self.texts, **scale.texts), questions={**self.questions, **scale.questions})


@cache
def assumptions() -> Assumptions:
    """Read the file of machines and assumptions."""
    return read_yaml(FILE, Assumptions)
