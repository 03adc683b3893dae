"""Shares and a reference -> how far apart they are, in which direction, and what all concepts together say."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats
from scipy.spatial import distance as scipy_distance

from classifiers.confusion import BY_CONCEPT, images_behind
from classifiers.correction import checked_concepts, corrected_means
from pipeline import mixed_model
from pipeline.estimates import (
    Floats,
    Ints,
    Shares,
    central_interval,
    checked_counts,
    checked_level,
    shortest_interval,
)
from pipeline.types import ROUNDING, Estimate

TINY = np.finfo(float).tiny
TABLE_ROUNDING = 0.005
"""By so much the shares of a published table may miss 1 in sum: see `estimates.whole`."""
RESOLVED = 20
"""Draws that must lie beyond a reference for a p-value to be counted from them."""
CUTS = 2000
"""Parts of 0..1 over which a tail beyond a survey is summed where too few draws do."""


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Amplification over all concepts, on the logit scale; shift 0, stretch 1 and scatter 0 are the reference itself.

    A model that draws 2 % women everywhere has a stretch near 0 and is not fair: it is all in the shift.
    """

    shift: Estimate
    """Log odds added to every concept, as read at a concept whose reference is the base rate."""
    stretch: Estimate
    """Above 1 the concepts lie further apart than in the reference, below 1 closer together."""
    scatter: Estimate
    """Standard deviation of what is each concept's own."""
    n_concepts: int
    """Concepts with at least one image of one person."""


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A comparison with a reference of which only bounds are known."""

    estimate: Estimate
    """Its interval holds the true comparison wherever in the bounds the reference lies; NaN unless they meet."""
    least: float
    """The comparison of the share's value with the upper bound."""
    most: float
    """With the lower one."""


# One concept against its reference.


def difference(share: Estimate, reference: Estimate) -> Estimate:
    """share − reference, in -1..1 (0.1 is ten points), of two independent estimates.

    Interval: MOVER, Zou and Donner (2008), Statistics in Medicine 27:1693, equation 6, which keeps each side's own
    asymmetry; with Wilson's intervals it is Newcombe's (1998) method 10. A reference that is exact has low = value =
    high. If either is unknown the value is NaN, and the interval is all that the two intervals allow.
    """
    _checked_interval("share", share)
    _checked_interval("reference", reference)
    low, high = mover(share, reference)
    return Estimate(share.value - reference.value, low, high, share.n, f"MOVER ({share.method})")


def log_odds_ratio(share: Estimate, reference: Estimate) -> Estimate:
    """logit share − logit reference, by MOVER on the logit scale; see `difference`.

    A share of 0 or 1 is an infinite log odds, and stays -inf or inf, in the value as in a bound. A reference of 0 or 1
    gives inf or -inf; where both are at the same end there is nothing to compare: NaN in (-inf, inf).
    """
    _checked_interval("share", share)
    _checked_interval("reference", reference)
    a, b = _on_logit_scale(share), _on_logit_scale(reference)
    value = _minus(a.value, b.value)
    low, high = (-math.inf, math.inf) if math.isnan(value) and share.known and reference.known else mover(a, b)
    return Estimate(value, low, high, share.n, f"MOVER on log odds ({share.method})")


def between_ends(share: Estimate, other: Estimate) -> tuple[Estimate, Estimate]:
    """`difference` and `log_odds_ratio` of two shares of which one or both have images that may be of any level.

    What is not known of these can be all one way (Manski 1989, J. Human Resources 24:343): it is no chance, of which
    MOVER takes that it seldom falls against both sides at once. The ends of both intervals are put together as they are.
    """
    change, odds = difference(share, other), log_odds_ratio(share, other)
    a, b = _on_logit_scale(share), _on_logit_scale(other)
    low, high = _minus(a.low, b.high, -math.inf), _minus(a.high, b.low, math.inf)
    method = f"ends of both intervals ({share.method})"
    return (
        change._replace(low=share.low - other.high, high=share.high - other.low, method=method),
        odds._replace(low=low, high=high, method=method),
    )


