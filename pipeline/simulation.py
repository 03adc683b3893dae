"""Simulated audits whose truth is known -> how often the intervals hold it, how wide they are, how far off."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy import stats

from classifiers.correction import corrected_shares_each
from pipeline.amplification import difference
from pipeline.estimates import Floats, Ints, Shares, central_interval
from pipeline.robustness import erasing_difference

BLOCK = 100
"""Audits simulated together: memory stays small."""
ORACLE = 10
"""Of this many audits one is also read by an oracle, who knows the errors exactly."""
FLOOR = 0.93
"""A cell fails if the 99 % upper bound of its coverage is below."""
WIDEST = 1.15
"""At most so many times as wide as the shortest interval from the same data that covers."""
TARGET = 0.95

CREDIBLE = 1 - np.geomspace(0.5, 0.001, 25)
"""Credible levels at which the width that was needed is looked for."""
CERTAIN = 10**9
"""Labelled pictures per level of a matrix that is known."""

RIGHT = {"sharp": (0.99, 0.96), "fair": (0.93, 0.85), "poor": (0.80, 0.65)}
"""Chance that a decided picture is read right: of the first level and of the last, the others in between. What is
read wrong goes to the levels near it, half as often with each step: tones and ages are mistaken for their neighbours."""
UNDECIDED = {"none": (0.0, 0.0), "alike": (0.1, 0.1), "by level": (0.02, 0.3)}
"""Chance of `cannot tell`: of the first level and of the last, the others in between."""
SHARES = {
    "none": {2: (0.0, 1.0), 3: (0.0, 0.3, 0.7), 5: (0.0, 0.1, 0.2, 0.3, 0.4), 10: (0.0, *[1 / 9] * 9)},
    "rare": {2: (0.02, 0.98), 3: (0.02, 0.18, 0.8), 5: (0.02, 0.03, 0.05, 0.1, 0.8), 10: (0.82, *[0.02] * 9)},
    "middle": {2: (0.4, 0.6), 3: (0.3, 0.3, 0.4), 5: (0.2,) * 5, 10: (0.1,) * 10},
    "most": {2: (0.95, 0.05), 3: (0.9, 0.1, 0.0), 5: (0.9, 0.05, 0.03, 0.02, 0.0), 10: (0.91, *[0.01] * 9)},
}
"""The truth, fixed in a cell, and not drawn: averaged over truths like its prior, a posterior covers by construction."""
IMAGES = (20, 200, 2000)
LABELS = (10, 50, 500)
"""Labelled pictures per level."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of audit: the truth and how much is seen of it."""

    levels: int
    shares: str
    images: int
    labels: int
    """Per level."""
    errors: str
    undecided: str

    @property
    def truth(self) -> Floats:
        """Shares `(K,)`."""
        return np.array(SHARES[self.shares][self.levels])

    @property
    def chances(self) -> Floats:
        """What a picture of each level is taken for, `(K, J)`."""
        return chances(RIGHT[self.errors], UNDECIDED[self.undecided], self.levels)

    @property
    def size(self) -> tuple[int, int, int]:
        """What an auditor knows before looking: shares, errors and abstention are what the audit is to find out."""
        return self.levels, self.images, self.labels


@dataclass(frozen=True, kw_only=True)
class Unfriendly:
    """An audit of two levels whose labelled pictures mislead about its images: by how much, and of which kind."""

    kind: str
    gap: float
    """Difference between a chance on the labelled pictures and the same on the images."""
    images: int


UNFRIENDLY = {
    "concept": "The classifier reads the occupation as the attribute: right less often for the first level, by the gap, "
    "and more often for the second. Labels are from other occupations.",
    "arm": "As before, but the errors differ in one of two arms only, and what is estimated is the difference between "
    "two equal shares.",
    "domain": "Labels are of easier pictures: on the images both levels are right less often, by the gap.",
    "abstention": "On the images the first level is undecided more often than on the labelled pictures, by the gap.",
}
GAPS = (0.0, 0.02, 0.05, 0.1)
MISLED = (0.3, 0.7)
"""The truth of the unfriendly cases; 200 labels per level, of which 90 % were read right."""


