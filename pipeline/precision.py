"""A study and a classifier's record -> how many images and labelled pictures an interval of a wanted width needs."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.box import SIMPLE
from rich.table import Table
from scipy import special, stats

from classifiers.confusion import Errors, checked_confusion, errors_of_all, errors_of_each
from classifiers.correction import corrected_by
from pipeline import stages, tables
from pipeline.errors import InputError
from pipeline.estimates import Floats, Ints, raw_shares, whole
from pipeline.plan import Plan, plan
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.study import Study
from pipeline.tables import PERFECT, Reading
from pipeline.types import Distribution, digest

Z = float(special.ndtri(0.975))
"""The normal quantile of a two-sided 95 % interval: 1.96."""
AUDITS = 4
"""Simulated audits behind a half-width that only steers the search."""
AGAIN, CLOSE = 4, 0.08
"""A half-width that is an answer, or said, is from `AGAIN` times as many audits where its standard error is over 8 %."""
GRID = sorted({int(float(f"{10 ** (k / 20):.1e}")) for k in range(81)})
"""Numbers of images that are tried, 20 in each power of ten, of two digits; of labels every other."""
MANY = GRID[-1]
"""Most images per prompt, and most labelled pictures of a level, that are tried: 10,000."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Shares to simulate audits of."""

    concept: str
    reference: str
    """Where the shares are from; empty where no reference gives all of them."""
    shares: Floats
    """Of images that show one person, `(K,)`."""
    asked: Sequence[int]
    """The levels whose intervals count."""
    templates: int
    """Prompts whose images are taken together."""
    group: int = 0
    """Its place in a matrix that is by concept."""
    partial: bool = False
    """Is there a reference, which leaves out a level or is a range?"""


class Audited(NamedTuple):
    """Simulated audits of one case, at the level whose interval is widest."""

    images: int
    """Per prompt."""
    labels: int
    """Labelled pictures of the level that has fewest; 0 where the probe is taken at its word."""
    half: float
    """Mean half-width of the 95 % intervals, in 0..1."""
    error: float
    """Its standard error, as if the audits were not stratified."""
    case: Case
    level: int

    @property
    def share(self) -> float:
        """The level's true share, in 0..1."""
        return float(self.case.shares[self.level])


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one attribute needs for intervals of a wanted half-width: the fewest of `GRID` whose simulated audits do."""

    title: str
    levels: tuple[str, ...]
    half: float
    """Wanted, in 0..1."""
    now: Audited
    """With the labels there are: the fewest images that do, or `MANY` and a case for which those don't."""
    then: Audited | None
    """The fewest labels that do with twice the images that would if the errors were all but known, so that half of the
    variance is left to each; the most labels and images, where those don't; or `None` where more are not needed."""
    before: Audited
    """Whose interval is to be halved: `now`, or where no number of images does, its case with the images of `then`."""
    halved: Audited | None
    """The fewest labels that halve it, or the most where those don't; `None` where the probe is taken at its word."""
    undecided: float | None = None
    """Where it is: the share of images, in 0..1, that it cannot tell, as in a run; `None` where none says."""

    @property
    def images(self) -> int | None:
        """Per prompt, with the labels there are; `None` where no number does."""
        return self.now.images if self.now.half <= self.half else None

    @property
    def images_then(self) -> int | None:
        """Per prompt, with the labels that are advised; `None` where no number does."""
        return self.images if self.then is None else self.then.images if self.then.half <= self.half else None


