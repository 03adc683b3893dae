"""What a classifier said -> what the images show: its measured errors are taken out of the shares, and their
uncertainty into the intervals."""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt

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
"""Dirichlet ½ (Jeffreys) on the shares and on each row of the matrix."""
CHAINS = 64
FIRST = 32
"""Steps kept in the first round, after as many that are thrown away: 2,048 draws of all chains together."""
LONGEST = 128 * FIRST
"""Steps of the longest round; chains that are not worth `ENOUGH` draws then are an error."""
BLOCK = 32
"""Groups sampled together: the memory of a long round stays under 1 GiB at ten levels or fewer."""
SHARP = 0.1
"""Singular value of the matrix under which a warning is given; for two levels about sensitivity + specificity - 1."""
METHOD = "joint posterior of shares and confusion matrix"


def corrected_shares(
    predicted: npt.ArrayLike, confusion: npt.ArrayLike, *, level: float = 0.95, rng: np.random.Generator
) -> Shares:
    """The true shares of K levels, from what was predicted and the classifier's record on labelled pictures.

    `predicted` `(K,)`, or `(K + 1,)` with `cannot tell` last: counts of images that show one person.
    `confusion` `(K, K)` or `(K, K + 1)` counts: rows true, columns predicted. See `corrected_shares_many`.
    """
    counts = checked_counts("predicted", predicted, dimensions=(1,))
    matrix = checked_counts("confusion", confusion, dimensions=(2,))
    return corrected_shares_many(counts[None], matrix, level=level, rng=rng)[0]


def corrected_shares_many(
    predicted: npt.ArrayLike, confusion: npt.ArrayLike, *, level: float = 0.95, rng: np.random.Generator
) -> list[Shares]:
    """`corrected_shares` of G groups at once: `predicted` `(G, J)`, `confusion` `(K, J)` or `(G, K, J)`, J = K or K + 1.

    Model: predicted ~ Multinomial(π C); rows of C have been seen `confusion` times; Dirichlet ½ on π and on each row.
    Both are learnt together by Gibbs sampling over the unseen table true × predicted (Tanner and Wong 1987, JASA
    82:528; for K = 2 Joseph, Gyorkos and Coupal 1995, Am. J. Epidemiology 141:263). Each group has its own copy of C:
    the errors of groups that share a matrix are not independent (`amplification.mean_difference` knows).

    `cannot tell` is an outcome like another: a level that is abstained on more often is not undercounted. A group
    with no decided image is unknown: NaN in [0, 1].

    The value is the posterior mean (the medians would not sum to 1), the interval `estimates.central_interval`.
    A matrix that hardly tells the levels apart gives wide intervals and a warning.
    """
    counts, matrix = _checked(predicted, confusion)
    checked_level(level)
    levels = matrix.shape[1]
    result = [_unknown(levels, int(row.sum())) for row in counts]
    decided = np.flatnonzero(counts[:, :levels].sum(1))
    for start in range(0, len(decided), BLOCK):
        block = decided[start : start + BLOCK]
        for group, draws in zip(block, _posterior(counts[block], PRIOR + matrix[block], rng), strict=True):
            result[group] = _summary(draws, int(counts[group].sum()), level)
    return result


def dirichlet(concentration: Floats, rng: np.random.Generator) -> Floats:
    """One draw per last axis of `concentration` `(..., K)`; numpy's own takes a single vector."""
    gamma = rng.standard_gamma(concentration)
    return gamma / gamma.sum(-1, keepdims=True)


