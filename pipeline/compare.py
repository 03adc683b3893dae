"""Run folders -> how far each share moved from the first run to the others: `compare.csv` and `compare.json`."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.box import SIMPLE
from rich.table import Table

from pipeline import amplification, stages, store, tables
from pipeline.errors import InputError, ModelError, RunError
from pipeline.estimates import Shares
from pipeline.pairs import Paired, p_of_no_change, paired_shares_many
from pipeline.plan import Plan, plan
from pipeline.store import Run
from pipeline.study import Study
from pipeline.tables import PERFECT, UNCORRECTED, Key, Reading, Tally
from pipeline.types import Estimate, digest

KEY = ("prompt_set", "concept", "template", "identity", "arm")
PLACE = (*KEY, "prompt", "sample", "seed")
"""What two pictures of a pair have in common."""
COLUMNS = (
    *KEY,
    "attribute",
    "level",
    "baseline",
    "run",
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
    "p",
    "p_adjusted",
)
"""Of `compare.csv`. Shares and changes (run − baseline) in 0..1 and -1..1."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a comparison."""

    name: str
    run: Run
    study: Study
    planned: Plan
    weights: str
    """Digest of the weights that drew it; empty where they are not here to be asked."""
    readings: dict[str, Reading]
    counts: Tally
    summary: dict[str, Any]


