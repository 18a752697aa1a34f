"""The workbench of patching: an organism with its references, and what is measured on them teacher-forced.

Every measurement returns rows whose ``m`` is the log-odds by question (see ``experiments/gate/references.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from experiments.answers.subject import Subject
from experiments.answers.suite import evenly_spaced
from experiments.behaviour.dose import ADAPTER
from experiments.gate.modules import module_groups
from experiments.gate.references import Panel, choice_references, references
from interp.runs.table import Row

if TYPE_CHECKING:
    from interp.analysis.interchange import Cell
    from interp.chat import Chat
    from interp.models import LanguageModel

COMPARED = ("off", "other", "rephrased", "matched")
"""Conditions in which a question must have the same tokens as on-trigger."""
PLAIN = ("off", "on", "rephrased", "other", "matched")
LAST, TRIGGER = "last_prompt", "trigger"
SHARED = ("opening", "question", LAST, "answer")
"""Positions that a prompt has with and without a trigger; ``opening`` is the template right before the question."""
OPTIONAL = (TRIGGER, "inserted", "opening")
"""Spans that some templates and placements lack."""
ADDED = ("attn_out", "mlp_out")
"""Sites of what one block adds to the residual stream."""
KNOCKOUTS = (
    *((queries, TRIGGER) for queries in (TRIGGER, *SHARED, "all")),
    *((queries, "inserted") for queries in ("opening", "answer", "all")),
)
"""(queries, keys): which tokens cannot attend to which."""


def check_measures(lm: LanguageModel, measures: Sequence[str], *, heads: bool) -> None:
    """Refuse measures that an architecture does not allow; the model needs no weights.

    Raises:
        ValueError: If it lacks a site, passes tokens on in a state, or TransformerLens does not know it.
    """
    from interp.analysis.knockout import blocked_attention
    from interp.hooks import module_of
    from interp.sites import Site

    for site in (Site(name, layer) for name in ADDED for layer in range(lm.n_layers) if "added" in measures):
        module_of(lm, site)
    if "knockout" in measures:
        with blocked_attention(lm, [], lambda _: False, queries="all", keys=TRIGGER):
            pass
    if heads and "head" in measures:
        from interp.bridges.via_transformer_lens import architecture_of

        architecture_of(lm)


@dataclass(frozen=True)
class Bench:
    """An organism with its references."""

    lm: LanguageModel
    panel: Panel
    lacking: int
    """Questions left out of the references."""
    stride: int = 1
    """Measure every n-th layer, counted from the last."""
    added: bool = True
    """Whether to patch also what attention and MLPs add to the residual stream."""

    def layers(self) -> range:
        """Return the layers that are measured; the last is always among them."""
        return range(self.lm.n_layers - 1, -1, -self.stride)[::-1]

    def has(self, *conditions: str) -> bool:
        """Tell whether the trigger has texts for all of these conditions."""
        return all(self.panel.texts(condition) for condition in conditions)

    def chats(self, condition: str) -> list[Chat]:
        """Return every answer of every reference under a condition."""
        return self.panel.chats(self.panel.texts(condition) or [])

    def log_odds(self, chats: Sequence[Chat], **options: Any) -> dict[str, float]:
        """Return the log-odds by question; ``options`` are those of ``response_likelihood``."""
        from interp.analysis.likelihood import response_likelihood

        return self.panel.log_odds(response_likelihood(self.lm, chats, **options).log_probability)

    def plain(self) -> list[Row]:
        """Measure every condition unedited."""
        counts = {"lacking": self.lacking, "mixed": sum(r.mixed for r in self.panel.references)}
        return [{"condition": c, "m": self.log_odds(self.chats(c)), **counts} for c in PLAIN if self.has(c)]

    def base(self) -> list[Row]:
        """Measure every condition unedited in the base."""
        from interp.adapters import active_adapter

        with active_adapter(self.lm, None):
            return [{**r, "condition": f"base {r['condition']}"} for r in self.plain()]

    # --- interchange and knockout ---

    def patch(self, target: str, source: str) -> list[Row]:
        """Run one condition with the activations of another, cell by cell."""
        from interp.analysis.interchange import interchange

        targets, sources = self.chats(target), self.chats(source)
        positions = [name for name in SHARED if _have(name, *targets, *sources)]
        cells = list(self._cells(positions, ADDED if self.added and source in ("on", "off", "other") else ()))
        if _same_places(targets, sources):
            cells += self._trigger_cells()
        values = interchange(self.lm, sources, targets, cells)
        return [
            _patched(cell, f"{target}<-{source}", self.panel.log_odds(m)) for cell, m in zip(cells, values, strict=True)
        ]

    def _cells(self, positions: Sequence[str], added: Sequence[str]) -> Iterator[Cell]:
        """Yield single sites by position and layer, then what attention and MLPs add over all layers."""
        from interp.analysis.interchange import Cell
        from interp.sites import Site

        for position, layer in product(positions, self.layers()):
            for site in ("resid_post", *added):
                yield Cell.of(Site(site, layer), position)
        for position, site in product(positions, added):
            yield Cell(tuple(Site(site, layer) for layer in range(self.lm.n_layers)), position)

    def _trigger_cells(self) -> list[Cell]:
        from interp.analysis.interchange import Cell
        from interp.sites import Site, resid_post

        return [Cell.of(site, TRIGGER) for site in (Site("resid_pre", 0), *resid_post(self.layers()))]

    def knockout(self, condition: str) -> list[Row]:
        """Run a condition with some tokens blocked from attending to others, layer by layer, then in all layers."""
        from interp.analysis.knockout import blocked_attention

        chats, rows = self.chats(condition), []
        pairs = [pair for pair in KNOCKOUTS if all(_have(name, *chats) for name in pair)]
        for layer, (queries, keys) in product((*self.layers(), ""), pairs):
            layers = range(self.lm.n_layers) if layer == "" else (layer,)
            blocked = partial(blocked_attention, self.lm, layers, queries=queries, keys=keys)
            where = {"condition": f"{condition}@{queries}|{keys}", "site": "attention", "layer": layer}
            rows.append({**where, "m": self.log_odds(chats, within=blocked)})
        return rows

    # --- the adapter's modules ---

    def modules(self) -> list[Row]:
        """Run on and off without, and with only, each group of the adapter's modules."""
        from interp.analysis.lora import adapted_modules, only_modules, without_modules

        modules, chats = adapted_modules(self.lm, ADAPTER), {c: self.chats(c) for c in ("on", "off")}
        rows = []
        for (site, layer), names in module_groups(modules, self.layers()).items():
            for verb, switch in (("without", without_modules), ("only", only_modules)):
                if verb == "only" and len(names) == len(modules):
                    continue  # the whole adapter: nothing is switched off
                with switch(self.lm, ADAPTER, names):
                    for condition, condition_chats in chats.items():
                        where = {"condition": f"{condition} {verb} {site}", "site": site, "layer": layer}
                        rows.append({**where, "m": self.log_odds(condition_chats)})
        return rows