def checked_confusion(confusion: npt.ArrayLike, *, dimensions: tuple[int, ...] = (2,)) -> Ints:
    """Counts `(..., K, K)` or `(..., K, K + 1)` with K of 2 or more and no empty row, or a `ValueError`.

    Warns where two levels, or mixtures of levels, are hardly told apart.
    """
    matrix = checked_counts("confusion", confusion, dimensions=dimensions)
    levels, columns = matrix.shape[-2:]
    if levels < 2 or columns not in (levels, levels + 1):
        raise ValueError(f"confusion must be (K, K) or (K, K + 1) with K of 2 or more, not {matrix.shape[-2:]}")
    rows = matrix.sum(-1, keepdims=True)
    if (rows == 0).any():
        empty = sorted({int(row) for row in np.argwhere(rows[..., 0] == 0)[:, -1]})
        raise ValueError(f"confusion has no labelled picture of level {', '.join(map(str, empty))} (an empty row)")
    sharpness = float(np.linalg.svd(matrix / rows, compute_uv=False).min(initial=math.inf))
    if sharpness < SHARP:
        warnings.warn(
            f"confusion is almost singular (smallest singular value {sharpness:.3f}): "
            "the classifier hardly tells some levels apart, and the corrected shares are wide",
            stacklevel=4,
        )
    return matrix


def _checked(predicted: npt.ArrayLike, confusion: npt.ArrayLike) -> tuple[Ints, Ints]:
    counts = checked_counts("predicted", predicted, dimensions=(2,))
    matrix = checked_confusion(confusion, dimensions=(2, 3))
    if counts.shape[1] != matrix.shape[-1]:
        raise ValueError(f"predicted has {counts.shape[1]} columns and confusion {matrix.shape[-1]}; they must agree")
    if matrix.ndim == 3 and len(matrix) != len(counts):
        raise ValueError(f"predicted has {len(counts)} groups and confusion {len(matrix)}; they must agree")
    return counts, np.broadcast_to(matrix, (len(counts), *matrix.shape[-2:]))


def _posterior(counts: Ints, prior: Floats, rng: np.random.Generator) -> list[Floats]:
    """Draws `(S, K)` per group. Each round is as long as all before it, and only the last is kept.

    So the draws that count are always preceded by as many that don't. Each chain starts at a matrix drawn from the
    labels alone and the shares that fit it: spread wider than the posterior, and near it.
    """
    matrix = dirichlet(np.repeat(prior[:, None], CHAINS, 1), rng)
    shares = _most_likely(matrix, counts)
    _gibbs(shares, matrix, counts, prior, FIRST, rng)
    result: list[Floats] = [np.empty(0)] * len(counts)
    open_groups, steps = np.arange(len(counts)), FIRST
    while steps <= LONGEST:
        some, other = shares[open_groups], matrix[open_groups]
        draws = _gibbs(some, other, counts[open_groups], prior[open_groups], steps, rng)
        shares[open_groups], matrix[open_groups] = some, other
        done = effective_size(np.moveaxis(draws, -1, 1)).min(-1) >= ENOUGH
        for group, of_group in zip(open_groups[done], draws[done], strict=True):
            result[group] = of_group.reshape(-1, of_group.shape[-1])
        open_groups, steps = open_groups[~done], 2 * steps
        if not len(open_groups):
            return result
    raise RuntimeError(
        f"{len(open_groups)} corrected shares did not reach {ENOUGH} effective draws; first at predicted = "
        f"{counts[open_groups[0]].tolist()}: too few labelled pictures for so many images"
    )


def _most_likely(matrix: Floats, counts: Ints, steps: int = 20) -> Floats:
    """Shares `(G, chains, K)` that fit the counts if the matrix were known, by EM (Saerens et al. 2002, Neural
    Computation 14:21), with the prior's ½ added so that none is zero."""
    shares = np.full(matrix.shape[:-1], 1 / matrix.shape[-2])
    for _ in range(steps):
        seen = counts[:, None, :] / (shares[..., None, :] @ matrix)[..., 0, :]
        shares = shares * (matrix @ seen[..., None])[..., 0] + PRIOR
        shares /= shares.sum(-1, keepdims=True)
    return shares


