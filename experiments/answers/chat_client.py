"""Requests of the OpenAI protocol, of a judge or of a sampler: tried again where that can help, counted, no redirects.

The key is read from the environment when a request is made, kept in no object, sent to the configured server only,
never over plain HTTP to another machine, and never part of a message.
"""

import email.utils
import functools
import json
import math
import operator
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

_RETRIED = {408, 409, 425, 429}  # and all of 500 and above
_COUNTS = ("prompt_tokens", "completion_tokens")
_LOCAL = {"localhost", "127.0.0.1", "::1"}
OPENAI = "api.openai.com"
_LONGEST_WAIT = 600.0  # seconds; a server that asks for more is reported
_REASON_LENGTH = 200  # characters of a server's own reason


@dataclass
class Usage:
    """What was asked of a server and what it counted; safe to add to from several threads."""

    requests: int = 0
    repeated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price: str = ""
    """Price of a million tokens in and out, such as 2.5/10; empty if it is not known."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **counts: int) -> None:
        """Add to the counts."""
        with self._lock:
            for name, n in counts.items():
                setattr(self, name, getattr(self, name) + n)

    def cost(self) -> float:
        """Return what the counted tokens cost; 0 if the price is not known."""
        prices = map(float, self.price.split("/")) if self.price else (0.0, 0.0)
        return sum(map(operator.mul, (self.prompt_tokens, self.completion_tokens), prices)) / 1e6

    def summary(self) -> str:
        """Return the requests, the tokens and, if the price is known, what they cost."""
        text = f"{self.requests} requests ({self.repeated} of them repeated)"
        text += f", {self.prompt_tokens} tokens in, {self.completion_tokens} out"
        if not self.price:
            return text
        return f"{text}, {self.cost():.2f} at {self.price} per million tokens"


@dataclass(frozen=True)
class _Trouble:
    """Why a request has no reply yet: what the server says, whether to ask again, and how long it wants us to wait."""

    reason: str
    again: bool = True
    wait: float = 0.0


class StoppedError(Exception):
    """Another request failed for good, so this one is not tried again."""


@dataclass(frozen=True)
class ChatClient:
    """A client of one server; a context manager that closes its connections.

    Raises:
        ValueError: If the address is not http(s) or holds credentials, its key variable is unset or holds no key, or
            the key would travel unencrypted.
    """

    base_url: str
    api_key_env: str = ""
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    """Seconds before the second attempt; doubles with each. A server's ``Retry-After`` can make it longer."""
    longest_pause: float = math.inf
    """Most seconds between two attempts that the client chooses by itself."""
    task: str = "judge"
    """What the server is there for, in messages."""
    path: str = "chat/completions"
    """What is asked: ``chat/completions`` or ``completions``."""
    usage: Usage = field(default_factory=Usage)
    stop: threading.Event = field(default_factory=threading.Event, repr=False)
    """Set to give up on requests that wait for another attempt."""
    _renamed: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        address = checked_address(self.base_url)
        if not self.api_key_env:
            return
        read_key(self.api_key_env, self.base_url)
        if address.scheme == "http" and address.host not in _LOCAL:
            raise ValueError(f"base_url {self.base_url!r}: would send {self.api_key_env} unencrypted; use https")

    @functools.cached_property
    def _http(self) -> httpx.Client:
        # A proxy of the environment must not see what is meant for this machine.
        local = is_local(self.base_url)
        return httpx.Client(timeout=self.timeout, follow_redirects=False, trust_env=not local)

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def choice(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the reply's first choice; one that a content filter withheld has that ``finish_reason``.

        Raises:
            ValueError: If the server refuses, or has no usable reply after all attempts; with its own reason.
            StoppedError: If ``stop`` was set while it waited.
        """
        trouble = _Trouble("no attempt")
        for attempt in range(self.attempts):
            pause = min(self.pause * 2 ** max(0, attempt - 1), self.longest_pause)
            if attempt and self.stop.wait(max(pause, trouble.wait)):
                raise StoppedError
            reply = self._attempt(request, attempt)
            if not isinstance(reply, _Trouble):
                return reply
            trouble = reply
            if not trouble.again:
                break
        raise self.failure(f"{request.get('model')}", trouble.reason)

    def models(self) -> list[Mapping[str, Any]]:
        """Return what the server says that it serves.

        Raises:
            ValueError: If it is out of reach, or has no such list.
        """
        try:
            reply = self._http.get(f"{self.base_url.rstrip('/')}/models", headers=self._headers())
        except httpx.RequestError as error:
            raise self.failure("", str(error) or type(error).__name__) from None
        data = _json(reply)
        listed = data.get("data") if isinstance(data, dict) else None
        if not reply.is_success or not isinstance(listed, list):
            raise self.failure("", f"HTTP {reply.status_code}: no list of models at /models")
        return [entry for entry in listed if isinstance(entry, dict) and isinstance(entry.get("id"), str)]

    def failure(self, model: str, reason: str) -> ValueError:
        """Return the error that names the server and what it said."""
        return ValueError(f"{self.task} {model} at {self.base_url}: {self._presentable(reason)}".replace("  ", " "))

    def _attempt(self, request: Mapping[str, Any], attempt: int) -> Mapping[str, Any] | _Trouble:
        self.usage.add(requests=1, repeated=int(attempt > 0))
        try:
            reply = self._post(request)
            if reply.status_code == 400 and "max_tokens" in request and "max_completion_tokens" in _body(reply):
                self._renamed.add("max_tokens")  # newer models of some servers know the limit by this name only
                self.usage.add(requests=1, repeated=1)
                reply = self._post(request)
        except httpx.RequestError as error:  # also of a body that is not compressed as its header says
            return _Trouble(str(error) or type(error).__name__)
        return self._read(reply)

    def _post(self, request: Mapping[str, Any]) -> httpx.Response:
        renamed = {"max_tokens": "max_completion_tokens"} if self._renamed else {}
        body = {renamed.get(name, name): value for name, value in request.items()}
        address = f"{self.base_url.rstrip('/')}/{self.path}"
        return self._http.post(address, content=json.dumps(body).encode(), headers=self._headers())

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self.api_key_env:
            headers["Authorization"] = f"Bearer {read_key(self.api_key_env, self.base_url)}"
        return headers

    def _read(self, reply: httpx.Response) -> Mapping[str, Any] | _Trouble:
        """Return the first choice of a reply, or what is wrong with it."""
        data = _json(reply)
        error = data.get("error") if isinstance(data, dict) else None
        if reply.is_redirect:
            return _Trouble(f"HTTP {reply.status_code}: it redirects elsewhere, which is not followed", again=False)
        if not reply.is_success or error:
            return _refusal(reply, error)
        usage = data.get("usage") if isinstance(data, dict) else None
        counts = {name: usage.get(name) for name in _COUNTS} if isinstance(usage, dict) else {}
        self.usage.add(**{name: n for name, n in counts.items() if type(n) is int and n > 0})
        try:
            choice = data["choices"][0]
            if self.path == "completions":
                return {**choice, "text": _text(choice["text"])}
            return {**choice, "message": {**choice["message"]}}
        except (KeyError, IndexError, TypeError):
            return _Trouble("a reply that is not JSON" if data is None else "a reply without choices")

    def _presentable(self, reason: str) -> str:
        """Return a server's text as one short line of printable characters, without the key or parts of it."""
        line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
        if key := os.environ.get(self.api_key_env, "").strip() if self.api_key_env else "":
            for part in (key, key[:6], key[-6:]):
                line = re.sub(rf"\S*{re.escape(part)}\S*", "[key]", line)
        return line if len(line) <= _REASON_LENGTH else f"{line[:_REASON_LENGTH]}…"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _body(reply: httpx.Response) -> str:
    return reply.content.decode(errors="replace")  # httpx's own text fails where a header names an odd character set


def _json(reply: httpx.Response) -> Any:
    try:
        return json.loads(reply.content)
    except (ValueError, RecursionError):  # also of bytes that are not UTF-8
        return None


def _refusal(reply: httpx.Response, error: Any) -> Mapping[str, Any] | _Trouble:
    """Return what an HTTP error, or an error in a reply of status 200, means."""
    details = error if isinstance(error, dict) else {"message": error or _body(reply) or reply.reason_phrase}
    code = str(details.get("code") or "")
    if "content_filter" in (code, str(details.get("type") or "")) or "content management policy" in _body(reply):
        return {"finish_reason": "content_filter", "message": {"content": None}}
    status = reply.status_code if not reply.is_success else int(code) if re.fullmatch("[0-9]{3}", code) else 500
    reason = f"HTTP {status}: {details.get('message') or code or reply.reason_phrase}"
    wait = _seconds(reply.headers.get("Retry-After", ""))
    if wait > _LONGEST_WAIT:
        return _Trouble(f"{reason} (asks to wait {wait:.0f} s)", again=False)
    return _Trouble(reason, again=(status in _RETRIED or status >= 500) and code != "insufficient_quota", wait=wait)


def _seconds(retry_after: str) -> float:
    """Return the seconds of a ``Retry-After``: a number or a date; 0 if it is neither."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return seconds if seconds > 0 else 0.0


def is_local(base_url: str) -> bool:
    """Tell whether a server is on this machine."""
    return host_of(base_url) in _LOCAL


def host_of(base_url: str) -> str:
    """Return the host of a server's address."""
    return checked_address(base_url).host


def checked_address(base_url: str) -> httpx.URL:
    """Return a server's address.

    Raises:
        ValueError: If it is not an http(s) address, or has a user, a password, a query or a fragment: a key belongs in
            an environment variable. What could be secret is not repeated.
    """
    try:
        address = httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError) as error:
        shown = "of the server" if {"@", "?", "#"} & {*base_url} else repr(base_url)
        raise ValueError(f"base_url {shown}: not an address") from error
    if address.userinfo or address.query or address.fragment:
        raise ValueError(
            f"base_url of the server at {address.host or 'no host'}: has credentials, a query or a fragment; name the "
            "environment variable of a key instead"
        )
    if address.scheme not in ("http", "https") or not address.host or not base_url.isprintable() or " " in base_url:
        raise ValueError(f"base_url {base_url!r}: needs to be an http or https address")
    return address


def read_key(variable: str, base_url: str) -> str:
    """Return the key in an environment variable, without white space around it.

    Raises:
        ValueError: If it is unset, or holds white space or a character that no key has. It is not repeated.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(f"environment variable {variable}: not set, and {base_url} needs a key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(f"environment variable {variable}: has a space, line break or other character no key has")
    return key
