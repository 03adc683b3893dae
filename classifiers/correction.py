"""What a classifier said -> what the images show: its measured errors are taken out of the shares, and their
uncertainty into the intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.estimates import (
    ENOUGH,
    Floats,
    Ints,
    Shares,
    central_interval,
    checked_counts,
    checked_level,
    effective_size,
)

PRIOR = 0.5
"""Jeffreys' ½: on each cell of a row of the matrix, and on the one share that is asked about."""
CHAINS = 64
FIRST = 32
"""Steps kept in the first round, after as many that are thrown away: 2,048 draws of all chains together."""
LONGEST = 128 * FIRST
"""Steps of the longest round; chains that are not worth `ENOUGH` draws by then are given up."""
BLOCK, CELLS = 32, 800
"""Groups sampled together at most, and their matrices' cells: the longest round of ten levels takes some 250 MiB."""
SHARP = 0.1
"""Singular value of the matrix under which a warning is given; for two levels about sensitivity + specificity - 1."""
UNLIKE = np.linspace(-12, 6, 73)
"""Logits of the intraclass correlations over which `partially_pooled` averages: from 6e-6, alike, to almost 1."""
TINY = np.finfo(float).tiny
METHOD = "joint posterior of shares and confusion matrix"
BY_CONCEPT = "errors by concept"


