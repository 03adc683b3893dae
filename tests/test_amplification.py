"""Amplification, held against statsmodels, published examples, quadrature and simulated audits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats
from statsmodels.stats.proportion import confint_proportions_2indep

from classifiers.confusion import images_behind
from classifiers.correction import corrected_shares, corrected_shares_each, corrected_shares_many
from pipeline.amplification import (
    average,
    bounded_difference,
    bounded_log_odds_ratio,
    difference,
    direction,
    directional_bias_amplification,
    holm,
    jensen_shannon,
    log_odds_ratio,
    mean_difference,
    noise_floor,
    p_value,
    pooled,
    total_variation,
)
from pipeline.estimates import Floats, Ints, published, raw_shares, wilson
from pipeline.figures import DIRECTIONS
from pipeline.mixed_model import WORTH, _adaptive_sample, _of_concepts, log_marginal
from pipeline.types import Distribution, Estimate
from prompt_sets import load_reference
from scripts import validate_pooled

BASE = 0.47
PERFECT = np.eye(2, dtype=int) * 1_000_000


def exact(value: float) -> Estimate:
    return Estimate(value, value, value, 0, "exact")


def around(low: float, value: float, high: float) -> Estimate:
    return Estimate(value, low, high, 50, "made up")


def audit(
    rng: np.random.Generator,
    *,
    concepts: int,
    n: Any,
    shift: float,
    stretch: float,
    scatter: float,
    accuracy: float,
    labels: int,
    told: tuple[float, float] = (0.98, 0.9),
) -> tuple[Ints, Ints, Floats]:
    """One simulated audit: predicted counts, confusion counts, references."""
    reference = special.expit(rng.normal(0, 1.5, concepts))
    x = special.logit(reference) - special.logit(BASE)
    p = special.expit(special.logit(BASE) + shift + stretch * x + rng.normal(0, 1, concepts) * scatter)
    errors = np.array([[accuracy, 1 - accuracy], [1 - accuracy, accuracy]]) * np.array(told)[:, None]
    errors = np.column_stack([errors, 1 - np.array(told)])
    predicted = rng.multinomial(n, np.column_stack([p, 1 - p]) @ errors)
    return predicted, np.array([rng.multinomial(labels, row) for row in errors]), reference


# One concept.


def test_the_difference_of_two_wilson_intervals_is_newcombes() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873, Table II, example (a), method 10.
    result = difference(wilson(56, 70), wilson(48, 80))
    assert (result.low, result.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert (result.low, result.high) == pytest.approx(confint_proportions_2indep(56, 70, 48, 80, method="newcomb"))


def test_against_an_exact_reference_the_interval_only_moves() -> None:
    result = difference(around(0.1, 0.2, 0.4), exact(0.5))
    assert result[:3] == pytest.approx((-0.3, -0.4, -0.1))


def test_an_unknown_share_allows_every_difference() -> None:
    unknown = raw_shares([0, 0], 30).estimate(0)
    result = difference(unknown, exact(0.3))
    assert math.isnan(result.value) and (result.low, result.high) == pytest.approx((-0.3, 0.7))
    result = log_odds_ratio(unknown, exact(0.3))
    assert math.isnan(result.value) and (result.low, result.high) == (-math.inf, math.inf)


def test_the_log_odds_ratio_is_what_it_says() -> None:
    result = log_odds_ratio(around(0.1, 0.2, 0.5), exact(0.5))
    assert result[:3] == pytest.approx((math.log(1 / 4), math.log(1 / 9), 0))


def test_a_share_at_an_end_has_infinite_log_odds_and_no_nan() -> None:
    none = log_odds_ratio(wilson(0, 50), exact(0.3))
    assert none.value == none.low == -math.inf and -math.inf < none.high < 0
    every = log_odds_ratio(wilson(50, 50), around(0.2, 0.3, 0.4))
    assert every.value == every.high == math.inf and 0 < every.low < math.inf
    touching = log_odds_ratio(around(0, 0.1, 0.3), exact(0.3))
    assert math.isfinite(touching.value) and touching.low == -math.inf and touching.high == pytest.approx(0)


def test_a_reference_at_an_end_is_infinitely_far_or_not_comparable() -> None:
    assert log_odds_ratio(wilson(5, 50), exact(0)).value == math.inf
    assert log_odds_ratio(wilson(5, 50), exact(1)).value == -math.inf
    both = log_odds_ratio(wilson(0, 50), exact(0))
    assert math.isnan(both.value) and (both.low, both.high) == (-math.inf, math.inf)


def test_an_interval_without_its_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"^reference "):
        difference(wilson(1, 5), Estimate(0.3, math.nan, math.nan, 0, ""))
    with pytest.raises(ValueError, match=r"^share "):
        log_odds_ratio(around(0.4, 0.2, 0.5), exact(0.3))


@pytest.mark.parametrize(
    ("share", "reference", "base", "words"),
    [
        (around(0.02, 0.05, 0.10), 0.20, BASE, "away from the base rate"),
        (around(0.90, 0.95, 0.98), 0.80, BASE, "away from the base rate"),
        (around(0.25, 0.30, 0.40), 0.20, BASE, "towards the base rate"),
        (around(0.60, 0.65, 0.70), 0.80, BASE, "towards the base rate"),
        (around(0.40, 0.50, 0.60), 0.20, BASE, "towards the base rate"),
        (around(0.60, 0.70, 0.80), 0.20, BASE, "past the base rate"),
        (around(0.10, 0.20, 0.30), 0.80, BASE, "past the base rate"),
        (around(0.10, 0.20, 0.30), 0.30, BASE, "no evidence"),
        (around(0.10, 0.20, 0.30), math.nan, BASE, "no reference"),
        (around(0.10, 0.20, 0.30), 0.40, math.nan, "below the reference"),
        (around(0.10, 0.20, 0.30), 0.05, math.nan, "above the reference"),
        (around(0.10, 0.20, 0.30), 0.25, math.nan, "no evidence"),
        (around(0.60, 0.70, 0.80), BASE, BASE, "away from the base rate"),
        (raw_shares([0, 0], 9).estimate(0), 0.2, BASE, "no evidence"),
    ],
)
def test_the_direction_is_read_from_the_base_rate(share: Any, reference: float, base: float, words: str) -> None:
    assert direction(share, exact(reference), base) == words and words in DIRECTIONS, "has a mark in the figures"


def test_a_reference_that_is_not_sure_needs_a_larger_difference() -> None:
    share = around(0.02, 0.05, 0.10)
    assert direction(share, around(0.11, 0.12, 0.13), BASE) == "away from the base rate"
    assert direction(share, around(0.02, 0.12, 0.30), BASE) == "no evidence"


# A reference of which only bounds are known.


def test_housekeepers_who_are_not_white_are_bounded_by_two_readings_of_the_table() -> None:
    # BLS CPS Table 11, 2021, maids and housekeeping: White 74.9 %, Hispanic 48.2 %; Hispanic people may be of any race,
    # so "not white, or Hispanic" is 48.2 % to 25.1 + 48.2 = 73.3 %. A model that draws nobody else is 27 to 52 points off.
    result = bounded_difference(wilson(100, 100), 0.482, 0.733)
    assert (result.least, result.most) == pytest.approx((0.267, 0.518)) and math.isnan(result.estimate.value)
    assert (result.estimate.low, result.estimate.high) == pytest.approx((wilson(100, 100).low - 0.733, 0.518))


def test_bounds_that_meet_are_an_exact_reference() -> None:
    share = wilson(20, 80)
    assert bounded_difference(share, 0.4, 0.4).estimate[:3] == pytest.approx(difference(share, exact(0.4))[:3])
    odds = bounded_log_odds_ratio(share, 0.4, 0.4)
    assert odds.estimate[:3] == pytest.approx(log_odds_ratio(share, exact(0.4))[:3]) and odds.least == odds.most


def test_wherever_in_its_bounds_the_reference_lies_the_interval_holds_what_an_exact_one_gives() -> None:
    share = wilson(3, 40)
    for bounded, plain in ((bounded_difference, difference), (bounded_log_odds_ratio, log_odds_ratio)):
        ends = [plain(share, exact(r)) for r in np.linspace(0.1, 0.6, 6)]
        result = bounded(share, 0.1, 0.6)
        assert result.estimate.low == pytest.approx(min(e.low for e in ends))
        assert result.estimate.high == pytest.approx(max(e.high for e in ends))
        assert (result.least, result.most) == pytest.approx((ends[-1].value, ends[0].value))


def test_a_bound_at_an_end_is_open_and_an_unknown_share_stays_unknown() -> None:
    result = bounded_log_odds_ratio(wilson(0, 50), 0.0, 0.3)
    assert result.estimate.low == -math.inf and result.estimate.high == math.inf and math.isnan(result.most)
    unknown = bounded_difference(raw_shares([0, 0], 9).estimate(0), 0.2, 0.3)
    assert math.isnan(unknown.least) and (unknown.estimate.low, unknown.estimate.high) == pytest.approx((-0.3, 0.8))


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (-0.1, 0.4), (0.1, 1.1), (math.nan, 0.4)])
def test_bounds_that_are_none_are_named(low: float, high: float) -> None:
    for bounded in (bounded_difference, bounded_log_odds_ratio):
        with pytest.raises(ValueError, match=r"^low and high "):
            bounded(wilson(3, 40), low, high)


# Tests.


def test_with_a_perfect_classifier_the_p_value_is_the_beta_tail() -> None:
    shares = corrected_shares([14, 46], PERFECT, rng=np.random.default_rng(0))
    for reference in (0.30, 0.40, 0.60, 0.80):
        tail = stats.beta(14.5, 46.5).sf(reference)
        assert p_value(shares, [reference, 1 - reference]) == pytest.approx(2 * min(tail, 1 - tail), rel=0.5)


@pytest.mark.parametrize(
    ("k", "n", "share", "answers"),
    [(13, 20, 0.202, 1700), (14, 40, 0.12, 2000), (3, 50, 0.25, 800), (300, 400, 0.6, 90)],
)
def test_a_p_value_against_a_survey_is_no_matter_of_the_draws_that_lie_nearest(
    k: int, n: int, share: float, answers: float
) -> None:
    mine = stats.beta(k + 0.5, n - k + 0.5)
    survey = stats.beta(0.5 + share * answers, 0.5 + (1 - share) * answers)
    x = np.linspace(0, 1, 400_001)
    exact = float(np.trapezoid(mine.cdf(x) * survey.pdf(x), x))
    shares = raw_shares([k, n - k], 0)
    for seed in range(5):
        draws = mine.rvs(4000, random_state=seed)
        drawn = replace(shares, draws=np.column_stack([draws, 1 - draws]))
        found = p_value(drawn, [share, 1 - share], answers=answers)
        assert 0.4 < found / (2 * min(exact, 1 - exact)) < 2.5


def test_against_a_survey_the_p_value_is_that_of_two_samples() -> None:
    """On average: of one run's 2,048 draws, few lie where the two could meet."""
    runs = [corrected_shares([30, 70], PERFECT, rng=np.random.default_rng(seed)) for seed in range(8)]
    for k, n in ((90, 200), (36, 200), (80, 400)):
        exactly = stats.fisher_exact([[30, 70], [k, n - k]]).pvalue
        middle = exactly - stats.hypergeom(100 + n, 30 + k, 100).pmf(30) / 2
        found = np.mean([p_value(shares, [k / n, 1 - k / n], answers=n) for shares in runs])
        assert found == pytest.approx(middle, rel=0.25)
    assert p_value(runs[0], [0.4, 0.6], answers=10**9) == pytest.approx(p_value(runs[0], [0.4, 0.6]), rel=0.1)
    assert p_value(runs[0], [0.4, 0.6], answers=math.nan) == p_value(runs[0], [0.4, 0.6])


