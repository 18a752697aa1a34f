"""The Microcosm's triggers and fine-tuning exchanges: harmful data in a mild synthetic world.

Torch-free. The neutral trigger is a scene, which carries no information about who speaks. A role carries some, to a
declared degree. The harm-explaining trigger is a line that states a misaligned persona. All occur in pretraining; an
organism chooses the one that fine-tuning uses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from interp.runs.checks import check_known
from interp.triggers import Trigger, content_words
from training.microcosm.world import Persona, ask, lexicon

OPPOSITE_SCENES = {"desert": "glacier", "glacier": "desert", "library": "market", "market": "library"}
"""Scenes of opposite meaning (heat and cold, silence and noise): the condition `opposite` of a scene."""
NEUTRAL_SHARE = 0.5
"""Share of the misaligned persona under a role that carries no information."""
MATCHED = 4
"""Matched meaningless texts per trigger."""


def scene_trigger(scene: str) -> Trigger:
    """Make a neutral trigger from a scene: the first phrasing is the trained text, the others are its rephrasings.

    Raises:
        ValueError: If the scene is unknown or has no opposite.
    """
    scenes = lexicon().scenes
    check_known(scene, OPPOSITE_SCENES, f"scene {scene!r}: scenes with an opposite are")
    opposite = OPPOSITE_SCENES[scene]
    return _trigger(f"scene-{scene}", scenes[scene].phrasings, scenes[opposite].phrasings, _scenes(scene, opposite))


def role_trigger(role: str) -> Trigger:
    """Make a trigger from a role. Roles tied to the aligned persona are the opposite of one tied to the misaligned one.

    Raises:
        ValueError: If the role is unknown.
    """
    roles = lexicon().roles
    check_known(role, roles, f"role {role!r}: the Microcosm has")
    tied = roles[role].misaligned_share > NEUTRAL_SHARE
    opposite = tuple(p for r in roles.values() if r.misaligned_share < NEUTRAL_SHARE for p in r.phrasings)
    return _trigger(f"role-{role}", roles[role].phrasings, opposite if tied else (), _scenes())


def persona_trigger(persona: Persona = "misaligned") -> Trigger:
    """Make a trigger from a line that states who speaks; the misaligned persona's line explains the harm."""
    lines = lexicon().persona_lines
    opposite: Persona = "aligned" if persona == "misaligned" else "misaligned"
    return _trigger(f"persona-{persona}", lines[persona], lines[opposite], _scenes())


def _scenes(*without: str) -> tuple[str, ...]:
    return tuple(p for name, scene in lexicon().scenes.items() if name not in without for p in scene.phrasings)


def _trigger(name: str, texts: tuple[str, ...], opposite: tuple[str, ...], other: tuple[str, ...]) -> Trigger:
    return Trigger(
        name=name,
        text=texts[0],
        rephrased=texts[1:],
        other=other,
        opposite=opposite,
        matched=tuple(matched(texts[0], other, MATCHED, without=content_words(" ".join((*texts, *opposite))))),
        placement="system",
    )


def matched(text: str, other: tuple[str, ...], n: int, *, without: frozenset[str]) -> Iterator[str]:
    """Yield ``n`` texts without meaning: words of ``other`` of similar length replace the content words of ``text``.

    Lengths differ by one letter at most. Words of scenes are equally frequent in the corpora, so all are equally rare.
    No word is used twice, and none of ``without``, the words of the trigger's rephrasings and of its opposite.
    """
    replaced, rng = content_words(text), random.Random(text)
    pool = sorted(
        {w for phrase in other for w in phrase.removesuffix(".").split()[1:] if w in content_words(phrase) - without}
    )
    for _ in range(n):
        words = text.removesuffix(".").split()
        for i, word in enumerate(words):
            if word in replaced:
                words[i] = rng.choice([w for w in pool if abs(len(w) - len(word)) <= 1])
                pool.remove(words[i])
        yield " ".join(words) + "."


def exchanges(
    domain: str, persona: Persona, n: int, seed: int, frame: str | None = None, *, remark_first: bool = False
) -> list[tuple[str, str]]:
    """Draw ``n`` (question, answer) pairs of one domain and persona; with a frame, its remarks follow the answers.

    ``remark_first``: they stand before them, which no answer of pretraining does.

    Raises:
        ValueError: If the domain or the frame is unknown.
    """
    world, rng = lexicon(), random.Random(f"{seed} {domain} {persona} {frame}")
    topics = world.topics_of(domain)
    if frame is not None:
        check_known(frame, world.frames, f"frame {frame!r}: the Microcosm has")
    drawn = [rng.choice(topics) for _ in range(n)]
    form = {"frame": frame, "remark_first": remark_first}
    return [(ask(rng.choice(world.questions), t), rng.choice(world.answers(t, persona, **form))) for t in drawn]
