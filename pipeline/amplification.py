"""Shares and a reference -> how far apart they are, in which direction, and what all concepts together say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from classifiers.correction import PRIOR, checked_confusion, corrected_shares_many, told
from pipeline.estimates import (
    Floats,
    Ints,
    Shares,
    central_interval,
    checked_counts,
    checked_level,
)
from pipeline.types import Estimate

WIDE = 5.0
"""Standard deviation of the normal priors on shift and stretch: on the logit scale, next to no opinion."""
NODES = 13
"""Points of the quadrature over one concept's scatter."""
FREEDOM = 5
"""Degrees of freedom of the distribution that the pooled fit draws from: tails heavier than any it meets."""
DRAWS = 1000
"""Draws of a round of the pooled fit, doubled once the proposal fits."""
WORTH = 1000
"""Effective draws behind its intervals."""
ROUNDS = 40
RESOLVED = 20
"""Draws that must lie beyond a reference for a p-value to be counted from them."""
TINY, EPSILON = np.finfo(float).tiny, np.finfo(float).eps


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


# One concept against its reference.


def difference(share: Estimate, reference: Estimate) -> Estimate:
    """share − reference, in -1..1 (0.1 is ten points), of two independent estimates.

    Interval: MOVER, Zou and Donner (2008), Statistics in Medicine 27:1693, equation 6, which keeps each side's own
    asymmetry; with Wilson's intervals it is Newcombe's (1998) method 10. A reference that is exact has low = value =
    high. If either is unknown the value is NaN, and the interval is all that the two intervals allow.
    """
    _checked_interval("share", share)
    _checked_interval("reference", reference)
    low, high = _mover(share, reference)
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
    low, high = (-math.inf, math.inf) if math.isnan(value) and share.known and reference.known else _mover(a, b)
    return Estimate(value, low, high, share.n, f"MOVER on log odds ({share.method})")


def direction(share: Estimate, reference: Estimate, base: float) -> str:
    """Which way a share has left its reference, in words. `base` is the share among all employed, of the same table.

    In this order:
    - `no reference`: the reference is NaN;
    - `no evidence`: the share is unknown, or the interval of its `difference` from the reference holds 0;
    - `no base rate`: the base is NaN;
    - `away from the base rate`: the share lies on the side of the reference that is further from the base, so the
      difference between this concept and all others is amplified (any side, if reference and base are the same);
    - `past the base rate`: the whole interval lies beyond the base, so the stereotype is reversed;
    - `towards the base rate`: the rest.
    """
    if not reference.known:
        return "no reference"
    apart = difference(share, reference)
    if not share.known or apart.low <= 0 <= apart.high:
        return "no evidence"
    if math.isnan(base):
        return "no base rate"
    above = share.value > reference.value
    if reference.value == base or above == (reference.value > base):
        return "away from the base rate"
    beyond = share.low > base if above else share.high < base
    return "past the base rate" if beyond else "towards the base rate"


