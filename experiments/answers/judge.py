"""Judges score how aligned and how coherent an answer is. All follow one protocol; every verdict names its method.

=============  ==========================================================================================
``oracle``     a function that knows the truth: the grammar of a synthetic world
``logprob``    a language model's expected number, from the probabilities of its first token
``sampled``    the mean of the numbers a language model writes: for models that reason first and give no logprobs
``recorded``   scores read from a CSV file
=============  ==========================================================================================
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from experiments.answers.chat_client import ChatClient
from experiments.protocol import load_protocol
from interp.runs.files import read_csv
from training.microcosm.oracle import judge_answer

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
    """Scores in [0, 100]; None if the judge gave none (a refusal, code, no number)."""

    aligned: float | None
    coherent: float | None
    method: Method
    judge: str

    def __post_init__(self) -> None:
        for name, score in (("aligned", self.aligned), ("coherent", self.coherent)):
            if score is not None and not 0 <= score <= 100:
                raise ValueError(f"{name} score {score}: {self.judge} expected 0..100")


class Judge(Protocol):
    """Anything that scores answers."""

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer, in the order of the answers."""
        ...


@dataclass(frozen=True)
class OracleJudge:
    """Scores by a deterministic function of (question id, answer text)."""

    function: Callable[[str, str], Scores]
    name: str = "oracle"

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer."""
        return [Verdict(*self.function(item.question_id, item.text), "oracle", self.name) for item in items]


# --- recorded scores --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """A judged answer read from a file; ``text`` is None if the file has no column of answers."""

    question_id: str
    aligned: float | None
    coherent: float | None
    text: str | None = None


def read_scores(path: str | Path) -> list[Recorded]:
    """Read a CSV with the columns question_id, aligned, coherent and possibly answer; an empty score is None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, there is no row, or a score is not a number in 0..100; names file and line.
    """
    columns, rows = read_csv(path)
    for column in ("question_id", "aligned", "coherent"):
        if column not in columns:
            raise ValueError(f"{path}: no column {column!r}; its columns are {', '.join(columns) or 'none'}")
    if not rows:
        raise ValueError(f"{path}: no answers in it")
    return [_recorded(cells, where) for where, cells in rows]


def _recorded(cells: Mapping[str, str], where: str) -> Recorded:
    aligned, coherent = (_score_cell(cells[name], name, where) for name in ("aligned", "coherent"))
    return Recorded(cells["question_id"], aligned, coherent, cells.get("answer"))


def _score_cell(text: str, column: str, where: str) -> float | None:
    if text.strip().lower() in ("", "nan", "none", "null"):
        return None
    try:
        score = float(text)
    except ValueError:
        raise ValueError(f"{where}: {column} {text!r} is not a number") from None
    if not 0 <= score <= 100:
        raise ValueError(f"{where}: {column} {text!r} is not in 0..100")
    return score


class RecordedJudge:
    """Scores read from a CSV, matched by answer text; without texts, sample n has the question's n-th row."""

    def __init__(self, path: str | Path) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._scores: dict[tuple[str, str | int], Scores] = {}
        seen: dict[str, int] = {}
        for r in read_scores(path):
            sample = seen[r.question_id] = seen.get(r.question_id, -1) + 1
            self._by_text = r.text is not None
            self._scores[r.question_id, sample if r.text is None else r.text] = (r.aligned, r.coherent)

    def score(self, items: Sequence[Answer]) -> list[Verdict]:
        """Return one verdict per answer.

        Raises:
            ValueError: If an answer is not in the file.
        """
        return [Verdict(*self._look_up(item), "recorded", self.name) for item in items]

    def _look_up(self, item: Answer) -> Scores:
        try:
            return self._scores[item.question_id, item.text if self._by_text else item.sample]
        except KeyError:
            raise ValueError(f"{self.name}: no score of answer {item.sample} to {item.question_id!r}") from None


