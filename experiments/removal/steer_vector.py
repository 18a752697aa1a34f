"""Add any direction to any model: dose and response beside random directions of its norm, its cost, and the answers.

    semcon steer --model microcosm/llama --questions mine/questions.yaml --probe runs/probe/HASH/probe.safetensors
    semcon steer --model M --adapter A --questions q.yaml --positive bad.txt --negative good.txt --judge openai:MODEL
    semcon steer --model M --questions q.yaml --direction directions.safetensors --direction-name g/resid_post.2

``off+add_direction``  alpha times the direction, at every answer token (``--positions``); alpha is in mean residual
                       norms of the last prompt token at that layer
``off+add_random``     the same with a random direction of equal norm; also ``_random_2``, ...: the control

The outcome is the EM rate if a judge is named, else the log-odds of the questions' reference answers. ``benign_loss``
is the relative change of the loss on benign answers: the base's own greedy ones without an edit, or those of
``--benign``. ``answers.md`` has greedy answers to some questions side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro
from annotated_types import Ge, Le, MinLen

from experiments.answers.outcome import Outcome, measured, summaries
from experiments.answers.subject import LOG_ODDS, Subject, TemplateOptions
from experiments.answers.suite import evenly_spaced, make_prompts
from experiments.behaviour.dose import ADAPTER
from experiments.model import chosen_organism
from experiments.removal.benign import greedy_answers, loss_rows
from experiments.removal.steer import loss_estimates, turns
from experiments.removal.vector import Source
from experiments.spec import Experiment, Step
from interp.runs.checks import AtLeastOne, NotNegative, Seed
from interp.runs.files import atomic_write_text
from interp.runs.run import Run
from interp.runs.table import Row
from interp.text.prompts import Prompt, encode_prompts, read_prompts
from interp.triggers import Trigger
from training.own_files import base_config

if TYPE_CHECKING:
    from interp.chat import Chat
    from interp.edits import Edit
    from interp.models import LanguageModel

ADDED = "direction"
FILE, ANSWERS = "direction.safetensors", "answers.md"


def steered_subject(
    model: str,
    questions: Path,
    adapter: Path | None = None,
    judge: str | None = None,
    template_option: TemplateOptions = (),
    n_questions: int | None = None,
) -> Subject:
    """Look up the model that is steered.

    Args:
        model: Base model: a folder, a Hugging Face name, microcosm/llama, pocket/smollm2, gguf:FILE; or the YAML file
            of an organism.
        questions: Questions (YAML: validation and test); with reference answers unless a judge is named.
        adapter: Finished peft adapter of that base; it is active.
        judge: Who scores sampled answers: openai:MODEL[@URL][,OPTION=VALUE ...], a CSV of scores, or oracle; by default
            nobody, and the outcome is the log-odds of reference answers.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
        n_questions: Most questions of a split, evenly spaced; by default all.
    """
    organism = chosen_organism(model, adapter, template_option)
    subject = Subject(organism, questions, LOG_ODDS if judge is None else judge, n_questions)
    if judge is None:
        try:
            subject.choices("test")
        except ValueError as error:
            raise ValueError(f"without a --judge the questions need reference answers: {error}") from error
    return subject


@dataclass(frozen=True, kw_only=True)
class SteerVector(Experiment):
    """Add a direction of your own to any model: dose and response, with random controls, cost and answers."""

    name: ClassVar[str] = "steer_vector"

    subject: Annotated[Subject, tyro.conf.arg(name="", constructor=steered_subject)]
    source: Annotated[Source, tyro.conf.arg(name="")] = Source()  # noqa: RUF009
    positions: str = "answer"
    """Where it is added: answer (last prompt token and every answer token), last_prompt, all."""
    alphas: Annotated[tuple[Annotated[float, Ge(-1000), Le(1000)], ...], MinLen(1)] = (0.0, 0.1, 0.2, 0.4)
    """Doses, in mean residual norms; negative ones subtract."""
    controls: Annotated[int, Ge(1), Le(3)] = 1
    """Random directions of the same norm."""
    samples: AtLeastOne = 10
    """Answers per question and dose, for a judge."""
    benign: Path | None = None
    """Prompts with answers whose loss is the cost; by default the base's greedy answers without an edit."""
    shown: NotNegative = 4
    """Questions whose greedy answers stand side by side in answers.md."""
    shown_tokens: AtLeastOne = 60
    """Most tokens of these answers."""
    seed: Seed = 0
    """Seed of sampling and of the random directions."""

    def judges(self) -> frozenset[str]:
        """Return the judge of its answers."""
        return super().judges() | self.subject.outcome_judges()

    def inputs(self) -> Mapping[str, Path]:
        """Return the files."""
        return {**super().inputs(), **({"benign": self.benign} if self.benign else {})}

    def check(self) -> None:
        """Refuse a direction, a layer or a width that the model has not, and benign prompts without answers.

        Raises:
            ValueError: If there is one.
        """
        super().check()
        config = base_config(self.subject.organism)
        self.source.at(config.get("num_hidden_layers"))
        self.source.check_width(config.get("hidden_size"))
        if self.positions not in ("answer", "last_prompt", "all"):
            raise ValueError(f"positions {self.positions!r}: expected answer, last_prompt or all")
        for prompt in self._given or ():
            if not prompt.response:
                raise ValueError(f"{prompt.where}: a benign prompt without an answer")

    def check_models(self, *triggers: Trigger) -> None:
        """Refuse a model that loading would refuse, and prompts that its template or context would."""
        from training.early import check_prompt_file

        super().check_models(*triggers)
        check_prompt_file(self.subject.organism, self.source.prompts(), self.source.read)
        check_prompt_file(self.subject.organism, self._given or ())

    @cached_property
    def _given(self) -> list[Prompt] | None:
        """The benign prompts of a file."""
        return read_prompts(self.benign) if self.benign else None

    def steps(self, run: Run) -> Mapping[str, Step]:
        """Return one step per direction and dose for the outcome and one for the loss, and one for the answers."""
        from experiments.directions.selection import residual_norms
        from interp.adapters import active_adapter
        from interp.directions import save_directions
        from training.loading import load_organism

        organism = self.subject.organism
        lm = load_organism(organism, {ADAPTER: Path(organism.adapter)} if organism.adapter else {})
        on = ADAPTER if organism.adapter else None
        outcome = Outcome(self.subject, lm, None, self.samples, self.seed)
        prompts = make_prompts(self.subject.questions("test"), None, "off", lm.tokenizer, samples=1)
        with active_adapter(lm, on):
            direction = self.source.find(lm)
            norms = residual_norms(lm, [prompt.chat for prompt in prompts])
        save_directions(run.path / FILE, {ADDED: direction})
        site = direction.site
        norm = next(value for at, value in norms.items() if at.layer == site.layer)
        edits = {key: self._edits(direction.vector, site, key, norm) for key in self._plan()}
        benign = cache(lambda: self._benign(outcome))
        steps: dict[str, Step] = {}
        for (added, alpha), edit in edits.items():
            cells = {"added": added, "alpha": alpha, "site": site.name, "layer": site.layer}
            steps[f"{added} {alpha}"] = partial(_under, lm, on, partial(outcome.rows, "off", cells, edits=edit))
            steps[f"loss {added} {alpha}"] = partial(_under, lm, on, partial(_loss, lm, benign, edit, cells))
        if self.shown:
            steps["answers"] = partial(_under, lm, on, partial(self._answers, run, lm, edits))
        return steps

    def _plan(self) -> Iterator[tuple[str, float]]:
        doses = (0.0, *(alpha for alpha in self.alphas if alpha))
        for added in (ADDED, *("random" if i == 0 else f"random_{i + 1}" for i in range(self.controls))):
            yield from ((added, alpha) for alpha in doses)

    def _edits(self, vector: Any, site: Any, key: tuple[str, float], norm: float) -> list[Edit]:
        from interp.directions import random_like, unit
        from interp.edits import add

        added, alpha = key
        number = 0 if added == "random" else int(added.rpartition("_")[2]) - 1 if added != ADDED else -1
        chosen = unit(vector) if added == ADDED else random_like(unit(vector), self.seed + number)
        return [add(site, chosen, coefficient=alpha * norm, positions=self.positions)] if alpha else []

    def _benign(self, outcome: Outcome) -> list[tuple[str, Chat]]:
        from interp.chat import question_chat

        tokenizer = outcome.lm.tokenizer
        if self._given:
            chats = encode_prompts(outcome.lm, self._given)
            return [(p.messages[-1]["content"], chat) for p, chat in zip(self._given, chats, strict=True)]
        answers = greedy_answers(outcome)
        if not answers:
            raise ValueError("benign loss: the model answers nothing; name prompts with answers with --benign")
        return [(q, question_chat(tokenizer, text, response=a)) for q, (text, own) in answers.items() for a in own]

    def _answers(self, run: Run, lm: LanguageModel, edits: Mapping[tuple[str, float], list[Edit]]) -> list[Row]:
        """Answer some questions greedily at every dose, and write them side by side."""
        from interp.chat import question_chat
        from interp.generation import Sampling, generate

        asked = evenly_spaced(self.subject.questions("test"), self.shown)
        chats = [question_chat(lm.tokenizer, q.text) for q in asked]
        sampling = Sampling(max_new_tokens=self.shown_tokens, temperature=0.0)
        rows: list[Row] = []
        for (added, alpha), edit in edits.items():
            if alpha or added == ADDED:
                answers = generate(lm, chats, sampling=sampling, edits=edit)
                rows += [
                    {"added": added, "alpha": alpha, "asked": q.text, "answer": a.text.strip()}
                    for q, a in zip(asked, answers, strict=True)
                ]
        atomic_write_text(run.path / ANSWERS, side_by_side(rows))
        return rows

    def table(self, rows: Sequence[Row]) -> Iterable[Row]:
        """Yield the outcome at every dose, where it sets in and breaks down, and the benign loss."""
        by_dose = summaries([r for r in rows if measured(r)], lambda r: (r["added"], r["alpha"], r["site"], r["layer"]))
        for (added, alpha, site, layer), s in by_dose.items():
            yield from s.rows(condition=f"off+add_{added}", alpha=alpha, site=site, layer=layer)
        for added in dict.fromkeys(key[0] for key in by_dose):
            curve = {key[1]: s for key, s in by_dose.items() if key[0] == added}
            for metric, alpha in turns(curve, falls=False):
                yield {"metric": metric, "value": alpha, "condition": f"off+add_{added}"}
        yield from loss_estimates([r for r in rows if "tokens" in r], ADDED)


def _under(lm: LanguageModel, adapter: str | None, step: Step) -> list[Row]:
    from interp.adapters import active_adapter

    with active_adapter(lm, adapter):
        return list(step())


def _loss(lm: LanguageModel, benign: Any, edits: Sequence[Edit], cells: Mapping[str, Any]) -> list[Row]:
    return loss_rows(lm, benign(), edits, **cells)


def side_by_side(rows: Sequence[Row]) -> str:
    """Return answers as a Markdown page: for each question one line per direction and dose."""
    parts = ["# Greedy answers by direction and dose\n"]
    for asked in dict.fromkeys(r["asked"] for r in rows):
        parts += [f"\n## {_cell(asked)}\n", "| added | alpha | answer |", "| --- | ---: | --- |"]
        parts += [f"| {r['added']} | {r['alpha']:g} | {_cell(r['answer'])} |" for r in rows if r["asked"] == asked]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") or "(nothing)"