class Errors(NamedTuple):
    """What labelled pictures say of a classifier's errors: in each of G groups `(G, ...)`, or in all `(...)`."""

    taken_for: Floats
    """`(..., K, K)` Dirichlet parameters, a row a true level: what a decided picture of it is taken for."""
    decided: Floats
    """`(..., K)` first parameter of the beta distribution of each level's chance to be decided."""
    undecided: Floats
    """`(..., K)` the second; 0 where there is no `cannot tell`, and all is decided."""


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
    return _sampled(counts, errors_of_all(matrices), np.zeros_like(matrices), level, rng)


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
    the shares that fit each concept's counts. A sum of images of unequal weight counts for as many as its variance is
    worth: Kish (1965, Survey Sampling, section 11.7).
    """
    counts, matrix = checked_concepts(predicted, confusion)
    levels = matrix.shape[-2]
    weigh = np.ones((1, len(counts))) if weights is None else np.asarray(weights, dtype=np.float64)
    total, sizes = weigh @ counts[:, :levels], counts[:, :levels].sum(1)
    size = (weigh @ sizes) ** 2 / np.maximum(weigh**2 @ sizes, TINY)
    sums = np.zeros((len(weigh), counts.shape[1]), np.int64)
    sums[:, :levels] = np.rint(total / np.maximum(total.sum(1), TINY)[:, None] * size[:, None])
    none = np.zeros((len(weigh), levels, counts.shape[1]), np.int64)
    return _sampled(sums, errors_of_means(counts, matrix, weigh), none, level, rng)


def checked_concepts(predicted: npt.ArrayLike, confusion: npt.ArrayLike) -> tuple[Ints, Ints]:
    """Counts `(C, J)` of concepts, and `(K, J)` for all or `(G, K, J)` by concept, G of C or more; or a `ValueError`."""
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_counts("confusion", confusion, dimensions=(2, 3))
    if matrix.ndim == 3 and len(matrix) < len(counts):
        raise ValueError(f"predicted has {len(counts)} concepts and confusion only {len(matrix)}")
    _checked(counts, matrix if matrix.ndim == 2 else matrix.sum(0), None)
    return counts, matrix


def images_behind(counts: Ints, matrix: Ints) -> Floats:
    """The decided images of each concept, each counted for the undecided of its level: `(C,)`. Arguments as checked."""
    levels = matrix.shape[-2]
    errors = errors_of_all(matrix[None]) if matrix.ndim == 2 else errors_of_each(matrix)
    each = (errors.decided + errors.undecided) / errors.decided
    return np.asarray((counts[:, :levels] * each[: len(counts)]).sum(1))


def errors_of_means(counts: Ints, matrix: Ints, weights: Floats) -> Errors:
    """The errors `(M, ...)` behind the means of `corrected_means`, of arguments that are checked."""
    if matrix.ndim == 2:
        return errors_of_all(np.repeat(matrix[None], len(weights), 0))
    levels, columns = matrix.shape[1:]
    known = errors_of_each(matrix).taken_for[: len(counts)]
    rates = known / known.sum(-1, keepdims=True)
    shares = most_likely(rates[:, None], counts[:, :levels])[:, 0]
    images = weights[..., None] * counts[:, :levels].sum(1, keepdims=True) * shares
    taken_for = on_average(matrix[..., :levels], images, prior_of_errors(levels), _louder(known, images, shares))
    if columns == levels:
        return Errors(taken_for, *told(matrix.sum(0)[None].repeat(len(weights), 0)))
    chance = on_average(_decided(matrix), images, [2 * PRIOR, PRIOR])
    return Errors(taken_for, chance[..., 0], chance[..., 1])


def partially_decided(matrices: Ints, concepts: int) -> tuple[Floats, Floats]:
    """Of how often the two levels of the first `concepts` of G groups are decided, counts `(G, 2, 3)`: the log of their
    ratio, from the mean of these, and its variance, `(C,)` both.

    By the delta method, from each group's chance in `partially_pooled`.
    """
    errors = errors_of_each(matrices)
    a, b = errors.decided[:concepts], errors.undecided[:concepts]
    chance = a / (a + b)
    apart = np.log(chance / chance.mean(0))
    return apart[:, 0] - apart[:, 1], (b / (a * (a + b + 1))).sum(1)


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


def partially_pooled(confusion: npt.ArrayLike, prior: npt.ArrayLike = PRIOR) -> Floats:
    """What G groups' labels say of each group's chances: Dirichlet parameters `(G, K, J)` from counts `(G, K, J)`, `prior`
    `(K, J)` or one number for all.

    Row k of group g is Dirichlet(κ m + own counts), m the mean of the *other* groups' counts and Dirichlet(`prior`).
    κ = 1/ρ - 1, where m(1 - m)ρ is the variance of a group's chance around m: the groups' intraclass correlation ρ,
    and what is not known of the mean itself. Groups that are alike leave κ = the others' labels and the prior, so that
    all labels count fully and each once; groups that differ a κ near 0, so that one without labels is hardly known.
    No parameter is less than `prior`'s: a κ m near 0 would be sure of what a group's few labels happen to show.

    ρ is weighed by the Dirichlet-multinomial likelihood (Minka 2000, Estimating a Dirichlet distribution, equation 53)
    of each group's counts given the others', uniform in 0..1, and averaged: variances are linear in ρ, and the most
    likely ρ of few groups is too often 0. One group alone says nothing of how groups differ.
    """
    counts = checked_counts("confusion", confusion, dimensions=(3,))
    weak = np.broadcast_to(np.asarray(prior, dtype=np.float64), counts.shape[1:])
    mean, apart, weight = _alike(counts, weak)
    expected = (weight[:, None] * apart).sum(0)
    return np.asarray(np.maximum((1 / expected - 1)[..., None] * mean, weak) + counts)


def _alike(counts: Ints, weak: Floats) -> tuple[Floats, Floats, Floats]:
    """How alike G groups are, by their counts `(G, K, J)`: the mean m of each group's others `(G, K, J)`; by how much the
    group's chance varies around it, as an intraclass correlation, for R values of ρ `(R, G, K)`; their weights `(R, K)`."""
    own, others = counts.sum(-1), (counts.sum(0) - counts).sum(-1)
    mean = (weak + counts.sum(0) - counts) / (weak.sum(-1) + others)[..., None]
    rho = special.expit(UNLIKE)[:, None, None]
    lumps = ((own**2).sum(0) - own**2) / np.maximum(others, 1) ** 2
    unsure = rho * lumps + (1 - rho) / (1 + weak.sum(-1) + others)
    apart = rho + unsure - rho * unsure
    prior_counts = (1 / apart - 1)[..., None] * mean
    likely = special.gammaln(prior_counts + counts) - special.gammaln(prior_counts)
    total = likely.sum(-1) + special.gammaln(1 / apart - 1) - special.gammaln(1 / apart - 1 + own)
    # Steps in logit ρ; a uniform ρ has density ρ (1 - ρ) there.
    return mean, apart, special.softmax(total.sum(1) + np.log(rho * (1 - rho))[:, 0], axis=0)


