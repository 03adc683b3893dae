"""The fit behind pooled amplification: counts of many concepts, through the classifier's errors, to posterior draws.

Own code, for no kept library fits a binomial mixed model whose counts are misread with errors that are themselves uncertain
and whose covariate has noise: statsmodels' BinomialBayesMixedGLM and glmer know neither, and a general sampler (Stan,
PyMC) would bring a compiler and minutes where this takes a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special, stats

from classifiers.confusion import PRIOR, errors_of_means, partially_decided
from pipeline.estimates import Floats, Ints, log_rising

WIDE = 2.5
"""Scale of the prior on the shift, a t with 3 degrees of freedom: on the logit scale, next to no opinion."""
NODES = 13
"""Points of the quadrature over one concept's scatter."""
FREEDOM = 5
"""Degrees of freedom of the distribution that the pooled fit draws from: tails heavier than any it meets."""
DRAWS = 1000
"""Draws of a round of the pooled fit, doubled once the proposal fits."""
SLICE = 250
"""Draws whose likelihood is computed together: with 153 concepts some 25 MiB, and in the processor's cache."""
WORTH = 1000
"""Effective draws behind its intervals."""
ROUNDS = 40
FAR = 7.0
"""Where the tail of a standard normal is next to lost in rounding."""
TINY, EPSILON = np.finfo(float).tiny, np.finfo(float).eps


def posterior(
    counts: Ints | Floats,
    confusion: Ints,
    x: Floats,
    doubt: Floats,
    base: float,
    rng: np.random.Generator,
    *,
    spread: bool,
) -> Floats | None:
    """Draws `(3, S)` of shift, stretch and scatter, if the fit is good enough.

    `counts` `(C, 2)`, `confusion` `(2, J)` or `(G, 2, J)`; `x` `(C,)` is logit reference − logit base and `doubt`
    `(C,)` the variance of the error in it, 0 where the reference is exact. A slope on a noisy x is too flat, so x is
    replaced by what is to be expected of its true value given the noisy one, if the true values are normal, and what
    remains unsure of it is scatter: regression calibration (Carroll, Ruppert, Stefanski and Crainiceanu 2006,
    Measurement Error in Nonlinear Models, chapter 4).

    Every parameter is written as a function of a standard normal that has its prior, for the matrix its posterior
    given the labels. What the counts add is then a smooth weight, whatever corner a cell of the matrix sits in.

    Where errors are by concept, a concept's chance h to be predicted the level is Beta(κ m + its labels), κ = 1/ρ - 1,
    with m ~ Beta(½, ½) and ρ uniform for each true level, and all labels are in the likelihood. Its own h is integrated
    out, by `_unsure`. Of how often a concept's levels are decided, what its labels say is added to its mean, and what
    they leave unsure to its scatter.
    """
    apart, concepts = confusion.ndim == 3, len(counts)
    errors = errors_of_means(np.asarray(counts, np.int64), confusion, np.ones((1, concepts)))
    right, decided, undecided = errors.taken_for[0], errors.decided[0], errors.undecided[0]
    between = max(float(x.var(ddof=1) - doubt.mean()), 0.0)
    trust = np.where(doubt > 0, between / (between + np.where(doubt > 0, doubt, 1.0)), 1.0)
    x, unsure = x.mean() + trust * (x - x.mean()), trust * doubt
    offset, loose = partially_decided(confusion, concepts) if apart and undecided.any() else (0.0, 0.0)

    def log_likelihood(state: Floats) -> Floats:
        shift, stretch = _shift(state[:, :1]), _stretch(state[:, 1:2])
        hit = _beta(state[:, 3:5], right[:, 0], right[:, 1])
        mean = base + x + shift + (stretch - 1) * (x if spread else 0 * x) + offset
        if undecided.any():
            rate = np.log(_beta(state[:, 5:7], decided, undecided))
            mean += rate[:, :1] - rate[:, 1:]
        own = np.sqrt(_scatter(state[:, 2:3]) ** 2 + stretch**2 * unsure + loose)
        if not apart:
            return np.asarray(log_marginal(counts, hit[:, None], mean, own).sum(-1))
        told, each, variance = _of_concepts(hit, special.ndtr(state[:, -2:]), confusion[..., :2], right)
        return np.asarray(told + log_marginal(counts, each[:, :concepts], mean, own, variance[:, :concepts]).sum(-1))

    state = _adaptive_sample(log_likelihood, 5 + 2 * bool(undecided.any()) + 2 * apart, rng)
    if state is None:
        return None
    return np.stack([_shift(state[:, 0]), _stretch(state[:, 1]), _scatter(state[:, 2])])


