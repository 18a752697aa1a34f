"""The protocol as a typed value: that of ``protocol.yaml``, or of the file that ``--protocol`` names.

A run under another file has other settings in its hash and all of them in its manifest; a file that differs from the
shipped one in no setting is the shipped one.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator

from interp.runs.checks import AtLeastOne, Share
from interp.runs.configs import config_hash, jsonable
from interp.runs.reading import Name, Text, read_yaml
from interp.stats import Thresholds

PROTOCOL_FILE = Path(__file__).with_name("protocol.yaml")
CHOSEN = "SEMCON_PROTOCOL"
"""Environment variable with the file that ``--protocol`` named, for this process and its workers."""
PARTS = ("thresholds", "health", "removal", "sampling", "judge")
"""Fields that decide a number."""
BUT_JUDGE = PARTS[:-1]
"""What the hash of every run covers; the part ``judge`` is covered where a language model judges."""


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

    @property
    def label(self) -> str:
        """How it stands in a table: its version, and if it is not the shipped one a digest of its settings."""
        return self.identity(PARTS)

    def identity(self, parts: Sequence[str]) -> str:
        """Return what names some of its settings: the shipped version if they are the shipped ones, else a digest."""
        shipped = load_protocol(PROTOCOL_FILE)
        settings = {name: getattr(self, name) for name in parts}
        if settings == {name: getattr(shipped, name) for name in parts}:
            return shipped.version
        return f"{self.version}+{config_hash(jsonable(settings))}"

    def facts(self) -> dict[str, dict[str, Any]]:
        """Return what a run's manifest says of it: nothing of the shipped one, of another all settings."""
        return {} if self.label == load_protocol(PROTOCOL_FILE).version else {"protocol": asdict(self)}


def load_protocol(path: Path | None = None) -> Protocol:
    """Read a protocol: of ``path``, else the one that the command was given, else the shipped one.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not YAML, or fields are unknown, missing or out of range; names each.
    """
    file = path or Path(os.environ.get(CHOSEN) or PROTOCOL_FILE)
    stat = file.stat()
    return _read(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _read(file: Path, *_stat: int) -> Protocol:
    return read_yaml(file, Protocol)


@contextmanager
def protocol_file(path: Path | None) -> Iterator[None]:
    """Make a file the protocol of everything inside, worker processes included; None leaves it as it is.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no protocol.
    """
    before = os.environ.get(CHOSEN)
    if path is not None:
        load_protocol(path)
        os.environ[CHOSEN] = str(path.resolve())
    try:
        yield
    finally:
        os.environ.pop(CHOSEN, None)
        if before is not None:
            os.environ[CHOSEN] = before
