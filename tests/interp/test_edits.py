"""Edits: the arithmetic as theorems, then the same inside models, at named positions, leaving nothing behind."""

import pytest
import torch

from interp.chat import pad_left, positions
from interp.directions import cosine, orthonormal
from interp.edits import (
    ablate,
    activation_addition,
    add,
    clamp,
    clamp_to,
    directional_ablation,
    editing,
    orthogonal_control,
    patch,
    random_control,
)
from interp.hooks import hooked
from interp.sites import SITE_NAMES, Site
from tests import tiny

SITE = Site("resid_post", 1)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


# arithmetic


def test_addition_is_undone_by_its_negative_and_adds_up():
    h, v = rows(2, 3, 16), rows(16, seed=1)
    close(activation_addition(activation_addition(h, v, 2.0), v, -2.0), h)
    close(activation_addition(activation_addition(h, v, 2.0), v, 1.0), activation_addition(h, v, 3.0))


@pytest.mark.parametrize("rank", [1, 3])
def test_ablation_is_idempotent_orthogonal_and_moves_nothing_else(rank):
    h, V = rows(2, 5, 16), rows(rank, 16, seed=1)
    out = directional_ablation(h, V)
    close(out @ V.T, torch.zeros(2, 5, rank))
    close(directional_ablation(out, V), out)
    complement = torch.linalg.svd(V).Vh[rank:]
    close(out @ complement.T, h @ complement.T)


@pytest.mark.parametrize("rank", [1, 3])
def test_clamp_sets_the_projection_and_moves_nothing_else(rank):
    h, V, target = rows(2, 5, 16), rows(rank, 16, seed=1), rows(16, seed=2)
    out = clamp_to(h, V, target)
    close(out @ V.T, (target @ V.T).expand(2, 5, rank))
    close(clamp_to(out, V, target), out)
    complement = torch.linalg.svd(V).Vh[rank:]
    close(out @ complement.T, h @ complement.T)


def test_clamp_depends_on_the_span_only_and_at_zero_is_ablation():
    h, V, target = rows(4, 16), rows(3, 16, seed=1), rows(16, seed=2)
    mixed = torch.tensor([[2.0, 1, 0], [0, -1, 3], [1, 1, 1]]) @ V
    close(clamp_to(h, mixed, target), clamp_to(h, V, target))
    close(clamp_to(h, torch.cat([V, V[:1] + V[1:2]]), target), clamp_to(h, V, target))
    close(clamp_to(h, V, torch.zeros(3)), directional_ablation(h, V))


def test_clamp_to_components_is_along_the_unit_of_each_row():
    h, V, components = rows(4, 16), 9 * rows(2, 16, seed=1), torch.tensor([1.5, -0.5])
    out = clamp_to(h, V, components)
    close(out @ (V / V.norm(dim=-1, keepdim=True)).T, components.expand(4, 2))
    with pytest.raises(ValueError, match=r"want \(16,\) or one value for each of 2"):
        clamp_to(h, V, torch.zeros(3))
    with pytest.raises(ValueError, match="rank 1"):
        clamp_to(h, torch.cat([V[:1], V[:1]]), components)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_edits_compute_in_float32_keep_the_dtype_and_write_nothing_in_place(dtype):
    h, V, target = (30 * rows(4, 16)).to(dtype), rows(2, 16, seed=1), rows(16, seed=2)
    before = h.clone()
    for edit in (
        lambda x: activation_addition(x, V[0], 0.5),
        lambda x: directional_ablation(x, V),
        lambda x: clamp_to(x, V, target),
    ):
        assert torch.equal(edit(h), edit(h.float()).to(dtype))
        assert torch.equal(h, before)


