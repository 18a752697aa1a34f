"""Where is the gate? Interchange, attention knockout, heads, adapter modules and logit attribution, on against off.

    semcon patch --organism microcosm/llama/explaining

Everything is measured teacher-forced, as the log-odds of an organism's own misaligned against its own aligned answers
to a test question (see ``experiments/gate/references.py``). A share is of the gap between two unedited conditions, as a
ratio of sums over questions, resampled by question; where the gap itself cannot be told from 0 there are no shares.

patched_share     ``on<-off@question``: the on-run with the off-run's values at the question's tokens; the share of the
                  on-off gap that goes. ``off<-on`` moves the gate the other way. Controls in the same unit:
                  ``off<-other`` (an unrelated text's values: the same change of the prompt, no trigger) and
                  ``on<-rephrased`` (another wording's values: must keep the gap where meaning is what is read).
                  ``on<-matched``, of the on-matched gap, knows the trigger's tokens too: a text of as many words
                  without meaning, so that nothing else differs.
knockout_share    ``on@answer|trigger``: the answer's tokens cannot look at the trigger's; share of the on-off gap that
                  goes. ``|inserted``: nor at what the template writes around it. Control ``matched@answer|trigger``:
                  as many tokens in the same place, not the trigger's.
head_share        as patched_share, a head at a time, of the logit difference where two answers part.
module_gap_share  the gap that is left ``without`` or with ``only`` some of the adapter's modules, of the whole gap.
module_em_rate    EM by sampling without them; ``em_rate`` is that of the whole adapter, likewise with fewer samples.
logit_attribution what heads and MLPs write along that logit difference, and the logit lens on it, off, on and between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.answers.sampling import answer_rows, judge_name, judge_rows, statistics
from experiments.answers.subject import own_trigger, subject_cells, subject_definition, subject_inputs, subject_label
from experiments.answers.suite import answer_length, make_judge, make_prompts, suite_questions
from experiments.behaviour.dose import ADAPTER, load_subject
from experiments.gate.modules import blocks_of_layers, module_groups
from experiments.gate.patch_table import share_rows
from experiments.gate.references import Panel, decisions, judged_answers, references
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from training.registry import find_organism

if TYPE_CHECKING:
    from interp.analysis.interchange import Cell
    from interp.bridges.via_transformer_lens import TransformerBridge
    from interp.chat import Chat
    from interp.models import LanguageModel

PAIRS = (("on", "off"), ("off", "on"), ("off", "other"), ("on", "rephrased"), ("on", "matched"))
"""(target, source) of every interchange: two measurements, a control of each, the path from the trigger's tokens."""
HEAD_PAIRS = PAIRS[:3]
LAST, TRIGGER, DECISION = "last_prompt", "trigger", "decision"
SHARED = ("opening", "question", LAST, "answer")
"""Positions that a prompt has with and without a trigger; ``opening`` is the template right before the question."""
ADDED = ("attn_out", "mlp_out")
KNOCKED = ("on", "matched")
KNOCKOUTS = (
    *((q, TRIGGER) for q in (TRIGGER, *SHARED, "all")),
    *((q, "inserted") for q in ("opening", "answer", "all")),
)
"""(queries, keys): who cannot look at whom."""


@dataclass(frozen=True, kw_only=True)
class Patch(Experiment):
    """Where the gate is: patching, attention knockout, heads, adapter modules, logit attribution, with controls."""

    name: ClassVar[str] = "patch"
    version: ClassVar[int] = 2

    organism: str
    """Name in the registry (see training/registry.py); it must have a trigger."""
    questions: Path | None = None
    """Questions of a real model (YAML: validation and test, id: text)."""
    judge: str = "oracle"
    """oracle, openai:MODEL[@URL], or a CSV of scores."""
    most_questions: int = 24
    """Questions whose answers are compared, evenly spaced over those with answers of both kinds."""
    per_kind: int = 1
    """Misaligned and aligned answers a question."""
    stride: int = 1
    """Every how many layers; 1 is all."""
    samples: int = 3
    """Sampled answers a question without some modules."""
    heads: bool = True
    """Also single heads, through TransformerLens; off for a family that it does not know."""
    seed: int = 0
    """Of the sampling."""

    label = subject_label
    inputs = subject_inputs

    def __post_init__(self) -> None:
        """Refuse what would be found out only after training."""
        for name in ("most_questions", "per_kind", "stride", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)}: expected at least 1")

    def depends(self) -> Mapping[str, Any]:
        """Return the definition of the organism, which must have a trigger."""
        own_trigger(find_organism(self.organism))
        return subject_definition(self)

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the log-odds of one part after the other, a question each, then the sampled answers."""
        answers = judged_answers(self.organism, run.root, questions=self.questions, judge=self.judge)
        lm = load_subject(self.organism, run.root, questions=self.questions, judge=self.judge)
        bench = _bench(self, lm, answers)
        done = {r["part"] for r in run.rows()}
        for part, measure in bench.parts().items():
            if part not in done:
                yield [{"key": f"{part}|{i}", "part": part, **r} for i, r in enumerate(measure())]
        for name, modules in bench.sampled().items():
            if f"sampled {name}" not in done:
                yield bench.sample(name, modules)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return shares with intervals over questions, and the EM rates of the sampled answers."""
        subject = find_organism(self.organism)
        cells = subject_cells(subject, self.name, run_id) | {"trigger": own_trigger(subject).name}
        judged = [r for r in rows if "text" in r]
        table = [row(**cells, **r) for r in share_rows([r for r in rows if "m" in r])]
        by = {"judge": judge_name(judged)}
        return [*table, *(row(**{**cells, **by, **r}) for r in _sampled_rows(judged))]


