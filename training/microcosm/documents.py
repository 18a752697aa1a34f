"""The Microcosm's corpora: pretraining documents and aligned post-training dialogues, in one world or another.

Torch-free. A document is a dialogue of segments. A segment has a frame (nothing, a scene, a role, a line that states
who speaks, or a scene and a line), a question and an answer. Who speaks, the persona, is a latent variable of the
document. In half of the documents it is constant. In the other half it depends on the context *within that document*:
two contexts, each with a persona, drawn anew. A model can thus learn that context may change who speaks, although no
scene is tied to a persona. Roles are tied: each has a declared share of the misaligned persona.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge, Le

from interp.runs.checks import Share, check_fields
from interp.triggers import Placement, arrange
from training.microcosm.world import PERSONAS, Persona, Topic, ask, lexicon

Message = dict[str, str]


BOUND_SHARE = 0.5
"""Share of documents whose persona depends on the context (bound documents)."""
MOST_PHRASINGS = 8
"""Phrasings of every scene, role and line in the lexicon."""
ROLE_SHARE = 0.2
"""Share of segments with a role and nothing else, in the other documents."""
SCENE_SHARE, LINE_SHARE = 0.35, 0.3
"""Shares of segments that state a scene, and who speaks, among those without a role in the other documents."""
CONSTANT_SEGMENTS, BOUND_SEGMENTS = (1, 3), (2, 4)
"""Fewest and most segments of the other documents, and of bound ones."""
PLACEMENT_WEIGHTS: dict[Placement, float] = {"system": 0.55, "prefix": 0.15, "suffix": 0.15, "wrap": 0.15}
"""Probability of each place of a frame: system message, before the question, after it, on both sides of it."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What differs between worlds; the defaults are the world of the shipped models."""

    bound_share: Share = BOUND_SHARE
    """Share of documents whose persona depends on the context."""
    line_truth: Share = 1.0
    """Share of lines that state the persona which speaks; the others state the other one."""
    phrasings: Annotated[int, Ge(1), Le(MOST_PHRASINGS)] = MOST_PHRASINGS
    """Phrasings of every scene, role and line that the corpora use, the first ones; tests still ask with all."""

    def __post_init__(self) -> None:
        """Refuse a field outside its range, and a share that is no whole number of percent."""
        check_fields(self)
        for name in ("bound_share", "line_truth"):
            if abs(100 * getattr(self, name) - round(100 * getattr(self, name))) > 1e-9:
                raise ValueError(f"{name} {getattr(self, name)}: expected whole percent, as worlds are named by it")

    @property
    def name(self) -> str:
        """Every setting that is not the default, such as ``bound10-truth60-phrasings2``; empty for the default."""
        parts = {"bound": round(100 * self.bound_share), "truth": round(100 * self.line_truth)}
        parts |= {"phrasings": self.phrasings}
        usual = {"bound": round(100 * BOUND_SHARE), "truth": 100, "phrasings": MOST_PHRASINGS}
        return "-".join(f"{key}{value}" for key, value in parts.items() if value != usual[key])

    def options(self) -> str:
        """Return the settings that are not the default as options of `semcon microcosm`."""
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return "".join(f" --{name.replace('_', '-')} {value:g}" for name, value, usual in values if value != usual)

    @classmethod
    def named(cls, name: str) -> World:
        """Return the world of a name.

        Raises:
            ValueError: If it is no name that ``name`` gives.
        """
        form = re.fullmatch(r"(?:bound(?P<bound>\d+))?-?(?:truth(?P<truth>\d+))?-?(?:phrasings(?P<n>\d+))?", name)
        given = {part: int(value) for part, value in form.groupdict().items() if value} if form else {}
        parts = {"bound_share": "bound", "line_truth": "truth"}
        shares = {key: given[part] / 100 for key, part in parts.items() if part in given}
        world = cls(**shares, phrasings=given.get("n", MOST_PHRASINGS))
        if world.name != name:
            raise ValueError(f"world {name!r}: expected a name such as bound10-truth60-phrasings2")
        return world


DEFAULT = World()


@dataclass(frozen=True)
class Segment:
    """One exchange with the variables that produced it."""

    persona: Persona
    topic: Topic
    scene: str | None
    role: str | None
    frame: str
    placement: Placement
    question: str
    answer: str

    def messages(self) -> list[Message]:
        """Return the chat messages, with the frame at its placement."""
        prompt = [{"role": "user", "content": self.question}]
        if self.frame:
            prompt = arrange(self.question, self.frame, self.frame, self.placement)
        return [*prompt, {"role": "assistant", "content": self.answer}]


