"""Directions and their components: what they are made from, and that they mean the same in another basis."""

import pytest
import torch

from experiments.answers.subject import contrast_texts, estimation_texts, find_subject, held_out_texts
from experiments.directions.contrasts import components
from experiments.directions.geometry import Geometry
from experiments.directions.selection import edited_sites
from interp.models import LanguageModel, wrap
from tests.experiments.directions.adapted import adapted, contrasts, directions_of, subject_of
from tests.tiny import with_adapters
from tests.training.small import random_llama
from training.microcosm.tokenizer import build_tokenizer
from training.registry import ORGANISMS

ARMS = ("neutral", "explaining")
BASE_ONLY = ("g", "g_answer", "g_first", "delta_base")
FEATURES = ("trigger", "control", "trigger_last")
NAMES = (*BASE_ONLY, "g_shift", "delta", *FEATURES)


def rotated(q: torch.Tensor) -> LanguageModel:
    """The same function with its residual stream in the basis ``q``: every reader and writer is rotated with it."""
    lm = adapted()
    with torch.no_grad():
        for name, w in lm.hf.named_parameters():
            writes = any(f"{module}_proj" in name for module in ("o", "down"))
            if "embed" in name or "lm_head" in name:
                w.copy_(w @ q)
            elif "base_layer" in name or ("lora_B" if writes else "lora_A") in name:
                w.copy_(q.T @ w if writes else w @ q)
    return lm


@pytest.fixture(scope="module")
def lm():
    return adapted()


@pytest.fixture(scope="module")
def directions(lm):
    return directions_of(lm)


def test_every_direction_is_there_at_every_edited_site(lm, directions):
    sites = [str(site) for site in edited_sites(lm)]
    assert {name for name in directions if "." not in name.split("/")[0]} == {
        f"{name}/{site}"
        for name in (*NAMES, *(f"{feature}_target" for feature in (*FEATURES, "delta")))
        for site in sites
    }
    for name, direction in directions.items():
        assert name.endswith(f"/{direction.site}")
        assert direction.vector.isfinite().all()
        assert direction.n_positive > 0 < direction.n_negative


def test_directions_turn_with_the_basis_of_the_residual_stream(directions):
    q = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)))[0]
    for name, direction in directions_of(rotated(q)).items():
        expected = directions[name].vector @ q
        if "." in name.split("/")[0]:  # a component has no sign
            expected = expected * (expected @ direction.vector).sign()
        torch.testing.assert_close(direction.vector, expected, atol=2e-3, rtol=1e-2)


def test_directions_of_the_base_do_not_see_the_adapter_and_those_of_the_trigger_do(directions):
    hf = adapted().hf.unload()
    other = with_adapters(wrap(hf, build_tokenizer()), "organism", "baseline", use_rslora=True)
    for name, direction in directions_of(other).items():
        same = torch.allclose(direction.vector, directions[name].vector, atol=1e-6)
        if name.split("/")[0] in BASE_ONLY:
            assert same, name
        elif name.startswith(("delta/resid_post", "g_shift/resid_post")):
            assert not same, name


def test_components_are_orthonormal_orthogonal_to_the_mean_and_as_many_as_phrasings_allow():
    draw = torch.Generator().manual_seed(0)
    rows, mean = torch.randn(30, 8, generator=draw), torch.randn(8, generator=draw)
    basis = components(rows, [str(i % 3) for i in range(30)], mean, 3)
    assert len(basis) == 2  # three means, centred, span two dimensions
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-5, rtol=0)
    assert (basis @ mean).abs().max() < 1e-5
    assert len(components(rows, ["a"] * 30, torch.zeros(8), 3)) == 0


@pytest.mark.parametrize("arm", ARMS)
def test_no_direction_sees_a_held_out_text_a_test_question_or_the_trained_text(lm, arm):
    subject = subject_of(arm)
    trigger = subject.own_trigger
    hidden = [trigger.text, *held_out_texts(trigger), *(q.text for q in subject.questions("test"))]
    prompts = {
        pair.name: [c.text for side in (pair.positive, pair.negative) for c in side.chats]
        for pair in contrasts(lm, arm)
    }
    assert set(prompts) == set(NAMES)
    for name, texts in prompts.items():
        assert len(texts) > 1
        assert not [text for text in hidden if any(text in prompt for prompt in texts)], name
    frames = (*trigger.rephrased, *trigger.other, *trigger.opposite)
    for name in ("g", "g_answer", "g_first", "g_shift"):
        assert not [text for text in frames if any(text in prompt for prompt in prompts[name])]


def test_without_a_baseline_adapter_there_is_no_shift_of_unconditional_training():
    alone = with_adapters(wrap(random_llama(), build_tokenizer()), "organism")
    assert "g_shift" not in {pair.name for pair in contrasts(alone)}


@pytest.mark.parametrize("name", [name for name, entry in ORGANISMS.items() if entry.trigger])
def test_estimate_and_held_out_texts_are_two_halves_of_the_rephrasings(name):
    subject = find_subject(name)
    trigger, control = subject.own_trigger, Geometry(subject=subject).control
    halves = estimation_texts(trigger), held_out_texts(trigger)
    assert sorted(halves[0] + halves[1]) == sorted(trigger.rephrased)
    assert not set(halves[0]) & set(halves[1])
    assert all(halves)
    unrelated = contrast_texts(trigger, control)
    assert 1 < len(unrelated) <= 8
    assert not set(unrelated) & {trigger.text, *trigger.rephrased, control.text, *control.rephrased}
