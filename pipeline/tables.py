"""Perceptions and references -> `estimates.csv` and `summary.json`: what the figures and the report print."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import prompt_sets
from classifiers.correction import corrected_shares_many
from pipeline import amplification, store
from pipeline.errors import RunError
from pipeline.estimates import Shares, raw_shares
from pipeline.plan import Plan
from pipeline.store import Run
from pipeline.types import CANNOT_TELL, Distribution, Estimate, digest

COLUMNS = (
    "prompt_set",
    "concept",
    "template",
    "identity",
    "arm",
    "attribute",
    "level",
    "n",
    "n_one_person",
    "n_cannot_tell",
    "n_blocked",
    "n_failed",
    "raw_share",
    "raw_low",
    "raw_high",
    "share",
    "low",
    "high",
    "method",
    "reference",
    "reference_low",
    "reference_high",
    "reference_source",
    "reference_missing",
    "difference",
    "difference_low",
    "difference_high",
    "log_odds_ratio",
    "log_odds_low",
    "log_odds_high",
    "direction",
    "p_adjusted",
)
"""The contract of `estimates.csv`. Shares and differences in 0..1; `n` counts all images that were asked for."""

UNCORRECTED = "raw: no labelled pictures of this image domain, so the classifier's errors are not in it"
PERFECT = 10**9
"""Labelled pictures per level of a matrix that stands for `taken at its word`."""

Key = tuple[str, str, str, str, str]
"""Prompt set, concept, template, identity, arm."""


@dataclass(frozen=True)
class Reading:
    """What a perceiver reads, from its `perceiver.json`: no model is loaded to estimate."""

    attribute: str
    title: str
    levels: tuple[str, ...]
    confusion: npt.NDArray[np.int64] | None
    """`(K, K + 1)`, or `None` where no labelled picture of some level was decided."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The decisions there can be."""
        return (*self.levels, CANNOT_TELL)


def readings(described: dict[str, Any]) -> list[Reading]:
    """The attributes of a perceiver from its description."""
    found = []
    for name, attribute in described["attributes"].items():
        counts = described["confusion"].get(name)
        matrix = None if counts is None else np.array(counts, np.int64)
        if matrix is not None and (matrix[:, :-1].sum(1) == 0).any():
            matrix = None
        found.append(Reading(name, attribute["title"], tuple(attribute["levels"]), matrix))
    return found


