"""The corrected shares, held against brute force, closed forms and simulated audits whose truth is known."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from classifiers import confusion
from classifiers.confusion import on_average, partially_pooled
from classifiers.correction import corrected_means, corrected_shares, corrected_shares_each, corrected_shares_many
from pipeline.estimates import Floats, Shares, wilson
from pipeline.simulation import Cell, labelled


def matrix(accuracy: float, levels: int = 2) -> Floats:
    errors = np.full((levels, levels), (1 - accuracy) / (levels - 1))
    np.fill_diagonal(errors, accuracy)
    return errors


def drawn(shares: Shares) -> Floats:
    assert shares.draws is not None
    return shares.draws


def by_brute_force(
    predicted: Any, confusion: Any, rng: np.random.Generator, draws: int = 400_000, labelled: Any = 0
) -> tuple[Floats, Floats]:
    """The same without a chain: parameters from their priors, weighted by the likelihood. Means under 1/K on each level,
    and the 2.5 and 97.5 % points `(2, K)` of each level under ½ on it and ½ on the others together."""
    levels = len(confusion)
    labelled = np.zeros((levels, levels)) + labelled
    prior = np.full(np.shape(confusion), 0.5)
    prior[:, :levels][~np.eye(levels, dtype=bool)] /= levels - 1
    rows = np.stack([rng.dirichlet(row, draws) for row in prior + confusion], 1)
    told = rows[:, :, :levels].sum(2)

    def posterior(prior: Floats) -> tuple[Floats, Floats]:
        decided = rng.dirichlet(prior, draws)
        chance = (decided[:, None] @ (rows[:, :, :levels] / told[..., None]))[:, 0]
        weight = np.exp(stats.multinomial.logpmf(predicted[:levels], sum(predicted[:levels]), chance))
        cells = decided[:, :, None] * rows[:, :, :levels] / told[..., None]
        weight *= np.exp((labelled * np.log(cells)).sum((1, 2)))
        shares = decided / told
        return shares / shares.sum(1, keepdims=True), weight / weight.sum()

    shares, weight = posterior(np.full(levels, 1 / levels))
    ends = []
    for k in range(levels):
        alone, likely = posterior(np.where(np.arange(levels) == k, 0.5, 0.5 / (levels - 1)))
        order = np.argsort(alone[:, k])
        ends.append(alone[order, k][np.searchsorted(np.cumsum(likely[order]), [0.025, 0.975])])
    return weight @ shares, np.array(ends).T


@pytest.mark.parametrize(
    ("predicted", "confusion"),
    [
        ([12, 18], [[17, 3], [2, 18]]),
        ([9, 14, 7], [[15, 3, 2], [2, 10, 8]]),
        ([6, 8, 5, 4], [[14, 3, 1, 2], [2, 13, 3, 2], [1, 1, 12, 6]]),
    ],
    ids=["two levels", "two levels and cannot tell", "three levels and cannot tell"],
)
def test_the_chain_finds_the_posterior_that_brute_force_finds(predicted: Any, confusion: Any) -> None:
    rng = np.random.default_rng(1)
    shares = corrected_shares_many([predicted] * 24, confusion, rng=rng)
    value, (low, high) = by_brute_force(predicted, confusion, rng)
    assert np.mean([s.value for s in shares], 0) == pytest.approx(value, abs=0.01)
    assert np.mean([np.quantile(drawn(s), 0.025, 0) for s in shares], 0) == pytest.approx(low, abs=0.015)
    assert np.mean([np.quantile(drawn(s), 0.975, 0) for s in shares], 0) == pytest.approx(high, abs=0.015)


def test_the_chain_finds_the_joint_posterior_of_labels_and_predictions() -> None:
    rng = np.random.default_rng(2)
    predicted, confusion, labelled = [12, 18], [[17, 3], [2, 18]], [[3, 1], [0, 6]]
    shares = corrected_shares_many([predicted] * 6, confusion, labelled=[labelled] * 6, rng=rng)
    value, (low, high) = by_brute_force(predicted, confusion, rng, labelled=labelled)
    assert np.mean([s.value for s in shares], 0) == pytest.approx(value, abs=0.01)
    assert np.mean([np.quantile(drawn(s), 0.025, 0) for s in shares], 0) == pytest.approx(low, abs=0.015)
    assert np.mean([np.quantile(drawn(s), 0.975, 0) for s in shares], 0) == pytest.approx(high, abs=0.015)
    assert shares[0].n == 40


@pytest.mark.parametrize("counts", [[16, 1, 1, 1, 1, 0, 0, 0, 0, 0], [3, 2, 2, 3, 1, 2, 3, 2, 1, 1], [5, 2, 1, 1, 1]])
def test_a_perfect_classifier_of_many_levels_leaves_perks_values_and_jeffreys_intervals(counts: list[int]) -> None:
    n, levels = np.array(counts), len(counts)
    shares = corrected_shares_many([counts] * 32, np.eye(levels) * 10**9, rng=np.random.default_rng(0))
    assert np.mean([s.value for s in shares], 0) == pytest.approx((n + 1 / levels) / (n.sum() + 1), abs=0.003)
    for end in (0.025, 0.5, 0.975):
        jeffreys = stats.beta.ppf(end, n + 0.5, n.sum() - n + 0.5)
        assert np.mean([np.quantile(drawn(s), end, 0) for s in shares], 0) == pytest.approx(jeffreys, abs=0.01)


def test_few_images_of_many_levels_are_not_drawn_towards_even_shares() -> None:
    rng, truth = np.random.default_rng(3), np.array([0.82, *[0.02] * 9])
    audits = corrected_shares_many(rng.multinomial(20, truth, 80), np.eye(10) * 10**9, rng=rng)
    value, low, high = (np.array([getattr(s, end) for s in audits]) for end in ("value", "low", "high"))
    assert value.sum(1) == pytest.approx(1)
    # ½ on each level would leave (16.4 + ½) / 25 = 0.68 of it
    assert value[:, 0].mean() == pytest.approx((16.4 + 0.1) / 21, abs=0.02)
    covered = ((low <= truth) & (truth <= high)).mean(0)
    assert covered[0] > 0.9 and covered.mean() > 0.92


def test_rare_mistakes_for_many_levels_do_not_make_a_common_level_commoner() -> None:
    # ½ on each of nine mistakes says that 1.9 % are misread where 1 % were: .91 was found 2.3 points too high
    cell = Cell(levels=10, shares="most", images=200, labels=500, errors="sharp", undecided="by level")
    rng = np.random.default_rng(4)
    predicted = rng.multinomial(cell.images, cell.truth @ cell.chances, 32)
    audits = corrected_shares_each(predicted, labelled(cell.chances, cell.labels, 32, rng), rng=rng)
    assert np.mean([s.value[0] for s in audits]) == pytest.approx(0.91, abs=0.012)
    assert np.mean([s.low[0] <= 0.91 <= s.high[0] for s in audits]) > 0.85


def test_a_perfect_classifier_leaves_the_jeffreys_posterior() -> None:
    shares = corrected_shares([14, 46], np.eye(2) * 1_000_000, rng=np.random.default_rng(0))
    exact = stats.beta(14.5, 46.5)
    assert shares.value[0] == pytest.approx(exact.mean(), abs=0.005)
    assert (shares.low[0], shares.high[0]) == pytest.approx((exact.ppf(0.025), exact.ppf(0.975)), abs=0.015)


def test_with_a_known_matrix_and_many_images_it_is_rogan_and_gladen() -> None:
    sensitivity, specificity, seen = 0.9, 0.8, 0.35
    shares = corrected_shares(
        [3500, 6500], np.array([[0.9, 0.1], [0.2, 0.8]]) * 10_000_000, rng=np.random.default_rng(0)
    )
    assert shares.value[0] == pytest.approx((seen + specificity - 1) / (sensitivity + specificity - 1), abs=0.005)


def test_fewer_hits_than_false_alarms_alone_would_give_is_a_share_near_zero() -> None:
    shares = corrected_shares([120, 880], [[800, 200], [200, 800]], rng=np.random.default_rng(0))
    assert shares.low[0] == 0 and 0 < shares.value[0] < shares.high[0] < 0.06


def test_more_images_than_labels_still_mix() -> None:
    shares = corrected_shares([24_000, 36_000, 1_000], [[88, 28, 4], [28, 88, 4]], rng=np.random.default_rng(0))
    assert 0.2 < shares.value[0] < 0.4 and shares.high[0] - shares.low[0] > 0.15


def test_a_level_that_is_abstained_on_more_often_is_not_undercounted() -> None:
    # Half of level 0 is undecided and nothing of level 1: among the decided, equal shares look like one third.
    shares = corrected_shares([100, 200, 100], [[500, 0, 500], [0, 1000, 0]], rng=np.random.default_rng(0))
    assert shares.value[0] == pytest.approx(0.5, abs=0.02)


def test_images_that_are_harder_than_the_labelled_pictures_blame_no_level() -> None:
    labels = [[90, 8, 2], [8, 90, 2]]
    few, many = (corrected_shares([20, 30, n], labels, rng=np.random.default_rng(0)) for n in (2, 60))
    assert many.value == pytest.approx(few.value, abs=0.02) and many.n == 110


def test_chains_that_do_not_settle_are_an_error_and_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifiers.correction.ENOUGH", 10**9)
    monkeypatch.setattr("classifiers.correction.LONGEST", 32)
    with pytest.raises(RuntimeError, match=r"\[20, 30\].*outnumber"):
        corrected_shares([20, 30], [[90, 8], [8, 90]], rng=np.random.default_rng(0))
    shares = corrected_shares_many([[20, 30]], [[90, 8], [8, 90]], rng=np.random.default_rng(0))[0]
    assert np.isnan(shares.value).all() and shares.low.tolist() == [0, 0] and shares.high.tolist() == [1, 1]


def test_the_interval_covers_where_the_plain_one_fails() -> None:
    rng, audits, labels = np.random.default_rng(3), 120, 120
    plain = []
    for share, n, accuracy in [(0.05, 50, 0.95), (0.05, 400, 0.75), (0.5, 50, 0.75), (0.5, 400, 0.95)]:
        errors = matrix(accuracy)
        predicted = rng.multinomial(n, np.array([share, 1 - share]) @ errors, audits)
        confusion = np.array([[rng.multinomial(labels, row) for row in errors] for _ in range(audits)])
        corrected = corrected_shares_each(predicted, confusion, rng=rng)
        assert np.mean([s.low[0] <= share <= s.high[0] for s in corrected]) >= 0.90, (share, n, accuracy)
        plain.append(np.mean([w.low <= share <= w.high for w in (wilson(k, n) for k in predicted[:, 0])]))
    assert min(plain) < 0.05


# A person's labels of part of the images.


def test_a_few_labels_of_the_images_themselves_are_covered_with_abstention_too() -> None:
    rng, audits, truth = np.random.default_rng(11), 150, np.array([0.05, 0.95])
    told = np.array([[0.7], [0.95]])
    errors = np.hstack([matrix(0.85) * told, 1 - told])
    cells = (truth[:, None] * errors).ravel()
    labelled = rng.multinomial(10, cells, audits).reshape(audits, 2, 3)
    predicted = rng.multinomial(90, truth @ errors, audits)
    confusion = np.array([rng.multinomial(40, row) for row in errors])
    shares = corrected_shares_many(predicted, confusion, labelled=labelled, rng=rng)
    assert np.mean([s.low[0] <= truth[0] <= s.high[0] for s in shares]) >= 0.92
    alone = corrected_shares_many(predicted + labelled.sum(1), confusion, rng=rng)
    assert np.mean([s.high[0] - s.low[0] for s in shares]) < np.mean([s.high[0] - s.low[0] for s in alone])


def test_labels_of_every_image_leave_nothing_to_the_classifier() -> None:
    labelled = [[[10, 2], [3, 25]]]
    shares = corrected_shares_many([[0, 0]], [[9, 1], [1, 9]], labelled=labelled, rng=np.random.default_rng(0))[0]
    assert shares.value[0] == pytest.approx(stats.beta(12.5, 28.5).mean(), abs=0.01)
    assert (shares.low[0], shares.high[0]) == pytest.approx(stats.beta(12.5, 28.5).interval(0.95), abs=0.02)


# Errors by group.


def test_the_weight_of_other_groups_agrees_with_an_integral_over_the_beta_binomial() -> None:
    hits, n = np.array([18, 9, 14, 0]), np.array([20, 20, 15, 0])
    others, total = hits.sum() - hits, n.sum() - n
    mean = (0.5 + others) / (1 + total)
    lumps = ((n**2).sum() - n**2) / total**2

    def apart(rho: float) -> Floats:
        return np.asarray(1 - (1 - rho) * (1 - rho * lumps - (1 - rho) / (2 + total)))

    def likelihood(rho: float) -> float:
        kappa = 1 / apart(rho) - 1
        return float(stats.betabinom(n, kappa * mean, kappa * (1 - mean)).pmf(hits).prod())

    kappa = []
    for group in range(4):
        weighted = integrate.quad(lambda r, g=group: likelihood(r) * apart(r)[g], 0, 1, epsabs=0, limit=200)[0]
        kappa.append(integrate.quad(likelihood, 0, 1, epsabs=0, limit=200)[0] / weighted - 1)
    expected = np.maximum(np.array(kappa) * mean, 0.5) + hits
    result = partially_pooled(np.stack([hits, n - hits], -1)[:, None])
    assert result[:, 0, 0] == pytest.approx(expected, rel=2e-3)


def test_one_group_alone_keeps_the_plain_prior_and_tells_others_little() -> None:
    alone = partially_pooled([[[17, 3], [2, 18]], [[0, 0], [0, 0]]])
    assert alone[0].tolist() == [[17.5, 3.5], [2.5, 18.5]]
    assert alone[1].sum(1).max() < 2


def test_many_groups_that_are_alike_speak_for_one_without_labels_and_count_once() -> None:
    counts = np.tile([[180, 20], [20, 180]], (40, 1, 1))
    counts[0] = 0
    pooled = partially_pooled(counts)
    assert pooled[0].sum(1).min() > 1000
    assert (pooled.sum(-1) <= counts.sum((0, 2)) + 1 + 1e-9).all()
    assert (pooled[1:].sum(-1) > pooled[0].sum(-1)).all()


@pytest.mark.parametrize(("alike", "mean"), [(0.0, 0.85), (0.05, 0.85), (0.05, 0.97), (0.2, 0.97)])
@pytest.mark.parametrize("groups", [3, 12])
def test_the_chances_of_groups_with_and_without_labels_are_covered(groups: int, alike: float, mean: float) -> None:
    rng, covered = np.random.default_rng(12), []
    n = np.append(np.full(groups, 30), 0)
    for _ in range(100):
        size = 1 / alike - 1 if alike else 1e9
        truth = rng.beta(mean * size, (1 - mean) * size, groups + 1)
        hits = rng.binomial(n, truth)
        a, b = partially_pooled(np.stack([hits, n - hits], -1)[:, None])[:, 0].T
        low, high = stats.beta(a, b).interval(0.95)
        covered.append((low - 0.003 <= truth) & (truth <= high + 0.003))
    assert np.mean(covered, 0)[:-1].mean() >= 0.92 and np.mean(covered, 0)[-1] >= 0.90


def test_shares_of_groups_whose_errors_differ_are_covered_where_one_matrix_for_all_fails() -> None:
    rng, groups, truth = np.random.default_rng(13), 12, np.array([0.2, 0.8])
    apart, together, widths = [], [], []
    for _ in range(12):
        sharp = rng.beta(0.85 * 19, 0.15 * 19, (groups, 2))
        told = rng.beta(0.9 * 19, 0.1 * 19, (groups, 2))
        errors = np.stack([np.stack([sharp[:, 0], 1 - sharp[:, 1]], 1), np.stack([1 - sharp[:, 0], sharp[:, 1]], 1)], 2)
        errors = np.concatenate([errors * told[..., None], 1 - told[..., None]], 2)
        labels = np.array([[rng.multinomial(40 * (g > 0), row) for row in errors[g]] for g in range(groups)])
        predicted = np.array([rng.multinomial(300, truth @ e) for e in errors])
        for found, matrices in ((apart, labels), (together, labels.sum(0))):
            shares = corrected_shares_many(predicted, matrices, rng=rng)
            found.append([s.low[0] <= truth[0] <= s.high[0] for s in shares])
            if found is apart:
                widths.append([s.high[0] - s.low[0] for s in shares])
    assert np.mean(widths, 0)[0] > np.mean(widths, 0)[1:].max()
    assert np.mean(apart) >= 0.92 and np.mean(together) < 0.75


def test_abstention_that_depends_on_the_level_is_covered_at_every_level() -> None:
    rng, audits, truth = np.random.default_rng(4), 100, np.array([0.7, 0.3, 0.0])
    told = np.array([[0.98], [0.9], [0.6]])
    errors = np.hstack([matrix(0.85, 3) * told, 1 - told])
    predicted = rng.multinomial(200, truth @ errors, audits)
    confusion = np.array([[rng.multinomial(100, row) for row in errors] for _ in range(audits)])
    shares = corrected_shares_many(predicted, confusion, rng=rng)
    covered = np.mean([(s.low <= truth) & (truth <= s.high) for s in shares], 0)
    assert (covered >= 0.90).all(), covered


def test_the_shares_stay_on_the_simplex_and_in_their_intervals() -> None:
    confusion = np.eye(5, 6, dtype=int) * 40 + 2
    for s in corrected_shares_many([[40, 0, 0, 0, 0, 3], [1, 0, 0, 0, 0, 30]], confusion, rng=np.random.default_rng(0)):
        assert s.joint is not None and s.joint.sum(1) == pytest.approx(1)
        assert s.value.sum() == pytest.approx(1)
        assert (s.low >= 0).all() and (s.low <= s.value).all() and (s.value <= s.high).all() and (s.high <= 1).all()
        assert len(drawn(s)) >= 2000


def test_everything_undecided_gives_the_whole_interval_and_no_crash() -> None:
    shares = corrected_shares([0, 0, 30], [[90, 5, 5], [5, 90, 5]], rng=np.random.default_rng(0))
    assert np.isnan(shares.value).all() and shares.n == 30
    assert shares.low.tolist() == [0, 0] and shares.high.tolist() == [1, 1]


def test_a_matrix_that_tells_nothing_gives_a_wide_interval_and_a_warning() -> None:
    with pytest.warns(UserWarning, match="almost singular"):
        shares = corrected_shares([30, 70], [[50, 50], [50, 50]], rng=np.random.default_rng(0))
    assert shares.high[0] - shares.low[0] > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corrected_shares([30, 70], [[70, 30], [30, 70]], rng=np.random.default_rng(0))


def test_the_same_generator_gives_the_same_shares() -> None:
    one, two = (corrected_shares([10, 30], [[50, 5], [4, 60]], rng=np.random.default_rng(5)) for _ in range(2))
    assert one.value.tolist() == two.value.tolist() and one.low.tolist() == two.low.tolist()


@pytest.mark.parametrize(
    ("confusion", "labelled", "message"),
    [
        ([[[9, 1], [0, 0]], [[9, 1], [0, 0]]], None, "^confusion has no decided labelled picture of level 1"),
        ([[[9, 1], [1, 9]]], None, "^predicted has 2 groups and confusion 1"),
        ([[9, 1], [1, 9]], [[[1, 0], [0, 1]]], "^labelled must be"),
        ([[9, 1], [1, 9]], [[[1, 0], [0, -1]]] * 2, "^labelled "),
        ([[9, 1], [1, 9]], [[1, 0], [0, 1]], "^labelled must have 3"),
    ],
)
def test_a_bad_table_of_groups_is_named(confusion: Any, labelled: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_shares_many([[1, 1], [1, 1]], confusion, labelled=labelled, rng=np.random.default_rng(0))


def test_labels_of_the_images_alone_can_stand_in_for_a_matrix() -> None:
    labelled = [[[8, 1], [1, 10]], [[5, 1], [1, 13]]]
    shares = corrected_shares_many(
        [[40, 60], [30, 70]], np.zeros((2, 2, 2)), labelled=labelled, rng=np.random.default_rng(0)
    )
    assert 0.2 < shares[0].low[0] < shares[0].high[0] < 0.7


@pytest.mark.parametrize(
    ("predicted", "confusion", "message"),
    [
        ([1, -1], [[9, 1], [1, 9]], "^predicted "),
        ([1, 1.5], [[9, 1], [1, 9]], "^predicted "),
        ([1, math.nan], [[9, 1], [1, 9]], "^predicted "),
        (["a", 1], [[9, 1], [1, 9]], "^predicted "),
        ([1, 1], [[9, 1], [1]], "^confusion "),
        ([1, 1, 1], [[9, 1], [1, 9]], "^predicted has 3 columns and confusion 2"),
        ([1, 1], [[9, 1], [0, 0]], "^confusion has no decided labelled picture of level 1"),
        ([1, 1], [[9, 1], [1, math.nan]], "^confusion "),
        ([1, 1, 1], [[9, 1, 0], [0, 0, 9]], r"^confusion has no decided labelled picture of level 1"),
        ([1, 1], [[9, 1, 0, 0], [1, 9, 0, 0]], "^confusion must be"),
        ([1, 1], [9, 1], "^confusion must have 2"),
    ],
)
def test_a_bad_argument_is_named(predicted: Any, confusion: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corrected_shares(predicted, confusion, rng=np.random.default_rng(0))


def test_audits_that_know_nothing_of_each_other_say_what_each_says_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([rng.multinomial(10, p, 40) for p in ([0.84, 0.06, 0.1], [0.14, 0.76, 0.1])], 1)
    labels[:, [0, 1], [0, 1]] += 1  # no row is empty
    predicted = rng.multinomial(2000, [0.42, 0.48, 0.1], 40)
    together = corrected_shares_each(predicted, labels, rng=rng)
    alone = [corrected_shares(seen, matrix, rng=rng) for seen, matrix in zip(predicted, labels, strict=True)]
    assert np.stack([s.value for s in together]) == pytest.approx(np.stack([s.value for s in alone]), abs=0.05)
    as_concepts = corrected_shares_many(predicted, labels, rng=rng)  # 400 labels that are alike say more than ten do
    widths = [np.mean([s.high - s.low for s in found]) for found in (together, alone, as_concepts)]
    assert widths[0] == pytest.approx(widths[1], rel=0.05) and widths[0] > 2 * widths[2]
    with pytest.raises(ValueError, match=r"^predicted "):
        corrected_shares_each(predicted[:3], labels, rng=rng)


# Several concepts together.


@pytest.mark.parametrize("rho", [0.02, 0.3, 0.9])
def test_the_mean_of_groups_is_what_kriging_of_their_shares_gives(rho: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "UNLIKE", np.array([math.log(rho / (1 - rho))]))
    hits, n = np.array([19, 12, 4, 30]), np.array([20, 20, 5, 31])
    weights = np.array([10.0, 60.0, 5.0, 0.0, 25.0])  # the last group has no label
    counts = np.stack([np.append(hits, 0), np.append(n - hits, 0)], -1)[:, None]
    # Universal kriging (Cressie 1993, Statistics for Spatial Data, section 3.4): weights of the four shares for the mean.
    share = weights / weights.sum()
    seen = rho * np.eye(4) + (1 - rho) * np.diag(1 / n)
    system = np.block([[seen, np.ones((4, 1))], [np.ones((1, 4)), np.zeros((1, 1))]])
    of_each = np.linalg.solve(system, np.append(rho * share[:4], 1))[:4]
    missed = rho * share @ share - 2 * rho * of_each @ share[:4] + of_each @ seen @ of_each
    result = on_average(counts, weights[None, :, None], 0.5)[0, 0] - 0.5
    assert result[0] / result.sum() == pytest.approx(of_each @ (hits / n), rel=1e-9)
    assert result.sum() == pytest.approx(1 / missed, rel=1e-9)


def test_the_mean_of_groups_that_are_alike_counts_nearly_all_labels_and_no_more() -> None:
    counts = np.tile([[45, 5], [10, 40]], (30, 1, 1))
    result = on_average(counts, np.ones((1, 30, 2)))[0] - 0.5
    assert (result / result.sum(1, keepdims=True)).ravel() == pytest.approx([0.9, 0.1, 0.2, 0.8])
    assert (result.sum(1) > 1350).all() and (result.sum(1) < 1515).all()


def test_a_mean_over_concepts_is_corrected_by_the_errors_of_those_that_show_the_level() -> None:
    """Women are misread where most women are: by the mean matrix of all concepts their share is too low, and surely so."""
    rng, runs = np.random.default_rng(21), 60
    truth = np.array([0.02, 0.05, 0.05, 0.1, 0.1, 0.2, 0.2, 0.3, 0.4, 0.8, 0.9, 0.9])
    told = np.where(truth > 0.5, 0.75, 0.98)
    covered, held_by_one, wide = 0, 0, []
    for _ in range(runs):
        labels = np.array(
            [
                [[h, 40 - h], [m, 40 - m]]
                for h, m in zip(rng.binomial(40, told), rng.binomial(40, 0.02, 12), strict=True)
            ]
        )
        women = rng.binomial(100, truth)
        hits = rng.binomial(women, told) + rng.binomial(100 - women, 0.02)
        predicted = np.stack([hits, 100 - hits], -1)
        by_concept = corrected_means(predicted, labels, rng=rng)[0].estimate(0)
        by_one = corrected_means(predicted, labels.sum(0), rng=rng)[0].estimate(0)
        covered += by_concept.low <= truth.mean() <= by_concept.high
        held_by_one += by_one.low <= truth.mean() <= by_one.high
        wide.append((by_concept.high - by_concept.low) / (by_one.high - by_one.low))
    assert covered >= 0.88 * runs, covered / runs
    assert held_by_one < 0.5 * runs, held_by_one / runs
    assert np.mean(wide) < 2


def test_a_mean_over_concepts_that_are_alike_is_hardly_less_sure_by_concept() -> None:
    rng, wide = np.random.default_rng(22), []
    for _ in range(12):
        errors = [rng.multinomial(30, row, 10) for row in matrix(0.9, 3)]
        labels = np.stack(errors, 1)
        predicted = rng.multinomial(60, np.array([0.6, 0.3, 0.1]) @ matrix(0.9, 3), 10)
        both = [corrected_means(predicted, m, rng=rng)[0] for m in (labels, labels.sum(0))]
        wide.append((both[0].high - both[0].low) / (both[1].high - both[1].low))
    assert 0.95 < np.mean(wide) < 1.15


def test_means_of_concepts_are_weighed_by_image_and_name_what_is_wrong() -> None:
    rng, sure = np.random.default_rng(23), np.eye(2, dtype=int) * 10**6
    predicted = [[900, 100], [10, 90], [0, 0]]
    by_image, alike = corrected_means(predicted, sure, [[1, 1, 1], [0.1, 1, 1]], rng=rng)
    assert by_image.value[0] == pytest.approx(910 / 1100, abs=2e-3) and by_image.n == 1100
    # Kish: 100 + 100 images' weight, of 1,000 that count a tenth and 100 that count one
    assert alike.value[0] == pytest.approx(0.5, abs=6e-3) and alike.n == round(200**2 / (0.01 * 1000 + 100))
    assert math.isnan(corrected_means([[0, 0]], sure, rng=rng)[0].value[0])
    with pytest.raises(ValueError, match="predicted has 3 concepts and confusion only 2"):
        corrected_means(predicted, np.array([sure, sure]), rng=rng)
    for weights in ([[math.nan, 1, 1]], [[math.inf, 1, 1]], [[-1, 1, 1]], [[1, 1]], [1, 1, 1]):
        with pytest.raises(ValueError, match=r"^weights must"):
            corrected_means(predicted, sure, weights, rng=rng)


def test_what_is_not_known_of_a_concept_that_is_hardly_read_counts_as_it_moves_the_mean() -> None:
    """Half of the concepts are read 62 % right. With images without end all doubt is about the errors: as much as when each
    concept's rates are drawn from what its labels say, and its share solved for."""
    rng, n, size = np.random.default_rng(24), 400, 10**6
    right = np.repeat([0.62, 0.98], 4)
    hits = np.rint(right * n).astype(int)
    labels = np.array([[[h, n - h], [n - h, h]] for h in hits])
    said = np.rint(size * (0.4 * right + 0.6 * (1 - right))).astype(int)
    one, other = (rng.beta(hits + 0.5, n - hits + 0.5, (4000, 8)) for _ in range(2))
    solved = (said / size - (1 - other)) / (one + other - 1)
    found = corrected_means(np.column_stack([said, size - said]), labels, rng=rng)[0]
    assert found.value[0] == pytest.approx(0.4, abs=0.02)
    assert (found.high - found.low)[0] / 3.92 == pytest.approx(solved.mean(1).std(), rel=0.25)


def test_how_often_a_level_is_decided_on_average_is_of_all_images_and_not_of_the_decided() -> None:
    """Half are women in each of six concepts, of whom 90 % are decided in three and 30 % in the others; every man is."""
    rng, size, labelled = np.random.default_rng(4), 20_000, 4_000
    told = np.repeat([0.9, 0.3], 3)
    counts = [[round(size / 2 * t), size // 2, round(size / 2 * (1 - t))] for t in told]
    labels = [[[round(labelled * t), 0, round(labelled * (1 - t))], [0, labelled, 0]] for t in told]
    weights = [[1.0] * 6]
    share = corrected_means(counts, labels, weights, rng=rng)[0].estimate(0)
    assert share.low < 0.5 < share.high and share.value == pytest.approx(0.5, abs=0.01)