def compare(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of `compare.csv` and the content of `compare.json`. The first run is the baseline."""
    members = _members(folders)
    with tables.doubts([*members[0].readings.values()], stages.say):
        return _compared(members)


def _compared(members: Sequence[Member]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    first, *others = members
    rows: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    for other in others:
        why = why_unpaired(first, other)
        pairs = {} if why else pair_counts(first, other)
        if not why and not pairs:
            why = "no prompt, sample and seed is in both"
        for attribute in (name for name in first.readings if name in other.readings):
            block, pooled = _attribute(
                first, other, attribute, {k[0]: v for k, v in pairs.items() if k[1] == attribute}
            )
            rows += block
            changes += [{**entry, "why_unpaired": why} for entry in pooled]
    return rows, {"baseline": first.name, "runs": [_described(first, m) for m in members], "changes": changes}


def write(out: Path, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> list[dict[str, str]]:
    """Both files of a comparison; returns the rows as they are written. A run folder keeps its own figures."""
    if (out / "study.yaml").exists():
        raise InputError(f"--out {out}: is a run folder; name another")
    text = tables.to_csv(rows, COLUMNS)
    store.write_text(out / "compare.csv", text)
    store.write_json(out / "compare.json", found)
    return list(csv.DictReader(io.StringIO(text)))


def shown(rows: Sequence[Mapping[str, str]], found: Mapping[str, Any], most: int = 10) -> Iterator[Table | str]:
    """For the terminal: the runs, the change over all concepts, and the concepts that moved most."""
    runs = Table(title="runs", title_justify="left", box=SIMPLE)
    for heading in ("run", "model", "differs in", "images made"):
        runs.add_column(heading, justify="right" if heading == "images made" else "left")
    for run in found["runs"]:
        runs.add_row(run["name"], run["model"], "\n".join(run["differs"]) or "-", f"{run['images']['made']:,}")
    yield runs
    whole = Table(title="mean over the neutral prompts, points (95% interval)", title_justify="left", box=SIMPLE)
    for heading in ("run", "perceived", "level", "share before", "share", "change", "pairs", "variance factor"):
        whole.add_column(heading, justify="left" if heading in ("run", "perceived", "level") else "right")
    for entry in found["changes"]:
        whole.add_row(
            entry["run"] + (f", arm {entry['arm']}" if entry["arm"] != "none" else ""),
            entry["title"].removeprefix("perceived "),
            entry["level"],
            *(_percent(entry[name]["value"]) for name in ("baseline_share", "share")),
            _points(*(entry["change"][name] for name in ("value", "low", "high"))),
            f"{entry['n']:,}" if entry["paired"] else "unpaired",
            f"{entry['variance_factor']:.2f}" if entry["variance_factor"] is not None else "-",
        )
    yield whole
    reasons = [f"{e['run']}: unpaired, since {e['why_unpaired']}" for e in found["changes"] if e["why_unpaired"]]
    yield from dict.fromkeys(reasons)
    known = [row for row in rows if row["change"]]
    largest = sorted(known, key=lambda row: (float(row["p_adjusted"] or 1), -abs(float(row["change"]))))
    told: dict[tuple[str, ...], Mapping[str, str]] = {}
    for row in largest:
        told.setdefault((row["run"], row["attribute"], *(row[name] for name in KEY)), row)
    concepts = Table(title="concepts that moved most, points (95% interval)", title_justify="left", box=SIMPLE)
    for heading in ("run", "concept", "level", "share before", "share", "change", "p (Holm)"):
        concepts.add_column(heading, justify="left" if heading in ("run", "concept", "level") else "right")
    for row in list(told.values())[:most]:
        name = ", ".join([row["concept"], *(row[k] for k in ("identity", "arm") if row[k] not in ("", "none"))])
        share = (_percent(float(row[column])) for column in ("baseline_share", "share"))
        change = _points(*(float(row[column]) for column in ("change", "change_low", "change_high")))
        concepts.add_row(row["run"], name, row["level"], *share, change, f"{float(row['p_adjusted']):.2g}")
    yield concepts


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def _points(value: float, low: float, high: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


# -- the runs ----------------------------------------------------------------------------------------


def _members(folders: Sequence[Path]) -> list[Member]:
    """The runs, if they can be compared at all."""
    if len(folders) < 2:
        raise InputError("compare: name at least two run folders; the first is the baseline")
    places = [folder.resolve() for folder in folders]
    twice = next((f for f, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice:
        raise InputError(f"compare: {twice}: is named twice; a run is not compared with itself")
    short = [place.name for place in places]
    members = [
        _member(folder, place.name if short.count(place.name) == 1 else str(folder))
        for folder, place in zip(folders, places, strict=True)
    ]
    for other in members[1:]:
        _same_instrument(members[0], other)
    return members


def _member(folder: Path, name: str) -> Member:
    run, study = stages.load_run(folder)
    if not (folder / "estimates.csv").is_file() or not (folder / "summary.json").is_file():
        raise RunError(f"{folder}: has no estimates yet; run: typecast estimate {folder}")
    described = stages.read_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"))
    readings = tables.readings(described)
    planned = plan(study, weights="")  # the keys and shards of a run do not depend on its weights
    return Member(
        name=name,
        run=run,
        study=study,
        planned=planned,
        weights=_weights(run, study),
        readings={reading.attribute: reading for reading in readings},
        counts=tables.tally(run, planned, study.perceive.name, readings),
        summary=stages.read_json(folder / "summary.json"),
    )


def _weights(run: Run, study: Study) -> str:
    """The digest of the study's model today, if the images on the disk are those that it would draw."""
    try:
        planned = stages.plan_of(study)
    except ModelError:
        return ""
    shard = next((shard for shard in planned.shards() if run.images(shard).exists()), None)
    if shard is None:
        return ""
    ids = run.read_images(shard, ["unit_id"])["unit_id"].to_pylist()
    return planned.settings.weights if ids == [unit.id for unit in planned.units(shard)] else ""


def _same_instrument(first: Member, other: Member) -> None:
    """Shares that were read by two instruments differ by the instruments."""
    asked = [m.study.perceive.model_dump(mode="json", exclude={"attributes"}) for m in (first, other)]
    different = [f"{key} is {asked[0][key]!r} there and {asked[1][key]!r} here" for key in asked[0]]
    different = [line for line, key in zip(different, asked[0], strict=True) if asked[0][key] != asked[1][key]]
    common = [name for name in first.readings if name in other.readings]
    different += [
        f"{name} has other levels" for name in common if first.readings[name].levels != other.readings[name].levels
    ]
    if not common:
        different.append("no attribute was read in both")
    if different:
        raise RunError(
            f"{other.run.folder}: was not perceived as {first.run.folder} was: {'; '.join(different)}. "
            "A comparison needs one perceiver"
        )
    if not set(tables.keys(first.planned)) & set(tables.keys(other.planned)):
        raise RunError(f"{other.run.folder}: has no prompt and arm in common with {first.run.folder}")


def why_unpaired(first: Member, other: Member) -> str:
    """Why there are no pairs, or nothing: the noise is shared only within one model, image size and study seed."""
    for member in (first, other):
        if not member.weights:
            return f"the weights that drew {member.name} are not here, so the two models may differ"
    if first.weights != other.weights:
        return "the models have other weights"
    mine, theirs = first.study, other.study
    if (mine.draw.height, mine.draw.width) != (theirs.draw.height, theirs.draw.width):
        return "the images have another size"
    if mine.seed != theirs.seed:
        return f"the seed of the study is {mine.seed} and {theirs.seed}"
    return ""


def _described(first: Member, member: Member) -> dict[str, Any]:
    """A run beside the others, with what its own summary says of all concepts together."""
    mine, theirs = (m.study.model_dump(mode="json", include={"model", "draw", "seed"}) for m in (first, member))
    differs = [f"{part}.{key} = {theirs[part][key]}" for part in ("model", "draw") for key in theirs[part]]
    same = [f"{part}.{key} = {mine[part][key]}" for part in ("model", "draw") for key in mine[part]]
    return {
        "name": member.name,
        "folder": str(member.run.folder),
        "model": member.study.model.path,
        "guidance_scale": member.study.draw.guidance_scale,
        "images": member.summary["images"],
        "differs": [line for line in differs if line not in same],
        "pooled": member.summary["pooled"],
    }


# -- pairs -------------------------------------------------------------------------------------------


def pair_counts(first: Member, other: Member) -> dict[tuple[Key, str], tuple[Counts, int]]:
    """By key and attribute: pairs `(K + 1, K + 1)` by both decisions, and images that have no partner at all.

    An image has no partner if the other run lacks it: not drawn, blocked or failed. Keys of both runs alone, and only
    those where at least one pair was made.
    """
    attributes = [name for name in first.readings if name in other.readings]
    joined = _decisions(first, attributes).join(
        _decisions(other, attributes), keys=list(PLACE), join_type="full outer", right_suffix=" other"
    )
    common = set(tables.keys(first.planned)) & set(tables.keys(other.planned))
    found: dict[tuple[Key, str], tuple[Counts, int]] = {}
    for attribute in attributes:
        columns = first.readings[attribute].columns
        seen, alone, made = Counter[tuple[Key, str, str]](), Counter[Key](), Counter[Key]()
        sides = [attribute, f"{attribute} other"]
        for row in joined.group_by([*KEY, *sides]).aggregate([([], "count_all")]).to_pylist():
            key, (left, right) = tuple(row[name] for name in KEY), (row[side] for side in sides)
            if left is None or right is None:
                alone[key] += row["count_all"] if left is not None or right is not None else 0
            else:
                seen[key, left, right] += row["count_all"]
                made[key] += row["count_all"]
        for key in common & set(made):
            counts = np.array([[seen[key, i, j] for j in columns] for i in columns], np.int64)
            found[key, attribute] = counts, alone[key]
    return found


def _decisions(member: Member, attributes: Sequence[str]) -> pa.Table:
    """A light row per image: its place, and what was decided about it."""
    readings, perceiver = [member.readings[name] for name in attributes], member.study.perceive.name
    shards = [shard for shard in member.planned.shards() if member.run.images(shard).exists()]
    return pa.concat_tables(tables.decided(member.run, perceiver, shard, readings, PLACE) for shard in shards)


# -- changes -----------------------------------------------------------------------------------------


def _attribute(
    first: Member, other: Member, attribute: str, pairs: dict[Key, tuple[Counts, int]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of one attribute in one pair of runs, and its change over all neutral prompts, per arm and level."""
    mine, theirs = first.readings[attribute], other.readings[attribute]
    shares = [shares_of(member, attribute) for member in (first, other)]
    common = [key for key in tables.keys(first.planned) if key in shares[1]]
    rng = np.random.default_rng(int(digest([first.study.seed, other.study.seed, attribute, "compare"])[:16], 16))
    moved = dict(zip(pairs, _paired([counts for counts, _ in pairs.values()], mine, theirs, rng), strict=True))
    blocks = []
    for key in common:
        at = {"attribute": attribute, "baseline": first.name, "run": other.name, **dict(zip(KEY, key, strict=True))}
        both = shares[0][key], shares[1][key]
        blocks.append([at | row for row in _rows(mine.levels, *both, moved.get(key), pairs.get(key))])
    adjusted = amplification.holm([block[0]["p"] for block in blocks])
    rows = [row | {"p_adjusted": float(p)} for block, p in zip(blocks, adjusted, strict=True) for row in block]
    pooled = [
        {"run": other.name, "attribute": attribute, "title": mine.title, "arm": arm.name, **entry}
        for arm in first.planned.arms
        for entry in _pooled(first, other, attribute, [k for k in common if k[4] == arm.name and not k[3]], pairs, rng)
    ]
    return rows, pooled


def shares_of(member: Member, attribute: str) -> dict[Key, Shares]:
    """The shares of every key, as the run's own `estimates.csv` has them: the same chance, from the study's seed."""
    return tables.corrected(member.planned, member.counts, [member.readings[attribute]])[attribute]


def _paired(counts: Sequence[Counts], mine: Reading, theirs: Reading, rng: np.random.Generator) -> list[Paired]:
    """The change in every table of pairs, by the errors on all labelled pictures together.

    Where no matrix is known the classifier is taken at its word, and then nothing is known of the undecided.
    """
    if not counts:
        return []
    tables_of_pairs, levels = np.array(counts), len(mine.levels)
    columns = levels + 1 if mine.confusion is not None and theirs.confusion is not None else levels
    matrix, other = _matrix(mine)[:, :columns], _matrix(theirs)[:, :columns]
    same = np.array_equal(matrix, other)
    return paired_shares_many(tables_of_pairs[:, :columns, :columns], matrix, None if same else other, rng=rng)


def _matrix(reading: Reading) -> Counts:
    if reading.confusion is not None:
        return reading.confusion
    return np.eye(len(reading.levels), len(reading.levels) + 1, dtype=np.int64) * PERFECT


def _rows(
    levels: Sequence[str], before: Shares, after: Shares, moved: Paired | None, pairs: tuple[Counts, int] | None
) -> Iterator[dict[str, Any]]:
    """One row per level; the key is added outside."""
    p, test = (moved.p, f"paired; p: {moved.test}") if moved else (unpaired_p(before, after), "unpaired")
    raw = UNCORRECTED in (before.method, after.method)
    for k, level in enumerate(levels):
        a, b = before.estimate(k), after.estimate(k)
        change, odds = amplification.difference(b, a), amplification.log_odds_ratio(b, a)
        if moved and pairs and raw:
            change = either_way(moved.change[k], pairs[0], k)
            odds = odds if pairs[0].sum() > moved.n else moved.log_odds[k]
        elif moved:
            change, odds = moved.change[k], moved.log_odds[k]
        yield {
            "level": level,
            **_cells("baseline_share", "baseline_", a),
            **_cells("share", "", b),
            **_cells("change", "change_", change),
            **_cells("log_odds_change", "log_odds_", odds),
            "method": f"{test}; {change.method}",
            "pairs": moved.n if moved else 0,
            "missing_partners": int(pairs[0].sum()) - moved.n + pairs[1] if moved and pairs else "",
            "variance_factor": moved.variance_factor[k] if moved else math.nan,
            "raw_variance_factor": moved.raw_variance_factor[k] if moved else math.nan,
            "p": p,
        }


def either_way(change: Estimate, pairs: Counts, k: int) -> Estimate:
    """The change of level k where no matrix says how often a level is undecided: the undecided may be any level.

    `pairs` `(K + 1, K + 1)`, `cannot tell` last. Worst-case bounds as in `estimates.raw_shares` (Manski 1989).
    """
    n, both = int(pairs[:-1, :-1].sum()), int(pairs[-1, -1])
    lost = int(pairs[k, -1] + pairs[-1, :-1].sum() - pairs[-1, k]) + both
    gained = int(pairs[:-1, -1].sum() - pairs[k, -1] + pairs[-1, k]) + both
    low, high = (n * change.low - lost) / pairs.sum(), (n * change.high + gained) / pairs.sum()
    method = f"joint posterior of pairs, undecided counted either way, {UNCORRECTED}"
    return change._replace(low=min(float(low), change.value), high=max(float(high), change.value), method=method)


def _cells(name: str, prefix: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{prefix}low": estimate.low, f"{prefix}high": estimate.high}


def unpaired_p(before: Shares, after: Shares) -> float:
    """The posterior's p-value of no change, of two shares that are taken as independent.

    One matrix under both makes their errors go together, so that in truth the change is surer than this says.
    """
    if before.draws is None or after.draws is None:
        return 1.0
    size = min(len(before.draws), len(after.draws))
    return p_of_no_change(after.draws[:size] - before.draws[:size])


def _pooled(
    first: Member,
    other: Member,
    attribute: str,
    keys: Sequence[Key],
    pairs: dict[Key, tuple[Counts, int]],
    rng: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    """The mean change over the neutral prompts of an arm.

    The correction is linear in the counts, so it is applied once, to the sum, and the matrix's uncertainty enters once
    (as in `amplification.mean_difference`). On pairs both runs weigh the concepts alike. Without, each run's counts
    are brought to equal weights first, or a concept that abstains more often in one run would look like a change.
    """
    mine, theirs = first.readings[attribute], other.readings[attribute]
    with_pairs = [key for key in keys if key in pairs]
    if with_pairs:
        total = np.sum([pairs[key][0] for key in with_pairs], 0)
        moved = _paired([total], mine, theirs, rng)[0]
        before, after, n = moved.first, moved.second, len(with_pairs)
        changes, odds, p = moved.change, moved.log_odds, moved.p
    else:
        counts = [np.array([m.counts.count(key, m.readings[attribute]) for key in keys]) for m in (first, other)]
        decided = (counts[0][:, :-1].sum(1) > 0) & (counts[1][:, :-1].sum(1) > 0) if len(keys) else np.zeros(0, bool)
        n = int(decided.sum())
        if n == 0:
            return
        levelled = [np.append(equal_weights(table[decided, :-1]), 0) for table in counts]
        before, after = (tables.corrected_sum(c, r, rng) for c, r in zip(levelled, (mine, theirs), strict=True))
        sides = [(before.estimate(k), after.estimate(k)) for k in range(len(mine.levels))]
        changes = tuple(amplification.difference(b, a) for a, b in sides)
        odds = tuple(amplification.log_odds_ratio(b, a) for a, b in sides)
        p = unpaired_p(before, after)
    for k, level in enumerate(mine.levels):
        yield {
            "level": level,
            "paired": bool(with_pairs),
            "n_concepts": n,
            "n": changes[k].n,
            "baseline_share": before.estimate(k)._asdict(),
            "share": after.estimate(k)._asdict(),
            "change": changes[k]._asdict(),
            "log_odds_change": odds[k]._asdict(),
            "variance_factor": float(moved.variance_factor[k]) if with_pairs else None,
            "p": p,
        }


def equal_weights(counts: Counts) -> Counts:
    """Counts `(C, K)` of C concepts as one `(K,)` in which each weighs alike, of the size that its variance is worth.

    The mean share of C concepts with n_c images varies as that of C² / Σ 1 / n_c images; what
    lies between the concepts is counted as chance too, so the interval errs to the wide side.
    """
    n = counts.sum(1)
    size = len(n) ** 2 / (1 / n).sum()
    mean = (counts / n[:, None]).mean(0) * size
    whole: Counts = np.floor(mean).astype(np.int64)
    # What rounding down has left goes to the largest remainders, so that the sum stays.
    order = np.argsort(whole - mean, kind="stable")
    whole[order[: round(float(mean.sum())) - int(whole.sum())]] += 1
    return np.asarray(whole)
