"""Two readings of the same prompts -> how far each share moved, on pairs where there are any: of two runs, or two arms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifiers.confusion import BY_CONCEPT, Errors, errors_of_means, images_behind
from pipeline import amplification, robustness, tables
from pipeline.estimates import Floats, Shares
from pipeline.pairs import Paired, p_mcnemar, p_of_no_change, paired_by_errors
from pipeline.tables import KEY, Key, Reading
from pipeline.types import Estimate

PLACE = (*KEY, "prompt", "sample", "seed")
"""What two pictures of a pair have in common."""
COLUMNS = (
    *KEY,
    "attribute",
    "level",
    "baseline",
    "baseline_share",
    "baseline_low",
    "baseline_high",
    "share",
    "low",
    "high",
    "change",
    "change_low",
    "change_high",
    "log_odds_change",
    "log_odds_low",
    "log_odds_high",
    "method",
    "pairs",
    "missing_partners",
    "variance_factor",
    "raw_variance_factor",
    "erased_by",
    "measured_difference",
    "measured_low",
    "measured_high",
    "p",
    "p_adjusted",
)
"""Of a table of changes. Shares and changes (second − first) in 0..1 and -1..1; what erases them in 0..1."""

Counts = npt.NDArray[np.int64]
Pairs = Mapping[Key, tuple[Counts, int]]
"""By key: pairs `(K + 1, K + 1)` by both decisions, `cannot tell` last, and images that have no partner at all."""


OTHER = " other"
"""What the name of a column ends with if it is of the second picture of a pair."""
Together = Counter[tuple[Key, str, str | None, str | None]]
"""Pairs of images by key, attribute and both decisions; `None` where that side has no image."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One attribute before or after."""

    reading: Reading
    shares: dict[Key, Shares]
    counts: dict[Key, Counts]
    """Decisions `(K + 1,)`."""


# -- pairs -------------------------------------------------------------------------------------------


def pair_counts(
    first: pa.Table,
    other: pa.Table,
    readings: Sequence[Reading],
    keys: Sequence[Key],
    parts: Mapping[Key, Sequence[Key]],
) -> dict[tuple[Key, str], tuple[Counts, int]]:
    """`as_pairs` of two tables with a row per image: `PLACE`, and a column of decisions per reading."""
    joined = first.join(other, keys=list(PLACE), join_type="full outer", right_suffix=OTHER)
    return as_pairs(seen_together(joined, readings), readings, keys, parts)


def seen_together(joined: pa.Table, readings: Sequence[Reading]) -> Together:
    """Count the rows of a table with `KEY`, a column of decisions per reading, and one of the other side's (`OTHER`)."""
    found = Together()
    for reading in readings:
        columns = [*KEY, reading.attribute, reading.attribute + OTHER]
        for row in joined.group_by(columns).aggregate([([], "count_all")]).to_pylist():
            *key, left, right = (row[name] for name in columns)
            found[tuple(key), reading.attribute, left, right] += row["count_all"]
    return found


def as_pairs(
    seen: Together, readings: Sequence[Reading], keys: Sequence[Key], parts: Mapping[Key, Sequence[Key]]
) -> dict[tuple[Key, str], tuple[Counts, int]]:
    """`Pairs` by key and attribute: only `readings` and `keys`, and only those where at least one pair was made.

    `parts` are the keys whose pairs count for a key that takes several together.
    """
    wholes = {part: whole for whole, some in parts.items() for part in some}
    places = {r.attribute: {name: place for place, name in enumerate(r.columns)} for r in readings}
    counts = {(key, r.attribute): np.zeros((len(r.columns),) * 2, np.int64) for r in readings for key in keys}
    alone, made = Counter[tuple[Key, str]](), set[tuple[Key, str]]()
    for (key, attribute, left, right), n in seen.items():
        if attribute not in places:
            continue
        place = places[attribute]
        for at in ((whole, attribute) for whole in (key, wholes.get(key)) if whole):
            if left is not None and right is not None:
                made.add(at)
            if at in counts and left in place and right in place:
                counts[at][place[left], place[right]] += n
            elif left in place or right in place:  # the other was not made, or shows nobody or several
                alone[at] += n
    return {at: (table, alone[at]) for at, table in counts.items() if at in made}


