"""How far would the shares move if a probe asked in one phrasing alone? From stored embeddings; no model is loaded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.probe import Head, Probe
from pipeline import stages, store
from pipeline.plan import Sharded
from pipeline.progress import progress
from pipeline.store import Run
from pipeline.tables import KEY, Key, Reading, keys
from pipeline.types import NOT_ONE_PERSON, Shard

FILE = "wordings.npz"
"""Beside the perceptions of a probe that asks in words: each phrasing and its vectors."""
COLUMNS = (
    *KEY,
    "attribute",
    "level",
    "raw_share",
    "wordings_low",
    "wordings_high",
    "n_wordings",
)
"""Of `wordings.csv`. Shares among the decided, in 0..1, the classifier taken at its word."""

Counts = npt.NDArray[np.int64]
"""Decisions `(P, K + 1)`: of each phrasing, and of all of them together as the last; the last column is `cannot tell`."""


def write(file: Path, probe: Probe) -> None:
    """The phrasings of every attribute, for `spread`; nothing where the probe does not ask in words."""
    arrays: dict[str, Any] = {}
    for attribute in probe.attributes:
        phrasings = probe.wordings(attribute.name)
        if phrasings:
            heads = [*phrasings.values(), probe.heads[attribute.name]]
            arrays[f"{attribute.name}.texts"] = np.array([*phrasings])
            arrays[f"{attribute.name}.weights"] = np.stack([head.weights for head in heads])
            arrays[f"{attribute.name}.scale"] = np.array([heads[0].scale, probe.thresholds[attribute.name]])
    if arrays:
        with store.appears(file) as out:
            np.savez(out, **arrays)


def spread(
    run: Run, planned: Sharded, perceiver: str, readings: Sequence[Reading]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of `wordings.csv`, and the same over all neutral prompts of an arm, with the phrasings at the ends."""
    file = run.perceptions(perceiver, "x").with_name(FILE)
    if not file.is_file():
        return [], []
    with np.load(file, allow_pickle=False) as arrays:
        stored = {key: arrays[key] for key in arrays.files}
    asked = [reading for reading in readings if f"{reading.attribute}.texts" in stored]
    counts = _counted(run, planned, perceiver, asked, stored)
    rows, pooled = [], []
    for reading in asked:
        texts = stored[f"{reading.attribute}.texts"].tolist()
        for key in keys(planned):
            if (key, reading.attribute) in counts:
                shares = _shares(counts[key, reading.attribute])
                rows += [
                    dict(zip(COLUMNS, (*key, reading.attribute, level, *_ends(shares[:, k]), len(texts)), strict=True))
                    for k, level in enumerate(reading.levels)
                ]
        for arm in planned.arms:
            neutral = [key for key in keys(planned) if key[4] == arm.name and not key[3]]
            parts = [counts[key, reading.attribute] for key in neutral if (key, reading.attribute) in counts]
            if parts:
                pooled += _pooled(arm.name, reading, np.sum(parts, axis=0), texts)
    return rows, pooled


def _counted(
    run: Run, planned: Sharded, perceiver: str, asked: Sequence[Reading], stored: Mapping[str, npt.NDArray[Any]]
) -> dict[tuple[Key, str], Counts]:
    """What each phrasing alone would have decided of the pictures of one person, one shard in memory at a time."""
    found: dict[tuple[Key, str], Counts] = {}
    if not asked:
        return found
    shards = [shard for shard in planned.shards() if run.perceptions(perceiver, shard).exists()]
    with progress("wordings", total=len(shards), unit="shards") as advance:
        for shard in shards:
            for key, here in _of_shard(run, perceiver, shard, asked, stored):
                found[key] = found.get(key, 0) + here
            advance(1, "")
    return found


def _of_shard(
    run: Run, perceiver: str, shard: Shard, asked: Sequence[Reading], stored: Mapping[str, npt.NDArray[Any]]
) -> Iterator[tuple[tuple[Key, str], Counts]]:
    _, rows, embeddings = stages.kept_embeddings(run, perceiver, shard)
    table = run.read_images(shard, KEY).to_pylist()
    (said,) = run.read_perceptions(perceiver, shard, [asked[0].attribute]).to_pydict().values()
    of_key: dict[Key, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if said[row] != NOT_ONE_PERSON:  # which is said of all attributes or of none
            of_key[tuple(table[row][name] for name in KEY)].append(place)
    for reading in asked:
        scale, threshold = stored[f"{reading.attribute}.scale"]
        places = [_decided(embeddings, w, scale, threshold) for w in stored[f"{reading.attribute}.weights"]]
        for key, mine in of_key.items():
            columns = len(reading.levels) + 1
            yield (key, reading.attribute), np.array([np.bincount(place[mine], minlength=columns) for place in places])


def _decided(
    embeddings: npt.NDArray[np.float16], weights: npt.NDArray[np.float32], scale: float, threshold: float
) -> npt.NDArray[np.int64]:
    """The place of the level that each image is decided to be, K for `cannot tell`."""
    shares = Head(weights, np.zeros(len(weights), np.float32), float(scale)).probabilities(embeddings)
    return np.where(shares.max(1, initial=0) >= np.float32(threshold), shares.argmax(1), len(weights))


def _shares(counts: Counts) -> npt.NDArray[np.float64]:
    """Shares among the decided `(P, K)`; NaN where nothing was."""
    decided = counts[:, :-1].sum(1, keepdims=True)
    return np.where(decided > 0, counts[:, :-1] / np.maximum(decided, 1), math.nan)


def _ends(shares: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """The share by all phrasings together, and the lowest and highest by one alone."""
    alone = shares[:-1][~np.isnan(shares[:-1])]
    return float(shares[-1]), *((float(alone.min()), float(alone.max())) if len(alone) else (math.nan, math.nan))


def _pooled(arm: str, reading: Reading, counts: Counts, texts: Sequence[str]) -> list[dict[str, Any]]:
    shares = _shares(counts)
    found = []
    for k, level in enumerate(reading.levels):
        share, low, high = _ends(shares[:, k])
        at = {low: "", high: ""} | {float(s): text for s, text in zip(shares[:-1, k], texts, strict=True)}
        found.append(
            {
                "arm": arm,
                "attribute": reading.attribute,
                "level": level,
                "raw_share": share,
                "low": low,
                "low_wording": at[low],
                "high": high,
                "high_wording": at[high],
                "n_wordings": len(texts),
                "n_images": int(counts[0].sum()),
            }
        )
    return found