def grid() -> list[Cell]:
    """The cells. Images × labels × shares are crossed in full for two levels, and errors and abstention take turns.

    At the end, for each size of two, three and five levels, the truth that intervals hold least often
    (`scripts.hardest_truths`): shares far from the ends. Without it the shortest interval that covers would be one that
    covers easier truths only.
    """
    cells = []
    for levels in (2, 3, 5, 10):
        for i, j in _sizes(levels):
            shares = list(SHARES) if levels == 2 else [list(SHARES)[(i + j) % 4], list(SHARES)[(i + j + 2) % 4]]
            for name in shares if levels < 5 else shares[:1]:
                t = list(SHARES).index(name)
                cells.append(
                    Cell(
                        levels=levels,
                        shares=name,
                        images=IMAGES[i],
                        labels=LABELS[j],
                        errors=list(RIGHT)[(i + j + t) % 3],
                        undecided=list(UNDECIDED)[(i + 2 * j + t) % 3],
                    )
                )
    even = [
        Cell(levels=levels, shares="middle", images=IMAGES[i], labels=LABELS[j], errors="fair", undecided="none")
        for levels in (2, 3, 5)
        for i, j in _sizes(levels)
    ]
    return cells + [cell for cell in even if cell not in cells]


def _sizes(levels: int) -> list[tuple[int, int]]:
    """Places in `IMAGES` and `LABELS`. Of five levels on with at most four images per label: beyond, an audit takes
    seconds, and a cell hours."""
    every = [(i, j) for i in range(len(IMAGES)) for j in range(len(LABELS))]
    return [(i, j) for i, j in every if levels < 5 or IMAGES[i] <= 4 * LABELS[j]]


def few() -> list[Cell]:
    """The short form: each number of levels but ten, each size, each kind of error and of abstention."""
    cells = grid()
    return [cells[i] for i in (0, 6, 15, 19, 22, 36, 54)]


def unfriendly() -> list[Unfriendly]:
    """The cases in which the numbers cannot be right."""
    return [Unfriendly(kind=k, gap=g, images=n) for k in UNFRIENDLY for n in (200, 2000) for g in GAPS]


def chances(right: tuple[float, float], undecided: tuple[float, float], levels: int) -> Floats:
    """What a picture of each level is taken for: `(K, K + 1)`, or `(K, K)` where nothing is ever undecided."""
    accuracy = np.linspace(*right, levels)[:, None]
    apart = np.abs(np.subtract.outer(np.arange(levels), np.arange(levels)))
    wrong = np.where(apart > 0, 0.5**apart, 0.0)
    decided: Floats = np.eye(levels) * accuracy + (1 - accuracy) * wrong / wrong.sum(1, keepdims=True)
    if not any(undecided):
        return decided
    told = 1 - np.linspace(*undecided, levels)[:, None]
    return np.hstack([decided * told, 1 - told])


def labelled(errors: Floats, labels: int, audits: int, rng: np.random.Generator) -> Ints:
    """Counts on labelled pictures `(audits, K, J)`; with no picture of a level decided there is no audit: draw again."""
    counts = rng.multinomial(labels, errors, (audits, len(errors)))
    while (empty := counts[..., : len(errors)].sum(-1) == 0).any():
        audit, row = np.nonzero(empty)
        counts[audit, row] = rng.multinomial(labels, errors[row])
    return counts


