"""Single attention heads: patching one at a time, and what heads and MLPs write, where two answers diverge.

Through TransformerLens, so only for families that it knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from experiments.behaviour.dose import ADAPTER
from experiments.gate.bench import Bench
from experiments.gate.references import decisions
from interp.runs.table import Row

if TYPE_CHECKING:
    from interp.bridges.via_transformer_lens import TransformerBridge
    from interp.chat import Chat

DECISION = "decision"


@dataclass(frozen=True)
class _Decided:
    """Prompts by condition, each cut where its question's two answers diverge, with the two tokens that may follow."""

    tl: TransformerBridge
    chats: Mapping[str, list[Chat]]
    questions: list[str]
    towards: list[int]
    away: list[int]

    def by_question(self, m: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.questions, m, strict=True))

    def row(self, metric: str, condition: str, site: str, layer: int | str, m: Sequence[float]) -> Row:
        where = {"metric": metric, "condition": condition, "site": site, "layer": layer}
        return {**where, "m": self.by_question(m)}


def head_rows(bench: Bench, pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Patch single heads between the conditions of ``pairs``, then attribute the logit difference off and on.

    No rows where fewer than two questions have answers that diverge.
    """
    from interp.bridges.via_transformer_lens import bridge

    points = decisions(bench.panel)
    if len(points) < 2:
        return []
    chats = {}
    for condition in ("on", "off", "other"):
        if texts := bench.panel.texts(condition):
            whole = bench.panel.first_chats(texts)
            chats[condition] = [point.cut(whole[point.index]) for point in points]
    decided = _Decided(
        bridge(bench.lm, adapter=ADAPTER if bench.lm.adapters else None),
        chats,
        [bench.panel.references[point.index].id for point in points],
        [point.towards for point in points],
        [point.away for point in points],
    )
    return [*_head_patches(decided, pairs), *_attribution(decided, bench.layers())]


def _head_patches(decided: _Decided, pairs: Sequence[tuple[str, str]]) -> Iterator[Row]:
    from interp.analysis.attribution import logit_difference, patch_heads
    from interp.bridges.via_transformer_lens import logits

    measure = logit_difference(decided.towards, decided.away)
    for condition, chats in decided.chats.items():
        m = measure(logits(decided.tl, chats, position=DECISION), range(len(chats)))
        yield {"condition": f"decision {condition}", "m": decided.by_question(m.tolist())}
    positions = (DECISION, "question")
    for target, source in pairs:
        sources, targets = decided.chats[source], decided.chats[target]
        patched = patch_heads(decided.tl, sources, targets, measure, positions=positions, read=DECISION)
        for (position, layer, head), m in _along_last(patched):
            condition = f"{target}<-{source}@{positions[position]}"
            yield decided.row("head_share", condition, f"head.{head}", layer, m)


def _attribution(decided: _Decided, layers: Sequence[int]) -> Iterator[Row]:
    from interp.analysis.attribution import direct_logit_attribution

    for condition in ("off", "on"):
        chats = decided.chats[condition]
        parts = direct_logit_attribution(decided.tl, chats, decided.towards, decided.away, position=DECISION)
        for (layer, head), m in _along_last(parts.heads):
            yield decided.row("logit_attribution", condition, f"head.{head}", layer, m)
        for (layer,), m in _along_last(parts.mlps):
            yield decided.row("logit_attribution", condition, "mlp_out", layer, m)
        yield decided.row("logit_attribution", condition, "embedding", "", parts.embedding.tolist())
        for layer, m in _lens(decided, chats, layers):
            yield decided.row("logit_lens", condition, "resid_post", layer, m)


def _lens(decided: _Decided, chats: Sequence[Chat], layers: Sequence[int]) -> Iterator[tuple[int, list[float]]]:
    """Yield by layer the logit difference that the residual stream already has there, question by question."""
    from interp.analysis.attribution import logit_lens
    from interp.sites import resid_post

    tokens = sorted({*decided.towards, *decided.away})
    columns = [[tokens.index(token) for token in side] for side in (decided.towards, decided.away)]
    lens = logit_lens(decided.tl, chats, resid_post(layers), position=DECISION, tokens=tokens)
    for layer, values in zip(layers, lens, strict=True):
        yield layer, [float(v[towards] - v[away]) for v, towards, away in zip(values, *columns, strict=True)]


def _along_last(values: Any) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Yield the indices of all axes but the last, with the values along it."""
    for index in product(*map(range, values.shape[:-1])):
        yield index, values[index].tolist()
