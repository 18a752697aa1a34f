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
    """What an adapter must reach to be read at all: misaligned in its own domain, coherent in others; shares."""

    learned: float
    coherent: float


@dataclass(frozen=True)
class AnswerSampling:
    """How answers are drawn: temperature, their greatest length in tokens, and how many a question."""

    temperature: float
    max_new_tokens: int
    samples: int


@dataclass(frozen=True)
class JudgeProtocol:
    """The judge model, its instructions by score name, and when a reply is a score."""

    model: str
    top_logprobs: int
    min_mass: float
    samples: int
    prompts: Mapping[str, str]


@dataclass(frozen=True)
class Protocol:
    """Everything that decides what an EM rate means, under one version string."""

    version: str
    thresholds: Thresholds
    health: Health
    sampling: AnswerSampling
    judge: JudgeProtocol
    questions: tuple[str, ...]


@functools.cache
def load_protocol(path: Path = PROTOCOL_FILE) -> Protocol:
    """Read a protocol.

    Raises:
        ValueError: If it is not YAML, or has a field too many or too few.
    """
    import yaml

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return restore(Protocol, data)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a protocol ({' '.join(str(error).split())})") from error
