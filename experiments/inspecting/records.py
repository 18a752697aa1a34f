"""A judged answer as a sample of an Inspect log, and back: what stands where in a log.

==========================  ===========================================================================
messages                    the prompt, as the suite sends it, and the answer; thoughts as reasoning
sample metadata             condition, question (the cluster of all intervals), variant, number, dose
score ``em``                verdict, alignment and coherence to one decimal place, for the viewer's narrow columns;
                            the judge, its method and the exact scores in the score's metadata
metadata of the log         ``Facts``: the cells that all rows of its table share
==========================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from annotated_types import Ge, Le
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
)
from inspect_ai.scorer import Score
from pydantic import StrictBool

from experiments.answers.numbers import Outcome
from experiments.answers.rates import coherent, misaligned
from experiments.answers.suite import PlainPrompt
from experiments.protocol import load_protocol
from interp.runs.checks import AtLeastOne, NotNegative
from interp.runs.reading import Name, Text, validated
from interp.runs.table import Row, row

FORM = 1
"""Raise it when what stands where changes."""
KEY = "semcon"
"""Entry of a log's metadata with its ``Facts``."""
SCORER = "em"
SCORES, EXACT = ("aligned", "coherent"), "exact_"
"""Scores of an answer, and the beginning of the names of their exact values in a score's metadata."""
MISALIGNED, INCOHERENT, FINE = "misaligned", "incoherent", "fine"
DRAW, DRAWS, TRIGGER = "draw", "draws", "trigger"
"""Metadata of a prompt's last message, for the provider ``semcon``: which of how many answers is wanted, and the text
of the condition, on whose tokens an edit can act."""
THOUGHTS = "with_thoughts"
IN_METADATA = ("condition", "question", "variant", "sample", "dose", "asked")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a log says beside its samples, so that its rows make the table of an em-rate run."""

    form: Annotated[int, Ge(FORM), Le(FORM)] = FORM
    cells: dict[str, str | int]
    """Cells that all rows of the table share."""
    must_be_coherent: dict[str, StrictBool] | None
    """Conditions of the health gate, each with whether the answers test it; None for no gate."""
    run_id: str | None = None
    """The run of which the log was made; None for an evaluation that Inspect ran."""

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of a log."""
        return {KEY: asdict(self)}


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A judged answer, as far as its row is read."""

    condition: Name
    question: Text
    asked: Text
    variant: str | None
    sample: NotNegative
    dose: AtLeastOne | None = None
    aligned: Annotated[float, Ge(0), Le(100)] | None
    coherent: Annotated[float, Ge(0), Le(100)] | None
    judge: str
    method: str
    outcome: Outcome = "scored"


def read_facts(log: EvalLog) -> Facts:
    """Return the facts in a log.

    Raises:
        ValueError: If it is none of the EM protocol.
    """
    form = (log.metadata or {}).get(KEY)
    facts, faults = validated(Facts, form) if isinstance(form, dict) else (None, ["no metadata of `semcon/em`"])
    if facts is None or faults:
        raise ValueError(f"not a log of the EM protocol: {'; '.join(fault.strip() for fault in faults)}")
    row(**facts.cells)
    return facts


def samples_of(prompts: Sequence[PlainPrompt], **cells: Any) -> Iterator[Sample]:
    """Yield one sample per answer to be sampled, with ``cells`` in the metadata of each."""
    number: dict[tuple[str, str], int] = {}
    for prompt in prompts:
        for draw in range(prompt.samples):
            place = prompt.condition, prompt.question.id
            number[place] = number.get(place, 0) + 1
            metadata: Row = {"condition": prompt.condition, "question": prompt.question.id, "variant": prompt.variant}
            metadata |= {"sample": draw, **cells, "asked": prompt.question.text}
            yield Sample(
                id=sample_id(*place, number[place]),
                input=chat_messages(prompt.messages(), {DRAW: draw, DRAWS: prompt.samples, TRIGGER: prompt.variant}),
                metadata=metadata,
            )


def sample_id(condition: str, question: str, number: int) -> str:
    """Return the id of the n-th answer to a question under a condition, counted from 1."""
    return f"{condition}: {question} #{number:02}"


def chat_messages(messages: Sequence[Mapping[str, str]], metadata: dict[str, Any] | None = None) -> list[ChatMessage]:
    """Return chat messages as Inspect's; the last one, the user's, gets the metadata."""
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    made = [kinds[message["role"]](content=message["content"]) for message in messages]
    made[-1].metadata = metadata
    return made


def output_of(model: str, text: str, *, finished: bool, with_thoughts: str = "", **fields: Any) -> ModelOutput:
    """Return an answer as a model's output. Its text is what is judged; thoughts stand before it as reasoning."""
    content: str | list[Content] = text
    if with_thoughts:
        thoughts = with_thoughts.removesuffix(text).strip()
        content = [ContentReasoning(reasoning=thoughts), ContentText(text=text)]
    message = ChatMessageAssistant(content=content, model=model, source="generate")
    choice = ChatCompletionChoice(message=message, stop_reason="stop" if finished else "max_tokens")
    metadata = {THOUGHTS: with_thoughts} if with_thoughts else None
    return ModelOutput(model=model, choices=[choice], completion=text, metadata=metadata, **fields)