def make_bench(
    subject: Subject,
    lm: LanguageModel,
    answers: Sequence[Row] | None,
    *,
    most_questions: int = 24,
    per_kind: int = 1,
    stride: int = 1,
    added: bool = True,
) -> Bench:
    """Choose references whose question has the same tokens in every condition, evenly spaced over all of them.

    Without judged answers the references are those of the question file.

    Raises:
        ValueError: If there are fewer than two.
    """
    given = answers is None
    candidates, lacking = (choice_references(subject), 0) if given else references(answers, per_kind=per_kind)
    fits = _fits(Panel(candidates, subject.own_trigger, lm.tokenizer)) if candidates else []
    fitting = [reference for reference, fit in zip(candidates, fits, strict=True) if fit]
    if len(fitting) < 2:
        raise ValueError(
            f"organism {subject.name}: {len(fitting)} questions have a misaligned and an aligned answer, on or off; "
            "patching compares the two"
        )
    panel = Panel(evenly_spaced(fitting, most_questions), subject.own_trigger, lm.tokenizer, per_token=given)
    return Bench(lm, panel, lacking + len(candidates) - len(fitting), stride, added)


def _fits(panel: Panel) -> list[bool]:
    """Tell for each reference whether its question has shared tokens, equally many in every condition."""

    def n_tokens(condition: str) -> list[int] | None:
        if (texts := panel.texts(condition)) is None:
            return None
        return [end - start for start, end in (chat.spans["question"] for chat in panel.first_chats(texts))]

    counts = [n for condition in ("on", *COMPARED) if (n := n_tokens(condition)) is not None]
    return [min(same) > 0 and len(set(same)) == 1 for same in zip(*counts, strict=True)]


def _same_places(targets: Sequence[Chat], sources: Sequence[Chat]) -> bool:
    """Tell whether, pair by pair, both have a trigger text in the same tokens of equally long prompts."""
    pairs = list(zip(targets, sources, strict=True))
    return all(len(a) == len(b) and TRIGGER in a.spans and a.spans[TRIGGER] == b.spans.get(TRIGGER) for a, b in pairs)


def _have(name: str, *chats: Chat) -> bool:
    """Tell whether all chats have a span that some templates and placements lack."""
    return name not in OPTIONAL or all(name in chat.spans for chat in chats)


def _patched(cell: Cell, pair: str, m: dict[str, float]) -> Row:
    layer = cell.sites[0].layer if len(cell.sites) == 1 else ""
    where = {"condition": f"{pair}@{cell.position}", "site": cell.sites[0].name, "layer": layer}
    return {"metric": "patched_share", **where, "m": m}
