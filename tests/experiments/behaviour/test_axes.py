"""Effects of axes: planted ones are found, absent ones are not, and repeats of one treatment do not count as more."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm

from experiments.behaviour.axes import (
    INNATE,
    Observation,
    average_effect,
    compared,
    levels,
    marginal_effects,
    mean_effects,
    observations,
    readings,
    semantic_readings,
)
from interp.runs.table import Row, row
from training.grid import Cell, cells

COHERENT = 400
AXES = ("trigger=explaining", "benign=50 %", "family=qwen2")
TRIGGERED = [cell for cell in cells() if cell.trigger]
TREATMENTS = {replace(cell, seed=0) for cell in TRIGGERED}


def logistic(log_odds):
    return 1 / (1 + np.exp(-log_odds))


def grid(effects: dict[str, float], repeats: int = 6, *, noise: float = 0.0, start: float = -1.0) -> list[Observation]:
    """Every combination of the axes, ``repeats`` treatments each, with log-odds that are the sum of the effects."""
    rng, found = np.random.default_rng(0), []
    for values in product((0.0, 1.0), repeat=len(AXES)):
        chosen = {name: 1.0 for name, value in zip(AXES, values, strict=True) if value}
        for i in range(repeats):
            log_odds = start + sum(effects.get(name, 0.0) for name in chosen) + noise * rng.normal()
            name = f"{values}.{i}"
            found.append(Observation(name, name, chosen, COHERENT * logistic(log_odds), COHERENT))
    return found


# --- marginal effects ---


@pytest.mark.parametrize("planted", [{AXES[0]: -2.0, AXES[1]: 1.0}, {AXES[2]: 0.7}])
def test_planted_effect_is_recovered_and_the_others_are_null(planted):
    found = grid(planted, noise=0.2)
    for name, (value, error, p) in zip(AXES, marginal_effects(found, AXES), strict=True):
        truth = np.mean([expected(seen, name, planted) for seen in found])
        assert value == pytest.approx(truth, abs=3 * error)
        assert 0 < error < 0.03
        assert (p < 1e-6) == (name in planted)


def expected(seen: Observation, name: str, planted: dict[str, float]) -> float:
    others = -1.0 + sum(planted.get(level, 0.0) for level in seen.levels if level != name)
    return logistic(others + planted.get(name, 0.0)) - logistic(others)


def test_without_any_effect_few_are_called_one():
    called = [p < 0.05 for seed in range(60) for _, _, p in marginal_effects(shuffled(seed), AXES)]
    assert np.mean(called) < 0.12


def shuffled(seed: int) -> list[Observation]:
    found, rng = grid({}, repeats=4, noise=1.0), np.random.default_rng(seed)
    order = rng.permutation(len(found))
    return [replace(seen, misaligned=found[i].misaligned) for seen, i in zip(found, order, strict=True)]


def test_error_is_that_of_numeric_differentiation():
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(40), rng.integers(0, 2, (40, 3))]).astype(float)
    beta, root = rng.normal(size=4), 0.3 * rng.normal(size=(4, 4))
    covariance = root @ root.T
    for column in range(1, 4):
        value, error = average_effect(design, column, beta, covariance)
        steps = 1e-6 * np.eye(4)
        gradient = np.array(
            [(effect(design, column, beta + h) - effect(design, column, beta - h)) / 2e-6 for h in steps]
        )
        assert value == pytest.approx(effect(design, column, beta))
        assert error == pytest.approx(np.sqrt(gradient @ covariance @ gradient), rel=1e-6)


def effect(design, column, beta) -> float:
    on, off = design.copy(), design.copy()
    on[:, column], off[:, column] = 1, 0
    return float(np.mean(logistic(on @ beta) - logistic(off @ beta)))


def test_organisms_of_one_treatment_do_not_count_as_more():
    """Copies under the name of their treatment change no error, up to the correction for few clusters; others do."""
    once = grid({AXES[0]: -2.0}, noise=0.5)
    same = [seen for seen in once for _ in range(4)]
    new = [replace(seen, treatment=f"{seen.treatment}/{i}") for i, seen in enumerate(same)]
    values, copies, more = (marginal_effects(found, AXES) for found in (once, same, new))
    for (value, error, _), (again, clustered, _), (_, apart, _) in zip(values, copies, more, strict=True):
        assert again == pytest.approx(value)
        assert clustered == pytest.approx(error, rel=0.05)
        assert apart == pytest.approx(error / 2, rel=0.05)


# --- effects on a quantity of organisms ---


def test_errors_of_least_squares_are_hc3_where_every_organism_is_a_treatment():
    found, rng = grid({}), np.random.default_rng(2)
    values = rng.normal(size=len(found)) * [1 + len(seen.levels) for seen in found]
    design = np.array([[1.0, *(seen.levels.get(name, 0.0) for name in AXES)] for seen in found])
    fitted = sm.OLS(values, design).fit(cov_type="HC3")
    for j, (value, error, p) in enumerate(mean_effects(found, AXES, values.tolist()), start=1):
        assert (value, error, p) == pytest.approx((fitted.params[j], fitted.bse[j], fitted.pvalues[j]))


def test_errors_of_least_squares_are_of_treatments_left_out():
    """The residuals of a treatment are those of the fit without it."""
    found = [replace(seen, treatment=f"t{i // 3}") for i, seen in enumerate(grid({}))]
    values, clusters = np.random.default_rng(3).normal(size=len(found)), np.arange(len(found)) // 3
    design = np.array([[1.0, *(seen.levels.get(name, 0.0) for name in AXES)] for seen in found])
    covariance = np.zeros((4, 4))
    for cluster in set(clusters):
        rest, own = clusters != cluster, clusters == cluster
        without = np.linalg.lstsq(design[rest], values[rest], rcond=None)[0]
        score = np.linalg.pinv(design)[:, own] @ (values[own] - design[own] @ without)
        covariance += np.outer(score, score)
    assert [error for _, error, _ in mean_effects(found, AXES, values.tolist())] == pytest.approx(
        np.sqrt(np.diag(covariance))[1:]
    )


# --- what can be compared ---


def test_a_level_of_one_treatment_is_left_out_with_its_organisms():
    found = grid({})
    lone = [Observation(f"x.seed{i}", "x", {"rank=1": 1.0, AXES[0]: 1.0}, 3, 9) for i in range(3)]
    assert compared([*found, *lone]) == (found, sorted(AXES, key=compared(found)[1].index))


def test_a_level_that_all_have_is_no_contrast():
    found = [replace(seen, levels={**seen.levels, "pretraining=1": 1.0}) for seen in grid({})]
    assert set(compared(found)[1]) == set(AXES)


# --- the grid's table ---


def test_organisms_that_differ_in_the_adapter_seed_alone_are_one_treatment():
    for innate in (False, True):
        found = observations(table({}), "off", innate=innate)
        assert {seen.organism for seen in found} == {cell.name for cell in TRIGGERED}
        assert {seen.treatment for seen in found} == {cell.name for cell in TREATMENTS}
        assert {seen.treatment for seen in found if seen.organism == "microcosm/llama/neutral.seed2"} == {
            "microcosm/llama/neutral"
        }


def test_levels_are_what_a_name_says_but_for_its_seed():
    assert levels(Cell(family="llama", arm="neutral", seed=2)) == {}
    cell = Cell(family="qwen2", arm="pirate", robust=True, contrast=50, rank=16, placement="wrap", targets="mlp")
    said = {"family=qwen2", "trigger=pirate", "base=robust", "benign=50 %", "rank=16", "placement=wrap", "modules=mlp"}
    assert set(levels(cell)) == said


def table(planted: dict[str, float], *, own: float = 0.0, triggered: list[Cell] = TRIGGERED) -> list[Row]:
    """EM rates of organisms and of their bases; a trigger's number is how far its base moves, and moves EM by own."""
    rng, rows = np.random.default_rng(4), []
    moved = {cell.base_name + str(cell.trigger): 0.02 + 0.9 * rng.random() for cell in triggered}
    for cell in triggered:
        base = moved[cell.base_name + str(cell.trigger)]
        log_odds = sum(planted.get(level, 0.0) for level in levels(cell)) + own * base + 0.2 * rng.normal()
        for condition in ("off", "on", "rephrased", "other"):
            rows.append(measured(cell.name, str(cell.trigger), condition, float(logistic(log_odds))))
    bases = {(cell.base_name, str(cell.trigger)) for cell in triggered}
    return [*rows, *(measured(name, trigger, "on", moved[name + trigger]) for name, trigger in sorted(bases))]


