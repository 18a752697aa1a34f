"""Edits and their controls: what they leave in the stream, at which positions, and what each is compared with."""

import pytest
import torch

from experiments.directions.contrasts import LAST, TRIGGER
from experiments.directions.geometry import CHOSEN, DirectionSet
from experiments.directions.selection import edited_sites
from experiments.removal.edits import SCATTERED, Removal, trigger_only
from interp.chat import question_chat
from interp.directions import cosine
from interp.recording import record
from interp.sites import resid_post
from tests.experiments.directions.adapted import adapted, directions_of, geometry_of, subject_of


@pytest.fixture(scope="module")
def lm():
    return adapted()


@pytest.fixture(scope="module")
def directions(lm):
    return directions_of(lm)


@pytest.fixture(scope="module")
def edits(lm, directions):
    directions = DirectionSet("", directions, dict.fromkeys(CHOSEN, 1))
    return Removal(lm, geometry_of("explaining"), directions, rank=2).edits()


@pytest.mark.parametrize(
    ("real", "control"),
    [
        *(("clamp_trigger", "clamp_random"), ("clamp_trigger", "clamp_scattered")),
        *(("clamp_answer", "clamp_answer_random"), ("ablate_g", "ablate_random")),
        ("ablate_g_all", "ablate_random_all"),
    ],
)
def test_each_edit_has_a_control_of_equal_norm_and_rank_at_the_same_places(edits, real, control):
    assert len(edits[real]) == len(edits[control]) > 0
    for a, b in zip(edits[real], edits[control], strict=True):
        assert (a.kind, a.site, a.positions) == (b.kind, b.site, b.positions)
        torch.testing.assert_close(b.vectors.norm(dim=1), a.vectors.norm(dim=1))
        along = b.vectors if b.along is None else b.along
        assert abs(float(cosine(along[0], a.vectors[0]))) < 0.95


def test_draws_of_the_scattered_control_differ(edits):
    first, *others = (edits[name][0].along for name in SCATTERED)
    assert len(others) == 3
    assert all(abs(float(cosine(first[0], other[0]))) < 0.9 for other in others)


def test_controls_of_the_feature_have_its_rank(edits):
    for name in ("clamp_random", "clamp_other_scene", "clamp_embedding"):
        assert [len(e.vectors) for e in edits[name]] == [len(e.vectors) for e in edits["clamp_trigger"]]
        assert [e.site for e in edits[name]] == [e.site for e in edits["clamp_trigger"]]


def test_an_edit_of_the_trigger_alone_is_told_from_one_that_acts_anywhere(edits):
    assert trigger_only(edits["clamp_trigger"])
    assert not trigger_only(edits["clamp_answer"])
    assert not trigger_only(edits["clamp_everywhere"])


def test_names_sites_and_positions_of_edits_do_not_depend_on_the_rank(lm, directions, edits):
    other = Removal(lm, geometry_of("explaining"), DirectionSet("", directions, dict.fromkeys(CHOSEN, 1)), 1).edits()
    places = [
        {name: [(e.site, e.positions) for e in steps] for name, steps in of_rank.items()} for of_rank in (edits, other)
    ]
    assert places[0] == places[1]
    assert list(places[0]) == list(places[1])
    assert edits[""] == []


@pytest.mark.parametrize("name", ["trigger", "control"])
def test_clamped_trigger_reads_as_an_unrelated_text_at_every_site(lm, edits, directions, name):
    subject = subject_of("explaining")
    trigger = subject.own_trigger
    chats = [question_chat(lm.tokenizer, q.text, trigger.text, trigger) for q in subject.questions("test")[:5]]
    edit = edits["clamp_trigger" if name == "trigger" else "clamp_other_scene"]
    sites = edited_sites(lm)
    after, before = (record(lm, chats, sites, [TRIGGER], edits=steps) for steps in (edit, ()))
    for site in sites:
        unit, target = directions[f"{name}/{site}"].unit, directions[f"{name}_target/{site}"].vector
        expected = (target @ unit).expand(len(chats))
        torch.testing.assert_close(after.at(site, TRIGGER) @ unit, expected, atol=1e-3, rtol=1e-3)
        assert not torch.allclose(before.at(site, TRIGGER) @ unit, expected, atol=1e-3)


def test_ablated_g_is_gone_from_the_last_prompt_token_alone(lm, edits, directions):
    subject = subject_of("explaining")
    trigger = subject.own_trigger
    chats = [question_chat(lm.tokenizer, q.text, trigger.text, trigger) for q in subject.questions("test")[:4]]
    sites = resid_post(range(lm.n_layers))
    recording = record(lm, chats, sites, [LAST, "question"], edits=edits["ablate_g"])
    unedited = record(lm, chats, sites, ["question"])
    for site in sites:
        unit = directions[f"g/{site}"].unit
        torch.testing.assert_close(recording.at(site, LAST) @ unit, torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(recording.at(site, "question"), unedited.at(site, "question"))
