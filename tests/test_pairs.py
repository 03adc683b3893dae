"""The change between two readings, held against brute force, paired methods of others and simulated audits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pipeline.estimates import Floats, Ints, wilson
from pipeline.pairs import METHOD, TRIES, Paired, paired_shares, paired_shares_many

PERFECT = np.eye(2, dtype=int) * 10**9


def errors(accuracy: float, *told: float) -> Floats:
    """A matrix whose levels are decided as often as `told`."""
    levels = len(told)
    rows = np.full((levels, levels), (1 - accuracy) / (levels - 1))
    np.fill_diagonal(rows, accuracy)
    chance = np.array(told)[:, None]
    return np.hstack([rows * chance, 1 - chance])


def coupled(before: Any, after: Any, together: float) -> Floats:
    """Pairs with these margins: a part as concordant as can be, the rest independent."""
    p, q = np.array(before), np.array(after)
    kept = np.minimum(p, q)
    moved = np.outer(p - kept, q - kept) / max((p - kept).sum(), 1e-12)
    return np.asarray(together * (np.diag(kept) + moved) + (1 - together) * np.outer(p, q))


def audits(
    truth: Floats, rows: Floats, n: int, labels: int, runs: int, rng: np.random.Generator, other: Floats | None = None
) -> list[Paired]:
    seen = rows.T @ truth @ (rows if other is None else other)
    pairs = rng.multinomial(n, seen.ravel(), runs).reshape(runs, *seen.shape)
    known = [
        np.array([[rng.multinomial(labels, row) for row in matrix] for _ in range(runs)])
        for matrix in (rows, other)
        if matrix is not None
    ]
    return paired_shares_many(pairs, *known, rng=rng)


def covered(found: list[Paired], truth: Floats, level: int = 0) -> float:
    change = float(truth[:, level].sum() - truth[level].sum())
    return float(np.mean([f.change[level].low <= change <= f.change[level].high for f in found]))


def by_brute_force(pairs: Any, first: Any, second: Any, rng: np.random.Generator, draws: int = 200_000) -> Floats:
    """Mean and interval of the first level's change without a chain: parameters drawn, and kept where shares result."""
    k, columns = len(first), len(first[0])
    prior = np.full((columns, columns), 0.5 / k)
    prior[:k, :k] = np.where(np.eye(k) > 0, 0.5, 0.5 / (k - 1))
    table = rng.dirichlet(((prior if k == 2 else prior / k) + pairs).ravel(), draws).reshape(-1, columns, columns)
    sides, drawn = [table[:, :k].sum(2), table[:, :, :k].sum(1)], []
    for matrix in (first, second) if second else (first,):
        rows = np.stack(
            [rng.dirichlet(row[:k] + own, draws) for row, own in zip(matrix, prior[:k, :k], strict=True)], 1
        )
        chance = [rng.beta(1 + sum(row[:k]), 0.5 + sum(row[k:]), draws) for row in matrix]
        drawn.append((rows, np.stack(chance if columns > k else np.ones_like(chance), 1)))
    shares, inside = [], np.ones(draws, bool)
    for seen, (rows, chance) in zip(sides, (drawn[0], drawn[-1]), strict=True):
        share = np.einsum("sjk,sj->sk", np.linalg.inv(rows), seen / seen.sum(1, keepdims=True))
        inside &= (share > 0).all(1)
        share = share / chance
        shares.append(share[:, 0] / share.sum(1))
    change = (shares[1] - shares[0])[inside]
    return np.array([change.mean(), *np.quantile(change, [0.025, 0.975])])


