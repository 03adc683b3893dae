"""Two readings of the same seeds -> how far the shares moved: the joint model of pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from classifiers.confusion import PRIOR, Errors, checked_confusion, errors_of_all, prior_of_errors
from classifiers.correction import CHAINS, FIRST, LONGEST, dirichlet
from pipeline.amplification import two_sided
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
from pipeline.types import Estimate

BLOCK = 16
"""Groups sampled together: the memory of the longest round stays under 1 GiB at ten levels or fewer."""
TRIES = 16
"""Independent draws for each that is wanted; chains cost about as much."""
MOVES = 2
"""Metropolis steps between two draws that are kept."""
METHOD = "joint posterior of pairs and confusion matrix"


@dataclass(frozen=True, kw_only=True, eq=False)
class Paired:
    """How the shares of K levels changed from the first to the second picture of the same seeds."""

    first: Shares
    """Among all pairs; `n` are those of which both are decided."""
    second: Shares
    change: tuple[Estimate, ...]
    """Second − first per level, in -1..1 (0.1 is ten points); `n` are the pairs of which both are decided."""
    log_odds: tuple[Estimate, ...]
    """logit second − logit first per level; its bounds are infinite where a share may be 0 or 1."""
    p: float
    """Two-sided, of no change in any level: one test of all levels together."""
    test: str
    variance_factor: Floats
    """`(K,)`: variance of the change over the sum of both shares' variances, which an unpaired estimate would have.

    It holds all that cancels: the seeds' common noise, and the errors of a matrix that both sides share.
    """
    raw_variance_factor: Floats
    """`(K,)`: the same for the raw decisions, where nothing but the seeds can cancel. NaN where nothing varies."""
    n: int
    missing: int
    """Pairs of which one or both are `cannot tell`."""


def paired_shares(
    pairs: npt.ArrayLike,
    confusion: npt.ArrayLike,
    other_confusion: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Paired:
    """The change of the true shares from the first to the second picture of a pair, in points and in log odds.

    `pairs` `(J, J)` counts the pairs decided i in the first and j in the second picture; `confusion` `(K, J)` counts
    labelled pictures, rows true; J = K, or K + 1 with `cannot tell` last. `other_confusion` is the second picture's
    matrix, if that is another. The model is told under `paired_shares_many`. Chains that do not settle are a
    `RuntimeError`.
    """
    counts = checked_counts("pairs", pairs, dimensions=(2,))
    found = paired_shares_many(counts[None], confusion, other_confusion, level=level, rng=rng)[0]
    if found.first.method != METHOD:
        raise RuntimeError(f"paired shares of pairs = {counts.tolist()}: {found.first.method}")
    return found


def paired_shares_many(
    pairs: npt.ArrayLike,
    confusion: npt.ArrayLike,
    other_confusion: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    rng: np.random.Generator,
) -> list[Paired]:
    """`paired_shares` of G groups at once, which is faster.

    `pairs` `(G, J, J)`, the matrices `(K, J)` for all groups or `(G, K, J)`.

    Counts ~ Multinomial(Q), Q `(J, J)` the table of both decisions, whose margins among the decided are Dᵀ ω and D′ᵀ ω′:
    ω, ω′ the true shares and D, D′ the errors of each side, seen as often as the matrices say. How the sides hang
    together is left open. The posterior is that of Q and of the matrices' rows, kept to where ω and ω′ are shares at
    all. `cannot tell`: π ∝ ω / t as in `corrected_shares_many`; an image whose partner is undecided still counts on its
    own side. One matrix for both sides is one unknown, and its errors cancel in the change.

    Errors may go together in a pair, and often do: the same noise puzzles the probe twice. To learn the table of *true*
    pairs Ω from Q = Dᵀ Ω D′ (Joseph, Gyorkos and Coupal 1995, American J. Epidemiology 141:263, for one share) takes
    errors that are independent given the truth. Where they are shared, the decisions agree more often than that
    allows, the model explains it by a sharper matrix than the labels show, and the change is drawn towards the raw
    one: tests/test_pairs.py has the case. Without that assumption nothing is lost inside the table, where both give
    ω′ − ω = D⁻ᵀ (q′ − q).

    Prior on Q, two levels: Dirichlet ½ on the four cells (Agresti and Min 2005, Biometrics 61:515). Half of that, which
    would give each *margin* the ½ of `corrected_shares_many`, covers a change of one-sided pairs in 86 % of audits only (50
    pairs, 4 % of them changing, a perfect probe). More levels: half a pair on no change and half on the changes, whatever
    their number; ½ on each level would draw a common level's share, and with it the change, to where all are even.
    Both are in tests/test_pairs.py. Each cell of `cannot tell` has ½ / K, and of more than two levels ½ / K².

    Two levels and one matrix: the p-value is McNemar's exact one on the raw decisions (1947, Psychometrika 12:153),
    which errors and abstentions do not invalidate if they are the same on both sides. Else it is the posterior's,
    `amplification.two_sided` of no change. A group without a pair decided on both sides is unknown, and so is one whose
    chains are worth fewer than `ENOUGH` draws; its method says why.
    """
    counts, matrices = _checked(pairs, confusion, other_confusion)
    return paired_by_errors(counts, errors_of_all(matrices), level=level, rng=rng)


def paired_by_errors(
    counts: Ints, errors: Errors, tilt: Floats | None = None, *, level: float = 0.95, rng: np.random.Generator
) -> list[Paired]:
    """`paired_shares_many` of `counts` `(G, J, J)` by `errors` of each group and side, `(G, 1 or 2, ...)`: one for both
    sides is one unknown. `tilt` `(G, 2, K, K)` is added to the matrix on each side: what is known of how the two differ,
    where what is not known is the same on both. McNemar's test, of raw decisions, is not of the change then."""
    checked_level(level)
    sides, levels = errors.decided.shape[1:]
    tilt = np.zeros((len(counts), 2, levels, levels)) if tilt is None else tilt
    result = [_unknown(table, levels, METHOD) for table in counts]
    some = np.flatnonzero(counts[:, :levels, :levels].any((1, 2)))
    sampled = {group: _independent(counts[group], _some(errors, group), tilt[group], rng) for group in some.tolist()}
    hard = np.array([group for group, draws in sampled.items() if draws is None], int)
    for start in range(0, len(hard), BLOCK):
        block = hard[start : start + BLOCK]
        sampled |= zip(block.tolist(), _by_chains(counts[block], _some(errors, block), tilt[block], rng), strict=True)
    for group, draws in sampled.items():
        if draws is None:
            why = "not sampled: the pairs contradict the confusion matrix, or outnumber its labels too far"
            result[group] = _unknown(counts[group], levels, why)
        else:
            result[group] = _summary(
                draws, counts[group], level, mcnemar=levels == 2 and sides == 1 and not tilt[group].any()
            )
    return result


