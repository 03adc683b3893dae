"""Arms against `none` -> `effects.csv` and `obedience-<arm>.csv`, and the answer to: did it help?"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special, stats
from scipy.linalg import block_diag

from pipeline import amplification, changes, tables
from pipeline.changes import Side
from pipeline.distances import DRAWS, by_chance, nearer, nearest_and_farthest, summing_to_one, thinned
from pipeline.estimates import Floats, Ints, Shares, wilson
from pipeline.mitigations import (
    ALL_CONCEPTS,
    DROPPED,
    LEFT_ALONE,
    MEASURED_AT,
    OBEDIENCE,
    Asking,
    Goal,
    Guardrail,
    Target,
    stratified_factor,
)
from pipeline.pairs import Paired
from pipeline.plan import Plan
from pipeline.progress import progress, side_by_side
from pipeline.store import Run
from pipeline.tables import KEY, Key, Reading, Tally
from pipeline.types import Arm, Estimate, Shard, digest

BASELINE = "none"
SENT = ("prompt_sent", "negative_prompt", "drawn", "status", "seconds", "tokens", "tokens_cut")
"""Columns of an image that cost and fidelity are made of."""
TINY = 1e-9
"""In place of a variance or a difference of 0."""
BROKEN = 0.05
"""An arm broke the concept if it is surely recognised in so many fewer images."""


@dataclass(kw_only=True)
class Images:
    """What the images of an arm add up to."""

    n: int = 0
    made: int = 0
    drawn: Counter[str] = field(default_factory=Counter)
    """Those of neutral prompts, by what was drawn for them, or why their prompt was left alone."""
    asked: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By concept, what was drawn for them and what was decided, in an arm that asks for a level."""
    words: int = 0
    """In what was sent, beyond the prompt."""
    tokens: int = 0
    counted: int = 0
    """Images whose tokens are known."""
    cut_off: int = 0
    seconds: float = 0.0
    scored: int = 0
    """Images of neutral prompts that were held against the words of the study's concepts."""
    recognised: int = 0
    score: float = 0.0
    """Sum of the cosines with the words of their own concepts."""
    pairs: changes.Together = field(default_factory=Counter)
    """Beside the baseline's of the same place."""
    rises: Floats = field(default_factory=lambda: np.zeros(3))
    """Of the cosines of such pairs: how many there are, the sum of the changes, and that of their squares."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A run as far as arms are compared in it."""

    run: Run
    planned: Plan
    readings: Sequence[Reading]
    counts: Tally
    shares: dict[str, dict[Key, Shares]]
    arms: dict[str, Images]
    """Of those arms that have images."""

    def treated(self) -> list[Arm]:
        """The arms that are held against the baseline; none where that has no images."""
        drawn = [arm for arm in self.planned.arms if arm.name in self.arms]
        return [arm for arm in drawn if arm.name != BASELINE] if BASELINE in self.arms else []

    def keys(self, arm: str) -> list[Key]:
        """Those of one arm that have a share."""
        return [key for key in tables.estimated(self.planned) if key[4] == arm]

    def errors(self, reading: Reading, arm: str) -> tuple[Reading, Reading]:
        """An attribute with its errors in the baseline and in an arm, as the shares of each are corrected: its own where
        people labelled enough of it (`tables.by_arm`), else those by the labels of all arms together."""
        keyed = tables.keys(self.planned)
        found = tables.errors_in(reading, self.counts, keyed)
        return found[BASELINE], found[arm]

    def chance(self, *what: str) -> np.random.Generator:
        """Of the study's seed and what it is for, so that the same run gives the same numbers."""
        return np.random.default_rng(int(digest([self.planned.study.seed, *what])[:16], 16))


def _before(key: Key) -> Key:
    return (*key[:4], BASELINE)


# -- effects.csv -------------------------------------------------------------------------------------


def effects(read: Read) -> list[dict[str, Any]]:
    """The rows of `effects.csv`: per arm and attribute every key and level, then the mean over the neutral prompts.

    One test per prompt, Holm within an arm and attribute. The mean is one more test, not adjusted. Of attributes alone:
    pairs of combinations are too many for the images that there are of each.
    """

    def of(arm: str, reading: Reading) -> list[dict[str, Any]]:
        keys, chance = read.keys(arm), read.chance(arm, reading.attribute, "effects")
        seen = changes.as_pairs(read.arms[arm].pairs, [reading], keys, read.counts.parts)
        pairs, shares = {key: both for (key, _), both in seen.items()}, read.shares[reading.attribute]
        return moved(read.errors(reading, arm), keys, BASELINE, read.counts, shares, pairs, chance)

    with side_by_side("comparing arms", "attributes") as submit:
        started = [submit(of, arm.name, r) for arm in read.treated() for r in read.readings if not r.of]
    return [row for ended in started for row in ended.result()]


