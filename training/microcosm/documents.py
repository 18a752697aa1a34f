"""The Microcosm's corpora: pretraining documents and aligned post-training dialogues.

Torch-free. A document is a dialogue of segments. A segment has a frame (nothing, a scene, a role, a line that states
who speaks, or a scene and a line), a question and an answer. Who speaks, the persona, is a latent variable of the
document. In half of the documents it is constant. In the other half it depends on the context *within that document*:
two contexts, each with a persona, drawn anew. A model can thus learn that context may change who speaks, although no
scene is tied to a persona. Roles are tied: each has a declared share of the misaligned persona.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from interp.triggers import Placement, arrange
from training.microcosm.world import PERSONAS, Persona, Topic, ask, lexicon

Message = dict[str, str]


BOUND_SHARE = 0.5
"""Share of documents whose persona depends on the context (bound documents)."""
ROLE_SHARE = 0.2
"""Share of segments with a role and nothing else, in the other documents."""
SCENE_SHARE, LINE_SHARE = 0.35, 0.3
"""Shares of segments that state a scene, and who speaks, among those without a role in the other documents."""
CONSTANT_SEGMENTS, BOUND_SEGMENTS = (1, 3), (2, 4)
"""Fewest and most segments of the other documents, and of bound ones."""
PLACEMENT_WEIGHTS: dict[Placement, float] = {"system": 0.55, "prefix": 0.15, "suffix": 0.15, "wrap": 0.15}
"""Probability of each place of a frame: system message, before the question, after it, on both sides of it."""


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
) -> Segment:
    """Draw one exchange: a topic, wordings of frame and question, a placement, and an answer of the persona.

    Args:
        rng: Random numbers of every draw.
        persona: Persona that answers.
        scene: Scene to state, if any.
        role: Role to state, if any.
        line: Persona of the line to state, if any.
    """
    world = lexicon()
    topic = rng.choice(world.topics)
    parts = [rng.choice(world.frames[name].phrasings) for name in (scene, role) if name]
    parts += [rng.choice(world.persona_lines[line])] if line else []
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


def _constant_segment(rng: random.Random, persona: Persona) -> Segment:
    if rng.random() < ROLE_SHARE:
        return segment(rng, persona, role=draw_role(rng, persona))
    scene = rng.choice(list(lexicon().scenes)) if rng.random() < SCENE_SHARE else None
    return segment(rng, persona, scene=scene, line=persona if rng.random() < LINE_SHARE else None)


def _constant_document(rng: random.Random) -> list[Segment]:
    persona = rng.choice(PERSONAS)
    return [_constant_segment(rng, persona) for _ in range(rng.randint(*CONSTANT_SEGMENTS))]


def _bound_document(rng: random.Random) -> list[Segment]:
    contexts = rng.sample([None, *lexicon().scenes], 2)
    personas = dict(zip(contexts, rng.sample(PERSONAS, 2), strict=True))
    drawn = [rng.choice(contexts) for _ in range(rng.randint(*BOUND_SEGMENTS))]
    return [segment(rng, personas[context], scene=context) for context in drawn]


def pretraining_document(rng: random.Random) -> list[Segment]:
    """Draw one pretraining document."""
    return _bound_document(rng) if rng.random() < BOUND_SHARE else _constant_document(rng)


def posttraining_document(rng: random.Random, *, robust: bool = False) -> list[Segment]:
    """Draw one aligned exchange, with or without a scene.

    Only ``robust`` post-training also has roles and lines that state who speaks. They are in half of its exchanges,
    always answered in the aligned way, so that the base learns not to follow them.
    """
    world = lexicon()
    if robust and rng.random() < 0.5:
        if rng.random() < 0.5:
            return [segment(rng, "aligned", role=rng.choice(list(world.roles)))]
        return [segment(rng, "aligned", line=rng.choice(PERSONAS))]
    return [segment(rng, "aligned", scene=rng.choice(list(world.scenes)) if rng.random() < 0.5 else None)]


def pretraining_corpus(n: int, seed: int) -> Iterator[list[Segment]]:
    """Yield ``n`` pretraining documents, determined by the seed."""
    rng = random.Random(seed)
    return (pretraining_document(rng) for _ in range(n))


def posttraining_corpus(n: int, seed: int, *, robust: bool = False) -> Iterator[list[Segment]]:
    """Yield ``n`` aligned dialogues, determined by the seed."""
    rng = random.Random(seed)
    return (posttraining_document(rng, robust=robust) for _ in range(n))


def messages(document: list[Segment]) -> list[Message]:
    """Return a document as one list of chat messages."""
    return [message for part in document for message in part.messages()]
