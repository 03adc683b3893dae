"""How wrong a probe is, on labelled pictures: by level, by group of people, and by what the picture is about."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from classifiers.attributes import ATTRIBUTES, readable
from classifiers.probe import Probe
from pipeline.estimates import wilson
from pipeline.types import CANNOT_TELL, Attribute, Estimate, Intersection, Pixels

Labels = Mapping[str, Sequence[str | None]]
"""Per attribute one level for each picture, or `None` where a picture is not labelled for it."""


def measure_confusion(
    perceiver: Probe,
    images: Sequence[Pixels],
    truths: Labels,
    *,
    concepts: Sequence[str],
    pictures: str,
) -> dict[str, Any]:
    """Count decisions against labels, as the content of `confusion.json`, over all and by concept.

    `concepts` says what each image is about, for that is where a probe may err by itself. `pictures` says which
    pictures these are: a matrix holds for their domain alone.
    """
    return count(perceiver, perceiver.perceive(images).decisions, truths, concepts=concepts, pictures=pictures)


def count(
    perceiver: Probe, decisions: Mapping[str, Sequence[str]], truths: Labels, *, concepts: Sequence[str], pictures: str
) -> dict[str, Any]:
    """`measure_confusion` for pictures that are decided already."""
    measured = [a for a in perceiver.attributes if a.name in truths]
    for attribute in measured:
        unknown = {label for label in truths[attribute.name] if label is not None} - set(attribute.levels)
        if unknown or len(truths[attribute.name]) != len(concepts):
            some = len(truths[attribute.name])
            raise ValueError(f"{attribute.name}: {some} labels for {len(concepts)} images; unknown: {unknown}")
    labels, seen = with_intersections(readable(measured), truths, decisions)
    return {
        attribute.name: {
            "levels": list(attribute.levels),
            "pictures": pictures,
            **perceiver.stamp(attribute),
            "rows": crossed(attribute.levels, labels[attribute.name], seen[attribute.name]).tolist(),
            "by_concept": crossed_by_concept(attribute.levels, labels[attribute.name], seen[attribute.name], concepts),
        }
        for attribute in readable(measured)
    }


def alone_and_in_pairs(attributes: Sequence[Attribute]) -> tuple[Attribute | Intersection, ...]:
    """Each of them, and every two of them together: who is misread may be seen in no attribute alone.

    More than what is estimated together (`readable`), named alike: of two, the first in `ATTRIBUTES` comes first.
    """
    ordered = sorted(attributes, key=lambda a: [*ATTRIBUTES, a.name].index(a.name))
    return (*attributes, *(Intersection(of=pair) for pair in itertools.combinations(ordered, 2)))


def with_intersections(
    read: Sequence[Attribute | Intersection], truths: Labels, decisions: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str | None]], dict[str, list[str]]]:
    """`groups` and decisions, with those of the intersections."""
    seen = {a.name: list(decisions[a.name]) for a in read if isinstance(a, Attribute)}
    for both in (a for a in read if isinstance(a, Intersection)):
        seen[both.name] = both.together(seen)
    return groups(read, truths), seen


def groups(read: Sequence[Attribute | Intersection], truths: Labels) -> dict[str, list[str | None]]:
    """The labels, with those of the intersections; whoever is not labelled for a part of one is in none."""
    labels = {a.name: list(truths[a.name]) for a in read if isinstance(a, Attribute)}
    for both in (a for a in read if isinstance(a, Intersection)):
        rows = zip(*(labels[part.name] for part in both.of), strict=True)
        labels[both.name] = [None if None in row else ", ".join(map(str, row)) for row in rows]
    return labels


def crossed(levels: Sequence[str], labels: Sequence[str | None], decisions: Sequence[str]) -> npt.NDArray[np.int64]:
    """How often which decision was made about which label, `(K, K + 1)`."""
    columns = (*levels, CANNOT_TELL)
    rows = np.zeros((len(levels), len(columns)), np.int64)
    for label, decision in zip(labels, decisions, strict=True):
        if label is not None:
            rows[levels.index(label), columns.index(decision)] += 1
    return rows


def crossed_by_concept(
    levels: Sequence[str], labels: Sequence[str | None], decisions: Sequence[str], concepts: Sequence[str]
) -> dict[str, list[list[int]]]:
    """`crossed` for each concept of which a picture is labelled."""
    found = {}
    for concept in sorted(set(concepts) - {""}):
        mine = [i for i, c in enumerate(concepts) if c == concept]
        rows = crossed(levels, [labels[i] for i in mine], [decisions[i] for i in mine])
        if rows.any():
            found[concept] = rows.tolist()
    return found


def save_confusion(counted: Mapping[str, Any], file: Path) -> None:
    """Write what `measure_confusion` counted. The file appears whole."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


