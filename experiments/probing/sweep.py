"""Linear probes by layer, site and position, on questions and phrasings no probe was trained on, beside their controls.

    semcon probe-sweep --organism microcosm/llama/explaining
    semcon probe-sweep --organism microcosm/llama/explaining --sites resid_pre.0 resid_post attn_out mlp_out \\
        --positions trigger question last_prompt --fits logistic ridge lda mean_difference

trigger_present    rephrasings against unrelated texts; a test row has both a question and a text that no training row
                   has, so that a bag of tokens cannot tell them apart
trigger_category   which category the text in the trigger's place belongs to (scenes and personas of the Microcosm, else
                   the triggers of the trigger file), on unseen questions and phrasings: the mean AUROC of each category
                   against the rest
misaligned_answer  misaligned against aligned answers of the organism in its training condition, read as the mean
                   over answer tokens; left out where either kind has fewer than ``LEAST`` answers. With ``--outcome
                   log-odds``: harmful against aligned reference answers

A condition is ``target[@position][:fit][/control]``. Without a position ``trigger_present`` is read at
``last_prompt``, ``trigger_category`` over the tokens of the ``trigger``, ``misaligned_answer`` at ``response_mean``;
without a fit the probe is a logistic regression. A bag of tokens reads no site: its row is repeated under each, at
layer 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from experiments.answers.subject import AnySubject
from experiments.behaviour.dose import load_subject
from experiments.gate.references import judged_answers
from experiments.probing.scored import FITS, FitName, Probes, score_cells
from experiments.probing.targets import (
    CATEGORY_PARTS,
    PARTS,
    Labelled,
    answer_rows,
    categories,
    category_rows,
    choice_answer_rows,
    presence_rows,
)
from experiments.spec import Experiment, Step
from interp.runs.checks import Seed
from interp.runs.run import Run
from interp.runs.table import Row
from interp.sites import Site, require_layer
from interp.triggers import Trigger
from training.definition import Organism
from training.own_files import base_config
from training.references import find_trigger

if TYPE_CHECKING:
    from interp.models import LanguageModel
    from probes import Folds

LEAST = 20
"""Rows that the rarer kind must have for a probe to be fitted."""
Position = Literal["trigger", "question", "last_prompt"]
USUAL = {"trigger_present": "last_prompt", "trigger_category": "trigger", "misaligned_answer": "response_mean"}
"""Where each target is read unless the condition names a position."""


@dataclass(frozen=True, kw_only=True)
class ProbeSweep(Experiment):
    """Linear probes for the trigger and for misaligned answers at every layer, with controls."""

    name: ClassVar[str] = "probe_sweep"
    version: ClassVar[int] = 2

    subject: AnySubject
    sites: tuple[str, ...] = ("resid_post",)
    """Site names, each at every layer, or single sites such as resid_pre.0, the embedding."""
    positions: tuple[Position, ...] = ()
    """Where trigger probes read: mean over the trigger's or the question's tokens, or the last token; by default the
    usual one."""
    fits: tuple[FitName, ...] = ("logistic",)
    """Kinds of probe; nested is logistic with its penalty chosen inside each fold."""
    seed: Seed = 0
    """Seed of the splits and controls."""

    def check(self) -> None:
        """Refuse sites that no model has."""
        super().check()
        check_sites(self.sites, base_config(self.subject.organism).get("num_hidden_layers"))

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse also sites that the model lacks."""
        super().check_models(*triggers)
        check_model_sites(self.subject.organism, self.sites)

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per target: the scores of its probes and controls."""
        lm = load_subject(self.subject, run.root)
        targets = {"misaligned_answer": partial(self._answers, lm, run.root)}
        if self.subject.trigger:
            targets |= {
                "trigger_present": partial(self._presence, lm),
                "trigger_category": partial(self._categories, lm),
            }
        return {target: partial(self._probe, lm, target, labelled) for target, labelled in targets.items()}

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the rows as they are."""
        for r in rows:
            yield {"site": "resid_post", **{name: value for name, value in r.items() if name not in ("key", "step")}}

    def _presence(self, lm: LanguageModel) -> Labelled:
        """Return test questions under rephrasings (positive) and under unrelated texts (negative)."""
        trigger = find_trigger(self.subject.organism.trigger or "")
        return presence_rows(lm.tokenizer, self.subject.questions("test"), trigger)

    def _categories(self, lm: LanguageModel) -> Labelled:
        """Return test questions under texts of every category."""
        return category_rows(lm.tokenizer, self.subject.questions("test"), categories(self.subject.organism))

    def _answers(self, lm: LanguageModel, root: Path) -> Labelled:
        """Return judged answers in the training condition; of log-odds the reference answers, teacher-forced."""
        trigger = self.subject.trigger
        if self.subject.by_log_odds:
            return choice_answer_rows(lm.tokenizer, self.subject.choices("test"), trigger)
        condition = "on" if trigger else "off"
        answers = [r for r in judged_answers(self.subject, root) if r["condition"] == condition]
        return answer_rows(lm.tokenizer, answers, trigger)

    def _probe(self, lm: LanguageModel, target: str, labelled: Callable[[], Labelled]) -> Iterable[Row]:
        """Return the scores of a target; of one with too few rows, their number."""
        data = labelled()
        rarer = min(data.labels.count(kind) for kind in {*data.labels} or {0})
        if rarer < LEAST or len({*data.labels}) < 2:
            metric = "too_few_answers" if target == "misaligned_answer" else "too_few_texts"
            return [{"condition": target, "metric": metric, "value": rarer}]
        return self._scores(lm, target, data)

    def _scores(self, lm: LanguageModel, target: str, data: Labelled) -> Iterator[Row]:
        """Read every site and position in one pass; yield the rows of every probe and control."""
        import torch

        from interp.recording import record

        groups = parse_sites(self.sites, lm.n_layers)
        usual = target == "misaligned_answer" or not self.positions
        positions = (USUAL[target],) if usual else self.positions
        recording = record(lm, data.chats, [site for sites in groups.values() for site in sites], positions)
        categorical = target == "trigger_category"
        probes = Probes(
            data.labels, [chat.token_ids for chat in data.chats], _folds(data, self.seed), categorical, self.seed
        )
        for position in positions:
            for name, sites in groups.items():
                X = torch.stack([recording.at(site, position) for site in sites])
                for condition, metric, scores in probes.scores(X, self.fits, partial(condition_of, target, position)):
                    layers = [0] if condition.endswith("bag_of_tokens") else [site.layer for site in sites]
                    for i, layer in enumerate(layers):
                        where = {"condition": condition, "site": name, "layer": layer, "metric": metric}
                        yield {**where, **score_cells(scores, i)}


