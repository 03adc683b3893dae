"""A study and a classifier's record -> how many images and labelled pictures an interval of a wanted width needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE
from rich.table import Table
from scipy import special

from classifiers.correction import checked_confusion, corrected_shares_many, prior_of_errors, told
from pipeline import stages, tables
from pipeline.errors import InputError
from pipeline.estimates import Floats, Ints, checked_level, whole
from pipeline.plan import Plan, plan
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import Study
from pipeline.tables import PERFECT, Reading
from pipeline.types import Distribution, digest

AUDITS = 24
"""Simulated audits behind a check."""
MANY = 10_000
"""Images per prompt at which a floor is checked by simulation."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one attribute needs, at the concept and level where it needs most."""

    title: str
    concept: str
    level: str
    share: float
    """In 0..1: what the reference says of it, or 0.5 without one."""
    reference: str
    labels: int | None
    """Labelled pictures of the level that has fewest; `None` where no matrix is known and the probe is believed."""
    from_matrix: float
    """Half-width in 0..1 that is left with any number of images: the floor."""
    images: int | None
    """Per prompt; `None` where the floor is above the wanted half-width."""
    labels_needed: int | None
    """Labelled pictures of that level, all levels grown alike, at which half of the wanted variance is left to the
    images; `None` where that is so, or where no matrix is known."""
    images_then: int | None
    """Images per prompt that do with `labels_needed`."""
    simulated: float
    """Mean half-width of the corrected share in simulated audits with as many `images`, or with `MANY` at a floor."""