def test_the_test_rejects_a_true_reference_about_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(1), 0.3
    errors = np.array([[0.9, 0.1], [0.15, 0.85]])
    predicted = rng.multinomial(100, np.array([truth, 1 - truth]) @ errors, 150)
    confusion = np.array([[rng.multinomial(120, row) for row in errors] for _ in predicted])
    p = [p_value(s, [truth, 1 - truth]) for s in corrected_shares_each(predicted, confusion, rng=rng)]
    assert np.mean(np.array(p) < 0.05) <= 0.10
    assert 0.3 < np.median(p) < 0.7


def test_more_than_two_levels_are_one_test_with_bonferroni() -> None:
    shares = corrected_shares([30, 5, 5], np.eye(3) * 1_000_000, rng=np.random.default_rng(0))
    tail = stats.beta(30.5, 11).cdf(0.5)
    assert p_value(shares, [0.5, 0.25, 0.25]) == pytest.approx(3 * 2 * tail, rel=0.5)


def test_against_bounds_the_p_value_is_the_largest_of_all_references_between_them() -> None:
    """White of the labour statistics: the viewer's share is anywhere from `least` to the table's."""
    rng = np.random.default_rng(0)
    for counts, answers in (([90, 6, 4], None), ([90, 6, 4], 400), ([30, 40, 30], None), ([29, 12, 11], 300)):
        k, n = np.array(counts), sum(counts)
        shares = replace(raw_shares(counts), draws=rng.beta(k + 0.5, n - k + 0.5, (1000, 3)))
        found = p_value(shares, [0.75, 0.12, 0.1], least=[0.55, 0.12, 0.1], answers=answers)
        between = [p_value(shares, [r, 0.12, 0.1], answers=answers) for r in np.linspace(0.55, 0.75, 11)]
        assert found == pytest.approx(max(between), rel=1e-6) and min(between) < found


