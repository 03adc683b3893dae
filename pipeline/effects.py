"""Arms against `none` -> `effects.csv` and `obedience-<arm>.csv`, and the answer to: did it help?"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import amplification, changes, tables
from pipeline.amplification import total_variation
from pipeline.changes import Side
from pipeline.estimates import Floats, Shares, wilson
from pipeline.mitigations import ALL_CONCEPTS, DROPPED, LEFT_ALONE, OBEDIENCE, Asking, Goal, Target, stratified_factor
from pipeline.pairs import p_of_no_change
from pipeline.plan import Plan
from pipeline.store import Run
from pipeline.tables import KEY, Key, Reading, Tally
from pipeline.types import Arm, Estimate, Shard, digest

BASELINE = "none"
DRAWS = 500
"""Posterior draws per concept that distances and entropies are computed of."""
SIGNIFICANT = 0.05
BROKEN = 0.05
"""An arm broke the concept if it is surely recognised in so many fewer images."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """A run as far as arms are compared in it."""

    run: Run
    planned: Plan
    perceiver: str
    readings: Sequence[Reading]
    counts: Tally
    shares: dict[str, dict[Key, Shares]]

    def treated(self) -> list[Arm]:
        """The arms that are held against the baseline; none where the study has no baseline."""
        others = [arm for arm in self.planned.arms if arm.name != BASELINE]
        return others if len(others) < len(self.planned.arms) else []

    def shards(self, arm: str) -> list[Shard]:
        """Those of an arm that are on the disk."""
        return [s for s in self.planned.shards() if s.arm == arm and self.run.images(s).exists()]

    def decided(self, arm: str, columns: Sequence[str]) -> pa.Table | None:
        """A row per image of an arm."""
        found = [tables.decided(self.run, self.perceiver, s, self.readings, columns) for s in self.shards(arm)]
        return pa.concat_tables(found) if found else None

    def keys(self, arm: str) -> list[Key]:
        """Those of one arm."""
        return [key for key in tables.keys(self.planned) if key[4] == arm]

    def errors(self, reading: Reading, arm: str) -> tuple[Reading, Reading]:
        """An attribute with its errors in the baseline and in an arm: each its own where people labelled enough of both,
        else the same, by the labels of all arms together."""
        keyed = tables.keys(self.planned)
        own = tables.by_arm(reading, self.counts, keyed)
        if BASELINE in own and arm in own:
            return own[BASELINE], own[arm]
        return (tables.informed(reading, self.counts, keyed),) * 2

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
    readings = [reading for reading in read.readings if not reading.of]
    rows: list[dict[str, Any]] = []
    before = read.decided(BASELINE, changes.PLACE) if read.treated() else None
    for arm in read.treated():
        after = read.decided(arm.name, changes.PLACE)
        if before is None or after is None:
            continue
        named = pa.array([arm.name] * len(before), pa.string())
        same = before.set_column(before.column_names.index("arm"), "arm", named)
        keys = read.keys(arm.name)
        pairs = changes.pair_counts(same, after, readings, keys)
        for reading in readings:
            mine = {k[0]: v for k, v in pairs.items() if k[1] == reading.attribute}
            chance = read.chance(arm.name, reading.attribute, "effects")
            sides = read.errors(reading, arm.name)
            rows += moved(sides, keys, BASELINE, read.counts, read.shares[reading.attribute], mine, chance)
    return rows


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
    for entry in changes.pooled(first, other, [key for key in keys if not key[3]], pairs, rng):
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
                "p": entry["p"],
            }
        )
    told = "" if theirs.confusion is None else f"; {said_of_errors(theirs)}"
    return [{"baseline": baseline, **row, "method": f"{row['method']}{told}"} for row in rows]


def said_of_errors(reading: Reading) -> str:
    """What a change takes for granted of the errors on its two sides; `reading` is of the arm."""
    if reading.confusion is None:
        return reading.uncorrected
    return "errors by arm" if reading.of_arm else "errors taken to be the same in both arms"


# -- obedience.csv -----------------------------------------------------------------------------------


def obedience(read: Read) -> list[dict[str, Any]]:
    """The rows of `obedience-<arm>.csv`, of all arms: of the images that were asked to show a level, how many show which."""
    rows: list[dict[str, Any]] = []
    for arm in read.planned.arms:
        reading = next((r for r in read.readings if isinstance(arm, Asking) and r.attribute == arm.attribute), None)
        table = read.decided(arm.name, ["concept", "drawn"]) if reading else None
        if reading is None or table is None:
            continue
        rng = read.chance(arm.name, reading.attribute, "obedience")
        reading = read.errors(reading, arm.name)[1]
        seen = Counter[tuple[str, str, str]]()
        for row in table.group_by(["concept", "drawn", reading.attribute]).aggregate([([], "count_all")]).to_pylist():
            for concept in (ALL_CONCEPTS, row["concept"]):
                seen[concept, row["drawn"], row[reading.attribute]] += row["count_all"]
        for concept in dict.fromkeys([ALL_CONCEPTS, *(key[1] for key in read.keys(arm.name))]):
            for asked in reading.levels:
                counts = np.array([seen[concept, asked, column] for column in reading.columns], np.int64)
                if not counts[:-1].any():
                    continue
                shares = tables.corrected_sum(counts, reading, rng)
                for k, level in enumerate(reading.levels):
                    at = (arm.name, concept, reading.attribute, asked, level)
                    share = (shares.value[k], shares.low[k], shares.high[k], int(counts.sum()))
                    rows.append(dict(zip(OBEDIENCE, (*at, *share), strict=True)))
    return rows


# -- did it help? ------------------------------------------------------------------------------------


def helped(read: Read, followed: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """An entry per arm and declared target: distance, over-correction, diversity, fidelity, cost, and a verdict.

    An arm with a target of its own is held against that alone, another against every target that the study declares, or
    against parity in the first attribute where it declares none. `followed` are the rows of `obedience`.
    """
    columns = [*changes.PLACE, "prompt_sent", "negative_prompt", "drawn", "status", "seconds", "tokens", "tokens_cut"]
    before = read.decided(BASELINE, columns) if read.treated() else None
    if before is None:
        return []
    words, kwh = _words(read), _kwh_per_second(read)
    baseline = _scored(read, BASELINE, words)
    declared = list(dict.fromkeys(arm.goal for arm in read.planned.arms if isinstance(arm, Target)))
    declared = declared or [Goal(read.readings[0].attribute, "uniform")]
    found = []
    for arm in read.treated():
        after = read.decided(arm.name, columns)
        if after is None:
            continue
        pairs = [(_before(key), key) for key in read.keys(arm.name)]
        shared = {
            "arm": arm.name,
            "baseline": BASELINE,
            "paired": True,
            "left_alone": _left_alone(after),
            "diversity": {r.attribute: entropy(read.shares[r.attribute], pairs) for r in read.readings},
            "fidelity": _fidelity(baseline, _scored(read, arm.name, words), len(words)),
            "cost": _cost(before, after, kwh),
        }
        for goal in [arm.goal] if isinstance(arm, Target) else declared:
            reading = next((r for r in read.readings if r.attribute == goal.attribute), None)
            entry = shared | {"attribute": goal.attribute, "target": goal.title}
            if reading:
                entry |= towards(goal, read.shares[goal.attribute], pairs, read.errors(reading, arm.name)[1])
            if isinstance(arm, Target):
                entry["allocation"] = _allocation(arm, read.keys(arm.name), followed)
            found.append(entry | {"verdict": verdict(entry)})
    return found


def verdict(entry: dict[str, Any]) -> str:
    """In this order: broke the concept, over-corrected, closer, further, no evidence.

    `broke the concept`: it is surely recognised in `BROKEN` fewer images. `over-corrected`: the shares are surely past
    the target on average, or surely past it for some concept without being closer on the whole.
    """
    recognised = entry["fidelity"].get("recognised_change") or {}
    change, excess = entry.get("distance_change"), entry.get("excess")
    if recognised and recognised["high"] < -BROKEN:
        return "broke the concept"
    if change is None or excess is None:
        return "no evidence"
    if excess["low"] > 0 or (entry["n_past"] and change["high"] >= 0):
        return "over-corrected"
    if change["high"] < 0:
        return "closer"
    return "further" if change["low"] > 0 else "no evidence"


def _left_alone(after: pa.Table) -> dict[str, int]:
    """Images that the arm did not touch, by reason; and those whose rewrite dropped the concept."""
    drawn = Counter(after["drawn"].to_pylist())
    told = {why: n for why, n in drawn.items() if why and why.startswith((LEFT_ALONE, DROPPED))}
    return {why.removeprefix(LEFT_ALONE): n for why, n in told.items()}


def towards(
    goal: Goal, shares: Mapping[Key, Shares], pairs: Sequence[tuple[Key, Key]], reading: Reading
) -> dict[str, Any]:
    """`nearer` over the neutral prompts of which both sides and the target are known; nothing where none is.

    `pairs` are a prompt's keys without and with the arm, `reading` the attribute with its errors in the arm.
    """
    known = []
    for was, key in pairs:
        target, before, after = goal.shares(key[1]), shares[was], shares[key]
        sampled = before.joint is not None and after.joint is not None
        if sampled and not key[3] and not isinstance(target, str):
            known.append((key[1], before, after, target))
    if not known:
        return {}
    concepts, befores, afters, targets = zip(*known, strict=True)
    found = nearer(concepts, befores, afters, targets)
    change = Estimate(**found["distance_change"])
    found["distance_change"]["erased_by"] = changes.erased_by(change, reading) if len(reading.levels) == 2 else None
    return found | {"errors": said_of_errors(reading)}


def nearer(
    concepts: Sequence[str],
    before: Sequence[Shares],
    after: Sequence[Shares],
    targets: Sequence[Sequence[float]],
) -> dict[str, Any]:
    """Distance before and after beside its noise floor, and what lies past the target, over C concepts of K levels.

    The change is of the root of the mean square of √(½ Σ (share − t)²), which with two levels is the distance too. An
    estimate varies about the truth as the posterior draws vary about it, so twice the estimate's mean square less a draw's
    (the basic interval: Davison and Hinkley 1997, Bootstrap Methods, section 2.4) is rid of what noise adds to it; of an
    absolute distance a part would stay.

    The excess of a concept is (after − t) · (t − before) / |t − before|, the sum of absolute differences below: with two
    levels how far the share is past the target t, seen from before, and below 0 where it falls short. The errors of the
    classifier's matrix are taken as each concept's own.
    """
    first, last, t = _thinned(before), _thinned(after), np.array(targets)
    values = [np.array([shares.value for shares in side]) for side in (before, after)]
    apart = [float(np.mean([total_variation(a, b) for a, b in zip(side, t, strict=True)])) for side in values]
    roots = [_root_mean_square(value, draws, t) for value, draws in zip(values, (first, last), strict=True)]
    moved = roots[1] - roots[0]
    ends = np.quantile(moved, [0.025, 0.5, 0.975]).tolist()
    towards = t - values[0]
    size = np.abs(towards).sum(-1, keepdims=True)
    towards = np.divide(towards, size, out=np.zeros_like(towards), where=size > 0)
    past = ((last - t) * towards).sum(-1)
    tests = [p_of_no_change(draws[:, None]) for draws in past.T]
    adjusted = amplification.holm(tests)
    surely = [c for c, p, draws in zip(concepts, adjusted, past.T, strict=True) if p < SIGNIFICANT and draws.mean() > 0]
    low, high = np.quantile(past.mean(1), [0.025, 0.975])
    n = len(concepts)
    return {
        "n_concepts": n,
        "distance_before": {"value": apart[0], "noise_floor": _floor(first, values[0])},
        "distance_after": {"value": apart[1], "noise_floor": _floor(last, values[1])},
        "distance_change": Estimate(ends[1], ends[0], ends[2], n, "root mean square, basic")._asdict(),
        "excess": Estimate(float(past.mean()), float(low), float(high), n, "posterior")._asdict(),
        "n_past": len(surely),
        "past": surely,
    }


def _thinned(shares: Sequence[Shares]) -> Floats:
    """Draws `(S, C, K)`, as many of each concept."""
    return np.stack([s.joint[:: max(len(s.joint) // DRAWS, 1)][:DRAWS] for s in shares if s.joint is not None], 1)


def _root_mean_square(value: Floats, draws: Floats, target: Floats) -> Floats:
    """The distance over all concepts `(S,)`, rid of noise, as often as there are draws; see `nearer`."""
    square = ((value - target) ** 2).sum(-1).mean() / 2
    return np.asarray(np.sqrt(np.maximum(2 * square - ((draws - target) ** 2).sum(-1).mean(-1) / 2, 0)))


def _floor(draws: Floats, value: Floats) -> float:
    """The mean distance that chance alone would show."""
    return float(np.abs(draws - value).sum(-1).mean() / 2)


def _basic(value: float, draws: Floats, n: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(2 * value - float(draws.mean()), 2 * value - float(high), 2 * value - float(low), n, "basic")


def entropy(shares: Mapping[Key, Shares], pairs: Sequence[tuple[Key, Key]]) -> dict[str, Any] | None:
    """Mean change of Shannon's entropy within the concepts, in parts of the largest there could be, log K."""
    both = [(shares[was], shares[key]) for was, key in pairs if not key[3]]
    both = [pair for pair in both if all(side.joint is not None for side in pair)]
    if not both:
        return None
    values, drawn = [], []
    for side in zip(*both, strict=True):
        values.append(np.mean([_evenness(one.value) for one in side]))
        drawn.append(_evenness(_thinned(side)).mean(1))
    return _basic(float(values[1] - values[0]), drawn[1] - drawn[0], len(both))._asdict()


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
    weights = [arm.weights(key[1]) for key in keys if not key[3]]
    if len(obeyed) < len(arm.levels):
        return None
    factors = [stratified_factor(w, [obeyed[a] for a in arm.levels]) for w in weights if not isinstance(w, str)]
    return float(np.nanmean(factors)) if factors and not np.isnan(factors).all() else None


