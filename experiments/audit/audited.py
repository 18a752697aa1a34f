"""What is audited: an adapter and its base as a subject, the questions that it is asked, and g of the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.answers.subject import LOG_ODDS, Subject, TemplateOptions, with_options
from training.definition import Organism
from training.exchanges import Exchange
from training.finished import finished_organism
from training.microcosm.world import PERSONAS, Question, Topic, lexicon
from training.pocket import corpus
from training.pocket.corpus import ChoiceQuestion

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from interp.models import LanguageModel
    from interp.sites import Site

WORLD = "microcosm/"


def find_audited(
    adapter: Annotated[Path, tyro.conf.Positional],
    base: str,
    questions: Path | None = None,
    judge: str | None = None,
    template_option: TemplateOptions = (),
) -> Subject:
    """Look up the adapter that is audited.

    Args:
        adapter: Folder of the adapter (peft, safetensors).
        base: Its base: a folder, a Hugging Face name, microcosm/llama, pocket/smollm2, gguf:FILE.
        questions: Questions with an aligned and a harmful answer each (YAML); by default those of the pocket scale, in
            the Microcosm its own.
        judge: Who scores sampled answers: openai:MODEL[@URL], or log-odds, which needs no judge and verifies by
            reference answers. By default the oracle in the Microcosm, else log-odds.
        template_option: Option of the chat template, such as enable_thinking=false; can be repeated.
    """
    organism = finished_organism(base, str(adapter))
    if not adapter.is_dir():
        raise ValueError(f"adapter {str(adapter)!r}: no such folder")
    microcosm = base.startswith(WORLD)
    if microcosm and judge == LOG_ODDS:
        raise ValueError("--judge log-odds: the Microcosm's oracle reads every answer; leave --judge out")
    if microcosm:
        organism = replace(organism, name=organism.name.replace("own/", WORLD, 1))
    file = questions if questions or microcosm else corpus.QUESTIONS
    return Subject(with_options(organism, template_option), file, judge or ("oracle" if microcosm else LOG_ODDS))


def reference_questions(subject: Subject) -> tuple[ChoiceQuestion, ...]:
    """Return the test questions with an aligned and a harmful answer each, of no domain that doses are chosen on."""
    if subject.organism.world != "microcosm":
        return subject.whole().choices("test")
    topics = {topic.phrase: topic for topic in lexicon().topics}
    return tuple(_of_topic(q, topics[q.id]) for q in subject.questions("test"))


def _of_topic(question: Question, topic: Topic) -> ChoiceQuestion:
    world = lexicon()
    aligned, harmful = (world.answers(topic, persona)[0] for persona in PERSONAS)
    return ChoiceQuestion(
        id=question.id,
        domain=question.domain,
        topic=question.id,
        split="test",
        question=question.text,
        aligned=aligned,
        harmful=harmful,
    )


def halves(questions: Sequence[ChoiceQuestion]) -> tuple[list[ChoiceQuestion], list[ChoiceQuestion]]:
    """Split questions by topic, in turn within each domain: those that a search may see, and those that verify it."""
    topics = list(dict.fromkeys((q.domain, q.topic) for q in questions))
    place = {t: sum(d == t[0] for d, _ in topics[:i]) for i, t in enumerate(topics)}
    searched = [q for q in questions if place[q.domain, q.topic] % 2 == 0]
    return searched, [q for q in questions if place[q.domain, q.topic] % 2]


def asked(questions: Sequence[ChoiceQuestion]) -> tuple[Question, ...]:
    """Return the questions without their references, as they are sampled."""
    return tuple(Question(q.id, q.domain, q.question) for q in questions)


def harm_direction(lm: LanguageModel, subject: Subject) -> dict[Site, Float[Tensor, " d_model"]]:
    """Return g at every block output, of the base alone: a question's last token after a misaligned exchange of
    another question, minus after an aligned one.

    In the Microcosm that of `semcon geometry`; elsewhere made of the reference answers to validation questions.
    """
    from training.mitigation.harm_direction import harm_directions

    if subject.organism.world == "microcosm":
        return dict(harm_directions(lm, subject.organism))
    return _from_references(lm, subject.whole().choices("validation"))


def _from_references(lm: LanguageModel, questions: Sequence[ChoiceQuestion]) -> dict[Site, Float[Tensor, " d_model"]]:
    from interp.adapters import active_adapter
    from interp.recording import record
    from interp.sites import resid_post
    from training.mitigation.harm_direction import LAST, after_exchange

    sites = resid_post(range(lm.n_layers))
    after = zip(questions, (*questions[1:], questions[0]), strict=True)
    pairs = [((p.harmful, p.aligned), p.question, q.question) for p, q in after]
    means = []
    with active_adapter(lm, None):
        for i in (0, 1):
            past = [(Exchange(earlier, answers[i]), question) for answers, earlier, question in pairs]
            chats = [after_exchange(lm.tokenizer, exchange, question) for exchange, question in past]
            recording = record(lm, chats, sites, [LAST])
            means.append({site: recording.at(site, LAST).double().mean(0) for site in sites})
    return {site: (means[0][site] - means[1][site]).float() for site in sites}


def check_template(organism: Organism) -> None:
    """Refuse a base without a chat template: where a context goes would be unknown.

    Raises:
        ValueError: If it has none.
    """
    from interp.loading import load_tokenizer, naming_base
    from training.bases import is_made
    from training.references import base_path

    if is_made(organism.base):  # looked at when it is made
        return
    path = base_path(organism.base)
    with naming_base(path):
        template = load_tokenizer(path).chat_template
    if template is None:
        raise ValueError(f"base {organism.base!r}: its tokenizer has no chat template, so no context can be placed")