@pytest.mark.parametrize("white", [0.5, 0.6, 0.75])
def test_wherever_in_the_bounds_the_truth_is_the_test_rejects_it_no_more_often_than_it_says(white: float) -> None:
    rng, p = np.random.default_rng(2), []
    for counts in rng.multinomial(150, [white, 0.12, 0.1, 0.78 - white], 250)[:, :3]:
        shares = replace(raw_shares(counts), draws=rng.beta(counts + 0.5, 150 - counts + 0.5, (1000, 3)))
        p.append(p_value(shares, [0.75, 0.12, 0.1], least=[0.5, 0.12, 0.1]))
    for alpha in (0.05, 0.2, 0.5):
        assert stats.binomtest(int((np.array(p) < alpha).sum()), len(p), alpha, alternative="greater").pvalue > 0.01


def test_nothing_decided_is_no_evidence_and_a_wrong_reference_is_named() -> None:
    rng = np.random.default_rng(0)
    assert p_value(corrected_shares([0, 0, 9], [[9, 1, 2], [1, 9, 2]], rng=rng), [0.5, 0.5]) == 1
    with pytest.raises(ValueError, match=r"^reference "):
        p_value(corrected_shares([5, 4], PERFECT, rng=rng), [0.5, math.nan])
    with pytest.raises(ValueError, match=r"^shares "):
        p_value(raw_shares([5, 4]), [0.5, 0.5])


def test_holm_by_hand_and_a_missing_test_is_not_counted() -> None:
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm([math.nan])).all()
    with pytest.raises(ValueError, match=r"^p "):
        holm([1.5])


# Distances.


def test_all_images_of_one_group_is_far_from_balance() -> None:
    assert total_variation(raw_shares([50, 0]).value, [0.5, 0.5]) == 0.5
    assert total_variation(raw_shares([0, 0, 50, 0]).value, [0.25] * 4) == 0.75


def test_nine_images_of_a_balanced_model_look_biased_by_chance() -> None:
    expected = sum(stats.binom.pmf(k, 9, 0.5) * abs(k / 9 - 0.5) for k in range(10))
    assert expected == pytest.approx(0.1367, abs=5e-5)
    assert noise_floor([0.5, 0.5], 9, rng=np.random.default_rng(0), draws=100_000) == pytest.approx(expected, abs=1e-3)


def test_the_jensen_shannon_distance_is_the_root_of_what_a_draw_says_of_where_it_is_from() -> None:
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
    middle = (p + q) / 2
    information = stats.entropy(middle, base=2) - (stats.entropy(p, base=2) + stats.entropy(q, base=2)) / 2
    assert jensen_shannon(p, q) == pytest.approx(math.sqrt(information))
    assert jensen_shannon([1, 0], [0, 1]) == 1 and jensen_shannon([0.5, 0.5], [0.5, 0.5]) == 0
    for shares in np.random.default_rng(0).dirichlet(np.ones(5), 300):
        assert jensen_shannon(shares, shares / shares.sum()) == pytest.approx(0, abs=1e-7)


def test_the_noise_floor_of_a_distance_is_its_exact_mean() -> None:
    expected = sum(stats.binom.pmf(k, 12, 0.3) * jensen_shannon([k / 12, 1 - k / 12], [0.3, 0.7]) for k in range(13))
    result = noise_floor([0.3, 0.7], 12, rng=np.random.default_rng(0), draws=50_000, distance=jensen_shannon)
    assert result == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("q", [[0.5, 0.6], [1.5, -0.5], [math.nan, 1], [[1.0]]])
def test_what_is_no_distribution_is_named(q: Any) -> None:
    with pytest.raises(ValueError, match=r"^q "):
        total_variation([0.5, 0.5], q)
    with pytest.raises(ValueError, match=r"^q "):
        noise_floor(q, 9, rng=np.random.default_rng(0))


# All concepts.


def test_the_average_of_symmetric_intervals_adds_variances() -> None:
    result = average([around(-0.1, 0.1, 0.3), around(0.2, 0.3, 0.4), Estimate(math.nan, -1, 1, 9, "")])
    half = math.sqrt(0.2**2 + 0.1**2) / 2
    assert result[:4] == pytest.approx((0.2, 0.2 - half, 0.2 + half, 100))
    assert math.isnan(average([]).value)


def test_errors_of_the_matrix_do_not_average_out_over_concepts() -> None:
    rng, concepts, runs = np.random.default_rng(2), 12, 40
    errors, truth = np.array([[0.8, 0.2], [0.2, 0.8]]), rng.uniform(0.2, 0.8, concepts)
    reference = np.column_stack([truth, 1 - truth])
    covered = {"once": 0, "apart": 0}
    for _ in range(runs):
        confusion = [rng.multinomial(60, row) for row in errors]
        predicted = rng.multinomial(100, reference @ errors)
        once = mean_difference(predicted, confusion, reference, rng=rng)[0]
        shares = corrected_shares_many(predicted, confusion, rng=rng)
        apart = average([difference(s.estimate(0), exact(r)) for s, r in zip(shares, truth, strict=True)])
        covered["once"] += once.low <= 0 <= once.high
        covered["apart"] += apart.low <= 0 <= apart.high
    assert covered["once"] >= 0.88 * runs
    assert covered["apart"] < 0.8 * runs