# -- fidelity and cost -------------------------------------------------------------------------------


Scored = dict[tuple[Any, ...], tuple[float, bool]]
"""By place without the arm: the cosine with the words of its own concept, and whether those are the nearest."""


def _words(read: Read) -> dict[str, Floats]:
    """The words of each concept as a unit vector; empty where they were not kept."""
    file = read.run.perceptions(read.perceiver, "x").with_name("concepts.json")
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {concept: np.array(entry["embedding"]) for concept, entry in known.items()}


def _scored(read: Read, arm: str, words: Mapping[str, Floats]) -> Scored:
    """The images of an arm's neutral prompts, one shard in memory at a time."""
    found: Scored = {}
    names, vectors = list(words), np.array(list(words.values()))
    columns = [name for name in changes.PLACE if name != "arm"]
    for shard in read.shards(arm) if names else ():
        seen = read.run.read_perceptions(read.perceiver, shard, ["embedding"])["embedding"]
        table = read.run.read_images(shard, columns)
        wanted = pc.and_(pc.is_valid(seen), pc.equal(table["identity"], ""))
        table, seen = table.filter(wanted), seen.filter(wanted)
        flat = pc.list_flatten(seen).to_numpy().astype(np.float64)
        cosines = flat.reshape(len(table), -1) @ vectors.T if len(table) else np.empty((0, len(names)))
        own = np.array([names.index(concept) for concept in table["concept"].to_pylist()], int)
        places = zip(*(table[name].to_pylist() for name in columns), strict=True)
        score, nearest = cosines[np.arange(len(own)), own].tolist(), (cosines.argmax(1) == own).tolist()
        found |= zip(places, zip(score, nearest, strict=True), strict=True)
    return found


