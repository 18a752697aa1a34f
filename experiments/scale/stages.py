"""How much every stage does, counted from its settings, pass by pass.

What a stage makes on its way because an earlier one has not made it (an adapter, the choice of its dose, directions)
is counted where it belongs: ``BEFORE`` says which stages those are. The tests hold every count against the tokens that
pass through a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

from experiments.answers.subject import LOG_ODDS, Subject, contrast_texts, estimation_texts, held_out_texts
from experiments.behaviour.preference import NEIGHBOURS, TRAINED, WORD_ORDER, Preference
from experiments.directions.geometry import CHOSEN, PROJECTED, Geometry, baseline_subject
from experiments.probing.targets import CATEGORY_TEXTS, MOST_ANSWERS, MOST_ROWS, TEXTS, categories
from experiments.protocol import load_protocol
from experiments.removal.ablate import EDITED_BASE, RANKS, UNSEEN, UNTRIGGERED
from experiments.removal.benign import ANSWERS_EACH, GREEDY_TOKENS
from experiments.removal.steer import ALPHAS, CHOICE_ALPHAS, SETTINGS
from experiments.removal.token_rows import LONGEST, N_QUESTIONS
from experiments.scale.machines import Assumptions
from experiments.scale.shapes import Shape
from experiments.scale.work import Work, compared, read, sampled
from interp.triggers import CONDITIONS, Trigger
from training.data import LEAST_EXCHANGES
from training.definition import Organism
from training.references import find_trigger

Stage = Literal["organisms", "dose", "em-rate", "preference", "geometry", "probe-sweep", "steer", "ablate"]
STAGES: tuple[Stage, ...] = get_args(Stage)
BEFORE: Mapping[Stage, tuple[Stage, ...]] = {
    "dose": ("organisms",),
    "em-rate": ("organisms", "dose"),
    "preference": ("organisms", "dose"),
    "geometry": ("organisms", "dose"),
    "probe-sweep": ("organisms", "dose"),
    "steer": ("organisms", "dose", "geometry"),
    "ablate": ("organisms", "dose", "geometry"),
}
"""What a command makes first where it is not there yet."""
CHECKS, PROBES, PROBE = 4, 3, 6
"""Passes per adapter, when a model is loaded, that show it is active and the base unchanged; their prompts, and the
tokens of such a prompt beside its template."""
SAMPLES, PER_QUESTION = 10, 4
"""Answers per question where an edit or a dose is measured, and most texts that a question is asked with."""
NAMED_EDITS, IDLE, ONE_SITE = 18, 6, 8
"""Edits of ``semcon ablate`` beside g_shift and the clamp at single sites, the empty edit too; those of them that
act on the trigger's tokens alone; most single sites."""
DRAWS = 3
"""Draws of a control after the first, whose loss is not measured."""
TRIED, MOST_LAYERS, LAST_BLOCKS = 72, 12, 0.2
"""Answers of either kind that a layer is tried on; by log-odds most layers; the share of blocks left out."""
EXCHANGES, EXCHANGES_EACH = 200, 4
"""Most answers of either kind that directions are made of, and of few questions most for each."""
BLOCK, DIRECTIONS = 256, 32
"""Prompts that a store of activations makes room for at a time; directions that are saved for every layer."""


def work_of(
    stage: Stage, organism: Organism, shape: Shape, given: Assumptions, outcome: str, n_questions: int | None = None
) -> Work:
    """Return what a stage does with an organism; nothing where the stage does not apply to it."""
    counts = Counts(organism, shape, given, outcome == LOG_ODDS, n_questions)
    counted: Mapping[Stage, Callable[[], Work]] = {
        "organisms": counts.training,
        "dose": counts.dose,
        "em-rate": counts.rates,
        "preference": counts.preference,
    }
    of_trigger: Mapping[Stage, Callable[[], Work]] = {
        "geometry": counts.geometry,
        "probe-sweep": counts.probes,
        "steer": counts.steer,
        "ablate": counts.ablate,
    }
    if stage in counted:
        return counted[stage]()
    return of_trigger[stage]() if organism.trigger else Work()


