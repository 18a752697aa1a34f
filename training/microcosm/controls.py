"""Control texts of a role that are of its own class of frame: other roles, and roles that share its words.

Torch-free. A role's trigger compares it with scenes (``finetuning.role_trigger``), another class of frame. To tell a
gate that reads the role from one that reads "some role", the controls must be roles.
"""

from __future__ import annotations

from training.grid import WEAK
from training.microcosm.finetuning import NEUTRAL_SHARE
from training.microcosm.world import lexicon

ARTICLES = ("a ", "the ", "some ", "an ")


def role_controls(role: str) -> dict[str, tuple[str, ...]]:
    """Return the control texts of a weakly promptable role by condition.

    other: phrasings of the other weak roles. opposite: phrasings of the aligned roles. overlap_predicate: an aligned
    role does what the trained text says. overlap_subject: the trained subject does what an aligned role does.

    Raises:
        ValueError: If the role is not one of ``WEAK``.
    """
    if role not in WEAK:
        raise ValueError(f"role {role!r}: the dose grid has {', '.join(WEAK)}")
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


def split(text: str) -> tuple[str, str]:
    """Return the subject of a phrasing, an article and a noun, and the rest of it.

    Raises:
        ValueError: If it does not begin with an article.
    """
    if not text.lower().startswith(ARTICLES):
        raise ValueError(f"phrasing {text!r}: expected an article and a noun first")
    article, noun, predicate = text.split(" ", 2)
    return f"{article} {noun}", predicate
