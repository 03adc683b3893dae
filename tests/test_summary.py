"""What is said of all concepts together, on runs that are made in the test."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

import prompt_sets
from classifiers.confusion import prior_of_errors
from classifiers.correction import corrected_shares_many, dirichlet
from pipeline import amplification, distances, stages, summary, tables
from pipeline.estimates import Shares, raw_shares, whole
from pipeline.line import Opened
from pipeline.tables import Key, Reading
from pipeline.types import Distribution
from prompt_sets import load_reference

Found = tuple[Opened, tables.Tally, list[Reading], dict[str, dict[Key, Shares]]]


@pytest.fixture
def found(drawn: Callable[..., Opened]) -> Found:
    opened = drawn(images_per_prompt=8)
    run, study, planned = opened
    described = stages.read_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"))
    attributes = tables.readings(described)
    counts = tables.tally(run, planned, study.perceive.name, attributes)
    return opened, counts, attributes, {r.attribute: tables.corrected(planned, counts, r) for r in attributes}


def entry(found: Found, attribute: str, table: str = "taught", **changed: Any) -> dict[str, Any]:
    opened, counts, attributes, shares = found
    reading = next(a for a in attributes if a.attribute == attribute)
    against = next(a for a in tables.references(opened[2]) if table in a.source(reading).lower())
    return summary.pooled(opened[2], counts, reading, against, "none", (shares | changed)[attribute])[0]


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
    assert pool["total_variation"]["n_concepts"] == 20
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


# The noise floor: what the estimates of a model that is exactly at the reference would show.


@pytest.mark.parametrize("attribute", ["gender", "skin_tone"])
def test_without_errors_the_floor_is_that_of_the_reference_at_each_concepts_n(
    found: Found, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, counts, attributes, shares = found
    reading = next(a for a in attributes if a.attribute == attribute)
    (against, _) = tables.references(opened[2])
    rng, expected = np.random.default_rng(0), []
    for key in shares[attribute]:
        of, n = against.of(key[1], reading), int(counts.count(key, reading)[:-1].sum())
        at = None if isinstance(of, str) else whole(of.shares)
        if at is not None and n:
            expected.append(amplification.noise_floor(at, n, rng=rng, draws=20_000))
    monkeypatch.setattr(distances, "DATASETS", 3000)
    monkeypatch.setattr(summary, "_stretched", lambda *_: {})
    assert len(expected) == 20
    assert entry(found, attribute)["total_variation"]["noise_floor"] == pytest.approx(np.mean(expected), rel=0.05)


def test_the_floor_has_the_noise_of_the_survey_too(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, counts, attributes, shares = found
    (_, against) = tables.references(opened[2])
    rng, expected = np.random.default_rng(0), []
    for key in shares["gender"]:
        of, n = against.of(key[1], attributes[0]), int(counts.count(key, attributes[0])[:-1].sum())
        if not isinstance(of, str) and of.n and n:
            seen, published = (rng.binomial(size, of.shares[0], 20_000) / size for size in (n, of.n))
            expected.append(np.abs(seen - published).mean())
    monkeypatch.setattr(distances, "DATASETS", 3000)
    monkeypatch.setattr(summary, "_stretched", lambda *_: {})
    assert entry(found, "gender", "bls")["total_variation"]["noise_floor"] == pytest.approx(np.mean(expected), rel=0.05)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_through_a_matrix_the_floor_is_what_the_estimates_themselves_would_show(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few short chains against the chains of the estimates, on other images and other errors."""
    rng, matrix, target = np.random.default_rng(1), np.array([[85, 15, 5], [24, 96, 5]]), np.array([share, 1 - share])
    errors = dirichlet(np.repeat((prior_of_errors(2) + matrix[:, :2])[None], 200, 0), rng)
    decided = target * [100 / 105, 120 / 125]
    said = decided / decided.sum() @ errors
    counts = rng.multinomial(60, said / said.sum(1, keepdims=True))
    fully = corrected_shares_many(np.column_stack([counts, np.zeros(200, np.int64)]), matrix, rng=rng)
    expected = np.mean([amplification.total_variation(one.value, target) for one in fully])
    monkeypatch.setattr(distances, "DATASETS", 3000)
    reading = Reading("gender", "perceived gender", ("woman", "man"), matrix)
    seen, published = distances.by_chance(np.array([60]), reading, ["cook"], target[None], np.array([0]), rng)
    assert (published == target).all()
    assert amplification.total_variation(seen, target).mean() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("lean", [np.inf, np.nan, 0.03])