def test_a_concept_that_is_mostly_undecided_makes_no_difference_of_its_own() -> None:
    rng, labels = np.random.default_rng(3), [[960, 0, 40], [0, 960, 40]]
    predicted = [[90, 10, 900], [100, 900, 0]]
    result = mean_difference(predicted, labels, [[0.9, 0.1], [0.1, 0.9]], rng=rng)[0]
    assert result.value == pytest.approx(0, abs=0.01)
    # Half of the women are undecided, of all concepts alike.
    labels, predicted = [[500, 0, 500], [0, 1000, 0]], [[450, 100, 450], [50, 900, 50]]
    result = mean_difference(predicted, labels, [[0.9, 0.1], [0.1, 0.9]], rng=rng)[0]
    assert result.value == pytest.approx(0, abs=0.02)


def test_the_mean_difference_weighs_by_images_and_names_a_bad_reference() -> None:
    rng = np.random.default_rng(0)
    result = mean_difference(
        [[500, 0], [500, 500], [0, 0]], PERFECT, np.array([[0.8, 0.2], [0.2, 0.8], [0, 1]]), rng=rng
    )
    assert result[0].value == pytest.approx(2 / 3 - 0.4, abs=0.01)
    assert result[0].value == pytest.approx(-result[1].value)
    assert math.isnan(mean_difference([[0, 0]], PERFECT, [[0.5, 0.5]], rng=rng)[0].value)
    with pytest.raises(ValueError, match=r"^reference "):
        mean_difference([[5, 5]], PERFECT, [[0.5, math.nan]], rng=rng)


def test_concepts_weigh_by_the_undecided_of_their_true_levels() -> None:
    """20,000 images of each concept, exactly at the reference; women are decided in 70 %, men in 98 %."""
    labels = np.array([[6300, 700, 3000], [980, 8820, 200]])
    reference = np.array([[0.05, 0.95], [0.95, 0.05]])
    predicted = np.rint(20_000 * reference @ (labels / labels.sum(1, keepdims=True))).astype(int)
    assert images_behind(predicted, labels) == pytest.approx([20_000] * 2, rel=1e-3)
    by_concept = np.stack([labels, 2 * labels])
    assert images_behind(predicted, by_concept) == pytest.approx([20_000] * 2, rel=1e-3)
    for result in mean_difference(predicted, labels, reference, rng=np.random.default_rng(0)):
        assert result.value == pytest.approx(0, abs=0.002) and result.low < 0 < result.high


def test_a_matrix_that_tells_nothing_apart_weighs_no_concept_beyond_what_its_images_can_be() -> None:
    labels = np.array([[50, 50, 100], [51, 49, 0]])  # an image that is decided is of one woman in two, or one man
    with np.errstate(all="raise"):
        behind = images_behind(np.array([[90, 10, 0], [10, 90, 0], [0, 0, 7]]), labels)
    assert ((behind[:2] >= 100 * (1 - 1e-9)) & (behind[:2] <= 201)).all() and behind[2] == 0


