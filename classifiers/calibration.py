"""Is a probability of 0.8 right in 80 of 100? Temperature, calibration error, and a threshold for a stated risk."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from classifiers.probe import Probabilities

Truth = npt.NDArray[np.int64]
"""The place of the true level, `(n,)`."""
HOTTEST = 100.0
"""Temperatures are sought from one hundredth to this."""
FEW = 3
"""Errors among the surest pictures that end no search for a threshold."""


def temperature(logits: npt.NDArray[np.float64], truth: Truth) -> float:
    """The divisor of the logits `(n, K)` under which the labels `(n,)` are most probable.

    Guo et al. (2017), arXiv:1706.04599, section 4.2. It changes no decision but `cannot tell`. 1 where there is nothing
    to learn from. Each label is taken for right with a chance of (n + 1) / (n + 2) alone, as by Platt (1999), or a probe
    that erred nowhere would be called infallible.
    """
    n, levels = logits.shape
    if not n:
        return 1.0
    target = np.full((n, levels), 1 / (n + 2) / (levels - 1))
    target[np.arange(n), truth] = (n + 1) / (n + 2)

    def surprise(log_t: float) -> float:
        """The cross entropy of the labels."""
        return -float((target * special.log_softmax(logits / math.exp(log_t), axis=1)).sum())

    ends = math.log(HOTTEST)
    return math.exp(optimize.minimize_scalar(surprise, bounds=(-ends, ends), method="bounded").x)


def calibration_curve(
    probabilities: Probabilities, truth: Truth, bins: int = 10
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Mean probability of the best level, share of it that was right, and n, per bin of equal width that is not empty."""
    best, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == truth
    place = np.minimum((best * bins).astype(int), bins - 1)
    n = np.bincount(place, minlength=bins)
    said, held = (np.bincount(place, some, minlength=bins)[n > 0] / n[n > 0] for some in (best, right))
    return said, held, n[n > 0]


def expected_calibration_error(probabilities: Probabilities, truth: Truth, bins: int = 10) -> float:
    """Σ n_b / n · |right_b − said_b|, in 0..1; NaN of nothing. Naeini et al. (2015), AAAI; Guo et al. (2017), eq. 3."""
    if not len(truth):
        return math.nan
    said, held, n = calibration_curve(probabilities, truth, bins)
    return float((n * np.abs(held - said)).sum() / n.sum())


def noise_of_error(probabilities: Probabilities, rng: np.random.Generator, draws: int = 200) -> float:
    """The calibration error that probabilities `(n, K)` would show by chance if they were all true; NaN of nothing."""
    if not len(probabilities):
        return math.nan
    wide = probabilities.astype(np.float64)
    edges = (wide / wide.sum(1, keepdims=True)).cumsum(1)
    errors = []
    for _ in range(draws):
        truth = np.minimum((rng.random((len(wide), 1)) > edges).sum(1), wide.shape[1] - 1)
        errors.append(expected_calibration_error(probabilities, truth))
    return float(np.mean(errors))


def coverage(
    probabilities: Probabilities, truth: Truth
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What moving the threshold gives: thresholds from high to low, share decided, and accuracy among the decided."""
    best, right = probabilities.max(1), probabilities.argmax(1) == truth
    order = np.argsort(-best, kind="stable")
    last = np.append(np.flatnonzero(np.diff(best[order])), len(order) - 1) if len(order) else np.zeros(0, int)
    decided = last + 1
    return best[order][last], decided / max(len(order), 1), np.cumsum(right[order])[last] / decided


def threshold_for(
    probabilities: Probabilities, truth: Truth, risk: float, *, level: float = 0.95
) -> tuple[float, bool]:
    """The lowest threshold at which the error among the decided is at most `risk`, with a confidence of `level`.

    From a strict threshold down, as long as the upper bound of Clopper and Pearson (1934), Biometrika 26:404,
    one-sided, is at most the risk: tests in a fixed order need no correction for their number (Bauer (1991), Statistics
    in Medicine 10:871; Angelopoulos et al. (2021), arXiv:2110.01052). The order ends at the first bound above the risk,
    so it begins where a few errors are no such end: at as many decided as may have `FEW` wrong among them, or at a
    third of the pictures if that is fewer, and at no fewer than would do if none were wrong. False, and the threshold
    whose bound is least, where none keeps the risk.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk must be between 0 and 1, not {risk}")
    thresholds, decided, held = coverage(probabilities, truth)
    n = np.rint(decided * len(truth))
    wrong = np.rint((1 - held) * n)

    def bound_of(wrong: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The upper bounds, were so many of the decided wrong."""
        return np.asarray(stats.beta.ppf(level, np.add(wrong, 1), np.maximum(n - wrong, 1e-9)))

    bound = bound_of(wrong)
    tested = np.flatnonzero((bound_of(0) <= risk) & ((bound_of(FEW) <= risk) | (n >= len(truth) / 3)))
    kept = tested[: int(np.argmin(np.append(bound[tested] <= risk, False)))]
    if len(kept):
        return float(thresholds[kept[-1]]), True
    return (float(thresholds[int(bound.argmin())]) if len(bound) else 1.0), False