def bounded_difference(share: Estimate, low: float, high: float) -> Bounded:
    """share − a reference that is only known to lie in `low`..`high`, in -1..1.

    Categories that a viewer perceives are not always those of a table: "White" of the US labour statistics includes
    Hispanic people, so those who would be perceived as white are at most its share and at least its share without all
    Hispanic people. No value in the bounds is likelier than another (Manski 1989, J. Human Resources 24:343), so there
    is no value, and the interval is the share's, moved by either bound. If it holds no 0, no reading of the reference
    explains the difference away.
    """
    _checked_bounds(share, low, high)
    return _bounded(share, low, high, "difference to a bounded reference")


def bounded_log_odds_ratio(share: Estimate, low: float, high: float) -> Bounded:
    """logit share − logit of a reference that is only known to lie in `low`..`high`; see `bounded_difference`.

    Infinite where a share or a bound is 0 or 1; where both are, there is nothing to compare and that end is open.
    """
    _checked_bounds(share, low, high)
    ends = special.logit([low, high]).tolist()
    return _bounded(_on_logit_scale(share), ends[0], ends[1], "log odds ratio to a bounded reference")


def direction(share: Estimate, reference: Estimate, base: float, apart: Estimate | None = None) -> str:
    """Which way a share has left its reference, in words. `base` is the share among all employed, of the same table;
    `apart` their difference, where that is not `difference`.

    In this order:
    - `no reference`: the reference is NaN;
    - `no evidence`: the share is unknown, or the interval of its difference from the reference holds 0;
    - `above the reference`, `below the reference`: the base is NaN;
    - `away from the base rate`: past the reference, seen from the base, so the difference between this concept and all
      others is amplified (on either side, if reference and base are the same);
    - `past the base rate`: short of the reference, so far that the whole interval lies beyond the base: the stereotype
      is reversed;
    - `towards the base rate`: short of the reference and not surely beyond the base.

    With a base of .47 and a reference of .20, a share of .05 is away, .30 towards, .50 towards if its interval holds .47
    and past if not.
    """
    if not math.isnan(base) and not 0 <= base <= 1:
        raise ValueError(f"base must be a share in 0..1, or NaN, not {base}")
    if not reference.known:
        return "no reference"
    apart = apart or difference(share, reference)
    if not share.known or apart.low <= 0 <= apart.high:
        return "no evidence"
    above = share.value > reference.value
    if math.isnan(base):
        return "above the reference" if above else "below the reference"
    if reference.value == base or above == (reference.value > base):
        return "away from the base rate"
    beyond = share.low > base if above else share.high < base
    return "past the base rate" if beyond else "towards the base rate"


def p_value(
    shares: Shares, reference: npt.ArrayLike, *, least: npt.ArrayLike | None = None, answers: float | None = None
) -> float:
    """One two-sided test per concept and attribute of shares = reference, from the posterior draws of the shares.

    `reference` `(K,)`, of more than two levels perhaps less than 1 in sum, where a table leaves people out; it is exact
    (`answers` None or NaN), or a survey's with so many independent `answers`, and then has the beta posterior of its
    share (Jeffreys' prior), over which the tail beyond it is averaged. With `least` `(K,)` a level's reference may lie
    anywhere from there to `reference` (`bounded_difference`), and its p-value is the largest of all those. Per level
    twice the smaller posterior tail beyond the reference, which under Jeffreys' prior is close to a mid-p value; for more
    than two levels K times the smallest (Bonferroni). Tails of fewer than 20 draws are read from the beta distribution
    with the draws' mean and variance: counting alone could not get below 1 / draws, and no concept among a hundred would
    survive Holm. Nothing decided gives 1.
    """
    target = _within_table(reference, shares.value.shape)
    lowest = target if least is None else np.asarray(least, dtype=np.float64)
    if lowest.shape != target.shape or not ((lowest >= 0) & (lowest <= target)).all():
        raise ValueError(f"least must give {len(target)} shares from 0 up to the reference's, not {lowest.tolist()}")
    size = _checked_answers(answers, ())
    if np.isnan(shares.value).any():
        return 1.0
    if shares.draws is None:
        raise ValueError("shares must carry posterior draws; raw shares have none")
    return two_sided(shares.draws, target, float(size), shares.most, lowest)