def _of_concepts(hit: Floats, rho: Floats, labels: Ints, right: Floats) -> tuple[Floats, Floats, Floats]:
    """Given the mean chances m = `hit` and intraclass correlations `(M, 2)`: the log likelihood of the `labels` `(G, 2, 2)`,
    over the density `right` that m was drawn from, `(M,)`; mean and variance of each concept's chances `(M, G, 2)`."""
    kappa = (1 / np.clip(rho, 1e-6, 1 - 1e-6) - 1)[:, None]
    a, b = (np.maximum(kappa * m[:, None], TINY) for m in (hit, 1 - hit))
    hits, misses = labels[..., 0] + a, labels[..., 1] + b
    told = (special.betaln(hits, misses) - special.betaln(a, b)).sum((1, 2))
    told += ((PRIOR - right) * np.log(np.maximum(np.stack([hit, 1 - hit], -1), TINY))).sum((1, 2))
    mean = np.clip(hits / (hits + misses), 1e-12, 1 - 1e-12)  # neither end is sure, and rounding must not make it so
    return told, mean, mean * (1 - mean) / (hits + misses + 1)


def log_marginal(
    counts: Ints | Floats, hit: Floats, mean: Floats, scatter: Floats, variance: Floats | None = None
) -> Floats:
    """log ∫ Binomial(counts | ω h₁ + (1 - ω) h₂) N(logit ω | mean, scatter²) d logit ω, but for the coefficient.

    `counts` `(C, 2)` predicted to be the level or not; `hit` `(M, C, 2)`, or `(M, 1, 2)` for all concepts, the chances h
    that an image of the level, and one that is not, is predicted to be; `mean` and `scatter` `(M, C)` -> `(M, C)`, for M
    settings of these. With a `variance` of the shape of `hit`, h is unsure by it, and `_unsure` takes the binomial's place.

    Adaptive Gauss-Hermite quadrature (Liu and Pierce 1994, Biometrika 81:624): nodes around the peak, which a few steps
    of Fisher scoring find; fixed nodes miss a peak that is narrower than their distance.
    """
    precision = np.broadcast_to(1 / scatter**2, mean.shape)
    peak, information = _peak(counts, hit, mean, precision, variance)
    nodes, weights = np.polynomial.hermite.hermgauss(NODES)
    width = np.sqrt(2 / (information + precision))
    at = peak[..., None] + width[..., None] * nodes
    share, hits, misses = special.expit(at), counts[:, :1], counts[:, 1:]
    if variance is None:
        chance = _chance(share, hit[..., None])
        likelihood = hits * np.log(chance) + misses * np.log1p(-chance)
    else:
        likelihood = _unsure(hits, misses, share, hit[..., None], variance[..., None])
    inner = likelihood - (at - mean[..., None]) ** 2 * precision[..., None] / 2
    total = special.logsumexp(inner + nodes**2 + np.log(weights), axis=-1)
    return np.asarray(total + np.log(width) + np.log(precision / (2 * math.pi)) / 2)


def _unsure(hits: Ints | Floats, misses: Ints | Floats, share: Floats, hit: Floats, variance: Floats) -> Floats:
    """log ∫ p^hits (1 - p)^misses over p = ω h₁ + (1 - ω) h₂, where h₁ and h₂ are beta with mean `hit` and their `variance`.

    p is low + width · B with B beta. Where one h alone is unsure, B is that h; else low, width and B's mean and variance
    are between the two, by how much of p's variance each makes. The powers of p are taken as powers of B and 1 - B, by
    the tangent of log p and log (1 - p) at B's mean given the counts. That is exact where B is p itself (beta-binomial)
    and where p is B from `low` on and there are no hits: images that show the level are hits, however few B makes.
    """
    one, other = share**2 * variance[:, :, 0], (1 - share) ** 2 * variance[:, :, 1]
    both = np.maximum(one + other, TINY)
    part = other / both
    of_one, of_other = share * hit[:, :, 0], (1 - share) * hit[:, :, 1]
    low = part * of_one + (1 - part) * of_other
    width = np.maximum(part * (1 - share) + (1 - part) * share, TINY)
    mean = (part * of_other + (1 - part) * of_one) / width
    size = np.clip(mean * (1 - mean) * width**2 / both - 1, 1e-3, 1e8)
    a, b = mean * size, (1 - mean) * size
    at = mean
    for _ in range(4):
        at = np.clip(at, TINY, 1 - EPSILON)
        p = np.clip(low + width * at, TINY, 1 - EPSILON)
        up, down = hits * width * at / p, misses * width * (1 - at) / (1 - p)
        now, at = at, (a + up) / (size + up + down)
    tilted = hits * np.log(p) + misses * np.log1p(-p) - up * np.log(now) - down * np.log1p(-now)
    # Both logs lie above their tangents; the mean of the gap, from their curvature and the delta method's variance.
    steep, flat = width * now / p, width * (1 - now) / (1 - p)
    gap = (up * (1 - steep) * (1 - now) / now + down * (1 - flat) * now / (1 - now)) / (size + up + down)
    tilted += gap / 2
    # log B(a + up, b + down) / B(a, b), in less time than betaln takes
    rising = log_rising(a, up) + log_rising(b, down) - log_rising(size, up + down)
    return np.asarray(tilted + rising)


