"""The page and its figures, from run folders that are made up here: no model draws or reads anything."""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import prompt_sets
from pipeline import figures, store, study
from pipeline.errors import RunError
from pipeline.estimates import wilson
from pipeline.report import write_report
from pipeline.tables import COLUMNS
from pipeline.types import ImageRecord, Prompt, Shard, WorkUnit

LEVELS = {
    "gender": ("woman", "man"),
    "skin_tone": ("light", "medium-light", "medium", "medium-dark", "dark"),
    "age": ("child", "adult", "older"),
}
CONCEPTS = ("teacher", "doctor", "mechanic", "nurse", "pilot", "cook", "astronaut")
TAUGHT, BLS = "Typecast taught shares", "BLS CPS Table 11, 2023"
KNOWN = {
    BLS: {"gender": {"teacher": 0.74, "doctor": 0.45, "mechanic": 0.03, "nurse": 0.87, "pilot": 0.08, "cook": 0.4}},
    TAUGHT: {
        "gender": {c: s for c, s in zip(CONCEPTS, (0.74, 0.45, 0.03, 0.87, 0.08, 0.4, 0.5), strict=True)},
        "skin_tone": dict.fromkeys(CONCEPTS, (0.3, 0.25, 0.2, 0.15, 0.1)),
    },
}
STEPS_OF_RUN = np.random.SeedSequence(5)


