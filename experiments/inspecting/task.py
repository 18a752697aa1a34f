"""The EM protocol as a task of Inspect: `inspect eval semcon/em --model semcon/ORGANISM`.

One sample is one answer, because conditions with several texts have other numbers of answers per text than others, and
an epoch is the same for all. The answers are those of `semcon em-rate` with the same settings: same prompts, same seed,
same judge.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.model import GenerateConfig, Model, get_model
from inspect_ai.solver import generate

from experiments.answers.judge import check_judge
from experiments.answers.subject import find_subject
from experiments.behaviour.em_rate import Answers, Condition, EmRate
from experiments.inspecting.extra import AT_ONCE, TASK, plainly_named, refusals
from experiments.inspecting.records import Facts, samples_of
from experiments.inspecting.scoring import judged, viewer
from experiments.protocol import load_protocol
from interp.runs.checks import check_known

if TYPE_CHECKING:
    from experiments.inspecting.provider import OrganismModel


@task(name=TASK)
@plainly_named
def em(
    organism: str | None = None,
    conditions: str | list[str] | None = None,
    samples: int | None = None,
    questions: str | None = None,
    judge: str = "oracle",
    trigger: str | None = None,
    n_questions: int | None = None,
    seed: int = 0,
) -> Task:
    """Return the EM protocol as a task.

    Args:
        organism: Whose questions and trigger are used, for a model of another provider; semcon/X is X itself.
        conditions: Conditions, after commas; by default all.
        samples: Answers per question and condition; by default as many as the protocol says.
        questions: File of questions, for a model of another provider; semcon/X has it as -M questions=FILE.
        judge: Who scores answers: oracle (Microcosm only), openai:MODEL[@URL], or a CSV of scores.
        trigger: Trigger of the evaluation; by default the organism's own.
        n_questions: Most questions, evenly spaced; by default all.
        seed: Sampling seed.
    """
    with refusals():
        return _task(get_model(), organism, questions, _names(conditions), trigger, samples, n_questions, seed, judge)


def _names(conditions: str | list[str] | None) -> tuple[Any, ...]:
    """Return the conditions.

    Raises:
        ValueError: If there is no condition of that name.
    """
    names = conditions.split(",") if isinstance(conditions, str) else conditions or Answers.conditions
    known = get_args(Condition)
    for name in names:
        check_known(name, known, f"conditions: unknown condition {name!r}; known:")
    return tuple(names)


def _task(
    model: Model,
    organism: str | None,
    questions: str | None,
    conditions: tuple[Any, ...],
    trigger: str | None,
    samples: int | None,
    n_questions: int | None,
    seed: int,
    judge: str,
) -> Task:
    from experiments.inspecting.provider import OrganismModel  # loads torch

    api = model.api
    ours = api if isinstance(api, OrganismModel) else None
    if ours is None and organism is None:
        raise ValueError("organism: name the one whose questions and trigger are used, -T organism=NAME")
    if ours and (organism or questions):
        raise ValueError(f"organism, questions: {model} has its own; with -M questions=FILE it asks others")
    if ours and ours.settings.places:
        raise ValueError("condition, text: semcon/em places the trigger itself; leave them out of -M")
    subject = ours.subject if ours else find_subject(str(organism), Path(questions) if questions else None, judge)
    answers = Answers(
        subject=replace(subject, n_questions=n_questions),
        trigger=trigger,
        conditions=conditions,
        samples=samples,
        seed=seed,
    )
    experiment = EmRate(answers=answers, judge=judge)
    experiment.check()
    check_judge(judge)
    prompts = [prompt for condition in answers.used_conditions() for prompt in answers.prompts(condition)]
    dose = ours.dose() if ours else None
    sampled = list(samples_of(prompts, **({} if dose is None else {"dose": dose})))
    return Task(
        dataset=MemoryDataset(sampled, name=f"{subject.name}: {', '.join(answers.used_conditions())}"),
        solver=generate(),
        scorer=judged(judge),
        config=_config(answers, ours is not None),
        epochs=Epochs(1, []),
        metadata=_facts(experiment, model, ours).metadata(),
        viewer=viewer(),
        version=load_protocol().label,
        display_name=f"EM rate of {_who(model, ours)}",
    )


def _config(answers: Answers, ours: bool) -> GenerateConfig:
    """Return how answers are drawn. A seed is for our own models: of others it would make all answers alike."""
    amount = answers.subject.amount
    config = GenerateConfig(temperature=load_protocol().sampling.temperature, max_tokens=amount.max_new_tokens)
    return config.merge(GenerateConfig(seed=answers.seed, max_connections=AT_ONCE)) if ours else config


def _who(model: Model, ours: OrganismModel | None) -> str:
    return ours.label() if ours else str(model)


def _facts(experiment: EmRate, model: Model, ours: OrganismModel | None) -> Facts:
    cells = {name: value for name, value in experiment.cells([]).items() if name not in ("judge", "dose")}
    cells |= {"organism": _who(model, ours)} | ({} if ours else {"family": ""})
    return Facts(cells=cells, must_be_coherent=experiment.must_be_coherent() if ours else None)