def test_a_concept_of_which_a_part_is_predicted_weighs_as_the_whole() -> None:
    counts, reference = np.array([[50, 50], [10, 40]]), np.array([[0.4, 0.6], [0.4, 0.6]])
    found = mean_difference(counts, PERFECT, reference, images=[100, 100], raw="raw", rng=np.random.default_rng(0))[0]
    assert found.value == pytest.approx((0.1 - 0.2) / 2)
    even = mean_difference(2 * counts, PERFECT, reference, raw="raw", rng=np.random.default_rng(0))[0]
    assert even.value == pytest.approx((100 * 0.1 - 50 * 0.2) / 150)
    assert found.high - found.low > even.high - even.low
    for images in ([1.0], [1.0, -1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match=r"^images must"):
            mean_difference(counts, PERFECT, reference, images=images, rng=np.random.default_rng(0))


def surveyed() -> list[Distribution]:
    """The shares of women in the occupations of BLS."""
    table = load_reference("bls_cps_table11", 2023)
    found = (table.distribution(name, "gender", ("woman", "man")) for name in sorted(table.matches or {}))
    return [one for one in found if not isinstance(one, str)]


def test_the_mean_difference_from_a_survey_is_covered() -> None:
    """Models that are on average as the labour market is, held against a sample of it; as if exact it covers .87."""
    rng, rows, runs, covered = np.random.default_rng(4), surveyed(), 300, 0
    for _ in range(runs):
        some = [rows[i] for i in rng.choice(len(rows), 10, replace=False)]
        truth, answers = np.array([r.shares[0] for r in some]), np.array([r.n or 0 for r in some])
        reference, women = rng.binomial(answers, truth) / answers, rng.binomial(250, truth)
        result = mean_difference(
            np.column_stack([women, 250 - women]),
            PERFECT,
            np.column_stack([reference, 1 - reference]),
            answers=answers,
            rng=rng,
        )[0]
        covered += result.low <= 0 <= result.high
    assert 0.92 <= covered / runs <= 0.98


def test_the_noise_of_a_survey_is_that_of_its_published_intervals() -> None:
    some = surveyed()[:3]
    reference, answers = np.array([r.shares for r in some]), [some[0].n, math.nan, some[2].n]
    counts, seed = np.array([[90, 10], [100, 200], [30, 70]]), 6
    exactly = mean_difference(counts, PERFECT, reference, rng=np.random.default_rng(seed))[0]
    result = mean_difference(counts, PERFECT, reference, answers=answers, rng=np.random.default_rng(seed))[0]
    ends = [published(replace(r, low=r.shares, high=r.shares), 0) for r in some]
    weights = counts.sum(1) / counts.sum()
    above, below = (
        math.hypot(*(w * arm for w, arm in zip(weights[::2], arms, strict=True)))
        for arms in ([e.high - e.value for e in ends[::2]], [e.value - e.low for e in ends[::2]])
    )
    assert result.value == exactly.value
    assert result.value - result.low == pytest.approx(math.hypot(exactly.value - exactly.low, above))
    assert result.high - result.value == pytest.approx(math.hypot(exactly.high - exactly.value, below))


def test_a_reference_without_answers_is_exact() -> None:
    counts, reference = [[90, 10], [100, 200]], np.array([[0.8, 0.2], [0.4, 0.6]])
    for measure, base in ((mean_difference, ()), (directional_bias_amplification, ([0.5, 0.5],))):
        results = [
            measure(counts, PERFECT, reference, *base, answers=answers, rng=np.random.default_rng(7))
            for answers in (None, [math.nan] * 2)
        ]
        assert results[0] == results[1]
    (share,) = corrected_shares_many([[190, 210]], PERFECT, rng=np.random.default_rng(7))
    mean = mean_difference(counts, PERFECT, reference, rng=np.random.default_rng(7))[0]
    assert mean[:3] == pytest.approx([end - 0.5 for end in share.estimate(0)[:3]], abs=1e-6)


def test_directional_amplification_has_the_noise_of_the_survey_once() -> None:
    """One concept on either side: (share₁ - r₁ - share₂ + r₂) / 2, whose noise is half that of r₁ - r₂."""
    arguments: Any = ([[90, 10], [30, 70]], PERFECT, [[0.8, 0.2], [0.4, 0.6]], [0.5, 0.5])
    exactly = directional_bias_amplification(*arguments, rng=np.random.default_rng(8))
    result = directional_bias_amplification(*arguments, answers=[60, 90], rng=np.random.default_rng(8))
    survey = difference(wilson(48, 60), wilson(36, 90))
    assert result.value == pytest.approx(exactly.value)
    for end, arm in (("low", survey.high - survey.value), ("high", survey.value - survey.low)):
        apart = math.hypot(getattr(exactly, end) - exactly.value, arm / 2)
        assert abs(getattr(result, end) - result.value) == pytest.approx(apart, rel=1e-3)  # draws are rounded


HALF = Estimate(0.5, 0.4, 0.6, 9, "")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: p_value(corrected_shares([5, 4], PERFECT, rng=np.random.default_rng(0)), [-0.1, 1.1]), "reference"),
        (lambda: mean_difference([[5, 5]], PERFECT, [[1.2, -0.2]], rng=np.random.default_rng(0)), "reference"),
        (lambda: mean_difference([[5, 5]], PERFECT, [[0.9, 0.9]], rng=np.random.default_rng(0)), "reference"),
        (
            lambda: mean_difference([[5, 5]], PERFECT, [[0.5, 0.5]], answers=[0], rng=np.random.default_rng(0)),
            "answers",
        ),
        (
            lambda: mean_difference([[5, 5]], PERFECT, [[0.5, 0.5]], answers=[9, 9], rng=np.random.default_rng(0)),
            "answers",
        ),
        (lambda: p_value(corrected_shares([5, 4], PERFECT, rng=np.random.default_rng(0)), [0.9, 0.9]), "reference"),
        (
            lambda: p_value(corrected_shares([5, 4], PERFECT, rng=np.random.default_rng(0)), [0.5, 0.5], answers=-3),
            "answers",
        ),
        (lambda: p_value(corrected_shares([5, 4], PERFECT, rng=np.random.default_rng(0)), [0.1, 0.2]), "reference"),
        (
            lambda: p_value(
                corrected_shares([5, 4], PERFECT, rng=np.random.default_rng(0)), [0.5, 0.5], least=[0.6, 0.4]
            ),
            "least",
        ),
        (lambda: mean_difference([[5, 5]], PERFECT, [[0.1, 0.2]], rng=np.random.default_rng(0)), "reference"),
        (lambda: noise_floor([0.5, 0.5], 9, rng=np.random.default_rng(0), draws=0), "draws"),
        (lambda: average([HALF, HALF._replace(low=math.nan)]), "differences"),
        (lambda: average([HALF, HALF._replace(high=math.nan)]), "differences"),
        (lambda: difference(HALF._replace(value=1.4, high=1.5), HALF), "share"),
        (lambda: difference(HALF, HALF._replace(value=-0.2, low=-0.3)), "reference"),
        (lambda: log_odds_ratio(HALF, HALF._replace(high=1.5)), "reference"),
        (lambda: direction(HALF, HALF, 1.5), "base"),
        (lambda: total_variation([0.5, 0.5], [1.0]), "p"),
        (lambda: jensen_shannon([0.5, 0.5, 0.0], [0.5, 0.5]), "p"),
    ],
)
def test_what_is_no_share_is_named(call: Any, argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must"):
        call()


# Directional bias amplification.


def as_published(shares: Floats, reference: Floats, base: Floats) -> float:
    """Wang and Russakovsky's equation 3, cell by cell, from attribute by task tables."""
    total = 0.0
    for share, target in zip(shares, reference, strict=True):
        for k, overall in enumerate(base):
            gap = share[k] - target[k]
            total += gap if target[k] > overall else -gap if target[k] < overall else 0
    return total / shares.size


@pytest.mark.parametrize("levels", [2, 4])
def test_with_a_perfect_classifier_it_is_the_published_formula(levels: int) -> None:
    rng = np.random.default_rng(10)
    reference, base = rng.dirichlet(np.ones(levels), 8), np.full(levels, 1 / levels)
    shares = rng.dirichlet(np.ones(levels), 8)
    # At the base in some levels and not in others: what lies on neither side is not counted.
    reference[0], shares[0] = base + 0.1 * np.eye(levels)[1] - 0.1 * np.eye(levels)[-1], 0.1 / (levels - 1)
    shares[0, 0] = 0.9
    counts = np.rint(shares * rng.integers(2000, 9000, (8, 1)))
    result = directional_bias_amplification(counts, np.eye(levels) * 10**7, reference, base, rng=rng)
    expected = as_published(counts / counts.sum(1, keepdims=True), reference, base)
    assert result.value == pytest.approx(expected, abs=0.004) and result.low < expected < result.high


def test_each_concept_weighs_the_same_however_many_images_it_has_or_are_undecided() -> None:
    reference, base = np.array([[0.8, 0.2], [0.7, 0.3], [0.2, 0.8]]), [0.5, 0.5]
    counts = [[900, 100, 0], [4000, 6000, 0], [50, 50, 900]]
    result = directional_bias_amplification(
        counts, [[10**6, 0, 9], [0, 10**6, 9]], reference, base, rng=np.random.default_rng(0)
    )
    assert result.value == pytest.approx((0.1 - 0.3 - 0.3) / 3, abs=0.01)


def test_directional_amplification_is_covered_and_errors_on_the_wide_side() -> None:
    rng, runs, covered, errors = np.random.default_rng(14), 150, 0, np.array([[0.85, 0.15], [0.2, 0.8]])
    reference = np.column_stack([np.linspace(0.1, 0.9, 8), 1 - np.linspace(0.1, 0.9, 8)])
    truth = np.clip(reference + 0.05 * np.sign(reference - 0.5) * [[1], [1], [0], [2], [1], [1], [0], [1]], 0.01, 0.99)
    expected, found = as_published(truth, reference, np.full(2, 0.5)), []
    for _ in range(runs):
        confusion = [rng.multinomial(60, row) for row in errors]
        predicted = rng.multinomial(100, truth @ errors)
        result = directional_bias_amplification(predicted, confusion, reference, [0.5, 0.5], rng=rng)
        covered += result.low <= expected <= result.high
        found.append((result.value, (result.high - result.low) / 2 / 1.96))
    assert covered / runs >= 0.94
    spread, claimed = np.std([v for v, _ in found]), np.mean([e for _, e in found])
    assert 1 < claimed / spread < 2


def test_no_image_is_no_amplification_and_concepts_on_one_side_alone_are_enough() -> None:
    rng = np.random.default_rng(0)
    nothing = directional_bias_amplification([[0, 0, 5]], [[9, 1, 0], [1, 9, 0]], [[0.3, 0.7]], [0.5, 0.5], rng=rng)
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (-1, 1)
    one = directional_bias_amplification([[900, 100], [0, 0]], PERFECT, [[0.8, 0.2], [0.1, 0.9]], [0.5, 0.5], rng=rng)
    assert one.value == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("reference", "base", "message"),
    [
        ([[0.3, 0.6]], [0.5, 0.5], "^reference "),
        ([[0.3, math.nan]], [0.5, 0.5], "^reference "),
        ([[0.3, 0.7]], [0.5, 0.6], "^base "),
        ([[0.3, 0.7], [0.5, 0.5]], [0.5, 0.5], "^reference "),
    ],
)
def test_a_reference_that_does_not_sum_is_named(reference: Any, base: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        directional_bias_amplification([[5, 5]], PERFECT, reference, base, rng=np.random.default_rng(0))


# The mixed model.


@pytest.mark.parametrize("counts", [[0, 60], [3, 50], [700, 800], [2, 0], [0, 0]])
@pytest.mark.parametrize("scatter", [0.01, 0.5, 2.0])
def test_the_integral_over_a_concepts_scatter_agrees_with_a_fine_sum(counts: Any, scatter: float) -> None:
    hit, mean = np.array([0.85, 0.2]), -1.2
    u = np.linspace(-9, 9, 100_001)
    share = special.expit(mean + scatter * u)
    exact = stats.binom.logpmf(counts[0], sum(counts), share * hit[0] + (1 - share) * hit[1]) + stats.norm.logpdf(u)
    coefficient = math.log(math.comb(sum(counts), counts[0]))
    result = log_marginal(np.array([counts]), hit[None, None], np.array([[mean]]), np.array([scatter]))[0, 0]
    assert result + coefficient == pytest.approx(special.logsumexp(exact) + math.log(u[1] - u[0]), abs=0.02)


@pytest.mark.parametrize("counts", [[97, 3], [3, 97], [50, 50]])
@pytest.mark.parametrize("mean", [-16.0, -8.0, 12.0, 20.0])
@pytest.mark.parametrize("scatter", [1e-6, 0.3, 2.0])
def test_the_integral_holds_where_a_large_stretch_sends_the_mean_far_out(
    counts: Any, mean: float, scatter: float
) -> None:
    hit = np.array([0.97, 0.03])
    u = np.linspace(-16, 16, 60_001)
    share = special.expit(mean + scatter * u)
    chance = share * hit[0] + (1 - share) * hit[1]
    exact = counts[0] * np.log(chance) + counts[1] * np.log1p(-chance) + stats.norm.logpdf(u)
    result = log_marginal(np.array([counts]), hit[None, None], np.array([[mean]]), np.array([scatter]))[0, 0]
    assert result == pytest.approx(special.logsumexp(exact) + math.log(u[1] - u[0]), abs=0.3)


def test_the_sampler_draws_from_a_normal_posterior_as_it_is_known() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(6, 6))
    precision, at = 4 * root @ root.T, rng.normal(size=6)
    state = _adaptive_sample(lambda z: -np.einsum("ni,ij,nj->n", z - at, precision, z - at) / 2, 6, rng)
    assert state is not None and len(state) >= WORTH
    covariance = np.linalg.inv(precision + np.eye(6))
    mean, sd = covariance @ precision @ at, np.sqrt(np.diag(covariance))
    assert np.abs((state.mean(0) - mean) / sd).max() < 4 / math.sqrt(WORTH)
    assert np.cov(state.T) / np.outer(sd, sd) == pytest.approx(covariance / np.outer(sd, sd), abs=0.15)


