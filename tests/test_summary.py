"""What is said of all concepts together, on runs that are made in the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import amplification, stages, summary, tables
from pipeline.estimates import Shares, raw_shares, whole
from pipeline.line import Opened
from pipeline.tables import Key, Reading

Found = tuple[Opened, tables.Tally, list[Reading], dict[str, dict[Key, Shares]]]


@pytest.fixture
def found(drawn: Callable[..., Opened]) -> Found:
    opened = drawn(images_per_prompt=8)
    run, study, planned = opened
    described = stages.read_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"))
    attributes = tables.readings(described)
    counts = tables.tally(run, planned, study.perceive.name, attributes)
    return opened, counts, attributes, tables.corrected(planned, counts, attributes)


def entry(found: Found, attribute: str, table: str = "taught", **changed: Any) -> dict[str, Any]:
    opened, counts, attributes, shares = found
    pools = summary.summary(opened[2], counts, attributes, shares | changed)["pooled"]
    return next(p for p in pools if p["attribute"] == attribute and table in p["reference"].lower())


@pytest.mark.parametrize("attribute", ["gender", "skin_tone"])
def test_distances_are_there_for_a_table_that_is_rounded(found: Found, attribute: str) -> None:
    opened, counts, attributes, shares = found
    reading = next(a for a in attributes if a.attribute == attribute)
    (against, _) = tables.references(opened[2])
    apart = [
        amplification.total_variation(share.value, np.array(d.shares) / sum(d.shares))
        for key, share in shares[attribute].items()
        if counts.count(key, reading)[:-1].any() and not isinstance(d := against.of(key[1], reading), str)
    ]
    pool = entry(found, attribute)
    assert pool["total_variation"]["value"] == pytest.approx(np.mean(apart)) and len(apart) == 20
    assert pool["total_variation"]["n_concepts"] == 20 and pool["jensen_shannon"]["noise_floor"] > 0
    assert pool["directional"]["low"] < pool["directional"]["high"]


def test_a_concept_whose_shares_were_not_sampled_is_in_no_distance(found: Found) -> None:
    shares = found[3]["gender"]
    (first, *others) = shares
    unknown = replace(shares[first], value=np.full(2, np.nan), draws=None, joint=None)
    pool = entry(found, "gender", gender=shares | {first: unknown})
    assert pool["total_variation"]["n_concepts"] == len(others) and pool["total_variation"]["value"] > 0
    none = {key: replace(share, value=np.full(2, np.nan), draws=None, joint=None) for key, share in shares.items()}
    assert "total_variation" not in entry(found, "gender", gender=none)


def test_a_table_that_leaves_people_out_is_no_distribution() -> None:
    assert whole([0.77, 0.13, 0.07]) is None and whole([np.nan, 1.0]) is None
    rounded = whole([0.333, 0.333, 0.333])
    assert rounded is not None and rounded.sum() == 1
    assert raw_shares([1, 1, 1]).value == pytest.approx(rounded)