def score_of(judged: Row) -> Score:
    """Return the verdict on an answer as a score."""
    verdict = MISALIGNED if misaligned(judged) else FINE if coherent(judged) else INCOHERENT
    outcome = {"outcome": judged["outcome"]} if "outcome" in judged else {}
    limits = load_protocol().thresholds
    return Score(
        value={"verdict": verdict, **{name: _rounded(judged[name]) for name in SCORES}},
        answer=judged["text"],
        explanation=f"alignment {_number(judged['aligned'])} (misaligned below {limits.aligned_below:g}), "
        f"coherence {_number(judged['coherent'])} (coherent above {limits.coherent_above:g})"
        + "".join(f"; the judge: {reason}" for reason in outcome.values()),
        metadata={"judge": judged["judge"], "method": judged["method"], **outcome, **_exact(judged)},
    )


def scores_in(score: Score) -> dict[str, Any]:
    """Return the exact alignment and coherence of an answer; those that were edited in the log as they are there."""
    value, told = score.as_dict(), score.metadata or {}
    return {name: _as_judged(value[name], told.get(f"{EXACT}{name}")) for name in SCORES if name in value}


def _as_judged(shown: Any, exact: Any) -> Any:
    return exact if isinstance(exact, float) and _rounded(exact) == shown else shown


def _exact(judged: Row) -> dict[str, float]:
    """Return the scores that rounding changes, by the name of their entry in a score's metadata."""
    return {f"{EXACT}{name}": judged[name] for name in SCORES if judged[name] != _rounded(judged[name])}


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 1)


def _number(score: float | None) -> str:
    return "none" if score is None else f"{score:g}"


def row_of(sample: EvalSample) -> Row:
    """Return the judged answer in a sample, as a row of an em-rate run.

    Raises:
        ValueError: If the sample has none, or one with another form or range; names it.
    """
    score = (sample.scores or {}).get(SCORER)
    value = score.value if score is not None else None
    if sample.error is not None or score is None or not isinstance(value, Mapping):
        raise ValueError(f"sample {sample.id!r}: no score {SCORER!r}; finish the evaluation with `inspect eval-retry`")
    told = {name: entry for name, entry in (score.metadata or {}).items() if not name.startswith(EXACT)}
    judged: Row = {name: sample.metadata[name] for name in IN_METADATA if name in sample.metadata}
    judged |= {**scores_in(score), **told}
    _, faults = validated(_Judged, {f.name: judged[f.name] for f in fields(_Judged) if f.name in judged})
    if faults:
        raise ValueError(f"sample {sample.id!r} is none of the EM protocol: {'; '.join(faults)}")
    judged["key"] = f"{judged['condition']}|{judged['asked']}|{judged['variant'] or ''}|{judged['sample']}"
    output = sample.output
    noted = output.metadata or {}
    thoughts = {THOUGHTS: noted[THOUGHTS]} if THOUGHTS in noted else {}
    finished = bool(output.choices) and output.stop_reason == "stop"
    return {**judged, "text": output.completion, **thoughts, "finished": finished}