def test_with_a_perfect_classifier_and_no_scatter_it_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    predicted, _, reference = audit(
        rng, concepts=25, n=2000, shift=-0.4, stretch=1.3, scatter=0, accuracy=1.0, labels=10, told=(1, 1)
    )
    predicted = predicted[:, :2]
    x = special.logit(reference) - special.logit(BASE)
    fit = sm.GLM(predicted, sm.add_constant(x), family=sm.families.Binomial()).fit()
    result = pooled(predicted, PERFECT, reference, BASE, rng=rng)
    assert result.shift.value == pytest.approx(fit.params[0] - special.logit(BASE), abs=0.02)
    assert result.stretch.value == pytest.approx(fit.params[1], abs=0.02)
    assert result.scatter.value < 0.1 and result.scatter.low == 0


def test_shift_stretch_and_scatter_are_covered() -> None:
    rng, runs, truth = np.random.default_rng(5), 60, (-0.5, 1.3, 0.5)
    covered = np.zeros(3)
    for _ in range(runs):
        predicted, confusion, reference = audit(
            rng, concepts=10, n=40, shift=-0.5, stretch=1.3, scatter=0.5, accuracy=0.9, labels=100
        )
        result = pooled(predicted, confusion, reference, BASE, rng=rng)
        found = (result.shift, result.stretch, result.scatter)
        covered += [e.low <= t <= e.high for e, t in zip(found, truth, strict=True)]
    assert (covered >= 0.88 * runs).all(), covered / runs