# -- changes -----------------------------------------------------------------------------------------


def rows(first: Side, other: Side, keys: Sequence[Key], pairs: Pairs, rng: np.random.Generator) -> list[dict[str, Any]]:
    """A row per key and level, without the names of the sides.

    One test per concept, and per prompt that names a group; Holm over all of them.
    """
    reading, raw = first.reading, _uncorrected(first.reading, other.reading)
    moved = paired({key: counts for key, (counts, _) in pairs.items()}, reading, other.reading, rng)
    errors = [
        cells("measured_difference", "measured_", measured(reading, other.reading, k))
        for k in range(len(reading.levels))
    ]
    blocks = []
    for key in keys:
        at = {"attribute": reading.attribute, **dict(zip(KEY, key, strict=True))}
        both = first.shares[key], other.shares[key]
        of_levels = _rows(other.reading, *both, moved.get(key), pairs.get(key), raw, rng)
        blocks.append([at | row | seen for row, seen in zip(of_levels, errors, strict=True)])
    tested = set(tables.undivided(keys))
    tests: dict[str, dict[Key, float]] = {}
    for key, block in zip(keys, blocks, strict=True):
        tests.setdefault(key[4], {})[key] = block[0]["p"] if key in tested else math.nan
    adjusted = {
        k: float(p) for ps in tests.values() for k, p in zip(ps, amplification.holm([*ps.values()]), strict=True)
    }
    return [row | {"p_adjusted": adjusted[key]} for key, block in zip(keys, blocks, strict=True) for row in block]


def paired(counts: Mapping[Key, Counts], mine: Reading, theirs: Reading, rng: np.random.Generator) -> dict[Key, Paired]:
    """The change in every table of pairs, by the errors of its concept where they are known by concept."""
    if not counts:
        return {}
    concepts = [key[1] for key in counts]
    known = [tables.errors_of(reading, concepts) for reading in _sides(mine, theirs, concepts)]
    return dict(zip(counts, _paired(np.array([*counts.values()]), known, mine, theirs, rng), strict=True))


def _sides(mine: Reading, theirs: Reading, concepts: Sequence[str]) -> list[Reading]:
    """The attribute with its errors on each side; once, where they are the same."""
    same = np.array_equal(tables.matrices(mine, concepts), tables.matrices(theirs, concepts))
    return [mine] if same else [mine, theirs]


def _uncorrected(mine: Reading, theirs: Reading) -> str:
    """Why the shares of some side are raw; nothing where both are corrected."""
    return next((reading.uncorrected for reading in (mine, theirs) if reading.confusion is None), "")


def _paired(
    counts: Counts,
    known: Sequence[Errors],
    mine: Reading,
    theirs: Reading,
    rng: np.random.Generator,
    tilt: Floats | None = None,
) -> list[Paired]:
    """`counts` `(G, K + 1, K + 1)`; `known` `(G, ...)` of one side or both; `tilt` as in `paired_by_errors`.

    Where no matrix is known the classifier is taken at its word, and then nothing is known of the undecided.
    """
    errors = Errors(*(np.stack(parts, 1) for parts in zip(*known, strict=True)))
    if _uncorrected(mine, theirs):
        decided = counts[:, : len(mine.levels), : len(mine.levels)]
        return paired_by_errors(decided, errors._replace(undecided=0 * errors.undecided), tilt, rng=rng)
    return paired_by_errors(counts, errors, tilt, rng=rng)


