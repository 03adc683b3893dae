"""What a classifier said -> what the images show: its measured errors are taken out of the shares, and their
uncertainty into the intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import special

from classifiers.confusion import (
    PRIOR,
    Errors,
    checked_confusion,
    errors_of_all,
    errors_of_each,
    errors_of_means,
    most_likely,
)
from pipeline.estimates import (
    ENOUGH,
    Floats,
    Ints,
    Shares,
    central_interval,
    checked_counts,
    checked_level,
    effective_size,
    log_rising,
)

CHAINS = 64
FIRST = 32
"""Steps kept in the first round, after as many that are thrown away: 2,048 draws of all chains together."""
LONGEST = 128 * FIRST
"""Steps of the longest round; chains that are not worth `ENOUGH` draws by then are given up."""
BLOCK, CELLS = 32, 800
"""Groups sampled together at most, and their matrices' cells: the longest round of ten levels takes some 250 MiB."""
TINY = np.finfo(float).tiny
METHOD = "joint posterior of shares and confusion matrix"


def corrected_shares(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    labelled: npt.ArrayLike | None = None,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Shares:
    """The true shares of K levels, from what was predicted and the classifier's record on labelled pictures.

    `predicted` `(K,)`, or `(K + 1,)` with `cannot tell` last: counts of images that show one person.
    `confusion` `(K, K)` or `(K, K + 1)` counts: rows true, columns predicted. `labelled`, of the same shape: a random
    sample of these very images that a person labelled; `predicted` then counts the others. The model is told under
    `corrected_shares_many`. Chains that do not settle are a `RuntimeError`.
    """
    counts = checked_counts("predicted", predicted, dimensions=(1,))
    seen = None if labelled is None else checked_counts("labelled", labelled, dimensions=(2,))[None]
    shares = corrected_shares_many(counts[None], confusion, labelled=seen, level=level, rng=rng)[0]
    if shares.method != METHOD:
        raise RuntimeError(f"corrected shares of predicted = {counts.tolist()}: {shares.method}")
    return shares


def corrected_shares_many(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    *,
    labelled: npt.ArrayLike | None = None,
    level: float = 0.95,
    rng: np.random.Generator,
) -> list[Shares]:
    """`corrected_shares` of G groups at once, which is faster.

    `predicted` `(G, J)` counts with J = K or K + 1. `confusion` `(K, J)` counts for all groups, or `(G, K, J)` where
    the labelled pictures are of the groups (a group may have none): then each group's errors are its own, and what the
    others say of them is weighed by how alike they are (`partially_pooled`). `labelled` `(G, K, J)` counts, true level
    by a person × predicted, of a random sample of each group's images, where `predicted` counts the others.

    Decided images: counts ~ Multinomial(ω D), ω the levels' shares among the decided and D the errors among decided
    pictures, seen as often as `confusion` says. Both are learnt together by Gibbs sampling over the unseen table true ×
    predicted (Tanner and Wong 1987, JASA 82:528; for two levels Joseph, Gyorkos and Coupal 1995, American J.
    Epidemiology 141:263). `labelled` is a part of that table that was seen: it counts for the shares and for the
    errors alike.

    Priors: on each row of D `prior_of_errors`; on ω one image's worth, Dirichlet 1/K (Perks 1947, J. Institute of Actuaries
    73:285), for the values. What is said of level k alone, its interval and its column of the draws, has Jeffreys' ½ on
    k and ½ on the others together, the reference prior where one share is of interest (Berger and Bernardo 1992,
    Biometrika 79:25): 1/K would cut off the levels that few images show. Dirichlet ½ on all levels, which is often
    taken, weighs ten levels as five images, and at 20 images it drew a share of .82 down by 20 points and held it in
    65 % of audits. Two levels: all three are one.

    `cannot tell` is an outcome: with t the chance that a picture of a level is decided, learnt from the labels, the
    shares among all images are π ∝ ω / t, so a level that is abstained on more often is not undercounted. What must
    carry over from the labelled pictures is the *ratio* of these chances between levels, not abstention as such:
    images are often harder than labelled pictures, and a model that also explained how many are undecided would then
    blame a level for it. (Labelled images that were undecided count for t alone, which errs on the wide side.) A group
    with no decided image is unknown: NaN in [0, 1].

    The value is the posterior mean (medians would not sum to 1), the interval `estimates.central_interval`. A matrix
    that hardly tells the levels apart gives wide intervals and a warning. Each group has its own copy of the matrix:
    the errors of groups that share one are *not* independent (`amplification.mean_difference` minds that). A group
    whose chains are worth fewer than `ENOUGH` draws has no number but NaN in [0, 1], and its method says why.
    """
    counts, matrix, seen = _checked(predicted, confusion, labelled)
    table = matrix + seen
    return _sampled(counts, errors_of_all(table) if matrix.ndim == 2 else errors_of_each(table), seen, level, rng)


def corrected_shares_each(
    predicted: npt.ArrayLike, confusion: npt.ArrayLike, *, level: float = 0.95, rng: np.random.Generator
) -> list[Shares]:
    """`corrected_shares` of G audits that know nothing of each other, sampled together, which is faster.

    `predicted` `(G, J)` and `confusion` `(G, K, J)` counts: each audit has its own labelled pictures and learns nothing
    from the others', as concepts of one classifier do in `corrected_shares_many`.
    """
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrices = checked_confusion(confusion, dimensions=(3,))
    if counts.shape != matrices[:, 0].shape:
        raise ValueError(f"predicted {counts.shape} and confusion {matrices.shape} must be (G, J) and (G, K, J)")
    return corrected_by(counts, errors_of_all(matrices), level=level, rng=rng)


def corrected_by(counts: Ints, errors: Errors, *, level: float = 0.95, rng: np.random.Generator) -> list[Shares]:
    """`corrected_shares` of G groups, `(G, J)` counts that are checked, by what is known of the errors in each."""
    none = np.zeros((*errors.decided.shape, counts.shape[1]), np.int64)
    return _sampled(counts, errors, none, level, rng)


def corrected_means(
    predicted: npt.ArrayLike,
    confusion: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    rng: np.random.Generator,
) -> list[Shares]:
    """The mean shares of C concepts, weighed in M ways.

    `predicted` `(C, J)` counts; `confusion` `(K, J)` counts for all concepts, or `(G, K, J)` by concept, the first C of
    which are these. `weights` `(M, C)` of one image of each concept; None is one mean in which all images weigh alike.

    The correction is linear in the counts, so a mean is corrected once, from the summed counts: the uncertainty of the
    matrix enters once and not C times as if it averaged out, nor do the priors of C small samples add up. Where errors
    are by concept, the matrix of such a sum is `on_average`'s over its images of each true level, which are taken from
    the shares that fit each concept's counts.
    """
    counts, matrix = checked_concepts(predicted, confusion)
    levels = matrix.shape[-2]
    weigh = np.ones((1, len(counts))) if weights is None else np.asarray(weights, dtype=np.float64)
    if weigh.ndim != 2 or weigh.shape[1] != len(counts) or not (np.isfinite(weigh) & (weigh >= 0)).all():
        raise ValueError(f"weights must be (M, {len(counts)}) numbers from 0 on, one of each concept")
    return corrected_by(weighed(counts, weigh, levels), errors_of_means(counts, matrix, weigh), level=level, rng=rng)


def weighed(counts: Ints, weights: Floats, levels: int) -> Ints:
    """Sums `(M, J)` of the counts `(C, J)` of C concepts, of which an image weighs `(M, C)`, in whole images.

    Their decided images, the first K columns, are as many as the sum's variance is worth: Kish (1965, Survey Sampling,
    section 11.7).
    """
    decided = counts[:, :levels].sum(1)
    worth = weights @ decided / np.maximum(weights**2 @ decided, TINY)
    return np.asarray(np.rint(weights @ counts * worth[:, None]), dtype=np.int64)


def checked_concepts(predicted: npt.ArrayLike, confusion: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Counts `(C, J)` of concepts, and `(K, J)` for all or `(G, K, J)` by concept, G of C or more; or a `ValueError`."""
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_counts("confusion", confusion, dimensions=(2, 3))
    if matrix.ndim == 3 and len(matrix) < len(counts):
        raise ValueError(f"predicted has {len(counts)} concepts and confusion only {len(matrix)}")
    _checked(counts, matrix if matrix.ndim == 2 else matrix.sum(0), None)
    return counts, matrix


def _sampled(counts: Ints, errors: Errors, by_person: Ints, level: float, rng: np.random.Generator) -> list[Shares]:
    """The shares of G groups, a block of them at a time; `by_person` `(G, K, J)`."""
    checked_level(level)
    levels = errors.taken_for.shape[1]
    known = by_person[:, :, :levels].sum(-1)
    sizes = counts.sum(1) + by_person.sum((1, 2))
    result = [_unknown(levels, int(n), METHOD) for n in sizes]
    some = np.flatnonzero(counts[:, :levels].sum(1) + known.sum(1))
    together = max(1, min(BLOCK, CELLS // levels**2))
    for start in range(0, len(some), together):
        block = some[start : start + together]
        sampled = _posterior(counts[block, :levels], errors.taken_for[block], known[block], rng)
        for group, seen in zip(block.tolist(), sampled, strict=True):
            n = int(sizes[group])
            if len(seen) == 0:
                why = "not sampled: the images contradict the confusion matrix, or outnumber its labels too far"
                result[group] = _unknown(levels, n, why)
            else:
                result[group] = _summary(seen, errors.decided[group], errors.undecided[group], n, level, rng)
    return result


def _checked(
    predicted: npt.ArrayLike, confusion: npt.ArrayLike, labelled: npt.ArrayLike | None
) -> tuple[Ints, Ints, Ints]:
    """The counts, the matrix or matrices, and what a person labelled `(G, K, J)`."""
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_counts("confusion", confusion, dimensions=(2, 3))
    shape = (len(counts), *matrix.shape[-2:])
    seen = np.zeros(shape, np.int64) if labelled is None else checked_counts("labelled", labelled, dimensions=(3,))
    if seen.shape != shape:
        raise ValueError(f"labelled must be {shape}, a table like confusion for each group, not {seen.shape}")
    if matrix.ndim == 3 and len(matrix) != len(counts):
        raise ValueError(f"predicted has {len(counts)} groups and confusion {len(matrix)}; they must agree")
    checked_confusion(matrix if matrix.ndim == 2 else (matrix + seen).sum(0))
    if counts.shape[1] != shape[2]:
        raise ValueError(f"predicted has {counts.shape[1]} columns and confusion {shape[2]}; they must agree")
    return counts, matrix, seen


def _among_all(seen: Floats, chance: Floats) -> Floats:
    """Shares among the decided `(S, K)` -> shares among all images that show one person, decided or not;
    `chance` `(S, K)` is that of each level to be decided."""
    weight = seen / chance
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def _posterior(counts: Ints, prior: Floats, known: Floats, rng: np.random.Generator) -> list[npt.NDArray[np.int32]]:
    """Draws `(S, K)` per group of how many images are of each level, none where the chains did not settle.

    `counts` `(G, K)` predicted; `prior` `(G, K, K)`: the Dirichlet parameters of the errors before the counts are seen;
    `known` `(G, K)`: further images whose true level is known.

    Each round is as long as all before it, and only the last is kept, so the draws that count are always preceded by
    as many that don't. Each chain starts at a matrix drawn from the labels alone and the shares that fit it: spread
    wider than the posterior, and near it.
    """
    levels = prior.shape[1]
    matrix = dirichlet(np.repeat(prior[:, None], CHAINS, 1), rng)
    shares = most_likely(matrix, counts)
    gibbs(shares, matrix, counts, prior, known, FIRST, rng)
    result = [np.empty((0, levels), np.int32)] * len(counts)
    unsettled, steps = np.arange(len(counts)), FIRST
    while len(unsettled) and steps <= LONGEST:
        some, other = shares[unsettled], matrix[unsettled]
        draws, true = gibbs(some, other, counts[unsettled], prior[unsettled], known[unsettled], steps, rng)
        shares[unsettled], matrix[unsettled] = some, other
        # One group after another: the Fourier transforms of all together would be most of the memory.
        settled = np.array([_worth(*of_group).min() >= ENOUGH for of_group in zip(draws, true, strict=True)])
        for group, of_group in zip(unsettled[settled], true[settled], strict=True):
            result[group] = of_group.reshape(-1, levels)
        unsettled, steps = unsettled[~settled], 2 * steps
    return result


def _worth(shares: Floats, true: npt.NDArray[np.int32]) -> Floats:
    """How many independent draws those of one group are worth for each level, `(K,)`, from `(chains, steps, K)` both.

    Of more than two levels they are drawn again by weight, for each level its own (`_of_levels`): then as many fewer as
    (Σw)² / Σw² is fewer than all of them (Kish 1965, Survey sampling, section 11.7).
    """
    worth = np.asarray(effective_size(np.moveaxis(shares, -1, 0)))
    if shares.shape[-1] == 2:
        return worth
    weight = special.softmax(_likelier(true.reshape(-1, true.shape[-1])), axis=0)
    return np.asarray(worth / (len(weight) * (weight**2).sum(0)))


def gibbs(
    shares: Floats, matrix: Floats, counts: Ints, prior: Floats, known: Floats, steps: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Move the chains in place; their shares, and how many images are of each level: `(G, chains, steps, K)` both.

    `shares` `(G, chains, K)`, `matrix` `(G, chains, K, K)`. One step: which true level stands behind each predicted
    image; then the shares; then the rows of the matrix; then each level once gives images to another: every other time to
    the one that it is most often taken for, or shares its mistakes with, and else to all others in turn.
    """
    levels = shares.shape[2]
    kept = np.empty((*shares.shape[:2], steps, levels), np.float32)
    of_each = np.empty(kept.shape, np.int32)
    before = known[:, None] + 1 / levels
    taken_for = (prior / prior.sum(-1, keepdims=True)).mean(0)
    likeliest = np.where(np.eye(levels, dtype=bool), -1, taken_for @ taken_for.T).argmax(1).tolist()
    for step in range(steps):
        weight = shares[:, :, None, :] * np.swapaxes(matrix, -1, -2)
        weight /= weight.sum(-1, keepdims=True)
        table = rng.multinomial(counts[:, None, :], weight)
        of_each[:, :, step] = table.sum(2) + known[:, None]
        shares[:] = dirichlet(before + table.sum(2), rng)
        matrix[:] = dirichlet(prior[:, None] + np.swapaxes(table, -1, -2), rng)
        for giver in range(levels):
            next_one = (giver + 1 + step // 2 % (levels - 1)) % levels
            _give(shares, matrix, prior, before, giver, next_one if step % 2 else likeliest[giver], rng)
        kept[:, :, step] = shares
    return kept, of_each


def _give(
    shares: Floats, matrix: Floats, prior: Floats, before: Floats, giver: int, taker: int, rng: np.random.Generator
) -> None:
    """Metropolis step, in place: a level has more or fewer images at the expense of another, whose errors make up for it.

    Shapes as in `gibbs`, and `before` `(G, 1, K)`: the Dirichlet parameters of the shares before the counts.

    With more images than labels, shares and matrix move together along ridges that Gibbs steps cross slowly: are these
    images of level j, or of k and misread? Along them what is predicted stays as it is, and so does the likelihood. In
    terms of m = ω_k D_k, the giver's images by what they are taken for, ω_j D_j + m is held. ω_j is drawn from
    Beta(b_j, 1) stretched to the most that leaves no m negative, which is what its own prior says of it; for the
    rest the Dirichlets of ω_k and of D_k = m / Σm are to be minded, with the Jacobian ω_k^(K - 1) of (ω_k, D_k) -> m.
    """
    of_taker, own, had = matrix[:, :, taker], prior[:, None, giver], shares[:, :, taker]
    was = shares[:, :, giver, None] * matrix[:, :, giver]
    most = had + (was / of_taker).min(-1)
    taken = np.maximum(most * rng.random(most.shape) ** (1 / before[..., taker]), TINY)
    left = was - (taken - had)[..., None] * of_taker
    size = left.sum(-1)
    inside = np.asarray((left > 0).all(-1))
    gain = ((own - 1) * np.log(np.maximum(left, TINY) / was)).sum(-1)
    gain += (before[..., giver] - own.sum(-1)) * np.log(np.maximum(size, TINY) / shares[:, :, giver])
    inside &= np.log(rng.random(most.shape)) < gain
    shares[inside, taker], shares[inside, giver] = taken[inside], size[inside]
    matrix[inside, giver] = left[inside] / size[inside, None]


def _of_levels(true: npt.NDArray[np.int32], rng: np.random.Generator) -> Iterator[Floats]:
    """Draws `(S, K)` of ω for each level that is asked about, from draws `(T, K)` of how many images are of each level.

    Those were drawn under 1/K on each level, and are drawn again by how much likelier the level's own prior makes them.
    """
    levels = true.shape[1]
    weight = special.softmax(_likelier(true), axis=0)
    for k in range(levels):
        own = np.where(np.arange(levels) == k, PRIOR, PRIOR / (levels - 1))
        chosen = rng.choice(len(true), CHAINS * FIRST, p=weight[:, k])
        yield dirichlet(own + true[chosen], rng)


def _likelier(true: npt.NDArray[np.int32]) -> Floats:
    """By how much likelier each level's own prior makes draws `(T, K)` than 1/K on each, in logarithms: `(T, K)`."""
    levels = true.shape[1]
    asked, other, drawn = (log_rising(prior, true) for prior in (PRIOR, PRIOR / (levels - 1), 1 / levels))
    return np.asarray((other - drawn).sum(1, keepdims=True) + asked - other)


def dirichlet(concentration: Floats, rng: np.random.Generator) -> Floats:
    """One draw per last axis of `concentration` `(..., K)`; numpy's own takes a single vector."""
    gamma = np.asarray(rng.standard_gamma(concentration))
    np.maximum(gamma, TINY, out=gamma)
    gamma /= gamma.sum(-1, keepdims=True)
    return gamma


def _summary(
    true: npt.NDArray[np.int32], decided: Floats, undecided: Floats, n: int, level: float, rng: np.random.Generator
) -> Shares:
    """From draws `(T, K)` of how many images are of each level; `decided`, `undecided` `(K,)` as in `told`."""
    levels = true.shape[1]
    chance = np.maximum(rng.beta(decided, undecided, true.shape), TINY) if undecided.any() else np.ones(true.shape)
    joint = _among_all(dirichlet(1 / levels + true, rng), chance)
    value, draws = joint.mean(0), joint
    if levels > 2:
        of_levels = enumerate(_of_levels(true, rng))
        draws = np.stack([_among_all(seen, chance[: len(seen)])[:, k] for k, seen in of_levels], 1)
    low, high = central_interval(draws.T, level, floor=0.0, ceiling=1.0)
    low, high = np.minimum(low, value), np.maximum(high, value)
    # Long rounds are correlated: as many draws as a first round has are enough to carry along, without those between.
    joint = joint[:: len(joint) // (CHAINS * FIRST)].copy()
    draws = draws[:: len(draws) // (CHAINS * FIRST)].copy() if levels > 2 else joint
    return Shares(value=value, low=low, high=high, n=n, method=METHOD, draws=draws, joint=joint)


def _unknown(levels: int, n: int, method: str) -> Shares:
    return Shares(value=np.full(levels, math.nan), low=np.zeros(levels), high=np.ones(levels), n=n, method=method)
