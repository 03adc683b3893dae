"""Perceptions and references -> `estimates.csv` and `summary.json`: what the figures and the report print."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import special, stats

import prompt_sets
from classifiers.attributes import ATTRIBUTES, MONK_TONE, PEOPLE, SKIN_TONE
from classifiers.confusion import (
    BY_CONCEPT,
    PRIOR,
    Errors,
    checked_confusion,
    errors_of_all,
    errors_of_each,
    partially_pooled,
    prior_of_errors,
)
from classifiers.correction import corrected_means, corrected_shares_many, weighed
from pipeline import amplification
from pipeline.errors import RunError
from pipeline.estimates import LABELS, Shares, checked_counts, prediction_powered, published, raw_shares
from pipeline.plan import Asked, Plan, Sharded
from pipeline.progress import progress, side_by_side
from pipeline.store import Run
from pipeline.types import ALL_TEMPLATES, CANNOT_TELL, NOT_ONE_PERSON, Distribution, Estimate, Shard, digest

KEY = ("prompt_set", "concept", "template", "identity", "arm")
"""The columns that make a `Key`."""
COLUMNS = (
    *KEY,
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
    "reference_row",
    "reference_match",
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
"""The contract of `estimates.csv`. Shares and differences in 0..1; `n` counts all images that have a row."""

UNCORRECTED = "raw: no labelled pictures of this image domain, so the classifier's errors are not in it"
PERFECT = 10**9
"""Labelled pictures per level of a matrix that stands for `taken at its word`."""

DRAWS = 4000
"""From the posterior of shares that no matrix corrects."""

APART, FEWEST = 5, 3
"""Errors are taken by concept where so many labelled pictures of every level are there, of so many concepts at least:
how much the concepts differ cannot be told from fewer. The concepts must hold more than half of the labelled pictures; those
of which the concept is not known count together, as one more (`ELSEWHERE`).
By arm they are taken where people labelled so many of every level in the arm, and in another."""
ELSEWHERE = ""
"""Among the concepts of `Reading.by_concept`: pictures of which the concept is not known."""

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
    of: tuple[str, ...] = ()
    """The attributes that an intersection is of."""
    by_concept: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """The same counts for the labelled pictures of each concept; empty where that is not known."""
    uncorrected: str = UNCORRECTED
    """Said of the shares where there is no matrix."""
    of_arm: bool = False
    """Are these the errors in one arm, by what people said of it?"""

    @property
    def columns(self) -> tuple[str, ...]:
        """The decisions there can be."""
        return (*self.levels, CANNOT_TELL)


def described_in(path: Path) -> list[Reading]:
    """The attributes of a perceiver from its `perceiver.json`; one that is not as it was written is a `RunError`."""
    try:
        return readings(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: cannot be read: {error!r}; delete its folder, and the images are perceived again"
        ) from None


def readings(described: dict[str, Any]) -> list[Reading]:
    """The attributes of a perceiver from its description. Counts that are none are a `ValueError` that names them."""
    found = []
    for name, attribute in described["attributes"].items():
        counts = described["confusion"].get(name)
        matrix = None if counts is None else _counts(name, counts, len(attribute["levels"]))
        why = Reading.uncorrected
        if matrix is not None and (matrix[:, :-1].sum(1) == 0).any():
            empty = [level for level, row in zip(attribute["levels"], matrix, strict=True) if not row[:-1].any()]
            matrix, why = None, f"raw: no decided labelled picture of {', '.join(empty)}"
        of = tuple(attribute.get("of", ()))
        apart = described.get("confusion_by_concept", {}).get(name, {}) if matrix is not None else {}
        by_concept = _by_concept(
            (concept, _counts(name, rows, len(attribute["levels"]))) for concept, rows in apart.items()
        )
        if matrix is not None and by_concept:
            rest = matrix - np.sum([*by_concept.values()], axis=0)
            if (rest < 0).any():
                raise ValueError(f"confusion_by_concept of {name} counts pictures that confusion does not")
            enough = sum(bool((rows.sum(1) >= APART).all()) for rows in by_concept.values()) >= FEWEST
            if not enough or 2 * rest.sum() >= matrix.sum():
                by_concept = {}
            elif rest.any():
                by_concept[ELSEWHERE] = rest
        read = Reading(name, attribute["title"], tuple(attribute["levels"]), matrix, of, by_concept)
        found.append(replace(read, uncorrected=why))
    return found


def _counts(attribute: str, rows: npt.ArrayLike, levels: int) -> npt.NDArray[np.int64]:
    matrix = checked_counts(f"confusion of {attribute}", rows, dimensions=(2,))
    if matrix.shape != (levels, levels + 1):
        raise ValueError(f"confusion of {attribute} must be {levels} x {levels + 1}, not {matrix.shape}")
    return matrix


def _by_concept(counts: Iterable[tuple[str, npt.NDArray[np.int64]]]) -> dict[str, npt.NDArray[np.int64]]:
    """Counts `(K, K + 1)` of each concept, however its letters are cased: by the name that comes first."""
    found: dict[str, npt.NDArray[np.int64]] = {}
    spelled: dict[str, str] = {}
    for concept, rows in counts:
        name = spelled.setdefault(concept.casefold(), concept)
        found[name] = found.get(name, 0) + rows
    return found


@contextlib.contextmanager
def doubts(attributes: Sequence[Reading], say: Callable[[str], None]) -> Iterator[None]:
    """Say once, and with the attribute's name, what its errors on labelled pictures warn of; not again inside."""
    for reading in attributes:
        if reading.uncorrected != Reading.uncorrected:
            say(f"{reading.title}: not corrected for the classifier's errors; {reading.uncorrected}")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if reading.confusion is not None:
                checked_confusion(reading.confusion)
        for warning in caught:
            say(f"{reading.title}: {warning.message}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "confusion is almost singular")
        yield


@dataclass
class Tally:
    """Counts of a run, per key. Memory grows with the concepts and not with the images."""

    parts: dict[Key, list[Key]] = field(default_factory=dict)
    """What is counted under a key that takes several templates together, as `templates_together` has it."""
    statuses: Counter[tuple[Key, str]] = field(default_factory=Counter)
    decisions: Counter[tuple[Key, str, str]] = field(default_factory=Counter)
    """By key, attribute and decision: all images that show one person, the labelled ones among them."""
    labelled: Counter[tuple[Key, str, str, str]] = field(default_factory=Counter)
    """Of a random sample: by key, attribute, level by people, and decision."""
    undecided: Counter[tuple[Key, str, str]] = field(default_factory=Counter)
    """Of the sample, those about which people cannot tell or disagree: by key, attribute and decision."""
    not_one_person: Counter[tuple[Key, str]] = field(default_factory=Counter)
    """Of the sample, those that do not show one person, as people say: by key and attribute; in no decision."""
    nobody: dict[str, set[str]] = field(default_factory=dict)
    """Their unit ids, by attribute."""

    def by_people(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """The labelled pictures of one key: `(K, K + 1)`, level by people and decision."""
        name, parts = reading.attribute, self.parts.get(key, [key])
        table = [[sum(self.labelled[p, name, k, j] for p in parts) for j in reading.columns] for k in reading.levels]
        return np.array(table, np.int64)

    def untold(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """Decisions `(K + 1,)` about the pictures of one key of which people could not tell, or disagree."""
        name, parts = reading.attribute, self.parts.get(key, [key])
        return np.array([sum(self.undecided[p, name, column] for p in parts) for column in reading.columns], np.int64)

    def unlabelled(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """Decisions `(K + 1,)` about the pictures of one key that nobody was asked about, or whose label is not in."""
        return np.asarray(self.count(key, reading) - self.by_people(key, reading).sum(0) - self.untold(key, reading))

    def tellable(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """`unlabelled`, less those of which people could not tell either, `(K + 1,)`: of each decision the part of which
        they could not in the sample. A picture's worth of the part in all decisions is added to it, so that few pictures
        do not say all or none."""
        told, untold = self.by_people(key, reading).sum(0), self.untold(key, reading)
        asked = told + untold
        part = (told + told.sum() / max(asked.sum(), 1)) / (asked + 1) if untold.any() else 1
        return np.asarray(np.rint(self.unlabelled(key, reading) * part), dtype=np.int64)

    def nobody_in(self, key: Key, reading: Reading) -> bool:
        """Do some of the sample of one key not show one person? Nobody knows then which of the others do not either."""
        return any(self.not_one_person[part, reading.attribute] for part in self.parts.get(key, [key]))

    def count(self, key: Key, reading: Reading) -> npt.NDArray[np.int64]:
        """Decisions `(K + 1,)` for one key: the levels, then `cannot tell`."""
        name, parts = reading.attribute, self.parts.get(key, [key])
        return np.array([sum(self.decisions[p, name, column] for p in parts) for column in reading.columns], np.int64)

    def status(self, key: Key, name: str) -> int:
        """Images of one key that were made, blocked or failed."""
        return sum(self.statuses[part, name] for part in self.parts.get(key, [key]))


def tally(run: Run, planned: Sharded, perceiver: str, attributes: Sequence[Reading]) -> Tally:
    """Count what is on the disk, one shard in memory at a time. Images that are not drawn yet are not counted."""
    counts = Tally(parts=templates_together(planned))
    shards = [shard for shard in planned.shards() if run.images(shard).exists()]
    with progress("counting", total=len(shards), unit="shards") as advance:
        for shard in shards:
            _add_shard(counts, run, planned, perceiver, shard, attributes)
            advance(1, "")
    return counts


def _add_shard(
    counts: Tally, run: Run, planned: Sharded, perceiver: str, shard: Shard, attributes: Sequence[Reading]
) -> None:
    table = decided(run, perceiver, shard, attributes, [*KEY, "status", "prompt"])
    if isinstance(planned, Plan):
        _still_asked(planned, run, shard, table)
    for row in table.group_by([*KEY, "status"]).aggregate([([], "count_all")]).to_pylist():
        counts.statuses[tuple(row[n] for n in KEY), row["status"]] += row["count_all"]
    for a in attributes:
        for row in table.group_by([*KEY, a.attribute]).aggregate([([], "count_all")]).to_pylist():
            if row[a.attribute] is not None:
                key = tuple(row[n] for n in KEY)
                counts.decisions[key, a.attribute, row[a.attribute]] += row["count_all"]


def _still_asked(planned: Plan, run: Run, shard: Shard, images: pa.Table) -> None:
    """The prompts of a shard are the study's, or a `RunError`: a prompt set is a file, which may say something else by now."""
    rows = images.group_by([*KEY[:4], "prompt"]).aggregate([]).to_pylist()
    gone = {tuple(row.values()) for row in rows} - {(*prompt.key, prompt.text) for prompt in planned.prompts}
    if gone:
        raise RunError(
            f"{run.folder}: {shard.name} was drawn from {min(gone)[-1]!r}, which is no prompt of "
            f"{', '.join(dict.fromkeys(key[0] for key in gone))} any more; put it back as it was, or draw in another folder"
        )


def decided(
    run: Run,
    perceiver: str,
    shard: Shard,
    attributes: Sequence[Reading],
    columns: Sequence[str],
    nobody: Mapping[str, set[str]] | None = None,
) -> pa.Table:
    """The images of a shard: `columns` of them, and one of decisions per attribute, null where no image was made;
    `nobody` are by attribute the unit ids of which people say that they do not show one person (`Tally.nobody`)."""
    if not run.perceptions(perceiver, shard).exists():
        raise RunError(f"{run.folder}: {shard.name} is not perceived yet; run: typecast perceive {run.folder}")
    images = run.read_images(shard, list(dict.fromkeys(["unit_id", *columns]))).replace_schema_metadata(None)
    on_disk = {part for a in attributes for part in (a.of or (a.attribute,))}
    seen = run.read_perceptions(perceiver, shard, ["unit_id", *sorted(on_disk)])
    if images["unit_id"] != seen["unit_id"]:
        raise RunError(f"{run.perceptions(perceiver, shard)}: is of other images; delete it and perceive again")
    for a in attributes:
        parts = [seen[part].cast("string") for part in (a.of or (a.attribute,))]
        said = together(parts) if a.of else parts[0]
        if nobody and a.attribute in nobody:
            taken_back = pc.is_in(images["unit_id"], value_set=pa.array(sorted(nobody[a.attribute])))
            said = pc.if_else(taken_back, NOT_ONE_PERSON, said)
        images = images.append_column(a.attribute, said)
    return images if "unit_id" in columns else images.drop_columns(["unit_id"])


def agreement(
    run: Run, planned: Sharded, perceivers: tuple[str, str], readings: tuple[Sequence[Reading], Sequence[Reading]]
) -> dict[str, dict[str, int]]:
    """Per attribute that two perceivers read: images that both decided, how many of them alike, and how many that only
    one decided. `not one person` is no more a decision than `cannot tell`."""
    mine, theirs = ({r.attribute: r for r in some if not r.of} for some in readings)
    found = {name: Counter[str]() for name in mine if name in theirs and mine[name].levels == theirs[name].levels}
    for shard in planned.shards():
        if not run.images(shard).exists():
            continue
        one, other = (decided(run, name, shard, [mine[a] for a in found], []) for name in perceivers)
        for name, counts in found.items():
            for a, b in zip(one[name].to_pylist(), other[name].to_pylist(), strict=True):
                if a is not None and b is not None:
                    undecided = (a not in mine[name].levels) + (b not in mine[name].levels)
                    counts["both_decided"] += undecided == 0
                    counts["alike"] += undecided == 0 and a == b
                    counts["one_decided"] += undecided == 1
    keys = ("both_decided", "alike", "one_decided")
    return {name: {key: counts[key] for key in keys} for name, counts in found.items()}


def together(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Columns of decisions as one column of their combinations, as `pipeline.types.Intersection` names them."""
    several, undecided = (
        functools.reduce(pc.or_, (pc.equal(part, word) for part in parts)) for word in (NOT_ONE_PERSON, CANNOT_TELL)
    )
    joined = pc.if_else(undecided, CANNOT_TELL, pc.binary_join_element_wise(*parts, ", "))
    return pc.if_else(several, NOT_ONE_PERSON, joined)


def left_out(
    run: Run, planned: Sharded, perceiver: str, attributes: Sequence[Reading]
) -> dict[str, dict[str, dict[str, int]]] | None:
    """Whom a policy about faces leaves out: by attribute and the level that the probe finds most likely, the pictures
    that were kept and those that were left out. `None` where all pictures are kept.

    To keep clear faces alone is a choice of pictures, and where it falls unevenly it moves the shares.
    """
    if PEOPLE.name not in {reading.attribute for reading in attributes}:
        return None
    asked = [reading for reading in attributes if reading.attribute in ATTRIBUTES]
    found = {r.attribute: {level: {"kept": 0, "left_out": 0} for level in r.levels} for r in asked}
    for shard in (shard for shard in planned.shards() if run.perceptions(perceiver, shard).exists()):
        columns = [name for r in asked for name in (r.attribute, f"{r.attribute}_probabilities")]
        table = run.read_perceptions(perceiver, shard, columns).to_pydict()
        for r in asked:
            rows = zip(table[r.attribute], table[f"{r.attribute}_probabilities"], strict=True)
            for decision, probabilities in ((d, p) for d, p in rows if p is not None):
                level = r.levels[int(np.argmax(probabilities))]
                found[r.attribute][level]["left_out" if decision == NOT_ONE_PERSON else "kept"] += 1
    return found


def two_tones(
    run: Run, planned: Sharded, perceiver: str, attributes: Sequence[Reading]
) -> dict[str, int | float | list[list[int]]] | None:
    """Skin tone read twice, by the probe and by colour: Spearman's ρ between them, and how often which goes with which,
    a row per tone of the probe and a column per Monk tone. `None` where not both are read or fewer than three pictures
    have both."""
    both = [reading for reading in attributes if reading.attribute in (SKIN_TONE.name, MONK_TONE.name)]
    if len(both) < 2:
        return None
    probe, colour = sorted(both, key=lambda reading: len(reading.levels))
    counts = np.zeros((len(probe.levels), len(colour.levels)), np.int64)
    for shard in (shard for shard in planned.shards() if run.perceptions(perceiver, shard).exists()):
        table = run.read_perceptions(perceiver, shard, [probe.attribute, colour.attribute]).to_pydict()
        for one, other in zip(table[probe.attribute], table[colour.attribute], strict=True):
            if one in probe.levels and other in colour.levels:
                counts[probe.levels.index(one), colour.levels.index(other)] += 1
    if counts.sum() < 3:
        return None
    places = np.repeat(np.argwhere(np.ones_like(counts)), counts.ravel(), axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)  # all alike: NaN, which is not known
        correlation = float(stats.spearmanr(places[:, 0], places[:, 1]).statistic)
    return {"n": int(counts.sum()), "spearman": correlation, "counts": counts.tolist()}


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

    def match(self, concept: str) -> dict[str, str]:
        """Which row of a table of occupations stands for a concept, and how well; nothing where the rows are the concepts."""
        found = self.table.match(concept)
        if self.table.matches is None or isinstance(found, str):
            return {}
        return {"reference_row": self.table.row(found), "reference_match": found.quality}

    def base(self, reading: Reading) -> list[float]:
        """The base rate per level; NaN where the table gives none."""
        found = self.table.base(reading.attribute, reading.levels)
        return [math.nan] * len(reading.levels) if isinstance(found, str) else list(found.shares)


def references(planned: Asked) -> list[Against]:
    """The references of a run."""
    return [Against(table) for table in planned.references]


def keys(planned: Asked) -> list[Key]:
    """All keys of a study, arm by arm, in the order of its prompts."""
    return [(*p.key, arm.name) for arm in planned.arms for p in planned.prompts]


def key_of(row: Mapping[str, Any]) -> Key:
    """The key of a row of a table."""
    prompt_set, concept, template, identity, arm = (row[name] for name in KEY)
    return prompt_set, concept, template, identity, arm


def templates_together(planned: Asked) -> dict[Key, list[Key]]:
    """Where a concept's neutral prompts have several templates: the key of all of them, with `ALL_TEMPLATES`, and theirs."""
    found: dict[Key, list[Key]] = {}
    for key in keys(planned):
        if not key[3]:
            found.setdefault((*key[:2], ALL_TEMPLATES, *key[3:]), []).append(key)
    return {whole: parts for whole, parts in found.items() if len(parts) > 1}


def estimated(planned: Asked) -> list[Key]:
    """The keys that have a share: `keys`, and those of several templates together."""
    return [*keys(planned), *templates_together(planned)]


def undivided(keyed: Sequence[Key]) -> list[Key]:
    """Without the templates that another of the keys takes together: what is tested and shown takes a concept once."""
    known = set(keyed)
    return [key for key in keyed if key[2] == ALL_TEMPLATES or (*key[:2], ALL_TEMPLATES, *key[3:]) not in known]


def concepts(keyed: Sequence[Key]) -> list[Key]:
    """Of these keys one per arm and concept of the neutral prompts: what is pooled over concepts is pooled over these."""
    return [key for key in undivided(keyed) if not key[3]]


def corrected(
    planned: Asked, counts: Tally, reading: Reading, own: Mapping[str, Reading] | None = None
) -> dict[Key, Shares]:
    """The shares of one attribute for every key, corrected where the classifier's errors are known, by the rule of
    `errors_in`.

    `own` are the errors of those arms that have their own, if more than this run's labels say of them. Chance (the
    posterior's) comes from the study's seed and the attribute, so that the same run gives the same shares.
    """
    rng = np.random.default_rng(int(digest([planned.study.seed, reading.attribute])[:16], 16))
    blocks: dict[tuple[str, ...], list[Key]] = {}
    for key in estimated(planned):
        blocks.setdefault((key[0], *key[2:]), []).append(key)  # a concept is in a block once, and so are its labels
    arms = by_arm(reading, counts, keys(planned)) if own is None else own
    labelled = [key for key in keys(planned) if counts.by_people(key, reading).any()]
    found: dict[Key, Shares] = {}
    for block in blocks.values():
        mine = {part for key in block for part in counts.parts.get(key, [key])}
        # by what people said elsewhere in the run too: one arm is not raw beside another that is not
        elsewhere = [key for key in labelled if key not in mine]
        known = arms.get(block[0][4]) or informed(reading, counts, elsewhere)
        if len(elsewhere) < len(labelled):
            note = ", errors by arm" if known.of_arm else ""
            shares = _labelled(block, counts, known, rng)
            found |= zip(block, (replace(share, method=f"{share.method}{note}") for share in shares), strict=True)
        else:
            table = np.array([counts.count(key, reading) for key in block])
            found |= zip(block, _block(block, table, known, rng), strict=True)
    return found


def _block(
    block: Sequence[Key],
    table: npt.NDArray[np.int64],
    reading: Reading,
    rng: np.random.Generator,
    labelled: npt.NDArray[np.int64] | None = None,
) -> list[Shares]:
    """The shares of some keys with counts `(G, K + 1)`, no concept twice; `labelled` `(G, K, K + 1)` come on top."""
    if reading.confusion is None and labelled is None:
        return [uncorrected(row, reading, rng) for row in table]
    if reading.confusion is not None and not reading.by_concept:
        return corrected_shares_many(table, reading.confusion, labelled=labelled, rng=rng)
    matrices = errors_by_concept(reading, [key[1] for key in block])
    unseen = len(matrices) - len(block)
    padded = np.concatenate([table, np.zeros((unseen, table.shape[1]), np.int64)])
    if labelled is not None:
        labelled = np.concatenate([labelled, np.zeros((unseen, *matrices.shape[1:]), np.int64)])
    shares = corrected_shares_many(padded, matrices, labelled=labelled, rng=rng)[: len(block)]
    return [replace(share, method=f"{share.method}, {BY_CONCEPT}") for share in shares]


def errors_by_concept(reading: Reading, concepts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The counts `(G, K, K + 1)` of these concepts, and after them of all others that have labels: these count as far as
    concepts are alike. One that comes twice, in two prompt sets, has its labels once."""
    left = {concept.casefold(): rows for concept, rows in reading.by_concept.items()}
    none = np.zeros((len(reading.levels), len(reading.columns)), np.int64)
    own = [left.pop(concept.casefold(), none) for concept in concepts]
    return np.array([*own, *left.values()])


def errors_of(reading: Reading, concepts: Sequence[str]) -> Errors:
    """The errors `(C, ...)` in each of these concepts: its own where errors are by concept, else those of all. Without a
    matrix the classifier is taken at its word."""
    if reading.confusion is None or not reading.by_concept:
        return errors_of_all(np.repeat(confusion_of(reading)[None], len(concepts), 0))
    folded = [concept.casefold() for concept in concepts]
    groups = list(dict.fromkeys(folded))
    errors = errors_of_each(errors_by_concept(reading, groups))
    return Errors(*(part[[groups.index(concept) for concept in folded]] for part in errors))


def matrices(reading: Reading, concepts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The counts behind a mean over these concepts: `(G, K, K + 1)` where errors are by concept, else `(K, K + 1)`."""
    by_concept = reading.confusion is not None and bool(reading.by_concept)
    return errors_by_concept(reading, concepts) if by_concept else confusion_of(reading)


def confusion_of(reading: Reading) -> npt.NDArray[np.int64]:
    """The counts `(K, K + 1)` of all concepts together; without any, those of a classifier that is taken at its word."""
    if reading.confusion is not None:
        return reading.confusion
    return np.eye(len(reading.levels), len(reading.columns), dtype=np.int64) * PERFECT


def _labelled(block: Sequence[Key], counts: Tally, reading: Reading, rng: np.random.Generator) -> list[Shares]:
    """The shares of some keys, no concept twice, of which people labelled a random sample.

    From `LABELS` labelled pictures of a key on, its shares are prediction-powered and ask nothing of the classifier;
    below, labels and predictions are modelled together. Of a key of which some labelled picture does not show one person
    the others are not counted on. Distances between more than two levels rest on the draws of the
    joint model in both cases. Where nobody labelled a picture of some level, and no matrix knows it, all stays as it was.
    """
    by_people = np.array([counts.by_people(key, reading) for key in block])
    known_of = np.array([not counts.nobody_in(key, reading) for key in block])[:, None]
    tellable, others = (
        np.array([of(key, reading) for key in block]) * known_of for of in (counts.tellable, counts.unlabelled)
    )
    if reading.confusion is not None and (reading.of_arm or not reading.by_concept):
        reading = replace(reading, by_concept={ELSEWHERE: _beside(by_people.sum(0), reading)})
    known = by_people.sum(0) + (0 if reading.confusion is None else reading.confusion)
    if (known[:, :-1].sum(1) == 0).any():
        few = f"{reading.uncorrected} (the {by_people.sum()} that people labelled do not show every level)"
        table = np.array([counts.count(key, reading) for key in block])
        shares = _block(block, table, replace(reading, uncorrected=few), rng)
    else:
        shares = _block(block, tellable, reading, rng, by_people)
        shares = [
            replace(share, method=f"{share.method}, {labels.sum()} images labelled by people")
            for share, labels in zip(shares, by_people, strict=True)
        ]
    untold = [counts.untold(key, reading) for key in block]
    return [
        _powered(prediction_powered(labels, rest, untold=could_not), share) if labels.sum() >= LABELS else share
        for share, labels, rest, could_not in zip(shares, by_people, others, untold, strict=True)
    ]


def _powered(found: Shares, joint: Shares) -> Shares:
    """Prediction-powered shares. Their draws have the order of the joint model's and lie about their own estimate as its
    interval says: the joint model believes what is known of the classifier, and its draws may lie elsewhere."""
    if joint.draws is None:
        return found
    rank = (joint.draws.argsort(0).argsort(0) + 0.5) / len(joint.draws)
    arm = np.where(rank < 0.5, found.value - found.low, found.high - found.value)
    draws = np.clip(found.value + special.ndtri(rank) / special.ndtri(0.975) * arm, 0, 1)
    return replace(
        found, draws=draws, joint=np.column_stack([draws[:, 0], 1 - draws[:, 0]]) if len(arm.T) == 2 else joint.joint
    )


def informed(reading: Reading, counts: Tally, keyed: Sequence[Key]) -> Reading:
    """What is known of an attribute once people labelled a sample of this run: their pictures count for the
    classifier's errors too, by concept. Of the errors in one arm, `keyed` are that arm's."""
    labels: dict[str, npt.NDArray[np.int64]] = {}
    for key in keyed:
        labels[key[1]] = labels.get(key[1], 0) + counts.by_people(key, reading)
    people = np.sum([*labels.values()], axis=0)
    if not people.any():
        return reading
    beside = _beside(people, reading)
    if ((people + beside)[:, :-1].sum(1) == 0).any():
        return reading
    apart = reading.by_concept or {ELSEWHERE: beside}
    return replace(reading, confusion=people + beside, by_concept=_by_concept([*apart.items(), *labels.items()]))


def _beside(people: npt.NDArray[np.int64], reading: Reading) -> npt.NDArray[np.int64]:
    """What is known of the errors beside what people said of these pictures, counts `(K, K + 1)` both.

    It is one more concept, believed as far as the concepts with labels are like it: a record of other pictures, added to
    each concept's own labels, overruled them wherever this run is read in another way.
    """
    if reading.confusion is None:
        return np.zeros_like(people)
    return reading.confusion - people if reading.of_arm else reading.confusion


def by_arm(reading: Reading, counts: Tally, keyed: Sequence[Key]) -> dict[str, Reading]:
    """The errors in each arm of which people labelled enough, for a rewrite can change what a probe misreads.

    By the arm's own labels; the other arms' and the record count as far as all of them are alike (`partially_pooled`, in
    whole pictures). Of one arm alone there is nothing to hold it against: its labels are everybody's.
    """
    arms = list(dict.fromkeys(key[4] for key in keyed))
    own = [np.sum([counts.by_people(key, reading) for key in keyed if key[4] == arm], axis=0) for arm in arms]
    enough = [bool((labels[:, :-1].sum(1) >= APART).all()) for labels in own]
    if sum(enough) < 2:
        return {}
    groups = np.array(own if reading.confusion is None else [*own, reading.confusion])
    levels = len(reading.levels)
    prior = np.hstack([prior_of_errors(levels), np.full((levels, 1), PRIOR)])
    others = np.rint(partially_pooled(groups, prior) - groups - prior).astype(np.int64)
    return {
        arm: replace(reading, confusion=labels + rest, by_concept={}, of_arm=True)
        for arm, labels, rest, told in zip(arms, own, others, enough, strict=False)
        if told
    }


def errors_in(reading: Reading, counts: Tally, keyed: Sequence[Key]) -> dict[str, Reading]:
    """An attribute with its errors in each arm: the arm's own where people labelled enough of it (`by_arm`), else by the
    labels of all arms together, one `Reading` for all such arms."""
    own, every = by_arm(reading, counts, keyed), informed(reading, counts, keyed)
    return {key[4]: own.get(key[4], every) for key in keyed}


def means(
    table: npt.NDArray[np.int64],
    concepts: Sequence[str],
    weights: npt.ArrayLike,
    reading: Reading,
    rng: np.random.Generator,
) -> list[Shares]:
    """The mean shares behind counts `(C, K + 1)` of some concepts, weighed in M ways: see `corrected_means`."""
    if reading.confusion is None:
        ways = np.asarray(weights, dtype=np.float64)
        found = [uncorrected(row, reading, rng) for row in weighed(table, ways, len(reading.levels))]
        exact = ways @ table[:, : len(reading.levels)]  # `weighed` is in whole images
        return [
            replace(each, value=sums / sums.sum()) if sums.any() else each
            for each, sums in zip(found, exact, strict=True)
        ]
    return corrected_means(table, matrices(reading, concepts), weights, rng=rng)


def uncorrected(row: npt.NDArray[np.int64], reading: Reading, rng: np.random.Generator) -> Shares:
    """The classifier at its word, with the priors of `corrected_shares_many`."""
    raw, told = raw_shares(row[:-1], int(row[-1])), row[:-1]
    if not told.any():
        return replace(raw, method=reading.uncorrected)
    joint = rng.dirichlet(told + 1 / len(told), DRAWS)
    most = undecided = None
    if row[-1]:  # as their intervals: any of the undecided may be of a level
        draws, most = (rng.beta(some + 0.5, row.sum() - some + 0.5, joint.shape) for some in (told, told + row[-1]))
        undecided = rng.spawn(1)[0].beta(row[-1] + 0.5, told.sum() + 0.5, DRAWS)
    elif len(told) == 2:  # one is the rest of the other, in each draw
        draws = joint
    else:
        draws = rng.beta(told + 0.5, told.sum() - told + 0.5, joint.shape)
    return replace(raw, method=reading.uncorrected, draws=draws, most=most, joint=joint, undecided=undecided)


def estimate(
    planned: Asked, counts: Tally, attributes: Sequence[Reading], shares: dict[str, dict[Key, Shares]]
) -> list[dict[str, Any]]:
    """The rows of `estimates.csv`: a block per attribute and reference, every key and level in it."""

    def block(reading: Reading, against: Against | None) -> list[dict[str, Any]]:
        rows = [
            row
            for key, share in shares[reading.attribute].items()
            for row in _rows(key, reading, counts.count(key, reading), share, against, counts)
        ]
        _adjust(rows)
        return rows

    every: list[Against | None] = [*references(planned)] or [None]
    with side_by_side("comparing with references", "blocks") as submit:
        blocks = [submit(block, reading, against) for reading in attributes for against in every]
    return [row for ended in blocks for row in ended.result()]


def _rows(
    key: Key, reading: Reading, row: npt.NDArray[np.int64], share: Shares, against: Against | None, counts: Tally
) -> Iterator[dict[str, Any]]:
    """The rows of one key and attribute against one reference: one per level."""
    raw = raw_shares(row[:-1], int(row[-1]))
    found = against.of(key[1], reading) if against else "the study names no reference"
    base = against.base(reading) if against else []
    status = {name: counts.status(key, name) for name in ("made", "blocked", "failed")}
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
            **(against.match(key[1]) if against else {}),
        }
        if isinstance(found, str):
            yield cells | _missing(found)
        else:
            yield cells | _compared(mine, found, k, base[k], p, either=share.most is not None)


def _missing(reason: str) -> dict[str, Any]:
    return {"reference_missing": reason, "direction": "no reference"}


def _compared(mine: Estimate, found: Distribution, k: int, base: float, p: float, *, either: bool) -> dict[str, Any]:
    """A share beside its reference. `either`: some of its images are undecided, and may be of any level."""
    if math.isnan(found.shares[k]):
        return _missing("the table does not give this level")
    reference = published(found, k)
    if found.least[k] < found.shares[k]:
        away = amplification.bounded_difference(mine, reference.low, reference.high).estimate
        odds = amplification.bounded_log_odds_ratio(mine, reference.low, reference.high).estimate
        whole = away.low <= 0 <= away.high
        direction = "no evidence" if whole else f"{'above' if away.low > 0 else 'below'} all that the table allows"
    else:
        away, odds = amplification.difference(mine, reference), amplification.log_odds_ratio(mine, reference)
        if either:
            away, odds = amplification.between_ends(mine, reference)
        direction = amplification.direction(mine, reference, base, away)
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
        "direction": direction,
        "p_adjusted": p,
    }


def _p_value(share: Shares, found: Distribution | str) -> float:
    """One test per concept; NaN where there is no reference, one that leaves a level out, or one that leaves no room for
    chance (exactly 0 or 1). A level of which it only gives bounds is tested against both."""
    if isinstance(found, str) or share.draws is None or np.isnan(found.shares).any():
        return math.nan
    if found.n is None and not all(0 < r < 1 for r in found.shares):
        return math.nan
    return amplification.p_value(share, found.shares, least=found.least, answers=found.n)


def _adjust(block: list[dict[str, Any]]) -> None:
    """Holm within each arm, of the rows of one attribute against one reference: one test per concept, and per prompt that
    names a group; levels share its p-value. Another reference is another question, and stands in a table of its own.

    A template among several of a concept is not tested by itself.
    """
    rows = {key_of(row): row for row in block}
    tested = set(undivided([*rows]))
    tests: dict[str, dict[Key, float]] = {}
    for key, row in rows.items():
        p = row["p_adjusted"]
        tests.setdefault(key[4], {})[key] = p if isinstance(p, float) and key in tested else math.nan
    adjusted = {key: p for ps in tests.values() for key, p in zip(ps, amplification.holm([*ps.values()]), strict=True)}
    for row in block:
        row["p_adjusted"] = float(adjusted[key_of(row)])


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