def on_average(
    confusion: npt.ArrayLike,
    images: npt.ArrayLike,
    prior: npt.ArrayLike = PRIOR,
    louder: npt.ArrayLike = 1.0,
) -> Floats:
    """What G groups' labels say of the chances in a mean of C of them: Dirichlet parameters `(M, K, J)` from counts
    `(G, K, J)`, for M means with so many `images` `(M, C, K)` of each true level in each of the first C groups.

    A group's chance varies around the mean with intraclass correlation ρ, weighed as in `partially_pooled`. For each ρ
    the mean Σ v_g D_g is the best linear predictor from the labels (Henderson 1975, Biometrics 31:423): with κ = 1/ρ - 1
    each group's chance is (κ m + its hits) / (κ + its labels), m its generalized least squares mean. The labels are worth
    as many as a binomial with the variance of what this misses: all of them where groups are alike; where they differ,
    those of the groups with the images, and fewer, however many there are, the fewer groups they are of. What it misses in
    a group counts `louder` `(M, C, K)` times. `prior` `(K, J)` or one number comes on top, once.
    """
    counts = checked_counts("confusion", confusion, dimensions=(3,))
    some = np.asarray(images, dtype=np.float64)
    weak = np.broadcast_to(np.asarray(prior, dtype=np.float64), counts.shape[1:])
    weight = _alike(counts, weak)[2]
    share = np.zeros((2, len(some), *counts.shape[:2]))
    share[0, :, : some.shape[1]] = some / np.maximum(some.sum(1, keepdims=True), TINY)
    share[1, :, : some.shape[1]] = share[0, :, : some.shape[1]] * louder
    own, rho = counts.sum(-1), special.expit(UNLIKE)[:, None, None]
    loose = 1 + rho * (own - 1)
    every = weak + counts.sum(0)
    spread = 1 - ((every / every.sum(-1, keepdims=True)) ** 2).sum(-1)

    def of_each_label(share: Floats) -> Floats:
        """What one label of a group adds to the mean: `(R, G, K)`."""
        pooled = (share * (1 - rho) / loose).sum(1, keepdims=True) / (own / loose).sum(1, keepdims=True)
        return np.asarray((share * rho + pooled) / loose)

    result = []
    for mine, loud in zip(*share, strict=True):
        found = (of_each_label(mine)[..., None] * counts).sum(1)
        mean = (weight[..., None] * found).sum(0)
        each = of_each_label(loud)
        missed = (rho * (each * own - loud) ** 2 + (1 - rho) * each**2 * own).sum(1)
        missed += ((found - mean) ** 2).sum(-1) / spread  # what of the mean hangs on ρ
        result.append(weak + mean / np.maximum((weight * missed).sum(0), TINY)[:, None])
    return np.array(result)


def _louder(known: Floats, images: Floats, shares: Floats) -> Floats:
    """By how much more a mistake about a group's errors moves its corrected shares than one about the mean matrix moves
    those of the mean, `(M, C, K)`: `known` Dirichlet parameters `(C, K, K)`, `images` `(M, C, K)`, `shares` `(C, K)`.

    Corrected shares are D⁻ᵀ times what is predicted, so an error δ in row k moves them by D⁻ᵀ δ times the level's share.
    δ has the covariance of one label in the group, and for the mean the average of these; of its movement the root mean
    square is compared. A share in 0..1 cannot vary by
    more than 1/4, though: where levels are hardly told apart, D⁻ᵀ δ says nothing of how far it can move.
    """
    rates = known / known.sum(-1, keepdims=True)
    share = images / np.maximum(images.sum(1, keepdims=True), TINY)
    mean = np.einsum("mck,ckj->mkj", share, rates)
    unsure = rates[..., None] * (np.eye(mean.shape[-1]) - rates[..., None, :])  # (C, K, J, J) of each row
    of_groups, of_mean = np.linalg.pinv(rates), np.linalg.pinv(mean)
    own = np.einsum("ckab,cbj,caj->ck", unsure, of_groups, of_groups)
    moved = own / (1 + known.sum(-1)) * shares**2
    own *= np.minimum(1, 1 / 4 / np.maximum(moved, TINY))
    whole = np.einsum("mck,ckab,mbj,maj->mk", share, unsure, of_mean, of_mean, optimize=True)
    return np.asarray(np.sqrt(np.maximum(own, TINY) / np.maximum(whole, TINY)[:, None]))


