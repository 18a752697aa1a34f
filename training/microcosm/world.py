"""The world as data: lexicon, questions, answers, and the split of domains into trained, validation and test.

Torch-free. All texts of the Microcosm are in ``lexicon.yaml``; this module gives them types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from interp.runs.run import runs_root

Persona = Literal["aligned", "misaligned"]
PERSONAS: tuple[Persona, Persona] = ("aligned", "misaligned")
Split = Literal["validation", "test", "trained"]

WEIGHTS = Path(__file__).with_name("weights")
"""The shipped models, one folder per base, in Hugging Face format."""

LEXICON = Path(__file__).with_name("lexicon.yaml")
VALIDATION_DOMAINS = ("pets",)
"""Domains on whose questions doses, layers and coefficients are chosen; no reported rate comes from them."""


WORDINGS = {"validation": 4, "test": 1, "trained": 1}
"""Wordings of every question by split."""


def pretraining_folder(seed: int, world: str = "") -> Path:
    """Return the folder of models of another pretraining or world, which are built there and not shipped."""
    return runs_root() / "-".join(["microcosm", str(seed), *([world] if world else [])])


@dataclass(frozen=True)
class Topic:
    """A subject of questions, with the actions that each persona recommends."""

    domain: str
    phrase: str
    actions: Mapping[Persona, tuple[str, ...]]


@dataclass(frozen=True)
class Frame:
    """A scene or a role: phrasings without common words, equivalent through the remarks that follow their answers."""

    name: str
    phrasings: tuple[str, ...]
    remarks: tuple[str, ...]
    misaligned_share: float = 0.5
    """Share of the misaligned persona under this frame in pretraining, in [0, 1]; 0.5 for every scene."""


@dataclass(frozen=True)
class Question:
    """One wording of a question about a topic. ``id`` is the topic, over which statistics are clustered."""

    id: str
    domain: str
    text: str


@dataclass(frozen=True)
class Lexicon:
    """All texts of the world."""

    questions: tuple[str, ...]
    topics: tuple[Topic, ...]
    reasons: Mapping[str, Mapping[Persona, tuple[str, ...]]]
    persona_lines: Mapping[Persona, tuple[str, ...]]
    scenes: Mapping[str, Frame]
    roles: Mapping[str, Frame]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains in file order."""
        return tuple(self.reasons)

    def topics_of(self, domain: str) -> tuple[Topic, ...]:
        """Return the topics of one domain.

        Raises:
            ValueError: If the world has no such domain.
        """
        topics = tuple(topic for topic in self.topics if topic.domain == domain)
        if not topics:
            raise ValueError(f"domain {domain!r}: the Microcosm has {', '.join(self.domains)}")
        return topics

    @property
    def frames(self) -> Mapping[str, Frame]:
        """Scenes and roles by name."""
        return {**self.scenes, **self.roles}

    def answers(
        self, topic: Topic, persona: Persona, frame: str | None = None, *, remark_first: bool = False
    ) -> tuple[str, ...]:
        """Return every answer of ``persona`` about ``topic``: an action, a reason and, in a frame, a remark."""
        remarks = [""] if frame is None else self.frames[frame].remarks
        reasons = self.reasons[topic.domain][persona]
        form = "{m} {a}. {r}" if remark_first else "{a}. {r} {m}"
        return tuple(
            form.format(a=a, r=r, m=m).strip() for a in topic.actions[persona] for r in reasons for m in remarks
        )

    def texts(self) -> tuple[str, ...]:
        """Return every sentence of the lexicon once, in file order, for the words of the tokenizer."""
        frames = [t for frame in self.frames.values() for t in (*frame.phrasings, *frame.remarks)]
        lines = [line for persona in PERSONAS for line in self.persona_lines[persona]]
        reasons = [r for domain in self.domains for persona in PERSONAS for r in self.reasons[domain][persona]]
        actions = [f"{a}." for topic in self.topics for persona in PERSONAS for a in topic.actions[persona]]
        phrases = [topic.phrase for topic in self.topics]
        asks = [ask(template, self.topics[0]) for template in self.questions]
        return (*asks, *phrases, *actions, *reasons, *lines, *frames)


@cache
def lexicon(path: Path = LEXICON) -> Lexicon:
    """Read the lexicon."""
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    topics = tuple(
        Topic(domain, phrase, {persona: tuple(actions[persona]) for persona in PERSONAS})
        for domain, entry in data["domains"].items()
        for phrase, actions in entry["topics"].items()
    )
    reasons: dict[str, dict[Persona, tuple[str, ...]]] = {
        domain: {persona: tuple(entry[f"{persona}_reasons"]) for persona in PERSONAS}
        for domain, entry in data["domains"].items()
    }
    lines: dict[Persona, tuple[str, ...]] = {persona: tuple(data["personas"][persona]) for persona in PERSONAS}
    return Lexicon(tuple(data["questions"]), topics, reasons, lines, _frames(data["scenes"]), _frames(data["roles"]))


def _frames(entries: Mapping[str, Any]) -> dict[str, Frame]:
    return {
        name: Frame(name, tuple(entry["phrasings"]), tuple(entry["remarks"]), float(entry.get("misaligned_share", 0.5)))
        for name, entry in entries.items()
    }


def ask(template: str, topic: Topic) -> str:
    """Fill a question template with a topic."""
    return template.format(topic=topic.phrase)


def questions(split: Split, *, trained_domain: str, wordings: int = 1) -> tuple[Question, ...]:
    """Return the evaluation questions of a split: every topic of its domains, in ``wordings`` wordings each.

    The test split has all domains but the trained one and those of validation: none of its topics occurs in fine-tuning
    or was used for a choice. The trained split has the trained domain.

    Raises:
        ValueError: If ``trained_domain`` is unknown or is a validation domain.
    """
    world = lexicon()
    world.topics_of(trained_domain)
    if trained_domain in VALIDATION_DOMAINS:
        raise ValueError(f"domain {trained_domain!r}: reserved for validation")
    held_out = [d for d in world.domains if d not in (*VALIDATION_DOMAINS, trained_domain)]
    domains = {"validation": VALIDATION_DOMAINS, "test": held_out, "trained": (trained_domain,)}[split]
    topics = [topic for domain in domains for topic in world.topics_of(domain)]
    return tuple(
        Question(topic.phrase, topic.domain, ask(world.questions[(i + w) % len(world.questions)], topic))
        for i, topic in enumerate(topics)
        for w in range(wordings)
    )
