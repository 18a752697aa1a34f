"""What a read-only hook at every layer adds to a forward pass, against the bare pass."""

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.models import DTYPES, random_llama
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import race
from interp.hooks import hooked
from interp.models import LanguageModel
from interp.sites import resid_post

BATCHES = ((8, 64, 4), (1, 1, 40))
"""Prompts, tokens per prompt, factor of rounds: a large pass, and a single token, where overhead is worst."""


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    for dtype in DTYPES:
        lm = random_llama(size, dtype)
        for prompts, tokens, more in BATCHES:
            ids = torch.randint(len(lm.tokenizer), (prompts, tokens), generator=torch.Generator().manual_seed(0))
            seconds = _race(lm, ids, size, size.rounds * more)
            ours, peer = (ids.numel() * size.passes / seconds[side] for side in ("hooked", "bare"))
            case = f"hook overhead, every layer, {prompts} x {tokens} tokens"
            yield Row(case=case, ours=ours, peer=peer, peer_name="no hooks", unit="tokens/s", dtype=dtype)


def _race(lm: LanguageModel, ids: Tensor, size: Size, rounds: int) -> dict[str, float]:
    def hooked_passes() -> None:
        with hooked(lm, dict.fromkeys(resid_post(range(lm.n_layers)), _look)):
            bare_passes()

    @torch.inference_mode()
    def bare_passes() -> None:
        for _ in range(size.passes):
            lm.hf(input_ids=ids, use_cache=False)

    return race({"hooked": hooked_passes, "bare": bare_passes}, rounds)


def _look(_h: Tensor) -> None:
    """Change nothing."""