# -- accuracy ----------------------------------------------------------------------------------------


def accuracy(rows: npt.ArrayLike) -> Estimate:
    """The share of the decided pictures that were decided rightly, from counts `(K, K + 1)`, with Wilson's interval."""
    counts = np.asarray(rows, np.int64)
    return wilson(int(np.trace(counts)), int(counts[:, :-1].sum()))


def accuracy_by(
    labels: Sequence[str | None], decisions: Sequence[str], who: Sequence[str | None]
) -> dict[str, Estimate]:
    """`accuracy` for the pictures of each group of people; a picture without a group is in none."""
    right: dict[str, list[bool]] = {group: [] for group in sorted({g for g in who if g is not None})}
    for label, decision, group in zip(labels, decisions, who, strict=True):
        if group is not None and label is not None and decision != CANNOT_TELL:
            right[group].append(label == decision)
    return {group: wilson(sum(some), len(some)) for group, some in right.items()}


# -- does the occupation leak into the attribute? ----------------------------------------------------


def leaks(
    by_concept: Mapping[str, npt.ArrayLike], levels: Sequence[str], *, level: float = 0.95
) -> dict[str, dict[str, Any]]:
    """How much more often a probe misreads people of one level in one concept than in all others together.

    `by_concept` has counts `(K, K + 1)` on pictures of the same people in different concepts. Per true level: the
    concept with the largest difference of error among the decided, how many decided pictures of it there are, and the
    difference with an interval that holds the worst of all concepts. The exact intervals of both shares (Clopper and
    Pearson (1934), Biometrika 26:404) are combined as by Newcombe (1998), Statistics in Medicine 17:873, method 10, at
    1 - α/C for C concepts (Bonferroni), so that all C hold together; then from the largest lower end to the largest
    upper end. An interval above 0 shows that a concept leaks; its upper end is how bad it may be. Pictures are taken to
    be independent: where several are renderings of one drawing, the interval is too narrow. A level of which fewer than
    two concepts have a decided picture is left out.
    """
    counts = {concept: np.asarray(rows, np.int64)[:, :-1] for concept, rows in by_concept.items()}
    found: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(levels):
        decided = {concept: rows[k] for concept, rows in counts.items() if rows[k].sum()}
        if len(decided) < 2:
            continue
        sure = 1 - (1 - level) / len(decided)
        total = np.sum(list(decided.values()), axis=0)
        gaps = {c: _gap(row, total - row, k, sure) for c, row in decided.items()}
        worst = max(gaps, key=lambda c: gaps[c].value)
        low, high = (max(getattr(gap, end) for gap in gaps.values()) for end in ("low", "high"))
        found[name] = {
            "concept": worst,
            "value": gaps[worst].value,
            "low": min(low, gaps[worst].value),
            "high": high,
            "n": int(decided[worst].sum()),
            "n_concepts": len(decided),
        }
    return found


def _gap(mine: npt.NDArray[np.int64], others: npt.NDArray[np.int64], k: int, level: float) -> Estimate:
    """The difference of two error rates, of decided pictures `(K,)` whose true level is the k-th."""
    one, rest = (_exact(int(row.sum() - row[k]), int(row.sum()), level) for row in (mine, others))
    value = one.value - rest.value
    low = value - math.hypot(one.value - one.low, rest.high - rest.value)
    high = value + math.hypot(one.high - one.value, rest.value - rest.low)
    return Estimate(value, low, high, one.n + rest.n, "exact, MOVER")


def _exact(k: int, n: int, level: float) -> Estimate:
    """A share k/n with the interval of Clopper and Pearson: it does not fall short in the tails, as Wilson's does."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if k else 0.0
    high = float(special.betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Estimate(k / n, low, high, n, "exact")
