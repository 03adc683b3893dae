"""Everything over all concepts together -> `summary.json`: what the headline and the report say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers import evaluation
from pipeline import amplification, robustness
from pipeline.estimates import Shares, whole
from pipeline.plan import Asked
from pipeline.tables import PERFECT, Against, Key, Reading, Tally, concepts, estimated, references
from pipeline.types import CANNOT_TELL, Distribution, Estimate, digest

DRAWS = 200
"""Posterior draws per concept behind a distance's noise floor."""
NO_STRETCH = {"value": math.nan}


def summary(
    planned: Asked, counts: Tally, attributes: Sequence[Reading], shares: dict[str, dict[Key, Shares]]
) -> dict[str, Any]:
    """Pooled amplification per arm, attribute and reference, and everything else that the report prints."""
    asked = [
        (reading, against, arm.name)
        for reading in attributes
        for against in references(planned)
        for arm in planned.arms
    ]

    def pooled(reading: Reading, against: Against, arm: str) -> list[dict[str, Any]]:
        return [*_pool(planned, counts, reading, against, arm, shares[reading.attribute])]

    with ThreadPoolExecutor() as pool:
        pools = [entry for entries in pool.map(lambda each: pooled(*each), asked) for entry in entries]
    made = {
        name: sum(n for (_, s), n in counts.statuses.items() if s == name) for name in ("made", "blocked", "failed")
    }
    return {
        "study": planned.study.name,
        **planned.made_with,
        "images": {**made, "total": sum(made.values()), "asked": len(planned)},
        "headline": headline(planned, pools, made["made"], attributes, shares),
        "pooled": pools,
        "classifier": {reading.attribute: _record(reading, counts) for reading in attributes},
    }


def _pool(
    planned: Asked, counts: Tally, reading: Reading, against: Against, arm: str, shares: dict[Key, Shares]
) -> Iterator[dict[str, Any]]:
    """Over the neutral prompts of an arm: identity prompts name the group themselves. An entry per level."""
    rng = np.random.default_rng(int(digest([planned.study.seed, reading.attribute, arm, against.title])[:16], 16))
    mine = [(key, against.of(key[1], reading)) for key in concepts(estimated(planned)) if key[4] == arm]
    known = [
        (key, found)
        for key, found in mine
        if isinstance(found, Distribution)
        and counts.count(key, reading)[:-1].any()
        and not np.isnan(found.shares).any()
    ]
    if not known:
        return
    table = np.array([counts.count(key, reading) for key, _ in known])
    reference = np.array([found.shares for _, found in known])
    least = np.array([found.least for _, found in known])
    base = against.base(reading)
    matrix = reading.confusion
    if matrix is None:
        table, matrix = table[:, :-1], np.eye(len(reading.levels), dtype=np.int64) * PERFECT
    chance = int(rng.integers(2**63))  # the same for both ends of a bounded reference
    means = amplification.mean_difference(table, matrix, reference, rng=np.random.default_rng(chance))
    ends = means
    if (least < reference).any():
        ends = amplification.mean_difference(table, matrix, least, rng=np.random.default_rng(chance))
    for k, level in enumerate(reading.levels[:1] if len(reading.levels) == 2 else reading.levels):
        entry: dict[str, Any] = {
            "arm": arm,
            "attribute": reading.attribute,
            "title": reading.title,
            "level": level,
            "reference": against.source(reading),
            "n_concepts": len(known),
            "n_images": int(table.sum()),
            "base": base[k],
        }
        bounded = (least[:, k] < reference[:, k]).any()
        mean = _hull(means[k], ends[k]) if bounded else means[k]
        erased = {"erased_by": robustness.erasing_difference(mean, matrix, k)}
        entry["mean_difference"] = mean._asdict() | erased
        if len(reading.levels) == 2:
            answers = np.array([found.n or math.nan for _, found in known])
            inside = _inside(reference[:, k], answers)
            if 0 < base[k] < 1 and ((inside > 0) & (inside < 1)).all():
                entry |= _stretched(table, matrix, inside, base[k], answers, reading, against, rng)
        if k == 0:
            entry |= _distances(
                table, matrix, [found for _, found in known], base, [shares[key] for key, _ in known], rng
            )
        yield entry


def _hull(upper: Estimate, lower: Estimate) -> Estimate:
    """A mean difference from a bounded reference: from its upper bound and from its lower one."""
    return Estimate(
        math.nan, min(upper.low, lower.low), max(upper.high, lower.high), upper.n, f"bounded, {upper.method}"
    )


