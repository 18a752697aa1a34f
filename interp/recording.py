"""Record the residual stream: one vector per prompt at each named site and position.

    >>> recording = record(lm, chats, resid_post(range(lm.n_layers)), ["trigger", "last_prompt"])
    >>> recording.at(Site("resid_post", 3), "trigger")  # (prompt, d_model)

A forward pass runs on prompts of similar length, stops after the last requested site and never reaches the vocabulary
head; only the requested vectors are copied.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.adapters import active_adapters
from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Edit, batch_masks, editing
from interp.hooks import hooked
from interp.models import LanguageModel, check_prompts, fingerprint
from interp.runs.progress import Progress
from interp.sites import Site, index_of
from interp.store import BLOCK, ActivationStore, append_to, create
from interp.text.template import template_options

WINDOW_BYTES = 1 << 23
"""Vectors kept in memory before they go to a store (at least one block), so memory does not grow with the prompts."""
BATCH_TOKENS = {"cpu": 1024}
"""Tokens per pass, by device. A CPU is fastest while a pass fits its cache, an accelerator when it is fully used."""
OTHER_BATCH_TOKENS = 4096
BATCH = "SEMCON_BATCH_TOKENS"
"""Environment variable with the most tokens of a forward pass, where a call does not say it."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One float32 vector per site, position and prompt, on the CPU."""

    sites: tuple[Site, ...]
    positions: tuple[str, ...]
    values: Float[Tensor, "site position prompt d_model"]

    def at(self, site: Site, position: str) -> Float[Tensor, "prompt d_model"]:
        """Return one site at one position.

        Raises:
            ValueError: If it was not recorded.
        """
        return self.values[index_of(site, position, self.sites, self.positions)]


def record(
    lm: LanguageModel,
    chats: Sequence[Chat],
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    store: ActivationStore | None = None,
) -> Recording:
    """Record one vector per prompt at each site and position, with the active adapter.

    Up to rounding, the result does not depend on the order of the prompts or on how they are batched.

    Args:
        lm: The model.
        chats: Prompts, with responses if a position lies in the response.
        sites: Where to read. A site is read after its edits.
        positions: Names of ``interp.chat.positions``. A name of several tokens (``trigger``, ``question``,
            ``response_mean``) gives their mean, accumulated in float32; ``last_prompt`` and ``response[t]`` are one
            token.
        edits: Edits under which to record.
        batch_tokens: Most tokens in one forward pass, padding included; None chooses by device.
        progress: Called after each pass with the number of prompts it finished.
        store: A store to write the rows to as well (see ``record_to``).

    Raises:
        ValueError: If there is no prompt, a prompt lacks a named part or is too long, the model has no such site, or a
            vector is not finite.
    """
    check_request(chats, sites, positions)
    check_prompts(lm, chats)
    if store is not None:
        record_to(store, lm, chats, edits=edits, batch_tokens=batch_tokens, progress=progress)
        rows = [[store.read(site, position).float() for position in positions] for site in sites]
        return Recording(tuple(sites), tuple(positions), torch.stack([torch.stack(row) for row in rows]))
    plan = _Plan(lm, tuple(sites), tuple(positions), tuple(edits), batch_tokens, progress)
    return Recording(plan.sites, plan.positions, plan.run(chats, range(len(chats))))


def stream(
    lm: LanguageModel,
    chats: Sequence[Chat],
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[list[int], Float[Tensor, "site position batch d_model"]]]:
    """Yield the vectors of ``record`` pass by pass, with the indices of their prompts; none are kept in memory.

    Every prompt comes once, the longest first.

    Raises:
        ValueError: As ``record``, at the first iteration.
    """
    check_request(chats, sites, positions)
    check_prompts(lm, chats)
    plan = _Plan(lm, tuple(sites), tuple(positions), tuple(edits), batch_tokens, progress)
    for rows, values in plan.passes(chats, range(len(chats))):
        yield rows, values.clone()  # an ordinary tensor: it is created outside inference mode


def check_request(chats: Sequence[Chat], sites: Sequence[Site], positions: Sequence[str]) -> None:
    """Refuse a recording of nothing.

    Raises:
        ValueError: If there are no prompts, no sites or no positions.
    """
    if not chats or not sites or not positions:
        raise ValueError(f"record: {len(chats)} prompts, {len(sites)} sites, {len(positions)} positions; want some")