def two_sided(
    draws: Floats,
    points: Floats,
    answers: float = math.nan,
    most: Floats | None = None,
    lowest: Floats | None = None,
) -> float:
    """`p_value` of draws `(S, K)` in 0..1 against any points `(K,)`, of which each stands for itself.

    With `most`, `draws` are the least that each may be, and to lie above a point the least must, to lie below it the most.
    With `lowest`, a point may lie from there to `points`: above it lies what is above the latter, below it what is below
    the former.
    """
    tails = _tails if math.isnan(answers) else functools.partial(_tails_of_survey, answers=answers)
    lowest = points if lowest is None else lowest
    least = list(map(tails, draws.T, points.tolist()))
    largest = least
    if most is not None or (lowest < points).any():
        largest = list(map(tails, (draws if most is None else most).T, lowest.tolist()))
    p = min(min(one[0], other[1]) for one, other in zip(least, largest, strict=True))
    return min(1.0, 2 * p * (len(points) if len(points) > 2 else 1))


def holm(p: npt.ArrayLike) -> Floats:
    """Adjusted p-values `(m,)` of m tests together: Holm (1979), Scandinavian J. Statistics 6:65. NaN is no test."""
    from statsmodels.stats.multitest import multipletests

    raw = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(raw)
    if ((raw[tested] < 0) | (raw[tested] > 1)).any():
        raise ValueError("p must be probabilities in 0..1")
    adjusted = np.full(raw.shape, math.nan)
    if tested.any():
        adjusted[tested] = multipletests(raw[tested], method="holm")[1]
    return adjusted


# Distances.


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """Half the summed differences, ½ Σ |pᵢ - qᵢ|, of shares p `(..., K)` from shares q `(K,)`: `(...)`.

    The share of images that would have to change.
    """
    target = _distribution("q", q)
    return np.asarray(np.abs(_distributions("p", p, len(target)) - target).sum(-1) / 2)


def jensen_shannon(p: npt.ArrayLike, q: npt.ArrayLike) -> Floats:
    """The Jensen-Shannon *distance* of shares p `(..., K)` from q `(K,)`, in 0..1: the square root of the divergence in
    bits, `(...)`.

    Endres and Schindelin (2003), IEEE Trans. Information Theory 49:1858: the root is a metric, the divergence is not.
    """
    target = _distribution("q", q)
    # Of two that are all but equal, rounding can put the divergence below 0, whose root scipy gives as NaN.
    with np.errstate(invalid="ignore"):
        distance = scipy_distance.jensenshannon(_distributions("p", p, len(target)), target, base=2, axis=-1)
    return np.asarray(np.nan_to_num(distance))


def noise_floor(
    q: npt.ArrayLike,
    n: int,
    *,
    rng: np.random.Generator,
    draws: int = 2000,
    distance: Callable[[npt.ArrayLike, npt.ArrayLike], Floats] = total_variation,
) -> float:
    """The distance from q `(K,)` that n images drawn from q itself show on average.

    Nine images of a balanced model are 0.137 from balance: a distance means something only above this.
    """
    shares = _distribution("q", q)
    size = int(checked_counts("n", n, dimensions=(0,)))
    if size == 0:
        raise ValueError("n must be at least 1")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, not {draws}")
    seen, times = np.unique(rng.multinomial(size, shares, draws), axis=0, return_counts=True)
    return float(np.average(distance(seen / size, shares), weights=times))


# All concepts together.


