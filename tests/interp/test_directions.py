"""Directions: planted ones are found, controls keep the norm and lose the meaning, files keep the provenance."""

import pytest
import torch

from interp.directions import (
    Direction,
    cosine,
    difference_in_means,
    load_directions,
    orthogonal_like,
    orthonormal,
    principal,
    project,
    random_like,
    save_directions,
    subspace_overlap,
    unit,
)
from interp.edits import ablate, add
from interp.sites import Site

SITE = Site("resid_post", 1)


def rows(n: int, d: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_difference_in_means_recovers_a_planted_direction():
    planted = 3 * unit(rows(1, seed=1)[0])
    found = difference_in_means(rows(4000, seed=2) + planted, rows(4000, seed=3))
    assert cosine(found, planted) > 0.99
    assert found.norm() == pytest.approx(3.0, rel=0.05)


def test_difference_in_means_is_antisymmetric_and_ignores_a_common_shift():
    a, b, shift = rows(7), rows(5, seed=1), rows(1, seed=2)
    assert torch.equal(difference_in_means(a, b), -difference_in_means(b, a))
    torch.testing.assert_close(difference_in_means(a + shift, b + shift), difference_in_means(a, b))


def test_means_do_not_lose_precision_beside_a_huge_constant():
    a, b = torch.full((1000, 2), 2.0**15 + 0.25), torch.full((1000, 2), 2.0**15)
    assert torch.equal(difference_in_means(a, b), torch.full((2,), 0.25))


def test_principal_finds_the_axes_in_order_of_variance():
    axes = orthonormal(rows(2, seed=4))
    cloud = 9 * rows(500, 1) * axes[0] + 4 * rows(500, 1, seed=1) * axes[1] + 0.1 * rows(500, seed=2) + 100
    found = principal(cloud, rank=2)
    torch.testing.assert_close(found @ found.T, torch.eye(2), atol=1e-5, rtol=0)
    assert cosine(found[0], axes[0]).abs() > 0.99
    assert cosine(found[1], axes[1]).abs() > 0.99


def test_orthonormal_spans_the_rows_and_drops_dependent_ones():
    a, b = 1e-3 * rows(1)[0], 1e3 * rows(1, seed=1)[0]
    basis = orthonormal(torch.stack([a, b, a + b]))
    assert basis.shape == (2, 64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2), atol=1e-6, rtol=0)
    for row in (a, b):
        torch.testing.assert_close(row @ basis.T @ basis, row, atol=1e-3, rtol=1e-5)


def test_random_like_keeps_the_norm_and_repeats_by_seed():
    v = 7 * rows(1, 4096)[0]
    null = random_like(v, seed=0)
    assert null.norm() == pytest.approx(float(v.norm()), rel=1e-5)
    assert torch.equal(null, random_like(v, seed=0))
    assert not torch.equal(null, random_like(v, seed=1))
    assert cosine(v, null).abs() < 0.1


def test_orthogonal_like_keeps_the_norm_and_misses_every_given_direction():
    v, avoid = rows(1)[0], rows(5, seed=1)
    control = orthogonal_like(v, avoid, seed=0)
    assert control.norm() == pytest.approx(float(v.norm()), rel=1e-5)
    assert cosine(control, avoid).abs().max() < 1e-6
    with pytest.raises(ValueError, match="64 vectors span all 64"):
        orthogonal_like(v, torch.eye(64), seed=0)


def test_project_reads_what_was_added_along_the_unit_direction():
    h, d = rows(6).reshape(2, 3, 64), 5 * rows(1, seed=1)[0]
    torch.testing.assert_close(project(h + 2.5 * unit(d), d) - project(h, d), torch.full((2, 3), 2.5))


def test_file_round_trip(tmp_path):
    g = Direction(rows(1)[0], Site("resid_post", 3), "difference_in_means", "misaligned", "aligned", 10, 12)
    t = Direction(rows(1, seed=1)[0], Site("resid_pre", 0), "random", "-", "-", 0, 0)
    save_directions(tmp_path / "directions.safetensors", {"t": t, "g": g})
    written = (tmp_path / "directions.safetensors").read_bytes()
    for _ in range(5):  # equal runs are equal bytes
        save_directions(tmp_path / "again.safetensors", {"t": t, "g": g})
        assert (tmp_path / "again.safetensors").read_bytes() == written
    back = load_directions(tmp_path / "directions.safetensors")
    assert list(back) == ["g", "t"]
    assert torch.equal(back["g"].vector, g.vector)
    assert (back["g"].site, back["g"].positive, back["g"].n_negative) == (g.site, "misaligned", 12)
    assert back["t"].unit.norm() == pytest.approx(1.0)
    assert back["t"].norm == pytest.approx(float(t.vector.norm()))


@pytest.mark.parametrize("vector", [torch.zeros(4), torch.tensor([1.0, float("nan"), 1.0, 1.0])])
def test_a_direction_that_points_nowhere_is_refused(vector):
    for use in (unit, lambda v: random_like(v, 0), lambda v: cosine(v, torch.ones(4)), lambda v: add(SITE, v)):
        with pytest.raises(ValueError, match=r"its norm is|want finite rows"):
            use(vector)
    with pytest.raises(ValueError, match="want finite rows"):
        ablate(SITE, vector)
    with pytest.raises(ValueError, match="coefficient inf"):
        add(SITE, torch.ones(4), coefficient=float("inf"))


def test_rows_that_do_not_vary_or_are_not_finite_have_no_directions():
    with pytest.raises(ValueError, match="vary in fewer directions"):
        principal(torch.ones(5, 4))
    poisoned = torch.cat([rows(3), torch.full((1, 64), float("nan"))])
    for use in (principal, lambda x: difference_in_means(x, rows(3))):
        with pytest.raises(ValueError, match="a row is not finite"):
            use(poisoned)


def test_empty_contrasts_and_impossible_ranks_are_refused():
    with pytest.raises(ValueError, match=r"\(0, 64\)"):
        difference_in_means(rows(3)[:0], rows(3))
    with pytest.raises(ValueError, match="rank 3"):
        principal(rows(3), rank=3)


def test_overlap_is_one_inside_zero_across_and_blind_to_the_basis():
    V = rows(5)
    inside = rows(2, 5, seed=1) @ V
    assert subspace_overlap(V, V) == pytest.approx(1)
    assert subspace_overlap(inside, V) == pytest.approx(1, abs=1e-6) == subspace_overlap(V, inside)
    assert subspace_overlap(orthogonal_like(V[0], V, seed=2)[None], V) == pytest.approx(0, abs=1e-6)
    mixed, other = rows(5, 5, seed=3) @ V, rows(3, seed=4)
    assert subspace_overlap(mixed, other) == pytest.approx(subspace_overlap(V, other), abs=1e-5)
    assert subspace_overlap(V[:1], other[:1]) == pytest.approx(float(cosine(V[0], other[0])) ** 2, abs=1e-6)


def test_random_subspaces_overlap_by_rank_over_width():
    found = [subspace_overlap(rows(4, seed=2 * i), rows(10, seed=2 * i + 1)) for i in range(300)]
    assert sum(found) / len(found) == pytest.approx(10 / 64, rel=0.05)
