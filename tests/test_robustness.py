"""How wrong the classifier would have to be, held against leans that were put in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import special
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from pipeline.amplification import pooled
from pipeline.estimates import Floats, Ints
from pipeline.robustness import TOLERANCE, erasing_difference, erasing_lean, measured_difference, measured_lean
from pipeline.types import Estimate

BASE = 0.45
REFERENCE = special.expit(np.linspace(-2, 2, 12))
SHARP = np.array([[970, 30], [30, 970]])


def leaning(lean: float, n: int, stretch: float = 1.0) -> Ints:
    """What is predicted, without chance, where the truth has this stretch and the probe this lean."""
    x = special.logit(REFERENCE) - special.logit(BASE)
    share = special.expit(special.logit(BASE) + stretch * x)
    chance = np.clip(share * 0.97 + (1 - share) * 0.03 + lean * np.sign(x), 0, 1)
    return np.rint(n * np.column_stack([chance, 1 - chance])).astype(np.int64)


def stretch(predicted: Ints) -> Estimate:
    return pooled(predicted, SHARP, REFERENCE, BASE, rng=np.random.default_rng(0)).stretch


def erasing(predicted: Any, reference: Any = REFERENCE, seed: int = 0) -> float:
    found = pooled(predicted, SHARP, reference, BASE, rng=np.random.default_rng(seed)).stretch
    return erasing_lean(found, predicted, SHARP, reference, BASE, rng=np.random.default_rng(seed))


def test_a_stretch_that_is_nothing_but_a_lean_is_erased_by_a_little_less_than_that_lean() -> None:
    predicted = leaning(0.08, 2000)
    assert stretch(predicted).low > 1
    lean = erasing(predicted)
    assert 0.04 < lean < 0.08
    # Just so much of it taken out, and the finding is gone; a little less, and it stands.
    assert stretch(leaning(0.08 - lean - 0.006, 2000)).low < 1 < stretch(leaning(0.08 - lean + 0.006, 2000)).low


def test_a_larger_finding_takes_a_larger_lean_and_none_takes_none() -> None:
    small, large = (erasing(leaning(0, 200, s), seed=1) for s in (1.6, 2.5))
    assert 0 < small < large < 0.3
    assert erasing(leaning(0, 200)) == 0


def test_a_stretch_below_one_is_erased_by_a_lean_the_other_way() -> None:
    predicted = leaning(-0.08, 2000)
    assert stretch(predicted).high < 1
    assert 0.04 < erasing(predicted, seed=2) < 0.08


@pytest.mark.parametrize("ends", [(1.001, 1.9), (0.6, 0.999)])
def test_a_stretch_that_other_draws_do_not_find_is_erased_by_less_than_can_be_told(ends: tuple[float, float]) -> None:
    """Seen at one image a prompt: the interval of the estimate just missed 1, that of the search's own draws held it."""
    predicted = leaning(0, 20)
    own = stretch(predicted)
    assert own.low < 1 < own.high
    found = own._replace(low=ends[0], high=ends[1])
    assert erasing_lean(found, predicted, SHARP, REFERENCE, BASE, rng=np.random.default_rng(0)) == TOLERANCE


def test_what_has_no_stretch_has_no_lean_that_erases_it() -> None:
    assert math.isnan(erasing([[5, 5], [3, 7]], [0.2, 0.8]))


def test_concepts_without_images_change_nothing() -> None:
    more, reference = np.vstack([leaning(0.08, 500), [[0, 0]]]), np.append(REFERENCE, 0.5)
    assert erasing(more, reference, seed=3) == erasing(more[:-1], seed=3)


@pytest.mark.parametrize(
    ("finding", "expected"),
    [((0.2, 0.12, 0.3), 0.12), ((-0.2, -0.3, -0.1), 0.1), ((0.1, -0.01, 0.2), 0), ((math.nan, -1, 1), math.nan)],
)
def test_a_difference_is_erased_by_rogan_and_gladens_lean(finding: Any, expected: float) -> None:
    sensitivity, specificity = 0.9, 0.7
    result = erasing_difference(Estimate(*finding, 100, ""), [[90, 10, 50], [60, 140, 3]])
    assert result == pytest.approx(expected * (sensitivity + specificity - 1), nan_ok=True)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_of_several_levels_a_difference_is_erased_by_the_lean_that_moves_the_share_most(level: int) -> None:
    labels = np.array([[80, 15, 5, 9], [10, 60, 30, 2], [5, 25, 70, 0]])
    lean = erasing_difference(Estimate(0.2, 0.12, 0.3, 100, ""), labels, level)
    rates = labels[:, :3] / labels[:, :3].sum(1, keepdims=True)
    predicted = np.array([0.3, 0.3, 0.4]) @ rates
    moved = []
    for other in {0, 1, 2} - {level}:
        leant = predicted + lean * (np.eye(3)[level] - np.eye(3)[other])
        moved.append(np.linalg.lstsq(rates.T, leant, rcond=None)[0][level] - [0.3, 0.3, 0.4][level])
    assert max(moved) == pytest.approx(0.12) and min(moved) < 0.11


