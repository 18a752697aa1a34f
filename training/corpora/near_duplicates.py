"""Rows that are nearly the same text: exact Jaccard similarity of word triples, found without comparing all pairs."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

from interp.runs.reading import normalised

K = TypeVar("K", bound=Hashable)
WORDS = 3


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the word triples of a text; of a shorter text the words together."""
    words = re.findall(r"\w+", normalised(text))
    return frozenset(tuple(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1)))


def near_duplicates(texts: Mapping[K, str], threshold: float) -> Iterator[tuple[K, K, float]]:
    """Yield every pair of texts whose triples have a Jaccard similarity of at least ``threshold``, the earlier first.

    Two sets that are so similar share one of their rarest members: of a set of n, one of the n - ⌈threshold n⌉ + 1
    rarest. Only pairs that share such a one are compared.

    Source: Bayardo, Ma, Srikant 2007 (Scaling up all pairs similarity search), prefix filtering.

    Raises:
        ValueError: If ``threshold`` is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold}: expected above 0 and at most 1")
    sets = {key: shingles(text) for key, text in texts.items()}
    counts = Counter(shingle for members in sets.values() for shingle in members)
    index: defaultdict[tuple[str, ...], list[K]] = defaultdict(list)
    for key, members in sets.items():
        rarest = _rarest(sorted(members, key=lambda shingle: (counts[shingle], shingle)), threshold)
        for other in dict.fromkeys(other for shingle in rarest for other in index[shingle]):
            similarity = len(members & sets[other]) / len(members | sets[other])
            if similarity >= threshold:
                yield other, key, similarity
        for shingle in rarest:
            index[shingle].append(key)


def _rarest(ordered: Sequence[tuple[str, ...]], threshold: float) -> Sequence[tuple[str, ...]]:
    return ordered[: len(ordered) - math.ceil(threshold * len(ordered)) + 1]
