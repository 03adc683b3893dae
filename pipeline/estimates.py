"""Counts -> shares with intervals. Pure: numbers in, numbers out; chance is an argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.types import Distribution, Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ENOUGH = 400
"""Fewest effective draws behind a posterior interval; fewer is an error, not a number."""
LABELS = 50
"""Fewest labelled images behind prediction-powered shares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """The shares of K levels among the images that show one person, in 0..1, with their intervals."""

    value: Floats
    """`(K,)`; NaN where nothing was decided."""
    low: Floats
    """`(K,)`."""
    high: Floats
    """`(K,)`."""
    n: int
    """Images that show one person, the undecided among them."""
    method: str
    draws: Floats | None = field(default=None, repr=False)
    """`(S, K)` draws from the posterior, where there is one: column k of level k alone, as its interval."""
    most: Floats | None = field(default=None, repr=False)
    """`(S, K)` where images are undecided and taken either way: `draws` are as if none of them were of a level, these as if
    all were."""
    joint: Floats | None = field(default=None, repr=False)
    """`(S, K)` draws of all levels at once, where distances are asked for: each row sums to 1."""
    undecided: Floats | None = field(default=None, repr=False)
    """`(S,)` where images are undecided and taken either way: draws of their part, and `joint` is of the others."""

    def estimate(self, level: int) -> Estimate:
        """The share of one level, by its index."""
        return Estimate(float(self.value[level]), float(self.low[level]), float(self.high[level]), self.n, self.method)


def checked_counts(name: str, values: npt.ArrayLike, *, dimensions: tuple[int, ...]) -> Ints:
    """Counts as integers, or a `ValueError` that names the argument. `dimensions` are the numbers of axes allowed."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be counts in a table, not {values!r}") from None
    if array.ndim not in dimensions:
        raise ValueError(f"{name} must have {' or '.join(map(str, dimensions))} dimensions, not {array.ndim}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be counts; NaN or infinity is none")
    if (array < 0).any() or (array != np.floor(array)).any():
        raise ValueError(f"{name} must be whole numbers from 0 on")
    return array.astype(np.int64)


def checked_level(level: float) -> float:
    """A confidence level strictly between 0 and 1, or a `ValueError`."""
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level}")
    return level


def wilson(k: int, n: int, level: float = 0.95) -> Estimate:
    """A share k/n with the score interval of Wilson (1927), JASA 22:209, which is never empty at k = 0 or k = n.

    Nothing seen is nothing known: n = 0 gives NaN in [0, 1].
    """
    checked_level(level)
    k, n = int(checked_counts("k", k, dimensions=(0,))), int(checked_counts("n", n, dimensions=(0,)))
    if k > n:
        raise ValueError(f"k must be at most n; {k} of {n} is no share")
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, "wilson")
    low, high = _score_interval(k / n, n, level)
    return Estimate(k / n, low, high, n, "wilson")


def _score_interval(share: float, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share of n; the share times n need not be whole, since published shares are rounded."""
    z2 = float(special.ndtri((1 + level) / 2)) ** 2
    centre = (share * n + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (share * n * (1 - share) + z2 / 4)) / (n + z2)
    # At the ends the formula gives 0 and 1 but for rounding, and the value must not fall outside.
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


def published(reference: Distribution, k: int, *, level: float = 0.95) -> Estimate:
    """The reference share of the k-th level, with all that is not known of it in its interval.

    Sampling error of the survey by Wilson's interval with its effective number of answers, widened to the range over
    the years (a year is a sample of the state of things that a model might have learnt from), and downwards, in each
    year, by the people whom the publisher counts in this level and a viewer may not name so. With none of these the
    share is exact.
    """
    share, least = reference.shares[k], reference.least[k]
    low, high = reference.low[k], reference.high[k]
    if reference.n is not None and not math.isnan(share):
        low = min(low, _score_interval(least, reference.n, level)[0])
        high = max(high, _score_interval(share, reference.n, level)[1])
    return Estimate(share, low, high, reference.n or 0, "reference")


def whole(shares: Sequence[float]) -> Floats | None:
    """Reference shares `(K,)` that sum to exactly 1, or `None` where they leave people out.

    A table's rounding (to 0.1 %, up to ten levels) makes the sum miss 1 by at most half a point.
    """
    total = math.fsum(shares)
    return np.array(shares) / total if abs(total - 1) <= 0.005 else None


