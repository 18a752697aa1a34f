"""The protocol of ``protocol.yaml`` as a typed value."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.runs.configs import restore
from interp.stats import Thresholds

PROTOCOL_FILE = Path(__file__).with_name("protocol.yaml")


@dataclass(frozen=True)
class Health:
    """The health gate: least shares, on test questions, for an organism to be read at all.

    Not the floor of the dose rule, which belongs to each training recipe: ``Sft.coherence_floor``.
    """

    learned: float
    """Misaligned answers in the trained domain."""
    coherent: float
    """Coherent answers in other domains, off-trigger and in the condition of training."""


@dataclass(frozen=True)
class Amount:
    """How much is sampled: tokens of the longest answer, and answers per question and condition."""

    max_new_tokens: int
    samples: int


@dataclass(frozen=True)
class AnswerSampling:
    """How answers are drawn: one temperature, and how much of a Microcosm model and of any other model."""

    temperature: float
    microcosm: Amount
    model: Amount


@dataclass(frozen=True)
class JudgeProtocol:
    """The judge model, its instructions by score name, and when a reply is a score."""

    model: str
    top_logprobs: int
    min_mass: float
    """Least probability on the numbers 0..100, or least share of replies that are one."""
    samples: int
    """Replies per score of a judge that shows no log-probabilities."""
    prompts: Mapping[str, str]


@dataclass(frozen=True)
class Protocol:
    """Every setting that an EM rate depends on, under one version string."""

    version: str
    thresholds: Thresholds
    health: Health
    sampling: AnswerSampling
    judge: JudgeProtocol
    questions: tuple[str, ...]
    """Ids of the eight questions of Betley et al. 2025."""


@functools.cache
def load_protocol(path: Path = PROTOCOL_FILE) -> Protocol:
    """Read a protocol.

    Raises:
        ValueError: If it is not YAML, or a field is unknown or missing.
    """
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return restore(Protocol, data)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a protocol ({' '.join(str(error).split())})") from error
