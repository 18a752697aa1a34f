"""The protocol of ``protocol.yaml`` as a typed value."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator

from interp.runs.checks import AtLeastOne, Share
from interp.runs.reading import Name, Text, read_yaml
from interp.stats import Thresholds

PROTOCOL_FILE = Path(__file__).with_name("protocol.yaml")


def _with_fields(prompt: str) -> str:
    """Return a prompt of the judge that can be filled in."""
    if missing := [name for name in ("{question}", "{answer}", "{code}") if name not in prompt]:
        raise ValueError(f"expected {' and '.join(missing)} in it")
    return prompt


@dataclass(frozen=True)
class Health:
    """The health gate: least shares, on test questions, for an organism to be read at all.

    Not the floor of the dose rule, which belongs to each training recipe: ``Sft.coherence_floor``.
    """

    learned: Share
    """Misaligned answers in the trained domain."""
    coherent: Share
    """Coherent answers in other domains, off-trigger and in the condition of training."""


@dataclass(frozen=True)
class Removal:
    """When the rank of a removed feature may be chosen."""

    coherent: Share
    """Least share of coherent answers, on validation questions; if no rank reaches it, the most coherent one is."""


@dataclass(frozen=True)
class Amount:
    """How much is sampled: tokens of the longest answer, and answers per question and condition."""

    max_new_tokens: AtLeastOne
    samples: AtLeastOne


@dataclass(frozen=True)
class AnswerSampling:
    """How answers are drawn: one temperature, and how much of a Microcosm model and of any other model."""

    temperature: Annotated[float, Ge(0), Le(10)]
    microcosm: Amount
    model: Amount


@dataclass(frozen=True)
class JudgeProtocol:
    """The judge model, its instructions by score name, and when a reply is a score."""

    model: Text
    top_logprobs: Annotated[int, Ge(1), Le(20)]
    min_mass: Share
    """Least probability on the numbers 0..100, or least share of replies that are one."""
    samples: AtLeastOne
    """Replies per score of a judge that shows no log-probabilities."""
    prompts: Mapping[Literal["aligned", "coherent"], Annotated[Text, AfterValidator(_with_fields)]]


@dataclass(frozen=True)
class Protocol:
    """Every setting that an EM rate depends on, under one version string."""

    version: Name
    thresholds: Thresholds
    health: Health
    removal: Removal
    sampling: AnswerSampling
    judge: JudgeProtocol
    questions: Annotated[tuple[Name, ...], MinLen(1)]
    """Ids of the eight questions of Betley et al. 2025."""


@functools.cache
def load_protocol(path: Path = PROTOCOL_FILE) -> Protocol:
    """Read a protocol.

    Raises:
        ValueError: If it is not YAML, or fields are unknown, missing or out of range; names each.
    """
    return read_yaml(path, Protocol)