def variances(shares: npt.ArrayLike, known: Errors) -> tuple[Floats, Floats]:
    """Of corrected shares `(K,)`: variance for one image per prompt, and variance from the matrix. `(K,)` each.

    `shares` `(K,)` true shares, `known` what labelled pictures say of the errors. With n images the
    variance is the first / n plus the second. Rogan and Gladen (1978, American J. Epidemiology 107:71, equation 6), for K
    levels by the delta method: with q = Dᵀ ω, the errors D among the decided and B = D⁻ᵀ,
    var ω = B (diag q − q qᵀ) Bᵀ / n t̄ + Σ ω_k² B (diag D_k − D_k D_kᵀ) Bᵀ / m_k, and π ∝ ω / t for the chances t of a
    level to be decided, t̄ their mean. The posterior means of the rows stand in for D and t.
    """
    levels = len(known.decided)
    pi = np.asarray(shares, dtype=np.float64)
    if pi.shape != (levels,) or not (pi >= 0).all() or abs(pi.sum() - 1) > 1e-6:
        raise ValueError(f"shares must be {levels} from 0 on that sum to 1")
    m = known.taken_for.sum(1)
    errors = known.taken_for / m[:, None]
    decided, undecided = known.decided, known.undecided
    chance = decided / (decided + undecided)
    mean = float(pi @ chance)
    omega = pi * chance / mean
    if np.linalg.matrix_rank(errors) < levels:  # what is said tells nothing of what is shown
        return np.full(levels, math.inf), np.full(levels, math.inf)
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


def simulated_half_widths(
    shares: npt.ArrayLike,
    confusion: npt.ArrayLike | None,
    images: int,
    *,
    group: int = 0,
    growth: float = 1.0,
    undecided: float = 0.0,
    rng: np.random.Generator,
) -> Floats:
    """Half-width of each level's interval, `(AUDITS, K)`, in simulated audits of as many images.

    `shares` `(K,)` true shares; `confusion` counts, which say how the audits err, too: `(K, J)` for all concepts alike,
    `(G, K, J)` by concept, of which the audits' is the one at `group`, or `None`: the probe is taken at its word, and
    cannot tell a share `undecided` of the images, in 0..1, of all levels alike. `growth`: how many times as many pictures
    are labelled. The intervals are those of the report.
    """
    pi = np.asarray(shares, dtype=np.float64)
    if confusion is None:
        counts = _stratified(np.append((1 - undecided) * pi, undecided), images, rng)
        found = [raw_shares(row[:-1], int(row[-1])) for row in counts]
    else:
        matrix = np.asarray(confusion)
        checked_confusion(matrix if matrix.ndim == 2 else matrix.sum(0))
        counts = _stratified(pi @ _rates(_of(_by_group(matrix), group), matrix.shape[-1]), images, rng)
        grown = [_of(_by_group(one), group) for one in _grown(matrix, growth)]
        found = corrected_by(counts, Errors(*map(np.array, zip(*grown, strict=True))), rng=rng)
    return np.array([s.high - s.low for s in found]) / 2


def _by_group(matrix: Ints) -> Errors:
    """What the counts say of the errors in each concept, `(G, ...)`; of all alike, as those of one."""
    return errors_of_all(matrix[None]) if matrix.ndim == 2 else errors_of_each(matrix)


def _of(errors: Errors, group: int) -> Errors:
    return Errors(*(part[group] for part in errors))


def _grown(matrix: Ints, growth: float) -> Ints:
    """Counts `(AUDITS, K, J)` with `growth` times the pictures of each level: those of `matrix` and more at its `_rates`.

    So the posterior mean of the errors stays what it is. Of counts by concept, `(AUDITS, G, K, J)`, each concept has as
    many of what comes in addition. What is not whole is rounded up in as many audits as it is nearer to the next: at 1½
    pictures, 1 in half of them and 2 in the others.
    """
    if growth < 1:
        expected = growth * matrix
    elif matrix.ndim == 2:
        expected = matrix + (growth - 1) * matrix.sum(1, keepdims=True) * _rates(errors_of_all(matrix), matrix.shape[1])
    else:
        more = (growth - 1) * matrix.sum((0, 2))[:, None] / len(matrix)
        expected = matrix + more * _rates(errors_of_each(matrix), matrix.shape[2])
    place = np.arange(AUDITS).reshape(-1, *[1] * matrix.ndim)
    if matrix.ndim == 3:  # not of all concepts in the same audits
        place = (place + np.arange(len(matrix))[:, None, None]) % AUDITS
    return np.asarray(np.floor(expected + (place + 0.5) / AUDITS), np.int64)


def _rates(errors: Errors, columns: int) -> Floats:
    """What a picture of each level is taken for, `(..., K, J)`: the posterior means of what the labels say."""
    taken_for = errors.taken_for / errors.taken_for.sum(-1, keepdims=True)
    if columns == taken_for.shape[-1]:
        return np.asarray(taken_for)
    chance = (errors.decided / (errors.decided + errors.undecided))[..., None]
    return np.concatenate([taken_for * chance, 1 - chance], -1)


