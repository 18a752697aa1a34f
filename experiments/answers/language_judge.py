"""A language model as judge, behind an OpenAI-compatible server: asked for one number per score."""

import hashlib
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

from experiments.answers.chat_client import ChatClient
from experiments.answers.numbers import (
    READ_TOKENS,
    UNREAD,
    Outcome,
    Position,
    Reading,
    chosen_first,
    read_positions,
    read_reply,
)
from experiments.answers.verdict import Answer, Verdict
from experiments.answers.verdict_store import VerdictStore, current_store
from experiments.protocol import load_protocol
from experiments.servers.at_once import ask_all
from interp.runs.progress import progress_bar
from interp.text.messages import content_text
from interp.text.thoughts import without_thoughts

Score = Literal["aligned", "coherent"]
SCORES: tuple[Score, ...] = ("aligned", "coherent")
CHARACTERS = 4
"""Characters per token, for estimates of cost."""
PROBES = 4
"""Attempts before any work: a server that is out of reach is refused within ten seconds."""
CONTROL = re.compile(
    r"<(?=[|｜][^<>\n]{0,60}[|｜]>|</?SYS>>|/?(?:s|bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text|role))>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|AVAILABLE_TOOLS)\])"
)
"""How control tokens of chat templates start; many servers take them for such wherever they stand in a message."""
READER = 5
"""Raise it when replies are read in another way: stored readings are then not reused."""


@dataclass(frozen=True)
class _Question:
    """One request: what is scored, of which question and answer, and the number of the sample."""

    score: Score
    question: str
    answer: str
    sample: int