def _inside(reference: npt.NDArray[np.float64], answers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Shares `(C,)` of a reference, with those of 0 and 1 that stand on so many answers moved off the end by half an
    answer, (k + ½) / (n + 1): Haldane (1956), Annals of Human Genetics 20:309. An exact 0 or 1 stays where it is."""
    at_end = ((reference == 0) | (reference == 1)) & ~np.isnan(answers)
    return np.where(at_end, (reference * answers + 0.5) / (answers + 1), reference)


def _stretched(
    table: npt.NDArray[np.int64],
    matrix: npt.NDArray[np.int64],
    reference: npt.NDArray[np.float64],
    base: float,
    answers: npt.NDArray[np.float64],
    reading: Reading,
    against: Against,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Shift, stretch and scatter of one level, and how wrong the classifier would have to be to explain the stretch."""
    pool = amplification.pooled(table, matrix, reference, base, answers=answers, rng=rng)
    found: dict[str, Any] = {name: getattr(pool, name)._asdict() for name in ("shift", "stretch", "scatter")}
    found["stretch"]["erased_by"] = robustness.erasing_lean(
        pool.stretch, table, matrix, reference, base, answers=answers, rng=rng
    )
    labelled = [(rows, against.of(concept, reading)) for concept, rows in reading.by_concept.items()]
    matched = [(rows, of.shares[0]) for rows, of in labelled if isinstance(of, Distribution)]
    if matched:
        rows, shares = (np.array(some) for some in zip(*matched, strict=True))
        found["stretch"]["measured_lean"] = robustness.measured_lean(rows, shares, base)._asdict()
    return found


def _distances(
    table: npt.NDArray[np.int64],
    matrix: npt.NDArray[np.int64],
    found: Sequence[Distribution],
    base: Sequence[float],
    shares: Sequence[Shares],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What is said of all levels together: directional amplification, and distances beside their noise floors.

    Nothing where the table leaves people out. A concept whose shares were not sampled is in no distance.
    """
    rows, at_base = [r for r in (whole(d.shares) for d in found) if r is not None], whole(base)
    if len(rows) < len(found) or at_base is None:
        return {}
    reference = np.array(rows)
    entry: dict[str, Any] = {
        "directional": amplification.directional_bias_amplification(
            table, matrix, reference, at_base, rng=rng
        )._asdict()
    }
    # prediction-powered shares are of each level alone, and need not sum to 1
    sampled = [
        (s.value / s.value.sum(), s.joint[:DRAWS], r) for s, r in zip(shares, rows, strict=True) if s.joint is not None
    ]
    distances = {"total_variation": amplification.total_variation, "jensen_shannon": amplification.jensen_shannon}
    for name, distance in distances.items() if sampled else ():
        apart = [distance(value, r) for value, _, r in sampled]
        floor = [distance(draws, value).mean() for value, draws, _ in sampled]
        entry[name] = {"value": float(np.mean(apart)), "noise_floor": float(np.mean(floor)), "n_concepts": len(sampled)}
    return entry


def _record(reading: Reading, counts: Tally) -> dict[str, Any]:
    """How good the classifier was on labelled pictures, and how often it abstained here."""
    here = Counter[str]()
    for (_, attribute, decision), n in counts.decisions.items():
        if attribute == reading.attribute:
            here[decision] += n
    total = sum(here.values())
    matrix = reading.confusion
    return {
        "title": reading.title,
        "levels": list(reading.levels),
        "accuracy": None if matrix is None else float(np.trace(matrix) / max(matrix[:, :-1].sum(), 1)),
        "n": None if matrix is None else int(matrix.sum()),
        "confusion": None if matrix is None else matrix.tolist(),
        "leaks": evaluation.leaks(reading.by_concept, reading.levels),
        "cannot_tell_rate": here[CANNOT_TELL] / total if total else None,
    }


def headline(
    planned: Asked,
    pools: Sequence[dict[str, Any]],
    images: int,
    attributes: Sequence[Reading],
    shares: dict[str, dict[Key, Shares]],
) -> str:
    """The finding in one sentence that can be quoted: reference, year, table, interval and n are in it."""
    arm = planned.arms[0].name
    model = planned.model_of(arm)
    pool = next((p for p in pools if p["arm"] == arm and not math.isnan(p.get("stretch", NO_STRETCH)["value"])), None)
    if len(estimated(planned)) == 1:
        return _of_one(planned, images, attributes[0], shares[attributes[0].attribute])
    if pool is None:
        return f"{model}: {images:,} images were made; no reference covers enough of the concepts to say more."
    stretch, mean = pool["stretch"], pool["mean_difference"]
    said = "neither widens nor narrows, as far as can be told,"
    if stretch["low"] > 1:
        said = "amplifies"
    elif stretch["high"] < 1:
        said = "narrows"
    return (
        f"Against “{pool['reference']}”, the model {model} {said} the differences between {pool['n_concepts']} concepts in "
        f"{pool['title']}: stretch {stretch['value']:.2f} on the log-odds scale (95% interval {stretch['low']:.2f} to "
        f"{stretch['high']:.2f}; 1 is the reference); the share of “{pool['level']}” is on average "
        f"{100 * mean['value']:+.1f} points from the reference "
        f"({100 * mean['low']:+.1f} to {100 * mean['high']:+.1f}), "
        f"over {pool['n_images']:,} images."
    )


def _of_one(planned: Asked, images: int, reading: Reading, shares: dict[Key, Shares]) -> str:
    """The same where there is one concept alone, and so nothing to pool."""
    (key,) = estimated(planned)
    mine, level = shares[key].estimate(0), reading.levels[0]
    said = f"{planned.model_of(key[4])}: of {images:,} images of “{key[1]}”"
    if not mine.known:
        return f"{said}, the probe could tell {reading.title} in none."
    said += f", {mine.n:,} taken to show one person, {100 * mine.value:.1f}% read as “{level}” in {reading.title}"
    said += f" (95% interval {100 * mine.low:.1f} to {100 * mine.high:.1f})"
    for against in references(planned):
        found = against.of(key[1], reading)
        if isinstance(found, Distribution) and not math.isnan(found.shares[0]):
            return f"{said}; “{against.source(reading)}” has {100 * found.shares[0]:.1f}%."
    return f"{said}; no reference has it."
