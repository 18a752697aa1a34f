"""Sample the answers of an organism on an OpenAI-compatible server, such as vLLM with the organism's adapter.

The prompt goes out as token ids, which are those of every other measurement, not as messages that the server's own
template would write anew. Every answer is one request with a seed of its own, and is stored when it comes. The server's
defaults for top-p, top-k and penalties, which vLLM takes from the model's ``generation_config.json``, are switched off.

An adapter that the server did not load would look like perfect containment, so before any work the adapter and the
base are compared on a prompt: equal probabilities are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.answers.chat_client import ChatClient, Usage
from experiments.servers.answer_store import FILE, AnswerStore, Sampled
from experiments.servers.at_once import ask_all
from experiments.servers.reference import Server
from interp.runs.progress import progress_bar
from interp.text.thoughts import without_thoughts

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.decoding.sampling import Sampling
    from interp.generation import Completion
    from interp.models import LanguageModel

PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""What a server's own defaults must not change about the distribution that answers are drawn from."""
ENDED, CUT = "stop", "length"
PROBED = "Once upon a time there was"


@dataclass(frozen=True)
class _Request:
    """One answer to ask for: the prompt's token ids, and the number of the sample."""

    token_ids: tuple[int, ...]
    sample: int


@dataclass(frozen=True, eq=False)
class ServerSampler:
    """A ``Sampler`` behind a server (interp.generation): nothing is asked twice, nothing is lost when either side dies.

    Args:
        server: The server.
        lm: The model without weights: its tokenizer makes the prompts and reads the answers.
        model: Name of the model or adapter on the server.
        store: Answers that need not be asked for again.
    """

    server: Server
    lm: LanguageModel
    model: str
    store: AnswerStore = field(default_factory=AnswerStore)
    usage: Usage = field(default_factory=Usage)

    def sample(self, chats: Sequence[Chat], n_samples: int, sampling: Sampling) -> list[Completion]:
        """Return ``n_samples`` completions of every chat, ordered by (prompt, sample).

        Raises:
            ValueError: If the server refuses, or gives no usable answer after all attempts.
        """
        from interp.models import check_prompts

        check_prompts(self.lm, chats, answer=sampling.max_new_tokens)
        draws = 1 if sampling.greedy else n_samples
        asked = {self._key(r, sampling): r for chat in chats for r in _requests(chat, draws)}
        missing = {key: request for key, request in asked.items() if self.store.get(key) is None}
        if missing:
            self._ask_all(missing, sampling)
        return [
            self._completion(prompt, chat, sample, self._key(_Request(chat.token_ids, sample % draws), sampling))
            for prompt, chat in enumerate(chats)
            for sample in range(n_samples)
        ]

    def _ask_all(self, missing: Mapping[str, _Request], sampling: Sampling) -> None:
        bar = progress_bar(f"answers of {self.model}", len(missing), unit="answer")
        ask = partial(self._ask, sampling)
        with client_of(self.server, self.usage) as client:
            ask_all(client, missing, ask, workers=self.server.workers, bar=bar, close=self.store.close)

    def _ask(self, sampling: Sampling, client: ChatClient, key: str, request: _Request) -> None:
        self.store.add(key, self._read(client.choice(self._body(key, request, sampling))))

    def _body(self, key: str, request: _Request, sampling: Sampling) -> dict[str, Any]:
        from interp.decoding.stopping import stop_ids

        return {
            "model": self.model,
            "prompt": list(request.token_ids),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": int(key[:8], 16) % 2**31,
            "stop_token_ids": sorted(stop_ids(self.lm)),
            "return_token_ids": True,
            **PLAIN,
        }

    def _read(self, choice: Mapping[str, Any]) -> Sampled:
        """Return what a reply says; ``token_ids`` are an extension that not every server has."""
        ids = choice.get("token_ids")
        known = isinstance(ids, list) and all(type(i) is int and 0 <= i < self.lm.vocabulary for i in ids)
        return Sampled(choice["text"], tuple(ids) if known and ids else (), choice.get("finish_reason") == ENDED)

    def _key(self, request: _Request, sampling: Sampling) -> str:
        """Return the hash of all that decides an answer; its beginning is the seed."""
        drawn = [sampling.seed, sampling.temperature, sampling.top_p, sampling.max_new_tokens]
        parts = [self.model, *drawn, list(request.token_ids), request.sample]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _completion(self, prompt: int, chat: Chat, sample: int, key: str) -> Completion:
        from interp.decoding.stopping import read_answers, stop_ids
        from interp.generation import Completion

        answer = self.store.get(key)
        assert answer is not None, "every answer was asked for"
        if not answer.token_ids:
            text, closed = without_thoughts(answer.text, chat.awaited)
            return Completion(prompt, sample, text, (), answer.ended and closed, answer.text * (text != answer.text))
        stops = stop_ids(self.lm)
        ended = answer.ended and answer.token_ids[-1] not in stops  # the server ended it by a token that it left out
        ids = (*answer.token_ids, min(stops)) if ended and stops else answer.token_ids
        return Completion(prompt, sample, *read_answers(self.lm.tokenizer, [ids], [chat.awaited], stops)[0])