def _some(errors: Errors, groups: int | npt.NDArray[np.int64]) -> Errors:
    return Errors(*(part[groups] for part in errors))


def _checked(
    pairs: npt.ArrayLike, confusion: npt.ArrayLike, other_confusion: npt.ArrayLike | None
) -> tuple[Ints, Ints]:
    """Counts `(G, J, J)` and one or two matrices `(G, 1 or 2, K, J)`."""
    counts = checked_counts("pairs", pairs, dimensions=(3,))
    given = [confusion] if other_confusion is None else [confusion, other_confusion]
    matrices = [checked_confusion(matrix, dimensions=(2, 3)) for matrix in given]
    for name, matrix in zip(("confusion", "other_confusion"), matrices, strict=False):
        if counts.shape[1:] != (matrix.shape[-1], matrix.shape[-1]) or matrix.shape[-2:] != matrices[0].shape[-2:]:
            raise ValueError(f"pairs {counts.shape[1:]} and {name} {matrix.shape[-2:]} must be (J, J) and (K, J)")
        if matrix.ndim == 3 and len(matrix) != len(counts):
            raise ValueError(f"pairs has {len(counts)} groups and {name} {len(matrix)}; they must agree")
    wide = [np.broadcast_to(matrix, (len(counts), *matrix.shape[-2:])) for matrix in matrices]
    return counts, np.stack(wide, 1)


