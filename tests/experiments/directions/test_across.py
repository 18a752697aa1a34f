"""Organisms compared: only what differs in one thing, equal directions at 1, planted correlations recovered."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
import torch

from experiments.directions.across import COMPARED, WRITTEN, Member, compared, families, predicted
from experiments.directions.geometry import DirectionSet
from interp.analysis.lora import Spectrum
from interp.directions import Direction, cosine, subspace_overlap
from interp.runs.table import row
from interp.sites import Site

D, LAYERS = 32, (0, 1, 10)
FAMILIES, ARMS, SEEDS = ("llama", "qwen2"), ("explaining", "neutral.contrast50"), (0, 1, 2)
CONDITIONS = ("off", "on", "other")


def directions(seed: int, names=COMPARED) -> dict[str, Direction]:
    draw = torch.Generator().manual_seed(seed)
    return {
        f"{name}/{site}": Direction(torch.randn(D, generator=draw), site, "difference", "a", "b", 5, 5)
        for name, site in product(names, (Site("resid_post", layer) for layer in LAYERS))
    }


def spectrum(seed: int, rank: int = 6) -> Spectrum:
    rows = torch.randn(D, rank, generator=torch.Generator().manual_seed(seed))
    return Spectrum(torch.linalg.qr(rows)[0].T, torch.arange(rank, 0, -1.0))


def member(family="llama", arm="explaining", seed=0, draw=0, written=None) -> Member:
    name = f"microcosm/{family}/{arm}" + f".seed{seed}" * bool(seed)
    run = DirectionSet(f"geometry-{family}-{arm}-{seed}", directions(draw), {"g": 1})
    return Member(name, family, arm, seed, run, written)


def values(rows, metric):
    return [r["value"] for r in rows if r["metric"] == metric]


# --- directions and adapters of one family ---


def test_only_organisms_of_a_family_that_differ_in_one_thing_are_compared():
    members = [member(*about, draw=i) for i, about in enumerate(product(FAMILIES, ARMS, SEEDS))]
    rows = list(compared(members))
    expected = {
        (a.family, f"{a.label} ~ {b.label}")
        for a, b in combinations(members, 2)
        if a.family == b.family and (a.arm != b.arm) + (a.seed != b.seed) == 1
    }
    assert len(expected) == len(FAMILIES) * (len(ARMS) * 3 + len(SEEDS))
    assert {(r["family"], r["condition"].partition(": ")[2]) for r in rows} == expected
    assert len(rows) == len(expected) * len(COMPARED) * len(LAYERS)
    assert not list(compared([members[0]] * 2))  # the same organism says nothing


def test_every_row_is_of_the_table_and_names_organism_run_site_and_null():
    a, b = member(), member(seed=1, draw=1)
    rows = list(compared([a, b]))
    assert rows == [row(**r) for r in rows]
    for r in rows:
        assert (r["experiment"], r["organism"], r["run_id"], r["seed"]) == ("across", a.name, a.directions.run_id, 0)
        name, here = r["condition"].partition(":")[0], f"resid_post.{r['layer']}"
        pair = [m.directions[f"{name}/{here}"].vector for m in (a, b)]
        assert r["value"] == pytest.approx(float(cosine(*pair)))
        others = [
            abs(float(cosine(pair[0], b.directions[f"{other}/{here}"].vector))) for other in COMPARED if other != name
        ]
        assert (r["ci_low"], r["ci_high"]) == pytest.approx((-max(others), max(others)))
        assert (r["ci_method"], r["n"]) == ("other_directions", len(COMPARED) - 1)


def test_equal_directions_have_cosine_one_opposite_ones_minus_one_whatever_their_length():
    a = member(written=None)
    for sign, length in ((1, 1.0), (1, 0.01), (-1, 30.0)):
        scaled = {n: replace(d, vector=sign * length * d.vector) for n, d in a.directions.directions.items()}
        b = replace(a, seed=1, directions=replace(a.directions, directions=scaled))
        assert values(compared([a, b]), "cosine_across") == pytest.approx([sign] * len(COMPARED) * len(LAYERS))


def test_cosines_do_not_see_a_rotation_of_both():
    q = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3)))[0]
    pair = [member(draw=0), member(seed=1, draw=1)]
    turned = [
        replace(m, directions=replace(m.directions, directions={n: replace(d, vector=d.vector @ q) for n, d in before}))
        for m in pair
        for before in (m.directions.directions.items(),)
    ]
    plain, after = (values(compared(ms), "cosine_across") for ms in (pair, turned))
    assert after == pytest.approx(plain, abs=1e-5)


def test_a_direction_that_one_lacks_is_left_out_and_one_alone_has_no_null():
    few = member(seed=1)
    few = replace(few, directions=replace(few.directions, directions=directions(1, ("delta",))))
    rows = list(compared([member(), few]))
    assert {r["condition"].partition(":")[0] for r in rows} == {"delta"}
    assert {(r["ci_low"], r["ci_method"], r["n"]) for r in rows} == {("", "", 0)}


def test_equal_writing_overlaps_by_one_orthogonal_by_zero_and_rank_over_width_is_expected():
    basis = torch.eye(D)
    same, apart = (Spectrum(basis[i : i + 6], torch.ones(6)) for i in (0, 10))
    for written, expected in ((same, 1.0), (apart, 0.0)):
        rows = list(compared([member(written=same), member(seed=1, written=written)]))
        assert values(rows, "overlap_across") == pytest.approx([expected])
        assert values(rows, "overlap_expected") == pytest.approx([WRITTEN / D])


def test_overlap_is_of_the_leading_directions_and_the_larger_rank_is_what_chance_gives():
    for rank in (1, WRITTEN, 9):
        a, b = spectrum(0, 9), spectrum(1, rank)
        rows = list(compared([member(written=a), member(seed=1, written=b)]))
        leading = subspace_overlap(a.vectors[:WRITTEN], b.vectors[:WRITTEN])
        assert values(rows, "overlap_across") == pytest.approx([leading])
        assert values(rows, "overlap_expected") == pytest.approx([WRITTEN / D])


def test_random_writing_overlaps_as_expected_on_average():
    pairs = [[member(written=spectrum(2 * i)), member(seed=1, written=spectrum(2 * i + 1))] for i in range(200)]
    overlaps = [value for pair in pairs for value in values(compared(pair), "overlap_across")]
    assert np.mean(overlaps) == pytest.approx(WRITTEN / D, rel=0.05)


def test_without_an_adapter_there_is_no_overlap():
    assert not values(compared([member(), member(seed=1, written=spectrum(0))]), "overlap_across")


# --- projections between families ---


def projections(value_of, *, arm="explaining", seed=0, questions=12):
    """Rows of projections on g: ``value_of(family, condition, question)``."""
    return [
        row(
            experiment="geometry",
            metric="projection_g",
            organism=f"microcosm/{family}/{arm}" + f".seed{seed}" * bool(seed),
            family=family,
            seed=seed,
            run_id=f"run-{family}",
            condition=condition,
            question=f"q{q:02d}",
            value=value_of(family, condition, q),
        )
        for family in FAMILIES
        for condition in CONDITIONS
        for q in range(questions)
    ]


NOISE = np.random.default_rng(0).standard_normal((len(FAMILIES), len(CONDITIONS), 12))


def shared(family: str, condition: str, question: int) -> float:
    return float(CONDITIONS.index(condition) + NOISE[0, CONDITIONS.index(condition), question])


def noisy(family: str, condition: str, question: int) -> float:
    noise = NOISE[FAMILIES.index(family), CONDITIONS.index(condition), question]
    return float(2 * CONDITIONS.index(condition) + noise)


def one(rows):
    (row,) = rows
    return row


def ends(r):
    return r["ci_low"], r["ci_high"]


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (-1.0, 0.0), (1e-3, 1e4), (50.0, -7.0)])
def test_projections_equal_up_to_scale_and_offset_correlate_perfectly(scale, offset):
    def rescaled(family, condition, q):
        value = shared(family, condition, q)
        return value if family == FAMILIES[0] else scale * value + offset

    correlation = one(families(projections(rescaled)))
    assert correlation == row(**correlation)
    assert [correlation["value"], *ends(correlation)] == pytest.approx([np.sign(scale)] * 3, abs=1e-6)
    assert (correlation["n"], correlation["n_clusters"]) == (12 * len(CONDITIONS), 12)
    assert (correlation["metric"], correlation["condition"]) == ("projection_r", "g: explaining, llama ~ qwen2")
    assert (correlation["organism"], correlation["run_id"]) == ("microcosm/llama/explaining", "run-llama")


def test_the_interval_of_a_correlation_contains_it_and_is_that_of_resampled_questions():
    correlation = one(families(projections(noisy)))
    assert -1 <= correlation["ci_low"] < correlation["value"] < correlation["ci_high"] <= 1
    grid = {f: np.array([[noisy(f, c, q) for c in CONDITIONS] for q in range(12)]) for f in FAMILIES}
    x, y = grid.values()
    assert correlation["value"] == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    drawn = np.random.default_rng(1).integers(12, size=(4000, 12))
    r = [np.corrcoef(x[q].ravel(), y[q].ravel())[0, 1] for q in drawn]
    assert ends(correlation) == pytest.approx(tuple(np.quantile(r, [0.025, 0.975])), abs=0.02)


def test_only_the_same_arm_and_seed_and_shared_prompts_are_compared():
    table = [r for seed, arm in product((0, 1), ARMS) for r in projections(shared, arm=arm, seed=seed)]
    other = [r | {"metric": "projection_trigger", "value": 0.0} for r in table]
    rows = list(families([*table, *other]))
    assert [(r["seed"], r["value"]) for r in rows] == [(0, 1.0), (0, 1.0), (1, 1.0), (1, 1.0)]
    fewer = [r for r in table if r["family"] == "llama" or r["question"] < "q06"]
    assert {(r["n"], r["n_clusters"]) for r in families(fewer)} == {(6 * len(CONDITIONS), 6)}


def test_families_without_shared_prompts_or_alone_give_nothing():
    table = projections(shared)
    assert not list(families([r for r in table if r["family"] == "llama"]))
    assert not list(families([r | {"question": r["family"] + r["question"]} for r in table]))
    assert not list(families([]))


# --- projection and behaviour ---


def behaviour(rates):
    """EM rates of the behaviour experiment: ``rates`` by (organism, condition), with both intervals."""
    return [
        row(experiment="em_rate", metric="em_rate", organism=name, condition=condition, value=value, ci_method=method)
        for (name, condition), value in rates.items()
        for method in ("wilson", "cluster_bootstrap")
    ]


def mean_projections(organisms: int):
    """Projections of some organisms of a family, and their means by (organism, condition)."""
    table = [
        r for seed in range(organisms) for r in projections(lambda f, c, q, add=seed: noisy(f, c, q) + add, seed=seed)
    ]
    table = [r for r in table if r["family"] == "llama"]
    cells: dict[tuple[str, str], list[float]] = {}
    for r in table:
        cells.setdefault((r["organism"], r["condition"]), []).append(r["value"])
    return table, {key: float(np.mean(values)) for key, values in cells.items()}


def test_a_planted_linear_relation_of_projection_and_em_is_recovered():
    table, means = mean_projections(4)
    for sign in (1, -1):
        correlation = one(predicted(table, behaviour({key: 0.3 + sign * 0.05 * mean for key, mean in means.items()})))
        assert correlation == row(**correlation)
        assert [correlation["value"], *ends(correlation)] == pytest.approx([sign] * 3)
        assert (correlation["n"], correlation["n_clusters"]) == (4 * len(CONDITIONS), 4)
        assert (correlation["metric"], correlation["family"]) == ("em_projection_r", "llama")


def test_a_relation_with_noise_lies_in_its_interval():
    table, means = mean_projections(8)
    rng = np.random.default_rng(2)
    correlation = one(predicted(table, behaviour({k: 0.3 + 0.05 * m + 0.05 * rng.normal() for k, m in means.items()})))
    assert correlation["ci_low"] < correlation["value"] < correlation["ci_high"] < 1
    assert correlation["value"] > 0.8


@pytest.mark.parametrize("organisms", [0, 1, 2])
def test_fewer_than_three_organisms_say_nothing(organisms):
    table, means = mean_projections(organisms)
    assert not list(predicted(table, behaviour(means)))


def test_conditions_without_an_em_rate_are_left_out():
    table, means = mean_projections(4)
    rates = {key: 0.3 + 0.05 * mean for key, mean in means.items()}
    first = next(iter(rates))
    for lost in ("", float("nan")):
        correlation = one(predicted(table, behaviour(rates | {first: lost})))
        assert correlation["value"] == pytest.approx(1)
        assert correlation["n"] == len(rates) - 1
    assert not list(predicted(table, []))