def _stratified(chances: Floats, n: int, rng: np.random.Generator) -> Ints:
    """Multinomial counts `(AUDITS, J)` of n images, from chances `(J,)`: a Latin hypercube (McKay, Beckman and Conover
    1979, Technometrics 21:239) of the quantiles of each column given those before it.

    The same `rng` gives the same quantiles for every n: audits of more images differ from those of fewer by the images
    alone.
    """
    strata = np.tile(np.arange(AUDITS), (len(chances), 1))
    quantiles = (rng.permuted(strata, axis=1) + rng.random(strata.shape)) / AUDITS
    counts, left, rest = np.zeros((AUDITS, len(chances)), np.int64), np.full(AUDITS, n), 1.0
    for j, chance in enumerate(chances[:-1]):
        counts[:, j] = stats.binom.ppf(quantiles[j], left, min(max(chance / rest, 0.0), 1.0) if rest > 0 else 0.0)
        left, rest = left - counts[:, j], rest - chance
    counts[:, -1] = left
    return counts


# -- a study -----------------------------------------------------------------------------------------


def needs(
    study: Study,
    readings: Sequence[Reading],
    half: float,
    labels: int | None = None,
    undecided: Mapping[str, float] | None = None,
) -> list[Need]:
    """What every attribute of a study needs for intervals of ± `half` (in 0..0.5), each at its worst concept and level.

    `labels`: what if as many pictures of each level were labelled, with the errors that are known now; where none are, an
    `InputError`. `undecided`: by attribute, the share of images in 0..1 that the perceiver cannot tell, as far as known.
    """
    if not 0 < half < 0.5:
        raise InputError(f"--precision {100 * half:g}: give points between 0 and 50, such as 3")
    if labels is not None and labels < 1:
        raise InputError(f"--labels {labels}: give a number of labelled pictures per level, from 1 on")
    planned = plan(study, weights="")
    asked = [reading for reading in readings if reading.attribute in study.perceive.attributes]
    unknown = [reading.title for reading in asked if reading.confusion is None]
    if labels is not None and unknown:
        raise InputError(
            f"--labels {labels}: how the probe errs is not known of {', '.join(unknown)}, so neither is what more labels "
            "would do; leave --labels out, or label pictures of a run (typecast labels sample) and plan again"
        )
    found = []
    with tables.doubts(asked, stages.say), progress("simulating", total=len(asked), unit="attributes") as advance:
        for reading in asked:
            found.append(_need(planned, reading, half, labels, (undecided or {}).get(reading.attribute)))
            advance(1, "")
    return found


def _need(planned: Plan, reading: Reading, half: float, labels: int | None, undecided: float | None) -> Need:
    matrix = reading.confusion
    if matrix is not None and reading.by_concept:
        matrix = tables.errors_by_concept(reading, _concepts(planned))
    elif matrix is not None and labels is not None:
        matrix = scaled(matrix, labels)
    cases = _cases(planned, reading, matrix, half)
    seed = int(digest([planned.study.seed, reading.attribute, "precision"])[:16], 16)
    audit = _audit(matrix, seed, undecided or 0.0)
    if matrix is None:
        now = _fewest(GRID, cases, lambda case, n, times: audit(case, n, 0, times), half, _images_at_half(half))
        return Need(
            title=reading.title,
            levels=reading.levels,
            half=half,
            now=now,
            then=None,
            before=now,
            halved=None,
            undecided=undecided,
        )
    fewest = labels if labels is not None and reading.by_concept else _fewest_labels(matrix)
    now, then, before, halved = _corrected(cases, audit, fewest, half)
    return Need(title=reading.title, levels=reading.levels, half=half, now=now, then=then, before=before, halved=halved)


def _concepts(planned: Plan) -> list[str]:
    return [*dict.fromkeys(prompt.concept for prompt in planned.prompts)]


def _fewest_labels(matrix: Ints) -> int:
    """Labelled pictures of the level that has fewest, of all concepts together."""
    return int(matrix.reshape(-1, *matrix.shape[-2:]).sum((0, 2)).min())