# -- the posterior -----------------------------------------------------------------------------------


def _prior(levels: int, columns: int) -> Floats:
    """The Dirichlet prior of the table of decisions `(J, J)`; see `paired_shares_many`."""
    table = np.full((columns, columns), PRIOR / levels)
    table[:levels, :levels] = prior_of_errors(levels)
    return table if levels == 2 else table / levels


def _independent(pairs: Ints, errors: Errors, tilt: Floats, rng: np.random.Generator) -> Floats | None:
    """Draws `(S, 2, K)` of both sides' shares from `pairs` `(J, J)` and `errors` `(1 or 2, ...)`: the table and the
    matrices as pairs and labels alone would have them, kept where they lead to shares. `None` where few do."""
    rows = errors.taken_for
    table = _prior(rows.shape[-1], len(pairs)) + pairs
    wanted, found, n = CHAINS * FIRST, [], 0
    for tried in range(1, TRIES + 1):
        tables = _dirichlet_table(np.broadcast_to(table, (wanted, *table.shape)), rng)
        shares = _shares(tables, dirichlet(np.broadcast_to(rows, (wanted, *rows.shape)), rng), tilt)
        found.append(shares[(shares > 0).all((-1, -2))])
        n += len(found[-1])
        if n >= wanted:
            return _among_all(np.concatenate(found)[:wanted], errors, rng)
        if n * TRIES < wanted * tried / 2:  # it will hardly do: half of what would be needed so far
            return None
    return None


def _by_chains(pairs: Ints, errors: Errors, tilt: Floats, rng: np.random.Generator) -> list[Floats | None]:
    """Draws `(S, 2, K)` of both sides' shares per group, `None` where the chains did not settle.

    `pairs` `(G, J, J)`, `errors` `(G, 1 or 2, ...)`. Rounds as in `classifiers.correction`: each is as long as all
    before it and only the last is kept. A chain starts at matrices drawn from the labels alone, and at what decisions
    they would give if the pairs were right.
    """
    rows = errors.taken_for[:, None]
    levels = rows.shape[-1]
    concentration = (_prior(levels, pairs.shape[-1]) + pairs)[:, None]
    matrix = dirichlet(np.repeat(rows, CHAINS, 1), rng)
    table = _dirichlet_table(np.repeat(concentration, CHAINS, 1), rng)
    tilt, tilted = tilt[:, None], _tilted(matrix, tilt[:, None])
    table[..., :levels, :] = np.swapaxes(tilted[:, :, 0], -1, -2) @ table[..., :levels, :]
    table[..., :levels] = table[..., :levels] @ tilted[:, :, 1]
    _walk(table, matrix, concentration, rows, tilt, FIRST, rng)
    result: list[Floats | None] = [None] * len(pairs)
    unsettled, steps = np.arange(len(pairs)), FIRST
    while len(unsettled) and steps <= LONGEST:
        some, other = table[unsettled], matrix[unsettled]
        draws = _walk(some, other, concentration[unsettled], rows[unsettled], tilt[unsettled], steps, rng)
        table[unsettled], matrix[unsettled] = some, other
        settled = np.array([_worth(one) >= ENOUGH for one in draws])
        for group, of_group in zip(unsettled[settled].tolist(), draws[settled], strict=True):
            result[group] = _among_all(of_group.reshape(-1, 2, levels), _some(errors, group), rng)
        unsettled, steps = unsettled[~settled], 2 * steps
    return result


def _worth(draws: Floats) -> float:
    """How many independent draws the chains `(chains, steps, 2, K)` of a group are worth, for both sides and the change."""
    watched = np.concatenate([draws, draws[..., 1:, :] - draws[..., :1, :]], -2)
    return float(effective_size(np.moveaxis(watched.reshape(*watched.shape[:2], -1), -1, 0)).min())