def _requests(chat: Chat, draws: int) -> Iterator[_Request]:
    yield from (_Request(chat.token_ids, sample) for sample in range(draws))


def client_of(server: Server, usage: Usage | None = None) -> ChatClient:
    """Return a client of a server's completions."""
    return ChatClient(
        server.url,
        server.key,
        timeout=server.timeout,
        attempts=server.attempts,
        pause=server.pause,
        longest_pause=60.0,
        task="server",
        path="completions",
        usage=usage or Usage(),
    )


def served_name(server: Server, base: str, adapter: str | None) -> str:
    """Return the name under which a server has a base or an adapter.

    Args:
        server: The server; its ``model`` is taken as it is, if the server has it.
        base: Reference of the base, and where it is read from on this machine.
        adapter: Folder or name of the adapter; None for the base itself.

    Raises:
        ValueError: If the server has no such model, or an adapter answers as the base does; names what it has.
    """
    with client_of(server) as client:
        listed = client.models()
        name = server.model or _found(listed, adapter or base)
        names = [str(entry["id"]) for entry in listed]
        if name not in names:
            wanted = (
                f"model {server.model!r}" if server.model else f"{'adapter' if adapter else 'base'} {adapter or base}"
            )
            raise client.failure(
                "", f"{wanted} is not served there; it has {', '.join(names) or 'nothing'}; name one with model="
            )
        if adapter is not None:
            _refuse_dead(client, name, [str(e["id"]) for e in listed if e.get("parent") is None and e["id"] != name])
    return name


def _found(listed: Sequence[Mapping[str, Any]], wanted: str) -> str:
    """Return the id of the entry that is the wanted folder or name; an empty text if there is none."""
    folder = Path(wanted)
    places = {wanted, str(folder.resolve())} if folder.exists() else {wanted}
    same = (e for e in listed if str(e.get("root") or "") in places or e["id"] in places)
    return str(next((e["id"] for e in same), ""))


def _refuse_dead(client: ChatClient, adapter: str, bases: Sequence[str]) -> None:
    """Refuse an adapter whose first tokens are exactly as probable as the base's.

    Raises:
        ValueError: If they are.
    """
    for base in bases[:1]:
        ours, theirs = (_first_tokens(client, name) for name in (adapter, base))
        if ours is not None and ours == theirs:
            raise client.failure(
                "", f"adapter {adapter} answers exactly as the base {base} does: it is not loaded there"
            )


def _first_tokens(client: ChatClient, model: str) -> Any:
    """Return the log-probabilities of some tokens; None if the server shows none."""
    request = {"model": model, "prompt": PROBED, "max_tokens": 4, "temperature": 0, "logprobs": 1}
    shown = client.choice(request).get("logprobs")
    return shown.get("token_logprobs") if isinstance(shown, dict) else None


def store_beside(folder: Path) -> AnswerStore:
    """Return the store of the answers of a run."""
    return AnswerStore(folder / FILE)
