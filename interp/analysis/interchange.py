"""Interchange interventions: run one prompt with the activations that another had, token by token.

>>> cells = [Cell.of(site, "question") for site in resid_post(range(lm.n_layers))]
>>> interchange(lm, source=off, target=on, cells=cells)          # (cell, prompt): log-probability of on's responses

Prompt i of ``target`` takes from prompt i of ``source`` at one named position, whose tokens must be as many in both;
elsewhere the two may differ in length, as they do with and without a trigger. Every batch of sources runs once,
whatever the number of cells, and then every cell costs one forward pass of the targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from interp.analysis.likelihood import response_likelihood
from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Masks
from interp.hooks import hooked
from interp.models import LanguageModel
from interp.recording import buckets
from interp.sites import Site


@dataclass(frozen=True)
class Cell:
    """What is taken from the source at once: some sites, at one named position."""

    sites: tuple[Site, ...]
    position: str

    @classmethod
    def of(cls, site: Site, position: str) -> "Cell":
        """One site at one position."""
        return cls((site,), position)

    def __str__(self) -> str:
        return f"{'+'.join(map(str, self.sites))} at {self.position}"


def interchange(
    lm: LanguageModel,
    source: Sequence[Chat],
    target: Sequence[Chat],
    cells: Sequence[Cell],
    *,
    batch_tokens: int = 4096,
) -> Float64[Tensor, "cell prompt"]:
    """Return the log-probability (nats) of each target's response, each cell in turn as it was in the source.

    Compare ``response_likelihood`` of ``target`` (nothing taken) and of ``source`` (everything taken).

    Args:
        lm: The model, with whatever adapter active.
        source: Prompts to take from; with responses where a position lies in one.
        target: Prompts with responses.
        cells: What to take; each in a pass of its own.
        batch_tokens: Most tokens in one forward pass, padding included.

    Raises:
        ValueError: If the lists differ in length, a pair differs in the number of tokens of a position, a prompt lacks
            one, or the model has no such site.

    Not evidence for: a site carrying the difference, unless taking it from an unrelated prompt does less.

    Source: Vig et al. 2020 (arXiv:2004.12265); Meng et al. 2022 (arXiv:2202.05262); Geiger et al. 2021
        (arXiv:2106.02997).
    """
    if len(source) != len(target):
        raise ValueError(f"interchange: {len(source)} source prompts for {len(target)} target prompts")
    found = torch.empty(len(cells), len(target), dtype=torch.float64)
    names = tuple(dict.fromkeys(cell.position for cell in cells))
    sites = tuple(dict.fromkeys(site for cell in cells for site in cell.sites))
    longest = [max(len(a), len(b)) for a, b in zip(source, target, strict=True)]
    for unsorted in buckets(longest, batch_tokens):
        rows = sorted(unsorted, key=lambda row: -len(target[row]))  # the order in which a likelihood runs them
        giver, taker = [source[row] for row in rows], [target[row] for row in rows]
        _check_pairs(giver, taker, rows, names)
        given = _tokens(lm, giver, sites, names)
        for index, cell in enumerate(cells):
            taken = {site: given[site, cell.position] for site in cell.sites}
            found[index, rows] = _likelihood(lm, taker, cell.position, taken)
    return found


def _check_pairs(source: Sequence[Chat], target: Sequence[Chat], rows: Sequence[int], names: Sequence[str]) -> None:
    for name in names:
        counts = (marked(chats, name).sum(1).tolist() for chats in (source, target))
        for row, a, b in zip(rows, *counts, strict=True):
            if a != b:
                raise ValueError(
                    f"interchange: position {name!r} has {a} tokens in source prompt {row}, {b} in its target"
                )


@torch.inference_mode()
def _tokens(
    lm: LanguageModel, chats: Sequence[Chat], sites: Sequence[Site], names: Sequence[str]
) -> dict[tuple[Site, str], Float[Tensor, "token d_model"]]:
    """Run some prompts once; return the stream at every site, at the tokens of every position, row after row."""
    ids, mask = pad_left(chats, 0, lm.device)
    at = {name: marked(chats, name, width=ids.shape[1]) for name in names}
    kept: dict[tuple[Site, str], Tensor] = {}

    def keep(site: Site) -> Callable[[Tensor], None]:
        return lambda h: kept.update({(site, name): h[tokens.to(h.device)] for name, tokens in at.items()})

    with hooked(lm, {site: keep(site) for site in sites}):
        lm.decoder(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return kept


def _likelihood(
    lm: LanguageModel, chats: Sequence[Chat], position: str, taken: Mapping[Site, Float[Tensor, "token d_model"]]
) -> Float64[Tensor, " prompt"]:
    def within(masks: Masks):
        tokens = masks(position)
        assert isinstance(tokens, Tensor)
        return hooked(lm, {site: _replacing(tokens, values) for site, values in taken.items()})

    room = len(chats) * max(map(len, chats))  # one pass, in the order given
    return response_likelihood(lm, chats, within=within, batch_tokens=room).log_probability


def _replacing(tokens: Bool[Tensor, "batch pos"], values: Float[Tensor, "token d_model"]) -> Callable[[Tensor], Tensor]:
    def replace(h: Tensor) -> Tensor:
        edited = h.clone()
        edited[tokens.to(h.device)] = values.to(h.device)
        return edited

    return replace