def test_edits_that_cannot_mean_anything_are_refused():
    with pytest.raises(ValueError, match="span something"):
        directional_ablation(rows(2, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="finite"):
        add(SITE, torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="clamp target"):
        clamp(SITE, rows(2, 16), torch.zeros(3))


# controls


@pytest.mark.parametrize("control", [random_control, lambda e, seed: orthogonal_control(e, seed=seed)])
def test_controls_keep_norms_and_angles_and_lose_the_direction(control):
    edit = ablate(SITE, torch.cat([rows(1, 512), 4 * rows(1, 512) + rows(1, 512, seed=1)]))
    other = control(edit, seed=3)
    close(other.vectors @ other.vectors.T, edit.vectors @ edit.vectors.T, atol=1e-2)
    assert (cosine(other.vectors[:, None], edit.vectors[None]).abs() < 0.2).all()
    assert torch.equal(other.vectors, control(edit, seed=3).vectors)


def test_the_orthogonal_control_misses_every_given_direction():
    avoid = rows(4, 16, seed=9)
    control = orthogonal_control(add(SITE, rows(16)), avoid, seed=0)
    close(control.vectors @ avoid.T, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="only 16 dimensions"):
        orthogonal_control(add(SITE, rows(16)), torch.eye(16))


@pytest.mark.parametrize("edit", [ablate(SITE, rows(2, 16)), clamp(SITE, rows(2, 16), rows(16, seed=1))], ids=str)
def test_the_displacement_control_moves_every_token_exactly_as_far(edit, llama):
    control = orthogonal_control(edit, seed=0, match="displacement")
    assert control.along is not None
    moved, moved_at_random = displacement(llama, edit), displacement(llama, control)
    close(moved_at_random.norm(dim=-1), moved.norm(dim=-1))
    close(moved_at_random @ orthonormal(edit.vectors).T, torch.zeros(*moved.shape[:-1], 2))
    with pytest.raises(ValueError, match="not controls"):
        random_control(control, seed=1)


def test_the_displacement_control_does_not_depend_on_the_signs_of_a_basis(llama):
    vectors, target = rows(2, 16), rows(16, seed=1)
    one, other = (
        displacement(llama, random_control(clamp(SITE, signs * vectors, target), 0, match="displacement"))
        for signs in (torch.ones(2, 1), torch.tensor([[-1.0], [1.0]]))
    )
    close(one, other)


def test_a_patch_has_no_control():
    with pytest.raises(ValueError, match=r"patch at resid_post\.1"):
        random_control(patch(SITE, rows(16)), seed=0)


# in models


def batch(lm, **kwargs):
    chats = tiny.chats(**kwargs)
    ids, mask = pad_left(chats, 0, lm.device)
    return chats, {"input_ids": ids, "attention_mask": mask}, lambda name: positions(chats, name)


def run(lm, edits, site=SITE, **kwargs):
    """Return (h at ``site`` after the edits, logits) of the tiny chats."""
    chats, inputs, masks = batch(lm, **kwargs)
    seen = []
    edited = editing(lm, edits, masks, rows=lambda: torch.arange(len(chats)))
    with torch.inference_mode(), edited, hooked(lm, {site: lambda h: seen.append(h.clone())}):
        logits = lm.hf(**inputs).logits
    return seen[0], logits


def displacement(lm, edit):
    return run(lm, [edit])[0] - run(lm, [])[0]


@pytest.mark.parametrize(
    "name", ["all", "prompt", "trigger", "system", "question", "last_prompt", "response", "answer"]
)
@pytest.mark.parametrize(
    ("edit", "pure"),
    [
        (lambda n: add(SITE, rows(16), coefficient=3, positions=n), lambda h: activation_addition(h, rows(16), 3)),
        (lambda n: ablate(SITE, rows(2, 16), positions=n), lambda h: directional_ablation(h, rows(2, 16))),
        (
            lambda n: clamp(SITE, rows(2, 16), rows(16, seed=1), positions=n),
            lambda h: clamp_to(h, rows(2, 16), rows(16, seed=1)),
        ),
        (lambda n: patch(SITE, rows(16), positions=n), lambda h: rows(16).expand_as(h)),
    ],
    ids=["add", "ablate", "clamp", "patch"],
)
def test_the_stream_is_edited_exactly_at_the_named_positions(llama, edit, pure, name):
    before, _ = run(llama, [], response="Yes.")
    after, _ = run(llama, [edit(name)], response="Yes.")
    mask = positions(tiny.chats(response="Yes."), name)
    assert torch.equal(after[~mask], before[~mask])
    close(after[mask], pure(before)[mask], atol=1e-6)


def test_edits_of_one_site_run_in_the_order_given(llama):
    v, V = rows(16), rows(2, 16, seed=1)
    h, _ = run(llama, [])
    first, _ = run(llama, [add(SITE, v), ablate(SITE, V)])
    last, _ = run(llama, [ablate(SITE, V), add(SITE, v)])
    real = positions(tiny.chats(), "all")
    close(first[real], directional_ablation(h + v, V)[real])
    close(last[real], (directional_ablation(h, V) + v)[real])
    assert not torch.allclose(first[real], last[real])


def test_edits_of_several_sites_and_positions_compose(llama):
    deep = Site("resid_post", 2)
    both = [add(deep, rows(16, seed=1), positions="last_prompt"), add(SITE, rows(16), positions="trigger")]
    after, _ = run(llama, both, site=deep)
    shallow, _ = run(llama, both[1:], site=deep)
    last = positions(tiny.chats(), "last_prompt")
    assert torch.equal(after[~last], shallow[~last])
    close(after[last], shallow[last] + rows(16, seed=1))


def test_a_patch_gives_each_prompt_its_own_row(llama):
    values = rows(len(tiny.QUESTIONS), 16)
    after, _ = run(llama, [patch(SITE, values, positions="last_prompt")])
    assert torch.equal(after[:, -1], values)
    _, inputs, masks = batch(llama)
    with pytest.raises(ValueError, match="prompt of each row"), editing(llama, [patch(SITE, values)], masks):
        llama.hf(**inputs)


def test_patching_a_run_into_itself_changes_nothing(llama):
    h, logits = run(llama, [])
    _, patched = run(llama, [patch(SITE, h[:, -1], positions="last_prompt")])
    assert torch.equal(patched, logits)


@pytest.mark.parametrize("adapter", [False, True], ids=["base", "adapter"])
def test_after_removal_the_logits_are_bit_identical(lm, adapter):
    lm = tiny.with_adapters(lm, "a") if adapter else lm
    names = ["resid_pre", "resid_post"] if lm.family == "gpt_neox" else list(SITE_NAMES)
    _, before = run(lm, [])
    edits = [add(Site(name, 1), 5 * rows(16)) for name in names]
    _, edited = run(lm, [*edits, ablate(SITE, rows(2, 16)), clamp(SITE, rows(1, 16, seed=1), 2.0)])
    _, after = run(lm, [])
    assert not torch.allclose(edited, before)
    assert torch.equal(after, before)


def test_an_edit_that_fails_leaves_nothing_behind(llama):
    _, before = run(llama, [])
    _, _, masks = batch(llama)
    with pytest.raises(ZeroDivisionError), editing(llama, [add(SITE, rows(16))], masks):
        raise ZeroDivisionError
    assert torch.equal(run(llama, [])[1], before)


def test_positions_that_do_not_fit_the_pass_are_refused(llama):
    _, inputs, masks = batch(llama)
    narrow, edit = {key: value[:, 1:] for key, value in inputs.items()}, add(SITE, rows(16))
    with pytest.raises(ValueError, match=r"at resid_post\.1: positions 'all' mark"), editing(llama, [edit], masks):
        llama.hf(**narrow)