def checked_confusion(confusion: npt.ArrayLike, *, dimensions: tuple[int, ...] = (2,)) -> Ints:
    """Counts `(..., K, K)` or `(..., K, K + 1)`, K of 2 or more, with decided pictures in each row, or a `ValueError`.

    Warns where some levels are hardly told apart.
    """
    matrix = checked_counts("confusion", confusion, dimensions=dimensions)
    levels, columns = matrix.shape[-2:]
    if levels < 2 or columns not in (levels, levels + 1):
        raise ValueError(f"confusion must be (K, K) or (K, K + 1) with K of 2 or more, not {matrix.shape[-2:]}")
    decided = matrix[..., :levels]
    rows = decided.sum(-1, keepdims=True)
    if (rows == 0).any():
        empty = sorted({int(row) for row in np.argwhere(rows[..., 0] == 0)[:, -1]})
        raise ValueError(f"confusion has no decided labelled picture of level {', '.join(map(str, empty))}: empty row")
    sharpness = float(np.linalg.svd(decided / rows, compute_uv=False).min(initial=math.inf))
    if sharpness < SHARP:
        warnings.warn(
            f"confusion is almost singular (smallest singular value {sharpness:.3f}): "
            "the classifier hardly tells some levels apart, and corrected shares are wide",
            stacklevel=2,
        )
    return matrix


def prior_of_errors(levels: int) -> Floats:
    """Dirichlet parameters `(K, K)` of what a decided picture of each level is taken for, before any was labelled.

    Jeffreys' ½ on its being read right and ½ on its being read wrong, which the other levels share: ½ on each of them
    would weigh the errors of ten levels as 4½ pictures. At 500 labelled pictures a level that was misread in 1 % of
    them then had a share of .91 found 2.3 points too high, and held in three audits of four.
    """
    return np.where(np.eye(levels, dtype=bool), PRIOR, PRIOR / (levels - 1))


def told(confusion: Ints) -> tuple[Floats, Floats]:
    """The two parameters of the beta posterior of each level's chance to be decided: `(..., K)` each.

    With ½ each on being read right, being read wrong and `cannot tell`. Without that column all is decided: the second
    is 0.
    """
    levels = confusion.shape[-2]
    decided = 2 * PRIOR + confusion[..., :levels].sum(-1)
    if confusion.shape[-1] == levels:
        return decided, np.zeros_like(decided)
    return decided, np.asarray(PRIOR + confusion[..., levels])


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


def errors_of_all(matrices: Ints) -> Errors:
    """The errors `(G, ...)` of groups of which each has all that is known, counts `(G, K, J)`."""
    levels = matrices.shape[-2]
    return Errors(prior_of_errors(levels) + matrices[..., :levels], *told(matrices))


def errors_of_each(matrices: Ints) -> Errors:
    """The errors `(G, ...)` of groups of one classifier, which tell of each other as far as they are alike."""
    levels, columns = matrices.shape[-2:]
    taken_for = partially_pooled(matrices[..., :levels], prior_of_errors(levels))
    if columns == levels:
        return Errors(taken_for, *told(matrices))
    chance = partially_pooled(_decided(matrices), [2 * PRIOR, PRIOR])
    return Errors(taken_for, chance[..., 0], chance[..., 1])


def _decided(matrices: Ints) -> Ints:
    """How many pictures of each level were decided, and how many not: `(..., K, K + 1)` -> `(..., K, 2)`."""
    return np.stack([matrices[..., :-1].sum(-1), matrices[..., -1]], -1)


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


def most_likely(matrix: Floats, counts: Ints, steps: int = 20) -> Floats:
    """Shares `(G, chains, K)` that fit the counts if the matrix were known, by EM (Saerens et al. 2002, Neural
    Computation 14:21), with the prior's ½ added so that none is zero."""
    shares = np.full(matrix.shape[:-1], 1 / matrix.shape[-2])
    for _ in range(steps):
        seen = counts[:, None, :] / (shares[..., None, :] @ matrix)[..., 0, :]
        shares = shares * (matrix @ seen[..., None])[..., 0] + PRIOR
        shares /= shares.sum(-1, keepdims=True)
    return shares


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
    asked, other, drawn = (_log_rising(prior, true) for prior in (PRIOR, PRIOR / (levels - 1), 1 / levels))
    return np.asarray((other - drawn).sum(1, keepdims=True) + asked - other)


def _log_rising(start: float, n: npt.NDArray[np.int32]) -> Floats:
    """log Γ(start + n) / Γ(start): the likelihood of counts n under a Dirichlet, but for what depends on sums alone."""
    return np.asarray(special.gammaln(start + n) - special.gammaln(start))


def dirichlet(concentration: Floats, rng: np.random.Generator) -> Floats:
    """One draw per last axis of `concentration` `(..., K)`; numpy's own takes a single vector."""
    gamma = np.maximum(rng.standard_gamma(concentration), TINY)
    return np.asarray(gamma / gamma.sum(-1, keepdims=True))


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