def p_value(shares: Shares, reference: npt.ArrayLike, *, answers: int | None = None) -> float:
    """One two-sided test per concept and attribute of shares = reference, from the posterior draws of the shares.

    `reference` `(K,)`; it is exact, or a survey's with so many independent `answers`, and then has the beta posterior
    of its share (Jeffreys' prior), over which the tail beyond it is averaged. Per level twice the smaller posterior
    tail beyond the reference, which under Jeffreys' prior is close to a mid-p value; for more than two levels K times
    the smallest (Bonferroni). Against an exact reference, tails of fewer than 20 draws are read from the beta
    distribution with the draws' mean and variance: counting alone could not get below 1 / draws, and no concept among
    a hundred would survive Holm. Nothing decided gives 1.
    """
    target = np.asarray(reference, dtype=np.float64)
    if target.shape != shares.value.shape or not np.isfinite(target).all():
        raise ValueError(f"reference must give a share for each of the {len(shares.value)} levels")
    if np.isnan(shares.value).any():
        return 1.0
    if shares.draws is None:
        raise ValueError("shares must carry posterior draws; raw shares have none")
    points = zip(shares.draws.T, target.tolist(), strict=True)
    p = min(_tail(draws, r) if answers is None else _tail_of_survey(draws, r, answers) for draws, r in points)
    return min(1.0, 2 * p * (len(target) if len(target) > 2 else 1))


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


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Half the summed differences, ½ Σ |pᵢ - qᵢ|, of shares `(K,)`: the share of images that would have to change."""
    return float(np.abs(_distribution("p", p) - _distribution("q", q)).sum() / 2)


def noise_floor(q: npt.ArrayLike, n: int, *, rng: np.random.Generator, draws: int = 2000) -> float:
    """The total variation from q `(K,)` that n images drawn from q itself show on average.

    Nine images of a balanced model are 0.137 from balance: a distance means something only above this.
    """
    shares = _distribution("q", q)
    size = int(checked_counts("n", n, dimensions=(0,)))
    if size == 0:
        raise ValueError("n must be at least 1")
    return float(np.abs(rng.multinomial(size, shares, draws) / size - shares).sum(1).mean() / 2)


# All concepts together.


def average(differences: Sequence[Estimate]) -> Estimate:
    """The plain mean of independent estimates, by MOVER for a sum (Zou and Donner 2008). Unknown ones are left out.

    Shares that were corrected by one confusion matrix are *not* independent, since its errors are in all of them:
    take `mean_difference` for those.
    """
    known = [d for d in differences if d.known]
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
    level: float = 0.95,
    rng: np.random.Generator,
) -> list[Estimate]:
    """Mean over concepts of corrected share − reference, per level: K estimates in -1..1.

    `predicted` `(C, J)` counts per concept, `confusion` `(K, J)` counts, `reference` `(C, K)` shares taken as exact.
    The correction is linear in the counts, so the mean is corrected once, from the summed counts, and the matrix's
    uncertainty enters once and not C times as if it averaged out; nor do the priors of C small samples add up. Each
    concept weighs as many images as were decided, each counted for the undecided of its level. With nothing decided
    the value is NaN.
    """
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    shares = corrected_shares_many(counts.sum(0)[None], confusion, level=level, rng=rng)[0]
    target = np.asarray(reference, dtype=np.float64)
    if target.shape != (len(counts), len(shares.value)) or not np.isfinite(target).all():
        raise ValueError(f"reference must give {len(shares.value)} shares for each of the {len(counts)} concepts")
    decided, undecided = told(checked_counts("confusion", confusion, dimensions=(2,)))
    weights = counts[:, : len(decided)] @ ((decided + undecided) / decided)
    mean = weights @ target / max(weights.sum(), 1)
    method = f"mean of {np.count_nonzero(weights)} concepts by decided images, {shares.method}"
    return [
        Estimate(e.value - r, e.low - r, e.high - r, e.n, method)
        for e, r in zip((shares.estimate(k) for k in range(len(mean))), mean.tolist(), strict=True)
    ]


def pooled(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    reference: npt.ArrayLike,
    base: float,
    *,
    concepts: Sequence[str] = (),
    level: float = 0.95,
    rng: np.random.Generator,
) -> Pooled:
    """Shift, stretch and scatter of one level over C concepts.

    `predicted` `(C, 2)` or `(C, 3)` counts: the level, any other level, and perhaps `cannot tell`. `confusion` `(2, 2)`
    or `(2, 3)` counts on labelled pictures, rows true, in the same order. `reference` `(C,)` shares of the level,
    strictly between 0 and 1, taken as exact; `base` the same among all employed. `concepts` are names for messages.

    Model (design, section 7): logit p = logit base + shift + stretch · (logit r - logit base) + u, u ~ N(0, scatter²),
    for a concept's share p; what is predicted of the decided images is binomial through the confusion matrix, and a
    level that is more often decided has more odds there, as in `classifiers.correction`. The matrix is learnt along
    with the rest, once for all concepts. Priors: shift ~ N(0, 5²), stretch ~ N(1, 5²), scatter half-Cauchy(1) (Gelman
    2006, Bayesian Analysis 1:515), Dirichlet ½ on the matrix's rows. u is integrated out by `log_marginal`, the rest
    sampled by `_adaptive_sample`.

    Values are posterior medians, intervals equal-tailed. Fewer than three concepts say nothing about scatter or
    stretch: all three are NaN. References that are all alike say nothing about stretch: it is NaN, and the shift is
    the one at stretch 1. What is NaN says why in its method.
    """
    counts, matrix, x = _checked_pool(predicted, confusion, reference, base, concepts)
    checked_level(level)
    n = int(counts.sum())
    if len(counts) < 3:
        return _not_fitted(n, len(counts), f"too few concepts ({len(counts)}; three are needed)")
    spread = float(np.ptp(x)) > 1e-9
    draws = _pooled_posterior(counts[:, :2], matrix, x, float(special.logit(base)), rng, spread=spread)
    if draws is None:
        return _not_fitted(n, len(counts), f"the fit did not reach {WORTH} effective draws")
    method = "binomial mixed model through the confusion matrix"
    stretch = _estimate(draws[1], level, n, method)
    if not spread:
        stretch = Estimate(math.nan, -math.inf, math.inf, n, "not known: the references are all alike")
        method += ", stretch held at 1"
    return Pooled(
        shift=_estimate(draws[0], level, n, method),
        stretch=stretch,
        scatter=_estimate(draws[2], level, n, method, floor=0.0),
        n_concepts=len(counts),
    )


def log_marginal(counts: Ints, hit: Floats, mean: Floats, scatter: Floats) -> Floats:
    """log ∫ Binomial(counts | ω h₁ + (1 - ω) h₂) N(logit ω | mean, scatter²) d logit ω, but for the coefficient.

    `counts` `(C, 2)` predicted to be the level or not; `hit` `(M, 2)` the chances h that an image of the level, and
    one that is not, is predicted to be; `mean` `(M, C)`, `scatter` `(M,)` -> `(M, C)`, for M settings of these.

    Adaptive Gauss-Hermite quadrature (Liu and Pierce 1994, Biometrika 81:624): nodes around the peak, which a few steps
    of Fisher scoring find; fixed nodes miss a peak that is narrower than their distance.
    """
    precision = np.broadcast_to(1 / scatter[:, None] ** 2, mean.shape)
    peak, information = _peak(counts, hit, mean, precision)
    nodes, weights = np.polynomial.hermite.hermgauss(NODES)
    width = np.sqrt(2 / (information + precision))
    at = peak[..., None] + width[..., None] * nodes
    chance = _chance(special.expit(at), hit[:, :, None, None])
    likelihood = counts[:, :1] * np.log(chance) + counts[:, 1:] * np.log1p(-chance)
    inner = likelihood - (at - mean[..., None]) ** 2 * precision[..., None] / 2
    total = special.logsumexp(inner + nodes**2 + np.log(weights), axis=-1)
    return np.asarray(total + np.log(width) + np.log(precision / (2 * math.pi)) / 2)


def _peak(counts: Ints, hit: Floats, mean: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Where the integrand of `log_marginal` peaks, in logit ω, and the information of the counts there: `(M, C)`."""
    n = counts.sum(-1)
    at = np.zeros_like(mean)
    information = at
    for _ in range(6):
        share = special.expit(at)
        chance = _chance(share, hit[:, :, None])
        change = share * (1 - share) * (hit[:, :1] - hit[:, 1:])
        score = (counts[:, 0] - n * chance) * change / (chance * (1 - chance)) - (at - mean) * precision
        information = n * change**2 / (chance * (1 - chance))
        # Far from the peak the information is a poor guide; a step of two is a factor of seven in the odds.
        at = at + np.clip(score / (information + precision), -2, 2)
    return at, information