Audit = Callable[[Case, int, int, int], Audited]
"""Case, images per prompt, labelled pictures of the level that has fewest, how many times `AUDITS` -> the audits."""
Tries = Callable[[Case, int, int], Audited]
"""The same, where of images and labels one is given."""


def _audit(matrix: Ints | None, seed: int, undecided: float = 0.0) -> Audit:
    """Every call draws the same chance: what differs between two is their case, images and labels."""

    @cache
    def audit(case: Case, images: int, labels: int, times: int) -> Audited:
        growth = 1.0 if matrix is None else labels / _fewest_labels(matrix)
        total = case.templates * images
        widths = np.concatenate(
            [
                simulated_half_widths(
                    case.shares,
                    matrix,
                    total,
                    group=case.group,
                    growth=growth,
                    undecided=undecided,
                    rng=np.random.default_rng([seed, i]),
                )
                for i in range(times)
            ]
        )
        mean, error = widths.mean(0), widths.std(0, ddof=1) / math.sqrt(len(widths))
        level = max(case.asked, key=lambda k: float(mean[k]))
        return Audited(images, labels, float(mean[level]), float(error[level]), case, level)

    return audit


def _said(tries: Tries, case: Case, n: int) -> Audited:
    """The audits of a number that is an answer."""
    found = tries(case, n, 1)
    return found if found.error <= CLOSE * found.half else tries(case, n, AGAIN)


def _images_at_half(half: float) -> float:
    """Images that a perfect classifier needs at a share of one half."""
    return (Z / half) ** 2 / 4


def _corrected(
    cases: Sequence[Case], audit: Audit, labels: int, half: float
) -> tuple[Audited, Audited | None, Audited, Audited]:
    """`now`, `then`, `before` and `halved` of a `Need`. Guesses are from half-width² = a / images + b / labels."""
    more = [n for n in GRID[::-2] if n > labels][::-1] or [labels]

    def by_images(labels: int) -> Tries:
        return lambda case, n, times: audit(case, n, labels, times)

    def by_labels(images: int) -> Tries:
        return lambda case, m, times: audit(case, images, m, times)

    sure = _fewest(GRID, cases, by_images(more[-1]), half, _images_at_half(half))
    if sure.half > half:
        now = _said(by_images(labels), sure.case, MANY)
        return now, sure, now, _halved(now, by_labels(MANY), more)
    twice = GRID[bisect_left(GRID, min(2 * sure.images, MANY))]
    of_images = half**2 * sure.images
    of_labels = max(audit(sure.case, twice, labels, 1).half ** 2 - of_images / twice, 0.0)
    left = half**2 - of_labels
    worst_first = sorted(cases, key=lambda case: case is not sure.case)
    enough = GRID[GRID.index(sure.images) :]
    now = _fewest(enough, worst_first, by_images(labels), half, of_images / left if left > 0 else MANY)
    then, before = None, now
    if now.half > half or now.images > twice:
        guess = labels * of_labels / max(half**2 - of_images / twice, of_labels / MANY)
        then = _fewest(more, worst_first, by_labels(twice), half, guess)
    if now.half > half:
        before = _said(by_images(labels), now.case, twice)
    return now, then, before, _halved(before, by_labels(before.images), more)


def _halved(before: Audited, tries: Tries, more: Sequence[int]) -> Audited:
    """The fewest of `more` labels that halve an interval, or the most if none does."""
    most, half = _said(tries, before.case, more[-1]), before.half / 2
    if most.half > half:
        return most
    # What is left with the most labels is taken to be the images' part.
    of_labels = before.half**2 - most.half**2
    guess = before.labels * of_labels / max(half**2 - most.half**2, of_labels / MANY)
    return _fewest(more, [before.case], tries, half, guess)