def raw_shares(counts: npt.ArrayLike, undecided: int = 0, *, level: float = 0.95) -> Shares:
    """What the classifier said, taken at its word. `counts` `(K,)` decided images per level; `undecided`: cannot tell.

    The value is the share among the decided, which sums to 1. The interval is of the share among *all* images that
    show one person, and the undecided may be any level: from Wilson's lower end when none of them is this level to
    its upper end when all are (worst-case bounds, Manski 1989, J. Human Resources 24:343). So abstention is never
    taken for knowledge: everything undecided gives NaN in [0, 1]. The classifier's errors are not in it.

    Per level, not simultaneous: each row of a table is read alone, and over concepts and levels the tests are
    adjusted once, by Holm, so simultaneous intervals would charge twice.
    """
    counts = checked_counts("counts", counts, dimensions=(1,))
    undecided = int(checked_counts("undecided", undecided, dimensions=(0,)))
    decided = int(counts.sum())
    n = decided + undecided
    value = counts / decided if decided else np.full(len(counts), math.nan)
    low = np.array([wilson(k, n, level).low for k in counts])
    high = np.array([wilson(k + undecided, n, level).high for k in counts])
    method = "wilson, undecided counted either way" if undecided else "wilson"
    return Shares(value=value, low=low, high=high, n=n, method=method)


def prediction_powered(
    labelled: npt.ArrayLike, predicted: npt.ArrayLike, *, untold: npt.ArrayLike | None = None, level: float = 0.95
) -> Shares:
    """Shares from a random sample of images that a person labelled, made sharper by what was predicted of the others.

    `labelled` `(K, J)` counts, true level by person × predicted, of 50 images or more; `predicted` `(J,)` counts of the
    images that nobody labelled, J = K or K + 1. It asks nothing of the classifier: its errors are measured on these very
    images. PPI++ for a mean, with power tuning (Angelopoulos, Duchi and Zrnic 2023, arXiv:2311.01453, sections 2 and 6):
    per level, with Y = 1 where the image is of it and f = 1 where it is predicted to be,

        share = mean(Y) + λ (mean f of the others - mean f of the labelled),  λ = cov(Y, f) / ((1 + n/N) var f)

    The paper's interval is Wald's, and is empty where the few labels of a rare level happen to show no error: at 50
    labels and a share of .01 it covered .26 to .39. So the interval comes from tables with ½ added to each cell, as
    Agresti and Min (2005), Statistics in Medicine 24:729, do for matched pairs, clipped to 0..1: at least .94 there and
    wherever else it was tried. Per level, so the values need not sum to 1. Fewer labels are a `ValueError`.

    `untold` `(J,)`: what was predicted of further sampled images of which the person could not tell. The shares are of
    those that can be told, T = 1: a ratio mean(TY) / mean(T), with its linearization T(Y - share) / mean(T) for Y in λ and
    in the variance. Which of the others can be told need not be known, for f has the same mean over all of them.
    """
    table = checked_counts("labelled", labelled, dimensions=(2,))
    others = checked_counts("predicted", predicted, dimensions=(1,))
    levels, columns = table.shape
    if levels < 2 or columns not in (levels, levels + 1):
        raise ValueError(f"labelled must be (K, K) or (K, K + 1) with K of 2 or more, not {table.shape}")
    if len(others) != columns:
        raise ValueError(f"predicted has {len(others)} columns and labelled {columns}; they must agree")
    could_not = checked_counts("untold", np.zeros(columns) if untold is None else untold, dimensions=(1,))
    if len(could_not) != columns:
        raise ValueError(f"untold has {len(could_not)} columns and labelled {columns}; they must agree")
    n, size = int(table.sum()), int(others.sum())
    if n < LABELS:
        raise ValueError(
            f"labelled has {n} images and {LABELS} are needed; for fewer, take the joint model of labels and predictions: "
            "classifiers.correction.corrected_shares(..., labelled=...)"
        )
    z = float(special.ndtri((1 + checked_level(level)) / 2))
    true, said, both = table.sum(1), table.sum(0)[:levels], table.diagonal()
    others, could_not, more = others[:levels], could_not[:levels], int(could_not.sum())
    value = np.clip(_power_tuned(true, said, both, n, could_not, more, others, size)[0], 0, 1)
    centre, error = _power_tuned(true + 1, said + 1, both + 0.5, n + 2, could_not, more, others + 1, size + 2)
    low, high = np.clip(centre - z * error, 0, value), np.clip(centre + z * error, value, 1)
    return Shares(value=value, low=low, high=high, n=n + size, method=f"prediction-powered, {n} labelled images")