def test_where_two_levels_are_never_told_apart_nothing_is_needed_to_erase_a_difference() -> None:
    with pytest.warns(UserWarning, match="almost singular"):
        assert erasing_difference(Estimate(0.2, 0.12, 0.3, 100, ""), [[8, 1, 1], [0, 5, 5], [0, 5, 5]], 1) == 0


def test_a_difference_from_a_bounded_reference_is_erased_from_its_nearer_end() -> None:
    assert erasing_difference(Estimate(math.nan, 0.1, 0.3, 100, ""), [[10, 0], [0, 10]]) == pytest.approx(0.1)


def test_the_lean_of_labelled_pictures_is_newcombes_half_difference() -> None:
    women = [[[50, 6, 3], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[40, 20, 5], [0, 0, 0]]]
    men = [[[0, 0, 0], [9, 41, 1]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [5, 55, 0]]]
    result = measured_lean(np.array(women) + men, [0.8, BASE, 0.1], BASE)
    gaps = [50 / 56 - 40 / 60, 9 / 50 - 5 / 60]
    assert result.value == pytest.approx(sum(gaps) / 4) and result.n == 226
    first = confint_proportions_2indep(50, 56, 40, 60, method="newcomb")
    second = confint_proportions_2indep(9, 50, 5, 60, method="newcomb")
    below = math.hypot(gaps[0] - first[0], gaps[1] - second[0]) / 4
    above = math.hypot(first[1] - gaps[0], second[1] - gaps[1]) / 4
    assert (result.low, result.high) == pytest.approx((result.value - below, result.value + above))


def test_a_lean_that_was_put_in_is_covered_though_concepts_differ() -> None:
    rng, runs, lean, covered = np.random.default_rng(4), 400, 0.06, 0
    side = np.sign(REFERENCE - BASE)
    hit: Floats = np.array([[0.8], [0.15]]) + lean * side + rng.uniform(-0.1, 0.1, (2, 12))
    truth = (hit[:, side > 0].mean(1) - hit[:, side < 0].mean(1)).mean() / 2
    for _ in range(runs):
        k = rng.binomial(25, hit)
        found = measured_lean(np.stack([k, 25 - k], -1).swapaxes(0, 1), REFERENCE, BASE)
        covered += found.low <= truth <= found.high
    assert covered / runs >= 0.93


def test_a_level_that_nobody_labelled_on_one_side_leaves_the_lean_unknown() -> None:
    result = measured_lean([[[9, 1], [0, 0]], [[8, 2], [1, 9]]], [0.8, 0.2], BASE)
    assert math.isnan(result.value) and "not known" in result.method
    known = confint_proportions_2indep(9, 10, 8, 10, method="newcomb")
    low, high = proportion_confint(1, 10, method="wilson")  # against anything from 0 to 1
    assert (result.low, result.high) == pytest.approx(((known[0] - high) / 4, (known[1] + 1 - low) / 4))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"confusion": [[[9, 1], [1, -9]]]}, "^confusion "),
        ({"confusion": [[[9, 1]]]}, "^confusion "),
        ({"reference": [math.nan]}, "^reference "),
        ({"reference": [0.3, 0.2]}, "^reference "),
        ({"base": 0.0}, "^base "),
    ],
)
def test_a_bad_argument_is_named(changed: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"confusion": [[[9, 1], [1, 9]]], "reference": [0.3], "base": BASE}
    with pytest.raises(ValueError, match=message):
        measured_lean(**(good | changed))
    with pytest.raises(ValueError, match=r"^confusion "):
        erasing_difference(Estimate(0.1, 0.05, 0.2, 9, ""), np.eye(3)[:, :2] * 9)
    with pytest.raises(ValueError, match=r"^level "):
        erasing_difference(Estimate(0.1, 0.05, 0.2, 9, ""), np.eye(3) * 9, 3)
    with pytest.raises(ValueError, match=r"^predicted "):
        erasing([[1, -2], [3, 4], [5, 6]], [0.2, 0.5, 0.8])


def test_the_measured_difference_is_the_mean_of_newcombes_over_the_true_levels() -> None:
    before, after = np.array([[45, 5, 9], [4, 76, 9]]), np.array([[49, 1, 0], [24, 56, 3]])
    gaps = [(49 / 50 - 45 / 50), (24 / 80 - 4 / 80)]
    ends = [
        confint_proportions_2indep(b[0], b[:2].sum(), a[0], a[:2].sum(), method="newcomb")
        for a, b in zip(before, after, strict=True)
    ]
    half = [np.hypot(*(abs(end[side] - gap) for end, gap in zip(ends, gaps, strict=True))) / 2 for side in (0, 1)]
    found = measured_difference(before, after)
    mean = sum(gaps) / 2
    assert found[:3] == pytest.approx((mean, mean - half[0], mean + half[1]), abs=1e-6)
    assert measured_difference(before, after, 1).value == pytest.approx(-mean)
    with pytest.raises(ValueError, match=r"^level must"):
        measured_difference(before, after, 2)