def _fewest(grid: Sequence[int], cases: Sequence[Case], tries: Tries, half: float, guess: float) -> Audited:
    """The first of the grid that is enough for all cases, with the widest of those that were tried there; or its last,
    with the first case for which that isn't enough. `tries` are taken to cost nothing a second time."""
    start, widest = 0, None
    for case in cases:
        first = start + _first(grid[start:], case, tries, half, guess)
        while first < len(grid) and _said(tries, case, grid[first]).half > half:
            first += 1
        if first == len(grid):
            return _said(tries, case, grid[-1])
        said = _said(tries, case, grid[first])
        if widest is None or first > start or said.half > widest.half:
            widest = said
        start, guess = first, grid[first]
    assert widest is not None
    return widest


def _first(grid: Sequence[int], case: Case, tries: Tries, half: float, guess: float) -> int:
    """Where in the grid one case's interval begins to be narrow enough; its length if nowhere.

    From the guess in steps of 1, 2, 4, ... to either side, and then by halves (Bentley and Yao 1976, Information
    Processing Letters 5:82).
    """
    low, high, step = -1, len(grid), 1  # grid[:low + 1] are too few, grid[high:] enough
    at = min(bisect_left(grid, guess), high - 1)
    while high - low > 1:
        if tries(case, grid[at], 1).half <= half:
            high, at = at, max(at - step, low + 1)
        else:
            low, at = at, min(at + step, high - 1)
        step *= 2
        if low >= 0 and high < len(grid):
            at = (low + high) // 2
    return high


def _cases(planned: Plan, reading: Reading, matrix: Ints | None, half: float) -> list[Case]:
    """The few that may have the widest interval: those that are worst by `variances` with these labels and with ten times
    as many, and, as that is wrong near 0, the share nearest to ½ and the smallest one."""
    templates = _templates(planned)
    groups = {concept: place for place, concept in enumerate(_concepts(planned))}
    distinct: dict[tuple[bytes, tuple[int, ...], int, int], Case] = {}
    for concept, reference, shares, asked, some in _shares(planned, reading):
        case = Case(
            concept=concept,
            reference=reference,
            shares=shares,
            asked=asked,
            templates=templates[concept],
            group=groups[concept] if matrix is not None and matrix.ndim == 3 else 0,
            partial=some,
        )
        distinct.setdefault((shares.tobytes(), tuple(asked), case.templates, case.group), case)

    def worst(confusion: Ints) -> Case:
        wanted, known = (half / Z) ** 2, _by_group(confusion)

        def short(case: Case) -> tuple[float, float]:
            per_image, floor = (v[list(case.asked)] for v in variances(case.shares, _of(known, case.group)))
            return max(float((floor - wanted).max()), 0.0), float((per_image / case.templates + floor).max())

        return max(distinct.values(), key=short)

    believed = _believed(len(reading.levels)) if matrix is None else matrix
    middle = min(distinct.values(), key=lambda c: (float(np.abs(c.shares[list(c.asked)] - 0.5).min()), c.templates))
    smallest = min(distinct.values(), key=lambda c: (float(c.shares[list(c.asked)].min()), c.templates))
    found: list[Case] = []
    for case in (worst(believed), worst(10 * believed), middle, smallest):
        if not any(case is other for other in found):
            found.append(case)
    return found


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


def _shares(planned: Plan, reading: Reading) -> Iterator[tuple[str, str, Floats, Sequence[int], bool]]:
    """Concept, reference, true shares to assume, the levels to ask about, and whether a reference gives some of the shares.

    Without a reference row that gives all, each level in turn at one half, where a share varies most, and the rest alike.
    """
    levels = len(reading.levels)
    for concept in _concepts(planned):
        some = False
        for against in tables.references(planned):
            found = against.of(concept, reading)
            shares = whole(found.shares) if isinstance(found, Distribution) else None
            if shares is not None:
                yield concept, against.source(reading), shares, range(levels), False
                break
            some = some or isinstance(found, Distribution)
        else:
            for k in range(levels):
                yield concept, "", np.where(np.arange(levels) == k, 0.5, 0.5 / (levels - 1)), [k], some


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
    table = Table(
        title=f"for 95% intervals of {points}, at a concept and level that decide",
        title_justify="left",
        box=SIMPLE,
    )
    headings = ("perceived", "concept", "level", "share", "fewest labels", "images per prompt", "simulated")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in headings[:3] else "right")
    for need in found:
        now = need.now
        table.add_row(
            _name(need),
            now.case.concept,
            need.levels[now.level],
            f"{100 * now.share:.0f}%" + _lacking(now.case),
            f"{now.labels:,}" if now.labels else "-",
            "no number" if need.images is None else f"{need.images:,}",
            f"±{100 * now.half:.1f}" + ("" if need.images else f" with {MANY:,}"),
        )
    yield table
    for need in found:
        yield _sentence(need, points)
    yield _cost(study, found, points, rate, source)