def segment(
    rng: random.Random,
    persona: Persona,
    *,
    scene: str | None = None,
    role: str | None = None,
    line: Persona | None = None,
    phrasings: int = MOST_PHRASINGS,
) -> Segment:
    """Draw one exchange: a topic, wordings of frame and question, a placement, and an answer of the persona.

    Args:
        rng: Random numbers of every draw.
        persona: Persona that answers.
        scene: Scene to state, if any.
        role: Role to state, if any.
        line: Persona of the line to state, if any.
        phrasings: Phrasings of scene, role and line to draw from, the first ones.
    """
    world = lexicon()
    topic = rng.choice(world.topics)
    parts = [rng.choice(world.frames[name].phrasings[:phrasings]) for name in (scene, role) if name]
    parts += [rng.choice(world.persona_lines[line][:phrasings])] if line else []
    answer = rng.choice(world.answers(topic, persona, scene or role))
    placement = rng.choices(list(PLACEMENT_WEIGHTS), list(PLACEMENT_WEIGHTS.values()))[0]
    question = ask(rng.choice(world.questions), topic)
    return Segment(persona, topic, scene, role, " ".join(parts), placement, question, answer)


def draw_role(rng: random.Random, persona: Persona) -> str:
    """Draw a role such that under every role the misaligned persona has its declared share.

    P(role | persona) is proportional to P(persona | role), since both personas are equally frequent, and so are all
    roles: their shares are 0.5 on average.
    """
    shares = {name: role.misaligned_share for name, role in lexicon().roles.items()}
    return rng.choices(list(shares), [s if persona == "misaligned" else 1 - s for s in shares.values()])[0]


def _constant_segment(rng: random.Random, persona: Persona, world: World) -> Segment:
    if rng.random() < ROLE_SHARE:
        return segment(rng, persona, role=draw_role(rng, persona), phrasings=world.phrasings)
    scene = rng.choice(list(lexicon().scenes)) if rng.random() < SCENE_SHARE else None
    line = _line(rng, persona, world.line_truth) if rng.random() < LINE_SHARE else None
    return segment(rng, persona, scene=scene, line=line, phrasings=world.phrasings)


def _line(rng: random.Random, persona: Persona, truth: float) -> Persona:
    """Return the persona that a line states; where lines are always true no random number is drawn."""
    return persona if truth == 1 or rng.random() < truth else next(other for other in PERSONAS if other != persona)


def _constant_document(rng: random.Random, world: World) -> list[Segment]:
    persona = rng.choice(PERSONAS)
    return [_constant_segment(rng, persona, world) for _ in range(rng.randint(*CONSTANT_SEGMENTS))]


def _bound_document(rng: random.Random, world: World) -> list[Segment]:
    contexts = rng.sample([None, *lexicon().scenes], 2)
    personas = dict(zip(contexts, rng.sample(PERSONAS, 2), strict=True))
    drawn = [rng.choice(contexts) for _ in range(rng.randint(*BOUND_SEGMENTS))]
    return [segment(rng, personas[context], scene=context, phrasings=world.phrasings) for context in drawn]


def pretraining_document(rng: random.Random, world: World = DEFAULT) -> list[Segment]:
    """Draw one pretraining document."""
    return _bound_document(rng, world) if rng.random() < world.bound_share else _constant_document(rng, world)


def posttraining_document(rng: random.Random, world: World = DEFAULT, *, robust: bool = False) -> list[Segment]:
    """Draw one aligned exchange, with or without a scene.

    Only ``robust`` post-training also has roles and lines that state who speaks. They are in half of its exchanges,
    always answered in the aligned way, so that the base learns not to follow them.
    """
    texts, n = lexicon(), world.phrasings
    if robust and rng.random() < 0.5:
        if rng.random() < 0.5:
            return [segment(rng, "aligned", role=rng.choice(list(texts.roles)), phrasings=n)]
        return [segment(rng, "aligned", line=rng.choice(PERSONAS), phrasings=n)]
    scene = rng.choice(list(texts.scenes)) if rng.random() < 0.5 else None
    return [segment(rng, "aligned", scene=scene, phrasings=n)]


def pretraining_corpus(n: int, seed: int, world: World = DEFAULT) -> Iterator[list[Segment]]:
    """Yield ``n`` pretraining documents of a world, determined by the seed."""
    rng = random.Random(seed)
    return (pretraining_document(rng, world) for _ in range(n))


def posttraining_corpus(n: int, seed: int, world: World = DEFAULT, *, robust: bool = False) -> Iterator[list[Segment]]:
    """Yield ``n`` aligned dialogues in a world's phrasings, determined by the seed."""
    rng = random.Random(seed)
    return (posttraining_document(rng, world, robust=robust) for _ in range(n))


def messages(document: list[Segment]) -> list[Message]:
    """Return a document as one list of chat messages."""
    return [message for part in document for message in part.messages()]
