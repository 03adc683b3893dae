"""Shares with intervals, held against statsmodels and exact results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from statsmodels.stats.proportion import proportion_confint

from pipeline.estimates import (
    Floats,
    Ints,
    central_interval,
    effective_size,
    log_rising,
    prediction_powered,
    raw_shares,
    shortest_interval,
    wilson,
)


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


def test_the_shortest_interval_of_known_densities() -> None:
    rng = np.random.default_rng(0)
    low, high = shortest_interval(np.abs(rng.normal(size=100_000)), 0.95, floor=0)
    assert low == 0 and high == pytest.approx(stats.halfnorm.ppf(0.95), abs=0.03)
    low, high = shortest_interval(rng.normal(10, 1, size=100_000), 0.95, floor=0)
    assert (low, high) == pytest.approx(stats.norm(10, 1).interval(0.95), abs=0.15)
    # A gamma's shortest interval has equal density at its ends, and lies below the equal-tailed one.
    low, high = shortest_interval(rng.gamma(4, size=200_000), 0.95, floor=0)
    assert stats.gamma(4).pdf(low) == pytest.approx(stats.gamma(4).pdf(high), rel=0.3)
    assert low < stats.gamma(4).ppf(0.025) and high < stats.gamma(4).ppf(0.975)


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


# Prediction-powered shares.


def images(labelled: Ints) -> tuple[Ints, Ints]:
    """True and predicted level of each labelled image."""
    true, said = np.indices(labelled.shape).reshape(2, -1)
    return np.repeat(true, labelled.ravel()), np.repeat(said, labelled.ravel())


def test_the_prediction_powered_share_is_the_papers_formula_image_by_image() -> None:
    labelled, predicted = np.array([[14, 3, 1, 2], [2, 23, 4, 1], [1, 2, 17, 0]]), np.array([130, 260, 190, 20])
    true, said = images(labelled)
    others = np.repeat(np.arange(4), predicted)
    shares = prediction_powered(labelled, predicted)
    for k in range(3):
        y, f, g = (true == k) * 1.0, (said == k) * 1.0, (others == k) * 1.0
        spread = np.var(np.append(f, g))

        def variance(tuned: Any, y: Floats = y, f: Floats = f, spread: Any = spread, g: Floats = g) -> Any:
            return tuned**2 * spread / len(g) + (
                y.var() - 2 * tuned * np.cov(y, f, ddof=0)[0, 1] + tuned**2 * spread
            ) / len(y)

        tuned = optimize.minimize_scalar(variance).x
        assert shares.value[k] == pytest.approx(y.mean() + tuned * (g.mean() - f.mean()), abs=1e-6)
        # The interval is that of tables with a half more in each cell, and near the plain one.
        error = np.sqrt(tuned**2 * spread / len(g) + np.var(y - tuned * f) / len(y))
        assert (shares.high[k] - shares.low[k]) / (2 * 1.96 * error) == pytest.approx(1.05, abs=0.05)
    assert shares.n == 670


def test_a_perfect_classifier_is_as_good_as_labels_on_all_and_a_useless_one_as_none() -> None:
    perfect = prediction_powered([[300, 0], [0, 700]], [3000, 7000])
    assert perfect.high[0] - perfect.low[0] == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 11_000), rel=0.05)
    useless = prediction_powered([[150, 150], [350, 350]], [5000, 5000])
    assert useless.value[0] == pytest.approx(0.3)
    assert useless.high[0] - useless.low[0] == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 1000), rel=0.02)
    none = prediction_powered([[150, 150], [350, 350]], [0, 0])
    assert none.value[0] == pytest.approx(0.3) and none.low[0] < 0.3 < none.high[0]


def coverage(labels: int, share: float, accuracy: float, rng: np.random.Generator, audits: int = 1000) -> float:
    cells = np.array([share * accuracy, share * (1 - accuracy), (1 - share) * (1 - accuracy), (1 - share) * accuracy])
    hit = 0
    for table, k in zip(
        rng.multinomial(labels, cells, audits), rng.binomial(500, cells[[0, 2]].sum(), audits), strict=True
    ):
        found = prediction_powered(table.reshape(2, 2), [k, 500 - k])
        hit += found.low[0] <= share <= found.high[0]
    return hit / audits


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("accuracy", [0.98, 0.85])
def test_prediction_powered_shares_are_covered_from_fifty_labels_on(share: float, accuracy: float) -> None:
    assert coverage(50, share, accuracy, np.random.default_rng(0)) >= 0.93
    assert coverage(200, share, accuracy, np.random.default_rng(1)) >= 0.93


def test_pictures_that_people_cannot_tell_bias_no_prediction_powered_share() -> None:
    """A quarter cannot be told, and the probe says of nine in ten of them that they are of the second level; of those that
    can, half are of each and 95 % read right. With the others believed as they are, .43 was found and half of .50 held."""
    rng, held, values = np.random.default_rng(4), [], []
    told, not_told = 0.75 * np.array([[0.475, 0.025], [0.025, 0.475]]), 0.25 * np.array([[0.1, 0.9]])
    for _ in range(400):
        sample = rng.multinomial(100, np.vstack([told, not_told]).ravel()).reshape(3, 2)
        others = rng.multinomial(300, np.vstack([told, not_told]).sum(0))
        share = prediction_powered(sample[:2], others, untold=sample[2])
        held.append(share.low[0] <= 0.5 <= share.high[0])
        values.append(share.value[0])
    assert np.mean(values) == pytest.approx(0.5, abs=0.01) and np.mean(held) >= 0.92
    table, none = [[150, 150], [350, 350]], [0, 0]
    alone = prediction_powered(table, none)
    assert np.array_equal(prediction_powered(table, none, untold=[40, 10]).low, alone.low)
    with pytest.raises(ValueError, match=r"untold has 3 columns and labelled 2"):
        prediction_powered(table, none, untold=[1, 1, 1])


def test_with_ten_labels_walds_interval_fails_and_an_error_names_the_joint_model() -> None:
    rng, share, covered = np.random.default_rng(2), 0.05, 0
    errors = np.array([[0.9, 0.1], [0.1, 0.9]])
    for _ in range(1000):
        labelled = rng.multinomial(10, (np.array([[share], [1 - share]]) * errors).ravel()).reshape(2, 2)
        rate = rng.binomial(400, share * 0.9 + (1 - share) * 0.1) / 400
        true, said = images(labelled)
        y, f = (true == 0) * 1.0, (said == 0) * 1.0
        tuned = np.cov(y, f, ddof=0)[0, 1] / (1 + 10 / 400) / (rate * (1 - rate))
        value = y.mean() + tuned * (rate - f.mean())
        error = math.sqrt(tuned**2 * rate * (1 - rate) / 400 + np.var(y - tuned * f) / 10)
        covered += abs(value - share) <= 1.96 * error
    assert covered / 1000 < 0.5
    with pytest.raises(ValueError, match=r"^labelled has 49 images and 50 are needed.*joint model.*corrected_shares"):
        prediction_powered([[20, 4], [5, 20]], [100, 100])


@pytest.mark.parametrize(
    ("labelled", "predicted", "named"),
    [
        ([[30, -1], [5, 30]], [10, 10], "labelled"),
        ([[30, 1.5], [5, 30]], [10, 10], "labelled"),
        ([[30, 5]], [10, 10], "labelled"),
        ([[30, 5], [5, 30]], [10, math.nan], "predicted"),
        ([[30, 5], [5, 30]], [10, 10, 10], "predicted"),
    ],
)
def test_a_bad_table_of_labels_is_named(labelled: Any, predicted: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} "):
        prediction_powered(labelled, predicted)


@pytest.mark.parametrize("most", [3, 40, 5000])
def test_log_rising_is_the_same_to_the_last_bit_whether_counts_repeat_or_not(most: int) -> None:
    n = np.random.default_rng(0).integers(0, most, (100, 10), dtype=np.int32)
    n[0, 0] = most
    for start in (0.5, 0.5 / 9, 1 / 10):
        found = log_rising(start, n)
        assert (found == log_rising(start, n.astype(float))).all() and found.shape == n.shape
        if most < 100:  # what comes after is beyond a float
            assert found == pytest.approx(np.log(special.poch(start, n)), rel=1e-12, abs=1e-14)
    assert log_rising(0.5, np.empty((0, 3), np.int32)).shape == (0, 3)