def moved(
    readings: tuple[Reading, Reading],
    keys: Sequence[Key],
    baseline: str,
    counts: Tally,
    shares: dict[Key, Shares],
    pairs: changes.Pairs,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The rows of one arm, whose `keys` these are, and one attribute: on pairs where there are any, else unpaired.

    `readings` are the attribute with its errors in the baseline and in the arm.
    """
    reading, theirs = readings
    was = {key: (*key[:4], baseline) for key in keys}
    counted = {key: counts.count(key, reading) for key in (*keys, *was.values())}
    first = Side(reading=reading, shares={k: shares[was[k]] for k in keys}, counts={k: counted[was[k]] for k in keys})
    other = Side(reading=theirs, shares={k: shares[k] for k in keys}, counts={k: counted[k] for k in keys})
    rows = changes.rows(first, other, keys, pairs, rng)
    for entry in changes.pooled(first, other, tables.concepts(keys), pairs, rng):
        rows.append(
            dict.fromkeys(KEY, "")
            | {"concept": ALL_CONCEPTS, "arm": keys[0][4], "attribute": reading.attribute, "level": entry["level"]}
            | changes.cells("baseline_share", "baseline_", Estimate(**entry["baseline_share"]))
            | changes.cells("share", "", Estimate(**entry["share"]))
            | changes.cells("change", "change_", Estimate(**entry["change"]))
            | changes.cells("log_odds_change", "log_odds_", Estimate(**entry["log_odds_change"]))
            | {
                "method": f"mean of {entry['n_concepts']} concepts; {entry['change']['method']}",
                "pairs": entry["n"] if entry["paired"] else 0,
                "variance_factor": entry["variance_factor"] if entry["paired"] else math.nan,
                "erased_by": entry["erased_by"],
                **changes.cells("measured_difference", "measured_", Estimate(**entry["measured_difference"])),
                "p": entry["p"],
            }
        )
    told = "" if reading.confusion is None else f"; {changes.said_of_errors(reading, theirs, 'arms')}"
    return [{"baseline": baseline, **row, "method": f"{row['method']}{told}"} for row in rows]


# -- obedience.csv -----------------------------------------------------------------------------------


def obedience(read: Read) -> list[dict[str, Any]]:
    """The rows of `obedience-<arm>.csv`, of all arms: of the images that were asked to show a level, how many show which."""
    rows: list[dict[str, Any]] = []
    drawn_with = read.planned.study.model.path, f"{read.planned.study.draw.guidance_scale:g}"
    for arm in read.planned.arms:
        reading = next((r for r in read.readings if isinstance(arm, Asking) and r.attribute == arm.attribute), None)
        if reading is None or arm.name not in read.arms:
            continue
        rng = read.chance(arm.name, reading.attribute, "obedience")
        reading = read.errors(reading, arm.name)[1]
        seen = read.arms[arm.name].asked
        concepts = list(dict.fromkeys(key[1] for key in read.keys(arm.name)))
        ways = np.vstack([np.ones(len(concepts)), np.eye(len(concepts))])
        found = {}
        for asked in reading.levels:
            counts = np.array([[seen[concept, asked, said] for said in reading.columns] for concept in concepts])
            shares = tables.means(counts, concepts, ways, reading, rng)
            for concept, share, n in zip([ALL_CONCEPTS, *concepts], shares, ways @ counts.sum(1), strict=True):
                found[concept, asked] = share, int(n)
        for concept in [ALL_CONCEPTS, *concepts]:
            for asked in reading.levels:
                share, n = found[concept, asked]
                for k, level in enumerate(reading.levels) if not np.isnan(share.value).any() else ():
                    at = (arm.name, concept, reading.attribute, asked, level)
                    cells = (*at, share.value[k], share.low[k], share.high[k], n, *drawn_with)
                    rows.append(dict(zip((*OBEDIENCE, *MEASURED_AT), cells, strict=True)))
    return rows


# -- did it help? ------------------------------------------------------------------------------------


def helped(read: Read, followed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry per arm and declared target: distance, over-correction, diversity, fidelity, cost, and a verdict.

    An arm with a target of its own is held against that alone, another against every target that the study declares, or
    against parity in the first attribute where it declares none. `followed` are the rows of `obedience`.
    """
    kwh = _kwh_per_second(read)
    goals = {arm.name: arm.goal for arm in read.planned.arms if isinstance(arm, Target | Guardrail) and arm.goal}
    declared = list(dict.fromkeys(goals.values()))
    declared = declared or [Goal(read.readings[0].attribute, "uniform")]

    def of(arm: Arm) -> list[dict[str, Any]]:
        before, after = read.arms[BASELINE], read.arms[arm.name]
        shares = _on_pairs(read, arm.name)
        pairs = [(_before(key), key) for key in tables.concepts(read.keys(arm.name))]
        shared = {
            "arm": arm.name,
            "baseline": BASELINE,
            "paired": True,
            "left_alone": _left_alone(after.drawn),
            "diversity": {r.attribute: entropy(shares[r.attribute], pairs) for r in read.readings},
            "fidelity": _fidelity(before, after, len({prompt.concept for prompt in read.planned.prompts})),
            "cost": _cost(before, after, kwh),
        }
        entries = []
        for goal in [goals[arm.name]] if arm.name in goals else declared:
            reading = next((r for r in read.readings if r.attribute == goal.attribute), None)
            entry = shared | {"attribute": goal.attribute, "target": goal.title}
            if reading:
                sides, chance = read.errors(reading, arm.name), read.chance(arm.name, goal.title, "target")
                entry |= towards(goal, shares[goal.attribute], pairs, sides, read.counts, chance)
            if isinstance(arm, Target):
                entry["allocation"] = _allocation(arm, tables.concepts(read.keys(arm.name)), followed)
            entries.append(entry | {"verdict": verdict(entry)})
        return entries

    with side_by_side("did it help", "arms") as submit:
        started = [submit(of, arm) for arm in read.treated()]
    return [entry for ended in started for entry in ended.result()]


def _on_pairs(read: Read, arm: str) -> dict[str, dict[Key, Shares]]:
    """The shares of every attribute, those of two levels as the pairs of an arm with the baseline hang together.

    Else the sides are as if they were independent. Of more levels, since to put them in order would take all at once; and
    where each side has errors of its own, since what is not known of them is common to all concepts and does not cancel.
    """
    found = dict(read.shares)
    keys = tables.concepts(read.keys(arm))
    two = [reading for reading in read.readings if len(reading.levels) == 2 and not reading.of]
    counted = changes.as_pairs(read.arms[arm].pairs, two, keys, read.counts.parts)
    for reading in two:
        sides, chance = read.errors(reading, arm), read.chance(arm, reading.attribute, "helped")
        shares = read.shares[reading.attribute]
        if sides[0] is sides[1]:
            mine = {key: table for (key, name), (table, _) in counted.items() if name == reading.attribute}
            shares = shares | coupled(shares, changes.paired(mine, *sides, chance), chance)
        found[reading.attribute] = shares | of_one_matrix(shares, [(_before(key), key) for key in keys], sides, chance)
    return found


def coupled(shares: Mapping[Key, Shares], moved: Mapping[Key, Paired], rng: np.random.Generator) -> dict[Key, Shares]:
    """Shares of two levels by the key of the arm and of the baseline, whose draws go together as those of their pairs do.

    Each side keeps its own posterior, and takes the order of its draws from the joint posterior of the pairs, in which what
    the seeds have in common cancels, and the errors of one matrix: Iman and Conover (1982), Communications in Statistics B
    11:311. Where a side has images without a partner, its shares hang together less, by n / √(n₁ n₂) of n pairs and of the
    images on each side: noise of its own is mixed in.
    """
    found = {}
    for key, both in moved.items():
        sizes = [_decided(shares[place]) for place in (_before(key), key)]
        together = min((both.n + both.missing) / max(math.sqrt(math.prod(sizes)), 1), 1)
        for place, side in ((_before(key), both.first), (key, both.second)):
            own = shares[place]
            if own.joint is not None and side.draws is not None:
                rank = (side.draws[:, 0].argsort().argsort() + 0.5) / len(side.draws)
                if together < 1:
                    noise = rng.standard_normal(len(rank))
                    mixed = math.sqrt(together) * special.ndtri(rank) + math.sqrt(1 - together) * noise
                    rank = (mixed.argsort().argsort() + 0.5) / len(rank)
                found[place] = _in_order(own, rank)
    return found


def _decided(share: Shares) -> float:
    """Images behind the draws of a share: without the undecided where these are in none of them."""
    return share.n if share.undecided is None else share.n * (1 - float(share.undecided.mean()))


def of_one_matrix(
    shares: Mapping[Key, Shares],
    pairs: Sequence[tuple[Key, Key]],
    sides: tuple[Reading, Reading],
    rng: np.random.Generator,
) -> dict[Key, Shares]:
    """Shares of two levels by the keys without and with an arm, whose draws go together over the concepts as far as they
    rest on the same matrix: what is not known of it moves all of them at once, and does not average out.

    Each share keeps its posterior, and each pair its covariance. Of that the part of an error rate is, by the delta method
    of (q - f) / (t - f) for a share read right at rate t, wrong at rate f, the same normal number in all concepts; the
    order of the draws is that of the sums (Iman and Conover 1982). Nothing where errors are by concept, or none are known.
    """
    known = [side.confusion for side in sides if side.confusion is not None and not side.by_concept]
    if len(known) < len(sides):
        return {}
    found: dict[Key, Shares] = {}
    alike = sides[0] is sides[1]
    common = rng.standard_normal((DRAWS, 2 if alike else 4))
    for pair in pairs:
        both = [shares[key] for key in pair]
        if any(one.joint is None for one in both):
            continue
        draws = thinned(both)[..., 0].T
        per_error = [_moves(float(drawn.mean()), matrix) for drawn, matrix in zip(draws, known, strict=True)]
        moves = np.array(per_error) if alike else block_diag(*per_error)  # of each side, for each rate
        covariance = np.cov(draws) + np.eye(2) * TINY
        much = float(np.linalg.eigvals(np.linalg.solve(covariance, moves @ moves.T)).real.max())
        moves = moves / math.sqrt(max(much, 1.0))  # near an end a share varies less than it would elsewhere
        values, vectors = np.linalg.eigh(covariance - moves @ moves.T)
        own = rng.standard_normal((DRAWS, 2)) * np.sqrt(np.maximum(values, 0)) @ vectors.T
        rank = ((common @ moves.T + own).argsort(0).argsort(0) + 0.5) / DRAWS
        found |= {key: _in_order(one, order) for key, one, order in zip(pair, both, rank.T, strict=True)}
    return found


def _in_order(share: Shares, rank: Floats) -> Shares:
    """A share of two levels whose draws, which it has, are in the order of `rank` `(S,)` in 0..1."""
    assert share.joint is not None
    first = np.quantile(share.joint[:, 0], rank)
    return replace(share, joint=np.column_stack([first, 1 - first]))


def _moves(share: float, confusion: Ints) -> list[float]:
    """How far a share (q - f) / (t - f) moves for a standard error of t, the rate at which the first of two levels is read
    where it is right, and of f, where it is wrong, from the counts `(2, 3)` behind them."""
    right, wrong = (stats.beta(first + 0.5, other + 0.5) for first, other, *_ in confusion.tolist())
    gap = right.mean() - wrong.mean()
    gap = math.copysign(max(abs(gap), TINY), gap)
    return [-share * right.std() / gap, -(1 - share) * wrong.std() / gap]


def verdict(entry: dict[str, Any]) -> str:
    """In this order: broke the concept, not tested, over-corrected, closer, further, no evidence.

    `broke the concept`: it is surely recognised in `BROKEN` fewer images. `over-corrected`: the shares are surely past
    the target on average, or surely past it for some concept without being closer on the whole. `not tested`: no prompt
    without identity terms has a share on both sides and a target.
    """
    recognised = entry["fidelity"].get("recognised_change") or {}
    change, excess = entry.get("distance_change"), entry.get("excess")
    if recognised and recognised["high"] < -BROKEN:
        return "broke the concept"
    if change is None or excess is None:
        return "not tested"
    if excess["low"] > 0 or (entry["n_past"] and change["high"] >= 0):
        return "over-corrected"
    if change["high"] < 0:
        return "closer"
    return "further" if change["low"] > 0 else "no evidence"


def in_words(entry: Mapping[str, Any]) -> str:
    """The verdict, with the concepts that are surely past the target though the arm is not over-corrected on the whole."""
    past, said = entry.get("n_past", 0), entry["verdict"]
    return (
        f"{said}, over-corrected in {past} of {entry['n_concepts']}" if past and said != "over-corrected" else str(said)
    )


def _left_alone(drawn: Counter[str]) -> dict[str, int]:
    """Images of neutral prompts that the arm did not touch, by reason; and those whose rewrite dropped the concept."""
    told = {why: n for why, n in drawn.items() if why.startswith((LEFT_ALONE, DROPPED))}
    return {why.removeprefix(LEFT_ALONE): n for why, n in told.items()}


def towards(
    goal: Goal,
    shares: Mapping[Key, Shares],
    pairs: Sequence[tuple[Key, Key]],
    sides: tuple[Reading, Reading],
    counts: Tally,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """`distances.nearer` over the neutral prompts of which both sides and the target are known, each distance beside what a
    model that draws exactly the target, every image for itself, would show of as many images; nothing where none is known.

    `pairs` are a concept's keys without and with the arm, `sides` the attribute with its errors in both.
    """
    known = []
    for pair in pairs:
        target, both = goal.shares(pair[1][1]), [shares[key] for key in pair]
        if not isinstance(target, str) and all(side.joint is not None for side in both):
            known.append((pair, both, target))
    if not known:
        return {}
    concepts, targets = [pair[1][1] for pair, _, _ in known], np.array([target for *_, target in known])
    found = nearer(concepts, [both[0] for _, both, _ in known], [both[1] for _, both, _ in known], targets)
    change = Estimate(**found["distance_change"])
    found["distance_change"]["erased_by"] = changes.erased_by(change, sides[1]) if len(sides[1].levels) == 2 else None
    found["distance_change"]["measured_difference"] = changes.measured(*sides)._asdict()
    for side, when in enumerate(("before", "after")):
        sizes = np.array([counts.count(pair[side], sides[side])[:-1].sum() for pair, _, _ in known])
        seen, at = by_chance(sizes, sides[side], concepts, targets, np.zeros_like(sizes), rng)
        found[f"distance_{when}"]["noise_floor"] = float(np.abs(seen - at).sum(-1).mean() / 2)
    return found | {"errors": changes.said_of_errors(*sides, "arms")}


def _basic(value: float, draws: Floats, n: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(2 * value - float(draws.mean()), 2 * value - float(high), 2 * value - float(low), n, "basic")


def entropy(shares: Mapping[Key, Shares], pairs: Sequence[tuple[Key, Key]]) -> dict[str, Any] | None:
    """Mean change of Shannon's entropy within the concepts, in parts of the largest there could be, log K; the undecided as in
    `nearer`."""
    both = [(shares[was], shares[key]) for was, key in pairs]
    both = [pair for pair in both if all(side.joint is not None for side in pair)]
    if not both:
        return None
    values, drawn, ends = [], [], []
    for side in zip(*both, strict=True):
        values.append(np.mean([_evenness(summing_to_one(one.value)) for one in side]))
        drawn.append(_evenness(thinned(side)).mean(1))
        even = np.full(len(side[0].value), 1 / len(side[0].value))  # nearest to it there is most entropy
        ends.append([(_evenness(value).mean(), _evenness(d).mean(1)) for value, d in nearest_and_farthest(side, even)])
    found = _basic(float(values[1] - values[0]), drawn[1] - drawn[0], len(both))
    (most_before, least_before), (most, least) = ends
    low = _basic(float(least[0] - most_before[0]), least[1] - most_before[1], 0).low
    high = _basic(float(most[0] - least_before[0]), most[1] - least_before[1], 0).high
    return found._replace(low=low, high=high)._asdict()


def _evenness(shares: Floats) -> Floats:
    p = np.clip(shares, 1e-12, 1)
    return np.asarray(-(p * np.log(p)).sum(-1) / math.log(shares.shape[-1]))


def _allocation(arm: Target, keys: Sequence[Key], followed: Sequence[dict[str, Any]]) -> float | None:
    """Variance of a share over that under independent draws, at the measured obedience: the mean over concepts."""
    level = arm.levels[0]
    obeyed = {
        r["asked"]: r["share"]
        for r in followed
        if (r["arm"], r["concept"], r["level"]) == (arm.name, ALL_CONCEPTS, level)
    }
    weights = [arm.weights(key[1]) for key in keys]
    if len(obeyed) < len(arm.levels):
        return None
    factors = [stratified_factor(w, [obeyed[a] for a in arm.levels]) for w in weights if not isinstance(w, str)]
    return float(np.nanmean(factors)) if factors and not np.isnan(factors).all() else None


# -- fidelity and cost -------------------------------------------------------------------------------


def _fidelity(before: Images, after: Images, concepts: int) -> dict[str, Any]:
    """Is the concept that was asked for still there? Recognised among the study's, and CLIP's cosine with its words.

    The score's change is a mean over pairs with a normal interval. With one concept there is nothing to mistake it for.
    """
    if not before.scored or not after.scored:
        return {
            "why_unknown": "no image of a prompt without identity terms was scored against its concept on both sides"
        }
    found: dict[str, Any] = {}
    if concepts > 1:
        shares = [wilson(side.recognised, side.scored) for side in (before, after)]
        found["recognised"] = [share._asdict() for share in shares]
        found["recognised_change"] = amplification.difference(shares[1], shares[0])._asdict()
    n, total, squares = after.rises.tolist()
    if n > 1:
        mean = total / n
        error = 1.96 * math.sqrt(max(squares - n * mean**2, 0.0) / (n - 1) / n)
        found["clip_score"] = [side.score / side.scored for side in (before, after)]
        found["clip_score_change"] = Estimate(mean, mean - error, mean + error, int(n), "normal, of pairs")._asdict()
    return found


def _cost(before: Images, after: Images, kwh: float) -> dict[str, Any]:
    """What is sent beyond the prompt, images that were not made, and time and energy beside the baseline's.

    Tokens are the drawing model's own, and not known where it has no tokenizer (`fake`) or the run is from before they
    were counted; words always are. `cut_off` are images whose text was longer than what the model reads.
    `kwh` is what a second of drawing used on average: the run's energy is divided among the arms by their seconds.
    """
    counted = before.counted and after.counted
    seconds = [side.seconds / side.n for side in (before, after)]
    lost = [wilson(side.n - side.made, side.n) for side in (before, after)]
    return {
        "words": after.words / after.n,
        "tokens": after.tokens / after.counted - before.tokens / before.counted if counted else None,
        "cut_off": after.cut_off,
        "not_made": [share._asdict() for share in lost],
        "not_made_change": amplification.difference(lost[1], lost[0])._asdict(),
        "seconds": seconds,
        "kwh_per_1000_images": [1000 * kwh * each for each in seconds],
    }


def _kwh_per_second(read: Read) -> float:
    """What the run used, over the seconds that all its images took to draw; NaN where it was not metered."""
    file = read.run.folder / "energy.json"
    seconds = math.fsum(images.seconds for images in read.arms.values())
    kwh = json.loads(file.read_text(encoding="utf-8"))["kwh"] if file.is_file() else None
    return math.nan if kwh is None or not seconds else float(kwh) / seconds


# -- adding up ---------------------------------------------------------------------------------------


def added_up(
    run: Run,
    planned: Plan,
    perceiver: str,
    readings: Sequence[Reading],
    nobody: Mapping[str, set[str]],
) -> dict[str, Images]:
    """What the images of each arm add up to, every shard read once and those of one place in memory at a time; `nobody`
    as in `tables.decided`.

    All arms are cut alike, so the images of a row are of one place and one seed. Of attributes alone, as `effects`;
    and of nothing where the baseline is all there is.
    """
    if [arm.name for arm in planned.arms] == [BASELINE]:
        return {}
    words = _words(run, perceiver)
    readings = [reading for reading in readings if not reading.of]
    places: dict[tuple[int, int], list[Shard]] = {}
    for shard in planned.shards():
        if run.images(shard).exists():
            places.setdefault((shard.start, shard.stop), []).append(shard)
    there = {shard.arm for shards in places.values() for shard in shards}
    found: dict[str, Images] = {}
    with progress("adding up the arms", total=len(places), unit="places") as advance:
        for shards in places.values():
            looked = {shard.arm: _Shard(run, perceiver, shard, readings, words, nobody) for shard in shards}
            for arm in (arm for arm in planned.arms if arm.name in looked):
                images = found.setdefault(arm.name, Images())
                looked[arm.name].add_to(images, arm)
                if arm.name != BASELINE:
                    looked[arm.name].add_pairs(images, looked.get(BASELINE), readings)
            for name in (arm.name for arm in planned.arms if arm.name in there - looked.keys() and BASELINE in looked):
                looked[BASELINE].add_lonely(found.setdefault(name, Images()), name, readings)
            advance(1, "")
    return found


class _Shard:
    """The images of a shard: a row each, and of those of neutral prompts the cosine with the words of their own concept
    and whether these are the nearest."""

    def __init__(
        self,
        run: Run,
        perceiver: str,
        shard: Shard,
        readings: Sequence[Reading],
        words: Mapping[str, Floats],
        nobody: Mapping[str, set[str]],
    ) -> None:
        self.table = tables.decided(run, perceiver, shard, readings, (*changes.PLACE, *SENT), nobody)
        self.scores = np.full(len(self.table), math.nan)
        self.recognised = np.zeros(len(self.table), bool)
        if not words:
            return
        seen = run.read_perceptions(perceiver, shard, ["embedding"])["embedding"]
        wanted = pc.and_(pc.is_valid(seen), pc.equal(self.table["identity"], ""))
        at = np.flatnonzero(wanted.to_numpy())
        if not len(at):
            return
        flat = pc.list_flatten(seen.filter(wanted)).to_numpy().astype(np.float64)
        cosines = flat.reshape(len(at), -1) @ np.array(list(words.values())).T
        place = {name: number for number, name in enumerate(words)}
        own = np.array([place[concept] for concept in self.table["concept"].filter(wanted).to_pylist()])
        self.scores[at] = cosines[np.arange(len(at)), own]
        self.recognised[at] = cosines.argmax(1) == own

    def add_to(self, images: Images, arm: Arm) -> None:
        """What is to be known of an arm by itself."""
        table = self.table
        images.n += len(table)
        images.made += table["status"].to_pylist().count("made")
        images.drawn.update(filter(None, table.filter(pc.equal(table["identity"], ""))["drawn"].to_pylist()))
        sent = zip(*(table[name].to_pylist() for name in ("prompt", "prompt_sent", "negative_prompt")), strict=True)
        images.words += sum(len(text.split()) + len(no.split()) - len(prompt.split()) for prompt, text, no in sent)
        images.counted += len(table) - table["tokens"].null_count
        images.tokens += pc.sum(table["tokens"]).as_py() or 0
        images.cut_off += pc.sum(pc.greater(table["tokens_cut"], 0)).as_py() or 0
        images.seconds += float(table["seconds"].to_numpy().sum())
        scored = ~np.isnan(self.scores)
        images.scored += int(scored.sum())
        images.score += float(self.scores[scored].sum())
        images.recognised += int(self.recognised.sum())
        if isinstance(arm, Asking) and arm.attribute in table.column_names:
            columns = ("concept", "drawn", arm.attribute)
            images.asked.update(zip(*(table[name].to_pylist() for name in columns), strict=True))

    def add_pairs(self, images: Images, before: _Shard | None, readings: Sequence[Reading]) -> None:
        """What is to be known of an arm beside the baseline, whose images are of the same places, if they are drawn."""
        table = self.table
        for reading in readings:
            theirs = before.table[reading.attribute] if before else pa.nulls(len(table), pa.string())
            table = table.append_column(reading.attribute + changes.OTHER, theirs)
        for (key, attribute, after, was), n in changes.seen_together(table, readings).items():
            images.pairs[key, attribute, was, after] += n
        if before:
            rises = self.scores - before.scores
            rises = rises[~np.isnan(rises)]
            images.rises += [len(rises), rises.sum(), (rises**2).sum()]

    def add_lonely(self, images: Images, arm: str, readings: Sequence[Reading]) -> None:
        """Images of the baseline of which none in an arm is drawn."""
        for reading in readings:
            for row in self.table.group_by([*KEY, reading.attribute]).aggregate([([], "count_all")]).to_pylist():
                key = (*(row[name] for name in KEY[:4]), arm)
                images.pairs[key, reading.attribute, row[reading.attribute], None] += row["count_all"]


def _words(run: Run, perceiver: str) -> dict[str, Floats]:
    """The words of each concept as a unit vector; empty where they were not kept."""
    file = run.perceptions(perceiver, "x").with_name("concepts.json")
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {concept: np.array(entry["embedding"]) for concept, entry in known.items()}