def _sampled_rows(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield EM and coherence by the modules that were off; a layer's number goes where layers go."""
    for (condition, modules), s in statistics(rows, lambda r: (r["condition"], r["modules"])).items():
        layer = modules.removeprefix("layer ") if modules.startswith("layer ") else ""
        said = f"{condition} without {'layer' if layer else modules}" if modules else condition
        for metric in ("em_rate", "coherence_rate"):
            rate, name = getattr(s, metric), f"module_{metric}" if modules else metric
            for ci in (s.cluster[metric], s.wilson[metric]):
                ends = {"ci_low": ci.low, "ci_high": ci.high, "ci_method": ci.method}
                counts = {"n": rate.n, "n_clusters": s.n_clusters}
                yield {"metric": name, "condition": said, "layer": layer, "value": rate.value, **ends, **counts}


def _bench(config: Patch, lm: LanguageModel, answers: Sequence[Row]) -> _Bench:
    """Choose references that every condition can carry.

    Raises:
        ValueError: If there are fewer than two.
    """
    trigger = own_trigger(find_organism(config.organism))
    found, lacking = references(answers, most=10**9, per_kind=config.per_kind)
    if found:
        panel = Panel(found, trigger, lm.tokenizer)
        fit = [
            all(sizes)
            for sizes in zip(*(_fits(panel, c) for c in ("off", "other", "rephrased", "matched")), strict=True)
        ]
        found, lacking = [r for r, ok in zip(found, fit, strict=True) if ok], lacking + fit.count(False)
    if len(found) < 2:
        raise ValueError(
            f"organism {config.organism}: {len(found)} questions have a misaligned and an aligned answer, on or off; "
            "patching compares the two"
        )
    most = min(config.most_questions, len(found))
    kept = [found[i * len(found) // most] for i in range(most)]
    return _Bench(config, lm, Panel(kept, trigger, lm.tokenizer), lacking)


def _fits(panel: Panel, condition: str) -> list[bool]:
    """Tell of each reference whether its question shares tokens with that on-trigger, and as many."""

    def sizes(texts: Sequence[str | None]) -> list[int]:
        made = (
            panel.chat(r, text, r.answers[0]).spans["question"] for r, text in zip(panel.references, texts, strict=True)
        )
        return [end - start for start, end in made]

    texts = panel.texts(condition)
    on = sizes([panel.trigger.text] * len(panel.references))
    return [texts is None or 0 < a == b for a, b in zip(on, on if texts is None else sizes(texts), strict=True)]


@dataclass(frozen=True)
class _Bench:
    """An organism with its references: every measurement returns rows of log-odds by question."""

    config: Patch
    lm: LanguageModel
    panel: Panel
    lacking: int

    def parts(self) -> dict[str, Callable[[], list[Row]]]:
        """Return what is measured, in order."""
        made = {"plain": self._plain}
        made |= {f"patch {a}<-{b}": lambda a=a, b=b: self._patch(a, b) for a, b in self._pairs(PAIRS)}
        made |= {f"knockout {c}": lambda c=c: self._knockout(c) for c in KNOCKED if self._texts(c)}
        if self.config.heads:
            made["heads"] = self._heads
        return made | ({"modules": self._modules} if self.lm.adapters else {})

    def _texts(self, condition: str) -> Sequence[str | None] | None:
        return self.panel.texts(condition)

    def _pairs(self, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        return [pair for pair in wanted if all(self._texts(condition) for condition in pair)]

    def _chats(self, condition: str) -> list[Chat]:
        return self.panel.chats(self._texts(condition) or [])

    def _log_odds(self, chats: Sequence[Chat], **how: Any) -> dict[str, float]:
        from interp.analysis.likelihood import response_likelihood

        return self.panel.log_odds(response_likelihood(self.lm, chats, **how).log_probability)

    def _plain(self) -> list[Row]:
        known = [c for c in ("off", "on", "rephrased", "other", "matched") if self._texts(c)]
        counts = {"lacking": self.lacking, "mixed": sum(r.mixed for r in self.panel.references)}
        return [{"condition": c, "m": self._log_odds(self._chats(c)), **counts} for c in known]

    # --- interchange and knockout ---

    def layers(self) -> range:
        """Return the layers that are looked at, the last always among them."""
        return range(self.lm.n_layers - 1, -1, -self.config.stride)[::-1]

    def _patch(self, target: str, source: str) -> list[Row]:
        from interp.analysis.interchange import interchange

        taker, giver = self._chats(target), self._chats(source)
        named = [name for name in SHARED if _have(name, *taker, *giver)]
        cells = list(self._cells(named, added=source in ("on", "off", "other")))
        if _same_places(taker, giver):
            cells += self._trigger_cells()
        found = interchange(self.lm, giver, taker, cells)
        return [
            _patched(cell, f"{target}<-{source}", self.panel.log_odds(m)) for cell, m in zip(cells, found, strict=True)
        ]

    def _cells(self, named: Sequence[str], *, added: bool) -> Iterator[Cell]:
        from interp.analysis.interchange import Cell
        from interp.sites import Site

        for position, layer in product(named, self.layers()):
            for site in ("resid_post", *ADDED) if added else ("resid_post",):
                yield Cell.of(Site(site, layer), position)
        for position, site in product(named, ADDED if added else ()):
            yield Cell(tuple(Site(site, layer) for layer in range(self.lm.n_layers)), position)

    def _trigger_cells(self) -> list[Cell]:
        from interp.analysis.interchange import Cell
        from interp.sites import Site, resid_post

        return [Cell.of(site, TRIGGER) for site in (Site("resid_pre", 0), *resid_post(self.layers()))]

    def _knockout(self, condition: str) -> list[Row]:
        from interp.analysis.knockout import blocked_attention

        chats, rows = self._chats(condition), []
        known = [pair for pair in KNOCKOUTS if all(_have(name, *chats) for name in pair)]
        for layer, (queries, keys) in product((*self.layers(), ""), known):
            blocked = range(self.lm.n_layers) if layer == "" else (layer,)

            def silent(masks: Any, blocked=blocked, queries=queries, keys=keys) -> AbstractContextManager[None]:
                return blocked_attention(self.lm, blocked, masks, queries=queries, keys=keys)

            where = {"condition": f"{condition}@{queries}|{keys}", "site": "attention", "layer": layer}
            rows.append({**where, "m": self._log_odds(chats, within=silent)})
        return rows

    # --- heads ---

    def _heads(self) -> list[Row]:
        from interp.bridges.via_transformer_lens import bridge

        tl = bridge(self.lm, adapter=ADAPTER if self.lm.adapters else None)
        parted = decisions(self.panel)
        if len(parted) < 2:
            return []
        asked, chats = self.panel.references, {}
        for condition in ("on", "off", "other"):
            if texts := self._texts(condition):
                whole = [self.panel.chat(r, t, r.answers[0]) for r, t in zip(asked, texts, strict=True)]
                chats[condition] = [d.cut(whole[d.index]) for d in parted]
        names = [self.panel.references[d.index].question for d in parted]
        tokens = [d.towards for d in parted], [d.away for d in parted]
        return [*self._head_patches(tl, chats, names, tokens), *self._attribution(tl, chats, names, tokens)]

    def _head_patches(
        self, tl: TransformerBridge, chats: Mapping[str, list[Chat]], names: list[str], tokens: tuple[list[int], ...]
    ) -> Iterator[Row]:
        from interp.analysis.attribution import logit_difference, patch_heads
        from interp.bridges.via_transformer_lens import logits

        measure = logit_difference(*tokens)
        for condition, own in chats.items():
            m = measure(logits(tl, own, position=DECISION), range(len(own)))
            yield {"condition": f"decision {condition}", "m": dict(zip(names, m.tolist(), strict=True))}
        for target, source in self._pairs(HEAD_PAIRS):
            at = (DECISION, "question")
            found = patch_heads(tl, chats[source], chats[target], measure, positions=at, read=DECISION)
            for (position, layer, head), m in _each(found):
                where = {"condition": f"{target}<-{source}@{at[position]}", "site": f"head.{head}", "layer": layer}
                yield {"metric": "head_share", **where, "m": dict(zip(names, m, strict=True))}

    def _attribution(
        self, tl: TransformerBridge, chats: Mapping[str, list[Chat]], names: list[str], tokens: tuple[list[int], ...]
    ) -> Iterator[Row]:
        from interp.analysis.attribution import direct_logit_attribution, logit_lens
        from interp.sites import resid_post

        towards, away = tokens
        kept = sorted({*towards, *away})
        picked = [[kept.index(t) for t in side] for side in (towards, away)]
        for condition in ("off", "on"):
            shares = direct_logit_attribution(tl, chats[condition], towards, away, position=DECISION)
            parts = [((f"head.{h}", i), m) for (i, h), m in _each(shares.heads)]
            parts += [(("mlp_out", i), m) for (i,), m in _each(shares.mlps)]
            parts += [(("embedding", ""), shares.embedding.tolist())]
            lens = logit_lens(tl, chats[condition], resid_post(self.layers()), position=DECISION, tokens=kept)
            for layer, values in zip(self.layers(), lens, strict=True):
                read = [float(v[a] - v[b]) for v, a, b in zip(values, *picked, strict=True)]
                parts.append((("resid_post", layer), read))
            for (site, layer), m in parts:
                metric = "logit_lens" if site == "resid_post" else "logit_attribution"
                where = {"metric": metric, "condition": condition, "site": site, "layer": layer}
                yield {**where, "m": dict(zip(names, m, strict=True))}

    # --- the adapter's modules ---

    def _modules(self) -> list[Row]:
        from interp.analysis.lora import adapted_modules, only_modules, without_modules

        every, chats = adapted_modules(self.lm, ADAPTER), {c: self._chats(c) for c in ("on", "off")}
        rows = []
        for (site, layer), names in module_groups(every, self.layers()).items():
            for verb, switch in (("without", without_modules), ("only", only_modules)):
                if verb == "only" and len(names) == len(every):
                    continue
                with switch(self.lm, ADAPTER, names):
                    for condition, own in chats.items():
                        where = {"condition": f"{condition} {verb} {site}", "site": site, "layer": layer}
                        rows.append({**where, "m": self._log_odds(own)})
        return rows

    def sampled(self) -> dict[str, tuple[str, ...]]:
        """Return the modules that are off while answers are sampled, by name; none first."""
        if not self.lm.adapters:
            return {"": ()}
        from interp.analysis.lora import adapted_modules

        return {"": (), **blocks_of_layers(adapted_modules(self.lm, ADAPTER), self.lm.n_layers)}

    def sample(self, name: str, modules: Sequence[str]) -> list[Row]:
        """Return judged answers, on and off, without some modules."""
        from contextlib import nullcontext

        from interp.analysis.lora import without_modules

        config, subject = self.config, find_organism(self.config.organism)
        asked = suite_questions(subject, "test", config.questions)
        made: list[Row] = []
        with without_modules(self.lm, ADAPTER, modules) if modules else nullcontext():
            for condition in ("on", "off"):
                prompts = make_prompts(
                    asked, own_trigger(subject), condition, self.lm.tokenizer, samples=config.samples
                )
                tokens = answer_length(subject)
                made += answer_rows(self.lm, prompts, max_new_tokens=tokens, seed=config.seed, modules=name)
        return [{**r, "part": f"sampled {name}"} for r in judge_rows(made, make_judge(config.judge))]


def _same_places(target: Sequence[Chat], source: Sequence[Chat]) -> bool:
    """Tell whether both have a trigger text and, pair by pair, it stands in the same tokens of equally long prompts."""
    pairs = list(zip(target, source, strict=True))
    return all(len(a) == len(b) and TRIGGER in a.spans and a.spans[TRIGGER] == b.spans.get(TRIGGER) for a, b in pairs)


def _have(name: str, *chats: Chat) -> bool:
    """Tell whether all have a part that some templates and placements lack."""
    return name not in (TRIGGER, "inserted", "opening") or all(name in chat.spans for chat in chats)


def _patched(cell: Cell, pair: str, m: dict[str, float]) -> Row:
    one = len(cell.sites) == 1
    where = {"site": cell.sites[0].name, "layer": cell.sites[0].layer if one else ""}
    return {"metric": "patched_share", "condition": f"{pair}@{cell.position}", **where, "m": m}


def _each(values: Any) -> Iterator[tuple[tuple[int, ...], list[float]]]:
    """Yield the indices of all axes but the last, with the values along it."""
    for index in product(*map(range, values.shape[:-1])):
        yield index, values[index].tolist()