def answers(predicted: Ints, confusion: Ints, rng: np.random.Generator) -> list[Shares]:
    """What the tool says in each of G audits, from counts `(G, J)` and `(G, K, J)`, or `(K, J)` for all of them.

    Its warning that levels are hardly told apart is part of the experiment here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        matrices = np.broadcast_to(confusion, (len(predicted), *confusion.shape[-2:]))
        return corrected_shares_each(predicted, matrices, rng=rng)


# -- what is measured --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the audits of a cell came to. Coverage and widths over all levels; shares in 0..1."""

    audits: int
    unanswered: int
    """Audits without a number: nothing decided, or chains that did not settle. They count in nothing else."""
    coverage: float
    upper: float
    """99 % upper bound of the coverage."""
    lowest: float
    """Coverage of the level that is held least often."""
    width: float
    bias: float
    """Mean error of the level where it is largest, with its sign."""
    naive_coverage: float
    naive_bias: float
    oracle_width: float
    """Mean width for an oracle that knows the errors."""
    covered_at: list[float]
    """Coverage of the intervals at each of `CREDIBLE`, where the truth is inside 0..1. Empty where it never is: an
    interval that reaches the end holds it, however short it is."""
    width_at: list[float]
    """Their mean width."""
    inner_width: float | None
    """Mean width of the 95 % intervals of the same levels."""

    @property
    def failed(self) -> bool:
        """Does it cover too seldom?"""
        return self.upper < FLOOR

    def rank(self) -> float:
        """Where along `CREDIBLE` the intervals of this cell begin to cover 95 %; its end if they never do."""
        rising = np.maximum.accumulate(self.covered_at)
        at = int(np.searchsorted(rising, TARGET))
        if at in (0, len(rising)):
            return float(min(at, len(rising) - 1))
        return at - 1 + float((TARGET - rising[at - 1]) / (rising[at] - rising[at - 1]))

    def over(self, rank: float) -> float:
        """Mean width over that of the intervals at a place along `CREDIBLE`."""
        if self.inner_width is None:
            return math.nan
        return self.inner_width / float(np.interp(rank, np.arange(len(CREDIBLE)), self.width_at))


@dataclass(frozen=True, kw_only=True)
class Misled:
    """What an unfriendly case came to, for the share of the first level or the difference between arms."""

    coverage: float
    width: float
    bias: float
    erased_by: float | None
    """Median over the audits that miss the truth, and so would call it wrong: the lean that the tool's sensitivity line
    names as enough to erase that finding. `None` where all hold it."""