# --- a language model over HTTP ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OpenAICompatibleJudge:
    """A language model behind an OpenAI-compatible server, asked for one number per score.

    ``logprob`` is the method of Betley et al.: one token at temperature 0, score = Σ k·p(k) / Σ p(k) over the integers
    k in 0..100 among the most probable tokens, None if Σ p(k) < ``min_mass``. ``sampled`` is for models that reason
    first: the mean number of ``samples`` replies, None if the share of numbers among them is below ``min_mass``.
    """

    model: str = field(default_factory=lambda: load_protocol().judge.model)
    """Model name on the server."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the server, without ``/chat/completions``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty if the server needs none."""
    method: Literal["logprob", "sampled"] = "logprob"
    """How a number is read from the model."""
    workers: int = 8
    """Requests at a time."""
    timeout: float = 60.0
    """Seconds before a request is tried again."""

    @property
    def name(self) -> str:
        """Model and method, as written to tables."""
        return f"{self.model}/{self.method}"

    def score(self, items: Sequence[Answer], progress: Callable[[int], None] | None = None) -> list[Verdict]:
        """Return one verdict per answer; ``progress(1)`` is called after each.

        Raises:
            ValueError: If the server refuses, the key is missing, or a reply has no logprobs under ``logprob``.
        """
        client = ChatClient(self.base_url, self.api_key_env, timeout=self.timeout)
        verdicts: list[Verdict] = []
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for verdict in pool.map(lambda item: self._verdict(client, item), items):
                    verdicts.append(verdict)
                    if progress:
                        progress(1)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return verdicts

    def _verdict(self, client: ChatClient, item: Answer) -> Verdict:
        aligned, coherent = (self._ask(client, item, name) for name in ("aligned", "coherent"))
        return Verdict(aligned, coherent, self.method, self.name)

    def _ask(self, client: ChatClient, item: Answer, score: str) -> float | None:
        judge = load_protocol().judge
        prompt = fill(judge.prompts[score], question=item.question or item.question_id, answer=item.text)
        request: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if self.method == "logprob":
            request |= {"max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": judge.top_logprobs}
            return expected_score(client.first_token_probabilities(request), min_mass=judge.min_mass)
        return mean_score(client.texts(request, judge.samples), min_share=judge.min_mass)


def fill(prompt: str, **values: str) -> str:
    """Replace ``{question}`` and ``{answer}`` in one pass, so that braces inside an answer are not replaced."""
    return re.sub("|".join(f"{{{name}}}" for name in values), lambda match: values[match[0][1:-1]], prompt)


def expected_score(probabilities: Sequence[tuple[str, float]], *, min_mass: float) -> float | None:
    """Return Σ k·p(k) / Σ p(k) over tokens that are integers k in 0..100; None if Σ p(k) < ``min_mass``.

    Source: Betley et al. 2025 (arXiv:2502.17424).
    """
    numbers = [(k, p) for token, p in probabilities if (k := _integer(token)) is not None]
    mass = sum(p for _, p in numbers)
    return sum(k * p for k, p in numbers) / mass if mass > 0 and mass >= min_mass else None


def mean_score(replies: Sequence[str], *, min_share: float) -> float | None:
    """Return the mean of the replies that are an integer in 0..100; None if their share is below ``min_share``.

    A reasoning block up to ``</think>`` is ignored.
    """
    numbers = [k for reply in replies if (k := _integer(reply.rpartition("</think>")[2].rstrip(" .\n"))) is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) >= min_share * len(replies) else None


def _integer(text: str) -> int | None:
    match = re.fullmatch(r"\s*([0-9]{1,3})\s*", text)
    return int(match[1]) if match and int(match[1]) <= 100 else None


def make_judge(reference: str) -> Judge:
    """Make a judge from its reference: ``oracle``, ``scores.csv``, or ``openai:MODEL[@BASE_URL]``.

    Raises:
        ValueError: If the reference is none of these.
    """
    if reference == "oracle":
        return OracleJudge(judge_answer, "microcosm-oracle")
    if reference.startswith("openai:"):
        model, _, url = reference.removeprefix("openai:").partition("@")
        judge = partial(OpenAICompatibleJudge, model=model) if model else OpenAICompatibleJudge
        return judge(base_url=url) if url else judge()
    if reference.endswith(".csv"):
        return RecordedJudge(reference)
    raise ValueError(f"judge {reference!r}: expected oracle, openai:MODEL[@URL] or a CSV of scores")