def _pairs_together(
    counts: Counts, concepts: Sequence[str], mine: Reading, theirs: Reading, rng: np.random.Generator
) -> Paired:
    """The change of the mean share over the pairs `(C, K + 1, K + 1)` of C prompts together, and the concept of each.

    The errors of each level are those of the concepts that show it, which need not be the same on both sides. What is
    not known of them is one unknown, where they are the same in a concept, and cancels in what does not change. An image
    whose partner is undecided counts on its own side; of a concept as many on each, or one that is decided more seldom on
    one side would weigh less there, and its share would look like a change.
    """
    counts, concepts = _as_many_alone(counts), [concept.casefold() for concept in concepts]
    names = list(dict.fromkeys(concepts))
    sides = _sides(mine, theirs, names)
    of_each = np.array([counts[[concept == name for concept in concepts]].sum(0) for name in names])
    margins = of_each.sum(2), of_each.sum(1)

    def known(margin: Counts, reading: Reading) -> Errors:
        return errors_of_means(margin, tables.matrices(reading, names), np.ones((1, len(names))))

    if len(sides) == 2:
        errors, tilt = [known(margin, side) for margin, side in zip(margins, sides, strict=True)], None
    else:
        errors = [known(margins[0] + margins[1], mine)]
        rates = [
            of.taken_for / of.taken_for.sum(-1, keepdims=True) for of in (*(known(m, mine) for m in margins), *errors)
        ]
        tilt = np.stack([rates[0] - rates[2], rates[1] - rates[2]], 1)
    return _paired(counts.sum(0)[None], errors, mine, theirs, rng, tilt)[0]


def _as_many_alone(pairs: Counts) -> Counts:
    """Pairs `(C, K + 1, K + 1)`, `cannot tell` last, of which as many images stand alone on either side."""
    found = pairs.copy()
    sides = found[:, :-1, -1], found[:, -1, :-1]
    alone = [side.sum(1) for side in sides]
    for side, n in zip(sides, alone, strict=True):
        side[:] = np.rint(side * (np.minimum(*alone) / np.maximum(n, 1))[:, None])
    return found