def _walk(
    table: Floats,
    matrix: Floats,
    concentration: Floats,
    rows: Floats,
    tilt: Floats,
    steps: int,
    rng: np.random.Generator,
) -> Floats:
    """Move the chains in place and return both sides' shares among the decided, `(G, chains, steps, 2, K)`.

    `table` Q `(G, chains, J, J)`, `matrix` `(G, chains, 1 or 2, K, K)`, `tilt` `(G, 1, 2, K, K)`. A Metropolis step moves
    the matrices as the labels alone would let them and Q as the pairs alone would, so that all of the posterior cancels
    but its edge: the step is taken if the shares that it leads to are shares. Each chain moves by a part of its own,
    since long steps mix and short ones stay inside.
    """
    levels = rows.shape[-1]
    shares = _shares(table, matrix, tilt)
    kept = np.empty((*table.shape[:2], steps, 2, levels))
    flat = concentration.reshape(*concentration.shape[:2], -1)
    for step in range(steps):
        for _ in range(MOVES):
            keep = rng.uniform(0.01, 0.99, table.shape[:2])
            moved = _stirred(matrix, rows, keep[..., None, None, None], rng)
            other = _stirred(table.reshape(*keep.shape, -1), flat, keep[..., None], rng).reshape(table.shape)
            proposed = _shares(other, moved, tilt)
            inside = (proposed > 0).all((-1, -2))
            table[inside], matrix[inside], shares[inside] = other[inside], moved[inside], proposed[inside]
        kept[:, :, step] = shares
    return kept


def _tilted(matrix: Floats, tilt: Floats) -> Floats:
    """The matrix of each side `(..., 2, K, K)`: a chance that would be negative is next to none."""
    both = np.maximum(matrix + tilt, 1e-9)
    return np.asarray(both / both.sum(-1, keepdims=True))


def _shares(table: Floats, matrix: Floats, tilt: Floats) -> Floats:
    """Both sides' shares among the decided, D⁻ᵀ q, `(..., 2, K)`; negative where no shares would give these decisions."""
    levels = matrix.shape[-1]
    seen = np.stack([table[..., :levels, :].sum(-1), table[..., :, :levels].sum(-2)], -2)
    seen /= seen.sum(-1, keepdims=True)
    return np.asarray(np.linalg.solve(np.swapaxes(_tilted(matrix, tilt), -1, -2), seen[..., None])[..., 0])


def _stirred(shares: Floats, concentration: Floats, keep: Floats, rng: np.random.Generator) -> Floats:
    """A reversible step from `shares` `(..., K)` under which Dirichlet(`concentration`) stays as it is.

    Shares times a gamma of their total concentration are independent gammas; of each a beta part is kept and the rest
    drawn afresh (Lewis, McKenzie and Hugus 1989, Stochastic Models 5:1, the beta-gamma autoregression).
    """
    held, fresh = concentration * keep, concentration * (1 - keep)
    whole = np.broadcast_to(concentration.sum(-1), shares.shape[:-1])
    gamma = shares * rng.standard_gamma(whole)[..., None] * rng.beta(held, fresh) + rng.standard_gamma(fresh)
    return np.asarray(gamma / gamma.sum(-1, keepdims=True))


def _among_all(shares: Floats, errors: Errors, rng: np.random.Generator) -> Floats:
    """Shares among the decided `(S, 2, K)` -> among all that show one person; `errors` `(1 or 2, ...)`."""
    if not errors.undecided.any():
        return shares
    weight = shares / rng.beta(errors.decided, errors.undecided, (len(shares), *errors.decided.shape))
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def _dirichlet_table(concentration: Floats, rng: np.random.Generator) -> Floats:
    """One table `(..., J, J)` that sums to 1 per table of concentrations."""
    flat = concentration.reshape(*concentration.shape[:-2], -1)
    return dirichlet(flat, rng).reshape(concentration.shape)


# -- the answer --------------------------------------------------------------------------------------


