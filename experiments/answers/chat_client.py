"""A client for the two requests of the OpenAI chat protocol that a judge makes; standard library only.

The key is read from the environment for each request and stored in no object. It is sent only to the configured server:
not along a redirect, and never over plain HTTP to another machine.
"""

import http.client
import json
import math
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RETRIED = {408, 409, 429, 500, 502, 503, 504}
_LOCAL = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class ChatClient:
    """A client of one server.

    Raises:
        ValueError: If the address is not http(s), the key's variable is unset, or the key would be sent unencrypted.
    """

    base_url: str
    api_key_env: str = ""
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0
    """Seconds before the second attempt; doubled before every further one."""

    def __post_init__(self) -> None:
        address = urllib.parse.urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {self.base_url!r}: needs to be an http or https address")
        if not self.api_key_env:
            return
        if not os.environ.get(self.api_key_env):
            raise ValueError(f"environment variable {self.api_key_env}: not set, and {self.base_url} needs a key")
        if address.scheme == "http" and address.hostname not in _LOCAL:
            raise ValueError(f"base_url {self.base_url!r}: would send {self.api_key_env} unencrypted; use https")

    def first_token_probabilities(self, request: Mapping[str, Any]) -> list[tuple[str, float]]:
        """Return the most probable first tokens of the reply with their probabilities.

        Raises:
            ValueError: If the reply has no logprobs, as with reasoning models; use the sampled method for these.
        """
        choice = self._choices(request)[0]
        try:
            tokens = choice["logprobs"]["content"][0]["top_logprobs"]
            return [(token["token"], math.exp(token["logprob"])) for token in tokens]
        except (KeyError, IndexError, TypeError):
            model = request.get("model")
            raise ValueError(f"judge {model} at {self.base_url}: no logprobs; use method 'sampled'") from None

    def texts(self, request: Mapping[str, Any], n: int) -> list[str]:
        """Return ``n`` sampled replies, one per request (not every server supports ``n``)."""
        return [str(self._choices(request)[0]["message"].get("content") or "") for _ in range(n)]

    def _choices(self, request: Mapping[str, Any]) -> list[Any]:
        choices = self._post(request).get("choices")
        if not choices:
            raise ValueError(f"judge {request.get('model')} at {self.base_url}: a reply without choices")
        return choices

    def _post(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request; repeat it after a pause if the server is busy or unreachable."""
        problem = ""
        for attempt in range(self.attempts):
            try:
                with urllib.request.urlopen(self._http(request), timeout=self.timeout) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code} {error.reason}"
                if error.code not in _RETRIED:
                    break
            except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
                problem = str(getattr(error, "reason", error)) or type(error).__name__
            except json.JSONDecodeError:
                problem = "a reply that is not JSON"
            if attempt + 1 < self.attempts:
                time.sleep(self.pause * 2**attempt)
        raise ValueError(f"judge {request.get('model')} at {self.base_url}: {problem}")

    def _http(self, request: Mapping[str, Any]) -> urllib.request.Request:
        address = f"{self.base_url.rstrip('/')}/chat/completions"
        http = urllib.request.Request(address, json.dumps(request).encode(), {"Content-Type": "application/json"})
        if self.api_key_env:
            http.add_unredirected_header("Authorization", f"Bearer {os.environ[self.api_key_env]}")
        return http