def test_that_no_lean_would_erase_a_stretch_is_said_apart_from_not_known(
    found: Found, monkeypatch: pytest.MonkeyPatch, lean: float
) -> None:
    monkeypatch.setattr(summary.robustness, "erasing_lean", lambda *_, **__: lean)
    assert entry(found, "gender")["stretch"]["cannot_be_erased"] is (lean == np.inf)


def test_without_a_matrix_it_is_said_that_pooled_numbers_are_of_the_decided(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "_stretched", lambda *_: {})
    counts, (reading, *_) = found[1], found[2]
    assert reading.confusion is None and any(counts.count(key, reading)[-1] for key in found[3]["gender"])
    assert entry(found, "gender")["mean_difference"]["method"].endswith(summary.AMONG_DECIDED)
    for at in [at for at in counts.decisions if at[1:] == ("gender", "cannot tell")]:
        del counts.decisions[at]
    assert summary.AMONG_DECIDED not in entry(found, "gender")["mean_difference"]["method"]


def test_errors_that_are_each_concepts_own_raise_the_floor() -> None:
    rng, alike = np.random.default_rng(2), np.array([[90, 10, 0], [10, 90, 0]])
    by_concept = {
        "cook": alike,
        "nurse": np.array([[60, 40, 0], [0, 99, 0]]),
        "pilot": np.array([[99, 0, 0], [40, 60, 0]]),
    }
    together = Reading("gender", "perceived gender", ("woman", "man"), np.sum([*by_concept.values()], 0))
    floors = []
    for reading in (together, replace(together, by_concept=by_concept)):
        seen, _ = distances.by_chance(
            np.array([200]), reading, ["a concept nobody labelled"], np.array([[0.5, 0.5]]), np.array([0]), rng
        )
        floors.append(amplification.total_variation(seen, [0.5, 0.5]).mean())
    assert floors[1] > 1.5 * floors[0]


def test_pooled_numbers_are_corrected_by_the_errors_of_each_concept(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "_stretched", lambda *_: {})
    seen: list[Any] = []
    real = amplification.mean_difference
    monkeypatch.setattr(amplification, "mean_difference", lambda *a, **k: seen.append(a[1]) or real(*a, **k))
    opened, counts, attributes, shares = found
    reading = next(a for a in attributes if a.attribute == "gender")
    pairs = {key[1]: np.array([[9, 1, 0], [i, 9, 0]]) for i, key in enumerate(shares["gender"])}
    pairs |= {"a concept that was not drawn": np.array([[30, 2, 0], [1, 30, 0]])}
    apart = replace(reading, confusion=np.sum([*pairs.values()], 0), by_concept=pairs)
    summary.estimates(opened[2], counts, attributes, [apart])
    assert seen and all(table.shape == (len(pairs), 2, 3) for table in seen)
    assert (seen[0][-1] == pairs["a concept that was not drawn"]).all()
    # what people labelled of a concept is known of that concept
    key = next(iter(shares["gender"]))
    counts.labelled[key, "gender", "woman", "man"] += 4
    informed = tables.informed(apart, counts, [*shares["gender"]])
    assert (informed.by_concept[key[1]] - pairs[key[1]]).tolist() == [[0, 4, 0], [0, 0, 0]]
    assert informed.confusion is not None and (informed.confusion == np.sum([*informed.by_concept.values()], 0)).all()
    assert (tables.errors_by_concept(apart, [key[1], key[1]])[:2].sum((1, 2)) > 0).tolist() == [True, False]