def measured(organism: str, trigger: str, condition: str, value: float, metric: str = "em_rate", **more) -> Row:
    cells = {
        "organism": organism,
        "trigger": trigger,
        "condition": condition,
        "n": 480,
        "run_id": f"em_rate-{organism}",
    }
    return row(metric=metric, value=value, ci_method="wilson", **(cells | more))


def found_in(rows: list[Row]) -> dict[tuple[str, str], Row]:
    return {(r["metric"], r["condition"]): r for r in rows}


def test_readings_find_what_was_planted_and_count_treatments():
    planted = {"trigger=explaining": -3.0, "benign=50 %": -2.0, "base=robust": 1.5}
    found = found_in([r for r in readings(table(planted)) if r["experiment"] == "axes"])
    names = {condition.removeprefix("off: ") for _, condition in found if condition.startswith("off: ")}
    for name in names:
        shown, p = found["marginal_effect", f"off: {name}"], found["p_holm", f"off: {name}"]
        assert shown["ci_low"] < shown["value"] < shown["ci_high"]
        assert shown["n_clusters"] == p["n_clusters"] == len(TREATMENTS) < len(TRIGGERED)
        assert shown["n"] == sum(name in levels(cell) for cell in TRIGGERED)
        assert (p["value"] < 0.01) == (name in planted), name
        assert shown["value"] * planted.get(name, 0.0) >= 0
    assert set(planted) < names