def _name(need: Need) -> str:
    return need.title.removeprefix("perceived ")


def _lacking(case: Case) -> str:
    return "" if case.reference else " (reference not whole)" if case.partial else " (no reference)"


def _sentence(need: Need, points: str) -> str:
    if need.halved is None:
        return _at_its_word(need, points)
    text = f"{need.title}:"
    if need.images is None:
        text += f" no number of images up to {MANY:,} per prompt gives {points} with these labels:"
        text += f" simulated, those give {_simulated(need, need.now)}."
    if need.then is not None:
        text += _more_labels(need, need.then)
    return text + _halving(need, need.before, need.halved)


def _at_its_word(need: Need, points: str) -> str:
    text = f"{need.title}: no labelled pictures of this image domain are known, so the probe is taken at its word, "
    if need.undecided is None:
        return text + "and for images that are all decided: each 1% that it cannot tell adds up to half a point."
    text += f"and the {100 * need.undecided:.1f}% of its run's images that it cannot tell may be of any level: "
    text += f"{50 * need.undecided:.1f} of the points are theirs at any number of images."
    if need.images is None:
        text += f" No number of images up to {MANY:,} per prompt gives {points}:"
        text += f" simulated, those give {_simulated(need, need.now)}."
        text += " Labelled pictures of the run (typecast labels sample) would tell how it errs, and narrow that."
    return text


def _more_labels(need: Need, then: Audited) -> str:
    if need.images_then is None:
        return f" Nor with {then.labels:,} labelled pictures: simulated, {_simulated(need, then)}."
    return (
        f" With {then.labels:,} labelled pictures of the level that has {need.now.labels:,}, and the others grown alike, "
        f"{then.images:,} images per prompt do: simulated, {_simulated(need, then)}."
    )


def _simulated(need: Need, found: Audited) -> str:
    share = f"{100 * found.share:.0f}%"
    return f"±{100 * found.half:.1f} ({found.case.concept}, {need.levels[found.level]}, {share})"


def _halving(need: Need, before: Audited, halved: Audited) -> str:
    interval = f"interval that {before.images:,} images give with these labels, {_simulated(need, before)}"
    if halved.half > before.half / 2:
        return (
            f" No number of labels up to {halved.labels:,} halves the {interval}: "
            f"simulated, that many leave ±{100 * halved.half:.1f}."
        )
    return f" {halved.labels:,} labels halve the {interval}: simulated, to ±{100 * halved.half:.1f}."


def _cost(study: Study, found: Sequence[Need], points: str, rate: float | None, source: str) -> str:
    """The hours: with the labels that there are, and with those that are advised."""
    text = _hours(study, found, [need.images for need in found], points, rate, source)
    if any(need.then is not None and need.images_then is not None for need in found):
        then = _hours(study, found, [need.images_then for need in found], points, rate, source)
        text += f" With the labelled pictures named above, {then}"
    return text


def _hours(
    study: Study, found: Sequence[Need], images: Sequence[int | None], points: str, rate: float | None, source: str
) -> str:
    some = [n for n in images if n is not None]
    if not some:
        return f"No number of images gives {points}{' with these labels' if any(n.now.labels for n in found) else ''}."
    helpless = [_name(need) for need, n in zip(found, images, strict=True) if n is None]
    without = f" (not for {', '.join(helpless)}: there no number gives {points})" if helpless else ""
    prompts = len(study.prompts()) * len(study.arms)
    total = prompts * max(some)
    text = f"{max(some):,} images for each of {prompts:,} prompts and arms are {total:,} images{without}"
    if rate is None:
        return f"{text}; give --rate, in images per second, for the hours that is, or finish a run first."
    return f"{text}: {total / rate / 3600:,.2f} hours on one device at {rate:.3g} images per second ({source})."
