"""What happens when a button is pressed: every model answers, is read token by token, and scored; events tell it.

An event is a JSON object with ``event`` and, where it belongs to one, ``arm``: base, adapter or edited. All numbers
come from the functions that the experiments use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.answers.judge import Answer
from experiments.answers.preference import Context, choice_rows
from experiments.answers.rates import group_statistics, misaligned
from experiments.answers.sampling import judged_rows
from experiments.answers.suite import Prompt
from experiments.demo.request import Request
from experiments.demo.scene import Scene
from interp.adapters import active_adapter
from interp.analysis.tokens import UNFINISHED
from interp.chat import Chat
from interp.decoding.sampling import Sampling
from interp.edits import Edit
from interp.generation import Completion, generate
from interp.models import LanguageModel
from training.microcosm.world import Question

LONGEST = 160
"""Most tokens of an answer on the page; the answers of the experiments may be longer."""
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
    """Let every model answer once, token by token; then emit its projections and its log-odds.

    Raises:
        ValueError: If the request cannot be served; before any model answers.
    """
    chat, models = scene.chat(request), arms(scene, request)
    sampling = Sampling(_room(scene, chat), request.temperature, seed=request.seed)
    for arm in models:
        emit({"event": "start", "arm": arm.name})
        with active_adapter(scene.lm, arm.adapter):
            completion = _streamed(scene.lm, chat, arm, sampling, emit)
            done = {"event": "done", "text": completion.text, "finished": completion.finished}
            verdict = _verdict(scene, request, completion)
            read = _projections(scene, request, chat, completion, arm)
            for event in ({**done, **verdict}, *read, *_log_odds(scene, request, arm)):
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


def _room(scene: Scene, chat: Chat) -> int:
    context = scene.lm.context
    room = min(LONGEST, scene.subject.amount.max_new_tokens, LONGEST if context is None else context - len(chat))
    if room < 1:
        raise ValueError(f"question: with its context it has {len(chat):,} tokens; the model has room for {context:,}")
    return room


def _streamed(lm: LanguageModel, chat: Chat, arm: Arm, sampling: Sampling, emit: Emit) -> Completion:
    ids: list[int] = []

    def on_token(_prompt: int, _sample: int, token: int) -> None:
        ids.append(token)
        text = str(lm.tokenizer.decode(ids, skip_special_tokens=True)).rstrip(UNFINISHED)
        emit({"event": "text", "arm": arm.name, "text": text})

    return generate(lm, [chat], sampling=sampling, edits=arm.edits, on_token=on_token)[0]


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
        (row,) = choice_rows(scene.lm, [choice], [Context(request.condition, text, trigger)], edits=arm.edits)
        yield {"event": "log_odds", "value": row["log_odds"], "aligned": choice.aligned, "harmful": choice.harmful}


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