def _rows(
    reading: Reading,
    before: Shares,
    after: Shares,
    moved: Paired | None,
    pairs: tuple[Counts, int] | None,
    raw: str,
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """One row per level; the key is added outside. `raw` says why the shares are, if they are."""
    p, test = (moved.p, f"paired; p: {moved.test}") if moved else (unpaired_p(before, after, rng), "unpaired")
    if moved and pairs and raw and pairs[0].sum() > moved.n:
        p, test = p_either_way(pairs[0]), "paired; p: McNemar's exact, undecided counted either way"
    for k, level in enumerate(reading.levels):
        a, b = before.estimate(k), after.estimate(k)
        change, odds = _apart(before, after, k)
        if moved and pairs and raw:
            change = either_way(moved.change[k], pairs[0], k, raw)
            odds = odds if pairs[0].sum() > moved.n else moved.log_odds[k]
        elif moved:
            change, odds = moved.change[k], moved.log_odds[k]
        yield {
            "level": level,
            **cells("baseline_share", "baseline_", a),
            **cells("share", "", b),
            **cells("change", "change_", change),
            **cells("log_odds_change", "log_odds_", odds),
            "method": f"{test}; {change.method}",
            "pairs": moved.n if moved else 0,
            "missing_partners": int(pairs[0].sum()) - moved.n + pairs[1] if moved and pairs else "",
            "variance_factor": moved.variance_factor[k] if moved else math.nan,
            "raw_variance_factor": moved.raw_variance_factor[k] if moved else math.nan,
            "erased_by": erased_by(change, reading, k),
            "p": p,
        }


def said_of_errors(mine: Reading, theirs: Reading, sides: str) -> str:
    """What a change takes for granted of the errors before and after; `sides` are arms or runs."""
    if raw := _uncorrected(mine, theirs):
        return raw
    if mine.of_arm and theirs.of_arm:
        return f"errors by arm{f', taken to be the same in both {sides}' if mine is theirs else ''}"
    if mine.of_arm or theirs.of_arm:
        whose = "baseline" if mine.of_arm else sides.removesuffix("s")
        return f"errors of the {whose} by its own labels, of the other by those of all arms"
    concepts = f", {BY_CONCEPT}" if theirs.by_concept else ""
    if mine is not theirs:
        return f"errors of each of the {sides}{concepts}"
    return f"errors taken to be the same in both {sides}{concepts}"


def erased_by(change: Estimate, reading: Reading, k: int = 0) -> float:
    """The smallest difference in error between the two sides that would erase a change of level k, in 0..1.

    By so much more would the probe have to say the level on one side, of images that show the same
    (`robustness.erasing_difference`); beyond the difference that its matrices hold already.
    """
    return robustness.erasing_difference(change, tables.confusion_of(reading), k)


def measured(mine: Reading, theirs: Reading, k: int = 0) -> Estimate:
    """The difference in error between the two sides that labelled pictures show, to be held against `erased_by`; NaN where the
    errors of the sides are not known apart. Where they are, each side is corrected by its own, and this is taken out already."""
    one, other = mine.confusion, theirs.confusion
    if one is None or other is None or np.array_equal(one, other) or mine.of_arm != theirs.of_arm:
        return Estimate(math.nan, math.nan, math.nan, 0, "not measured")
    return robustness.measured_difference(one, other, k)


def either_way(change: Estimate, pairs: Counts, k: int, why: str) -> Estimate:
    """The change of level k where no matrix says how often a level is undecided: the undecided may be any level.

    `pairs` `(K + 1, K + 1)`, `cannot tell` last; `why` there is no matrix. Worst-case bounds as in `estimates.raw_shares`
    (Manski 1989).
    """
    if not pairs.any():
        return change
    n, (lost, gained) = int(pairs[:-1, :-1].sum()), _may_have_moved(pairs, k)
    low, high = (n * change.low - lost) / pairs.sum(), (n * change.high + gained) / pairs.sum()
    method = f"joint posterior of pairs, undecided counted either way, {why}"
    return change._replace(low=min(float(low), change.value), high=max(float(high), change.value), method=method)


def _may_have_moved(pairs: Counts, k: int) -> tuple[int, int]:
    """How many of the pairs with an undecided side may have left level k, and how many may have come to it."""
    both = int(pairs[-1, -1])
    lost = int(pairs[k, -1] + pairs[-1, :-1].sum() - pairs[-1, k]) + both
    return lost, int(pairs[:-1, -1].sum() - pairs[k, -1] + pairs[-1, k]) + both


def p_either_way(pairs: Counts) -> float:
    """The p-value of no change in `pairs` `(K + 1, K + 1)` whose undecided may be of any level: the largest that they allow.

    McNemar's exact one of each level against the others, with as many of the undecided against
    the change as make both sides alike; of more than two levels the smallest, times their number (Bonferroni).
    """
    found = []
    for k in range(len(pairs) - 1):
        left = int(pairs[k, :-1].sum() - pairs[k, k])
        came = int(pairs[:-1, k].sum() - pairs[k, k])
        lost, gained = _may_have_moved(pairs, k)
        left, came = (min(left + lost, came), came) if came > left else (left, min(came + gained, left))
        found.append(p_mcnemar(np.array([[0, left], [came, 0]])))
    return min(1.0, min(found) * (len(found) if len(found) > 2 else 1))


def _apart(before: Shares, after: Shares, k: int) -> tuple[Estimate, Estimate]:
    """The change of level k between two independent sides, and that of its log odds."""
    a, b = before.estimate(k), after.estimate(k)
    if before.most is None and after.most is None:
        return amplification.difference(b, a), amplification.log_odds_ratio(b, a)
    return amplification.between_ends(b, a)


def _mean_of_raw(shares: Sequence[Shares]) -> Shares:
    """The mean of raw shares, which are independent of each other; their undecided may be of any level, all one way."""
    ends = [amplification.average([share.estimate(k) for share in shares]) for k in range(len(shares[0].value))]
    value, low, high, *_ = (np.array(part) for part in zip(*ends, strict=True))
    if either := any(share.most is not None for share in shares):
        low, high = (np.mean(side, axis=0) for side in zip(*((s.low, s.high) for s in shares), strict=True))
    drawn = [(s.draws, s.draws if s.most is None else s.most) for s in shares if s.draws is not None]
    fewest, most = (np.mean(side, axis=0) for side in zip(*drawn, strict=True))
    method, n = shares[0].method, sum(share.n for share in shares)
    return Shares(value=value, low=low, high=high, n=n, method=method, draws=fewest, most=most if either else None)


def _evenly(table: Counts, concepts: Sequence[str], reading: Reading) -> Floats:
    """Weights `(1, C)` of an image of each concept under which the images of all concepts, the undecided too, weigh the same."""
    return 1 / images_behind(table, tables.matrices(reading, concepts))[None]


def cells(name: str, prefix: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as three cells of a row."""
    return {name: estimate.value, f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}


def unpaired_p(before: Shares, after: Shares, rng: np.random.Generator) -> float:
    """The posterior's p-value of no change, of two shares that are taken as independent.

    One matrix under both makes their errors go together, so that in truth the change is surer than this says. Draws of
    two runs of one seed are in step, which would make it surer still, of whatever there is: one side's are shuffled.
    """
    if before.draws is None or after.draws is None:
        return 1.0
    size = min(len(before.draws), len(after.draws))
    order = rng.permutation(len(before.draws))[:size]
    least = after.draws[:size] - (before.draws if before.most is None else before.most)[order]
    most = (after.draws if after.most is None else after.most)[:size] - before.draws[order]
    return p_of_no_change(least, most)


def pooled(
    first: Side, other: Side, keys: Sequence[Key], pairs: Pairs, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """The mean change over some prompts, an entry per level.

    The correction is linear in the counts, so it is applied once, to the sum, and the matrix's uncertainty enters once
    (as in `classifiers.correction.corrected_means`). On pairs both sides weigh the concepts alike. Without, all concepts
    are given equal weights, or one that abstains more often on one side would look like a change.
    """
    mine, theirs, levels = first.reading, other.reading, range(len(first.reading.levels))
    raw, with_pairs = _uncorrected(mine, theirs), [key for key in keys if key in pairs]
    if with_pairs:
        every = np.array([pairs[key][0] for key in with_pairs])
        moved = _pairs_together(every, [key[1] for key in with_pairs], mine, theirs, rng)
        before, after, concepts = moved.first, moved.second, [key[1] for key in with_pairs]
        changes, odds, p = moved.change, moved.log_odds, moved.p
        if raw:
            together = every.sum(0)
            before, after = (tables.uncorrected(side, mine, rng) for side in (together.sum(1), together.sum(0)))
            changes = tuple(either_way(moved.change[k], together, k, raw) for k in levels)
            if together.sum() > moved.n:
                p = p_either_way(together)
                odds = tuple(_apart(before, after, k)[1] for k in levels)
    else:
        counts = [np.array([side.counts[key] for key in keys]) for side in (first, other)]
        decided = (counts[0][:, :-1].sum(1) > 0) & (counts[1][:, :-1].sum(1) > 0) if len(keys) else np.zeros(0, bool)
        if not decided.any():
            return
        concepts = [key[1] for key, told in zip(keys, decided, strict=True) if told]
        of_decided = [table[decided] * (np.arange(len(mine.columns)) < len(mine.levels)) for table in counts]
        before, after = (
            _mean_of_raw([side.shares[key] for key, told in zip(keys, decided, strict=True) if told])
            if side.reading.confusion is None
            else tables.means(table, concepts, _evenly(table, concepts, side.reading), side.reading, rng)[0]
            for table, side in zip(of_decided, (first, other), strict=True)
        )
        changes, odds = zip(*(_apart(before, after, k) for k in levels), strict=True)
        p = unpaired_p(before, after, rng)
    for k, level in enumerate(mine.levels):
        yield {
            "attribute": mine.attribute,
            "title": mine.title,
            "level": level,
            "paired": bool(with_pairs),
            "n_concepts": len(set(concepts)),
            "n": changes[k].n,
            "baseline_share": before.estimate(k)._asdict(),
            "share": after.estimate(k)._asdict(),
            "change": changes[k]._asdict(),
            "log_odds_change": odds[k]._asdict(),
            "variance_factor": float(moved.variance_factor[k]) if with_pairs else None,
            "erased_by": erased_by(changes[k], theirs, k),
            "measured_difference": measured(mine, theirs, k)._asdict(),
            "p": p,
        }