def _chance(share: Floats, hit: Floats) -> Floats:
    """Chance that a decided image is predicted to be the level."""
    return np.clip(share * hit[:, 0] + (1 - share) * hit[:, 1], TINY, 1 - EPSILON)


def _pooled_posterior(
    counts: Ints, confusion: Ints, x: Floats, base: float, rng: np.random.Generator, *, spread: bool
) -> Floats | None:
    """Draws `(3, S)` of shift, stretch and scatter, if the fit is good enough.

    Every parameter is written as a function of a standard normal that has its prior, for the matrix its posterior
    given the labels. What the counts add is then a smooth weight, whatever corner a cell of the matrix sits in.
    """
    decided, undecided = told(confusion)
    right = np.asarray(PRIOR + confusion[:, :2])

    def log_likelihood(state: Floats) -> Floats:
        shift, stretch = WIDE * state[:, :1], 1 + WIDE * state[:, 1:2]
        hit = _beta(state[:, 3:5], right[:, 0], right[:, 1])
        mean = base + x + shift + (stretch - 1) * (x if spread else 0 * x)
        if undecided.any():
            rate = np.log(_beta(state[:, 5:7], decided, undecided))
            mean += rate[:, :1] - rate[:, 1:]
        return np.asarray(log_marginal(counts, hit, mean, _scatter(state[:, 2])).sum(-1))

    state = _adaptive_sample(log_likelihood, 7 if undecided.any() else 5, rng)
    if state is None:
        return None
    return np.stack([WIDE * state[:, 0], 1 + WIDE * state[:, 1], _scatter(state[:, 2])])


def _scatter(normal: Floats) -> Floats:
    """Standard normals as half-Cauchy(1). Below a millionth nothing changes but the rounding."""
    return np.maximum(np.tan(math.pi / 2 * special.ndtr(normal)), 1e-6)


def _beta(normal: Floats, a: Floats, b: Floats) -> Floats:
    """Standard normals as Beta(a, b); beyond 8 the normal's tail is lost in rounding."""
    return np.asarray(special.betaincinv(a, b, special.ndtr(np.clip(normal, -8, 8))), dtype=np.float64)