@dataclass
class Tally:
    """Counts of a run, per key. Memory grows with the concepts and not with the images."""

    statuses: Counter[tuple[Key, str]] = field(default_factory=Counter)
    decisions: Counter[tuple[Key, str, str]] = field(default_factory=Counter)
    """By key, attribute and decision."""

    def count(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """Decisions `(K + 1,)` for one key: the levels, then `cannot tell`."""
        return np.array([self.decisions[key, reading.attribute, column] for column in reading.columns], np.int64)


def tally(run: Run, planned: Plan, perceiver: str, attributes: Sequence[Reading]) -> Tally:
    """Count what is on the disk, one shard in memory at a time. Images that are not drawn yet are not counted."""
    import pyarrow as pa

    counts = Tally()
    names = ["prompt_set", "concept", "template", "identity", "arm"]
    for shard in planned.shards():
        if not run.images(shard).exists():
            continue
        if not run.perceptions(perceiver, shard).exists():
            raise RunError(f"{run.folder}: {shard.name} is not perceived yet; run: typecast perceive {run.folder}")
        images = run.read_images(shard, ["unit_id", *names, "status"])
        seen = run.read_perceptions(perceiver, shard, ["unit_id", *(a.attribute for a in attributes)])
        if images["unit_id"] != seen["unit_id"]:
            raise RunError(f"{run.perceptions(perceiver, shard)}: is of other images; delete it and perceive again")
        for row in images.group_by([*names, "status"]).aggregate([([], "count_all")]).to_pylist():
            counts.statuses[tuple(row[n] for n in names), row["status"]] += row["count_all"]
        for a in attributes:
            table = pa.table([*(images[n] for n in names), seen[a.attribute]], names=[*names, "decision"])
            for row in table.group_by([*names, "decision"]).aggregate([([], "count_all")]).to_pylist():
                if row["decision"] is not None:
                    key = tuple(row[n] for n in names)
                    counts.decisions[key, a.attribute, row["decision"]] += row["count_all"]
    return counts


# -- estimates ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Against:
    """One reference of the study and its base rate for an attribute."""

    table: prompt_sets.Reference

    def source(self, reading: Reading) -> str:
        """Publisher, table, year and column, for whoever quotes a number."""
        if reading.attribute in self.table.attributes:
            return str(self.table.source(reading.attribute))
        return self.title

    @property
    def title(self) -> str:
        """Table and year."""
        return f"{self.table.table}{f' {self.table.year}' if self.table.year else ''}"

    def of(self, concept: str, reading: Reading) -> Distribution | str:
        """The reference distribution of a concept, or why there is none."""
        return self.table.distribution(concept, reading.attribute, reading.levels)

    def base(self, reading: Reading) -> list[float]:
        """The base rate per level; NaN where the table gives none."""
        found = self.table.base(reading.attribute, reading.levels)
        return [math.nan] * len(reading.levels) if isinstance(found, str) else list(found.shares)


def references(planned: Plan) -> list[Against]:
    """The references that the study names."""
    return [Against(prompt_sets.load_reference(r.table, r.year)) for r in planned.study.reference]


def keys(planned: Plan) -> list[Key]:
    """All keys of a study, arm by arm, in the order of its prompts."""
    return [(*p.key, arm.name) for arm in planned.arms for p in planned.prompts]


def corrected(counts: npt.NDArray[np.int64], reading: Reading, rng: np.random.Generator) -> list[Shares]:
    """The shares of every key `(G, K + 1)`, corrected where the classifier's errors are known."""
    if reading.confusion is not None:
        return corrected_shares_many(counts, reading.confusion, rng=rng)
    plain = []
    for row in counts:
        raw = raw_shares(row[:-1], int(row[-1]))
        draws = rng.dirichlet(row[:-1] + 0.5, 4000) if row[:-1].sum() else None
        plain.append(Shares(value=raw.value, low=raw.low, high=raw.high, n=raw.n, method=UNCORRECTED, draws=draws))
    return plain


def estimate(planned: Plan, counts: Tally, attributes: Sequence[Reading]) -> list[dict[str, Any]]:
    """The rows of `estimates.csv`: a block per attribute and reference, every key and level in it.

    Chance (the posterior's) comes from the study's seed and the attribute, so that the same run gives the same file.
    """
    rows: list[dict[str, Any]] = []
    everyone = keys(planned)
    against_all: list[Against | None] = [*references(planned)] or [None]
    for reading in attributes:
        rng = np.random.default_rng(int(digest([planned.study.seed, reading.attribute])[:16], 16))
        table = np.array([counts.count(key, reading) for key in everyone])
        shares = corrected(table, reading, rng)
        for against in against_all:
            block = [
                row
                for key, row, share in zip(everyone, table, shares, strict=True)
                for row in _rows(key, reading, row, share, against, counts)
            ]
            _adjust(block)
            rows += block
    return rows


def _rows(
    key: Key, reading: Reading, row: npt.NDArray[np.int64], share: Shares, against: Against | None, counts: Tally
) -> Iterator[dict[str, Any]]:
    """The rows of one key and attribute against one reference: one per level."""
    raw = raw_shares(row[:-1], int(row[-1]))
    found = against.of(key[1], reading) if against else "the study names no reference"
    base = against.base(reading) if against else []
    status = {name: counts.statuses[key, name] for name in ("made", "blocked", "failed")}
    p = _p_value(share, found)
    for k, level in enumerate(reading.levels):
        mine = share.estimate(k)
        cells: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        cells |= zip(COLUMNS, (*key, reading.attribute, level), strict=False)
        cells |= {
            "n": sum(status.values()),
            "n_one_person": int(row.sum()),
            "n_cannot_tell": int(row[-1]),
            "n_blocked": status["blocked"],
            "n_failed": status["failed"],
            "raw_share": raw.value[k],
            "raw_low": raw.low[k],
            "raw_high": raw.high[k],
            "share": mine.value,
            "low": mine.low,
            "high": mine.high,
            "method": mine.method,
            "reference_source": against.source(reading) if against else "",
        }
        yield cells | (_missing(found) if isinstance(found, str) else _compared(mine, found, k, base[k], p))


def _missing(reason: str) -> dict[str, Any]:
    return {"reference_missing": reason, "direction": "no reference"}


def _compared(mine: Estimate, found: Distribution, k: int, base: float, p: float) -> dict[str, Any]:
    if math.isnan(found.shares[k]):
        return _missing("the table does not give this level")
    reference = Estimate(found.shares[k], found.low[k], found.high[k], found.n or 0, "reference")
    exact = Estimate(reference.value, reference.value, reference.value, 0, "reference")
    away, odds = amplification.difference(mine, reference), amplification.log_odds_ratio(mine, exact)
    return {
        "reference": reference.value,
        "reference_low": reference.low,
        "reference_high": reference.high,
        "difference": away.value,
        "difference_low": away.low,
        "difference_high": away.high,
        "log_odds_ratio": odds.value,
        "log_odds_low": odds.low,
        "log_odds_high": odds.high,
        "direction": amplification.direction(mine, reference.value, base),
        "p_adjusted": p,
    }


def _p_value(share: Shares, found: Distribution | str) -> float:
    """One test per concept; NaN where there is no reference, or one that leaves no room for chance (0 or 1)."""
    if isinstance(found, str) or share.draws is None or not all(0 < r < 1 for r in found.shares):
        return math.nan
    return amplification.p_value(share, found.shares)


def _adjust(block: list[dict[str, Any]]) -> None:
    """Holm within each arm: one test per prompt, whose levels share its p-value."""
    tests: dict[str, dict[tuple[str, ...], float]] = {}
    for row in block:
        key = tuple(row[name] for name in COLUMNS[:4])
        p = row["p_adjusted"]
        tests.setdefault(row["arm"], {})[key] = p if isinstance(p, float) else math.nan
    adjusted = {arm: dict(zip(ps, amplification.holm(list(ps.values())), strict=True)) for arm, ps in tests.items()}
    for row in block:
        row["p_adjusted"] = float(adjusted[row["arm"]][tuple(row[name] for name in COLUMNS[:4])])


def to_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """The table as text; an unknown number is an empty cell."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{float(value):.6g}"
    return value


# -- summary -----------------------------------------------------------------------------------------


def summary(planned: Plan, counts: Tally, attributes: Sequence[Reading]) -> dict[str, Any]:
    """Pooled amplification per arm, attribute and reference, and everything else that the report prints."""
    pools = [
        entry
        for reading in attributes
        for against in references(planned)
        for arm in planned.arms
        for entry in _pool(planned, counts, reading, against, arm.name)
    ]
    made = {
        name: sum(n for (_, s), n in counts.statuses.items() if s == name) for name in ("made", "blocked", "failed")
    }
    return {
        "study": planned.study.name,
        "model": planned.study.model.path,
        "guidance_scale": planned.study.draw.guidance_scale,
        "images": {**made, "total": sum(made.values()), "asked": len(planned)},
        "headline": headline(planned, pools, made["made"]),
        "pooled": pools,
        "classifier": {reading.attribute: _record(reading, counts) for reading in attributes},
    }


def _pool(planned: Plan, counts: Tally, reading: Reading, against: Against, arm: str) -> Iterator[dict[str, Any]]:
    """Over the neutral prompts of an arm: identity prompts name the group themselves."""
    rng = np.random.default_rng(int(digest([planned.study.seed, reading.attribute, arm, against.title])[:16], 16))
    mine = [(key, against.of(key[1], reading)) for key in keys(planned) if key[4] == arm and not key[3]]
    known = [
        (key, found) for key, found in mine if isinstance(found, Distribution) and counts.count(key, reading)[:-1].any()
    ]
    known = [(key, found) for key, found in known if not any(math.isnan(s) for s in found.shares)]
    if not known:
        return
    table = np.array([counts.count(key, reading) for key, _ in known])
    reference = np.array([found.shares for _, found in known])
    matrix = reading.confusion
    if matrix is None:
        table, matrix = table[:, :-1], np.eye(len(reading.levels), dtype=np.int64) * PERFECT
    means = amplification.mean_difference(table, matrix, reference, rng=rng)
    for k, level in enumerate(reading.levels[:1] if len(reading.levels) == 2 else reading.levels):
        entry: dict[str, Any] = {
            "arm": arm,
            "attribute": reading.attribute,
            "title": reading.title,
            "level": level,
            "reference": against.source(reading),
            "n_concepts": len(known),
            "n_images": int(table.sum()),
            "mean_difference": means[k]._asdict(),
        }
        entry["base"] = base = against.base(reading)[k]
        if len(reading.levels) == 2 and 0 < base < 1 and ((reference[:, k] > 0) & (reference[:, k] < 1)).all():
            names = [key[1] for key, _ in known]
            pool = amplification.pooled(table, matrix, reference[:, k], base, concepts=names, rng=rng)
            entry |= {name: getattr(pool, name)._asdict() for name in ("shift", "stretch", "scatter")}
        yield entry


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
        "cannot_tell_rate": here[CANNOT_TELL] / total if total else None,
    }


def headline(planned: Plan, pools: Sequence[dict[str, Any]], images: int) -> str:
    """The finding in one sentence that can be quoted: reference, year, table, interval and n are in it."""
    pool = next((p for p in pools if p["arm"] == planned.arms[0].name and "stretch" in p), None)
    model = f"{planned.study.model.path} at guidance {planned.study.draw.guidance_scale:g}"
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


def write(run: Run, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> None:
    """Both files of the estimate stage."""
    store.write_text(run.folder / "estimates.csv", to_csv(rows))
    store.write_json(run.folder / "summary.json", found)