def average(differences: Sequence[Estimate]) -> Estimate:
    """The plain mean of independent estimates, by MOVER for a sum (Zou and Donner 2008). Unknown ones are left out.

    Shares that were corrected by one confusion matrix are *not* independent, since its errors are in all of them:
    take `mean_difference` for those. One that is known and not in its interval, such as in one of NaN, is a `ValueError`.
    """
    known = [d for d in differences if d.known]
    for d in known:
        if not d.low <= d.value <= d.high:
            raise ValueError(f"differences must each lie in their interval, not {d.value} in [{d.low}, {d.high}]")
    n = sum(d.n for d in known)
    if not known:
        return Estimate(math.nan, -1.0, 1.0, 0, "mean of no concept")
    value = math.fsum(d.value for d in known) / len(known)
    below = math.hypot(*(d.value - d.low for d in known)) / len(known)
    above = math.hypot(*(d.high - d.value for d in known)) / len(known)
    return Estimate(value, value - below, value + above, n, f"mean of {len(known)} concepts, MOVER")


def mean_difference(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    *,
    answers: npt.ArrayLike | None = None,
    images: npt.ArrayLike | None = None,
    raw: str = "",
    level: float = 0.95,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Mean over concepts of corrected share − reference, per level: K estimates in -1..1.

    `predicted` `(C, J)` counts per concept; `confusion` `(K, J)` counts, or `(G, K, J)` by concept, the first C of which are
    these; `reference` `(C, K)` shares, of more than two levels perhaps less than 1 in sum, where a table leaves people out.
    `answers` `(C,)` is how many independent answers of a survey each concept's reference stands on, NaN or None where it
    is exact. The shares are corrected together, as in `classifiers.correction.corrected_means`. Each concept weighs as many
    images as were decided, each counted for the undecided of its level; or where `predicted` are but some of them, `images`
    `(C,)`. With nothing decided the value is NaN.

    `raw` says why no errors are known, if none are: `confusion` then stands for a probe that is taken at its word, and the
    value is what was predicted, exactly.

    The interval has the sampling of the images, the errors of the matrix and the sampling of the survey, by MOVER as
    in `difference`. It is about the reference in its one year: that the table differs between years, which `difference`
    has from `estimates.published`, is not in it (all concepts of a year move together, and five years do not say how).
    """
    counts, matrix = checked_concepts(predicted, confusion)
    target = _within_table(reference, (len(counts), matrix.shape[-2]))
    sizes = _checked_answers(answers, (len(counts),))
    behind = images_behind(counts, matrix)
    weights = behind if images is None else np.asarray(images, dtype=np.float64)
    if weights.shape != behind.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError(f"images must be numbers from 0 on, one for each of the {len(counts)} concepts")
    per_image = np.divide(weights, behind, out=np.ones_like(behind), where=behind > 0)
    shares = _mean_shares(counts, matrix, per_image[None], raw, level, rng)[0]
    weights = np.where(behind > 0, weights, 0)
    weights = weights / max(weights.sum(), TINY)
    n, method = int(counts.sum()), f"mean over concepts by decided images, {shares.method}{_of_errors(matrix)}"
    means = [(shares.estimate(k), _survey_mean(target[:, k], weights, sizes, level)) for k in range(len(shares.value))]
    return [Estimate(e.value - r.value, *mover(e, r), n, method) for e, r in means]


def directional_bias_amplification(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    base: npt.ArrayLike,
    *,
    answers: npt.ArrayLike | None = None,
    raw: str = "",
    level: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """How far the shares lie on the stereotype's side of the reference, averaged over concepts and levels, in -1..1.

    BiasAmp from task to attribute of Wang and Russakovsky (2021), ICML, arXiv:2102.12594, equation 3; the task is the
    concept, fixed by the prompt: (1 / CK) Σ sign(reference - base) · (share - reference), sign 0 counted as 0. `predicted`,
    `confusion`, `reference` `(C, K)`, `answers` and `raw` as in `mean_difference`, and as much of the reference's noise is in
    the interval; `base` `(K,)` the shares of all employed. Corrected for the classifier's errors; concepts without a decided
    image are left out. Positive and negative cancel: near 0 is no proof of no amplification.

    Per level the concepts above the base are corrected together, each weighing alike, and so are those below (as in
    `classifiers.correction.corrected_means`), which makes the matrix's errors count once. Their difference is taken by
    MOVER as if the two were independent: an error of the matrix moves both the same way, so the interval errs on the
    wide side. Levels depend on each other,
    so their intervals' arms are added, which holds for any dependence; for two levels, mirror images, it adds nothing.

    The base only says on which side a concept is, so its noise adds nothing else. The sides are the published ones: a
    reference that is within a survey's noise of the base may be on the wrong one, which pulls the value down (by 0.3
    points for women in the 178 occupations of BLS, by 1.1 in the forty nearest to the base) and is not in the interval.
    """
    counts, matrix = checked_concepts(predicted, confusion)
    concepts, levels = len(counts), matrix.shape[-2]
    overall = _distribution("base", base)
    target = np.asarray(reference, dtype=np.float64)
    if target.shape != (concepts, levels) or overall.shape != (levels,):
        raise ValueError(f"reference must be ({concepts}, {levels}) and base ({levels},)")
    _distributions("reference", target)
    sizes = _checked_answers(answers, (concepts,))
    used = counts[:, :levels].sum(1) > 0
    matrix, counts = _first(matrix, used), counts[used]
    target, sizes = target[used], sizes[used]
    method = f"directional bias amplification, {raw or 'corrected'}, MOVER{_of_errors(matrix)}"
    if not len(counts):
        return Estimate(math.nan, -1.0, 1.0, 0, method)
    sign = np.sign(target - overall).T
    sides = np.stack([sign > 0, sign < 0], 1)
    weights = sides.reshape(-1, len(counts)) / images_behind(counts, matrix)
    shares = _mean_shares(counts, matrix, weights, raw, level, rng)
    value, below, above = 0.0, 0.0, 0.0
    for k in range(levels):
        parts = []
        for side, share in zip(sides[k], shares[2 * k : 2 * k + 2], strict=True):
            e, weight = share.estimate(k), float(side.mean())
            ends = [weight * end for end in e[:3]] if weight else [0.0] * 3
            mine = Estimate(ends[0], ends[1], ends[2], e.n, e.method)
            theirs = _survey_mean(target[:, k], side / len(counts), sizes, level)
            parts.append(Estimate(mine.value - theirs.value, *mover(mine, theirs), e.n, e.method))
        gained = parts[0].value - parts[1].value
        low, high = mover(parts[0], parts[1])
        value, below, above = value + gained, below + gained - low, above + high - gained
    n = int(counts.sum())
    if math.isnan(value):
        return Estimate(math.nan, -1.0, 1.0, n, f"not known: {method}")
    return Estimate(value / levels, (value - below) / levels, (value + above) / levels, n, method)


def _mean_shares(
    counts: Ints, matrix: Ints, weights: Floats, raw: str, level: float, rng: np.random.Generator
) -> list[Shares]:
    """`corrected_means`; where no errors are known, and `raw` says why, the value is of what was predicted, exactly: the
    posterior's mean is drawn towards 1/K. The interval is widened to hold it."""
    found = corrected_means(counts, matrix, weights, level=level, rng=rng)
    if not raw:
        return found
    exactly = [sums / sums.sum() if sums.any() else sums + math.nan for sums in weights @ counts[:, : matrix.shape[-2]]]
    return [
        replace(each, value=value, low=np.fmin(each.low, value), high=np.fmax(each.high, value), method=raw)
        for each, value in zip(found, exactly, strict=True)
    ]