def _summary(draws: Floats, table: Ints, level: float, *, mcnemar: bool) -> Paired:
    """`draws` `(S, 2, K)`, `table` `(J, J)`."""
    levels = draws.shape[-1]
    counts = table[:levels, :levels]
    n = int(counts.sum())
    # Long rounds are correlated: as many draws as a first round has are enough to carry along, without those between.
    draws = draws[:: max(len(draws) // (CHAINS * FIRST), 1)].copy()
    first, second = (_side(draws[:, side], n, level) for side in (0, 1))
    moved = draws[:, 1] - draws[:, 0]
    low, high = central_interval(moved.T, level, floor=-1.0, ceiling=1.0)
    value = moved.mean(0)
    change = tuple(
        Estimate(float(v), float(min(a, v)), float(max(b, v)), n, METHOD)
        for v, a, b in zip(value, low, high, strict=True)
    )
    odds = special.logit(np.clip(draws, 1e-300, 1 - 1e-16))
    moved_odds = odds[:, 1] - odds[:, 0]
    test = "McNemar, exact, on the raw decisions" if mcnemar else "posterior of the change"
    return Paired(
        first=first,
        second=second,
        change=change,
        log_odds=tuple(
            _log_odds(moved_odds[:, k], first.estimate(k), second.estimate(k), level) for k in range(levels)
        ),
        p=p_mcnemar(counts) if mcnemar else p_of_no_change(moved),
        test=test,
        variance_factor=moved.var(0) / draws.var(0).sum(0),
        raw_variance_factor=_raw_factor(counts),
        n=n,
        missing=int(table.sum()) - n,
    )


def _side(draws: Floats, n: int, level: float) -> Shares:
    """One side's shares from draws `(S, K)`.

    The posterior is cut off where a share would leave 0..1, and `central_interval` rarely reaches the end then: a share
    of exactly 0 was covered in 82 % of audits. So the interval goes to the end at three times that rule's distance:
    about where the interval of a normal posterior would cross the end if it were not cut off.
    """
    alpha, middle, value = 1 - level, np.median(draws, 0), draws.mean(0)
    low, high = central_interval(draws.T, level, floor=0.0, ceiling=1.0)
    low = np.minimum(np.where(low < 3 * alpha * middle, 0.0, low), value)
    high = np.maximum(np.where(1 - high < 3 * alpha * (1 - middle), 1.0, high), value)
    return Shares(value=value, low=low, high=high, n=n, method=METHOD, draws=draws)


def _log_odds(moved: Floats, first: Estimate, second: Estimate, level: float) -> Estimate:
    """The posterior median; a share whose interval reaches 0 or 1 may have any log odds beyond."""
    low, high = central_interval(moved, level, floor=-math.inf)
    open_below = second.low == 0 or first.high == 1
    open_above = first.low == 0 or second.high == 1
    return Estimate(
        float(np.median(moved)),
        -math.inf if open_below else float(low),
        math.inf if open_above else float(high),
        first.n,
        METHOD,
    )


def p_of_no_change(moved: Floats, most: Floats | None = None) -> float:
    """One two-sided test of no change in any level, from posterior draws `(S, K)` of the change in -1..1; with `most`,
    these are the least that it may be."""
    return two_sided((1 + moved) / 2, np.full(moved.shape[1], 0.5), most=None if most is None else (1 + most) / 2)


def p_mcnemar(counts: Ints) -> float:
    """McNemar's exact p-value (1947, Psychometrika 12:153) of no change in pairs `(2, 2)`."""
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar(counts, exact=True).pvalue) if counts[0, 1] + counts[1, 0] else 1.0


def _raw_factor(counts: Ints) -> Floats:
    """Variance of the difference of two paired proportions over that of two independent ones, per level."""
    n = counts.sum()
    left, right, both = counts.sum(1) / n, counts.sum(0) / n, np.diag(counts) / n
    apart = left * (1 - left) + right * (1 - right)
    with np.errstate(invalid="ignore"):
        return np.asarray((apart - 2 * (both - left * right)) / apart)


def _unknown(table: Ints, levels: int, method: str) -> Paired:
    n = int(table[:levels, :levels].sum())
    nothing = np.full(levels, math.nan)
    shares = Shares(value=nothing, low=np.zeros(levels), high=np.ones(levels), n=n, method=method)
    return Paired(
        first=shares,
        second=shares,
        change=(Estimate(math.nan, -1.0, 1.0, n, method),) * levels,
        log_odds=(Estimate(math.nan, -math.inf, math.inf, n, method),) * levels,
        p=1.0,
        test="none: nothing is known",
        variance_factor=nothing,
        raw_variance_factor=nothing,
        n=n,
        missing=int(table.sum()) - n,
    )