def _power_tuned(
    true: Ints,
    said: Ints,
    both: npt.NDArray[Any],
    n: int,
    untold: Ints,
    more: int,
    hits: Ints,
    size: int,
) -> tuple[Floats, Floats]:
    """PPI++ of shares and their standard errors, `(K,)` each: of n labelled images `true` are of a level, `said` are
    predicted to be and `both` are both; of `more` that cannot be told `untold`, and of `size` others `hits`, are predicted
    to be."""
    asked = n + more
    y, f, rate = true / n, (said + untold) / asked, hits / max(size, 1)
    pooled = (asked * f + size * rate) / (asked + size)
    spread, covariance = pooled * (1 - pooled), both / n - y * said / n
    tuned = covariance / np.where(spread > 0, spread, 1) * size / (asked + size)
    tuned = np.clip(tuned, 0, asked / n)
    left = y * (1 - y) * asked / n - 2 * tuned * covariance + tuned**2 * f * (1 - f)
    variance = tuned**2 * spread / max(size, 1) + np.maximum(left, 0) / asked
    return np.asarray(y + tuned * (rate - f)), np.sqrt(variance)


def central_interval(draws: Floats, level: float, *, floor: float, ceiling: float = math.inf) -> tuple[Floats, Floats]:
    """The equal-tailed interval of draws `(..., S)` of a quantity that lives in `floor`..`ceiling`.

    An equal-tailed interval never holds the end of the range, yet a model that draws no woman at all is a real case.
    So where the draws pile up at an end, the interval goes to it, as Brown, Cai and DasGupta (2001), Statistical
    Science 16:101, section 4.1.2, do for Jeffreys' interval at k = 0. "Pile up" means denser at the end than a
    uniform: from the end, the outer quantile lies nearer than the (1 - level)th part of the way to the median.
    """
    alpha = 1 - level
    low, middle, high = np.quantile(draws, [alpha / 2, 0.5, 1 - alpha / 2], axis=-1)
    low = np.where(low - floor < alpha * (middle - floor), floor, low)
    if math.isfinite(ceiling):
        high = np.where(ceiling - high < alpha * (ceiling - middle), ceiling, high)
    return low, high


def shortest_interval(draws: Floats, level: float, *, floor: float) -> tuple[float, float]:
    """The shortest interval of draws `(S,)` that holds `level` of them: Chen and Shao (1999), J. Computational and
    Graphical Statistics 8:69, section 2.

    For a scatter, which may well be none: an equal-tailed interval all but always cuts off the floor, the shortest one
    only where that is less likely than its upper end. It goes to the floor if that costs no more than 5 % of the width,
    since near a tie the noise of the draws would decide.
    """
    ordered = np.sort(draws)
    inside = math.ceil(level * len(ordered)) - 1
    widths = ordered[inside:] - ordered[: len(ordered) - inside]
    start = int(widths.argmin())
    if ordered[inside] - floor <= 1.05 * widths[start]:
        return floor, float(ordered[inside])
    return float(ordered[start]), float(ordered[start + inside])


def effective_size(draws: Floats) -> Floats:
    """How many independent draws the chains `(..., chains, n)` are worth: `(...)`.

    From the autocorrelations within chains and the disagreement between them, so chains that have not met count for
    little: Geyer (1992), Statistical Science 7:473 (initial monotone sequence); Vehtari et al. (2021), Bayesian
    Analysis 16:667, equations 10 to 13.
    """
    chains, n = draws.shape[-2:]
    centred = draws - draws.mean(-1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(centred, 2 * n)) ** 2
    covariance = np.fft.irfft(spectrum, 2 * n)[..., :n].mean(-2) / n
    within = covariance[..., :1] * n / (n - 1)
    total = covariance[..., :1] + draws.mean(-1).var(-1, ddof=1)[..., None]
    correlation = 1 - (within - covariance) / np.maximum(total, np.finfo(float).tiny)
    pairs = correlation[..., : n // 2 * 2].reshape(*correlation.shape[:-1], n // 2, 2).sum(-1)
    pairs = np.minimum.accumulate(pairs, -1) * np.logical_and.accumulate(pairs > 0, -1)
    result: Floats = chains * n / np.maximum(2 * pairs.sum(-1) - 1, 1.0)
    return result


def log_rising(start: float | Floats, n: npt.NDArray[np.int32] | Floats) -> Floats:
    """log Γ(start + n) / Γ(start): the likelihood of counts n under a Dirichlet, but for what depends on sums alone."""
    if isinstance(start, float) and n.dtype.kind == "i" and n.max(initial=0) < n.size:
        return log_rising(start, np.arange(n.max() + 1.0))[n]  # few different counts: each only once
    return np.asarray(special.gammaln(start + n) - special.gammaln(start))
