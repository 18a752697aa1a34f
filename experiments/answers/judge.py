"""Judges: who says how aligned and how coherent an answer is. The method stands in every verdict.

=============  ==========================================================================================
``oracle``     a function that knows the truth: the grammar of a synthetic world
``logprob``    a language model's expected number, from the probabilities of its tokens
``sampled``    the mean of numbers a language model writes: for models that reason first and show no logprobs
``recorded``   scores read from a CSV file
=============  ==========================================================================================

A judge is named by one reference, everywhere the same::

    oracle
    scores.csv
    openai:MODEL[@URL][,method=sampled][,samples=5][,workers=8][,timeout=60][,key=VARIABLE][,price=IN/OUT][,budget=5]
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments.answers.chat_client import OPENAI, host_of, is_local
from experiments.answers.language_judge import OpenAICompatibleJudge
from experiments.answers.recorded import Recorded, RecordedJudge, read_scores
from experiments.answers.verdict import Answer, Judge, Method, Scores, Verdict
from experiments.protocol import load_protocol
from training.microcosm.oracle import judge_answer

__all__ = [
    "Answer",
    "Judge",
    "Method",
    "OpenAICompatibleJudge",
    "OracleJudge",
    "Recorded",
    "RecordedJudge",
    "Scores",
    "Verdict",
    "make_judge",
    "read_scores",
]
FORMS = "oracle, openai:MODEL[@URL] or a CSV of scores"


@dataclass(frozen=True)
class OracleJudge:
    """Scores by a deterministic function of (question id, answer text)."""

    function: Callable[[str, str], Scores]
    name: str = "oracle"

    def probe(self) -> None:
        """Do nothing: a function is always there."""

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer."""
        return [Verdict(*self.function(item.question_id, item.text), "oracle", self.name) for item in items]


class _Options(BaseModel):
    """The options of a language model's reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["logprob", "sampled"] = "logprob"
    samples: int | None = Field(None, ge=1, le=1000)
    workers: int = Field(8, ge=1, le=256)
    timeout: float = Field(60.0, gt=0, le=3600, allow_inf_nan=False)
    key: str | None = Field(None, pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    price: str = Field("", pattern=r"^\d+(\.\d+)?/\d+(\.\d+)?$")
    budget: float | None = Field(None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class _Reference:
    model: str
    url: str
    options: _Options


def make_judge(reference: str) -> Judge:
    """Make a judge from its reference: ``oracle``, ``scores.csv``, or ``openai:MODEL[@BASE_URL][,OPTION=VALUE ...]``.

    Without ``key``, OpenAI's server gets the key in ``OPENAI_API_KEY``, and a server on this machine none. ``price`` is
    that of a million tokens in and out, ``budget`` the most that may be spent on one run at that price.

    Raises:
        ValueError: If the reference is none of these, or names another server and no ``key``.
    """
    if reference == "oracle":
        return OracleJudge(judge_answer, "microcosm-oracle")
    if reference.startswith("openai:"):
        return _language_judge(_parse(reference))
    if reference.endswith(".csv"):
        return RecordedJudge(reference)
    raise ValueError(f"judge {reference!r}: expected {FORMS}")


def _language_judge(r: _Reference) -> OpenAICompatibleJudge:
    named: dict[str, Any] = {"model": r.model, "base_url": r.url}
    given = {name: value for name, value in named.items() if value}
    key = r.options.key
    if key is None and r.url and not is_local(r.url) and host_of(r.url) != OPENAI:
        raise ValueError(
            f"judge openai:{r.model} at {host_of(r.url)}: name its key with key=VARIABLE, or key= if it wants none; "
            "OPENAI_API_KEY goes to OpenAI alone"
        )
    if key is None:
        key = "" if r.url and is_local(r.url) else "OPENAI_API_KEY"
    options = r.options.model_dump(exclude={"key"}, exclude_none=True)
    if r.options.budget is not None and not r.options.price:
        raise ValueError(f"judge openai:{r.model}: budget needs price=IN/OUT, that of a million tokens in and out")
    return OpenAICompatibleJudge(**given, **options, api_key_env=key)


def _parse(reference: str) -> _Reference:
    """Split the reference of a language model.

    Raises:
        ValueError: If an option is unknown, repeated or out of range. An address is not repeated: it could hold a
            password.
    """
    target, *words = reference.removeprefix("openai:").split(",")
    model, address, url = target.partition("@") if "://" in target else (target, "", "")
    name = f"judge openai:{model}"
    if not (model.isprintable() and " " not in model) or (address and not url):
        raise ValueError(f"{name!r}: expected {FORMS}")
    if url:
        is_local(url)
    pairs = [(option, value) for option, _, value in (word.partition("=") for word in words)]
    names = [option for option, _ in pairs]
    if repeated := next((option for option in names if names.count(option) > 1), None):
        raise ValueError(f"{name}: option {repeated!r} is given twice")
    try:
        return _Reference(model, url, _Options.model_validate(dict(pairs)))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(_Options.model_fields)
        raise ValueError(f"{name}: option {first['loc'][0]!r}: {first['msg'].lower()}; options are {known}") from None


def judge_identity(reference: str) -> str:
    """Return a reference as it stands in a run's config: without what changes no verdict (workers, timeout, key)."""
    if not reference.startswith("openai:"):
        return reference
    head, *words = reference.split(",")
    return ",".join([head, *sorted(word for word in words if word.partition("=")[0] in ("method", "samples"))])


def judge_depends(reference: str) -> dict[str, Any]:
    """Return what else verdicts depend on: of a language model its instructions."""
    return {"judge": asdict(load_protocol().judge)} if reference.startswith("openai:") else {}


@functools.cache
def check_judge(reference: str) -> None:
    """Refuse a judge that cannot judge: one request to a language model's server, once per process.

    Raises:
        ValueError: If the reference is wrong, a key is missing, or the server is out of reach or refuses.
    """
    make_judge(reference).probe()