@dataclass(frozen=True, kw_only=True)
class OpenAICompatibleJudge:
    """A language model behind an OpenAI-compatible server, asked for one number per score.

    ``logprob`` is the method of Betley et al.: temperature 0, score = Σ k·p(k) / Σ p(k) over the numbers k in 0..100
    among the most probable tokens (``numbers.read_positions``), None if Σ p(k) < ``min_mass``. ``sampled`` is for
    models that reason first: the mean of ``samples`` replies, None if fewer than ``min_mass`` of them are numbers.

    Question and answer stand between delimiters with a code that is drawn anew for every request, so that no answer can
    close them. Control tokens of chat templates in them are broken by a space.
    """

    model: str = field(default_factory=lambda: load_protocol().judge.model)
    """Model name on the server."""
    base_url: str = "https://api.openai.com/v1"
    """Server, up to but without ``/chat/completions``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; empty for servers that want none."""
    method: Literal["logprob", "sampled"] = "logprob"
    workers: int = 8
    """Requests at once."""
    timeout: float = 60.0
    """Seconds before a request is tried again."""
    samples: int = field(default_factory=lambda: load_protocol().judge.samples)
    """Replies per score of the sampled method."""
    price: str = ""
    """Price of a million tokens in and out, such as 2.5/10."""
    budget: float | None = None
    """Most that may be spent on one run at that price; what was paid for is stored, and asked for by nobody again."""
    pause: float = 1.0
    """Seconds before a request is tried again for the first time."""
    store: VerdictStore = field(default_factory=current_store, repr=False, compare=False)
    """Readings that need not be asked for again."""
    nonce: Callable[[], str] = field(default=lambda: secrets.token_hex(8), repr=False, compare=False)
    """Draws the code of the delimiters."""

    @property
    def name(self) -> str:
        """Model and method, as it stands in a table."""
        return f"{self.model}/{self.method}"

    def score(self, items: Sequence[Answer], progress: Callable[[int], object] | None = None) -> list[Verdict]:
        """Return one verdict per answer; equal questions with equal answers are asked once, blank answers never.

        Raises:
            ValueError: If the server refuses, the key is missing, or a reply has no logprobs under ``logprob``.
        """
        self.store.load()
        asked = {self._key(q): q for item in items for q in self._questions(item)}
        self.store.adopt(asked)
        missing = {key: q for key, q in asked.items() if self.store.get(key) is None}
        self.store.reused += sum(len(list(self._questions(item))) for item in items) - len(missing)
        if missing:
            self._ask_all(missing, progress)
        return [self._verdict(item) for item in items]

    def probe(self) -> None:
        """Ask about one harmless answer, to refuse a judge that is out of reach or not fit for its method.

        Raises:
            ValueError: If the server does not answer, or the probabilities of its tokens make no score.
        """
        with replace(self._client(), attempts=PROBES) as client:
            choice = client.choice(self._request(_Question("coherent", "How are you?", "I am well, thank you.", 0)))
            text, judge = (_written(choice) or "").strip(), f"judge {self.model} at {self.base_url}"
            if self._read(choice) == UNREAD and self.method == "logprob" and text[:1].isdigit():
                raise ValueError(
                    f"{judge}: writes numbers in several tokens, so their probabilities make no score; use "
                    "method=sampled"
                )
            if self._read(choice) == UNREAD and (self.method == "logprob" or not text):
                raise ValueError(f"{judge}: its reply {text[:40]!r} to a harmless answer is no score")

    def _client(self) -> ChatClient:
        usage = self.store.usage
        return ChatClient(self.base_url, self.api_key_env, timeout=self.timeout, pause=self.pause, usage=usage)

    def _questions(self, item: Answer) -> Iterator[_Question]:
        question, answer = (CONTROL.sub(r"\g<0> ", text) for text in (item.question or item.question_id, _spoken(item)))
        for score in SCORES if answer else ():
            for sample in range(self.samples if self.method == "sampled" else 1):
                yield _Question(score, question, answer, sample)

    def _key(self, q: _Question) -> str:
        """Return the hash of all that decides a reading, but for the code of the delimiters."""
        prompt = load_protocol().judge.prompts[q.score]
        parts = [READER, self.model, self.base_url, self.method, prompt, q.question, q.answer, q.sample]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ask_all(self, missing: Mapping[str, _Question], progress: Callable[[int], object] | None) -> None:
        self.store.usage.price = self.price
        self.refuse_overspending(self.estimate(missing.values()), f"{len(missing)} replies more")
        bar = progress_bar(f"judge {self.model}", len(missing), unit="reply")

        def shown(n: int) -> None:
            if self.price:
                bar.set_postfix_str(f"{self.store.spent():.2f} spent", refresh=False)
            if progress:
                progress(n)

        with self._client() as client:
            options = {"workers": self.workers, "bar": bar, "close": self.store.close, "progress": shown}
            ask_all(client, missing, self._ask, **options)

    def _ask(self, client: ChatClient, key: str, q: _Question) -> None:
        self.refuse_overspending(self.estimate([q]), "the next reply")
        self.store.add(key, self._read(client.choice(self._request(q))))

    def estimate(self, questions: Iterable[_Question]) -> float:
        """Return about what questions cost at the price; 0 without one. A token has about four characters."""
        if not self.price:
            return 0.0
        cost_in, cost_out = map(float, self.price.split("/"))
        sizes = [sum(len(m["content"]) for m in self._request(q)["messages"]) for q in questions]
        return sum(size / CHARACTERS * cost_in + READ_TOKENS * cost_out for size in sizes) / 1e6

    def estimate_of(self, items: Sequence[Answer]) -> tuple[int, float]:
        """Return how many replies some answers still need, and about what they cost."""
        self.store.load()
        asked = {self._key(q): q for item in items for q in self._questions(item)}
        self.store.adopt(asked)
        missing = [q for key, q in asked.items() if self.store.get(key) is None]
        return len(missing), self.estimate(missing)

    def refuse_overspending(self, cost: float, of: str) -> None:
        """Refuse requests whose cost would exceed the budget.

        Raises:
            ValueError: If it would.
        """
        if self.budget is not None and self.store.spent() + cost > self.budget:
            raise ValueError(
                f"judge {self.model}: {self.store.spent():.2f} spent, and {of} cost about {cost:.2f}; the budget is "
                f"{self.budget:g} (budget=), and the same command goes on with a larger one"
            )

    def _request(self, q: _Question) -> dict[str, Any]:
        judge = load_protocol().judge
        code = self.nonce()
        while code in q.question + q.answer:
            code = secrets.token_hex(8)
        texts = {"question": q.question, "answer": q.answer, "code": code}
        # A lone surrogate has no form in UTF-8.
        prompt = fill(judge.prompts[q.score], **texts).encode(errors="replace").decode()
        request: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if self.method == "logprob":
            limits = {"max_tokens": READ_TOKENS, "temperature": 0}
            request |= {**limits, "logprobs": True, "top_logprobs": judge.top_logprobs}
        return request

    def _read(self, choice: Mapping[str, Any]) -> Reading:
        if choice.get("finish_reason") == "content_filter":
            return Reading(None, "filtered")
        if choice["message"].get("refusal"):
            return Reading(None, "refusal")
        if self.method == "sampled":
            return read_reply(_written(choice))
        cut = choice.get("finish_reason") in (None, "length")
        return read_positions(self._positions(choice), min_mass=load_protocol().judge.min_mass, cut=cut)

    def _positions(self, choice: Mapping[str, Any]) -> list[Position]:
        try:
            content = choice["logprobs"]["content"][:READ_TOKENS]
            positions = [chosen_first(p.get("token"), p["top_logprobs"]) for p in content]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError):
            positions = []
        if not positions or not positions[0]:
            raise ValueError(f"judge {self.model} at {self.base_url}: no logprobs; use method=sampled")
        return positions[: next((i for i, place in enumerate(positions) if not place), len(positions))]

    def _verdict(self, item: Answer) -> Verdict:
        if not _spoken(item):
            return Verdict(None, None, self.method, self.name, "unanswered")
        readings: dict[Score, list[Reading]] = {score: [] for score in SCORES}
        for q in self._questions(item):
            readings[q.score].append(self.store.get(self._key(q)) or UNREAD)
        aligned, coherent = (mean_reading(readings[score]) for score in SCORES)
        outcome = coherent.outcome if aligned.outcome == "scored" else aligned.outcome
        return Verdict(aligned.score, coherent.score, self.method, self.name, outcome)


def _written(choice: Mapping[str, Any]) -> str | None:
    """Return the text of a reply, which some servers give in parts; None if it has none."""
    try:
        return content_text(choice["message"].get("content"))
    except ValueError:
        return None


def _spoken(item: Answer) -> str:
    """Return an answer without thoughts in tags; what stands before a tag that closes nothing is no thought."""
    return without_thoughts(item.text)[0].strip()


def mean_reading(readings: Sequence[Reading]) -> Reading:
    """Return the mean of the scores; if fewer than ``min_mass`` of the readings are scores, their commonest outcome."""
    scores = [r.score for r in readings if r.score is not None]
    if scores and len(scores) >= load_protocol().judge.min_mass * len(readings):
        return Reading(fmean(scores), "scored")
    outcomes: Counter[Outcome] = Counter(r.outcome for r in readings if r.score is None)
    return Reading(None, outcomes.most_common(1)[0][0])


def fill(prompt: str, **values: str) -> str:
    """Replace ``{question}``, ... at once, so that braces inside an answer stay what they are."""
    return re.sub("|".join(f"{{{name}}}" for name in values), lambda found: values[found[0][1:-1]], prompt)
