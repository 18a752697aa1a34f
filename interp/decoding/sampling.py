"""Draw tokens: reproducible uniform numbers and inverse-transform sampling. Pure functions.

>>> u = uniforms(seed=0, token_ids=[5, 9, 2], samples=range(20), n=40)     # one stream per completion
>>> tokens = choose(logits, u[:, 0], Sampling(temperature=0.8, top_p=0.95))
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

COLDEST = 1e-6
"""Least temperature that is not greedy."""


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; ``temperature`` 0 is greedy, ``top_p`` 1 keeps the whole distribution.

    A temperature above 0 that float32 could not divide by is refused.

    Raises:
        ValueError: If a value is out of its range.
    """

    max_new_tokens: int = 40
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        possible = self.temperature == 0 or COLDEST <= self.temperature < math.inf
        if self.max_new_tokens < 1 or not possible or not 0 < self.top_p <= 1:
            raise ValueError(f"{self}: want max_new_tokens >= 1, temperature 0 or >= {COLDEST}, and 0 < top_p <= 1")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always chosen."""
        return self.temperature == 0


def uniforms(seed: int, token_ids: Sequence[int], samples: Sequence[int], n: int) -> Float[Tensor, "sample n"]:
    """Return ``n`` uniform numbers in [0, 1) for each sample of one prompt.

    Each row is the start of a Philox stream whose key is the SHA-256 of (seed, token ids, sample). It depends on
    nothing else, and a larger ``n`` only extends it.
    """
    prompt = hashlib.sha256(f"{seed}|".encode() + np.asarray(token_ids, dtype="<i8").tobytes())
    streams = np.empty((len(samples), n), dtype=np.float32)
    for row, sample in zip(streams, samples, strict=True):
        digest = prompt.copy()
        digest.update(f"|{sample}".encode())
        key = np.frombuffer(digest.digest()[:16], dtype="<u8")
        np.random.Generator(np.random.Philox(key=key)).random(out=row, dtype=np.float32)
    return torch.from_numpy(streams)


def choose(
    logits: Float[Tensor, "batch vocab"], u: Float[Tensor, " batch"], sampling: Sampling
) -> Int[Tensor, " batch"]:
    """Choose one token per row: where the cumulative distribution passes ``u``, or the most probable if greedy.

    With ``top_p`` < 1 only the smallest set of most probable tokens with total probability ``top_p`` is kept. A token
    of probability zero is never chosen.
    """
    if sampling.greedy:
        return logits.argmax(-1)
    p = (logits.float() / sampling.temperature).softmax(-1)
    if sampling.top_p == 1:
        return _inverse(p, u)
    p, tokens = p.sort(stable=True, dim=-1, descending=True)
    p = torch.where(p.cumsum(-1) - p < sampling.top_p, p, 0.0)
    return tokens.gather(-1, _inverse(p, u)[:, None])[:, 0]


def _inverse(p: Float[Tensor, "batch vocab"], u: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Return the first index whose cumulative sum exceeds u times the total."""
    cumulative = p.cumsum(-1)
    index = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)
    return index[:, 0].clamp_max(p.shape[-1] - 1)
