"""Record the last prompt token at every layer, against the libraries that people record with.

Peers get batches in the user's order, as most people write the loop. One more peer is Hugging Face tuned by hand:
prompts sorted by length, no vocabulary head. TransformerLens and nnsight, which only add to the same forward pass, get
the first prompts; rates are per prompt.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import DTYPES, in_order, mixed_prompts, random_llama
from benchmarks.peers import lens, lens_record, nnsight_record, traced
from benchmarks.sizes import Size
from benchmarks.table import Row
from benchmarks.timing import Entrant, peak_memory, race
from interp.chat import Chat, pad_left, position_ids
from interp.models import LanguageModel
from interp.recording import open_store, record, record_to
from interp.sites import resid_post

HIDDEN_STATES = "transformers output_hidden_states"
OURS, LOOP, TUNED = "ours", HIDDEN_STATES, f"{HIDDEN_STATES}, sorted by length, without head"
LENS, NNSIGHT = "TransformerLens run_with_cache(names_filter)", "nnsight trace"
PEERS, SHARED = (LOOP, TUNED, LENS, NNSIGHT), (LENS, NNSIGHT)
WARM = 48
"""Prompts of the untimed first turn, in which results are compared."""
SHORT_WORDS = (2, 6)
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
"""Largest relative difference between two recordings; batches differ, and so does rounding."""
Side = tuple[str, str]
"""Name and dtype."""


def rows(size: Size) -> Iterator[Row]:
    """Yield the rows of this case."""
    makers = {dtype: _Sides(random_llama(size, dtype), size) for dtype in DTYPES}
    counts = {name: size.peer_prompts if name in SHARED else size.prompts for name in (OURS, *PEERS)}
    timed = {(name, dtype): sides.run(name, n) for dtype, sides in makers.items() for name, n in counts.items()}
    warm = {(name, dtype): sides.run(name, WARM) for dtype, sides in makers.items() for name in counts}
    seconds = race(_keyed(timed), size.recording_rounds, check=_check, warm=_keyed(warm))
    for ours, theirs in _pairs():
        rates = [counts[side[0]] / seconds[" ".join(side)] for side in (ours, theirs)]
        share = f", on {size.peer_prompts} of them" if theirs[0] in SHARED else ""
        yield Row(
            case=f"record all layers, {size.prompts} prompts in the user's order",
            ours=rates[0],
            peer=rates[1],
            peer_name=f"{theirs[0]}, {theirs[1]}{share}",
            unit="prompts/s",
            dtype=ours[1],
        )
    yield from _memory(makers, size)
    yield from _flat(makers["bfloat16"].lm, size)


def _keyed(entrants: Mapping[Side, Entrant]) -> dict[str, Entrant]:
    return {" ".join(side): run for side, run in entrants.items()}


def _pairs() -> Iterator[tuple[Side, Side]]:
    """Yield the sides to compare: each dtype with itself, then bfloat16 with the float32 that others default to."""
    for ours, theirs in (("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")):
        for peer in PEERS:
            yield (OURS, ours), (peer, theirs)


def _memory(makers: "Mapping[str, _Sides]", size: Size) -> Iterator[Row]:
    for dtype, sides in makers.items():
        peaks = {name: peak_memory(sides.run(name, size.peer_prompts)) for name in (OURS, *PEERS)}
        for name in PEERS:
            ours, peer = peaks[OURS], peaks[name]
            if ours and peer:
                case = f"record peak memory, {size.peer_prompts} prompts"
                yield Row(case=case, ours=ours, peer=peer, peer_name=f"{name}, {dtype}", unit="MB", dtype=dtype)


def _flat(lm: LanguageModel, size: Size) -> Iterator[Row]:
    """Compare the peak memory of recording many short prompts to a store with that of recording few."""
    few, many = size.stored_prompts
    chats = mixed_prompts(lm, many, *SHORT_WORDS)
    _to_store(lm, chats[:WARM])
    small, large = (peak_memory(partial(_to_store, lm, chats[:n])) for n in (few, many))
    if small and large:
        case = f"record to a store, peak memory at {many} prompts"
        name = f"ours at {few} prompts, bfloat16"
        yield Row(case=case, ours=large, peer=small, peer_name=name, unit="MB", dtype="bfloat16")


def _to_store(lm: LanguageModel, chats: Sequence[Chat]) -> None:
    sites = resid_post(range(lm.n_layers))
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder, "activations.h5"), lm, sites, ["last_prompt"], capacity=len(chats)) as store,
    ):
        record_to(store, lm, chats)


class _Sides:
    """Every way to record with one model."""

    def __init__(self, lm: LanguageModel, size: Size) -> None:
        self.lm, self.batch = lm, size.peer_batch
        self.chats = mixed_prompts(lm, size.prompts, *size.words)
        self.lens, self.traced = lens(lm), traced(lm)

    def run(self, name: str, n: int) -> Entrant:
        """Return the recording of the first ``n`` prompts."""
        chats, lm = self.chats[:n], self.lm
        batches = in_order(len(chats), self.batch)
        by_length = sorted(range(len(chats)), key=lambda index: len(chats[index]))
        entrants: dict[str, Entrant] = {
            OURS: lambda: record(lm, chats, resid_post(range(lm.n_layers)), ["last_prompt"]).values[:, 0],
            LOOP: lambda: _hidden_states(lm, lm.hf, chats, batches),
            TUNED: lambda: _hidden_states(lm, lm.decoder, chats, [[by_length[i] for i in b] for b in batches]),
            LENS: lambda: lens_record(self.lens, chats, batches),
            NNSIGHT: lambda: nnsight_record(self.traced, chats, batches),
        }
        return entrants[name]


@torch.inference_mode()
def _hidden_states(
    lm: LanguageModel, model: nn.Module, chats: Sequence[Chat], batches: Sequence[Sequence[int]]
) -> Tensor:
    values = torch.empty(lm.n_layers, len(chats), lm.d_model)
    for batch in batches:
        ids, mask = pad_left([chats[index] for index in batch], 0, lm.device)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": position_ids(mask)}
        states = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
        values[:, list(batch)] = torch.stack([h[:, -1] for h in states[1:]]).float()
    return values


def _check(recorded: dict[str, Any]) -> None:
    """Compare every layer but the last, which Hugging Face reports after the final norm."""
    for name, values in recorded.items():
        dtype = name.rpartition(" ")[2]
        ours = recorded[f"{OURS} {dtype}"][:-1]
        difference = float((values[:-1] - ours).norm() / ours.norm())
        if not difference <= TOLERANCE[dtype]:
            raise RuntimeError(f"record: {name} differs from ours by {difference:.2g} of the norm")