def record_to(
    store: ActivationStore,
    lm: LanguageModel,
    chats: Sequence[Chat],
    *,
    edits: Sequence[Edit] = (),
    batch_tokens: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Record into a store in bounded memory, starting after the prompts that it already holds.

    Raises:
        ValueError: If the store holds other prompts than these.
    """
    check_prompts(lm, chats)
    stored = store.prompt_hashes
    for index, (chat, stored_hash) in enumerate(zip(chats, stored, strict=False)):
        if prompt_hash(chat) != stored_hash:
            raise ValueError(f"{store.path}: its prompt {index} is not prompt {index} of this recording")
    if len(stored) > len(chats):
        raise ValueError(f"{store.path}: it holds {len(stored)} prompts, this recording has {len(chats)}")
    if progress and stored:
        progress(len(stored))
    plan = _Plan(lm, store.sites, store.positions, tuple(edits), batch_tokens, progress)
    width = len(store.sites) * len(store.positions) * lm.d_model * 4
    window = max(1, WINDOW_BYTES // (width * BLOCK)) * BLOCK
    for start in range(len(stored), len(chats), window):
        window_indices = range(start, min(start + window, len(chats)))
        store.append(plan.run(chats, window_indices), [prompt_hash(chats[index]) for index in window_indices])
    store.flush()


def open_store(
    path: str | Path,
    lm: LanguageModel,
    sites: Sequence[Site],
    positions: Sequence[str],
    *,
    capacity: int,
    dtype: str = "float32",
    edits: Sequence[Edit] = (),
) -> ActivationStore:
    """Create the store of a recording, or open it to continue if the file exists.

    Its attributes say what is recorded: model, base fingerprint, active adapter, tokenizer, dtype, edits.

    Raises:
        ValueError: If the file exists and holds another recording.
    """
    request = {"sites": tuple(sites), "positions": tuple(positions), "dtype": dtype}
    attributes = _attributes(lm, edits)
    if not Path(path).exists():
        return create(path, **request, d_model=lm.d_model, capacity=capacity, attributes=attributes)
    store = append_to(path)
    for name, value in (request | attributes).items():
        stored = store.attributes.get(name) if name in attributes else getattr(store, name)
        if stored != value:
            store.close()
            raise ValueError(f"{path}: its {name} is {stored!r}, this recording's is {value!r}")
    return store


def _attributes(lm: LanguageModel, edits: Sequence[Edit]) -> dict[str, str]:
    vocabulary = "\n".join(sorted(f"{token} {index}" for token, index in lm.tokenizer.get_vocab().items()))
    options = template_options(lm.tokenizer)
    return {
        "model": lm.name,
        "family": lm.family,
        "base_fingerprint": fingerprint(lm.base),
        "adapter": "+".join(active_adapters(lm)),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "model_dtype": str(lm.dtype).removeprefix("torch."),
        "edits": "; ".join(f"{edit} {_digest(edit)}" for edit in edits),
        **({"template_options": json.dumps(options)} if options else {}),
    }


def _digest(edit: Edit) -> str:
    tensors = [tensor for tensor in (edit.vectors, edit.value, edit.along) if tensor is not None]
    return hashlib.sha256(b"".join(tensor.float().cpu().numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


def prompt_hash(chat: Chat) -> bytes:
    """Return the SHA-256 of the token ids."""
    return hashlib.sha256(np.asarray(chat.token_ids, dtype="<i8").tobytes()).digest()


def pass_tokens(batch_tokens: int | None = None, default: int = OTHER_BATCH_TOKENS) -> int:
    """Return the most tokens of a forward pass: as asked, else ``$SEMCON_BATCH_TOKENS``, else the default.

    Raises:
        ValueError: If the variable holds no whole number above 0.
    """
    text = os.environ.get(BATCH)
    if text and not (text.isdecimal() and int(text)):
        raise ValueError(f"{BATCH}={text}: expected a whole number above 0")
    return batch_tokens or int(text or default)


def buckets(lengths: Sequence[int], batch_tokens: int, *, equal: bool = False) -> Iterator[list[int]]:
    """Split indices into batches of similar length, the longest first, so that memory peaks in the first pass.

    Rows times the longest row stays within ``batch_tokens``; a row longer than that is a batch of its own. With
    ``equal`` a batch has rows of one length only, as a recurrent model needs (``LanguageModel.recurrent``).
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        full = batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens
        if full or (batch and equal and lengths[index] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class _Stop(Exception):  # noqa: N818  (not an error: nothing is left to read)
    """Stops a forward pass after the last requested site."""


@dataclass(frozen=True)
class _Plan:
    """What to record; ``run`` does it for some of the prompts."""

    lm: LanguageModel
    sites: tuple[Site, ...]
    positions: tuple[str, ...]
    edits: tuple[Edit, ...]
    batch_tokens: int | None
    progress: Progress | None

    def run(self, chats: Sequence[Chat], indices: Sequence[int]) -> Float[Tensor, "site position prompt d_model"]:
        values = torch.empty(len(self.sites), len(self.positions), len(indices), self.lm.d_model)
        for batch, read in self.passes(chats, indices):
            values[:, :, batch] = read
        return values

    def passes(self, chats: Sequence[Chat], indices: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Run the passes; yield for each which elements of ``indices`` it read, and their vectors."""
        default = BATCH_TOKENS.get(self.lm.device.type, OTHER_BATCH_TOKENS)
        most = pass_tokens(self.batch_tokens, default)
        for batch in buckets([len(chats[index]) for index in indices], most, equal=self.lm.recurrent):
            rows = [indices[row] for row in batch]
            values = self._read([chats[row] for row in rows], rows)
            self._check_finite(values, rows)
            yield batch, values
            if self.progress:
                self.progress(len(batch))

    @torch.inference_mode()
    def _read(self, batch: Sequence[Chat], rows: Sequence[int]) -> Float[Tensor, "site position batch d_model"]:
        ids, mask = pad_left(batch, 0, self.lm.device)
        pools = [Pool(batch, name, ids.shape[1], self.lm.device) for name in self.positions]
        vectors: dict[Site, list[Tensor]] = {}
        last = max(self.sites, key=lambda site: site.execution)

        def reader(site: Site) -> Callable[[Tensor], None]:
            def read(h: Tensor) -> None:
                vectors[site] = [pool.mean(h) for pool in pools]
                if site == last:
                    raise _Stop

            return read

        with self._edited(batch, rows, ids.shape[1]), hooked(self.lm, {site: reader(site) for site in self.sites}):
            _forward(self.lm, ids, mask)
        return torch.stack([torch.stack(vectors[site]).cpu() for site in self.sites])

    def _check_finite(self, values: Float[Tensor, "site position batch d_model"], rows: Sequence[int]) -> None:
        finite = values.isfinite().all(-1)
        if not bool(finite.all()):
            site, position, row = (~finite).nonzero()[0].tolist()
            where = f"{self.sites[site]} at {self.positions[position]!r} of prompt {rows[row]}"
            raise ValueError(f"record: {where} is not finite in {self.lm.dtype}")

    def _edited(self, batch: Sequence[Chat], rows: Sequence[int], width: int) -> AbstractContextManager[None]:
        prompts = torch.tensor(rows)
        return editing(self.lm, self.edits, batch_masks(batch, width, self.lm.device), rows=lambda: prompts)


def _forward(lm: LanguageModel, ids: Tensor, mask: Tensor) -> None:
    """Run the decoder until a reader stops it."""
    try:
        lm.decoder(input_ids=ids, use_cache=False, **padding(mask))
    except _Stop:
        return
    raise AssertionError("the forward pass never reached the last requested site")


def padding(mask: Int[Tensor, "batch pos"]) -> dict[str, Tensor]:
    """Return the attention mask and positions as inputs of a model; nothing if no row is padded, which is faster."""
    return {} if bool(mask.all()) else {"attention_mask": mask, "position_ids": position_ids(mask)}


class Pool:
    """Mean over one named position of each row. Tokens are selected by index, so that no others are copied.

    ``single`` is true if every row has exactly one such token; its vector is then returned unchanged.
    """

    def __init__(self, batch: Sequence[Chat], name: str, width: int, device: torch.device) -> None:
        mask = marked(batch, "response" if name == "response_mean" else name, width=width)
        counts = mask.sum(1)
        self.single = bool((counts == 1).all())
        self.rows = mask.nonzero()[:, 0].to(device)
        self.tokens = mask.flatten().nonzero()[:, 0].to(device)
        self.counts = counts[:, None].to(device)

    def mean(self, h: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_model"]:
        """Return the float32 mean of each row, a copy."""
        picked = h.flatten(0, 1).index_select(0, self.tokens.to(h.device)).float()
        if self.single:
            return picked
        total = picked.new_zeros(h.shape[0], h.shape[-1])
        return total.index_add_(0, self.rows.to(h.device), picked) / self.counts.to(h.device)


def one_token(batch: Sequence[Chat], name: str, width: int) -> Pool:
    """Return the reader of a position that is one token in every prompt.

    Raises:
        ValueError: If it is several tokens in some prompt.
    """
    pool = Pool(batch, name, width, torch.device("cpu"))
    if not pool.single:
        raise ValueError(f"position {name!r}: several tokens in some prompt; logits are read at one")
    return pool