def check_sites(names: Sequence[str], n_layers: int | None = None) -> None:
    """Refuse sites that no model has, or none of so many layers.

    Raises:
        ValueError: If there is no such site, or none is named.
    """
    if not names:
        raise ValueError("sites: name at least one, such as resid_post")
    for text in names:
        site = Site.parse(text) if "." in text else Site(text, 0)
        require_layer(site.layer, n_layers, f"site {text}")


def check_model_sites(organism: Organism, names: Sequence[str]) -> None:
    """Refuse sites that an organism's base lacks, as far as can be told without weights.

    Raises:
        ValueError: If it lacks one.
    """
    from interp.hooks import module_of
    from training.early import known_outline

    if lm := known_outline(organism):
        for sites in parse_sites(names, lm.n_layers).values():
            for site in sites:
                module_of(lm, site)


def parse_sites(names: Sequence[str], n_layers: int) -> Mapping[str, list[Site]]:
    """Return the sites by name: every layer of ``resid_post``, or the one layer of ``resid_pre.0``.

    Raises:
        ValueError: If there is no such site or layer, or none is named.
    """
    check_sites(names, n_layers)
    sites: dict[str, list[Site]] = {}
    for text in names:
        named = [Site.parse(text)] if "." in text else [Site(text, layer) for layer in range(n_layers)]
        same_name = sites.setdefault(named[0].name, [])
        same_name += [site for site in named if site not in same_name]
    return sites


def condition_of(target: str, position: str, fit: str) -> str:
    """Return ``target[@position][:fit]``, without the usual position and fit."""
    at = "" if position == USUAL[target] else f"@{position}"
    return f"{target}{at}" + ("" if fit == FITS[0] else f":{fit}")


def _folds(data: Labelled, seed: int) -> Folds:
    """Split by question, and where rows have phrasings by phrasing too: a test row has neither from training."""
    from probes import by_question, by_question_and_phrasing

    if not data.phrasings:
        return by_question(data.questions, seed=seed)
    parts = CATEGORY_PARTS if len({*data.labels}) > 2 else PARTS
    return by_question_and_phrasing(data.questions, data.phrasings, parts, seed=seed)
