"""The page of published counts: what it takes away for noise, and that its interval covers."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import prompt_sets
from pipeline import imports, study
from pipeline.estimates import Floats, Ints
from scripts.published_counts import DOCS, helped, rid_of_noise

REPLICATES = 300
COVERED = 0.93 - 2 * math.sqrt(0.93 * 0.07 / REPLICATES)
"""The 93 % that the page promises, less two standard errors of so many replicates."""


def published(pictures: str) -> tuple[Ints, Ints]:
    """Women, and faces in all, of each of the 153 occupations."""
    with (prompt_sets.FOLDER / "studies" / "fair_diffusion_fairface.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["pictures"] == pictures]
    women, men = (np.array([int(row["count"]) for row in rows if row["gender"] == g]) for g in ("woman", "man"))
    return women, women + men


def less_noise(women: Ints, pictures: Ints) -> Floats:
    """The shares, drawn towards their mean until they vary as much as without the noise of counting."""
    p = women / pictures
    noise = np.mean(p * (1 - p) / pictures)
    return p.mean() + math.sqrt(1 - noise / p.var()) * (p - p.mean())


@pytest.mark.parametrize("shrunk", [False, True])
@pytest.mark.parametrize("pictures", ["laion", "sd15", "sd15_edited"])
def test_the_interval_of_the_mean_distance_from_one_half_covers(pictures: str, shrunk: bool) -> None:
    """True shares as published, and as they would be without noise; of the edited ones many are near 1/2."""
    women, n = published(pictures)
    true = less_noise(women, n) if shrunk else women / n
    truth, rng = np.abs(true - 0.5).mean(), np.random.default_rng(1)
    found = [rid_of_noise(rng.binomial(n, true), n, rng=rng, draws=200) for _ in range(REPLICATES)]
    assert np.mean([e.low <= truth <= e.high for e in found]) >= COVERED
    assert np.mean([e.value for e in found]) == pytest.approx(truth, abs=0.0015)
    assert np.mean([e.high - e.low for e in found]) < 0.01


def test_the_published_reading_of_many_shares_near_one_half_is_too_high_by_their_density_there() -> None:
    """By f(1/2) / 4n for true shares of density f: |p̂ - 1/2| less |p - 1/2| integrates to the variance of p̂."""
    rng, n = np.random.default_rng(2), np.full(2000, 250)
    women = rng.binomial(n, rng.beta(10, 10, len(n)))
    density = math.gamma(20) / math.gamma(10) ** 2 * 0.5**18
    taken = float(np.abs(women / n - 0.5).mean()) - rid_of_noise(women, n, rng=rng).value
    assert taken == pytest.approx(density / 4 / 250, rel=0.1)


def test_the_page_says_of_raza_what_its_study_comes_to_today(tmp_path: Path) -> None:
    run, found = imports.begin(*study.load_import("raza2025"), tmp_path / "run")
    imports.estimate(run, found)
    entries = json.loads((run.folder / "summary.json").read_text(encoding="utf-8"))["arms"]
    page = (DOCS / "published_counts.md").read_text(encoding="utf-8").splitlines()
    lines = list(helped(entries))
    assert len(lines) == 11 and [line for line in lines if line not in page] == []


def test_the_page_has_what_was_written_of_race_and_how_far_the_shares_moved() -> None:
    """White 33 to none of 50: counted in the file of labels; and the difference of the means of ten pictures each."""
    page = (DOCS / "published_counts.md").read_text(encoding="utf-8")
    with (prompt_sets.FOLDER / "studies" / "raza2025.csv").open(encoding="utf-8", newline="") as file:
        labels = Counter((r["model"], r["arm"], r["race_raw"].strip()) for r in csv.DictReader(file))
    for model in ("DALL-E 3", "FLUX.1-dev", "SDXL Turbo"):
        for race in ("White", "Black", "Asian", "mixed"):
            before, after = (labels[model, arm, race.lower()] for arm in ("baseline", "controlled"))
            assert f"| {model} | {race} | {before} → {after} |" in page
    assert "| SDXL Turbo | White | 33 → 0 | 66 (" in page and "| -66 (" in page


def test_counts_that_chance_alone_explains_are_no_distance() -> None:
    rng, n = np.random.default_rng(3), np.full(153, 250)
    even = rid_of_noise(np.full(153, 125), n, rng=rng)
    assert even.value == even.low == 0
    assert rid_of_noise(np.repeat([0, 250], [76, 77]), n, rng=rng).value == pytest.approx(0.5, abs=0.001)
