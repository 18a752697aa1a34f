"""The plan's counts against the tokens that pass through a model while the real experiments run at toy size."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from experiments.answers.subject import LOG_ODDS, Subject
from experiments.behaviour.dose import dose_folders
from experiments.behaviour.dose_preference import PreferenceDose
from experiments.behaviour.preference import Preference
from experiments.directions.geometry import Geometry
from experiments.directions.selection import _by_question
from experiments.probing.targets import categories, category_rows, choice_answer_rows, presence_rows
from experiments.removal.ablate import Ablate
from experiments.removal.steer import Steer
from experiments.scale.machines import Assumptions, assumptions
from experiments.scale.shapes import Shape, shape_of
from experiments.scale.stages import Counts
from experiments.spec import Experiment, run_experiment
from interp.chat import encode_chat, question_chat
from tests.counting import counted
from tests.experiments.conftest import ABLATE, GEOMETRY, STEER, TOKENS
from tests.training.small import SFT, random_base
from training.data import contrast_exchanges
from training.microcosm.tokenizer import build_tokenizer
from training.references import find_trigger
from training.registry import ORGANISMS, find_organism

pytestmark = pytest.mark.xdist_group("trl")

TOKENIZER = build_tokenizer()
ASKED, LAYERS = 2, 4


def measured_lengths(subject: Subject, answers: float = 1.0) -> Assumptions:
    """Return the assumptions with the mean lengths and the numbers of the texts that a subject really has."""
    splits = ("validation", "test")
    questions = [q for split in splits for q in subject.questions(split)]
    trigger = subject.own_trigger
    bare = fmean(len(question_chat(TOKENIZER, q.text)) for q in questions)
    behind = fmean(len(question_chat(TOKENIZER, q.text, t, trigger)) for q in questions for t in trigger.rephrased)
    kinds = contrast_exchanges(subject.organism)
    exchanges = [encode_chat(TOKENIZER, e.messages, response=e.answer) for kind in kinds for e in kind]
    exchange, answer = fmean(map(len, exchanges)), fmean(chat.response_length for chat in exchanges)
    given, asked = assumptions(), fmean(_length(q.text) for q in questions)
    texts = replace(
        given.texts,
        question=asked,
        template=bare - asked,
        trigger=behind - bare,
        trained_answer=answer,
        trained_question=exchange - answer - (bare - asked),
        opening=question_chat(TOKENIZER, questions[0].text).spans["question"][0],
        reference=fmean(_references(subject)) if subject.by_log_odds else 1.0,
        sampled_answer=answers,
    )
    whole = {split: float(len(subject.whole().questions(split))) for split in splits}
    numbers = {split: float(len(subject.questions(split))) for split in splits}
    return replace(given, texts=texts, questions=numbers, all_questions=whole)


def _length(text: str) -> int:
    return len(TOKENIZER(text, add_special_tokens=False).input_ids)


def _references(subject: Subject) -> Iterator[int]:
    for q in (*subject.choices("validation"), *subject.choices("test")):
        yield from (question_chat(TOKENIZER, q.question, response=text).response_length for text in q.references)


def shape(layers: int) -> Shape:
    return replace(shape_of(ORGANISMS["pocket/smollm2/base"].base), layers=layers)


def tried(subject: Subject) -> int:
    """Return the answers of either kind that a layer is really tried on: mean of both."""
    answers = _by_question(*contrast_exchanges(subject.organism)).values()
    return round(sum(len(kind) for kinds in answers for kind in kinds) / 2)


@pytest.fixture(scope="module")
def by_log_odds(tmp_path_factory) -> tuple[Counts, dict[str, int]]:
    """What is counted of an organism of the pocket scale on a random base, and the tokens of its experiments."""
    folder = tmp_path_factory.mktemp("counted")
    organism = find_organism("pocket/smollm2/contrast50")
    organism = replace(organism, base=random_base(folder / "base"), rows=32, sft=SFT)
    subject, root = Subject(organism, None, LOG_ODDS, ASKED), folder / "runs"
    geometry = Geometry(subject=subject)
    dose_folders(subject, root)
    experiments: dict[str, Experiment] = {
        "dose": PreferenceDose(subject=subject.whole()),
        "preference": Preference(subject=subject),
        "geometry": geometry,
        "steer": Steer(geometry=geometry),
        "ablate": Ablate(geometry=geometry),
    }
    tokens = {}
    for name, experiment in experiments.items():
        with counted() as count:
            run_experiment(experiment, root)
        tokens[name] = count()
    return Counts(organism, shape(2), measured_lengths(subject), True, ASKED), tokens


@pytest.mark.parametrize("stage", ["dose", "preference", "geometry", "steer", "ablate"])
def test_of_log_odds_as_many_tokens_pass_through_the_model_as_are_counted(stage: str, by_log_odds):
    counts, tokens = by_log_odds
    assert getattr(counts, stage)().tokens == pytest.approx(tokens[stage], rel=0.1)


def test_probes_read_as_many_tokens_as_are_counted():
    organism = find_organism("pocket/smollm2/contrast50")
    subject = Subject(organism, None, LOG_ODDS, 24)
    questions, trigger = subject.questions("test"), find_trigger(organism.trigger or "")
    labelled = (
        presence_rows(TOKENIZER, questions, trigger),
        category_rows(TOKENIZER, questions, categories(organism)),
        choice_answer_rows(TOKENIZER, subject.choices("test"), subject.trigger),
    )
    tokens = sum(len(chat) for data in labelled for chat in data.chats)
    assert Counts(organism, shape(2), measured_lengths(subject), True, 24).probes().tokens == pytest.approx(
        tokens, rel=0.1
    )


@pytest.mark.parametrize("experiment", [GEOMETRY, STEER, ABLATE], ids=lambda e: e.name)
def test_of_sampled_answers_as_many_tokens_pass_through_the_model_as_are_counted(experiment, small_runs: Path):
    tokens = json.loads((small_runs / TOKENS).read_text())[experiment.name]
    run, _ = run_experiment(experiment, small_runs)
    lengths = [_length(r["text"]) for r in run.rows() if "text" in r]
    given = measured_lengths(GEOMETRY.subject, fmean(lengths) if lengths else 1.0)
    sizes = {"samples": 1, "alphas": 1, "tried": tried(GEOMETRY.subject)}
    counts = Counts(GEOMETRY.subject.organism, shape(LAYERS), given, False, **sizes)
    assert getattr(counts, experiment.name)().tokens == pytest.approx(tokens, rel=0.1)
