"""Means over organisms: those of statsmodels on one level, exact without spread, and wide with few pretrainings."""

import math
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.meta_analysis import combine_effects

from figures.claims.pooling import Measured, combined, logit, pooled

NUMBERS, ERRORS = st.floats(-1, 1), st.floats(0.01, 1)


def around(value: float, half: float, pretraining: str) -> Measured:
    return Measured(value, value - half, value + half, pretraining)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(st.lists(st.tuples(NUMBERS, ERRORS), min_size=3, max_size=8))
def test_one_level_is_that_of_statsmodels_where_organisms_differ(estimates):
    values, errors = np.array(estimates).T
    theirs = cast(Any, combine_effects(values, errors**2, method_re="chi2"))  # its attributes are set by name
    if theirs.tau2 > 0:
        error = theirs.sd_eff_w_re * math.sqrt(max(1.0, theirs.scale_hksj_re))
        assert combined(estimates) == pytest.approx((theirs.mean_effect_re, error))


def test_organisms_that_agree_have_the_error_of_a_fixed_effect():
    assert combined([(0.3, 0.1)] * 4) == pytest.approx((0.3, 0.05))


def test_one_organism_keeps_its_own_interval():
    mean = pooled([Measured(0.0, 0.0, 0.008, "a")], log_odds=True)
    assert (mean.value, mean.low, mean.high, mean.pretrainings) == (0.0, 0.0, 0.008, 1)


@given(st.lists(NUMBERS, min_size=2, max_size=6), st.floats(0.01, 0.5))
def test_p_is_under_five_percent_where_the_interval_leaves_the_limit_out(values, half):
    mean = pooled([around(value, half, str(i)) for i, value in enumerate(values)])
    for limit in (mean.low - 1e-6, mean.high + 1e-6):
        assert mean.p(limit) < 0.05
    for limit in (mean.low + 1e-6, mean.value, mean.high - 1e-6):
        assert mean.p(limit) > 0.05 - 1e-4


def test_seeds_of_one_pretraining_do_not_count_as_pretrainings():
    values = (0.2, 0.5, 0.8)
    seeds = pooled([around(v, 0.01, str(i)) for i, v in enumerate(values) for _ in range(5)])
    alone = pooled([around(v, 0.01, str(i)) for i, v in enumerate(values)])
    assert seeds.high - seeds.low == pytest.approx(alone.high - alone.low, rel=0.05)
    assert (seeds.pretrainings, seeds.df) == (3, 2)


@given(st.lists(st.integers(0, 480), min_size=2, max_size=5))
def test_a_mean_of_rates_is_a_rate_even_where_all_are_none_or_all(counts):
    rates = [
        Measured(k / 480, max(0, k / 480 - 0.01), min(1, k / 480 + 0.01), str(i), 480) for i, k in enumerate(counts)
    ]
    mean = pooled(rates, log_odds=True)
    assert 0 <= mean.low <= mean.value <= mean.high <= 1
    least, most = (f(counts) / 480 for f in (min, max))
    assert min(least, 1 - 0.5 / 480) <= mean.value + 0.002 and mean.value - 0.002 <= max(most, 0.5 / 480)


def test_log_odds_are_infinite_at_the_ends_and_antisymmetric():
    assert (logit(0), logit(1), logit(0.5)) == (-math.inf, math.inf, 0)
    assert logit(0.1) == pytest.approx(-logit(0.9))


def test_nothing_has_no_mean():
    with pytest.raises(ValueError, match="at least one organism"):
        pooled([])