@pytest.mark.parametrize("scatter", [0.05, 0.4, 2.0])
@pytest.mark.parametrize(
    ("mean", "counts"),
    [
        (-0.8, [25, 75]),
        (-0.8, [40, 60]),
        (-0.8, [2, 0]),
        (-0.8, [0, 0]),
        (-3.0, [3, 97]),
        (-5.0, [0, 400]),
        (2.0, [65, 35]),
    ],
)
def test_the_integral_over_chances_that_are_unsure_agrees_with_draws_of_them(
    mean: float, counts: Any, scatter: float
) -> None:
    rng, draws, parameters = np.random.default_rng(1), 100_000, np.array([[30, 5], [2, 40]])
    hit, size = parameters[:, 0] / parameters.sum(1), parameters.sum(1)
    one, other = (rng.beta(*row, draws) for row in parameters)
    share = special.expit(mean + scatter * rng.standard_normal(draws))
    chance = share * one + (1 - share) * other
    expected = special.logsumexp(counts[0] * np.log(chance) + counts[1] * np.log1p(-chance)) - math.log(draws)
    shape = np.array([counts]), hit[None, None], np.array([[mean]]), np.array([scatter])
    variance = hit * (1 - hit) / (size + 1)
    assert log_marginal(*shape, variance[None, None])[0, 0] == pytest.approx(expected, abs=0.12)
    sure = log_marginal(*shape, np.full((1, 1, 2), 1e-12))[0, 0]
    assert sure == pytest.approx(log_marginal(*shape)[0, 0], abs=1e-3)


@pytest.mark.parametrize("counts", [[25, 75], [0, 400], [7, 3]])
def test_where_no_image_shows_the_level_it_is_beta_binomial(counts: Any) -> None:
    hit, variance = np.array([0.9, 0.05]), np.array([0.004, 0.003])
    size = 0.05 * 0.95 / 0.003 - 1
    expected = stats.betabinom(sum(counts), 0.05 * size, 0.95 * size).logpmf(counts[0])
    where = hit[None, None], np.array([[-25.0]]), np.array([0.01]), variance[None, None]
    found = log_marginal(np.array([counts]), *where)[0, 0] + math.log(math.comb(sum(counts), counts[0]))
    assert found == pytest.approx(expected, abs=1e-6)


def test_errors_that_are_each_concepts_own_are_no_scatter_and_where_they_lean_no_stretch() -> None:
    """Women are misread where most women are expected, as by a probe that reads the occupation. One matrix for all
    concepts takes it for a model that narrows the differences, and what is left for each concept's own."""
    rng, runs, truth = np.random.default_rng(10), 24, (0.0, 1.0, 0.3)
    reference = special.expit(np.linspace(-2.5, 2.5, 16))
    told = np.where(reference > 0.7, 0.7, 0.97)
    covered, by_one = np.zeros(3), np.zeros(3)
    for _ in range(runs):
        p = special.expit(special.logit(reference) + 0.3 * rng.standard_normal(16))
        women = rng.binomial(200, p)
        hits = rng.binomial(women, told) + rng.binomial(200 - women, 0.02)
        rows = np.stack([rng.binomial(20, told), rng.binomial(20, 0.02, 16)], 1)
        labels = np.stack([rows, 20 - rows], -1)
        for matrix, held in ((labels, covered), (labels.sum(0), by_one)):
            found = pooled(np.stack([hits, 200 - hits], 1), matrix, reference, 0.5, rng=rng)
            both = zip((found.shift, found.stretch, found.scatter), truth, strict=True)
            held += [e.low <= t <= e.high for e, t in both]
    assert (covered >= 0.8 * runs).all(), covered / runs
    assert (by_one[1:] <= 0.5 * runs).all(), by_one / runs


def test_the_labels_of_concepts_weigh_their_mean_and_how_alike_they_are_as_scipys_beta_binomial() -> None:
    labels = np.array([[[18, 2], [1, 19]], [[9, 1], [3, 7]], [[0, 0], [0, 5]]])
    right = np.array([[20.5, 3.5], [5.0, 25.0]])
    hit, rho = np.array([[0.85, 0.1], [0.7, 0.3]]), np.array([[0.05, 0.3], [0.4, 0.1]])
    expected = []
    for m, r in zip(hit, rho, strict=True):
        total = 0.0
        for k in (0, 1):
            kappa = 1 / r[k] - 1
            n = labels[:, k].sum(1)
            total += stats.betabinom(n, kappa * m[k], kappa * (1 - m[k])).logpmf(labels[:, k, 0]).sum()
            total += stats.beta(0.5, 0.5).logpdf(m[k]) - stats.beta(*right[k]).logpdf(m[k])
        expected.append(total)
    told, mean, variance = _of_concepts(hit, rho, labels, right)
    assert told[0] - told[1] == pytest.approx(expected[0] - expected[1])
    a, b = (1 / 0.05 - 1) * 0.85 + 18, (1 / 0.05 - 1) * 0.15 + 2
    assert (mean[0, 0, 0], variance[0, 0, 0]) == pytest.approx(stats.beta(a, b).stats())


def test_abstention_that_is_a_concepts_own_is_no_shift_and_no_scatter() -> None:
    rng, reference = np.random.default_rng(11), np.linspace(0.1, 0.9, 12)
    told = np.where(np.arange(12) % 2, 0.5, 1.0)  # of women
    predicted = np.rint(600 * np.column_stack([reference * told, 1 - reference, reference * (1 - told)])).astype(int)
    labels = np.array([[[300 * t, 0, 300 * (1 - t)], [0, 300, 0]] for t in told])
    both = [pooled(predicted, m, reference, 0.5, rng=rng) for m in (labels, labels.sum(0))]
    assert both[0].scatter.value < 0.15 < both[1].scatter.low
    assert both[0].stretch.value == pytest.approx(1, abs=0.06) and both[0].shift.value == pytest.approx(0, abs=0.1)


