"""Everything over all concepts together -> `summary.json`: what the headline and the report say."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers import evaluation
from classifiers.attributes import BY_DETECTOR
from classifiers.confusion import BY_CONCEPT, images_behind
from pipeline import amplification, distances, robustness, tables
from pipeline.estimates import Floats, Ints, Shares, whole, wilson
from pipeline.plan import Asked
from pipeline.progress import side_by_side
from pipeline.study import FolderStudy, ImportStudy
from pipeline.tables import (
    ELSEWHERE,
    Against,
    Key,
    Reading,
    Tally,
    by_arm,
    concepts,
    corrected,
    estimated,
    keys,
    matrices,
    references,
    undivided,
)
from pipeline.types import CANNOT_TELL, Distribution, Estimate, digest

BY_PEOPLE = "what people labelled counts for the classifier's errors alone"
AMONG_DECIDED = "among the images that the classifier decided"
NO_STRETCH = {"value": math.nan}


def estimates(
    planned: Asked, counts: Tally, attributes: Sequence[Reading], informed: Sequence[Reading]
) -> tuple[dict[str, dict[Key, Shares]], dict[str, Any]]:
    """The shares of every attribute; and the summary: pooled amplification per arm, attribute and reference, and everything
    else that the report prints. `informed` are the attributes with all that is known of their errors."""

    keyed = keys(planned)
    arms = {reading.attribute: by_arm(reading, counts, keyed) for reading in attributes}

    def of(reading: Reading, against: Against, arm: str) -> list[dict[str, Any]]:
        if own := arms[reading.attribute].get(arm):
            reading = tables.informed(own, counts, [key for key in keyed if key[4] == arm])
        return pooled(planned, counts, reading, against, arm, shares[reading.attribute].result())

    with side_by_side("estimating", "steps") as submit:
        shares = {reading.attribute: submit(corrected, planned, counts, reading) for reading in attributes}
        pools = [
            submit(of, reading, against, arm.name)
            for reading in informed
            for against in references(planned)
            for arm in planned.arms
        ]
    known = {attribute: started.result() for attribute, started in shares.items()}
    entries = [entry for started in pools for entry in started.result()]
    made = {
        name: sum(n for (_, s), n in counts.statuses.items() if s == name) for name in ("made", "blocked", "failed")
    }
    found = {
        "study": planned.study.name,
        **planned.made_with,
        "images": {**made, "total": sum(made.values()), "asked": len(planned)},
        "headline": headline(planned, entries, counts, informed, known),
        "pooled": entries,
        "classifier": {reading.attribute: _record(reading, counts) for reading in informed},
    }
    return known, found


def pooled(
    planned: Asked, counts: Tally, reading: Reading, against: Against, arm: str, shares: dict[Key, Shares]
) -> list[dict[str, Any]]:
    """Over the neutral prompts of an arm: identity prompts name the group themselves. An entry per level.

    A concept that comes in two prompt sets has a row of its own in each, and is one of `n_concepts`.
    """
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
        return []
    table = np.array([_told(counts, key, reading) for key, _ in known])
    every = np.array([counts.count(key, reading) for key, _ in known])
    reference = np.array([found.shares for _, found in known])
    least = np.array([found.least for _, found in known])
    answers = np.array([found.n or math.nan for _, found in known])
    base = against.base(reading)
    names = [key[1] for key, _ in known]
    matrix, together = matrices(reading, names), reading.confusion
    raw = ""
    if together is None:
        table, every, matrix = table[:, :-1], every[:, :-1], matrix[:, :-1]
        together, raw = matrix, reading.uncorrected
    images = images_behind(every, matrix)
    chance = int(rng.integers(2**63))  # the same for both ends of a bounded reference

    def apart(reference: Floats) -> list[Estimate]:
        rng = np.random.default_rng(chance)
        return amplification.mean_difference(table, matrix, reference, answers=answers, images=images, raw=raw, rng=rng)

    means = apart(reference)
    ends = apart(least) if (least < reference).any() else means
    entries: list[dict[str, Any]] = []
    for k, level in enumerate(reading.levels[:1] if len(reading.levels) == 2 else reading.levels):
        entry: dict[str, Any] = {
            "arm": arm,
            "attribute": reading.attribute,
            "title": reading.title,
            "level": level,
            "reference": against.source(reading),
            "n_concepts": len(set(names)),
            "n_images": int(table.sum()),
            "base": base[k],
        }
        bounded = (least[:, k] < reference[:, k]).any()
        mean = _hull(means[k], ends[k]) if bounded else means[k]
        erased = {"erased_by": robustness.erasing_difference(mean, together, k)}
        entry["mean_difference"] = mean._asdict() | erased
        if len(reading.levels) == 2:
            inside = _inside(reference[:, k], answers)
            if 0 < base[k] < 1 and ((inside > 0) & (inside < 1)).all():
                entry |= _stretched(table, matrix, inside, base[k], answers, names, raw, reading, against, rng)
        if k == 0:
            entry |= _directional(table, matrix, reference, base, answers, raw, rng)
            read = {key: counts.count(key, reading)[:-1] for key, _ in known}
            entry |= _distances(read, reading, dict(known), base, shares, rng)
        note = ""
        if raw and any(counts.count(key, reading)[-1] for key, _ in known):
            note = f", {AMONG_DECIDED}"
        elif not raw and any(counts.by_people(key, reading).any() for key, _ in known):
            note = f"{', errors by arm' if reading.of_arm else ''}, {BY_PEOPLE}"
        for part in (part for part in entry.values() if isinstance(part, dict) and "method" in part):
            if not part["method"].startswith("not known"):
                part["method"] += note
        entries.append(entry)
    return entries


def _told(counts: Tally, key: Key, reading: Reading) -> Ints:
    """Decisions `(K + 1,)` for one key about the images of which people can tell, as far as they were asked.

    What people said of the labelled ones is in the matrix (`tables.informed`), and their decisions stay among the others,
    so that no concept weighs less for being labelled. An error among them raises what is predicted and what is taken back
    out of it alike, so to count both as chance of its own makes the interval only wider than need be. In the estimates
    nothing is left of a concept of which one labelled image does not show one person; here the probe is believed that
    the others do, as where nobody labels.
    """
    every = counts.count(key, reading)
    if reading.confusion is None:
        return every
    told = counts.tellable(key, reading) + counts.by_people(key, reading).sum(0)
    return told if told[:-1].any() else every


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
    names: Sequence[str],
    raw: str,
    reading: Reading,
    against: Against,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Shift, stretch and scatter of one level, and how wrong the classifier would have to be to explain the stretch."""
    pool = amplification.pooled(table, matrix, reference, base, answers=answers, concepts=names, raw=raw, rng=rng)
    found: dict[str, Any] = {name: getattr(pool, name)._asdict() for name in ("shift", "stretch", "scatter")}
    found["stretch"]["erased_by"] = robustness.erasing_lean(
        pool.stretch, table, matrix, reference, base, answers=answers, rng=rng
    )
    # an infinite lean would be null in the file, as one that is not known
    found["stretch"]["cannot_be_erased"] = found["stretch"]["erased_by"] == math.inf
    labelled = [(rows, against.of(concept, reading)) for concept, rows in reading.by_concept.items()]
    matched = [(rows, of.shares[0]) for rows, of in labelled if isinstance(of, Distribution)]
    if matched:
        rows, shares = (np.array(some) for some in zip(*matched, strict=True))
        found["stretch"]["measured_lean"] = robustness.measured_lean(rows, shares, base)._asdict()
    return found