def _peak(
    counts: Ints | Floats, hit: Floats, mean: Floats, precision: Floats, variance: Floats | None
) -> tuple[Floats, Floats]:
    """Where the integrand of `log_marginal` peaks, in logit ω, and the information of the counts there: `(M, C)`.

    Climbed from 0, where the counts are heard best, and from the mean, where they may say nothing: near a share of 0
    or 1 the counts are flat, a step is short of a far mean, and from a far mean no step leads back. The higher wins.
    """
    n = counts.sum(-1)

    def seen(at: Floats) -> tuple[Floats, Floats, Floats]:
        """Share, chance, and how many images of a binomial each image is worth."""
        share = special.expit(at)
        chance = _chance(share, hit)
        worth = 1.0 if variance is None else 1 / (1 + (n - 1) / (1 + _size(share, chance, variance)))
        return share, chance, np.asarray(worth)

    at = np.stack([np.zeros_like(mean), mean])
    for _ in range(6):
        share, chance, worth = seen(at)
        change = share * (1 - share) * (hit[..., 0] - hit[..., 1])
        score = worth * (counts[:, 0] - n * chance) * change / (chance * (1 - chance)) - (at - mean) * precision
        information = worth * n * change**2 / (chance * (1 - chance))
        # Far from the peak the information is a poor guide; a step of two is a factor of seven in the odds.
        at = at + np.clip(score / (information + precision), -2, 2)
    _, chance, worth = seen(at)
    said = counts[:, 0] * np.log(chance) + counts[:, 1] * np.log1p(-chance)
    height = worth * said - (at - mean) ** 2 * precision / 2
    second = height[1] > height[0]
    return np.where(second, at[1], at[0]), np.where(second, information[1], information[0])


def _size(share: Floats, chance: Floats, variance: Floats) -> Floats:
    """a + b of the beta distribution of the chance, whose variance at a share ω is ω² that of h₁ and (1 - ω)² that of h₂."""
    unsure = share**2 * variance[:, :, 0] + (1 - share) ** 2 * variance[:, :, 1]
    return np.asarray(np.clip(chance * (1 - chance) / np.maximum(unsure, TINY) - 1, 1e-3, 1e8))


def _chance(share: Floats, hit: Floats) -> Floats:
    """Chance that a decided image is predicted to be the level."""
    return np.clip(share * hit[:, :, 0] + (1 - share) * hit[:, :, 1], TINY, 1 - EPSILON)


def _shift(normal: Floats) -> Floats:
    """Standard normals as a t with 3 degrees of freedom."""
    return np.asarray(WIDE * special.stdtrit(3, special.ndtr(np.clip(normal, -FAR, FAR))), dtype=np.float64)


def _stretch(normal: Floats) -> Floats:
    """Standard normals as Cauchy(1, 1).

    Through a poor classifier all large stretches look alike, so a prior that is flat there is an opinion for them, and
    one that ends there an opinion against. A density that falls with the square is neither.
    """
    return np.asarray(1 + np.tan(math.pi * (special.ndtr(np.clip(normal, -FAR, FAR)) - 0.5)), dtype=np.float64)


def _scatter(normal: Floats) -> Floats:
    """Standard normals as half-Cauchy(1). Below a millionth nothing changes but the rounding."""
    return np.maximum(np.tan(math.pi / 2 * special.ndtr(normal)), 1e-6)


def _beta(normal: Floats, a: Floats, b: Floats) -> Floats:
    """Standard normals as Beta(a, b)."""
    return np.asarray(special.betaincinv(a, b, special.ndtr(np.clip(normal, -FAR, FAR))), dtype=np.float64)


def _adaptive_sample(
    log_likelihood: Callable[[Floats], Floats], dimensions: int, rng: np.random.Generator
) -> Floats | None:
    """Draws `(S, D)` from a posterior whose prior is standard normal, by adaptive importance sampling.

    Each round draws from a multivariate t that is fitted to the weighted draws of the round before (population Monte
    Carlo, Cappé et al. 2008, Statistics and Computing 18:447). While few draws would carry all the weight, the weights
    are flattened to a power that leaves an eighth of them effective. The rounds that needed no flattening are the answer,
    each by its effective draws, once these are `WORTH` together; otherwise there is none.
    """
    proposal = stats.multivariate_t(np.zeros(dimensions), np.eye(dimensions), df=FREEDOM)
    size = DRAWS
    states, shares = np.empty((0, dimensions)), np.empty(0)
    for _ in range(ROUNDS):
        state = proposal.rvs(size, random_state=rng)
        likely = np.concatenate([log_likelihood(some) for some in np.array_split(state, size // SLICE)])
        weight = likely - (state**2).sum(-1) / 2 - proposal.logpdf(state)
        weights = special.softmax(weight)
        power = 1.0
        while (worth := 1 / (weights**2).sum()) < size / 8:
            power *= 0.8
            weights = special.softmax(power * weight)
        if power == 1:
            states, shares = np.concatenate([states, state]), np.concatenate([shares, worth * weights])
            if shares.sum() >= WORTH:
                return np.asarray(states[rng.choice(len(states), len(states), p=shares / shares.sum())])
            size *= 2
        mean = weights @ state
        spread = (weights[:, None] * (state - mean)).T @ (state - mean)
        proposal = stats.multivariate_t(mean, spread + 1e-9 * np.eye(dimensions), df=FREEDOM)
    return None
