"""Control texts of a role or a scene that are of its own class of frame: others, and others that share its words.

Torch-free. A role's trigger compares it with scenes (``finetuning.role_trigger``), another class of frame. To tell a
gate that reads the role from one that reads "some role", the controls must be roles.
"""

from __future__ import annotations

from interp.runs.checks import check_known
from training.grid import WEAK
from training.microcosm.finetuning import NEUTRAL_SHARE, scene_trigger
from training.microcosm.world import lexicon

ARTICLES = ("a ", "the ", "some ", "an ")


def role_controls(role: str) -> dict[str, tuple[str, ...]]:
    """Return the control texts of a weakly promptable role by condition.

    other: phrasings of the other weak roles. opposite: phrasings of the aligned roles. overlap_predicate: an aligned
    role does what the trained text says. overlap_subject: the trained subject does what an aligned role does.

    Raises:
        ValueError: If the role is not one of ``WEAK``.
    """
    check_known(role, WEAK, f"role {role!r}: the dose grid has")
    roles = lexicon().roles
    aligned = [r for r in roles.values() if r.misaligned_share < NEUTRAL_SHARE]
    subject, predicate = split(roles[role].phrasings[0])
    sentences = [split(r.phrasings[0]) for r in aligned]
    return {
        "other": tuple(text for name in WEAK if name != role for text in roles[name].phrasings),
        "opposite": tuple(text for r in aligned for text in r.phrasings),
        "overlap_predicate": tuple(f"{other} {predicate}" for other, _ in sentences),
        "overlap_subject": tuple(f"{subject} {other}" for _, other in sentences),
    }


def scene_controls(scene: str) -> dict[str, tuple[str, ...]]:
    """Return the control texts of a scene by condition: its trigger's, and texts that are half the trained one.

    overlap_predicate: the first half of another scene's text, then the second half of the trained one.
    overlap_subject: the first half of the trained text, then the second half of another scene's.

    Raises:
        ValueError: If the scene is unknown or has no opposite.
    """
    trigger = scene_trigger(scene)
    first, second = halves(trigger.text)
    others = [halves(s.phrasings[0]) for s in lexicon().scenes.values() if s.phrasings[0] in trigger.other]
    return {
        "other": trigger.other,
        "opposite": trigger.opposite,
        "overlap_predicate": tuple(f"{head} {second}" for head, _ in others),
        "overlap_subject": tuple(f"{first} {tail}" for _, tail in others),
    }


def frame_controls(frame: str) -> dict[str, tuple[str, ...]]:
    """Return the control texts of a weak role or a scene by condition.

    Raises:
        ValueError: If it is neither.
    """
    return scene_controls(frame) if frame in lexicon().scenes else role_controls(frame)


def halves(text: str) -> tuple[str, str]:
    """Return the first half of a text's words, the smaller one, and the rest."""
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def split(text: str) -> tuple[str, str]:
    """Return the subject of a phrasing, an article and a noun, and the rest of it.

    Raises:
        ValueError: If it does not begin with an article.
    """
    if not text.lower().startswith(ARTICLES):
        raise ValueError(f"phrasing {text!r}: expected an article and a noun first")
    article, noun, predicate = text.split(" ", 2)
    return f"{article} {noun}", predicate
