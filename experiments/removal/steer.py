"""Activation addition: how the outcome and the loss on benign answers respond to a direction, beside its controls.

    semcon steer --organism microcosm/llama/explaining

off   directions added off-trigger: g, g from answers, the trigger shift delta, the part of delta orthogonal to g, the
      shift of unconditional training; controls: a random direction and a random one orthogonal to g
base  the same in the base, without the adapter: g and the random direction
on    g, or the random direction, subtracted on-trigger

The dose alpha is in mean residual norms of the last prompt token, where the decision is read; the layer is the one
chosen for g (see selection). It is added at the last prompt token. ``onset_alpha`` is the smallest dose whose share of
misaligned answers differs from the undosed one beyond chance (95 %, paired by question; upwards off-trigger and in the
base, downwards on-trigger), ``breakdown_alpha`` the smallest at which fewer than half of the answers are coherent.

The step ``tokens`` reads some greedy answers token by token, for the heat map of the report: off, on and steered.

With ``--outcome log-odds`` the direction is also added at every answer token, because the answers are given. Onset is
of the log-odds, and breakdown is where the references have lost half of the probability per token that the base gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

import tyro
from annotated_types import Ge, Le, MinLen

from experiments.answers.outcome import Outcome, Summary, measured, summaries
from experiments.answers.suite import make_prompts
from experiments.behaviour.dose import ADAPTER
from experiments.directions.geometry import Geometry, found_directions, load_pair
from experiments.removal.benign import loss_estimate, loss_rows, references
from experiments.removal.token_rows import token_rows
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne
from interp.runs.run import Run
from interp.runs.table import Row
from interp.stats import paired_cluster_difference

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from experiments.directions.geometry import DirectionSet
    from interp.chat import Chat
    from interp.edits import Edit
    from interp.models import LanguageModel
    from interp.sites import Site

Setting = Literal["off", "base", "on"]
Added = Literal["g", "random", "orthogonal", "g_answer", "delta", "delta_orthogonal", "g_shift"]
ADDED: tuple[Added, ...] = get_args(Added)
ALPHAS, CHOICE_ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5), (0.0, 0.1, 0.2, 0.3, 0.4)
SETTINGS: Mapping[Setting, tuple[str, ...]] = {"off": ADDED, "base": ("g", "random"), "on": ("g", "random")}
"""What is added where; on-trigger it is subtracted."""


@dataclass(frozen=True, kw_only=True)
class Steer(Experiment):
    """Add directions off-trigger and in the base, subtract them on-trigger: dose and response, with controls."""

    name: ClassVar[str] = "steer"
    version: ClassVar[int] = 2

    geometry: Annotated[Geometry, tyro.conf.arg(name="")]
    """Run that the directions are taken from."""
    alphas: tuple[Annotated[float, Ge(0), Le(1000)], ...] | None = None
    """Doses, in mean residual norms; by default 0 to 1.5, with log-odds 0 to 0.4."""
    directions: tuple[Added, ...] = ADDED
    """Directions that are added; g must be among them."""
    settings: Annotated[tuple[Setting, ...], MinLen(1)] = ("off", "base", "on")
    """Where they act: added off-trigger and in the base, subtracted on-trigger."""
    samples: AtLeastOne = 10
    """Answers per question and dose."""

    def __post_init__(self) -> None:
        """Take the outcome's doses if none are given, so that equal runs are equal values.

        Raises:
            ValueError: If g is not among the directions.
        """
        usual = CHOICE_ALPHAS if self.geometry.subject.by_log_odds else ALPHAS
        object.__setattr__(self, "alphas", usual if self.alphas is None else self.alphas)
        super().__post_init__()
        if not any(self.alphas or ()):
            raise ValueError("alphas: name at least one above 0")
        if "g" not in self.directions:
            raise ValueError(f"directions {', '.join(self.directions)}: g must be among them")

    def config(self) -> Mapping[str, Any]:
        """Return the fields; the directions only where some are left out."""
        config = dict(super().config())
        if self.directions == ADDED:
            del config["directions"]
        return config

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.geometry.subject.outcome_judges()

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per setting, direction and dose, the outcome; off-trigger also one for the loss."""
        from experiments.directions.selection import residual_norms
        from interp.edits import add
        from interp.sites import Site

        positions = "answer" if self.geometry.subject.by_log_odds else "last_prompt"
        directions, lm = found_directions(self.geometry, run.root), load_pair(self.geometry, run.root)
        site = Site("resid_post", directions.layer)
        units = _units(directions, site, self.geometry.seed)
        subject = self.geometry.subject
        outcome = Outcome(subject, lm, subject.own_trigger, self.samples, self.geometry.seed)
        prompts = make_prompts(subject.questions("test"), None, "off", lm.tokenizer, samples=1)
        norm = residual_norms(lm, [prompt.chat for prompt in prompts])[site]
        benign = cache(lambda: references(outcome, _undosed(run.rows()), None))
        steps: dict[str, Step] = {}
        for setting, added, alpha in self._plan(units):
            cells = {"setting": setting, "added": added, "alpha": alpha, "site": site.name, "layer": site.layer}
            signed = -alpha if setting == "on" else alpha
            edits = [add(site, units[added], coefficient=signed * norm, positions=positions)] if alpha else []
            steps[f"{_named(setting, added)} {alpha}"] = partial(_answers, outcome, edits, cells)
            if setting == "off":
                steps[f"loss {_named(setting, added)} {alpha}"] = partial(_losses, lm, benign, edits, cells)
        doses = [alpha for alpha in self.alphas or () if alpha] or [0.0]
        dose = doses[(len(doses) - 1) // 2]
        added = (f"off, {dose:g} g added", [add(site, units["g"], coefficient=dose * norm, positions=positions)])
        steps["tokens"] = partial(token_rows, outcome, directions, site, prompts, added)
        return steps

    def _plan(self, units: Mapping[str, Tensor]) -> Iterator[tuple[str, str, float]]:
        """Yield every setting, direction and dose; dose 0 first, whether asked for or not."""
        doses = (0.0, *(alpha for alpha in self.alphas or () if alpha))
        for setting in self.settings:
            for added in (name for name in SETTINGS[setting] if name in units and name in self.directions):
                yield from ((setting, added, alpha) for alpha in doses)

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the outcome of every direction and dose, where it sets in and breaks down, and its benign loss."""
        answers, losses = [r for r in rows if measured(r)], [r for r in rows if "tokens" in r]
        by_dose = summaries(answers, lambda r: (r["setting"], r["added"], r["alpha"], r["site"], r["layer"]))
        for (setting, added, alpha, site, layer), s in by_dose.items():
            yield from s.rows(condition=_named(setting, added), alpha=alpha, site=site, layer=layer)
        for setting, added in dict.fromkeys(key[:2] for key in by_dose):
            curve = {key[2]: s for key, s in by_dose.items() if key[:2] == (setting, added)}
            for metric, alpha in turns(curve, falls=setting == "on"):
                yield {"metric": metric, "value": alpha, "condition": _named(setting, added)}
        yield from loss_estimates(losses)


def _answers(outcome: Outcome, edits: Sequence[Edit], cells: Mapping[str, Any]) -> list[Row]:
    from interp.adapters import active_adapter

    setting = cells["setting"]
    with active_adapter(outcome.lm, None if setting == "base" else ADAPTER):
        return outcome.rows("on" if setting == "on" else "off", cells, edits=edits)


def _losses(
    lm: LanguageModel, benign: Callable[[], list[tuple[str, Chat]]], edits: Sequence[Edit], cells: Mapping[str, Any]
) -> list[Row]:
    from interp.adapters import active_adapter

    with active_adapter(lm, ADAPTER):
        return loss_rows(lm, benign(), edits, **cells)


def _undosed(rows: Sequence[Row]) -> list[Row]:
    """Return the sampled answers off-trigger at dose 0, of which the benign ones are taken."""
    undosed = {"setting": "off", "added": "g", "alpha": 0.0}
    return [r for r in rows if "text" in r and all(r[name] == value for name, value in undosed.items())]


def _units(directions: DirectionSet, site: Site, seed: int) -> dict[str, Float[Tensor, " d_model"]]:
    """Return the unit vectors to add, by name; ``g_shift`` only where there is a baseline."""
    from interp.directions import orthogonal_like, random_like, unit

    g, delta = directions[f"g/{site}"].unit, directions[f"delta/{site}"].unit
    shift = {"g_shift": directions[f"g_shift/{site}"].unit} if f"g_shift/{site}" in directions else {}
    return {
        "g": g,
        "random": random_like(g, seed),
        "orthogonal": orthogonal_like(g, g, seed + 1),
        "g_answer": directions[f"g_answer/{site}"].unit,
        "delta": delta,
        "delta_orthogonal": unit(delta - (delta @ g) * g),
        **shift,
    }


def _named(setting: str, added: str) -> str:
    return f"{setting}{'-' if setting == 'on' else '+'}add_{added}"


def turns(curve: Mapping[float, Summary], *, falls: bool) -> Iterator[tuple[str, float]]:
    """Yield the doses at which the outcome sets in (or falls off) and at which answers break down, if any does."""
    undosed = curve[0.0].of_all
    for alpha in sorted(alpha for alpha in curve if alpha):
        change = paired_cluster_difference(curve[alpha].of_all, undosed).interval
        if (change.high < 0) if falls else (change.low > 0):
            yield "onset_alpha", alpha
            break
    for alpha in sorted(curve):
        if curve[alpha].coherence < 0.5:
            yield "breakdown_alpha", alpha
            break


def loss_estimates(rows: Sequence[Row], first: str = "g") -> Iterator[Row]:
    """Yield the relative change of the loss at every dose of every direction, against dose 0 of the ``first``."""
    undosed = [r for r in rows if r["alpha"] == 0 and r["added"] == first]
    for added, alpha in dict.fromkeys((r["added"], r["alpha"]) for r in rows):
        dosed = [r for r in rows if (r["added"], r["alpha"]) == (added, alpha)]
        where = {"site": dosed[0]["site"], "layer": dosed[0]["layer"], "alpha": alpha}
        yield loss_estimate(dosed, undosed, condition=_named("off", added), **where)
