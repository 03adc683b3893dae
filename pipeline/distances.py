"""Distances from a reference or a target: what chance alone would show, and whether a change brought shares nearer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.confusion import most_likely
from classifiers.correction import dirichlet, gibbs
from pipeline import amplification
from pipeline.amplification import total_variation
from pipeline.estimates import Floats, Ints, Shares
from pipeline.pairs import p_of_no_change
from pipeline.tables import Reading, errors_of
from pipeline.types import Estimate

DATASETS = 300
"""Simulated sets of images, of all concepts together, behind a distance's noise floor: it is known to some 4 %."""
CHAINS, STEPS = 4, 16
"""Chains that correct one of them, and their steps, after as many that are thrown away."""
DRAWS = 500
"""Posterior draws per concept that changes of distances and entropies are computed of."""
SIGNIFICANT = 0.05
EITHER_WAY = ", undecided counted either way"


# -- what chance alone would show --------------------------------------------------------------------


def by_chance(
    sizes: Ints,
    reading: Reading,
    concepts: Sequence[str],
    reference: Floats,
    answers: Ints,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """What a model that draws exactly the `reference` `(C, K)` would be found to show, `sizes` `(C,)` of whose images are
    decided; and what a survey of so many `answers` `(C,)` would have published, 0 where it is exact: `(N, K)` both.

    As many simulated sets of each concept, `DATASETS` or more of all: images are drawn, misread by a matrix drawn from its
    posterior given the labels, and corrected as the estimates are, by the errors of all or of the concept. The noise is
    that of the reference's own shares: a model that is far from it may stand where a share varies less. Labels of these
    very images, which would make the estimates surer, are taken for predictions, so the floor errs on the high side.
    """
    times = math.ceil(DATASETS / len(reference))
    target, n = np.repeat(reference, times, 0), np.repeat(sizes, times)
    asked = np.repeat(answers, times)[:, None]
    published = np.where(asked > 0, rng.multinomial(asked[:, 0], target) / np.maximum(asked, 1), target)
    if reading.confusion is None:
        return rng.multinomial(n, target) / n[:, None], published
    known = errors_of(reading, concepts)
    errors, chance = (
        np.repeat(some, times, 0) for some in (known.taken_for, known.decided / (known.decided + known.undecided))
    )
    decided = target * chance
    said = (decided / decided.sum(1, keepdims=True))[:, None] @ dirichlet(errors, rng)
    weight = _roughly_corrected(rng.multinomial(n, said[:, 0] / said[:, 0].sum(1, keepdims=True)), errors, rng) / chance
    return weight / weight.sum(1, keepdims=True), published


def _roughly_corrected(counts: Ints, errors: Floats, rng: np.random.Generator) -> Floats:
    """Posterior means `(N, K)` of the shares among the decided, from `counts` `(N, K)` and Dirichlet parameters of the errors
    `(N, K, K)`: the sampler of `corrected_shares_many`, by few short chains.

    A mean distance over hundreds of sets asks little of each: their noise adds some 5 % to it, where the errors are
    large, and it takes a hundredth of the time.
    """
    matrix = dirichlet(np.repeat(errors[:, None], CHAINS, 1), rng)
    shares, none = most_likely(matrix, counts), np.zeros(counts.shape)
    gibbs(shares, matrix, counts, errors, none, STEPS, rng)
    _, true = gibbs(shares, matrix, counts, errors, none, STEPS, rng)
    return np.asarray((1 / counts.shape[1] + true.mean((1, 2))) / (1 + counts.sum(1, keepdims=True)))


# -- nearer to a target ------------------------------------------------------------------------------


def nearer(
    concepts: Sequence[str],
    before: Sequence[Shares],
    after: Sequence[Shares],
    targets: npt.ArrayLike,
) -> dict[str, Any]:
    """Distance before and after, and what lies past the target, over C concepts of K levels; one that comes twice, in two
    prompt sets, is counted once.

    The change is of the root of the mean square of √(½ Σ (share − t)²), which with two levels is the distance too. An
    estimate varies about the truth as the posterior draws vary about it, so twice the estimate's mean square less a draw's
    (the basic interval: Davison and Hinkley 1997, Bootstrap Methods, section 2.4) is rid of what noise adds to it; of an
    absolute distance a part would stay.

    Distance before and after are as found, with what noise adds; so are their intervals, by how much the draws' distances vary.

    The excess of a concept is (after − t) · (t − before) / |t − before|, the sum of absolute differences below: with two
    levels how far the share is past the target t, seen from before, and below 0 where it falls short. From which side it
    came is as uncertain as the rest: the mean takes it from the draws, and a concept counts as surely past only where it
    was surely on one side and is surely on the other (the sum of both p-values, Bonferroni's bound; Holm over concepts).
    Else a baseline that lies beyond the target by chance would make an arm that changes nothing look over-corrected.
    The errors of the classifier's matrix are taken as the draws have them: in common by `effects.of_one_matrix`, else as each
    concept's own.

    Where images are undecided and taken either way (`Shares.undecided`) values are of the decided, and an interval goes from
    its lower end with the undecided as they lower it to its upper end with them as they raise it, in each concept.
    """
    first, last, t = thinned(before), thinned(after), np.array(targets)
    values = [np.array([summing_to_one(shares.value) for shares in side]) for side in (before, after)]
    near, far = zip(*(nearest_and_farthest(side, t) for side in (before, after)), strict=True)
    was, now = (_root_mean_square(value, draws, t) for value, draws in zip(values, (first, last), strict=True))
    least, most = (
        _root_mean_square(one[0], one[1], t) - _root_mean_square(other[0], other[1], t)
        for one, other in ((near[1], far[0]), (far[1], near[0]))
    )
    middle = float(np.median(now - was))
    lowest, highest = float(np.quantile(least, 0.025)), float(np.quantile(most, 0.975))
    way = _unit(t - values[0])
    (shortest, short), beyond = (_along(side, t, way) for side in (before, after))
    tests = [
        min(1.0, p_of_no_change(-b, -a) + p_of_no_change(c, d))
        for a, b, c, d in zip(*(end.T[..., None] for end in (shortest, short, *beyond)), strict=True)
    ]
    adjusted = amplification.holm(tests)
    surely = dict.fromkeys(
        c for c, p, now in zip(concepts, adjusted, beyond[0].T, strict=True) if p < SIGNIFICANT and now.mean() > 0
    )
    past = ((last - t) * _unit(t - first)).sum(-1)
    spans = [_along(after, t, _unit(t - each)) for each in _all_of_one_level(before)]
    low = np.quantile(np.min([least for least, _ in spans], 0).mean(1), 0.025)
    high = np.quantile(np.max([most for _, most in spans], 0).mean(1), 0.975)
    n, said = len(concepts), EITHER_WAY if _parts((*before, *after)).any() else ""
    return {
        "n_concepts": len(set(concepts)),
        "distance_before": apart(values[0], first, t) | _reaching(near[0], far[0], t),
        "distance_after": apart(values[1], last, t) | _reaching(near[1], far[1], t),
        "distance_change": Estimate(middle, lowest, highest, n, f"root mean square, basic{said}")._asdict(),
        "excess": Estimate(float(past.mean()), float(low), float(high), n, f"posterior{said}")._asdict(),
        "n_past": len(surely),
        "past": list(surely),
    }


def summing_to_one(value: Floats) -> Floats:
    """Shares `(K,)` as a distribution: prediction-powered ones are of each level alone, and need not sum to 1."""
    return np.asarray(value / value.sum())


def apart(value: Floats, draws: Floats, target: Floats) -> dict[str, float]:
    """The mean total variation of shares `(C, K)` from a target, with what noise adds, and by how much it varies as their
    draws `(S, C, K)` do."""
    found = float(np.mean([total_variation(a, b) for a, b in zip(value, target, strict=True)]))
    drawn = np.abs(draws - target).sum(-1).mean(1) / 2
    low, high = (found + np.quantile(drawn - drawn.mean(), [0.025, 0.975])).tolist()
    return {"value": found, "low": max(low, 0.0), "high": high}


def nearest_and_farthest(shares: Sequence[Shares], target: Floats) -> tuple[tuple[Floats, Floats], ...]:
    """Values `(C, K)` and draws `(S, C, K)` with the undecided so divided among the levels that they are nearest to a target,
    and farthest from it: in total variation as in squares."""
    parts, draws = _parts(shares), thinned(shares)
    values, part = np.array([summing_to_one(one.value) for one in shares]), parts.mean(0)
    both = [_divided(values, part[..., None], target), _divided(draws, parts[..., None], target)]
    return tuple(zip(*both, strict=True))


def _divided(shares: Floats, part: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Shares `(..., K)` of the decided with the undecided `part` `(..., 1)`, nearest to a target and farthest from it.

    Nearest: each level below the target is filled up to a common gap (the projection on a simplex: Held, Wolfe and Crowder
    1974, Mathematical Programming 6:62). Farthest: all are of the level that is most above it.
    """
    told = shares * (1 - part)
    gap = target - told
    ordered = np.flip(np.sort(gap, -1), -1)
    left = (ordered.cumsum(-1) - part) / np.arange(1, gap.shape[-1] + 1)
    filled = np.take_along_axis(left, (ordered >= left).sum(-1, keepdims=True) - 1, -1)
    most_above = np.eye(gap.shape[-1])[gap.argmin(-1)]
    return told + np.maximum(gap - filled, 0) * (part > 0), told + part * most_above


def _reaching(near: tuple[Floats, Floats], far: tuple[Floats, Floats], target: Floats) -> dict[str, float]:
    """The interval of a distance from its end with the undecided as near as can be to that with them as far."""
    return {"low": apart(*near, target)["low"], "high": apart(*far, target)["high"]}


def _parts(shares: Sequence[Shares]) -> Floats:
    """The undecided part `(S, C)`, a draw for each of `thinned`; 0 where they are not taken either way."""
    drawn = [(len(s.joint), s.undecided) for s in shares if s.joint is not None]
    wide = [np.zeros(n) if part is None else part for n, part in drawn]
    return np.stack([part[:: max(len(part) // DRAWS, 1)][:DRAWS] for part in wide], 1)


def _along(shares: Sequence[Shares], target: Floats, way: Floats) -> tuple[Floats, Floats]:
    """How far shares are past a target on a `way` `(..., C, K)`, at least and at most: `(S, C)` both."""
    part = _parts(shares)
    told = ((thinned(shares) * (1 - part[..., None]) - target) * way).sum(-1)
    return told + part * way.min(-1), told + part * way.max(-1)


def _all_of_one_level(shares: Sequence[Shares]) -> list[Floats]:
    """Draws `(S, C, K)` with all the undecided of the first level, of the second, and so on; once where there are none."""
    part, draws = _parts(shares)[..., None], thinned(shares)
    return [draws * (1 - part) + part * level for level in np.eye(draws.shape[-1])] if part.any() else [draws]


def _unit(differences: Floats) -> Floats:
    """Differences `(..., K)` over the sum of their absolute values; 0 where there is none."""
    size = np.abs(differences).sum(-1, keepdims=True)
    return np.asarray(np.divide(differences, size, out=np.zeros_like(differences), where=size > 0))


def thinned(shares: Sequence[Shares]) -> Floats:
    """Draws `(S, C, K)`, as many of each concept."""
    return np.stack([s.joint[:: max(len(s.joint) // DRAWS, 1)][:DRAWS] for s in shares if s.joint is not None], 1)


def _root_mean_square(value: Floats, draws: Floats, target: Floats) -> Floats:
    """The distance over all concepts `(S,)`, rid of noise, as often as there are draws; see `nearer`."""
    square = ((value - target) ** 2).sum(-1).mean() / 2
    return np.asarray(np.sqrt(np.maximum(2 * square - ((draws - target) ** 2).sum(-1).mean(-1) / 2, 0)))