# Images that people labelled.


def test_what_is_predicted_of_labelled_images_stays_among_the_predictions(
    found: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "_stretched", lambda *_: {})
    opened, counts, attributes, shares = found
    reading = next(a for a in attributes if a.attribute == "gender")
    key = next(iter(shares["gender"]))
    assert (summary._told(counts, key, reading) == counts.count(key, reading)).all()
    informed = replace(reading, confusion=np.array([[9, 1, 0], [1, 9, 0]]))
    said = next(level for level, n in zip(reading.columns, counts.count(key, reading), strict=True) if n > 1)
    counts.labelled[key, "gender", "woman", said] += 1
    every = dict(zip(reading.columns, counts.count(key, reading).tolist(), strict=True))
    told = summary._told(counts, key, informed)
    assert dict(zip(reading.columns, told.tolist(), strict=True)) == every
    # of one people could not tell, of one they could: as many of the others are left out
    counts.undecided[key, "gender", said] += 1
    half = {decision: np.rint(n / 2) for decision, n in (every | {said: every[said] - 2}).items()}
    told = summary._told(counts, key, informed)
    assert dict(zip(reading.columns, told.tolist(), strict=True)) == half | {said: half[said] + 1}
    # one that does not show one person says nothing of the others
    counts.not_one_person[key, "gender"] += 1
    assert (summary._told(counts, key, informed) == told).all()
    pools = summary.estimates(opened[2], counts, attributes, [informed])[1]["pooled"]
    assert pools and all(summary.BY_PEOPLE in pool["mean_difference"]["method"] for pool in pools)
    table = sum(summary._told(counts, k, informed) for k in shares["gender"] if counts.count(k, reading)[:-1].any())
    assert pools[0]["n_images"] == np.sum(table)


