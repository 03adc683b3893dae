"""How wrong would the classifier have to be? The smallest lean of the probe that would erase a finding, and the lean
that was measured.

A lean δ: among decided images of the same true level, the probe says "the level" δ more often (a share of them) where
the reference lies above the base rate, and δ less often where it lies below: it reads the occupation as gender. Such
an error makes amplification that no matrix measured over all concepts together can take out. Where errors are by concept,
the lean that labelled pictures show is taken out already, and what erases a finding is a lean beyond it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from classifiers.confusion import checked_confusion
from pipeline import mixed_model
from pipeline.amplification import average, checked_pool, difference
from pipeline.estimates import Floats, central_interval, checked_counts, wilson
from pipeline.types import Estimate

TOLERANCE = 0.002
"""Of the lean that erases a stretch, in 0..1."""


def erasing_lean(
    stretch: Estimate,
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    base: float,
    *,
    answers: npt.ArrayLike | None = None,
    level: float = 0.95,
    rng: np.random.Generator,
) -> float:
    """The smallest lean δ in 0..1 that would explain a pooled stretch away.

    `stretch` is `amplification.pooled`'s of the other arguments. For one above 1 a lean towards the stereotype, for one
    below 1 a lean away from it. What the lean alone would have predicted, δ of a concept's decided images, is taken
    back out of its counts (not beyond none or all of them), the model is fitted again, and δ is sought where the
    interval just reaches 1, to 0.002 (Brent's method; all fits share their chance, so that they differ by δ alone,
    but for the one without a lean, which is the stretch's own).
    0 where the interval holds 1 already, and 0.002 at least where it does not: the other fits' chance may be enough by
    itself. inf where no lean is enough, NaN where there is no stretch or a fit of those in between is not good enough.
    """
    counts, matrix, x, doubt = checked_pool(predicted, confusion, reference, base, answers, ())
    if not stretch.known:
        return math.nan
    if stretch.low <= 1 <= stretch.high:
        return 0.0
    upwards, chance = stretch.low > 1, int(rng.integers(2**63))
    towards = np.sign(x) * (1 if upwards else -1)

    @functools.cache  # the search looks at the ends of its interval once more
    def left(lean: float) -> float:
        """How far the interval's end is still beyond 1."""
        if lean == 0:
            return stretch.low - 1 if upwards else 1 - stretch.high
        fitted = _stretch(counts[:, :2], lean * towards, matrix, x, doubt, base, level, np.random.default_rng(chance))
        if fitted is None:
            raise ArithmeticError(f"no fit at a lean of {lean}")
        return float(fitted[0] - 1 if upwards else 1 - fitted[1])

    try:
        return max(_where_it_ends(left), TOLERANCE)
    except ArithmeticError:
        return math.nan


def in_points(lean: float) -> str:
    """`4.2`; a lean that is as small as the search can tell is `less than 0.2`."""
    return f"{100 * lean:.1f}" if lean > TOLERANCE else f"less than {100 * TOLERANCE:.1f}"


def _where_it_ends(left: Callable[[float], float]) -> float:
    """The smallest lean at which nothing is left of a finding, inf where that is never."""
    tried = 0.0
    for lean in (0.05, 0.12, 0.3, 0.6, 1.0):
        if left(lean) <= 0:
            return float(optimize.brentq(left, tried, lean, xtol=TOLERANCE))
        tried = lean
    return math.inf


def _stretch(
    counts: npt.NDArray[np.int64],
    lean: Floats,
    matrix: npt.NDArray[np.int64],
    x: Floats,
    doubt: Floats,
    base: float,
    level: float,
    rng: np.random.Generator,
) -> Floats | None:
    """The interval of the stretch once each concept's lean `(C,)` is taken out of its counts `(C, 2)`."""
    n = counts.sum(1)
    hits = np.clip(counts[:, 0] - lean * n, 0, n)
    left = np.column_stack([hits, n - hits])
    draws = mixed_model.posterior(left, matrix, x, doubt, float(special.logit(base)), rng, spread=True)
    return None if draws is None else np.array(central_interval(draws[1], level, floor=-math.inf))


def erasing_difference(finding: Estimate, confusion: npt.ArrayLike, level: int = 0) -> float:
    """The smallest lean that would erase a difference of shares: a mean difference, or an arm's effect, in 0..1.

    `confusion` `(K, J)` counts, `level` the one of its K levels whose share the finding is about. A lean δ takes δ of
    the decided images from another level j and says `level` of them; the corrected shares, D⁻ᵀ times what is predicted
    with D the rates of the decided, move by δ D⁻ᵀ(e_level - e_j). The j counts whose share of the correction is
    largest: so much takes the end of the interval that is nearer to 0. For two levels that is the end times |det D|,
    det D = sensitivity + specificity - 1 (Rogan and Gladen 1978, American J. Epidemiology 107:71). 0 where the interval
    holds 0 or D is singular, NaN where there is no finding.
    """
    matrix = checked_confusion(confusion)
    if not 0 <= level < len(matrix):
        raise ValueError(f"level must be one of {len(matrix)}, from 0 on, not {level}")
    rates = matrix[:, : len(matrix)] / matrix[:, : len(matrix)].sum(1, keepdims=True)
    if finding.low <= 0 <= finding.high:
        return 0.0 if finding.known else math.nan
    if np.linalg.matrix_rank(rates) < len(matrix):
        return 0.0
    of_level = np.linalg.inv(rates)[:, level]  # what an image predicted to be each level adds to this level's share
    return float(min(abs(finding.low), abs(finding.high)) / np.abs(of_level[level] - of_level).max())


def measured_difference(before: npt.ArrayLike, after: npt.ArrayLike, level: int = 0) -> Estimate:
    """How much more often a level is said after than before of pictures that show the same, in -1..1.

    To be held against `erasing_difference` of a change. `before` and `after` `(K, J)` counts on labelled pictures of each
    side: the difference in the chance that a decided picture is predicted to be the level given its true level, averaged
    over the true levels. Interval: Newcombe's (1998) method 10 per true level, combined by MOVER.
    """
    sides = [checked_confusion(matrix) for matrix in (before, after)]
    levels = len(sides[0])
    if len(sides[1]) != levels or not 0 <= level < levels:
        raise ValueError(f"level must be one of {levels}, and before and after of as many, not {level}")
    was, now = ([wilson(row[level], row[:levels].sum()) for row in matrix] for matrix in sides)
    mean = average([difference(a, b) for a, b in zip(now, was, strict=True)])
    return mean._replace(method="difference in error on labelled pictures, MOVER (wilson)")


def measured_lean(confusion: npt.ArrayLike, reference: npt.ArrayLike, base: float, *, level: float = 0.95) -> Estimate:
    """The lean δ that labelled pictures show, in -1..1, to be held against `erasing_lean`'s.

    `confusion` `(C, K, J)` counts by concept, the level first among the K; `reference` `(C,)` its shares, `base` the
    base rate. Half the difference, between concepts above the base and those below, in the chance that a decided
    picture is predicted to be the level given its true level, averaged over the true levels. Pictures are pooled within
    a side, so that concepts weigh by their labels.

    Interval: Newcombe's (1998), Statistics in Medicine 17:873, method 10, per true level; combined by MOVER. It is
    about these concepts: that their own chances differ only makes Wilson's intervals wider than need be. A true level
    without a decided picture on one side leaves the lean unknown: NaN, in what the rest allows.
    """
    counts = checked_counts("confusion", confusion, dimensions=(3,))
    levels, columns = counts.shape[1:]
    shares = np.asarray(reference, dtype=np.float64)
    if levels < 2 or columns not in (levels, levels + 1):
        raise ValueError(f"confusion must be (C, K, K) or (C, K, K + 1) with K of 2 or more, not {counts.shape}")
    if shares.shape != (len(counts),) or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"reference must give a share in 0..1 for each of the {len(counts)} concepts")
    if not 0 < base < 1:
        raise ValueError(f"base must be between 0 and 1, not {base}")
    above, below = (counts[side][:, :, :levels].sum(0) for side in (shares > base, shares < base))
    gaps = [
        difference(wilson(up[0], up.sum(), level), wilson(down[0], down.sum(), level))
        for up, down in zip(above, below, strict=True)
    ]
    n = int(above.sum() + below.sum())
    if all(gap.known for gap in gaps):
        mean = average(gaps)
        return Estimate(mean.value / 2, mean.low / 2, mean.high / 2, n, "lean on labelled pictures, MOVER (wilson)")
    low, high = math.fsum(gap.low for gap in gaps), math.fsum(gap.high for gap in gaps)
    why = "not known: a true level has no decided labelled picture on one side of the base rate"
    return Estimate(math.nan, low / levels / 2, high / levels / 2, n, why)