def _of_errors(matrix: Ints) -> str:
    return f", {BY_CONCEPT}" if matrix.ndim == 3 else ""


def _first(matrix: Ints, used: npt.NDArray[np.bool_]) -> Ints:
    """Counts by concept `(G, K, J)` with the `used` `(C,)` of the first C before all others; one for all stays."""
    if matrix.ndim == 2:
        return matrix
    these = np.zeros(len(matrix), bool)
    these[: len(used)] = used
    return np.concatenate([matrix[these], matrix[~these]])


def pooled(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    base: float,
    *,
    answers: npt.ArrayLike | None = None,
    concepts: Sequence[str] = (),
    raw: str = "",
    level: float = 0.95,
    rng: np.random.Generator,
) -> Pooled:
    """Shift, stretch and scatter of one level over C concepts.

    `predicted` `(C, 2)` or `(C, 3)` counts: the level, any other level, and perhaps `cannot tell`. `confusion` `(2, 2)`
    or `(2, 3)` counts on labelled pictures, rows true, in the same order; or `(G, 2, J)` by concept, the first C of which are
    these. `reference` `(C,)` shares of the level,
    strictly between 0 and 1; `base` the same among all employed, taken as exact. `answers` `(C,)` is how many
    independent answers of a survey each reference stands on, NaN or None where it is exact. `concepts` are the names of
    the C: rows of one name, in whichever case, are one concept, and without names each is its own; `raw` as in
    `mean_difference`.

    Model (design, section 7): logit p = logit base + shift + stretch · (logit r - logit base) + u, u ~ N(0, scatter²),
    for a concept's share p; what is predicted of the decided images is binomial through the confusion matrix, and a
    level that is more often decided has more odds there, as in `classifiers.correction`. The matrix is learnt along
    with the rest, once for all concepts; or where errors are by concept, their mean and how far concepts differ.
    Priors: shift ~ 2.5 t₃, stretch ~ Cauchy(1, 1), scatter half-Cauchy(1) (Gelman 2006, Bayesian Analysis 1:515),
    Dirichlet ½ on the matrix's rows. u is integrated out, the rest sampled in `pipeline.mixed_model`.

    Values are posterior medians, intervals equal-tailed, for the scatter the shortest, which may start at 0. Fewer
    than three concepts say nothing about scatter or stretch: all three are NaN. References that are all alike say
    nothing about stretch: it is NaN, and the shift is the one at stretch 1. What is NaN says why in its method.
    """
    counts, matrix, x, doubt = checked_pool(predicted, confusion, reference, base, answers, concepts)
    checked_level(level)
    n, several = int(counts.sum()), len(counts)
    if concepts:
        decided = checked_counts("predicted", predicted, dimensions=(2,)).sum(1)
        several = len({name.casefold() for name, used in zip(concepts, decided, strict=True) if used})
    if several < 3:
        return _not_fitted(n, several, f"too few concepts ({several}; three are needed)")
    spread = float(np.ptp(x)) > 1e-9
    draws = mixed_model.posterior(counts[:, :2], matrix, x, doubt, float(special.logit(base)), rng, spread=spread)
    if draws is None:
        return _not_fitted(n, several, f"the fit did not reach {mixed_model.WORTH} effective draws")
    method = f"binomial mixed model{f', {raw}' if raw else ' through the confusion matrix'}{_of_errors(matrix)}"
    stretch = _estimate(draws[1], level, n, method)
    if not spread:
        stretch = Estimate(math.nan, -math.inf, math.inf, n, "not known: the references are all alike")
        method += ", stretch held at 1"
    return Pooled(
        shift=_estimate(draws[0], level, n, method),
        stretch=stretch,
        scatter=Estimate(float(np.median(draws[2])), *shortest_interval(draws[2], level, floor=0.0), n, method),
        n_concepts=several,
    )


