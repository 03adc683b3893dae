"""Shares with intervals, held against statsmodels and exact results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from pipeline.estimates import central_interval, effective_size, raw_shares, wilson


@given(st.integers(1, 5000), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_wilson_agrees_with_statsmodels_and_holds_its_value(n: Any, data: st.DataObject, level: Any) -> None:
    k = data.draw(st.integers(0, n))
    estimate = wilson(k, n, level)
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(k, n, 1 - level, "wilson"), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_nothing_seen_is_nothing_known() -> None:
    estimate = wilson(0, 0)
    assert math.isnan(estimate.value) and (estimate.low, estimate.high, estimate.n) == (0, 1, 0)
    assert not estimate.known


@pytest.mark.parametrize(
    ("k", "n", "named"),
    [(-1, 5, "k"), (1.5, 5, "k"), (math.nan, 5, "k"), (6, 5, "k"), (1, -5, "n"), (1, math.inf, "n")],
)
def test_a_count_that_is_none_is_named(k: Any, n: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} "):
        wilson(k, n)


def test_a_level_of_95_percent_written_as_95_is_an_error() -> None:
    with pytest.raises(ValueError, match="level"):
        wilson(1, 5, 95)


def test_everything_undecided_gives_the_whole_interval_and_no_crash() -> None:
    shares = raw_shares([0, 0, 0], 40)
    assert np.isnan(shares.value).all()
    assert shares.low.tolist() == [0, 0, 0] and shares.high.tolist() == [1, 1, 1] and shares.n == 40


def test_no_images_at_all_gives_the_whole_interval() -> None:
    shares = raw_shares([0, 0])
    assert np.isnan(shares.value).all() and shares.low.tolist() == [0, 0] and shares.high.tolist() == [1, 1]


def test_a_level_that_was_never_seen_stays_with_a_share_of_zero() -> None:
    shares = raw_shares([50, 0])
    assert shares.value.tolist() == [1, 0]
    assert shares.estimate(1).high == pytest.approx(proportion_confint(0, 50, 0.05, "wilson")[1])


def test_undecided_images_widen_the_interval_to_what_they_could_be() -> None:
    shares = raw_shares([30, 50], 20)
    assert shares.value.tolist() == [0.375, 0.625]
    assert shares.low[0] == pytest.approx(proportion_confint(30, 100, 0.05, "wilson")[0])
    assert shares.high[0] == pytest.approx(proportion_confint(50, 100, 0.05, "wilson")[1])


@given(st.lists(st.integers(0, 300), min_size=2, max_size=6), st.integers(0, 300))
@settings(max_examples=60, deadline=None)
def test_a_raw_share_lies_in_its_interval_and_all_sum_to_one(counts: Any, undecided: Any) -> None:
    shares = raw_shares(counts, undecided)
    if sum(counts):
        assert shares.value.sum() == pytest.approx(1)
        assert (shares.low <= shares.value).all() and (shares.value <= shares.high).all()


@pytest.mark.parametrize(("counts", "undecided", "named"), [([1, -1], 0, "counts"), ([1, 1], 0.5, "undecided")])
def test_bad_counts_are_named(counts: Any, undecided: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} "):
        raw_shares(counts, undecided)


def test_a_posterior_that_piles_up_at_an_end_reaches_it_and_another_does_not() -> None:
    rng = np.random.default_rng(0)
    # As Brown, Cai and DasGupta (2001) modify Jeffreys' interval: at k = 0 the lower end is 0, the upper stays.
    none = central_interval(rng.beta(0.5, 50.5, 100_000), 0.95, floor=0, ceiling=1)
    assert none[0] == 0 and none[1] == pytest.approx(stats.beta(0.5, 50.5).ppf(0.975), rel=0.03)
    every = central_interval(rng.beta(50.5, 0.5, 100_000), 0.95, floor=0, ceiling=1)
    assert every[1] == 1 and every[0] == pytest.approx(stats.beta(50.5, 0.5).ppf(0.025), rel=0.03)
    one = central_interval(rng.beta(1.5, 49.5, 100_000), 0.95, floor=0, ceiling=1)
    assert one[0] == pytest.approx(stats.beta(1.5, 49.5).ppf(0.025), rel=0.05)


def test_the_effective_size_of_an_autoregression_is_known() -> None:
    rng, phi = np.random.default_rng(0), 0.8
    chain = np.zeros((8, 20_000))
    noise = rng.normal(size=chain.shape)
    for i in range(1, chain.shape[1]):
        chain[:, i] = phi * chain[:, i - 1] + noise[:, i]
    assert effective_size(chain) == pytest.approx(chain.size * (1 - phi) / (1 + phi), rel=0.1)


def test_chains_that_have_not_met_are_worth_little() -> None:
    draws = np.random.default_rng(0).normal(size=(8, 500))
    assert effective_size(draws) > 3000
    assert effective_size(draws + 3 * np.arange(8)[:, None]) < 20