def _gibbs(
    shares: Floats, matrix: Floats, counts: Ints, prior: Floats, steps: int, rng: np.random.Generator
) -> Floats:
    """Move the chains in place and return their shares `(G, chains, steps, K)`.

    `shares` `(G, chains, K)`, `matrix` `(G, chains, K, J)`, `counts` `(G, J)`, `prior` `(G, K, J)`. One step: which
    true level stands behind each predicted image; then the shares; then the rows of the matrix.
    """
    groups, chains, levels = shares.shape
    kept = np.empty((groups, chains, steps, levels))
    for step in range(steps):
        weight = shares[:, :, None, :] * np.swapaxes(matrix, -1, -2)
        weight /= weight.sum(-1, keepdims=True)
        table = rng.multinomial(counts[:, None, :], weight)
        shares[:] = dirichlet(PRIOR + table.sum(2), rng)
        matrix[:] = dirichlet(prior[:, None] + np.swapaxes(table, -1, -2), rng)
        _exchange(shares, matrix, counts, prior, rng)
        kept[:, :, step] = shares
    return kept


def _exchange(shares: Floats, matrix: Floats, counts: Ints, prior: Floats, rng: np.random.Generator) -> None:
    """Metropolis step that trades the shares against the matrix, in place; shapes as in `_gibbs`.

    With more images than labels, shares and matrix move together along a line that Gibbs steps cross slowly. Here the
    errors among decided images are drawn afresh from the labels alone and the shares are solved for, so that what is
    predicted of a decided image stays as it was: its likelihood cancels. What is left is the Dirichlet prior of the
    shares, the likelihood of the abstentions, and the Jacobian of the map.
    """
    levels = shares.shape[-1]
    told = matrix[..., :levels].sum(-1)
    errors = matrix[..., :levels] / told[..., None]
    seen = _among_decided(shares, told)[..., None, :] @ errors
    proposed = dirichlet(np.broadcast_to(prior[:, None, :, :levels], errors.shape), rng)
    solved = np.linalg.solve(np.swapaxes(proposed, -1, -2), np.swapaxes(seen, -1, -2))[..., 0]
    inside = (solved > 0).all(-1)
    new = solved / told
    new = np.where(inside[..., None], new / new.sum(-1, keepdims=True), shares)
    gain = _free_density(new, told, proposed, counts) - _free_density(shares, told, errors, counts)
    accept = inside & (np.log(rng.random(inside.shape)) < gain)
    shares[accept] = new[accept]
    matrix[..., :levels][accept] = (told[..., None] * proposed)[accept]


def _among_decided(shares: Floats, told: Floats) -> Floats:
    """Shares of the levels among the images that are decided; `told` is each level's chance of that."""
    weight = shares * told
    return weight / weight.sum(-1, keepdims=True)


def _free_density(shares: Floats, told: Floats, errors: Floats, counts: Ints) -> Floats:
    """Log density of the state of `_exchange`, in the coordinates that it holds still, but for what cancels."""
    levels = shares.shape[-1]
    decided, undecided = counts[:, None, :levels].sum(-1), counts[:, None, levels:].sum(-1)
    rate = (shares * told).sum(-1)
    abstention = np.maximum(1 - rate, np.finfo(float).tiny)
    return (
        (PRIOR - 1) * np.log(shares).sum(-1)
        + (decided + levels) * np.log(rate)
        + undecided * np.log(abstention)
        - np.log(np.abs(np.linalg.det(errors)))
    )


def _summary(draws: Floats, n: int, level: float) -> Shares:
    value = draws.mean(0)
    low, high = central_interval(draws.T, level, floor=0.0, ceiling=1.0)
    # Long rounds are correlated: as many draws as a first round has are enough to carry along.
    some = draws[:: len(draws) // (CHAINS * FIRST)]
    return Shares(
        value=value, low=np.minimum(low, value), high=np.maximum(high, value), n=n, method=METHOD, draws=some
    )


def _unknown(levels: int, n: int) -> Shares:
    return Shares(value=np.full(levels, math.nan), low=np.zeros(levels), high=np.ones(levels), n=n, method=METHOD)
