"""Interchange interventions: run one prompt with activations copied from another, token by token.

>>> cells = [Cell.of(site, "question") for site in resid_post(range(lm.n_layers))]
>>> interchange(lm, source=off, target=on, cells=cells)          # (cell, prompt): log-probability of on's responses

Prompt i of ``target`` takes activations from prompt i of ``source`` at one named position, which must have the same
number of tokens in both. Elsewhere the two may differ in length, as they do with and without a trigger. Each batch of
sources runs once for all cells; then each cell costs one forward pass of the targets.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from interp.analysis.likelihood import response_likelihood
from interp.chat import Chat, pad_left, position_ids
from interp.chat import positions as marked
from interp.edits import Masks
from interp.hooks import hooked
from interp.models import LanguageModel, check_prompts
from interp.recording import buckets, pass_tokens
from interp.sites import Site


@dataclass(frozen=True)
class Cell:
    """What one intervention copies from the source: some sites, at one named position."""

    sites: tuple[Site, ...]
    position: str

    @classmethod
    def of(cls, site: Site, position: str) -> "Cell":
        """Return the cell of one site at one position."""
        return cls((site,), position)

    def __str__(self) -> str:
        return f"{'+'.join(map(str, self.sites))} at {self.position}"


def interchange(
    lm: LanguageModel,
    source: Sequence[Chat],
    target: Sequence[Chat],
    cells: Sequence[Cell],
    *,
    batch_tokens: int | None = None,
) -> Float64[Tensor, "cell prompt"]:
    """Return the log-probability (nats) of each target's response, with one cell at a time copied from the source.

    Compare ``response_likelihood`` of ``target`` (nothing copied) and of ``source`` (everything copied).

    Args:
        lm: The model, with the active adapter.
        source: Prompts to copy from; with responses if a position lies in the response.
        target: Prompts with responses.
        cells: What to copy, each in a separate pass.
        batch_tokens: Most tokens in one forward pass, padding included; see ``interp.recording.pass_tokens``.

    Raises:
        ValueError: If the lists differ in length, a pair differs in the number of tokens of a position, a prompt lacks
            a position, or the model has no such site.

    Not evidence for: a site that carries the difference, unless copying from an unrelated prompt does less.

    Source: Vig et al. 2020 (arXiv:2004.12265); Meng et al. 2022 (arXiv:2202.05262); Geiger et al. 2021
        (arXiv:2106.02997).
    """
    check_prompts(lm, [*source, *target])
    log_probs = torch.empty(len(cells), len(target), dtype=torch.float64)
    names = tuple(dict.fromkeys(cell.position for cell in cells))
    sites = tuple(dict.fromkeys(site for cell in cells for site in cell.sites))
    for unsorted in paired_buckets(source, target, names, 0 if lm.recurrent else pass_tokens(batch_tokens)):
        rows = sorted(unsorted, key=lambda row: -len(target[row]))  # the order in which response_likelihood runs them
        sources, targets = [source[row] for row in rows], [target[row] for row in rows]
        activations = _tokens(lm, sources, sites, names)
        for index, cell in enumerate(cells):
            values = {site: activations[site, cell.position] for site in cell.sites}
            log_probs[index, rows] = _likelihood(lm, targets, cell.position, values)
    return log_probs


def paired_buckets(
    source: Sequence[Chat], target: Sequence[Chat], names: Sequence[str], batch_tokens: int
) -> Iterator[list[int]]:
    """Split pairs of prompts into batches of similar length, as ``buckets`` does single prompts.

    Raises:
        ValueError: If the lists differ in length, or a pair differs in the number of tokens of a position.
    """
    if len(source) != len(target):
        raise ValueError(f"{len(source)} source prompts for {len(target)} target prompts")
    for name in names if source else ():
        counts = (marked(chats, name).sum(1).tolist() for chats in (source, target))
        for row, (a, b) in enumerate(zip(*counts, strict=True)):
            if a != b:
                raise ValueError(f"position {name!r} has {a} tokens in source prompt {row}, {b} in its target")
    yield from buckets([max(len(a), len(b)) for a, b in zip(source, target, strict=True)], batch_tokens)


@torch.inference_mode()
def _tokens(
    lm: LanguageModel, chats: Sequence[Chat], sites: Sequence[Site], names: Sequence[str]
) -> dict[tuple[Site, str], Float[Tensor, "token d_model"]]:
    """Run some prompts once; return the stream at each site and position, one row per token, prompt after prompt."""
    ids, mask = pad_left(chats, 0, lm.device)
    tokens_of = {name: marked(chats, name, width=ids.shape[1]) for name in names}
    copies: dict[tuple[Site, str], Tensor] = {}

    def reader(site: Site) -> Callable[[Tensor], None]:
        return lambda h: copies.update({(site, name): h[tokens.to(h.device)] for name, tokens in tokens_of.items()})

    with hooked(lm, {site: reader(site) for site in sites}):
        lm.decoder(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), use_cache=False)
    return copies


def _likelihood(
    lm: LanguageModel, chats: Sequence[Chat], position: str, values: Mapping[Site, Float[Tensor, "token d_model"]]
) -> Float64[Tensor, " prompt"]:
    def within(masks: Masks):
        tokens = masks(position)
        assert isinstance(tokens, Tensor)
        return hooked(lm, {site: _replacing(tokens, rows) for site, rows in values.items()})

    one_pass = len(chats) * max(map(len, chats))  # so that the rows keep the order of the copied tokens
    return response_likelihood(lm, chats, within=within, batch_tokens=one_pass).log_probability


def _replacing(tokens: Bool[Tensor, "batch pos"], values: Float[Tensor, "token d_model"]) -> Callable[[Tensor], Tensor]:
    def replace(h: Tensor) -> Tensor:
        edited = h.clone()
        edited[tokens.to(h.device)] = values.to(h.device)
        return edited

    return replace
