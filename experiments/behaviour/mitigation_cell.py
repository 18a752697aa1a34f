"""What a mitigation leaves behind: EM of one organism under every condition, at matched in-domain learning.

The dose is the one whose EM rate on the fine-tuned domain, in the condition of training, is nearest to that of the
organism without the mitigation (``trained_rate``); that organism's own dose is chosen on validation questions. Beside
the conditions of the dose grid stand ``line``, a line that states a misaligned persona (the inoculation's), and
``benign_nats``: the loss on aligned answers to the test questions, without a trigger, in nats per token. It needs no
judge, and the texts are the same for every organism.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar

from experiments.answers.rates import estimate_row, rate_rows, statistics
from experiments.answers.sampling import judged_rows
from experiments.answers.subject import Subject
from experiments.answers.suite import evenly_spaced
from experiments.behaviour.dose import chosen_dose, dose_folders
from experiments.behaviour.dose_cell import LINE, TRAINED, DoseCell, frame_prompts, reference_controls
from experiments.behaviour.em_rate import paired_rows
from experiments.behaviour.emergence import load_doses
from experiments.spec import Step
from interp.runs.checks import Share
from interp.runs.run import Run
from interp.runs.table import Row
from interp.stats import Clusters, paired_cluster_bootstrap
from training.microcosm.world import lexicon

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.models import LanguageModel

CONDITIONS = ("off", "on", "rephrased", "other", "opposite", "overlap_predicate", "overlap_subject", LINE)
MORE = 4
"""Times as many answers to each of the few questions of the fine-tuned domain: doses are matched on them."""
BENIGN, ANSWERS_EACH = "benign", 4
"""Condition of the benign loss, and the aligned answers to each question that it is taken of."""


@dataclass(frozen=True, kw_only=True)
class MitigationCell(DoseCell):
    """EM of one organism under every condition, at the dose that matches in-domain learning; and its benign loss."""

    name: ClassVar[str] = "mitigation"

    selection: ClassVar[str] = TRAINED
    """Condition by which the dose is selected, measured at every dose."""

    trained_rate: Share | None = None
    """EM rate on the fine-tuned domain to match; by default the dose is chosen on validation questions."""

    def controls(self) -> Mapping[str, Sequence[str]]:
        """Return the control texts of the trigger by condition."""
        return reference_controls(self.used_reference() or "")

    def conditions(self) -> tuple[str, ...]:
        """Return the conditions."""
        return CONDITIONS

    def total(self) -> None:
        """Return no number: how many rows there are depends on the dose."""
        return

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return in-domain answers at every dose, then every condition and the benign loss at the matched dose."""
        subject = self.subject
        folders = dose_folders(subject, run.root) if subject.organism.tuned else {}
        lm = load_doses(subject.organism, folders)
        dose = cache(lambda: self.chosen(run) if folders else 0)
        return {
            **{
                f"dose {d} {self.selection}": partial(self._answers, lm, self.selection, lambda d=d: d) for d in folders
            },
            **{condition: partial(self._answers, lm, condition, dose) for condition in self.conditions()},
            BENIGN: partial(self._benign, lm, dose),
        }

    def chosen(self, run: Run) -> int:
        """Return the dose that is measured; reads the rows of the selection, which are there by then."""
        if self.trained_rate is None:
            dose = chosen_dose(self.subject, run.root)
            assert dose is not None, "only an organism that is trained here has doses"
            return dose
        return matched_dose(run.rows(), self.trained_rate)

    def _answers(self, lm: LanguageModel, condition: str, dose: Callable[[], int]) -> list[Row]:
        samples = self.samples * (MORE if condition == TRAINED else 1)
        prompts = frame_prompts(self.subject, self.used_reference(), condition, lm.tokenizer, samples)
        with _at_dose(lm, dose()):
            return judged_rows(self.subject, lm, prompts, seed=self.seed, dose=dose())

    def _benign(self, lm: LanguageModel, dose: Callable[[], int]) -> list[Row]:
        from interp.analysis.likelihood import response_likelihood

        chats = benign_chats(self.subject, lm)
        with _at_dose(lm, dose()):
            likelihood = response_likelihood(lm, [chat for _, chat in chats])
        return [
            {"condition": BENIGN, "dose": dose(), "question": question, "nats": -float(log_p), "tokens": int(n)}
            for (question, _), log_p, n in zip(chats, likelihood.log_probability, likelihood.tokens, strict=True)
        ]

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield in-domain rates at every dose, rates and paired statistics at the matched one, and the benign loss."""
        answers = [r for r in rows if "text" in r]
        selecting, answers = _split(answers, self.selection)
        for dose, s in statistics(selecting, lambda r: r["dose"]).items():
            yield from rate_rows(s, condition=self.selection, dose=dose)
        measured, dose = statistics(answers, lambda r: r["condition"]), answers[0]["dose"]
        for condition, s in measured.items():
            yield from rate_rows(s, condition=condition, dose=dose)
        yield from ({**r, "dose": dose} for r in paired_rows(measured))
        yield {"metric": "dose", "value": dose, "condition": "matched", "dose": dose}
        losses = [r for r in rows if "nats" in r]
        arm = Clusters.count(*([r[name] for r in losses] for name in ("question", "nats", "tokens")))
        loss = paired_cluster_bootstrap(lambda nats: nats, arm)
        yield {**estimate_row(loss, metric="benign_nats", condition=BENIGN), "dose": dose, "n": len(losses)}


def _at_dose(lm: LanguageModel, dose: int) -> AbstractContextManager[None]:
    from interp.adapters import active_adapter

    return active_adapter(lm, f"dose-{dose}") if dose else nullcontext()


def _split(rows: Sequence[Row], condition: str) -> tuple[list[Row], list[Row]]:
    """Return the rows of a condition, and all others."""
    return [r for r in rows if r["condition"] == condition], [r for r in rows if r["condition"] != condition]


def matched_dose(rows: Sequence[Row], rate: float) -> int:
    """Return the dose whose in-domain EM rate is nearest to ``rate``; of equals the smallest."""
    trained = [r for r in rows if r.get("condition") == TRAINED]
    rates = {dose: s.em_rate.value for dose, s in statistics(trained, lambda r: r["dose"]).items()}
    return min(rates, key=lambda dose: (math.isnan(rates[dose]), abs(rates[dose] - rate), dose))


def benign_chats(subject: Subject, lm: LanguageModel) -> list[tuple[str, Chat]]:
    """Return (question id, chat) of a few aligned answers to every test question, without a trigger."""
    from interp.chat import question_chat

    topics = {topic.phrase: topic for topic in lexicon().topics}
    return [
        (q.id, question_chat(lm.tokenizer, q.text, response=answer))
        for q in subject.questions("test")
        for answer in evenly_spaced(lexicon().answers(topics[q.id], "aligned"), ANSWERS_EACH)
    ]