def variances(shares: npt.ArrayLike, confusion: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Of corrected shares `(K,)`: variance for one image per prompt, and variance from the matrix. `(K,)` each.

    `shares` `(K,)` true shares, `confusion` `(K, J)` counts on labelled pictures, J = K or K + 1. With n images the
    variance is the first / n plus the second. Rogan and Gladen (1978, American J. Epidemiology 107:71, equation 6), for K
    levels by the delta method: with q = Dᵀ ω, the errors D among the decided and B = D⁻ᵀ,
    var ω = B (diag q − q qᵀ) Bᵀ / n t̄ + Σ ω_k² B (diag D_k − D_k D_kᵀ) Bᵀ / m_k, and π ∝ ω / t for the chances t of a
    level to be decided, t̄ their mean. The posterior means of the rows stand in for D and t.
    """
    matrix = checked_confusion(confusion)
    levels = len(matrix)
    pi = np.asarray(shares, dtype=np.float64)
    if pi.shape != (levels,) or not (pi >= 0).all() or abs(pi.sum() - 1) > 1e-6:
        raise ValueError(f"shares must be {levels} from 0 on that sum to 1")
    labelled = prior_of_errors(levels) + matrix[:, :levels]
    m = labelled.sum(1)
    errors = labelled / m[:, None]
    decided, undecided = told(matrix)
    chance = decided / (decided + undecided)
    mean = float(pi @ chance)
    omega = pi * chance / mean
    back = np.linalg.inv(errors.T)
    # dπ = (I − π 1ᵀ) diag(t̄ / t) dω − (I − π 1ᵀ) diag(π / t) dt
    turn = np.eye(levels) - np.outer(pi, np.ones(levels))
    by_share, by_chance = turn @ np.diag(mean / chance) @ back, turn @ np.diag(pi / chance)
    seen = errors.T @ omega
    images = _covered(by_share, np.diag(seen) - np.outer(seen, seen)) / mean
    spread = sum(omega[k] ** 2 * (np.diag(errors[k]) - np.outer(errors[k], errors[k])) / m[k] for k in range(levels))
    rates = np.diag(chance * (1 - chance) / (decided + undecided))
    return images, np.asarray(_covered(by_share, np.asarray(spread)) + _covered(by_chance, rates))


def _covered(linear: Floats, covariance: Floats) -> Floats:
    """The variances of a linear map of something with this covariance."""
    return np.asarray(np.einsum("ij,jk,ik->i", linear, covariance, linear))


def images_needed(per_image: float, from_matrix: float, half: float, level: float = 0.95) -> int | None:
    """Images whose interval is `half` wide to either side, or `None` if the matrix alone makes it wider."""
    left = (half / z(level)) ** 2 - from_matrix
    return math.ceil(per_image / left) if left > 0 else None


def z(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 at 0.95."""
    return float(special.ndtri((1 + checked_level(level)) / 2))


def simulated_half_width(
    shares: npt.ArrayLike, confusion: npt.ArrayLike, images: int, column: int, *, rng: np.random.Generator
) -> float:
    """Mean half-width of one level's corrected share in simulated audits of as many images, by the same matrix."""
    matrix = checked_confusion(confusion)
    rows = prior_of_errors(len(matrix)) + matrix[:, : len(matrix)]
    rows /= rows.sum(1, keepdims=True)
    decided, undecided = told(matrix)
    chance = (decided / (decided + undecided))[:, None]
    full = rows if matrix.shape[1] == len(matrix) else np.hstack([rows * chance, 1 - chance])
    pi = np.asarray(shares, dtype=np.float64)
    counts = rng.multinomial(images, pi @ full, AUDITS)
    found = corrected_shares_many(counts, matrix, rng=rng)
    return float(np.mean([s.high[column] - s.low[column] for s in found])) / 2


# -- a study -----------------------------------------------------------------------------------------


def needs(study: Study, readings: Sequence[Reading], half: float, labels: int | None = None) -> list[Need]:
    """What every attribute of a study needs for intervals of ± `half` (in 0..0.5), each at its worst concept and level.

    `labels`: what if as many pictures of each level were labelled, with the errors that are known now.
    """
    if not 0 < half < 0.5:
        raise InputError(f"--precision {100 * half:g}: give points between 0 and 50, such as 3")
    if labels is not None and labels < 1:
        raise InputError(f"--labels {labels}: give a number of labelled pictures per level, from 1 on")
    planned = plan(study, weights="")
    asked = [reading for reading in readings if reading.attribute in study.perceive.attributes]
    found = []
    with tables.doubts(asked, stages.say), progress("simulating", total=len(asked), unit="attributes") as advance:
        for reading in asked:
            found.append(_need(planned, reading, half, labels))
            advance(1, "")
    return found


def _need(planned: Plan, reading: Reading, half: float, labels: int | None) -> Need:
    known = reading.confusion is not None
    matrix = reading.confusion if reading.confusion is not None else _believed(len(reading.levels))
    if known and labels is not None:
        matrix = scaled(matrix, labels)
    wanted = (half / z(0.95)) ** 2
    templates = _templates(planned)
    asked = [
        (concept, reference, shares, k, float(per_image[k]) / templates[concept], float(floor[k]))
        for concept, reference, shares, columns in _shares(planned, reading)
        for per_image, floor in [variances(shares, matrix)]
        for k in columns
    ]
    # Beyond the floor no number of images compares; the highest floor is worst.
    worst = max(asked, key=lambda a: (max(a[5] - wanted, 0.0), a[4] / (wanted - a[5]) if a[5] < wanted else 0.0))
    concept, reference, shares, k, per_image_k, floor_k = worst
    images = images_needed(per_image_k, floor_k, half)
    fewest = int(matrix.sum(1).min())
    factor = floor_k / (wanted / 2)
    more = known and factor > 1
    grown = variances(shares, np.rint(matrix * max(factor, 1.0)))
    rng = np.random.default_rng(int(digest([planned.study.seed, reading.attribute, "precision"])[:16], 16))
    return Need(
        title=reading.title,
        concept=concept,
        level=reading.levels[k],
        share=float(shares[k]),
        reference=reference,
        labels=fewest if known else None,
        from_matrix=z(0.95) * math.sqrt(floor_k) if known else 0.0,
        images=images,
        labels_needed=math.ceil(fewest * factor) if more else None,
        images_then=images_needed(float(grown[0][k]) / templates[concept], float(grown[1][k]), half) if more else None,
        simulated=simulated_half_width(shares, matrix, templates[concept] * (images or MANY), k, rng=rng),
    )


def _templates(planned: Plan) -> dict[str, int]:
    """How many prompts an image per prompt makes of each concept: its neutral ones are taken together."""
    together = tables.templates_together(planned)
    found = dict.fromkeys((prompt.concept for prompt in planned.prompts), 1)
    for key in sorted(tables.concepts(tables.estimated(planned)), key=lambda key: -len(together.get(key, [key]))):
        found[key[1]] = len(together.get(key, [key]))  # of a concept of several sets the fewest
    return found


def _believed(levels: int) -> Ints:
    return np.eye(levels, dtype=np.int64) * PERFECT


def scaled(confusion: Ints, labels: int) -> Ints:
    """The counts that `labels` labelled pictures of each level would give at the same rates, to whole pictures.

    No decided row is left empty: its largest cell keeps one.
    """
    result: Ints = np.rint(confusion / confusion.sum(1, keepdims=True) * labels).astype(np.int64)
    for row, given in zip(result, confusion, strict=True):
        if row[: len(result)].sum() == 0:
            row[int(np.argmax(given[: len(result)]))] = 1
    return np.asarray(result)


def _shares(planned: Plan, reading: Reading) -> Iterator[tuple[str, str, Floats, Sequence[int]]]:
    """Concept, reference, true shares to assume, and the levels to ask about.

    Without a reference row, each level in turn at one half, where a share varies most, and the rest alike.
    """
    levels = len(reading.levels)
    for concept in dict.fromkeys(prompt.concept for prompt in planned.prompts):
        for against in tables.references(planned):
            found = against.of(concept, reading)
            shares = whole(found.shares) if isinstance(found, Distribution) else None
            if shares is not None:
                yield concept, against.source(reading), shares, range(levels)
                break
        else:
            for k in range(levels):
                yield concept, "", np.where(np.arange(levels) == k, 0.5, 0.5 / (levels - 1)), [k]


def measured_rate(folder: Path) -> float | None:
    """Images per second of a finished run, from its `seconds`; `None` where there is none."""
    if not (folder / "study.yaml").is_file():
        return None
    run, study = stages.load_run(folder)
    return _rate(run, plan(study, weights=""))


def _rate(run: Run, planned: Plan) -> float | None:
    seconds = n = 0.0
    for shard in planned.shards():
        if run.images(shard).exists():
            of_shard = [s for s in run.read_images(shard, ["seconds"])["seconds"].to_pylist() if s]
            seconds, n = seconds + sum(of_shard), n + len(of_shard)
    return n / seconds if seconds > 0 else None


# -- said --------------------------------------------------------------------------------------------


def shown(study: Study, found: Sequence[Need], half: float, rate: float | None, source: str) -> Iterator[Table | str]:
    """For the terminal: what each attribute needs, and what the study would cost."""
    points = f"±{100 * half:g} points"
    table = Table(title=f"for 95% intervals of {points}, worst concept and level", title_justify="left", box=SIMPLE)
    headings = ("perceived", "concept", "level", "share", "fewest labels", "matrix's part", "images per prompt")
    for heading in (*headings, "simulated"):
        table.add_column(heading, justify="left" if heading in headings[:3] else "right")
    for need in found:
        table.add_row(
            need.title.removeprefix("perceived "),
            need.concept,
            need.level,
            f"{100 * need.share:.0f}%" + ("" if need.reference else " (no reference)"),
            "-" if need.labels is None else f"{need.labels:,}",
            "-" if need.labels is None else f"±{100 * need.from_matrix:.1f}",
            "no number" if need.images is None else f"{need.images:,}",
            f"±{100 * need.simulated:.1f}" + ("" if need.images else f" with {MANY:,}"),
        )
    yield table
    for need in found:
        yield _sentence(need, points, half)
    yield _cost(study, found, rate, source)


def _sentence(need: Need, points: str, half: float) -> str:
    if need.labels is None:
        return f"{need.title}: no labelled pictures of this image domain are known, so the probe is taken at its word."
    text = f"{need.title}: the matrix alone makes ±{100 * need.from_matrix:.1f}. Four times the labelled pictures, "
    text += f"{3 * need.labels:,} more of the level that has {need.labels:,} and the others alike, would halve that."
    if need.images is None:
        text += f" More images cannot give {points}: the matrix is the floor."
    if need.labels_needed is not None:
        text += f" With {need.labels_needed:,} of that level, {need.images_then or 0:,} images per prompt do."
    if need.images is None and need.simulated < half:
        text += f" But simulated, {MANY:,} images give ±{100 * need.simulated:.1f}: near 0 or 1 the formula is rough."
    if need.images is not None and abs(need.simulated / half - 1) > 0.1:
        text += f" Simulated, these images give ±{100 * need.simulated:.1f}: near 0 or 1 the formula is rough."
    return text


def _cost(study: Study, found: Sequence[Need], rate: float | None, source: str) -> str:
    """The hours: with the labels that there are, and where those are too few for some attribute with those it needs."""
    now = [need.images for need in found if need.images is not None]
    then = [need.images or need.images_then for need in found]
    missing = len(found) - len(now)
    text = "No number of images gives this precision with these labels."
    if now:
        without = f" (without the {missing} attributes that no number of images helps)" if missing else ""
        text = _hours(study, max(now), without, rate, source)
    if missing and all(then):
        text += f" With the labelled pictures named above, {_hours(study, max(n or 0 for n in then), '', rate, source)}"
    return text


def _hours(study: Study, images: int, without: str, rate: float | None, source: str) -> str:
    prompts = len(study.prompts()) * len(study.arms)
    total = prompts * images
    text = f"{images:,} images for each of {prompts:,} prompts and arms are {total:,} images{without}"
    if rate is None:
        return f"{text}; give --rate, in images per second, for the hours that is, or finish a run first."
    return f"{text}: {total / rate / 3600:,.2f} hours on one device at {rate:.3g} images per second ({source})."