def test_pooled_numbers_of_an_arm_are_corrected_by_its_own_labels(
    drawn: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both arms show the reference, and the probe misreads 4 women in 10 in one of them: by the labels of both together
    each arm was off, to either side."""
    for part in ("_stretched", "_directional", "_distances", "corrected"):  # which take long
        monkeypatch.setattr(summary, part, lambda *_: {})
    planned = drawn(images_per_prompt=1, arms=["none", "guardrail"])[2]
    levels, rng, counts = ("woman", "man"), np.random.default_rng(1), tables.Tally()
    record = Reading("gender", "perceived gender", levels, np.array([[190, 10, 0], [10, 190, 0]]))
    (against, *_) = tables.references(planned)
    few = {prompt.concept for prompt in planned.prompts[:6]}
    for key in tables.keys(planned):
        of = against.of(key[1], record)
        if isinstance(of, str) or key[1] not in few:
            continue
        woman = rng.random(300) < of.shares[0]
        said = rng.random(300) < np.where(woman, 0.95 if key[4] == "none" else 0.6, 0.05)
        for place, (is_woman, read) in enumerate(zip(woman, said, strict=True)):
            decision = levels[not read]
            counts.decisions[key, "gender", decision] += 1
            if place < 40:
                counts.labelled[key, "gender", levels[not is_woman], decision] += 1
    informed = tables.informed(record, counts, tables.keys(planned))
    pools = summary.estimates(planned, counts, [record], [informed])[1]["pooled"]
    means = {pool["arm"]: pool["mean_difference"] for pool in pools if pool["reference"] == against.source(record)}
    assert len(means) == 2 and all("errors by arm" in mean["method"] for mean in means.values())
    for arm, mean in means.items():
        assert mean["low"] <= 0 <= mean["high"] and mean["erased_by"] == 0, arm
        together = summary.pooled(planned, counts, informed, against, arm, {})[0]["mean_difference"]
        assert abs(mean["value"]) < min(0.03, abs(together["value"]) / 2), arm


def asked_for(keys: Sequence[Key]) -> Any:
    """A plan of these keys of one arm, held against the shares of women in the occupations of BLS."""
    return SimpleNamespace(
        prompts=[SimpleNamespace(key=key[:4], concept=key[1]) for key in keys],
        arms=[SimpleNamespace(name=keys[0][4])],
        references=(load_reference("bls_cps_table11", 2023),),
        study=SimpleNamespace(seed=0, name="x"),
    )


def pooled(counts: tables.Tally, reading: Reading, keys: Sequence[Key]) -> dict[str, Any]:
    planned = asked_for(keys)
    informed, shares = tables.informed(reading, counts, keys), tables.corrected(planned, counts, reading)
    return summary.pooled(planned, counts, informed, tables.references(planned)[0], keys[0][4], shares)[0]


def two_concepts(reading: Reading, sizes: dict[str, int]) -> tuple[tables.Tally, list[Key]]:
    counts, keys = tables.Tally(), [("set", concept, "", "", "none") for concept in sizes]
    for key, n in zip(keys, sizes.values(), strict=True):
        for level in reading.levels:
            counts.decisions[key, "gender", level] = n // 2
    return counts, keys


READ = Reading("gender", "perceived gender", ("woman", "man"), np.array([[475, 25, 0], [25, 475, 0]]))


@pytest.mark.parametrize("labelled", [10, 18, 20])
def test_labels_that_confirm_the_probe_move_no_mean_difference(labelled: int) -> None:
    """Half of 100 nurses and of 20 CEOs are women. BLS has 87.4 and 29.9 %, so (-37.4 · 100 + 20.1 · 20) / 120 points are
    right, however many of either people labelled."""
    counts, keys = two_concepts(READ, {"nurse": 100, "CEO": 20})
    against = load_reference("bls_cps_table11", 2023)
    nurse, ceo = (_shares(against.distribution(key[1], "gender", READ.levels)) for key in keys)
    exact = (100 * (0.5 - nurse) + 20 * (0.5 - ceo)) / 120
    before = pooled(counts, READ, keys)
    for key in keys:
        for level in READ.levels:
            counts.labelled[key, "gender", level, level] = labelled // 2
    after = pooled(counts, READ, keys)
    for found in (before, after):  # less than a point: what the labels say of each concept's errors
        assert found["mean_difference"]["value"] == pytest.approx(exact, abs=0.009) and found["n_images"] == 120
    # and of CEOs whom people cannot tell in one of two the concept weighs what it did
    for level in READ.levels:
        counts.undecided[keys[1], "gender", level] = counts.labelled[keys[1], "gender", level, level] = 2
    assert pooled(counts, READ, keys)["mean_difference"]["value"] == pytest.approx(exact, abs=0.009)


def _shares(found: Distribution | str) -> float:
    assert not isinstance(found, str)
    return float(found.shares[0])


def test_without_a_matrix_pooled_numbers_are_what_was_read_exactly_and_claim_no_correction() -> None:
    """5 of 5 CEOs and 5 of 5 firefighters are men."""
    reading = replace(READ, confusion=None, uncorrected="as labelled by one person")
    counts, keys = tables.Tally(), [("set", concept, "", "", "none") for concept in ("CEO", "firefighter", "mechanic")]
    for key in keys:
        counts.decisions[key, "gender", "man"] = 5
    against = load_reference("bls_cps_table11", 2023)
    women = [_shares(against.distribution(key[1], "gender", reading.levels)) for key in keys]
    for n in (2, 3):
        found = pooled(counts, reading, keys[:n])
        mean, directional = found["mean_difference"], found["directional"]
        assert mean["value"] == pytest.approx(-np.mean(women[:n])) and mean["low"] <= mean["value"] < mean["high"]
        assert directional["value"] == pytest.approx(np.mean(women[:n]))
        assert directional["low"] < directional["value"] <= directional["high"]
        for name in ("mean_difference", "directional", "stretch"):
            method = found[name]["method"]
            assert method.startswith("not known") or reading.uncorrected in method
            assert not any(word in method for word in ("confusion", "corrected", "joint posterior"))
    assert not found["stretch"]["method"].startswith("not known")


def test_a_concept_that_comes_in_two_prompt_sets_is_one_concept() -> None:
    counts, keys = two_concepts(READ, {"nurse": 100, "CEO": 20, "firefighter": 20})
    alone = pooled(counts, READ, keys)["mean_difference"]["value"]
    keys += [("another set", *key[1:]) for key in keys]
    for (key, attribute, decision), n in list(counts.decisions.items()):
        counts.decisions[("another set", *key[1:]), attribute, decision] = n
    found = pooled(counts, READ, keys)
    assert found["n_concepts"] == found["total_variation"]["n_concepts"] == 3
    assert found["n_images"] == 280 and found["mean_difference"]["value"] == pytest.approx(alone, abs=0.003)
    planned = asked_for(keys)
    planned.model_of = lambda arm: "some model"
    shares = {"gender": tables.corrected(planned, counts, READ)}
    assert "between 3 concepts in" in summary.headline(planned, [found], counts, [READ], shares)


def test_two_concepts_that_come_in_two_prompt_sets_are_too_few_for_a_stretch() -> None:
    counts, keys = two_concepts(READ, {"nurse": 100, "CEO": 20})
    for (key, attribute, decision), n in list(counts.decisions.items()):
        counts.decisions[("another set", *key[1:]), attribute, decision] = n
    found = pooled(counts, READ, [*keys, *(("another set", *key[1:]) for key in keys)])
    for part in ("shift", "stretch", "scatter"):
        assert found[part]["method"].startswith("not known: too few concepts (2; three are needed)")


# The sentence to quote.


@pytest.mark.parametrize(
    ("stretch", "said"),
    [
        ({"low": 0.8, "high": 1.4, "erased_by": 0.0}, ""),
        (
            {"low": 1.1, "high": 1.4, "erased_by": 0.042},
            " A classifier that leans 4.2 points towards each concept’s stereotype explains the stretch away (not measured).",
        ),
        (
            {
                "low": 0.6,
                "high": 0.9,
                "erased_by": 0.03,
                "measured_lean": {"value": 0.011, "low": -0.004, "high": 0.026},
            },
            " A classifier that leans 3.0 points away from each concept’s stereotype explains the stretch away "
            "(measured: +1.1, -0.4 to +2.6).",
        ),
        (
            {
                "low": 1.1,
                "high": 1.4,
                "erased_by": 0.03,
                "measured_lean": {"value": 0.011, "low": -0.004, "high": 0.026},
                "method": "a fit, errors by concept",
            },
            " A classifier that leans 3.0 points further towards each concept’s stereotype than on labelled pictures "
            "explains the stretch away (there: +1.1, -0.4 to +2.6).",
        ),
        (
            {"low": 1.001, "high": 1.4, "erased_by": 0.002},
            " A classifier that leans less than 0.2 points towards each concept’s stereotype explains the stretch away "
            "(not measured).",
        ),
        ({"low": 1.1, "high": 1.4, "erased_by": np.inf}, " No lean of the classifier explains the stretch away."),
        ({"low": 1.1, "high": 1.4, "erased_by": np.nan}, ""),
    ],
)
def test_the_headline_says_how_wrong_the_classifier_would_have_to_be(
    found: Found, stretch: dict[str, Any], said: str
) -> None:
    opened, counts, attributes, shares = found
    known = [replace(attributes[0], confusion=np.array([[9, 1, 0], [1, 9, 0]]))]
    pool: dict[str, Any] = {
        "arm": opened[2].arms[0].name,
        "attribute": "gender",
        "title": "perceived gender",
        "level": "woman",
        "reference": "BLS",
        "n_concepts": 20,
        "n_images": 5000,
        "mean_difference": {"value": -0.05, "low": -0.08, "high": 0.02, "erased_by": 0.0},
        "stretch": {"value": 1.2} | stretch,
    }
    assert summary.headline(opened[2], [pool], counts, known, shares).endswith(f"over 5,000 images.{said}")
    raw = summary.headline(opened[2], [pool], counts, attributes, shares)
    assert raw.endswith(f", as the probe said, its errors not corrected, among the 5,000 images that it decided.{said}")
    pool["mean_difference"] |= {"high": -0.02, "erased_by": 0.017}
    misread = "misreads 1.7% of the images one way, beyond what is corrected, explains the mean difference away (not measured)."
    assert summary.headline(opened[2], [pool], counts, known, shares).endswith(misread)
    raw = summary.headline(opened[2], [pool], counts, attributes, shares)
    assert raw.endswith(misread.replace(", beyond what is corrected,", ""))


def test_a_reference_against_which_no_stretch_is_fitted_is_in_the_headline_level_by_level(found: Found) -> None:
    opened, counts, attributes, _ = found
    (tone,) = (a for a in attributes if a.attribute == "skin_tone")
    about = summary.estimates(opened[2], counts, [tone], [tone])[1]
    text = about["headline"]
    assert text.startswith(
        "Against “Typecast, taught shares, skin tone”, over 20 concepts of the model fake at guidance 3"
    )
    pairs = re.findall(
        r"of “([a-z-]+)” (?:is on average )?(\S+) (?:points from the reference )?\((\S+) to (\S+)\)", text
    )
    means = {level: [float(number) for number in numbers] for level, *numbers in pairs}
    assert [*means] == [*tone.levels]
    # by hand: the decided images' shares less those that the table gives their concepts
    (against, _) = tables.references(opened[2])
    said, given = np.zeros(5), np.zeros(5)
    for key in tables.concepts(tables.keys(opened[2])):
        decided = counts.count(key, tone)[:-1]
        reference = against.of(key[1], tone)
        assert not isinstance(reference, str)
        said, given = said + decided, given + decided.sum() * np.array(reference.shares)
    n = int(said.sum())
    assert n < counts.statuses.total() == 160
    assert [mean for mean, *_ in means.values()] == pytest.approx(list(100 * (said - given) / n), abs=1.5)
    for pool in about["pooled"]:
        assert means[pool["level"]][1:] == pytest.approx(
            [100 * pool["mean_difference"][end] for end in ("low", "high")], abs=0.051
        )
    assert f", as the probe said, its errors not corrected, among the {n} images that it decided." in text
    alone = replace(opened[2], study=opened[2].study.model_copy(update={"reference": ()}))
    none = summary.headline(alone, [], counts, [tone], {})
    assert none == "fake at guidance 3: 160 images were made; no reference covers enough of the concepts to say more."


def prompts(*concepts: str, **more: Any) -> list[dict[str, Any]]:
    """A prompt set of these concepts alone."""
    template = {"templates": {"works": "A {concept}" if not more else "A {identity} {concept}"}}
    known = {"description": "d", "source": "s", "licence": "l", "status": "verified"}
    return [{"mine": known | template | {"concepts": [*concepts]} | more}]


def headline_of(opened: Opened) -> str:
    run, study, planned = opened
    attributes = tables.readings(
        stages.read_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"))
    )
    counts = tables.tally(run, planned, study.perceive.name, attributes)
    return str(summary.estimates(planned, counts, attributes, attributes)[1]["headline"])


BLS = [{"table": "bls_cps_table11", "year": 2023}]


def test_the_headline_is_about_the_unchanged_prompts_or_names_its_arm(drawn: Callable[..., Opened]) -> None:
    asked: dict[str, Any] = {"prompt_sets": prompts("nurse", "carpenter", "dentist"), "images_per_prompt": 8}
    asked |= {"reference": BLS, "perceive": {"clip": "fake", "attributes": ["gender"]}}
    plain = headline_of(drawn("plain", **asked))
    assert headline_of(drawn("both", arms=["diversity_suffix", "none"], **asked)) == plain
    alone = headline_of(drawn("alone", arms=["diversity_suffix"], **asked))
    assert "the model fake at guidance 3 with the arm diversity_suffix " in alone and "arm" not in plain
    one = headline_of(drawn("one", arms=["diversity_suffix"], **(asked | {"prompt_sets": prompts("nurse")})))
    assert one.startswith("fake at guidance 3 with the arm diversity_suffix: of 8 images of “nurse”")


def test_the_headline_of_one_concept_gives_both_ends_of_a_reference_that_is_a_range(
    drawn: Callable[..., Opened],
) -> None:
    perceive = {"clip": "fake", "attributes": ["race"]}
    opened = drawn(prompt_sets=prompts("carpenter"), images_per_prompt=8, reference=BLS, perceive=perceive)
    with (Path(prompt_sets.__file__).parent / "reference" / "bls_cps_table11_2019_2023.csv").open(newline="") as file:
        (row,) = (r for r in csv.DictReader(file) if r["year"] == "2023" and r["occupation"] == "Carpenters")
    white, hispanic = float(row["pct_white"]), float(row["pct_hispanic"])
    assert headline_of(opened).endswith(f"has {white - hispanic:.1f} to {white:.1f}%.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {
                "perceive": {"clip": "fake", "attributes": ["age"]},
                "reference": [{"table": "bls_cps_table11b", "year": 2023}],
            },
            "since “BLS, CPS Table 11b, 2023, age” has no share of “child”: each concept by itself is compared.",
        ),
        (
            {"prompt_sets": prompts("nurse", "dentist", identities={"woman": "woman"})},
            "since the prompts name the group themselves: each concept by itself is compared.",
        ),
        ({"reference": []}, "no reference covers enough of the concepts to say more."),
    ],
)
def test_where_nothing_is_pooled_the_headline_says_why(
    drawn: Callable[..., Opened], changes: dict[str, Any], said: str
) -> None:
    asked: dict[str, Any] = {"prompt_sets": prompts("nurse", "dentist"), "images_per_prompt": 8, "reference": BLS}
    opened = drawn(**(asked | {"perceive": {"clip": "fake", "attributes": ["gender"]}} | changes))
    assert headline_of(opened).endswith(said)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("cannot tell", "in none of them could perceived gender or perceived age be told."),
        ("not one person", "none of them is taken to show one person."),
    ],
)
def test_where_nothing_is_decided_the_headline_does_not_blame_the_reference(
    found: Found, answer: str, said: str
) -> None:
    opened, counts = found[0], tables.Tally(statuses=found[1].statuses)
    asked = [Reading(name, f"perceived {name}", ("a", "b"), None) for name in ("gender", "age")]
    for key in tables.keys(opened[2]):
        counts.decisions[key, "gender", answer] = 8
    assert summary.headline(opened[2], [], counts, asked, {}) == f"fake at guidance 3: 160 images were made; {said}"
    nothing = summary.headline(opened[2], [], tables.Tally(), asked, {})
    assert nothing == "fake at guidance 3: no image was made."


def test_pictures_that_do_not_show_one_person_are_in_no_rate_of_the_undecided() -> None:
    key, counts = ("set", "cook", "plain", "", "none"), tables.Tally()
    for said, n in (("woman", 10), ("man", 15), ("cannot tell", 25), ("not one person", 50)):
        counts.decisions[key, "gender", said] = n
    record = summary._record(Reading("gender", "perceived gender", ("woman", "man"), None), counts)
    found = [record[f"cannot_tell_{end}"] for end in ("rate", "low", "high")]
    assert found == pytest.approx([0.5, *proportion_confint(25, 50, method="wilson")])