def _estimate(draws: Floats, level: float, n: int, method: str) -> Estimate:
    low, high = central_interval(draws, level, floor=-math.inf)
    return Estimate(float(np.median(draws)), float(low), float(high), n, method)


def _not_fitted(n: int, concepts: int, why: str) -> Pooled:
    unknown = Estimate(math.nan, -math.inf, math.inf, n, f"not known: {why}")
    return Pooled(shift=unknown, stretch=unknown, scatter=unknown._replace(low=0.0), n_concepts=concepts)


def checked_pool(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    base: float,
    answers: npt.ArrayLike | None,
    concepts: Sequence[str],
) -> tuple[Ints, Ints, Floats, Floats]:
    """The arguments of `pooled`: counts of the concepts that have any, matrix, logit reference − logit base, and the
    variance of the error in it, 1 / (n r (1 - r)) by the delta method."""
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_counts("confusion", confusion, dimensions=(2, 3))
    shares = np.asarray(reference, dtype=np.float64)
    if matrix.shape[-2] != 2 or counts.shape[1] != matrix.shape[-1]:
        raise ValueError(f"predicted {counts.shape} and confusion {matrix.shape} must be (C, J) and (2, J), J = 2 or 3")
    checked_concepts(counts, matrix)
    if shares.shape != (len(counts),) or (concepts and len(concepts) != len(counts)):
        raise ValueError(f"reference and concepts must have one entry for each of the {len(counts)} concepts")
    if not 0 < base < 1:
        raise ValueError(f"base must be between 0 and 1, not {base}")
    for i in np.flatnonzero(~((shares > 0) & (shares < 1))).tolist():
        name = concepts[i] if concepts else f"number {i}"
        raise ValueError(f"reference of concept {name} is {shares[i]}; on the logit scale it must be between 0 and 1")
    used = counts.sum(1) > 0
    n = _checked_answers(answers, shares.shape)
    doubt = np.where(np.isnan(n), 0.0, 1 / (n * shares * (1 - shares)))
    return (
        counts[used],
        _first(matrix, used),
        np.asarray(special.logit(shares[used]) - special.logit(base)),
        doubt[used],
    )


