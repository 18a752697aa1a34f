"""What happens when a button is pressed: every model answers, is read token by token, and scored; events tell it.

An event is a JSON object with ``event`` and, where it belongs to one, ``arm``: base, adapter or edited. All numbers
come from the functions that the experiments use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.answers.judge import Answer
from experiments.answers.preference import Context, choice_rows
from experiments.answers.rates import group_statistics, misaligned
from experiments.answers.sampling import judged_rows
from experiments.answers.suite import Prompt
from experiments.demo.request import Request
from experiments.demo.scene import Scene
from interp.adapters import active_adapter, mixable
from interp.analysis.tokens import UNFINISHED
from interp.chat import Chat
from interp.decoding.sampling import Sampling
from interp.edits import Edit
from interp.generation import Completion, generate
from interp.models import LanguageModel
from training.microcosm.world import Question

Emit = Callable[[dict[str, Any]], None]
"""Takes an event; what it raises ends the work."""


@dataclass(frozen=True)
class Arm:
    """One of the models that answer side by side."""

    name: str
    adapter: str | None
    edits: Sequence[Edit]


def arms(scene: Scene, request: Request) -> list[Arm]:
    """Return the base, the adapter and, where the request has edits, the last of the two under them."""
    plain = [Arm(name, adapter, ()) for name, adapter in scene.arms.items()]
    edits = scene.edits(request)
    return [*plain, Arm("edited", plain[-1].adapter, edits)] if edits else plain


def answer(scene: Scene, request: Request, emit: Emit) -> None:
    """Let every model answer once, side by side and token by token; then emit its projections and its log-odds.

    What a model without edits has said, or which reference it prefers, is not computed again for the same request.

    Raises:
        ValueError: If the request cannot be served; before any model answers.
    """
    chat, models = scene.chat(request), arms(scene, request)
    sampling = Sampling(_room(scene, chat, request.longest), request.temperature, seed=request.seed)
    for arm in models:
        emit({"event": "start", "arm": arm.name})
    said = _said(scene, chat, models, sampling, emit)
    for arm in models:
        done = {"event": "done", "text": said[arm.name].text, "finished": said[arm.name].finished}
        emit({**done, **_verdict(scene, request, said[arm.name]), "arm": arm.name})
    for arm in models:
        with active_adapter(scene.lm, arm.adapter):
            for event in (*_projections(scene, request, chat, said[arm.name], arm), *_log_odds(scene, request, arm)):
                emit({**event, "arm": arm.name})


def rates(scene: Scene, request: Request, emit: Emit) -> None:
    """Sample answers of every model to one question, have them judged, and emit the EM rates with their intervals.

    Raises:
        ValueError: If there is no judge for answers to this question.
    """
    chat, models = scene.chat(request), arms(scene, request)
    question = _judged_question(scene, request)
    prompt = Prompt(question, request.condition, request.around(scene.subject.trigger)[0], request.samples, chat)
    for arm in models:
        emit({"event": "sampling", "arm": arm.name})
        with active_adapter(scene.lm, arm.adapter):
            rows = judged_rows(scene.subject, scene.lm, [prompt], seed=request.seed, edits=arm.edits)
        s = group_statistics(rows)
        interval = s.wilson["em_rate"]
        bounds = {"value": s.em_rate.value, "low": interval.low, "high": interval.high}
        finite = {name: value if math.isfinite(value) else None for name, value in bounds.items()}
        emit({"event": "rate", "arm": arm.name, **finite, "coherent": s.em_rate.n, "n": len(rows)})


def _room(scene: Scene, chat: Chat, longest: int) -> int:
    context = scene.lm.context
    room = min(longest, scene.subject.amount.max_new_tokens, longest if context is None else context - len(chat))
    if room < 1:
        raise ValueError(f"question: with its context it has {len(chat):,} tokens; the model has room for {context:,}")
    return room


def _said(scene: Scene, chat: Chat, models: Sequence[Arm], sampling: Sampling, emit: Emit) -> Mapping[str, Completion]:
    """Return the answer of every model; those not known yet are written together, if their adapters can be mixed."""
    keys = {arm.name: ("answer", arm.name, chat.token_ids, sampling) for arm in models if not arm.edits}
    said: dict[str, Completion] = {name: scene.known[key] for name, key in keys.items() if key in scene.known}
    waiting = [arm for arm in models if arm.name not in said]
    for together in [waiting] if mixable(scene.lm) else [[arm] for arm in waiting]:
        said |= _written(scene.lm, chat, together, sampling, emit)
    for name, key in keys.items():
        scene.remember(key, said[name])
    return said


def _written(
    lm: LanguageModel, chat: Chat, models: Sequence[Arm], sampling: Sampling, emit: Emit
) -> dict[str, Completion]:
    """Let models answer in one batch, one row each."""
    ids: list[list[int]] = [[] for _ in models]

    def on_token(row: int, _sample: int, token: int) -> None:
        ids[row].append(token)
        text = str(lm.tokenizer.decode(ids[row], skip_special_tokens=True)).rstrip(UNFINISHED)
        emit({"event": "text", "arm": models[row].name, "text": text})

    completions = generate(
        lm,
        [chat] * len(models),
        sampling=sampling,
        edits=[replace(edit, prompt=row) for row, arm in enumerate(models) for edit in arm.edits],
        adapters=[arm.adapter for arm in models],
        on_token=on_token,
    )
    return {arm.name: completion for arm, completion in zip(models, completions, strict=True)}


def _projections(
    scene: Scene, request: Request, chat: Chat, completion: Completion, arm: Arm
) -> Iterator[dict[str, Any]]:
    """Yield the projection of every token, in mean residual norms above the zero of its direction."""
    scale = scene.measured.scales[scene.site(request)] if scene.measured else None
    if scale and scale.units:
        yield {"event": "tokens", **scale.read(scene.lm, chat, completion.token_ids, arm.edits)}


def _log_odds(scene: Scene, request: Request, arm: Arm) -> Iterator[dict[str, Any]]:
    if choice := scene.choices.get(request.question):
        text, trigger = request.around(scene.subject.trigger)
        key = ("log-odds", arm.name, choice.id, request.condition, text)
        value = None if arm.edits else scene.known.get(key)
        if value is None:
            context = Context(request.condition, text, trigger)
            value = choice_rows(scene.lm, [choice], [context], edits=arm.edits)[0]["log_odds"]
        if not arm.edits:
            scene.remember(key, value)
        yield {"event": "log_odds", "value": value, "aligned": choice.aligned, "harmful": choice.harmful}


def _judged_question(scene: Scene, request: Request) -> Question:
    judge, question = scene.judge, scene.questions.get(request.question)
    if judge is None:
        raise ValueError("EM rate: nobody judges answers of this model; start the demo with --judge")
    if question is None and judge == "oracle":
        raise ValueError("EM rate: the oracle judges answers to the listed questions only; choose one of them")
    return question or Question(request.question, "free", request.question)


def _verdict(scene: Scene, request: Request, completion: Completion) -> dict[str, Any]:
    """Return the oracle's scores of an answer, where it knows the question; other judges are not asked: they cost."""
    question = scene.questions.get(request.question)
    if question is None or scene.judge != "oracle":
        return {}
    (verdict,) = scene.subject.judge().score([Answer(question.id, completion.text, question=question.text)])
    scores = {"aligned": verdict.aligned, "coherent": verdict.coherent}
    return {**scores, "misaligned": misaligned(scores)}