def _directional(
    table: Ints,
    matrix: Ints,
    reference: Floats,
    base: Sequence[float],
    answers: Floats,
    raw: str,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Directional amplification, over all levels together. Nothing where the table leaves people out."""
    rows, at_base = [r for r in map(whole, reference.tolist()) if r is not None], whole(base)
    if len(rows) < len(reference) or at_base is None:
        return {}
    found = amplification.directional_bias_amplification(
        table, matrix, np.array(rows), at_base, answers=answers, raw=raw, rng=rng
    )
    return {"directional": found._asdict()}


def _distances(
    read: dict[Key, Ints],
    reading: Reading,
    found: dict[Key, Distribution],
    base: Sequence[float],
    shares: dict[Key, Shares],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Distances of all levels together from the reference, beside their noise floors; `read` `(K,)` decisions by key.

    Nothing where the table leaves people out. A concept whose shares were not sampled is in no distance.
    """
    rows = {key: row for key, d in found.items() if (row := whole(d.shares)) is not None}
    sampled = [key for key in found if shares[key].joint is not None]
    if len(rows) < len(found) or whole(base) is None or not sampled:
        return {}
    values = [distances.summing_to_one(shares[key].value) for key in sampled]
    reference = np.array([rows[key] for key in sampled])
    sizes = np.array([read[key].sum() for key in sampled])
    answers = np.array([found[key].n or 0 for key in sampled])
    chance = distances.by_chance(sizes, reading, [key[1] for key in sampled], reference, answers, rng)
    entry: dict[str, Any] = {}
    n = len({key[1] for key in sampled})
    for name, distance in (
        ("total_variation", amplification.total_variation),
        ("jensen_shannon", amplification.jensen_shannon),
    ):
        apart = [distance(value, r) for value, r in zip(values, reference, strict=True)]
        floor = [distance(seen, r) for seen, r in zip(*chance, strict=True)]
        entry[name] = {"value": float(np.mean(apart)), "noise_floor": float(np.mean(floor)), "n_concepts": n}
    return entry


def _record(reading: Reading, counts: Tally) -> dict[str, Any]:
    """How good the classifier was on labelled pictures, and how often it abstained here: with Wilson's intervals."""
    here = Counter[str]()
    for (_, attribute, decision), n in counts.decisions.items():
        if attribute == reading.attribute:
            here[decision] += n
    total = sum(here[said] for said in reading.columns)  # without those that do not show one person
    matrix, undecided = reading.confusion, wilson(here[CANNOT_TELL], total)
    right = None if matrix is None else evaluation.accuracy(matrix)
    return {
        "title": reading.title,
        "levels": list(reading.levels),
        "accuracy": right and right.value,
        "accuracy_low": right and right.low,
        "accuracy_high": right and right.high,
        "n": None if matrix is None else int(matrix.sum()),
        "confusion": None if matrix is None else matrix.tolist(),
        "leaks": evaluation.leaks(
            {c: rows for c, rows in reading.by_concept.items() if c != ELSEWHERE}, reading.levels
        ),
        "cannot_tell_rate": undecided.value if total else None,
        "cannot_tell_low": undecided.low,
        "cannot_tell_high": undecided.high,
    }


def headline(
    planned: Asked,
    pools: Sequence[dict[str, Any]],
    counts: Tally,
    attributes: Sequence[Reading],
    shares: dict[str, dict[Key, Shares]],
) -> str:
    """The finding in a sentence that can be quoted: reference, year, table, interval and n are in it. Where it is
    significant, a second says how wrong the classifier would have to be for it to vanish."""
    images = sum(n for (_, status), n in counts.statuses.items() if status == "made")
    if len(estimated(planned)) == 1:
        return _of_one(planned, images, counts, attributes[0], shares[attributes[0].attribute])
    if not pools:
        return _of_none_pooled(planned, images, counts, attributes)
    arm = _told_of(planned, {p["arm"] for p in pools})
    mine = [p for p in pools if p["arm"] == arm]
    pool = next((p for p in mine if not math.isnan(p.get("stretch", NO_STRETCH)["value"])), mine[0])
    levels = [p for p in mine if (p["attribute"], p["reference"]) == (pool["attribute"], pool["reference"])]
    reading = next(each for each in attributes if each.attribute == pool["attribute"])
    said = f"the share of “{pool['level']}” is on average {_apart(pool, ' points from the reference')}"
    said += "".join(f", of “{other['level']}” {_apart(other)}" for other in levels[1:])
    if reading.confusion is None:
        said += f", {_at_its_word(planned, pool['n_images'])}."
    else:
        said += f", over {pool['n_images']:,} images."
    by_person = isinstance(planned.study, ImportStudy) and planned.study.read_by.kind == "person"
    errors = "" if by_person else _said_of_errors(levels, corrected=reading.confusion is not None)
    over = f"{pool['n_concepts']} concept{'' if pool['n_concepts'] == 1 else 's'}"
    model, stretch = _model(planned, arm), pool.get("stretch")
    if stretch is None or math.isnan(stretch["value"]):
        why = "" if stretch is None else f" How far apart the concepts lie is {stretch['method']}."
        return (
            f"Against “{pool['reference']}”, over {over} of the model {model} in {pool['title']}, with 95% intervals: "
            f"{said}{why}{errors}"
        )
    moved = "neither widens nor narrows, as far as can be told,"
    if stretch["low"] > 1:
        moved = "amplifies"
    elif stretch["high"] < 1:
        moved = "narrows"
    return (
        f"Against “{pool['reference']}”, the model {model} {moved} the differences between {over} in "
        f"{pool['title']}: stretch {stretch['value']:.2f} on the log-odds scale (95% interval {stretch['low']:.2f} to "
        f"{stretch['high']:.2f}; 1 is the reference); {said}{errors}"
    )


def _told_of(planned: Asked, measured: Container[str]) -> str:
    """The arm that the headline is about, of those that are measured: the prompts unchanged, of pictures made elsewhere
    what is held against no other arm. Where there is none such, the first."""
    found = [arm.name for arm in planned.arms if arm.name in measured]
    made = planned.study.arms if isinstance(planned.study, ImportStudy) else {}
    unchanged = [name for name in found if name == "none" or (name in made and made[name].baseline is None)]
    return (unchanged or found)[0]


def _model(planned: Asked, arm: str) -> str:
    """The model behind an arm, and the arm where it rewrites the prompts here."""
    here = not isinstance(planned.study, ImportStudy | FolderStudy)
    return f"{planned.model_of(arm)}{f' with the arm {arm}' if here and arm != 'none' else ''}"


def _apart(entry: dict[str, Any], unit: str = "") -> str:
    """The mean difference of a level in points; its ends alone from a reference of which only bounds are known."""
    value, low, high = (100 * entry["mean_difference"][end] for end in ("value", "low", "high"))
    ends = f"{low:+.1f} to {high:+.1f}"
    return f"{ends}{unit}" if math.isnan(value) else f"{value:+.1f}{unit} ({ends})"


def _at_its_word(planned: Asked, decided: int) -> str:
    """Said of shares that no matrix corrects."""
    who = "the probe"
    if isinstance(planned.study, ImportStudy):
        who = planned.study.read_by.who
        if planned.study.read_by.kind == "person":
            return f"as labelled by {who}, among the {decided:,} images of which a level was said"
    return f"as {who} said, its errors not corrected, among the {decided:,} images that it decided"


def _said_of_errors(levels: Sequence[dict[str, Any]], *, corrected: bool) -> str:
    """What it would take to erase what is significant of the entries of an attribute, one per level, beside the lean that
    was measured, where it was."""
    stretch = levels[0].get("stretch", {})
    said, lean, measured = [], stretch.get("erased_by") or 0.0, stretch.get("measured_lean") or NO_STRETCH
    if lean == math.inf:
        said.append("no lean of the classifier explains the stretch away")
    elif lean > 0:  # and not NaN
        where = "towards" if stretch["low"] > 1 else "away from"
        known, further = "not measured", BY_CONCEPT in stretch.get("method", "")
        if not math.isnan(measured["value"]):
            value, low, high = (100 * measured[end] for end in ("value", "low", "high"))
            known = f"{'there' if further else 'measured'}: {value:+.1f}, {low:+.1f} to {high:+.1f}"
        leans = f"a classifier that leans {robustness.in_points(lean)} points"
        if further:
            leans += f" further {where} each concept’s stereotype than on labelled pictures"
        else:
            leans += f" {where} each concept’s stereotype"
        said.append(f"{leans} explains the stretch away ({known})")
    erased = [(each["level"], each["mean_difference"].get("erased_by") or 0.0) for each in levels]
    misread = [f"{100 * by:.1f}%{f' (“{level}”)' if len(levels) > 1 else ''}" for level, by in erased if by > 0]
    if misread:
        beyond = ", beyond what is corrected," if corrected else ""
        said.append(
            f"a classifier that misreads {', '.join(misread)} of the images one way{beyond} explains the mean difference away "
            "(not measured)"
        )
    text = "; ".join(said)
    return f" {text[0].upper()}{text[1:]}." if said else ""


def _of_none_pooled(planned: Asked, images: int, counts: Tally, attributes: Sequence[Reading]) -> str:
    """The same where nothing is pooled: why not, and whether the concepts are compared one by one."""
    models = ", ".join(dict.fromkeys(planned.model_of(arm.name) for arm in planned.arms))
    verb = "read" if isinstance(planned.study, ImportStudy | FolderStudy) else "made"
    if not images:
        return f"{models}: no image was {verb}."
    said = f"{models}: {images:,} images were {verb}"
    asked = [r for r in attributes if not r.of and r.attribute not in {each.name for each in BY_DETECTOR}]
    here = Counter((attribute, decision) for (_, attribute, decision), n in counts.decisions.items() if n)
    if not any(here[r.attribute, level] for r in asked for level in r.levels):
        if not any(here[r.attribute, CANNOT_TELL] for r in asked):
            return f"{said}; none of them is taken to show one person."
        return f"{said}; in none of them could {' or '.join(r.title for r in asked)} be told."
    compared = [
        (key, reading, against, found)
        for reading in attributes
        for against in references(planned)
        for key in undivided(estimated(planned))
        if isinstance(found := against.of(key[1], reading), Distribution)
        and counts.count(key, reading)[:-1].any()
        and not np.isnan(found.shares).all()
    ]
    if not compared:
        return f"{said}; no reference covers enough of the concepts to say more."
    why = "the prompts name the group themselves"
    if neutral := [each for each in compared if not each[0][3]]:
        (_, reading, against, found) = neutral[0]
        absent = [level for level, share in zip(reading.levels, found.shares, strict=True) if math.isnan(share)]
        why = f"“{against.source(reading)}” has no share of {' or '.join(f'“{level}”' for level in absent)}"
    return f"{said}; nothing is said of all concepts together, since {why}: each concept by itself is compared."


def _of_one(planned: Asked, images: int, counts: Tally, reading: Reading, shares: dict[Key, Shares]) -> str:
    """The same where there is one concept alone, and so nothing to pool."""
    (key,) = estimated(planned)
    mine, level = shares[key].estimate(0), reading.levels[0]
    said = f"{_model(planned, key[4])}: of {images:,} images of “{key[1]}”"
    if not mine.known:
        return f"{said}, {reading.title} could be told in none."
    said += f", {100 * mine.value:.1f}% show “{level}” in {reading.title}"
    ends = f"95% interval {100 * mine.low:.1f} to {100 * mine.high:.1f}"
    if mine.method.startswith(reading.uncorrected):
        decided = int(counts.count(key, reading)[:-1].sum())
        either = f", the {mine.n - decided:,} undecided counted either way" if mine.n > decided else ""
        said += f", {_at_its_word(planned, decided)} ({ends}{either})"
    else:
        said += f" ({ends}, over {mine.n:,} of them)"
    for against in references(planned):
        found = against.of(key[1], reading)
        if isinstance(found, Distribution) and not math.isnan(found.shares[0]):
            least = f"{100 * found.least[0]:.1f} to " if found.least[0] < found.shares[0] else ""
            return f"{said}; “{against.source(reading)}” has {least}{100 * found.shares[0]:.1f}%."
    return f"{said}; no reference has it."