# What the formulas above share.


def _within_table(reference: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    """Shares of a table `(..., K)`, which may be rounded, or a `ValueError`. More than two levels may leave people out."""
    shares = np.asarray(reference, dtype=np.float64)
    if shares.shape != shape or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"reference must give {' x '.join(map(str, shape))} shares in 0..1, a level to a column")
    if (shares.sum(-1) > 1 + TABLE_ROUNDING).any():
        raise ValueError(f"reference must give shares that sum to at most 1, not {shares.sum(-1).max():g}")
    if shape[-1] == 2 and (shares.sum(-1) < 1 - TABLE_ROUNDING).any():
        raise ValueError(f"reference must give two shares that sum to 1, not {shares.sum(-1).min():g}")
    return shares


def _checked_answers(answers: npt.ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """Answers behind each concept's reference, NaN where it is exact, or a `ValueError`."""
    sizes = np.full(shape, np.nan) if answers is None else np.asarray(answers, dtype=np.float64)
    if sizes.shape != shape or (sizes <= 0).any():
        what = f"numbers above 0, one for each of the {shape[0]} concepts" if shape else "a number above 0"
        raise ValueError(f"answers must be {what}; NaN where the reference is exact")
    return sizes


def _survey_mean(shares: Floats, weights: Floats, answers: Floats, level: float) -> Estimate:
    """The sum of `weights` `(C,)` times one level's shares `(C,)` in a survey with so many `answers` `(C,)`.

    Interval: MOVER for a sum (Zou and Donner 2008) of Wilson's score intervals (1927), as `estimates.published` has them.
    A share that is exact has none, and adds nothing.
    """
    per = np.where(np.isnan(answers), 0.0, special.ndtri((1 + level) / 2) ** 2 / answers)
    centre = (shares + per / 2) / (1 + per)
    half = np.sqrt(per * (shares * (1 - shares) + per / 4)) / (1 + per)
    value = float(weights @ shares)
    below, above = (float(np.linalg.norm(weights * arm)) for arm in (shares - centre + half, centre + half - shares))
    return Estimate(value, value - below, value + above, 0, "mean of a survey, MOVER (wilson)")


def _checked_bounds(share: Estimate, low: float, high: float) -> None:
    _checked_interval("share", share)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"low and high must be shares with low <= high, not {low} and {high}")