@pytest.mark.parametrize(
    ("pairs", "first", "second"),
    [
        ([[12, 3], [6, 9]], [[17, 3], [2, 18]], None),
        ([[12, 3], [6, 9]], [[17, 3], [2, 18]], [[15, 5], [1, 20]]),
        ([[9, 2, 1], [5, 8, 2], [1, 2, 3]], [[15, 3, 2], [2, 10, 8]], None),
        ([[6, 1, 1, 0], [2, 5, 2, 1], [1, 0, 4, 0], [0, 1, 1, 2]], [[14, 3, 1, 2], [2, 13, 3, 2], [1, 1, 12, 6]], None),
    ],
    ids=["one matrix", "two matrices", "cannot tell", "three levels and cannot tell"],
)
@pytest.mark.parametrize("tries", [TRIES, 0], ids=["independent draws", "chains"])
def test_the_posterior_is_the_one_that_brute_force_finds(
    pairs: Any, first: Any, second: Any, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.pairs.TRIES", tries)
    rng = np.random.default_rng(1)
    found = [f.change[0] for f in paired_shares_many([pairs] * 6, first, second, rng=rng)]
    sampled = np.mean([[e.value, e.low, e.high] for e in found], 0)
    assert sampled == pytest.approx(by_brute_force(pairs, first, second, rng), abs=0.02)


def newcombe(pairs: Any) -> tuple[float, float]:
    """Newcombe (1998), Statistics in Medicine 17:2635, method 10: Wilson's intervals, joined by the correlation φ."""
    (a, b), (c, d) = np.array(pairs, dtype=float)
    n = a + b + c + d
    first, second = wilson(int(a + b), int(n)), wilson(int(a + c), int(n))
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    top = a * d - b * c
    phi = (max(top - n / 2, 0) if top > 0 else top) / math.sqrt(margins) if margins else 0.0

    def half(x: float, y: float) -> float:
        return math.sqrt(x * x - 2 * phi * x * y + y * y)

    change = second.value - first.value
    down = half(second.value - second.low, first.high - first.value)
    up = half(second.high - second.value, first.value - first.low)
    return change - down, change + up


@pytest.mark.parametrize(
    "pairs", [[[40, 10], [25, 125]], [[36, 2], [12, 50]], [[300, 40], [20, 40]], [[90, 0], [9, 1]], [[0, 1], [4, 195]]]
)
def test_with_a_perfect_classifier_it_is_close_to_newcombes_paired_interval(pairs: Any) -> None:
    found = paired_shares(pairs, PERFECT, rng=np.random.default_rng(0)).change[0]
    low, high = newcombe(pairs)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    assert found.value == pytest.approx((pairs[1][0] - pairs[0][1]) / np.sum(pairs), abs=0.01)


@pytest.mark.parametrize(
    ("before", "after", "accuracy", "n"), [(0.02, 0.10, 0.95, 50), (0.3, 0.5, 0.8, 400), (0.0, 0.04, 0.95, 50)]
)
def test_the_change_is_covered(before: float, after: float, accuracy: float, n: int) -> None:
    rng, runs = np.random.default_rng(2), 96
    truth = coupled([before, 1 - before], [after, 1 - after], 0.8)
    found = audits(truth, errors(accuracy, 0.95, 0.85), n, 120, runs, rng)
    assert covered(found, truth) >= 0.90
    odds = stats.logistic.ppf(after) - stats.logistic.ppf(before)
    assert np.mean([f.log_odds[0].low <= odds <= f.log_odds[0].high for f in found]) >= 0.88


@pytest.mark.parametrize(("n", "share"), [(50, 0.04), (200, 0.01), (200, 0.02)])
def test_a_change_of_few_pairs_that_all_go_one_way_is_covered(n: int, share: float) -> None:
    """A perfect probe sees how many of n pairs changed: by the binomial, how often is that number's interval right?"""
    changed = np.arange(int(stats.binom.ppf(1 - 1e-4, n, share)) + 1)
    tables = np.array([[[(n - x) // 2, 0], [x, n - x - (n - x) // 2]] for x in changed])
    found = paired_shares_many(tables, PERFECT, rng=np.random.default_rng(5))
    right = [f.change[0].low <= share <= f.change[0].high for f in found]
    assert stats.binom.pmf(changed, n, share) @ right >= 0.93


def test_the_change_is_covered_with_three_levels_and_two_matrices() -> None:
    rng = np.random.default_rng(3)
    truth = coupled([0.2, 0.3, 0.5], [0.4, 0.3, 0.3], 0.7)
    found = audits(truth, errors(0.85, 0.95, 0.9, 0.8), 100, 120, 64, rng, errors(0.75, 0.9, 0.9, 0.9))
    assert min(covered(found, truth, k) for k in range(3)) >= 0.88


def test_a_perfectly_known_poor_matrix_gives_the_change_of_rogan_and_gladen() -> None:
    truth, rows = coupled([0.3, 0.7], [0.5, 0.5], 0.8), np.array([[0.8, 0.2], [0.1, 0.9]])
    pairs = np.rint(rows.T @ truth @ rows * 20_000)
    seen = pairs.sum(0)[0] / pairs.sum() - pairs.sum(1)[0] / pairs.sum()
    found = paired_shares(pairs, rows * 10**7, rng=np.random.default_rng(0)).change[0]
    assert found.value == pytest.approx(seen / (0.8 + 0.9 - 1), abs=0.01)


def test_a_level_that_is_abstained_on_more_often_makes_no_change() -> None:
    # Half of level 0 is undecided, of level 1 nothing: (0, 0) pairs are decided on both sides in a quarter of cases.
    pairs = [[50, 0, 50], [0, 200, 0], [50, 0, 50]]
    found = paired_shares(pairs, [[500, 0, 500], [0, 1000, 0]], rng=np.random.default_rng(0))
    assert found.first.value[0] == pytest.approx(0.5, abs=0.02)
    assert found.change[0].value == pytest.approx(0, abs=0.01)
    assert (found.n, found.missing) == (250, 150)


def test_the_factor_of_the_variance_is_what_simulated_pairs_show() -> None:
    rng, n = np.random.default_rng(4), 200
    truth = coupled([0.3, 0.7], [0.5, 0.5], 0.8)
    many = rng.multinomial(n, truth.ravel(), 20_000).reshape(-1, 2, 2) / n
    before, after = many[:, 0].sum(-1), many[:, :, 0].sum(-1)
    factor = (after - before).var() / (before.var() + after.var())
    found = paired_shares(np.rint(truth * n), PERFECT, rng=rng)
    assert found.raw_variance_factor == pytest.approx(factor, rel=0.05)
    assert found.variance_factor == pytest.approx(factor, rel=0.15)
    apart = paired_shares(np.outer([60, 140], [100, 100]) / 200, PERFECT, rng=rng)
    assert apart.raw_variance_factor == pytest.approx(1) and apart.variance_factor == pytest.approx(1, abs=0.15)


def test_two_levels_are_tested_by_mcnemar_and_two_matrices_by_the_posterior() -> None:
    rng, pairs = np.random.default_rng(5), [[40, 5], [16, 39]]
    one = paired_shares(pairs, [[90, 10], [10, 90]], rng=rng)
    assert one.p == pytest.approx(stats.binomtest(5, 21, 0.5).pvalue) and "McNemar" in one.test
    other = paired_shares(pairs, [[90, 10], [10, 90]], [[90, 10], [30, 70]], rng=rng)
    assert "posterior" in other.test
    assert paired_shares([[40, 0], [0, 60]], PERFECT, rng=rng).p == 1


def test_raw_decisions_that_move_because_the_second_matrix_is_poorer_are_no_change() -> None:
    rng, truth = np.random.default_rng(6), np.diag([0.2, 0.8])
    found = audits(truth, errors(0.95, 1, 1), 300, 200, 48, rng, errors(0.75, 1, 1))
    assert covered(found, truth) >= 0.88
    assert np.mean([f.p < 0.05 for f in found]) <= 0.12


def test_no_change_is_rejected_about_as_seldom_as_it_says() -> None:
    rng, truth = np.random.default_rng(7), coupled([0.2, 0.3, 0.5], [0.2, 0.3, 0.5], 0.7)
    found = audits(truth, errors(0.9, 1, 1, 1), 100, 120, 96, rng)
    assert np.mean([f.p < 0.05 for f in found]) <= 0.10


@pytest.mark.parametrize("n", [50, 400])
def test_errors_that_both_pictures_of_a_pair_share_leave_the_change_covered(n: int) -> None:
    """Pictures of one truth are read with one error: a model of errors that are independent covered 45 % at n = 50."""
    rng, runs = np.random.default_rng(8), 96
    truth, rows = coupled([0.3, 0.7], [0.5, 0.5], 0.9), np.array([[0.8, 0.2], [0.2, 0.8]])
    kept = np.diag(np.diag(truth))
    seen = np.diag(np.diag(truth) @ rows) + rows.T @ (truth - kept) @ rows
    pairs = rng.multinomial(n, seen.ravel(), runs).reshape(runs, 2, 2)
    known = np.array([[rng.multinomial(120, row) for row in rows] for _ in range(runs)])
    found = paired_shares_many(pairs, known, rng=rng)
    assert covered(found, truth) >= 0.90
    assert np.mean([f.change[0].value for f in found]) == pytest.approx(0.2, abs=0.03)


def test_everything_undecided_is_unknown_and_no_crash() -> None:
    found = paired_shares([[0, 0, 3], [0, 0, 2], [1, 0, 9]], [[9, 1, 0], [1, 9, 0]], rng=np.random.default_rng(0))
    assert math.isnan(found.change[0].value) and found.change[0][1:3] == (-1, 1)
    assert found.log_odds[0][1:3] == (-math.inf, math.inf) and (found.n, found.missing, found.p) == (0, 15, 1)


def test_a_share_that_may_be_zero_has_an_open_end_on_the_log_odds_scale() -> None:
    found = paired_shares([[0, 0], [12, 88]], PERFECT, rng=np.random.default_rng(0))
    assert found.first.low[0] == 0 and found.log_odds[0].high == math.inf and found.log_odds[0].low > 0
    assert found.change[0].low > 0.04


def test_chains_that_do_not_settle_are_an_error_and_not_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.pairs.TRIES", 0)
    monkeypatch.setattr("pipeline.pairs.ENOUGH", 10**9)
    monkeypatch.setattr("pipeline.pairs.LONGEST", 32)
    with pytest.raises(RuntimeError, match="outnumber"):
        paired_shares([[20, 5], [3, 30]], [[90, 8], [8, 90]], rng=np.random.default_rng(0))
    found = paired_shares_many([[[20, 5], [3, 30]]], [[90, 8], [8, 90]], rng=np.random.default_rng(0))[0]
    assert found.first.method != METHOD and found.change[0][1:3] == (-1, 1)


def test_the_same_generator_gives_the_same_change() -> None:
    one, two = (paired_shares([[20, 5], [3, 30]], [[9, 1], [1, 9]], rng=np.random.default_rng(5)) for _ in range(2))
    assert one.change == two.change


@pytest.mark.parametrize(
    ("pairs", "confusion", "other", "message"),
    [
        ([[1, -1], [0, 1]], PERFECT, None, "^pairs "),
        ([[1, 0.5], [0, 1]], PERFECT, None, "^pairs "),
        ([[1, math.nan], [0, 1]], PERFECT, None, "^pairs "),
        ([1, 1], PERFECT, None, "^pairs must have 2"),
        ([[1, 1, 0], [1, 1, 0], [0, 0, 0]], PERFECT, None, r"^pairs \(3, 3\) and confusion"),
        ([[1, 1], [1, 1]], [[9, 1], [0, 0]], None, "^confusion has no decided labelled picture of level 1"),
        ([[1, 1], [1, 1]], PERFECT, np.eye(3, dtype=int) * 9, r"^pairs \(2, 2\) and other_confusion"),
    ],
)
def test_a_bad_argument_is_named(pairs: Any, confusion: Ints, other: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_shares(pairs, confusion, other, rng=np.random.default_rng(0))


def test_a_level_of_95_percent_written_as_95_is_an_error() -> None:
    with pytest.raises(ValueError, match="level"):
        paired_shares([[1, 1], [1, 1]], PERFECT, level=95, rng=np.random.default_rng(0))


def test_a_common_level_of_five_is_not_drawn_to_where_all_are_even() -> None:
    """From nine tenths to a fifth, 20 pairs; with a pair on each level beforehand 3 of 4 audits held it."""
    truth = coupled([0.9, *[0.025] * 4], [0.2] * 5, 0.0)
    rng = np.random.default_rng(3)
    found = audits(truth, errors(0.97, *[1.0] * 5)[:, :5], 20, 200, 60, rng)
    assert covered(found, truth) >= 0.87
    assert np.mean([one.change[0].value for one in found]) == pytest.approx(-0.7, abs=0.1)
