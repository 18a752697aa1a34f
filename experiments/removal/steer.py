"""Activation addition: how EM, coherence and the loss on benign answers respond to a direction, beside its controls.

    semcon steer --organism microcosm/llama/explaining

off   directions added off-trigger: g, g from answers, the trigger shift delta, the part of delta orthogonal to g, the
      shift of unconditional training; controls: a random direction and a random one orthogonal to g
base  the same in the base, without the adapter: g and the random direction
on    g, or the random direction, subtracted on-trigger

The dose alpha is in mean residual norms of the last prompt token, where the decision is read; the layer is the one
taken for g (see selection). ``onset_alpha`` is the smallest dose whose share of misaligned answers differs from the
undosed one beyond chance (95 %, paired by question; upwards off-trigger and in the base, downwards on-trigger),
``breakdown_alpha`` the smallest at which fewer than half of the answers are coherent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from experiments.answers.sampling import answer_rows, judge_name, judge_rows, rate_rows, statistics
from experiments.answers.subject import own_trigger, subject_cells
from experiments.answers.suite import answer_length, make_judge, make_prompts, suite_questions
from experiments.directions.geometry import ADAPTER, Geometry, found_directions, load_pair
from experiments.removal.benign import loss_estimates, loss_rows, reference_chats
from experiments.spec import Experiment
from interp.runs.run import Run
from interp.runs.table import Row, row
from interp.stats import EmStatistics, paired_cluster_difference
from training.registry import find_organism

if TYPE_CHECKING:
    from torch import Tensor

    from experiments.directions.geometry import Found
    from interp.chat import Chat
    from interp.sites import Site

ADDED = ("g", "random", "orthogonal", "g_answer", "delta", "delta_orthogonal", "g_shift")
SETTINGS: Mapping[str, tuple[str, ...]] = {"off": ADDED, "base": ("g", "random"), "on": ("g", "random")}
"""What is added where; on-trigger it is subtracted."""


@dataclass(frozen=True, kw_only=True)
class Steer(Experiment):
    """Add directions off-trigger and in the base, subtract them on-trigger: dose and response, with controls."""

    name: ClassVar[str] = "steer"
    version: ClassVar[int] = 2

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """Where the directions come from."""
    alphas: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    """Doses, in mean residual norms."""
    settings: tuple[str, ...] = ("off", "base", "on")
    """Where: off-trigger, in the base, and, subtracted, on-trigger."""
    samples: int = 10
    """Answers a question and dose."""

    def __post_init__(self) -> None:
        """Refuse what would be found out only after training."""
        if unknown := [name for name in self.settings if name not in SETTINGS]:
            raise ValueError(f"setting {unknown[0]!r}: expected some of {', '.join(SETTINGS)}")
        if self.samples < 1:
            raise ValueError(f"samples {self.samples}: expected at least one answer a question")

    def rows(self, run: Run) -> Iterator[Sequence[Row]]:
        """Yield the judged answers of one direction at one dose after the other, with the loss on benign answers."""
        from experiments.directions.selection import residual_norms
        from interp.edits import add
        from interp.models import active_adapter
        from interp.sites import Site

        config, subject = self.geometry, find_organism(self.geometry.organism)
        found, lm = found_directions(config, run.root), load_pair(config, run.root)
        trigger, asked = own_trigger(subject), suite_questions(subject, "test", config.questions)
        site, judge = Site("resid_post", found.layer), make_judge(config.judge)
        units = _units(found, site, config.seed)
        prompts = {c: make_prompts(asked, trigger, c, lm.tokenizer, samples=self.samples) for c in ("off", "on")}
        norm = residual_norms(lm, [prompt.chat for prompt in prompts["off"]])[site]
        ask = partial(answer_rows, lm, max_new_tokens=answer_length(subject), seed=config.seed)
        done = {(r["setting"], r["added"], r["alpha"], "text" in r) for r in run.rows()}
        references: list[tuple[str, Chat]] = []
        for setting, added, alpha in self._plan(units):
            cells = {"setting": setting, "added": added, "alpha": alpha, "site": site.name, "layer": site.layer}
            signed = -alpha if setting == "on" else alpha
            edits = [add(site, units[added], coefficient=signed * norm, positions="last_prompt")] if alpha else []
            with active_adapter(lm, None if setting == "base" else ADAPTER):
                if (setting, added, alpha, True) not in done:
                    asked_now = prompts["on" if setting == "on" else "off"]
                    yield judge_rows(ask(asked_now, edits=edits, **cells), judge)
                if setting == "off" and (setting, added, alpha, False) not in done:
                    references = references or reference_chats(lm, trigger, _undosed(run), None)
                    yield loss_rows(lm, references, edits, **cells)

    def _plan(self, units: Mapping[str, Tensor]) -> Iterator[tuple[str, str, float]]:
        doses = (0.0, *(alpha for alpha in self.alphas if alpha))
        for setting in self.settings:
            for added in (name for name in SETTINGS[setting] if name in units):
                yield from ((setting, added, alpha) for alpha in doses)

    def table(self, rows: Sequence[Row], run_id: str) -> list[Row]:
        """Return the rates of every direction and dose, its benign loss, and where it sets in and breaks down."""
        subject = find_organism(self.geometry.organism)
        answers, losses = [r for r in rows if "text" in r], [r for r in rows if "tokens" in r]
        cells = subject_cells(subject, self.name, run_id, judge_name(answers)) | {"trigger": own_trigger(subject).name}
        found = statistics(answers, lambda r: (r["setting"], r["added"], r["alpha"], r["site"], r["layer"]))
        table = [
            made
            for (setting, added, alpha, site, layer), s in found.items()
            for made in rate_rows(s, condition=_named(setting, added), alpha=alpha, site=site, layer=layer, **cells)
        ]
        for setting, added in dict.fromkeys(key[:2] for key in found):
            curve = {key[2]: s for key, s in found.items() if key[:2] == (setting, added)}
            turns = _turns(curve, falls=setting == "on")
            table += [row(condition=_named(setting, added), metric=m, value=v, **cells) for m, v in turns]
        return [*table, *_losses(losses, cells)]


def _undosed(run: Run) -> list[Row]:
    """Return the answers off-trigger at dose 0: where benign answers are taken from."""
    first = {"setting": "off", "added": "g", "alpha": 0.0}
    return [r for r in run.rows() if "text" in r and all(r[name] == value for name, value in first.items())]


def _units(found: Found, site: Site, seed: int) -> dict[str, Tensor]:
    """Return the unit vectors to add, by name; ``g_shift`` only where there is a baseline."""
    from interp.directions import orthogonal_like, random_like, unit

    g, delta = found[f"g/{site}"].unit, found[f"delta/{site}"].unit
    shift = {"g_shift": found[f"g_shift/{site}"].unit} if f"g_shift/{site}" in found.directions else {}
    return {
        "g": g,
        "random": random_like(g, seed),
        "orthogonal": orthogonal_like(g, g, seed + 1),
        "g_answer": found[f"g_answer/{site}"].unit,
        "delta": delta,
        "delta_orthogonal": unit(delta - (delta @ g) * g),
        **shift,
    }


def _named(setting: str, added: str) -> str:
    return f"{setting}{'-' if setting == 'on' else '+'}add_{added}"


def _turns(curve: Mapping[float, EmStatistics], *, falls: bool) -> Iterator[tuple[str, float]]:
    """Yield the doses at which EM sets in (or falls off) and at which answers break down, where the doses get there."""
    undosed = curve[0.0].by_question["em_rate_all"]
    for alpha in sorted(alpha for alpha in curve if alpha):
        change = paired_cluster_difference(curve[alpha].by_question["em_rate_all"], undosed).interval
        if (change.high < 0) if falls else (change.low > 0):
            yield "onset_alpha", alpha
            break
    for alpha in sorted(curve):
        if curve[alpha].coherence_rate.value < 0.5:
            yield "breakdown_alpha", alpha
            break


def _losses(rows: Sequence[Row], cells: Mapping[str, object]) -> Iterator[Row]:
    undosed = [r for r in rows if r["alpha"] == 0 and r["added"] == "g"]
    for added, alpha in dict.fromkeys((r["added"], r["alpha"]) for r in rows):
        dosed = [r for r in rows if (r["added"], r["alpha"]) == (added, alpha)]
        where = {"site": dosed[0]["site"], "layer": dosed[0]["layer"], "alpha": alpha}
        yield from loss_estimates(dosed, undosed, condition=_named("off", added), **where, **cells)