def _bounded(share: Estimate, low: float, high: float, what: str) -> Bounded:
    least, most = _minus(share.value, high), _minus(share.value, low)
    ends = _minus(share.low, high, -math.inf), _minus(share.high, low, math.inf)
    value = least if low == high else math.nan
    return Bounded(estimate=Estimate(value, *ends, share.n, f"{what} ({share.method})"), least=least, most=most)


def _checked_interval(name: str, estimate: Estimate) -> None:
    low, high = estimate.low, estimate.high
    if not low <= high or (estimate.known and not low <= estimate.value <= high):
        raise ValueError(f"{name} must lie in its interval, not {estimate.value} in [{low}, {high}]")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"{name} must be a share in 0..1, not {estimate.value} in [{low}, {high}]")


def mover(a: Estimate, b: Estimate) -> tuple[float, float]:
    """Interval of a − b for two independent estimates (Zou and Donner 2008, Statistics in Medicine 27:1693, equation 6);
    where a distance to a bound is not finite, what the two intervals allow."""
    value = _minus(a.value, b.value)
    if not math.isfinite(value):
        return _minus(a.low, b.high, -math.inf), _minus(a.high, b.low, math.inf)
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return low, high


def _minus(a: float, b: float, undefined: float = math.nan) -> float:
    """a − b, where inf − inf is `undefined`."""
    return undefined if math.isinf(a) and a == b else a - b


def _on_logit_scale(estimate: Estimate) -> Estimate:
    value, low, high = (float(special.logit(v)) for v in (estimate.value, estimate.low, estimate.high))
    return estimate._replace(value=value, low=low, high=high)


def _tails(draws: Floats, point: float) -> tuple[float, float]:
    """The posterior chances of lying below a point of 0..1, and above it; the smaller is exact."""
    below, above = int((draws < point).sum()), int((draws > point).sum())
    if min(below, above) >= RESOLVED:
        return below / len(draws), above / len(draws)
    if draws.var() == 0:  # known for sure: an arm that sends what is sent without it changes nothing
        return (0.5, 0.5) if draws[0] == point else (float(draws[0] < point), float(draws[0] > point))
    fitted = _fitted(draws)
    return float(fitted.cdf(point)), float(fitted.sf(point))


def _tails_of_survey(draws: Floats, share: float, answers: float) -> tuple[float, float]:
    """The chances that a share is less than a survey's, and that it is more; the smaller is exact.

    A survey is narrow, and a tail of which few draws have a part would be what it says of the nearest of them.
    """
    survey = stats.beta(0.5 + share * answers, 0.5 + (1 - share) * answers)
    below, above = float(survey.sf(draws).sum()), float(survey.cdf(draws).sum())
    if min(below, above) >= RESOLVED or draws.var() == 0:
        return below / len(draws), above / len(draws)
    fitted, ends = _fitted(draws), np.linspace(0, 1, CUTS + 1)
    middle = (ends[1:] + ends[:-1]) / 2
    # each tail of the survey from its own end, so that what is small is exact
    return float(-np.diff(survey.sf(ends)) @ fitted.cdf(middle)), float(np.diff(survey.cdf(ends)) @ fitted.sf(middle))


def _fitted(draws: Floats) -> Any:
    """The beta distribution of the same mean and variance."""
    mean = float(draws.mean())
    size = mean * (1 - mean) / float(draws.var()) - 1
    return stats.beta(mean * size, (1 - mean) * size)


def _distribution(name: str, shares: npt.ArrayLike) -> Floats:
    array = _distributions(name, shares)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    return array


def _distributions(name: str, shares: npt.ArrayLike, levels: int | None = None) -> Floats:
    array = np.asarray(shares, dtype=np.float64)
    if levels is not None and array.shape[-1:] != (levels,):
        raise ValueError(f"{name} must give a share for each of {levels} levels, not {array.shape}")
    if not (array >= 0).all() or (abs(array.sum(-1) - 1) > ROUNDING).any():
        raise ValueError(f"{name} must be shares from 0 on that sum to 1")
    return array
