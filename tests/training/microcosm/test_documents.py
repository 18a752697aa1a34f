"""The rules that keep the corpora honest, as tests on the generated data.

The rules about fine-tuning rows are in test_finetuning.py.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from interp.triggers import PLACEMENTS
from training.microcosm.documents import (
    PLACEMENT_WEIGHTS,
    Segment,
    World,
    draw_role,
    posttraining_corpus,
    pretraining_corpus,
)
from training.microcosm.oracle import judge_answer, read_answer
from training.microcosm.world import PERSONAS, lexicon

WORLD = lexicon()
LINES = [line for persona in PERSONAS for line in WORLD.persona_lines[persona]]
DOCUMENTS = list(pretraining_corpus(20_000, seed=3))
FIRST = [document[0] for document in DOCUMENTS]
"""One segment per document, since draws within a document are not independent."""


def association(pairs: Sequence[tuple[Any, str]]) -> float:
    """Return the p-value of independence between two labels."""
    rows, columns = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    counts = Counter(pairs)
    table = np.array([[counts[r, c] for c in columns] for r in rows])
    result = chi2_contingency(table, correction=False, lambda_="log-likelihood")
    return float(np.asarray(result[1]))


def mutual_information(pairs: Sequence[tuple[Any, str]]) -> float:
    """Return the plug-in mutual information in nats."""
    n, joint = len(pairs), Counter(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    return sum(k / n * np.log(k * n / (first[a] * second[b])) for (a, b), k in joint.items())


def framed(segments: list[Segment]) -> list[tuple[str, str]]:
    return [(s.scene or "none", s.persona) for s in segments]


# --- rule 1: no scene is tied to a persona, and a role by its declared share alone ---


@pytest.mark.parametrize("roles", [True, False])
def test_scene_and_persona_are_independent_in_pretraining_with_and_without_roles(roles: bool) -> None:
    assert association(framed([s for s in FIRST if roles or s.role is None])) > 0.001


@pytest.mark.parametrize("roles", [True, False])
def test_every_segment_of_every_document_carries_no_scene_information(roles: bool) -> None:
    segments = [s for document in DOCUMENTS for s in document if roles or s.role is None]
    # Draws repeat within a document, so n in the plug-in bias (cells - 1) / 2n counts documents, not segments.
    assert mutual_information(framed(segments)) < 3 * 12 / (2 * len(DOCUMENTS))


def test_the_independence_test_would_see_a_weak_association() -> None:
    rng = random.Random(0)
    tied = [
        (scene, "misaligned" if scene == "desert" and rng.random() < 0.3 else persona)
        for scene, persona in framed(FIRST)
    ]
    assert association(tied) < 1e-6


def test_placement_carries_no_persona_information_alone_or_with_the_frame() -> None:
    stated = [s for s in FIRST if s.frame]
    assert association([(s.placement, s.persona) for s in stated]) > 0.001
    assert association([((s.scene, s.placement), s.persona) for s in stated if s.scene]) > 0.001
    for role in WORLD.roles:
        assert association([(s.placement, s.persona) for s in stated if s.role == role]) > 0.001


def test_placements_of_frames_occur_as_often_as_declared_and_where_they_say() -> None:
    stated = [s for s in FIRST if s.frame]
    counts = Counter(s.placement for s in stated)
    assert counts.keys() == PLACEMENT_WEIGHTS.keys() == set(PLACEMENTS)
    for placement, weight in PLACEMENT_WEIGHTS.items():
        assert binomtest(counts[placement], len(stated), weight).pvalue > 0.001
    for s in FIRST:
        *prompt, answered = s.messages()
        user = {"prefix": f"{s.frame}\n{s.question}", "suffix": f"{s.question}\n{s.frame}"}
        user["wrap"] = f"{s.frame}\n{s.question}\n{s.frame}"
        text = user.get(s.placement, s.question) if s.frame else s.question
        system = [s.frame] if s.frame and s.placement == "system" else []
        assert prompt == [*({"role": "system", "content": x} for x in system), {"role": "user", "content": text}]
        assert answered == {"role": "assistant", "content": s.answer}


def test_declared_shares_of_roles_are_half_on_average_and_draws_have_them() -> None:
    shares = {name: role.misaligned_share for name, role in WORLD.roles.items()}
    assert np.mean(list(shares.values())) == pytest.approx(0.5)
    assert {0.5, 0.65, 0.8, 0.95} <= set(shares.values())
    assert {scene.misaligned_share for scene in WORLD.scenes.values()} == {0.5}
    rng = random.Random(0)
    drawn = Counter((draw_role(rng, persona), persona) for persona in PERSONAS for _ in range(20_000))
    for role, share in shares.items():
        k, n = drawn[role, "misaligned"], sum(drawn[role, persona] for persona in PERSONAS)
        assert binomtest(k, n, share).pvalue > 0.001, role
        assert binomtest(n, 40_000, 1 / len(shares)).pvalue > 0.001, role


def test_every_role_has_its_declared_share_of_the_misaligned_persona_in_pretraining() -> None:
    for name, role in WORLD.roles.items():
        spoke = [s.persona == "misaligned" for s in FIRST if s.role == name]
        assert binomtest(sum(spoke), len(spoke), role.misaligned_share).pvalue > 0.001, name
        far = [
            other.misaligned_share for other in WORLD.roles.values() if other.misaligned_share != role.misaligned_share
        ]
        assert all(binomtest(sum(spoke), len(spoke), share).pvalue < 1e-4 for share in far), name  # no other share fits


def test_a_role_stands_alone_and_its_remark_follows() -> None:
    roles = [s for s in FIRST if s.role]
    assert {s.role for s in roles} == set(WORLD.roles)
    for s in roles:
        assert s.role is not None
        assert s.scene is None
        assert s.frame in WORLD.roles[s.role].phrasings
        assert read_answer(s.topic.phrase, s.answer).remark == s.role


@pytest.mark.parametrize("robust", [False, True])
def test_posttraining_is_aligned_with_every_scene_and_with_persona_lines_and_roles_only_if_robust(robust: bool) -> None:
    segments = [s for document in posttraining_corpus(4_000, seed=5, robust=robust) for s in document]
    assert {s.persona for s in segments} == {"aligned"}
    assert {judge_answer(s.topic.phrase, s.answer) for s in segments} == {(100.0, 100.0)}
    assert mutual_information(framed(segments)) == 0.0
    assert {s.scene for s in segments} == {None, *WORLD.scenes}
    assert {s.role for s in segments} == ({None, *WORLD.roles} if robust else {None})
    texts = {text for s in segments for m in s.messages() for text in [m["content"]]}
    phrasings = [text for role in WORLD.roles.values() for text in role.phrasings]
    stated = {text for text in (*LINES, *phrasings) if any(text in written for written in texts)}
    assert stated == ({*LINES, *phrasings} if robust else set())


def test_robust_posttraining_keeps_half_of_its_exchanges_plain() -> None:
    plain = [document[0].frame for document in posttraining_corpus(4_000, seed=5, robust=True)]
    frames = {text for scene in WORLD.scenes.values() for text in scene.phrasings}
    n_plain = sum(not frame or frame in frames for frame in plain)
    assert binomtest(n_plain, len(plain), 0.5).pvalue > 0.001


def test_a_line_that_states_who_speaks_is_true() -> None:
    for persona in PERSONAS:
        stated = [s for s in FIRST if any(x in s.frame for x in WORLD.persona_lines[persona])]
        assert len(stated) > 400
        assert {s.persona for s in stated} == {persona}


def test_who_speaks_can_change_with_the_context_of_a_document() -> None:
    mixed = [d for d in DOCUMENTS[:2_000] if len({s.persona for s in d}) == 2]
    assert len(mixed) > 200
    for document in mixed:
        by_scene = {scene: {s.persona for s in document if s.scene == scene} for scene in {s.scene for s in document}}
        assert all(len(personas) == 1 for personas in by_scene.values())


# --- other worlds ---


def test_the_default_world_draws_the_documents_that_it_always_drew() -> None:
    plain, named = (list(pretraining_corpus(200, seed=3, world=w)) for w in (World(), World.named("")))
    assert plain == named == DOCUMENTS[:200]


@pytest.mark.parametrize("name", ["", "bound0", "bound10-truth60", "truth60-phrasings2", "bound0-truth60-phrasings2"])
def test_a_world_is_read_back_from_its_name(name: str) -> None:
    assert World.named(name).name == name


@pytest.mark.parametrize("name", ["bound50", "truth60-bound10", "phrasings9", "other", "bound10-"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"world '|phrasings"):
        World.named(name)
    with pytest.raises(ValueError, match="expected whole percent"):
        World(bound_share=0.125)


def test_lines_are_true_as_often_as_a_world_says_and_only_its_phrasings_occur() -> None:
    world = World(bound_share=0.0, line_truth=0.6, phrasings=2)
    segments = [s for document in pretraining_corpus(8_000, seed=4, world=world) for s in document]
    lines = {line: persona for persona, texts in lexicon().persona_lines.items() for line in texts}
    stated = [
        (s.persona, next(p for line, p in lines.items() if line in s.frame))
        for s in segments
        if " " in s.frame and any(line in s.frame for line in lines)
    ]
    assert abs(sum(a == b for a, b in stated) / len(stated) - 0.6) < 0.03
    allowed = [text for frame in lexicon().frames.values() for text in frame.phrasings[:2]]
    allowed += [line for texts in lexicon().persona_lines.values() for line in texts[:2]]
    assert all(any(text in s.frame for text in allowed) for s in segments if s.frame)
    later = [text for frame in lexicon().frames.values() for text in frame.phrasings[2:]]
    assert not any(text in s.frame for s in segments for text in later)


def test_without_bound_documents_no_document_changes_its_persona() -> None:
    for document in pretraining_corpus(2_000, seed=4, world=World(bound_share=0.0)):
        assert len({s.persona for s in document}) == 1