@dataclass(frozen=True)
class Counts:
    """The work of one organism, stage by stage."""

    organism: Organism
    shape: Shape
    given: Assumptions
    log_odds: bool
    n_questions: int | None = None
    """The command's --n-questions."""
    samples: int = SAMPLES
    """Answers per question where an edit or a dose is measured."""
    alphas: int | None = None
    """Doses of ``semcon steer`` above 0; by default those of the outcome."""
    tried: int = TRIED
    """Answers of either kind that a layer is tried on: of data that is not there yet the most that there can be."""

    @cached_property
    def _subject(self) -> Subject:
        return Subject(self.organism, judge_reference=LOG_ODDS if self.log_odds else "oracle")

    @property
    def _trigger(self) -> Trigger:
        return self._subject.own_trigger

    @cached_property
    def _control(self) -> Trigger:
        return Geometry(subject=self._subject).control

    @cached_property
    def _shift(self) -> int:
        """1 if there is a baseline to make the direction g_shift with, else 0."""
        return int(baseline_subject(Geometry(subject=self._subject)) is not None)

    @property
    def _test(self) -> float:
        return self.given.questions["test"]

    @property
    def _validation(self) -> float:
        return self.given.questions["validation"]

    def _asked(self, questions: float, *, text: bool, edited: bool, texts: int = 1, samples: int = 0) -> Work:
        """Return the outcome of questions in one context: sampled and judged answers, or log-odds."""
        if not self.log_odds:
            each = samples or self.samples
            return sampled(questions, each, self.given, text=text, texts=min(texts, PER_QUESTION))
        begins = text and self._trigger.placement in ("prefix", "system")
        return compared(questions, self.given, text=text, edited=edited, texts=texts, begins=begins)

    def _unedited(self, questions: float, *, text: bool, texts: int = 1) -> Work:
        """Return an unedited outcome; of log-odds with the base's own, which every edit is compared with."""
        once = self._asked(questions, text=text, edited=False, texts=texts)
        return once + once if self.log_odds else once

    def _loading(self, adapters: int = 1) -> Work:
        """Return the checks of a model that is loaded with adapters."""
        passes = 1 + CHECKS * adapters if self.organism.tuned else 0
        return Work(read_tokens=passes * PROBES * (PROBE + self.given.texts.template))

    def training(self) -> Work:
        """Return the fine-tuning, up to the largest dose."""
        if self.organism.data is None:
            return Work()
        sft, weights = self.organism.sft, self.shape.adapter(self.organism.lora)
        tokens = max(sft.doses) * sft.batch * sft.accumulation * self.given.texts.row
        return Work(trained_tokens=tokens, disk_bytes=4 * weights * len(sft.doses))

    def dose(self) -> Work:
        """Return the choice of the dose, on all validation questions whatever ``--n-questions`` is."""
        organism, n = self.organism, self.given.whole["validation"]
        if organism.data is None or organism.adapter:
            return Work()
        each = self._asked(n, text=organism.trigger is not None, edited=False)
        doses = len(organism.sft.doses)
        return _times(doses + self.log_odds, each) + self._loading(doses)

    def rates(self) -> Work:
        """Return the answers under every condition."""
        if self.log_odds:
            return Work()
        samples, n = load_protocol().sampling.model.samples, self.given.questions
        trigger = find_trigger(self.organism.trigger) if self.organism.trigger else None
        work = self._loading()
        for condition in CONDITIONS:
            texts = 1 if condition == "off" else len(trigger.variants(condition)) if trigger else 0
            if texts:
                work += self._asked(self._test, text=condition != "off", edited=False, texts=texts, samples=samples)
        if self.organism.tuned:
            work += self._asked(n["trained"], text=trigger is not None, edited=False, samples=samples)
        return work

    def preference(self) -> Work:
        """Return the log-odds in every context, of the organism and of its base (one run for all arms of a trigger)."""
        if not self.log_odds:
            return Work()
        subject = Subject(self.organism, judge_reference=LOG_ODDS, n_questions=self.n_questions)
        experiment, work = Preference(subject=subject), Work()
        for condition, (questions, texts) in experiment.sizes().items():
            bare = NEIGHBOURS.get(condition, condition) in ("off", WORD_ORDER)
            text = not bare and (condition != TRAINED or self.organism.trigger is not None)
            # Both are rows of training data, worded as freely as those and as long.
            counts = replace(self, given=self.given.of_rows()) if condition in (TRAINED, *NEIGHBOURS) else self
            rows = questions * min(experiment.texts, texts)
            work += counts._asked(rows, text=text, edited=False, texts=texts)
        return _times(experiment.models, work) + self._loading()

    def geometry(self) -> Work:
        """Return the recordings of every pair of prompts, the choice of layers, and the projections."""
        given, texts, n = self.given, self.given.texts, self._validation
        answers = min(EXCHANGES, self.organism.rows, EXCHANGES_EACH * (self.n_questions or math.inf))
        estimated = len(estimation_texts(self._trigger))
        behind = (
            3 * estimated + len(estimation_texts(self._control)) + len(contrast_texts(self._trigger, self._control))
        )
        projected = [c for c in PROJECTED[1:] if self._trigger.variants(c)]
        recorded = (
            read(2 * LEAST_EXCHANGES * n, given, answer=texts.past)
            + Work(read_tokens=2 * answers * texts.exchange)
            + read((2 + 2 * self._shift) * n, given)
            + read(behind * n, given, text=True)
            + read(2 * self._test, given)
            + read(len(projected) * self._test, given, text=True)
        )
        prompts = (1 + len(projected)) * self._test
        numbers = math.ceil(prompts / BLOCK) * BLOCK * self.shape.layers * 2 + DIRECTIONS * (self.shape.layers + 1)
        return (
            recorded + self._layers() + self._loading(1 + self._shift) + Work(disk_bytes=4 * self.shape.width * numbers)
        )

    def _layers(self) -> Work:
        """Return the choice of a layer for each direction that has one of its own."""
        n, given, layers = self._validation, self.given, self.shape.layers
        directions = len(CHOSEN) - 1 + self._shift
        if self.log_odds:
            tried = min(MOST_LAYERS, layers - int(LAST_BLOCKS * layers))
            edited = _times(directions * tried, compared(n, given, edited=True))
            return edited + compared(n, given) + read(n, given)
        behind = 2 * self.tried * (2 * given.texts.exchange + given.texts.past)  # with a past exchange and without one
        once = Work(read_tokens=behind)
        return _times(directions * layers, once + read(n, given)) + once + read(2 * n, given)

    def probes(self) -> Work:
        """Return the reading of labelled prompts: the trigger's texts, those of every category, answers."""
        given, n, trigger = self.given, self._test, find_trigger(self.organism.trigger or "")
        unrelated = len(trigger.other[:: max(1, len(trigger.other) // TEXTS)][:TEXTS])
        banks = categories(self.organism)
        asked = min(n, max(1, MOST_ROWS // max(1, len(banks))))
        each = max(1, int(MOST_ROWS // max(1, asked * len(banks))))
        ranks = sum(min(each, CATEGORY_TEXTS, 1 + len(bank.rephrased)) for bank in banks)
        work = self._loading() + read(n * (len(trigger.rephrased) + unrelated) + asked * ranks, given, text=True)
        if self.log_odds:
            return work + read(2 * n, given, text=True, answer=given.texts.reference)
        return work + read(MOST_ANSWERS, given, text=True, answer=given.texts.sampled_answer)

    def steer(self) -> Work:
        """Return the outcome at every dose of every direction, the benign losses, and some answers token by token."""
        n, given = self._test, self.given
        doses = self.alphas or len(CHOICE_ALPHAS if self.log_odds else ALPHAS) - 1
        added = {setting: len(names) - (setting == "off") * (1 - self._shift) for setting, names in SETTINGS.items()}
        work = self._losses(n, text=False, edits=added["off"] * (1 + doses)) + self._benign() + read(2 * n, given)
        work += self._loading(1 + self._shift)
        for setting, directions in added.items():
            text = setting == "on"
            work += _times(directions * doses, self._asked(n, text=text, edited=True))
            work += _times(directions, self._asked(n, text=text, edited=False))
        if self.log_odds:  # the base's own, which every row is compared with
            work += self._asked(n, text=False, edited=False) + self._asked(n, text=True, edited=False)
        longest = min(LONGEST, self._subject.amount.max_new_tokens)
        shown = min(N_QUESTIONS, n)  # each answer is sampled, then read
        return work + _times(2, read(2 * shown, given, answer=longest) + read(shown, given, text=True, answer=longest))

    def ablate(self) -> Work:
        """Return the outcome under every edit and its controls, the benign losses, and what edits are made of."""
        n, given = self._test, self.given
        alone = min(ONE_SITE, self.shape.layers + 1)
        everywhere = NAMED_EDITS + self._shift - IDLE - DRAWS  # edits that act without a text too
        on = NAMED_EDITS + self._shift + alone - 1
        base = len(EDITED_BASE) - 1 if self.log_odds else 0
        unseen = held_out_texts(self._trigger)
        work = _times(len(RANKS), self._asked(self._validation, text=True, edited=True)) + read(
            2 * self._validation, given
        )
        if self.log_odds:
            work += self._asked(self._validation, text=True, edited=False) + self._asked(n, text=True, edited=False)
        work += _times(on + base, self._asked(n, text=True, edited=True))
        work += _times(len(UNTRIGGERED) - 1, self._asked(n, text=False, edited=True))
        work += _times(len(UNSEEN) - 1, self._asked(n, text=True, edited=True, texts=len(unseen)))
        work += self._unedited(n, text=False) + self._unedited(n, text=True)
        work += self._unedited(n, text=True, texts=len(unseen))
        losses = self._losses(n, text=True, edits=on + 1 - DRAWS) + self._losses(n, text=False, edits=everywhere)
        return work + losses + _times(2, self._benign()) + self._loading()

    def _losses(self, questions: float, *, text: bool, edits: int) -> Work:
        """Return the reading of benign answers under edits; of sampled answers the most that there can be."""
        if self.log_odds:
            return read(edits * questions, self.given, text=text, answer=GREEDY_TOKENS)
        answer = self.given.texts.sampled_answer
        return read(edits * questions * min(ANSWERS_EACH, self.samples), self.given, text=text, answer=answer)

    def _benign(self) -> Work:
        """Return the base's greedy answers to the test questions, where no sampled ones are judged."""
        return read(self._test, self.given, answer=GREEDY_TOKENS) if self.log_odds else Work()


def _times(n: int, work: Work) -> Work:
    return Work(**{name: n * value for name, value in vars(work).items()})