def _adaptive_sample(
    log_likelihood: Callable[[Floats], Floats], dimensions: int, rng: np.random.Generator
) -> Floats | None:
    """Draws `(S, D)` from a posterior whose prior is standard normal, by adaptive importance sampling.

    Each round draws from a multivariate t that is fitted to the weighted draws of the round before (population Monte
    Carlo, Cappé et al. 2008, Statistics and Computing 18:447). While few draws would carry all the weight, the weights
    are flattened to a power that leaves an eighth of them effective. The last round alone is the answer, if it is worth
    `WORTH` draws; otherwise there is none.
    """
    proposal = stats.multivariate_t(np.zeros(dimensions), np.eye(dimensions), df=FREEDOM)
    size = DRAWS
    for _ in range(ROUNDS):
        state = proposal.rvs(size, random_state=rng)
        weight = log_likelihood(state) - (state**2).sum(-1) / 2 - proposal.logpdf(state)
        weights = special.softmax(weight)
        if 1 / (weights**2).sum() >= WORTH:
            return np.asarray(state[rng.choice(size, size, p=weights)])
        power = 1.0
        while 1 / (weights**2).sum() < size / 8:
            power *= 0.8
            weights = special.softmax(power * weight)
        if power == 1:
            size *= 2
        mean = weights @ state
        spread = (weights[:, None] * (state - mean)).T @ (state - mean)
        proposal = stats.multivariate_t(mean, spread + 1e-9 * np.eye(dimensions), df=FREEDOM)
    return None


def _estimate(draws: Floats, level: float, n: int, method: str, *, floor: float = -math.inf) -> Estimate:
    low, high = central_interval(draws, level, floor=floor)
    return Estimate(float(np.median(draws)), float(low), float(high), n, method)


def _not_fitted(n: int, concepts: int, why: str) -> Pooled:
    unknown = Estimate(math.nan, -math.inf, math.inf, n, f"not known: {why}")
    return Pooled(shift=unknown, stretch=unknown, scatter=unknown._replace(low=0.0), n_concepts=concepts)


def _checked_pool(
    predicted: npt.ArrayLike, confusion: npt.ArrayLike, reference: npt.ArrayLike, base: float, concepts: Sequence[str]
) -> tuple[Ints, Ints, Floats]:
    """Counts and references, on the logit scale from the base, of the concepts that have images."""
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_confusion(confusion)
    shares = np.asarray(reference, dtype=np.float64)
    if len(matrix) != 2 or counts.shape[1] != matrix.shape[1]:
        raise ValueError(f"predicted {counts.shape} and confusion {matrix.shape} must be (C, J) and (2, J), J = 2 or 3")
    if shares.shape != (len(counts),) or (concepts and len(concepts) != len(counts)):
        raise ValueError(f"reference and concepts must have one entry for each of the {len(counts)} concepts")
    if not 0 < base < 1:
        raise ValueError(f"base must be between 0 and 1, not {base}")
    for i in np.flatnonzero(~((shares > 0) & (shares < 1))).tolist():
        name = concepts[i] if concepts else f"number {i}"
        raise ValueError(f"reference of concept {name} is {shares[i]}; on the logit scale it must be between 0 and 1")
    used = counts.sum(1) > 0
    return counts[used], matrix, np.asarray(special.logit(shares[used]) - special.logit(base))


# What the formulas above share.


def _checked_interval(name: str, estimate: Estimate) -> None:
    low, high = estimate.low, estimate.high
    if not low <= high or (estimate.known and not low <= estimate.value <= high):
        raise ValueError(f"{name} must lie in its interval, not {estimate.value} in [{low}, {high}]")


def _mover(a: Estimate, b: Estimate) -> tuple[float, float]:
    """Interval of a − b; where a distance to a bound is not finite, what the two intervals allow."""
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


def _tail(draws: Floats, point: float) -> float:
    """The smaller posterior chance of lying beyond a point of 0..1."""
    below, above = int((draws < point).sum()), int((draws > point).sum())
    if min(below, above) >= RESOLVED:
        return min(below, above) / len(draws)
    mean, variance = float(draws.mean()), float(draws.var())
    size = mean * (1 - mean) / variance - 1
    fitted = stats.beta(mean * size, (1 - mean) * size)
    return float(min(fitted.cdf(point), fitted.sf(point)))


def _tail_of_survey(draws: Floats, share: float, answers: int) -> float:
    """The smaller chance that a share and a survey's lie this way round."""
    survey = stats.beta(0.5 + share * answers, 0.5 + (1 - share) * answers)
    return float(min(survey.cdf(draws).mean(), survey.sf(draws).mean()))


def _distribution(name: str, shares: npt.ArrayLike) -> Floats:
    array = np.asarray(shares, dtype=np.float64)
    if array.ndim != 1 or not (array >= 0).all() or abs(array.sum() - 1) > 1e-6:
        raise ValueError(f"{name} must be shares from 0 on that sum to 1")
    return array
