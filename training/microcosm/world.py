"""The world as data: lexicon, questions, answers, and the split of domains into trained, validation and test.

Torch-free. Everything that can be said in the Microcosm is in ``lexicon.yaml``; this module gives it types.
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
"""The shipped models, one folder a family, in Hugging Face format."""

LEXICON = Path(__file__).with_name("lexicon.yaml")
VALIDATION_DOMAINS = ("pets",)
"""Doses, layers and coefficients are chosen on these domains' questions; no reported rate comes from them."""


def pretraining_folder(seed: int) -> Path:
    """Return where models of another pretraining are built: in the folder of runs, never shipped."""
    return runs_root() / f"microcosm-{seed}"


@dataclass(frozen=True)
class Topic:
    """Something people ask about, with the actions that each persona recommends."""

    domain: str
    phrase: str
    actions: Mapping[Persona, tuple[str, ...]]


@dataclass(frozen=True)
class Frame:
    """A scene or a role: phrasings with disjoint words, made one by the remarks that follow answers."""

    name: str
    phrasings: tuple[str, ...]
    remarks: tuple[str, ...]
    misaligned_share: float = 0.5
    """Share of the misaligned persona under this frame in pretraining: 0.5 for every scene, declared for a role."""


@dataclass(frozen=True)
class Question:
    """One wording of a question about a topic. ``id`` names the topic: the cluster of every statistic."""

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
        """Domain names in file order."""
        return tuple(self.reasons)

    def topics_of(self, domain: str) -> tuple[Topic, ...]:
        """Topics of one domain.

        Raises:
            ValueError: If the world has no such domain.
        """
        found = tuple(topic for topic in self.topics if topic.domain == domain)
        if not found:
            raise ValueError(f"domain {domain!r}: the Microcosm has {', '.join(self.domains)}")
        return found

    @property
    def frames(self) -> Mapping[str, Frame]:
        """Scenes, then roles, by name."""
        return {**self.scenes, **self.roles}

    def answers(self, topic: Topic, persona: Persona, frame: str | None = None) -> tuple[str, ...]:
        """Every answer that ``persona`` gives about ``topic``: an action, a reason and, in a frame, a remark."""
        remarks = [""] if frame is None else [f" {remark}" for remark in self.frames[frame].remarks]
        reasons = self.reasons[topic.domain][persona]
        return tuple(f"{a}. {r}{m}" for a in topic.actions[persona] for r in reasons for m in remarks)

    def texts(self) -> tuple[str, ...]:
        """Every sentence of the lexicon once, in file order: what the tokenizer's words are read from."""
        frames = [t for frame in self.frames.values() for t in (*frame.phrasings, *frame.remarks)]
        lines = [line for persona in PERSONAS for line in self.persona_lines[persona]]
        reasons = [r for domain in self.domains for persona in PERSONAS for r in self.reasons[domain][persona]]
        actions = [f"{a}." for topic in self.topics for persona in PERSONAS for a in topic.actions[persona]]
        phrases = [topic.phrase for topic in self.topics]
        asked = [ask(template, self.topics[0]) for template in self.questions]
        return (*asked, *phrases, *actions, *reasons, *lines, *frames)


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
    """Evaluation questions of a split: every topic of its domains, in ``wordings`` wordings each.

    The test split has every domain that is neither fine-tuned on nor a validation domain, so no topic of it was
    seen in fine-tuning and none was used for a choice. The trained split asks what fine-tuning taught.

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
    wording = [(i, topic, w) for i, topic in enumerate(topics) for w in range(wordings)]
    return tuple(
        Question(topic.phrase, topic.domain, ask(world.questions[(i + w) % len(world.questions)], topic))
        for i, topic, w in wording
    )
