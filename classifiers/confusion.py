"""Counts on labelled pictures -> what is known of a classifier's errors: in all pictures alike, in each concept, and in the
mean of several."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from pipeline.estimates import Floats, Ints, checked_counts

PRIOR = 0.5
"""Jeffreys' ½: on each cell of a row of the matrix, and on the one share that is asked about."""
SHARP = 0.1
"""Singular value of the matrix under which a warning is given; for two levels about sensitivity + specificity - 1."""
UNLIKE = np.linspace(-12, 6, 73)
"""Logits of the intraclass correlations over which `partially_pooled` averages: from 6e-6, alike, to almost 1."""
TINY = np.finfo(float).tiny
BY_CONCEPT = "errors by concept"


class Errors(NamedTuple):
    """What labelled pictures say of a classifier's errors: in each of G groups `(G, ...)`, or in all `(...)`."""

    taken_for: Floats
    """`(..., K, K)` Dirichlet parameters, a row a true level: what a decided picture of it is taken for."""
    decided: Floats
    """`(..., K)` first parameter of the beta distribution of each level's chance to be decided."""
    undecided: Floats
    """`(..., K)` the second; 0 where there is no `cannot tell`, and all is decided."""


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


def images_behind(counts: Ints, matrix: Ints) -> Floats:
    """The decided images of each concept, each counted for the undecided of its true level: `(C,)`. Arguments as checked.

    With D what decided images are taken for and t each level's chance to be decided, one that is predicted to be a level
    counts for the level's part of D⁻¹ (1/t): images of every true level then count on average for 1/t, in whatever shares
    they come. A concept counts for no less and no more than if all its images were of one level, however unsure D⁻¹ is.
    """
    levels = matrix.shape[-2]
    errors = errors_of_all(matrix[None]) if matrix.ndim == 2 else errors_of_each(matrix)
    rates = errors.taken_for / errors.taken_for.sum(-1, keepdims=True)
    each = (errors.decided + errors.undecided) / errors.decided
    of_predicted = (np.linalg.pinv(rates) @ each[..., None])[..., 0]
    told, each, of_predicted = counts[:, :levels], each[: len(counts)], of_predicted[: len(counts)]
    decided = told.sum(1)
    return np.asarray(np.clip((told * of_predicted).sum(1), decided * each.min(-1), decided * each.max(-1)))


def errors_of_means(counts: Ints, matrix: Ints, weights: Floats) -> Errors:
    """The errors `(M, ...)` behind the means of `corrected_means`, of arguments that are checked."""
    if matrix.ndim == 2:
        return errors_of_all(np.repeat(matrix[None], len(weights), 0))
    levels, columns = matrix.shape[1:]
    each = errors_of_each(matrix)
    known = each.taken_for[: len(counts)]
    rates = known / known.sum(-1, keepdims=True)
    shares = most_likely(rates[:, None], counts[:, :levels])[:, 0]
    images = weights[..., None] * counts[:, :levels].sum(1, keepdims=True) * shares
    taken_for = on_average(matrix[..., :levels], images, prior_of_errors(levels), _louder(known, images, shares))
    if columns == levels:
        return Errors(taken_for, *told(matrix.sum(0)[None].repeat(len(weights), 0)))
    # how often a level is decided is of all its images, the undecided among them, where `images` are the decided
    behind = images * ((each.decided + each.undecided) / each.decided)[: len(counts)]
    chance = on_average(_decided(matrix), behind, [2 * PRIOR, PRIOR])
    return Errors(taken_for, chance[..., 0], chance[..., 1])


def _louder(known: Floats, images: Floats, shares: Floats) -> Floats:
    """By how much more a mistake about a group's errors moves its corrected shares than one about the mean matrix moves
    those of the mean, `(M, C, K)`: `known` Dirichlet parameters `(C, K, K)`, `images` `(M, C, K)`, `shares` `(C, K)`.

    Corrected shares are D⁻ᵀ times what is predicted, so an error δ in row k moves them by D⁻ᵀ δ times the level's share.
    δ has the covariance of one label in the group, and for the mean the average of these; of its movement the root mean
    square is compared. A share in 0..1 cannot vary by more than 1/4, though: where levels are hardly told apart, D⁻ᵀ δ
    says nothing of how far it can move.
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


def most_likely(matrix: Floats, counts: Ints, steps: int = 20) -> Floats:
    """Shares `(G, chains, K)` that fit the counts if the matrix were known, by EM (Saerens et al. 2002, Neural
    Computation 14:21), with the prior's ½ added so that none is zero."""
    shares = np.full(matrix.shape[:-1], 1 / matrix.shape[-2])
    for _ in range(steps):
        seen = counts[:, None, :] / (shares[..., None, :] @ matrix)[..., 0, :]
        shares = shares * (matrix @ seen[..., None])[..., 0] + PRIOR
        shares /= shares.sum(-1, keepdims=True)
    return shares


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