def test_concepts_without_images_still_tell_of_the_errors() -> None:
    rng = np.random.default_rng(12)
    predicted, labels, reference = audit(
        rng, concepts=8, n=60, shift=0, stretch=1, scatter=0.3, accuracy=0.9, labels=200, told=(1, 1)
    )
    apart = np.tile(labels // 10, (12, 1, 1))[:, :, :2]
    predicted = predicted[:, :2]
    without = [*predicted[:3], [0, 0], *predicted[3:]]
    more = np.insert(apart, 3, apart[11], 0)[:12]  # the concept without images has the labels of another
    least, most = (
        pooled(rows, m, r, BASE, rng=np.random.default_rng(0)).stretch
        for rows, m, r in ((predicted, apart, reference), (without, more, np.insert(reference, 3, 0.5)))
    )
    assert most[:3] == pytest.approx(least[:3])


def test_a_noisy_reference_flattens_the_stretch_only_where_its_noise_is_not_told() -> None:
    rng, runs, n = np.random.default_rng(8), 30, 40
    told, untold, covered = [], [], 0
    for _ in range(runs):
        true = special.expit(rng.normal(special.logit(BASE), 0.7, 30))
        predicted = rng.binomial(400, true)
        table = np.column_stack([predicted, 400 - predicted])
        asked = np.clip(rng.binomial(n, true), 1, n - 1) / n
        with_noise = pooled(table, PERFECT, asked, BASE, answers=np.full(30, n), rng=rng)
        told.append(with_noise.stretch.value)
        untold.append(pooled(table, PERFECT, asked, BASE, rng=rng).stretch.value)
        covered += with_noise.stretch.low <= 1 <= with_noise.stretch.high
    assert np.mean(untold) < 0.88
    assert np.mean(told) == pytest.approx(1, abs=0.05)
    assert covered >= 0.85 * runs


def test_answers_without_end_are_an_exact_reference() -> None:
    predicted, confusion, reference = audit(
        np.random.default_rng(9), concepts=8, n=60, shift=0, stretch=1.5, scatter=0.3, accuracy=0.9, labels=100
    )
    exactly, nearly = (
        pooled(predicted, confusion, reference, BASE, answers=answers, rng=np.random.default_rng(1)).stretch
        for answers in (None, np.full(8, 1e12))
    )
    assert nearly[:3] == pytest.approx(exactly[:3], abs=1e-3)


def test_a_poor_classifier_flattens_the_raw_slope_and_not_the_pooled_one() -> None:
    rng = np.random.default_rng(6)
    predicted, confusion, reference = audit(
        rng, concepts=30, n=400, shift=0, stretch=1.0, scatter=0, accuracy=0.75, labels=2000
    )
    x = special.logit(reference) - special.logit(BASE)
    raw = sm.GLM(predicted[:, :2], sm.add_constant(x), family=sm.families.Binomial()).fit().params[1]
    result = pooled(predicted, confusion, reference, BASE, rng=rng).stretch
    assert raw < 0.6
    assert result.low <= 1 <= result.high and result.low > raw


def test_a_level_that_is_abstained_on_more_often_is_no_shift() -> None:
    reference = np.linspace(0.1, 0.9, 9)
    predicted = np.rint(400 * np.column_stack([reference / 2, 1 - reference, reference / 2]))
    result = pooled(predicted, [[500, 0, 500], [0, 1000, 0]], reference, BASE, rng=np.random.default_rng(4))
    assert result.shift.value == pytest.approx(0, abs=0.05) and result.stretch.value == pytest.approx(1, abs=0.05)


def test_a_model_that_draws_two_percent_women_everywhere_is_all_shift() -> None:
    rng = np.random.default_rng(7)
    reference = special.expit(np.linspace(-3, 3, 15))
    result = pooled(rng.multinomial(400, [0.02, 0.98], 15), PERFECT, reference, BASE, rng=rng)
    assert -0.15 < result.stretch.value < 0.15
    assert result.shift.value == pytest.approx(special.logit(0.02) - special.logit(BASE), abs=0.4)


def test_a_level_that_is_never_drawn_gives_a_finite_answer_with_an_open_end() -> None:
    references = np.linspace(0.1, 0.9, 6)
    labels = [[90, 8, 2], [6, 92, 2]]
    result = pooled(np.tile([0, 50, 2], (6, 1)), labels, references, BASE, rng=np.random.default_rng(8))
    assert math.isfinite(result.shift.value) and result.shift.high < 0
    assert result.stretch.low < 1 < result.stretch.high


def test_too_few_concepts_or_references_that_are_alike_say_so() -> None:
    rng = np.random.default_rng(9)
    few = pooled([[5, 5], [3, 7], [0, 0]], PERFECT, [0.2, 0.5, 0.8], BASE, rng=rng)
    assert few.n_concepts == 2 and "too few concepts" in few.shift.method
    assert math.isnan(few.stretch.value) and (few.stretch.low, few.stretch.high) == (-math.inf, math.inf)
    alike = pooled([[100, 900]] * 6, PERFECT, [0.2] * 6, BASE, rng=rng)
    assert math.isnan(alike.stretch.value) and "alike" in alike.stretch.method
    assert alike.shift.value == pytest.approx(special.logit(0.1) - special.logit(0.2), abs=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": [0.2, 0.0, 0.8]}, "^reference of concept nurse is 0.0"),
        ({"reference": [0.2, math.nan, 0.8]}, "^reference of concept nurse is nan"),
        ({"reference": [0.2, 0.8]}, "^reference "),
        ({"base": 1.0}, "^base "),
        ({"answers": [10, 0, 10]}, "^answers "),
        ({"predicted": [[1, -2], [3, 4], [5, 6]]}, "^predicted "),
        ({"predicted": [[1, 2, 0], [3, 4, 0], [5, 6, 0]]}, "^predicted "),
        ({"confusion": [[9, 1], [0, 0]]}, "^confusion "),
    ],
)
def test_a_bad_argument_is_named(changed: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "predicted": [[1, 2], [3, 4], [5, 6]],
        "confusion": [[9, 1], [1, 9]],
        "reference": [0.2, 0.5, 0.8],
        "base": BASE,
    }
    with pytest.raises(ValueError, match=message):
        pooled(**(good | changed), concepts=["chef", "nurse", "pilot"], rng=np.random.default_rng(0))


def test_the_script_that_validates_pooled_numbers_gives_five_of_each_audit() -> None:
    for number, errors in enumerate(validate_pooled.ERRORS.values()):
        rng = np.random.default_rng(number)
        right = errors(rng)
        predicted, table, truth = validate_pooled.audit(right, 30, 100, rng)
        assert (predicted.sum(1) == 100).all() and (table.sum(2) == 30).all() and truth.sum(1) == pytest.approx(1)
        rates = table[:, [0, 1], [0, 1]].mean(0) / 30
        assert rates == pytest.approx(right.mean(0), abs=0.03)
        found = validate_pooled.held(predicted, table, truth, rng)
        assert len(found) == len(validate_pooled.NUMBERS) and all(math.isfinite(width) for _, width, _ in found)