def a_run(
    folder: Path,
    *,
    concepts: Sequence[str] = CONCEPTS,
    arms: Sequence[str] = ("none",),
    references: Sequence[str] = (BLS,),
    attributes: Sequence[str] = ("gender", "skin_tone"),
    n: int = 50,
    cannot_tell: bool = False,
    images: int = 10,
    summary: dict[str, Any] | None = None,
    known: dict[str, dict[str, dict[str, Any]]] = KNOWN,
) -> Path:
    """A run folder as the estimate stage leaves it, with made-up numbers; `images` per concept and arm."""
    run = store.Run(folder)
    asked = study.Study(name="made_up", prompt_sets=("emoji_occupations",), images_per_prompt=n, seed=3, arms=tuple(arms))
    store.write_text(run.study_file, study.dump(asked))
    rng = np.random.default_rng(1)
    rows = []
    for attribute in attributes:
        shares = {(c, a): _shares(known, c, attribute, rng, n) for c in concepts for a in arms}
        for reference in references or [""]:
            for concept in concepts:
                for arm in arms:
                    given = known.get(reference, {}).get(attribute, {}).get(concept)
                    rows += _rows(concept, arm, attribute, shares[concept, arm], given, reference, n, cannot_tell)
    with (folder / "estimates.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    store.write_json(folder / "summary.json", _summary(arms, references, attributes, known, len(concepts)) | (summary or {}))
    for place, arm in enumerate(arms):
        _write_shard(run, concepts, arm, place, images)
    return folder


def _shares(known: Any, concept: str, attribute: str, rng: np.random.Generator, n: int) -> list[int]:
    """Counts per level, of a model that stretches the first reference that knows the concept."""
    given = next((k[attribute][concept] for k in known.values() if concept in k.get(attribute, {})), None)
    levels = len(LEVELS[attribute])
    target = np.full(levels, 1 / levels)
    if isinstance(given, float):
        odds = 1.5 * math.log(given / (1 - given))
        target = np.array([1 / (1 + math.exp(-odds)), 1 / (1 + math.exp(odds))])
    elif given:
        target = np.array(given) ** 1.6 / (np.array(given) ** 1.6).sum()
    return [int(k) for k in rng.multinomial(n - 2, target)]


def _rows(
    concept: str, arm: str, attribute: str, counts: list[int], given: Any, reference: str, n: int, cannot_tell: bool
) -> list[dict[str, Any]]:
    levels = LEVELS[attribute]
    shares = (given, 1 - given) if isinstance(given, float) else given
    found = []
    for k, level in enumerate(levels):
        row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        row |= {"prompt_set": "emoji_occupations", "concept": concept, "template": "plain", "arm": arm}
        row |= {"attribute": attribute, "level": level, "n": n, "n_one_person": n - 2, "n_blocked": 1, "n_failed": 1}
        row |= {"n_cannot_tell": n - 2 if cannot_tell else 3, "method": "joint posterior of shares and confusion matrix"}
        raw = wilson(0 if cannot_tell else counts[k], 0 if cannot_tell else n - 2)
        true = wilson(round(0.96 * raw.n * raw.value), raw.n) if raw.known else raw
        for prefix, e in (("raw_", raw), ("", true)):
            row |= {f"{prefix}low": e.low, f"{prefix}high": e.high}
            row["raw_share" if prefix else "share"] = e.value if e.known else ""
        row |= {"reference_source": reference, "direction": "no reference"}
        if shares is None:
            row["reference_missing"] = f"no row of this table is mapped to '{concept}'" if reference else "no reference"
        else:
            ends = (shares[k] - 0.02, shares[k] + 0.02) if "BLS" in reference else (shares[k], shares[k])
            row |= {"reference": shares[k], "reference_low": max(ends[0], 0), "reference_high": min(ends[1], 1)}
            row |= {"difference_low": true.low - shares[k], "difference_high": true.high - shares[k]}
            row["difference"] = true.value - shares[k] if true.known else ""
            holds = true.low <= shares[k] <= true.high
            away = (true.value > shares[k]) == (shares[k] > 0.47)
            row["direction"] = "no evidence" if holds else f"{'away from' if away else 'towards'} the base rate"
            row["p_adjusted"] = 1.0 if holds else 0.00004
        found.append(row)
    return found


def _summary(
    arms: Sequence[str], references: Sequence[str], attributes: Sequence[str], known: Any, n_concepts: int
) -> dict[str, Any]:
    pooled = [
        {
            "arm": arm,
            "attribute": attribute,
            "title": figures.title_of(attribute),
            "level": level,
            "reference": reference,
            "n_concepts": min(n_concepts, len(known[reference][attribute])),
            "n_images": 480,
            "mean_difference": {"value": -0.021, "low": -0.045, "high": 0.003},
            "base": 0.469 if len(LEVELS[attribute]) == 2 else 0.2,
        }
        | (
            {
                "shift": {"value": -0.12, "low": -0.41, "high": 0.17},
                "stretch": {"value": 1.46, "low": 1.21, "high": 1.77},
                "scatter": {"value": 0.22, "low": 0.03, "high": 0.51},
            }
            if len(LEVELS[attribute]) == 2
            else {}
        )
        for attribute in attributes
        for reference in references
        if attribute in known.get(reference, {})
        for arm in arms
        for level in (LEVELS[attribute][:1] if len(LEVELS[attribute]) == 2 else LEVELS[attribute])
    ]
    return {
        "study": "made_up",
        "model": "embedded",
        "guidance_scale": 3.0,
        "images": {"made": 68, "blocked": 1, "failed": 1, "total": 70, "asked": 350},
        "headline": "Against BLS CPS Table 11, 2023, embedded at guidance 3 amplifies the differences between 6 concepts "
        "in perceived gender presentation: stretch 1.46 on the log-odds scale (95 % interval 1.21 to 1.77; 1 is the "
        "reference).",
        "pooled": pooled,
        "classifier": {
            a: {"title": figures.title_of(a), "levels": LEVELS[a], "accuracy": 0.963, "n": 1240, "cannot_tell_rate": 0.06}
            for a in attributes
        },
    }


def _write_shard(run: store.Run, concepts: Sequence[str], arm: str, place: int, images: int) -> None:
    """A coloured disc per image; the last two of the first concept are blocked and failed."""
    records, pngs = [], []
    for sample in range(images):
        for concept in concepts:
            prompt = Prompt(prompt_set="emoji_occupations", concept=concept, template="plain", text=f"a {concept}")
            unit = WorkUnit(
                id=hashlib.sha256(f"{concept}{arm}{sample}".encode()).hexdigest()[:24],
                prompt=prompt,
                arm=arm,
                prompt_sent=prompt.text,
                negative_prompt="",
                sample=sample,
                seed=sample,
            )
            status = {(concepts[0], images - 1): "failed", (concepts[0], images - 2): "blocked"}.get((concept, sample), "made")
            pixels = _disc(concept, sample)
            reason = {"failed": "not a number", "blocked": "the safety checker"}.get(status, "")
            made = status == "made"
            records.append(
                ImageRecord(
                    unit=unit,
                    batch=0,
                    status=status,  # type: ignore[arg-type]
                    reason=reason,
                    sha256=store.sha256(pixels) if made else "",
                    seconds=0.1,
                )
            )
            pngs.append(store.encode(pixels) if made else None)
    if records:
        shard = Shard(arm=arm, start=0, stop=len(records))
        run.write_images(shard, records, pngs, {"python": "3.11.9", "torch": "2.12.1", "cpu": f"machine {place}"})


def _disc(concept: str, sample: int, size: int = 64) -> store.Pixels:
    colour = np.frombuffer(hashlib.sha256(f"{concept}{sample}".encode()).digest()[:3], np.uint8)
    y, x = np.mgrid[:size, :size] - size / 2
    inside = (x**2 + y**2 < (size / 3) ** 2)[..., None]
    return np.where(inside, colour, np.uint8(245)).astype(np.uint8)