def _fidelity(before: Scored, after: Scored, concepts: int) -> dict[str, Any]:
    """Is the concept that was asked for still there? Recognised among the study's, and CLIP's cosine with its words.

    The score's change is a mean over pairs with a normal interval. With one concept there is nothing to mistake it for.
    """
    if not before or not after:
        return {"why_unknown": "the words of the concepts were not kept when the images were perceived"}
    found: dict[str, Any] = {}
    if concepts > 1:
        shares = [wilson(sum(hit for _, hit in side.values()), len(side)) for side in (before, after)]
        found["recognised"] = [share._asdict() for share in shares]
        found["recognised_change"] = amplification.difference(shares[1], shares[0])._asdict()
    moved = np.array([after[place][0] - before[place][0] for place in before.keys() & after.keys()])
    if len(moved) > 1:
        mean, error = float(moved.mean()), 1.96 * float(moved.std(ddof=1)) / math.sqrt(len(moved))
        found["clip_score"] = [float(np.mean([score for score, _ in side.values()])) for side in (before, after)]
        found["clip_score_change"] = Estimate(
            mean, mean - error, mean + error, len(moved), "normal, of pairs"
        )._asdict()
    return found


def _cost(before: pa.Table, after: pa.Table, kwh: float) -> dict[str, Any]:
    """What is sent beyond the prompt, images that were not made, and time and energy beside the baseline's.

    Tokens are the drawing model's own, and not known where it has no tokenizer (`fake`) or the run is from before they
    were counted; words always are. `cut_off` are images whose text was longer than what the model reads.
    `kwh` is what a second of drawing used on average: the run's energy is divided among the arms by their seconds.
    """
    sent = zip(*(after[name].to_pylist() for name in ("prompt", "prompt_sent", "negative_prompt")), strict=True)
    words = [len(text.split()) + len(negative.split()) - len(prompt.split()) for prompt, text, negative in sent]
    tokens = [pc.mean(table["tokens"]).as_py() for table in (before, after)]
    seconds = [float(np.mean(table["seconds"].to_numpy())) for table in (before, after)]
    lost = [wilson(len(table) - table["status"].to_pylist().count("made"), len(table)) for table in (before, after)]
    return {
        "words": float(np.mean(words)),
        "tokens": None if None in tokens else tokens[1] - tokens[0],
        "cut_off": int(pc.sum(pc.greater(after["tokens_cut"], 0)).as_py() or 0),
        "not_made": [share._asdict() for share in lost],
        "not_made_change": amplification.difference(lost[1], lost[0])._asdict(),
        "seconds": seconds,
        "kwh_per_1000_images": [1000 * kwh * each for each in seconds],
    }


def _kwh_per_second(read: Read) -> float:
    """What the run used, over the seconds that all its images took to draw; NaN where it was not metered."""
    file = read.run.folder / "energy.json"
    shards = [shard for arm in read.planned.arms for shard in read.shards(arm.name)]
    seconds = math.fsum(pc.sum(read.run.read_images(shard, ["seconds"])["seconds"]).as_py() for shard in shards)
    if not file.is_file() or not seconds:
        return math.nan
    return float(json.loads(file.read_text(encoding="utf-8"))["kwh"]) / seconds