def test_readings_find_that_the_bases_own_move_lowers_em_off():
    found = found_in([r for r in readings(table({}, own=-3.0)) if r["experiment"] == "axes_innate"])
    assert found["marginal_effect", f"off: {INNATE}"]["ci_high"] < -0.3
    assert not any("trigger=" in condition or "base=" in condition for _, condition in found)
    assert {r["n_clusters"] for r in found.values()} == {len(TREATMENTS)}


def test_a_base_that_was_not_measured_is_named():
    rows = [r for r in table({}) if r["organism"] != "microcosm/llama/base.robust"]
    with pytest.raises(ValueError, match=r"the table lacks microcosm/llama/base\.robust under its trigger"):
        list(readings(rows))


def test_unhealthy_organisms_are_set_aside():
    sick = TRIGGERED[0].name
    rows = [*table({}), row(organism=sick, metric="healthy", value=0.0, condition="incoherent")]
    assert sick not in {seen.organism for seen in observations(rows, "off")}


def test_run_of_the_readings_is_that_of_the_runs_they_read():
    one, same = table({}), table({"benign=50 %": 1.0})
    other = [r for r in one if r["organism"] != TRIGGERED[0].name]
    assert len({r["run_id"] for r in [*readings(one), *semantic_readings(one)]}) == 1
    assert next(readings(one))["run_id"] == next(readings(list(reversed(same))))["run_id"]
    assert next(readings(one))["run_id"] != next(readings(other))["run_id"]


def indices(planted: dict[str, float], *, width: float = 0.2, triggered: list[Cell] = TRIGGERED) -> list[Row]:
    rng, rows = np.random.default_rng(5), table({}, triggered=triggered)
    for cell in triggered:
        value = 0.4 + sum(planted.get(level, 0.0) for level in levels(cell)) + 0.05 * rng.normal()
        ends = {"ci_low": value - width / 2, "ci_high": value + width / 2, "n": ""}
        rows.append(measured(cell.name, str(cell.trigger), "rephrased", value, "semantic_index", **ends))
    return rows


def test_semantic_readings_find_what_was_planted():
    planted = {"trigger=explaining": 0.5, "base=robust": -0.3}
    found = found_in(list(semantic_readings(indices(planted))))
    for (metric, condition), shown in found.items():
        truth = planted.get(condition.removeprefix("semantic: "), 0.0)
        assert shown["n_clusters"] == len(TREATMENTS)
        if metric == "index_effect":
            assert shown["value"] == pytest.approx(truth, abs=0.1)
            assert (found["p_holm", condition]["value"] < 0.01) == (truth != 0)


def test_an_index_that_is_not_known_to_within_one_says_nothing():
    assert list(semantic_readings(indices({}, width=1.5))) == []
    assert list(semantic_readings(table({}))) == []


@pytest.mark.parametrize("n", [0, 1, 6])
def test_too_few_organisms_yield_nothing(n):
    few = indices({}, triggered=TRIGGERED[:n])
    assert list(readings(few)) == list(semantic_readings(few)) == []


def test_repeats_of_few_treatments_are_still_few():
    """Three seeds of each of two treatments are six organisms and two treatments: not enough for one level."""
    kinds = [Cell(family="llama", arm="neutral"), Cell(family="llama", arm="neutral", contrast=50)]
    repeated = [replace(cell, seed=seed) for cell in kinds for seed in range(3)]
    assert {cell.name for cell in repeated} <= {cell.name for cell in TRIGGERED}
    assert list(readings(table({}, triggered=repeated))) == []