def measure(cell: Cell, audits: int, rng: np.random.Generator) -> Measured:
    """Simulate the audits of a cell: in each, labelled pictures and images are drawn anew."""
    errors, truth = cell.chances, cell.truth
    inside = (truth > 0) & (truth < 1)
    table: dict[str, list[Floats]] = {}
    for done in range(0, audits, BLOCK):
        size = min(BLOCK, audits - done)
        predicted = rng.multinomial(cell.images, truth @ errors, size)
        shares = answers(predicted, labelled(errors, cell.labels, size, rng), rng)
        exact = np.round(errors * CERTAIN).astype(np.int64)
        oracle = [s for s in answers(predicted[: -(-size // ORACLE)], exact, rng) if s.draws is not None]
        draws = np.array([s.draws for s in shares if s.draws is not None])
        known = np.array([s.draws is not None for s in shares])
        value, low, high = (np.array([getattr(s, end) for s in shares])[known] for end in ("value", "low", "high"))
        decided = predicted[known, : cell.levels]
        raw_low, raw_high = naive(decided)
        block: dict[str, Floats] = {
            "held": holds(low, truth, high),
            "width": high - low,
            "error": value - truth,
            "naive held": holds(raw_low, truth, raw_high),
            "naive error": decided / decided.sum(1, keepdims=True) - truth,
            "oracle": np.array([s.high - s.low for s in oracle]),
        }
        if inside.any():
            block["curve"] = curve(draws[:, :, inside], truth[inside])
        for name, rows in block.items():
            table.setdefault(name, []).append(rows)
    whole = {name: np.concatenate(blocks) for name, blocks in table.items()}
    covered, width = whole["curve"].mean(0).T.tolist() if inside.any() else ([], [])
    return Measured(
        audits=audits,
        unanswered=audits - len(whole["held"]),
        coverage=float(whole["held"].mean()),
        upper=upper_bound(whole["held"].mean(1)),
        lowest=float(whole["held"].mean(0).min()),
        width=float(whole["width"].mean()),
        bias=largest(whole["error"].mean(0)),
        naive_coverage=float(whole["naive held"].mean()),
        naive_bias=largest(whole["naive error"].mean(0)),
        oracle_width=float(whole["oracle"].mean()),
        covered_at=covered,
        width_at=width,
        inner_width=float(whole["width"][:, inside].mean()) if inside.any() else None,
    )


def mislead(case: Unfriendly, audits: int, rng: np.random.Generator) -> Misled:
    """Simulate an unfriendly case. Shares `MISLED`; with arms, what is estimated is a difference of 0."""
    g, truth = case.gap, np.array(MISLED)
    never = (0.05, 0.05) if case.kind == "abstention" else (0.0, 0.0)
    measured = actual = chances((0.9, 0.9), never, 2)
    if case.kind in ("concept", "arm"):
        actual = chances((0.9 - g, 0.9 + g), never, 2)
    elif case.kind == "domain":
        actual = chances((0.9 - g, 0.9 - g), never, 2)
    else:
        actual = chances((0.9, 0.9), (0.05 + g, 0.05), 2)
    aim = 0.0 if case.kind == "arm" else truth[0]
    found, erased = [], []
    for done in range(0, audits, BLOCK):
        size = min(BLOCK, audits - done)
        labels = labelled(measured, 200, size, rng)
        predicted = rng.multinomial(case.images, truth @ actual, size)
        mine = [s.estimate(0) for s in answers(predicted, labels, rng)]
        if case.kind == "arm":
            others = answers(rng.multinomial(case.images, truth @ measured, size), labels, rng)
            mine = [difference(a, b.estimate(0)) for a, b in zip(mine, others, strict=True)]
        found += [(e.value, e.low, e.high) for e in mine if e.known]
        away = [e._replace(value=e.value - aim, low=e.low - aim, high=e.high - aim) for e in mine]
        leans = [erasing_difference(e, confusion) for e, confusion in zip(away, labels, strict=True)]
        erased += [lean for lean in leans if lean > 0]
    value, low, high = np.array(found).T
    return Misled(
        coverage=float(holds(low, aim, high).mean()),
        width=float((high - low).mean()),
        bias=float(value.mean() - aim),
        erased_by=float(np.median(erased)) if erased else None,
    )


def upper_bound(covered: Floats, level: float = 0.99) -> float:
    """The one-sided upper confidence bound of a coverage. `covered` `(audits,)`: the share of an audit's levels held.

    The levels of one audit are dependent, so they are not counted as if each were an audit: Clopper and Pearson's
    bound at the effective number of audits, as Korn and Graubard (1998), Survey Methodology 24:193, do for clusters.
    It uses all levels; the bound of one level per audit, taken at random, is wider and so harder to fail.
    """
    mean, spread = float(covered.mean()), float(covered.var())
    n = len(covered) * mean * (1 - mean) / spread if spread > 0 else len(covered)
    x = mean * n
    return 1.0 if mean == 1 else float(stats.beta.ppf(level, x + 1, n - x))


def naive(counts: Ints) -> tuple[Floats, Floats]:
    """95 % intervals of the naive shares, from decided counts `(audits, K)`: Wilson's, the errors not minded."""
    from statsmodels.stats.proportion import proportion_confint

    n = np.broadcast_to(counts.sum(1, keepdims=True), counts.shape)
    low, high = proportion_confint(counts, n, alpha=1 - TARGET, method="wilson")
    return np.asarray(low), np.asarray(high)


def holds(low: Floats, truth: Floats | float, high: Floats) -> Floats:
    """1 where the interval holds the truth, else 0."""
    return np.asarray((low <= truth) & (truth <= high), np.float64)


def largest(errors: Floats) -> float:
    """The one that is furthest from zero."""
    return float(errors[np.abs(errors).argmax()])


def curve(draws: Floats, truth: Floats) -> Floats:
    """For posterior draws `(audits, S, K)`, is the truth `(K,)` held at each of `CREDIBLE`, and how wide is the interval:
    `(audits, credible levels, 2)`, averaged over the K levels."""
    ordered = np.sort(np.swapaxes(draws, 1, 2), -1)
    ends = [central_interval(ordered, level, floor=0.0, ceiling=1.0) for level in CREDIBLE.tolist()]
    return np.array([[holds(low, truth, high).mean(-1), (high - low).mean(-1)] for low, high in ends]).transpose(
        2, 0, 1
    )
