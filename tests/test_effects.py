"""Arms beside `none`, on runs whose truth is made in the test."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from classifiers.correction import corrected_means, corrected_shares_many
from pipeline import (
    amplification,
    changes,
    distances,
    effects,
    figures,
    labels,
    line,
    mitigations,
    report,
    store,
    tables,
)
from pipeline.effects import verdict
from pipeline.estimates import Shares
from pipeline.line import Opened
from pipeline.mitigations import Goal
from pipeline.tables import Key, Reading, Tally
from pipeline.types import NOT_ONE_PERSON, Attribute, Perceived, digest
from tests import tiny

LEVELS = ("woman", "man")
ERRORS = {"woman": 0.1, "man": 0.05}
MATRIX = [[180, 20, 0], [10, 190, 0]]
TARGET = {"target": {"attribute": "gender", "to": "uniform"}}
GENDER: dict[str, Any] = {"perceive": {"clip": "fake", "attributes": ["gender"]}, "reference": []}
"""Without a reference, whose fits take most of the time of an estimate."""


def chance(seed: int, what: str) -> float:
    return int(digest([seed, what])[:8], 16) / 16**8


def woman(row: dict[str, Any], share: float = 0.2, obeys: float = 1.0) -> bool:
    """A woman in a fifth of the images; where a level is asked for, what is asked if the model obeys. Seeds are shared."""
    asked = row["drawn"] in LEVELS and chance(row["seed"], "obeys") < obeys
    return bool(row["drawn"] == "woman") if asked else chance(row["seed"], "who") < share


def read_as(row: dict[str, Any], truth: bool, errors: dict[str, float]) -> str:
    level = LEVELS[not truth]
    return LEVELS[truth] if chance(row["seed"], "read") < errors[level] else level


def perceive_anew(
    opened: Opened,
    shows: Callable[[dict[str, Any]], bool] = woman,
    concept: Callable[[dict[str, Any]], str] = lambda row: str(row["concept"]),
    errors: Callable[[dict[str, Any]], dict[str, float]] = lambda row: ERRORS,
) -> None:
    """Perceptions in place of the fake's, by what each image is said to show."""
    run, study, planned = opened
    gender = Attribute(name="gender", title="perceived gender presentation", levels=LEVELS, wordings={})
    names = [prompt.concept for prompt in planned.prompts]
    directions = np.eye(len(names))
    for shard in planned.shards():
        rows = run.read_images(shard, ["unit_id", "seed", "drawn", "arm", "concept"]).to_pylist()
        said = [read_as(row, shows(row), errors(row)) for row in rows]
        seen = directions[[names.index(concept(row)) for row in rows]].astype(np.float16)
        run.perceptions(study.perceive.name, shard).unlink()
        run.write_perceptions(
            study.perceive.name,
            shard,
            [row["unit_id"] for row in rows],
            Perceived(seen, {"gender": np.zeros((len(rows), 2), np.float32)}, {"gender": said}),
            [gender],
        )
    folder = run.perceptions(study.perceive.name, "x").parent
    described = {
        "name": study.perceive.name,
        "attributes": {"gender": {"title": gender.title, "levels": list(LEVELS)}},
        "confusion": {"gender": MATRIX},
    }
    store.write_json(folder / "perceiver.json", described)
    words = {name: {"text": name, "embedding": row.tolist()} for name, row in zip(names, directions, strict=True)}
    store.write_json(folder / "concepts.json", words)
    line.estimate(opened)


def table(opened: Opened, name: str) -> list[dict[str, str]]:
    with (opened[0].folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def of_arm(opened: Opened, arm: str) -> dict[str, Any]:
    arms: list[dict[str, Any]] = json.loads((opened[0].folder / "summary.json").read_text())["arms"]
    return next(entry for entry in arms if entry["arm"] == arm)


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A run in which `target` brings a fifth of women to a half, of those nine in ten who obey."""
    from tests.conftest import fake_study

    study = fake_study(images_per_prompt=60, arms=["none", "guardrail", TARGET], **GENDER)
    opened = line.begin(study, tmp_path_factory.mktemp("parity") / "run")
    line.generate(opened, perceive=True)
    perceive_anew(opened, lambda row: woman(row, obeys=0.9))
    return opened


TRUTH = 0.9 * 0.5 + 0.1 * 0.2


def test_the_effect_of_an_arm_is_found_with_its_interval(parity: Opened) -> None:
    rows = [row for row in table(parity, "effects.csv") if row["arm"] == "target" and row["level"] == "woman"]
    whole = next(row for row in rows if row["concept"] == mitigations.ALL_CONCEPTS)
    assert float(whole["change_low"]) < TRUTH - 0.2 < float(whole["change_high"])
    assert float(whole["change"]) == pytest.approx(TRUTH - 0.2, abs=0.04)
    assert float(whole["p"]) < 1e-6 and float(whole["variance_factor"]) < 1 and int(whole["pairs"]) == 1200
    own = [row for row in rows if row is not whole]
    inside = [float(row["change_low"]) < TRUTH - 0.2 < float(row["change_high"]) for row in own]
    assert len(own) == 20 and np.mean(inside) >= 0.85
    assert tuple(rows[0]) == changes.COLUMNS and {row["baseline"] for row in rows} == {"none"}


def test_the_tests_are_mcnemars_on_pairs_of_one_seed_and_holms_over_concepts(parity: Opened) -> None:
    run, study, planned = parity
    said: dict[tuple[str, str, int], str] = {}
    for shard in planned.shards():
        images = run.read_images(shard, ["arm", "concept", "seed"]).to_pylist()
        read = run.read_perceptions(study.perceive.name, shard, ["gender"])["gender"].to_pylist()
        said |= {(i["arm"], i["concept"], i["seed"]): g for i, g in zip(images, read, strict=True)}
    rows = [
        row
        for row in table(parity, "effects.csv")
        if row["arm"] == "target" and row["level"] == "woman" and row["template"]
    ]
    tests = []
    for row in rows:
        pairs = [(g, said["target", c, s]) for (arm, c, s), g in said.items() if arm == "none" and c == row["concept"]]
        tests.append(mcnemar([[pairs.count((a, b)) for b in LEVELS] for a in LEVELS], exact=True).pvalue)
    assert [float(row["p"]) for row in rows] == pytest.approx(tests, rel=1e-4)
    assert [float(row["p_adjusted"]) for row in rows] == pytest.approx(multipletests(tests, method="holm")[1], rel=1e-4)


def test_an_arm_that_changes_nothing_has_no_effect_and_no_evidence(parity: Opened) -> None:
    rows = [row for row in table(parity, "effects.csv") if row["arm"] == "guardrail"]
    assert all(float(row["change_low"]) <= 0 <= float(row["change_high"]) and float(row["p"]) == 1 for row in rows)
    entry = of_arm(parity, "guardrail")
    assert entry["verdict"] == "no evidence" and entry["target"] == "uniform" and entry["n_past"] == 0
    assert entry["distance_change"]["low"] < 0 < entry["distance_change"]["high"]


def test_the_obedience_is_corrected_for_the_classifiers_errors(parity: Opened) -> None:
    rows = {
        (r["asked"], r["level"]): r for r in table(parity, "obedience-target.csv") if r["concept"] == "all concepts"
    }
    for asked, level, truth in (("woman", "woman", 0.9 + 0.1 * 0.2), ("man", "woman", 0.1 * 0.2)):
        row = rows[asked, level]
        assert float(row["low"]) < truth < float(row["high"]) and float(row["share"]) == pytest.approx(truth, abs=0.05)
        assert row["n"] == "600"
    raw = 0.92 * 0.9 + 0.08 * 0.05  # what a classifier taken at its word would say
    assert float(rows["woman", "woman"]["share"]) - raw > 0.04


def test_a_target_that_is_met_is_closer_and_its_numbers_are_those_of_the_truth(parity: Opened) -> None:
    entry = of_arm(parity, "target")
    assert entry["verdict"] == "closer" and entry["n_concepts"] == 20
    assert entry["distance_before"]["value"] == pytest.approx(0.3, abs=0.04)
    after = entry["distance_after"]
    assert after["value"] < after["noise_floor"] + 0.03
    change = entry["distance_change"]
    assert change["low"] < (0.5 - TRUTH) - 0.3 < change["high"]
    assert entry["excess"]["value"] == pytest.approx(TRUTH - 0.5, abs=0.04)
    # log 2 is the largest entropy of two levels
    evenness = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) / np.log(2) for p in (0.2, TRUTH)]
    assert entry["diversity"]["gender"]["value"] == pytest.approx(evenness[1] - evenness[0], abs=0.04)
    p = TRUTH
    factor = (0.5 * 0.92 * 0.08 + 0.5 * 0.02 * 0.98) / (p * (1 - p))
    assert entry["allocation"] == pytest.approx(factor, abs=0.08)
    assert entry["fidelity"]["recognised"][1]["value"] == 1 and entry["fidelity"]["clip_score_change"]["value"] == 0
    assert (entry["cost"]["words"], entry["cost"]["tokens"], entry["cost"]["cut_off"]) == (1, None, 0)
    assert entry["cost"]["not_made"][0]["value"] == 0


def test_the_cost_is_in_the_drawing_models_own_tokens(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    """The tiny model's tokenizer spells: a token for each letter, and 22 of them are read."""
    model = {"path": str(tiny.stable_diffusion(tmp_path / "model"))}
    draw = {"height": 32, "width": 32, "num_inference_steps": 1, "threads": 1}
    arms = ["none", {"suffix": {"text": " and a happy one"}}]
    opened = drawn(model=model, draw=draw, arms=arms, images_per_prompt=1, **GENDER)
    line.estimate(opened)
    cost = of_arm(opened, "suffix")["cost"]
    assert cost["tokens"] == len("andahappyone") and cost["words"] == 4
    letters = [len(prompt.text.replace(" ", "")) + cost["tokens"] for prompt in opened[2].prompts]
    assert cost["cut_off"] == sum(n > 22 for n in letters) > 0
    page = line.report(opened).read_text(encoding="utf-8")
    assert f"12.0 tokens; {cost['cut_off']} images: cut off" in page


# Errors that an arm changes

PUZZLED = {"woman": 0.02, "man": 0.3}


def label(opened: Opened, sheet: Path, per_concept: int, shows: Callable[[dict[str, Any]], bool] = woman) -> None:
    """A person labels a random sample, and is right."""
    run, study, planned = opened
    readings = line.read_by(run, study)
    sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=per_concept, seed=1)
    shards = [run.read_images(shard, ["unit_id", "seed", "drawn", "arm"]).to_pylist() for shard in planned.shards()]
    seen = {row["unit_id"]: LEVELS[not shows(row)] for rows in shards for row in rows}
    sheet.write_text("unit_id,gender\n" + "".join(f"{unit},{seen[unit]}\n" for unit in sample.units))
    labels.take(run, planned, readings, [sheet], now="2026-01-01T00:00:00Z")
    line.estimate(opened)


def test_errors_that_a_rewrite_changes_look_like_an_effect_until_people_label_both_arms(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    """A fifth are women in both arms; in one the probe calls three in ten men women."""
    opened = drawn(images_per_prompt=60, arms=["none", "guardrail"], **GENDER)
    perceive_anew(opened, errors=lambda row: ERRORS if row["arm"] == "none" else PUZZLED)
    said = 0.2 * 0.98 + 0.8 * 0.3 - (0.2 * 0.9 + 0.8 * 0.05)  # how much more often the probe says "woman"

    def of_all() -> dict[str, str]:
        rows = table(opened, "effects.csv")
        return next(row for row in rows if (row["concept"], row["level"]) == (mitigations.ALL_CONCEPTS, "woman"))

    before, entry = of_all(), of_arm(opened, "guardrail")
    assert float(before["change_low"]) > 0.15 and before["method"].endswith("same in both arms")
    assert 0.15 < float(before["erased_by"]) < said + 0.01
    assert entry["verdict"] == "closer" and entry["errors"] == "errors taken to be the same in both arms"
    assert 0.1 < entry["distance_change"]["erased_by"] < said + 0.01
    assert before["measured_difference"] == "" and "(not measured)" in report._said_of_erasing(entry)

    label(opened, tmp_path / "ann.csv", 12)
    after, entry = of_all(), of_arm(opened, "guardrail")
    assert float(after["change_low"]) < 0 < float(after["change_high"]) and abs(float(after["change"])) < said / 2
    assert after["method"].endswith("errors by arm") and float(after["erased_by"]) == 0
    assert entry["errors"] == "errors by arm" and entry["verdict"] == "no evidence"
    seen = (0.98 - 0.9 + 0.3 - 0.05) / 2
    assert 0 < float(after["measured_low"]) < seen < float(after["measured_high"]) < 0.3
    entry["distance_change"]["erased_by"] = 0.1
    assert "measured, and corrected: +" in report._said_of_erasing(entry)
    assert entry["distance_change"]["low"] < 0 < entry["distance_change"]["high"]
    page = line.report(opened).read_text(encoding="utf-8")
    assert "errors by arm" in page


def test_a_picture_that_people_say_shows_nobody_is_in_no_pair(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=30, arms=["none", "guardrail"], **GENDER)
    perceive_anew(opened)
    run, study, planned = opened
    readings = line.read_by(run, study)
    sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=20, seed=1)
    nobody = set(sorted(sample.units)[::2])
    said = "".join(f"{unit},{NOT_ONE_PERSON if unit in nobody else 'man'}\n" for unit in sample.units)
    (tmp_path / "ann.csv").write_text("unit_id,gender\n" + said)
    labels.take(run, planned, readings, [tmp_path / "ann.csv"], now="2026-01-01T00:00:00Z")
    line.estimate(opened)
    left: dict[tuple[str, int], set[str]] = {}
    for shard in planned.shards():
        for row in run.read_images(shard, ["unit_id", "concept", "sample", "arm"]).to_pylist():
            if row["unit_id"] not in nobody:
                left.setdefault((row["concept"], row["sample"]), set()).add(row["arm"])
    rows = [row for row in table(opened, "effects.csv") if row["concept"] != mitigations.ALL_CONCEPTS]
    assert rows
    for row in rows:
        arms = [of for (concept, _), of in left.items() if concept == row["concept"]]
        both = sum(len(of) == 2 for of in arms)
        assert both < 30 and (int(row["pairs"]), int(row["missing_partners"])) == (both, len(arms) - both)


def test_an_arm_whose_labels_lack_a_level_is_corrected_by_what_people_said_of_the_others(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    """Else a raw share would be held against a corrected one, and the same pictures would seem to have changed."""
    opened = drawn(images_per_prompt=30, arms=["none", "guardrail"], **GENDER)
    perceive_anew(opened)
    path = opened[0].perceptions(opened[1].perceive.name, "x").with_name("perceiver.json")
    store.write_json(path, json.loads(path.read_text()) | {"confusion": {}})
    label(opened, tmp_path / "ann.csv", 8, lambda row: row["arm"] == "none" and woman(row, 0.5))
    methods = {row["arm"]: row["method"] for row in table(opened, "estimates.csv") if row["level"] == "woman"}
    assert set(methods) == {"none", "guardrail"} and not any("raw" in method for method in methods.values())


def test_the_errors_are_by_arm_from_five_labelled_pictures_of_every_level_in_two_arms_on() -> None:
    keys = [("set", "cook", "plain", "", arm) for arm in ("none", "other", "third")]
    record = Reading("gender", "perceived gender presentation", LEVELS, np.array(MATRIX))
    counts = Tally()
    counts.labelled |= {(keys[0], "gender", "woman", "woman"): 5, (keys[0], "gender", "man", "man"): 5}
    counts.labelled |= {(keys[1], "gender", "woman", "woman"): 5, (keys[1], "gender", "man", "man"): 4}
    assert tables.by_arm(record, counts, keys) == {}  # an arm by its own labels beside one by everybody's
    counts.labelled[keys[1], "gender", "man", "woman"] += 1
    own = tables.by_arm(record, counts, keys)
    assert [*own] == ["none", "other"] and all(reading.of_arm for reading in own.values())
    assert tables.by_arm(record, counts, keys[:1]) == {} == tables.by_arm(record, Tally(), keys)
    everybodys = tables.informed(record, counts, keys)
    assert changes.said_of_errors(own["none"], own["other"], "arms") == "errors by arm"
    assert "of the baseline by its own labels" in changes.said_of_errors(own["none"], everybodys, "arms")
    assert "of the arm by its own labels" in changes.said_of_errors(everybodys, own["other"], "arms")
    assert "same in both arms" in changes.said_of_errors(everybodys, everybodys, "arms")
    apart = changes.measured(own["none"], everybodys)
    assert apart.method == "not measured" and changes.measured(own["none"], own["other"]).n


def audited(rng: np.random.Generator, change: float, errors: Sequence[dict[str, float]]) -> tuple[bool, bool]:
    """Is the true change in the interval, with one matrix for both arms and with the errors by arm?

    1,000 pairs of shared seeds, a fifth women at first; the record is 400 pictures that are read as in the first arm;
    of the pairs' pictures 100 of each arm are labelled.
    """
    keys = [("set", "cook", "plain", "", arm) for arm in ("none", "other")]
    who = rng.random(1000)
    counts, decisions = Tally(), []
    for key, share, wrong in zip(keys, (0.2, 0.2 + change), errors, strict=True):
        women = who < share
        said = np.where(rng.random(1000) < np.where(women, wrong["woman"], wrong["man"]), ~women, women)
        decisions.append(said)
        for truth, read in zip(women[:100], said[:100], strict=True):
            counts.labelled[key, "gender", LEVELS[not truth], LEVELS[not read]] += 1
    pairs = np.zeros((3, 3), np.int64)
    np.add.at(pairs, (1 - decisions[0].astype(int), 1 - decisions[1].astype(int)), 1)
    record = [rng.multinomial(200, p) for p in ([0.9, 0.1, 0], [0.05, 0.95, 0])]
    same = Reading("gender", "perceived gender presentation", LEVELS, np.array(record))
    own = tables.by_arm(same, counts, keys)
    inside = []
    for mine, theirs in ((same, same), (own["none"], own["other"])):
        sides = [changes.Side(reading=reading, shares={}, counts={}) for reading in (mine, theirs)]
        found = next(changes.pooled(*sides, keys[1:], {keys[1]: (pairs, 0)}, rng))["change"]
        inside.append(found["low"] <= change <= found["high"])
    return inside[0], inside[1]


@pytest.mark.parametrize(
    ("change", "errors", "same_will_do"),
    [(0.0, (ERRORS, PUZZLED), False), (0.2, (ERRORS, PUZZLED), False), (0.2, (ERRORS, ERRORS), True)],
)
def test_the_interval_by_arm_holds_the_true_change_whether_or_not_the_errors_differ(
    change: float, errors: tuple[dict[str, float], dict[str, float]], same_will_do: bool
) -> None:
    audits = np.array([audited(np.random.default_rng(seed), change, errors) for seed in range(25)])
    same, by_arm = audits.mean(0)
    assert by_arm >= 0.9
    assert same >= 0.8 if same_will_do else same == 0


# Over-corrected, broken, left alone


def test_past_the_target_is_over_corrected(drawn: Callable[..., Opened]) -> None:
    """As in Raza et al. (2025): ten of ten men became ten of ten women."""
    opened = drawn(images_per_prompt=30, arms=["none", "diversity_suffix"], **GENDER)
    perceive_anew(opened, lambda row: woman(row, share=0.02 if row["arm"] == "none" else 0.98))
    entry = of_arm(opened, "diversity_suffix")
    assert entry["verdict"] == "over-corrected" and entry["n_past"] == 20
    assert entry["excess"]["value"] == pytest.approx(0.48, abs=0.06)


def test_a_concept_that_is_lost_is_broken_whatever_the_shares(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=30, arms=["none", TARGET], **GENDER)
    perceive_anew(
        opened,
        concept=lambda row: "cook" if row["arm"] == "target" and chance(row["seed"], "lost") < 0.3 else row["concept"],
    )
    entry = of_arm(opened, "target")
    assert entry["verdict"] == "broke the concept"
    before, after = entry["fidelity"]["recognised"]
    assert before["value"] == 1 and after["value"] == pytest.approx(1 - 0.3 * 0.95, abs=0.05)
    assert entry["fidelity"]["clip_score_change"]["high"] < 0


def test_a_pilots_obedience_brings_the_next_run_to_its_target(drawn: Callable[..., Opened]) -> None:
    pilot = drawn("pilot", images_per_prompt=60, arms=["none", TARGET], **GENDER)
    perceive_anew(pilot, lambda row: woman(row, obeys=0.7))
    told = {"target": {**TARGET["target"], "obedience": str(pilot[0].folder / "obedience-target.csv")}}
    after = drawn("after", images_per_prompt=60, arms=["none", told], **GENDER)
    perceive_anew(after, lambda row: woman(row, obeys=0.7))
    shares = [of_arm(opened, "target")["excess"] for opened in (pilot, after)]
    assert shares[0]["high"] < 0  # 0.7 * 0.5 + 0.3 * 0.2 is 9 points short
    assert shares[1]["low"] < 0 < shares[1]["high"]


def test_prompts_that_were_left_alone_are_counted(drawn: Callable[..., Opened]) -> None:
    market = {"target": {"attribute": "gender", "to": "bls_cps_table11"}}
    opened = drawn(images_per_prompt=6, arms=["none", market], **GENDER)
    perceive_anew(opened)
    entry = of_arm(opened, "target")
    assert sum(entry["left_alone"].values()) == 12 and entry["n_concepts"] == 18


def test_a_study_of_one_arm_or_without_a_baseline_has_no_effects(drawn: Callable[..., Opened]) -> None:
    for name, arms in (("one", ["none"]), ("two", ["guardrail", "diversity_suffix"])):
        opened = drawn(name, images_per_prompt=4, arms=arms, **GENDER)
        line.estimate(opened)
        assert not (opened[0].folder / "effects.csv").exists()
        assert json.loads((opened[0].folder / "summary.json").read_text())["arms"] == []


def interval(low: float, high: float) -> dict[str, float]:
    return {"value": (low + high) / 2, "low": low, "high": high}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "closer"),
        ({"distance_change": interval(-0.1, 0.1)}, "no evidence"),
        ({"distance_change": interval(0.1, 0.2)}, "further"),
        ({"excess": interval(0.01, 0.1)}, "over-corrected"),
        ({"n_past": 1}, "closer"),
        ({"n_past": 1, "distance_change": interval(-0.1, 0.1)}, "over-corrected"),
        ({"fidelity": {"recognised_change": interval(-0.2, -0.06)}}, "broke the concept"),
        ({"fidelity": {"recognised_change": interval(-0.2, -0.04)}}, "closer"),
        ({"distance_change": None}, "not tested"),
    ],
)
def test_the_verdict_is_by_the_intervals(changes: dict[str, Any], said: str) -> None:
    entry = {"fidelity": {}, "distance_change": interval(-0.2, -0.1), "excess": interval(-0.1, 0.1), "n_past": 0}
    assert verdict(entry | changes) == said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"verdict": "closer", "n_past": 1, "n_concepts": 5}, "closer, over-corrected in 1 of 5"),
        ({"verdict": "closer", "n_past": 0, "n_concepts": 5}, "closer"),
        ({"verdict": "over-corrected", "n_past": 2, "n_concepts": 5}, "over-corrected"),
        ({"verdict": "not tested"}, "not tested"),
    ],
)
def test_the_verdict_in_words_hides_no_concept_that_was_over_corrected(entry: dict[str, Any], said: str) -> None:
    assert effects.in_words(entry) == said


def test_the_figure_shows_the_diversity_of_the_attribute_that_the_target_is_of() -> None:
    known = {"gender": interval(0.1, 0.2), "age": interval(-0.2, -0.1), "race": None}
    entry: dict[str, Any] = {"diversity": known, "fidelity": {}, "cost": {}}
    assert figures.five_numbers(entry | {"attribute": "gender"})[2] == known["gender"]
    assert figures.five_numbers(entry | {"attribute": "race"})[2] == known["gender"]  # of which nothing is known


def test_nothing_is_said_of_an_arm_that_is_not_drawn_yet(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=4, arms=["none", "guardrail"], **GENDER)
    for shard in opened[2].shards():
        if shard.arm == "guardrail":
            opened[0].images(shard).unlink()
    line.estimate(opened)
    assert json.loads((opened[0].folder / "summary.json").read_text())["arms"] == []
    assert effects.BASELINE == "none" and not (opened[0].folder / "effects.csv").exists()


def distance(found: dict[str, float]) -> str:
    value, low, high, floor = (100 * found[name] for name in ("value", "low", "high", "noise_floor"))
    return f"{value:.1f} ({low:.1f} to {high:.1f}; noise alone {floor:.1f})"


def test_the_interval_of_a_distance_holds_what_is_found_on_average() -> None:
    rng, truth = np.random.default_rng(6), np.linspace(0.05, 0.6, 8)
    found = []
    for _ in range(60):
        shares = counted(rng, truth, 40)
        found.append(
            distances.apart(np.array([s.value for s in shares]), distances.thinned(shares), np.full((8, 2), 0.5))
        )
    mean = np.mean([one["value"] for one in found])
    assert np.mean([one["low"] <= mean <= one["high"] for one in found]) >= 0.87
    assert np.mean([one["high"] - one["low"] for one in found]) < 5 * np.std([one["value"] for one in found])


def test_the_report_has_the_table_the_figure_and_the_verdicts(parity: Opened) -> None:
    page = line.report(parity).read_text(encoding="utf-8")
    assert "Did it help?" in page and (parity[0].folder / "figures" / "arms.svg").stat().st_size > 1000
    section = page[page.index('id="arms"') : page.index('id="figures"')]
    entry = of_arm(parity, "target")
    for words in (">closer<", ">no evidence<", distance(entry["distance_before"]), "; change "):
        assert words in section
    assert "over the prompts without identity terms, those that an arm left alone among them" in section
    assert "of the variance of independent draws" in section and "nan" not in section


def counted(rng: np.random.Generator, truth: np.ndarray, n: int) -> list[Shares]:
    """Shares of two levels as `n` images of each concept show them."""
    women = rng.binomial(n, truth)
    draws = [rng.dirichlet([k + 0.5, n - k + 0.5], 500) for k in women]
    means = [d.mean(0) for d in draws]
    return [Shares(value=m, low=m, high=m, n=n, method="", draws=d, joint=d) for m, d in zip(means, draws, strict=True)]


def test_pairs_make_did_it_help_surer_and_it_still_covers() -> None:
    """Eighteen concepts of 12 pairs, of which 9 in 10 show the same: a true gain of 8 points, and none."""
    rng, names = np.random.default_rng(4), [str(c) for c in range(18)]
    right, wide, surer = 0, [], []
    for audit in range(30):
        truth, gain = rng.uniform(0.1, 0.4, 18), 0.08 * (audit % 2)
        keys: list[Key] = [("s", name, "t", "", "arm") for name in names]
        was = rng.random((18, 12)) < truth[:, None]
        anew = rng.random((18, 12)) < 0.1
        now = np.where(anew, rng.random((18, 12)) < truth[:, None], was)
        now |= ~now & (rng.random((18, 12)) < (gain / (1 - truth))[:, None])
        counts = {
            key: np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
            for key, a, b in zip(keys, was, now, strict=True)
        }
        shares = {}
        for key, table in counts.items():
            for place, seen in ((effects._before(key), table.sum(1)), (key, table.sum(0))):
                draws = rng.dirichlet(seen + 0.5, 2000)
                mean = draws.mean(0)
                shares[place] = Shares(value=mean, low=mean, high=mean, n=12, method="", draws=draws, joint=draws)
        reading = Reading("gender", "", ("woman", "man"), None)
        together = shares | effects.coupled(shares, changes.paired(counts, reading, reading, rng), rng)
        half = [(0.5, 0.5)] * 18
        one, other = (
            distances.nearer(names, [side[effects._before(k)] for k in keys], [side[k] for k in keys], half)[
                "distance_change"
            ]
            for side in (shares, together)
        )
        after = truth + gain
        expected = np.sqrt(np.mean((after - 0.5) ** 2)) - np.sqrt(np.mean((truth - 0.5) ** 2))
        right += other["low"] <= expected <= other["high"]
        wide.append((other["high"] - other["low"]) / (one["high"] - one["low"]))
        surer.append((one["high"] < 0, other["high"] < 0, gain > 0))
    assert right >= 26 and np.mean(wide) < 0.7
    alone, paired, gained = np.array(surer).T
    assert paired[gained].sum() > alone[gained].sum() and paired[~gained].sum() <= 2


def test_the_floor_of_a_distance_is_that_of_a_model_at_the_target_wherever_this_one_stands() -> None:
    rng, reading, n = np.random.default_rng(3), Reading("gender", "", ("woman", "man"), None), (40, 10)
    pairs = [(("s", f"c{c}", "", "t", "none"), ("s", f"c{c}", "", "t", "arm")) for c in range(6)]
    tally, shares = Tally(), {}
    for side, (share, size) in enumerate(zip((0.02, 0.9), n, strict=True)):
        for pair, one in zip(pairs, counted(rng, np.full(6, share), size), strict=True):
            shares[pair[side]] = one
            tally.decisions[pair[side], "gender", "woman"] = size // 2
            tally.decisions[pair[side], "gender", "man"] = size - size // 2
    found = effects.towards(Goal("gender", "uniform"), shares, pairs, (reading, reading), tally, rng)
    for when, size in zip(("before", "after"), n, strict=True):
        expected = amplification.noise_floor([0.5, 0.5], size, rng=rng, draws=50_000)
        assert found[f"distance_{when}"]["noise_floor"] == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(("times", "concepts", "n"), [(0.6, 18, 12), pytest.param(1.0, 4, 10, marks=pytest.mark.slow)])
def test_an_arm_that_changes_nothing_is_seldom_over_corrected(times: float, concepts: int, n: int) -> None:
    """The baseline is at so many times the target. When its side was taken as certain, 13 of 100 were."""
    rng, names = np.random.default_rng(5), [str(c) for c in range(concepts)]
    targets = np.linspace(0.05, 0.95, concepts)
    wrong = 0
    for _ in range(60):
        sides = [counted(rng, times * targets, n) for _ in range(2)]
        found = distances.nearer(names, *sides, [(t, 1 - t) for t in targets])
        wrong += found["excess"]["low"] > 0 or found["n_past"] > 0
    assert wrong <= 6  # of 60; 5 % and two standard deviations


@pytest.mark.parametrize(
    ("before", "after", "n"),
    [
        (0.2, 0.2, 40),
        pytest.param(0.05, 0.95, 40, marks=pytest.mark.slow),
        pytest.param(0.2, 0.5, 40, marks=pytest.mark.slow),
        pytest.param(0.5, 0.2, 40, marks=pytest.mark.slow),
    ],
)
def test_the_interval_holds_the_true_change_of_the_distance(before: float, after: float, n: int) -> None:
    """Twenty concepts about the shares that are given, and parity as the target: 40 audits."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(40):
        spread = rng.uniform(-0.05, 0.05, 20)
        truths = [np.clip(share + spread, 0.01, 0.99) for share in (before, after)]
        sides = [counted(rng, truth, n) for truth in truths]
        found = distances.nearer([str(c) for c in range(20)], *sides, [(0.5, 0.5)] * 20)
        apart = [np.sqrt(np.mean((truth - 0.5) ** 2)) for truth in truths]
        change = apart[1] - apart[0]
        interval_ = found["distance_change"]
        inside.append(interval_["low"] <= change <= interval_["high"])
    assert np.mean(inside) >= 0.85


def test_the_page_says_what_a_prompt_that_draws_one_image_cannot_know(drawn: Callable[..., Opened]) -> None:
    opened = drawn(arms=["none", "diversity_suffix"], images_per_prompt=2, **GENDER)
    line.estimate(opened)
    page = line.report(opened).read_text(encoding="utf-8")
    assert page.count("which knows of no batch") == 1


def test_a_change_is_corrected_by_the_errors_of_its_concept_and_the_mean_by_those_of_the_concepts_that_moved() -> None:
    """Women are misread in half of the concepts, and there more of them are drawn: one matrix finds half of the change."""
    rng, levels = np.random.default_rng(31), ("woman", "man")
    names = [f"concept {i}" for i in range(10)]
    before, after = np.full(10, 0.3), np.where(np.arange(10) % 2, 0.7, 0.3)
    right = np.where(np.arange(10) % 2, 0.6, 0.98)
    keys = [("set", name, "a photo of {}", "", "arm") for name in names]
    covered, held_by_one, own = 0, 0, []
    for _ in range(12):
        by_concept, pairs = {}, {}
        for key, p, q, r in zip(keys, before, after, right, strict=True):
            hits, others = rng.binomial(60, r), rng.binomial(60, 0.02)
            by_concept[key[1]] = np.array([[hits, 60 - hits, 0], [others, 60 - others, 0]])
            errors = np.array([[r, 1 - r], [0.02, 0.98]])
            table = np.outer([p, 1 - p] @ errors, [q, 1 - q] @ errors)
            pairs[key] = np.pad(rng.multinomial(150, table.ravel()).reshape(2, 2), (0, 1))
        whole = np.sum([*by_concept.values()], 0)
        reading = Reading("gender", "", levels, whole, (), by_concept)
        moved = changes.paired(pairs, reading, reading, rng)
        own += [
            moved[k].change[0].low <= q - p <= moved[k].change[0].high
            for k, p, q in zip(keys, before, after, strict=True)
        ]
        every = np.array([*pairs.values()])
        mean = changes._pairs_together(every, names, reading, reading, rng).change[0]
        one = replace(reading, by_concept={})
        by_one = changes._pairs_together(every, names, one, one, rng).change[0]
        covered += mean.low <= 0.2 <= mean.high
        held_by_one += by_one.low <= 0.2 <= by_one.high
    assert np.mean(own) >= 0.92
    assert covered >= 10 and held_by_one <= 4, (covered, held_by_one)
    # two prompts of one concept have its labels both
    halves, chance = np.concatenate([every - every // 2, every // 2]), np.random.default_rng
    twice = changes._pairs_together(halves, names * 2, reading, reading, chance(0)).change[0]
    assert twice == changes._pairs_together(every, names, reading, reading, chance(0)).change[0]


@pytest.mark.parametrize("alike", [True, False])
def test_what_is_not_known_of_a_matrix_does_not_average_out_over_concepts(alike: bool) -> None:
    """The mean over thirty concepts is as uncertain as when their sum is corrected once; apart, it seemed far surer."""
    rng, chances = np.random.default_rng(8), np.array([[0.85, 0.05, 0.1], [0.08, 0.82, 0.1]])
    labelled = np.array([rng.multinomial(60, row) for row in chances])
    keys: list[Key] = [("set", str(c), "t", "", "arm") for c in range(30)]
    pairs = [(effects._before(key), key) for key in keys]
    counts, shares = [], {}
    for side, at in enumerate((0.3, 0.5)):
        shown = np.column_stack([truth := np.linspace(at - 0.1, at + 0.1, 30), 1 - truth])
        counts.append(np.array([rng.multinomial(100, row @ chances) for row in shown]))
        shares |= zip((pair[side] for pair in pairs), corrected_shares_many(counts[-1], labelled, rng=rng), strict=True)
    sides = [Reading("gender", "", ("woman", "man"), labelled) for _ in range(2)]
    together = effects.of_one_matrix(shares, pairs, (sides[0], sides[0] if alike else sides[1]), rng)
    assert set(together) == set(shares)

    def spread(found: dict[Key, Shares], *weights: float) -> float:
        means = [distances.thinned([found[pair[side]] for pair in pairs])[..., 0].mean(1) for side in range(2)]
        return float(np.std(np.array(weights) @ means))

    for side, weights in enumerate(((1, 0), (0, 1))):
        (once,) = corrected_means(counts[side], labelled, rng=rng)
        assert once.draws is not None
        expected = once.draws[:, 0].std()
        assert spread(shares, *weights) < 0.6 * expected
        assert spread(together, *weights) == pytest.approx(expected, rel=0.25)
    # errors in common cancel for the most part in a change; of two matrices they add up
    assert (spread(together, -1, 1) < 0.6 * np.hypot(spread(together, 1, 0), spread(together, 0, 1))) == alike


def test_a_matrix_that_tells_nothing_moves_every_share_at_will() -> None:
    rng, keys = np.random.default_rng(0), [("set", str(c), "t", "", "arm") for c in range(4)]
    pairs = [(effects._before(key), key) for key in keys]
    draws = rng.dirichlet([3, 3], 2000)
    flat = Shares(value=draws.mean(0), low=draws.min(0), high=draws.max(0), n=6, method="", draws=draws, joint=draws)
    reading = Reading("gender", "", ("woman", "man"), np.array([[20, 20, 0], [20, 20, 0]]))
    found = effects.of_one_matrix({key: flat for pair in pairs for key in pair}, pairs, (reading, reading), rng)
    for share in found.values():
        assert share.joint is not None and np.sort(share.joint[:, 0]) == pytest.approx(np.sort(draws[::4, 0]), abs=0.05)


def test_errors_by_concept_or_none_have_nothing_in_common() -> None:
    reading = Reading("gender", "", ("woman", "man"), None)
    assert effects.of_one_matrix({}, [], (reading, reading), np.random.default_rng(0)) == {}


# What is not known of the undecided, of images without a partner


RAW = Reading("gender", "", ("woman", "man"), None)


def test_undecided_images_that_may_be_of_any_level_bring_no_arm_closer() -> None:
    """Three concepts; with the arm 80 of 100 are undecided: shares of .1 to .9, as far from a half as .1, .9 and .85 were."""
    rng, tally, pairs = np.random.default_rng(0), Tally(), []
    shares: dict[Key, Shares] = {}
    for name, before in (("CEO", (10, 90)), ("nurse", (90, 10)), ("athlete", (15, 85))):
        keys: list[Key] = [("s", name, "t", "", arm) for arm in ("plain", "suffix")]
        pairs.append((keys[0], keys[1]))
        for key, counts in zip(keys, ([*before, 0], [10, 10, 80]), strict=True):
            tally.decisions.update({(key, "gender", said): n for said, n in zip(RAW.columns, counts, strict=True)})
            shares[key] = tables.uncorrected(np.array(counts), RAW, rng)
    found = effects.towards(Goal("gender", "uniform"), shares, pairs, (RAW, RAW), tally, rng)
    assert verdict(found | {"fidelity": {}}) == "no evidence"
    change, after = found["distance_change"], found["distance_after"]
    assert change["low"] < -0.38 and change["high"] > np.sqrt(0.4**2) - np.sqrt((2 * 0.4**2 + 0.35**2) / 3)
    assert after["low"] < 0.02 and after["high"] > 0.4 and found["excess"]["low"] < 0 < found["excess"]["high"]
    diversity = effects.entropy(shares, pairs)
    assert diversity and diversity["low"] < 0 < diversity["high"]


def test_undecided_images_are_as_near_to_a_target_and_as_far_from_it_as_any_division_of_them() -> None:
    rng, target = np.random.default_rng(1), np.array([0.5, 0.3, 0.2])
    divided = rng.dirichlet([0.3] * 3, 20_000)
    for told, part in (([0.1, 0.6, 0.3], 0.4), ([0.4, 0.3, 0.3], 0.05), ([0.9, 0.05, 0.05], 0.8)):
        near, far = distances._divided(np.array(told), np.array([part]), target)
        every = np.array(told) * (1 - part) + part * divided
        for size in (lambda x: np.abs(x).sum(-1) / 2, lambda x: np.sqrt((x**2).sum(-1))):
            found = size(every - target)
            assert size(near - target) <= found.min() + 1e-12 and size(near - target) == pytest.approx(
                found.min(), abs=0.02
            )
            assert size(far - target) >= found.max() - 1e-12 and size(far - target) == pytest.approx(
                found.max(), abs=0.02
            )
        for end in (near, far):
            assert end.sum() == pytest.approx(1) and (end >= np.array(told) * (1 - part) - 1e-12).all()


def test_shares_hang_together_only_as_far_as_their_images_are_pairs() -> None:
    """25 pairs, of which two differ, beside 100 and 400 images: held against estimates from simulated images."""
    key: Key = ("s", "c", "t", "", "arm")
    place, pairs = effects._before(key), np.array([[5, 0, 0], [2, 18, 0], [0, 0, 0]])
    cells, size = np.array([5, 0, 2, 18]) / 25, 20_000
    for after in ([28, 72, 0], [112, 288, 0]):
        rng, n = np.random.default_rng(2), sum(after)
        shares = {
            place: tables.uncorrected(np.array([5, 20, 0]), RAW, rng),
            key: tables.uncorrected(np.array(after), RAW, rng),
        }
        shares |= effects.coupled(shares, changes.paired({key: pairs}, RAW, RAW, rng), rng)
        draws = distances.thinned([shares[place], shares[key]])[..., 0].T
        both = rng.multinomial(25, cells, size)
        now = (both[:, 0] + both[:, 2] + rng.binomial(n - 25, cells[0] + cells[2], size)) / n
        truth = np.corrcoef((both[:, 0] + both[:, 1]) / 25, now)[0, 1]
        assert np.corrcoef(draws)[0, 1] == pytest.approx(truth, abs=0.12) and truth < 0.45


def test_with_errors_by_concept_the_p_is_that_of_the_mean_change_beside_it() -> None:
    """.3 to .5 where the probe is sharp and .5 to .3 where it is blunt: no change, and far more women in the raw decisions."""
    errors = {"sharp": np.array([[59, 1, 0], [1, 59, 0]]), "blunt": np.array([[45, 15, 0], [15, 45, 0]])}
    by_concept = {f"{name}{i}": matrix for name, matrix in errors.items() for i in range(5)}
    reading = Reading("gender", "", LEVELS, np.sum([*by_concept.values()], 0), (), by_concept)
    pairs: dict[Key, tuple[np.ndarray, int]] = {}
    for name, matrix in by_concept.items():
        p, q = (0.3, 0.5) if name.startswith("sharp") else (0.5, 0.3)
        chances = matrix[:, :2] / 60
        seen = 400 * np.outer([p, 1 - p] @ chances, [q, 1 - q] @ chances)
        pairs["s", name, "t", "", "arm"] = np.pad(np.rint(seen).astype(int), (0, 1)), 0
    side = changes.Side(reading=reading, shares={}, counts={})
    found = next(changes.pooled(side, side, [*pairs], pairs, np.random.default_rng(0)))
    assert found["change"]["low"] < 0 < found["change"]["high"] and found["p"] > 0.05


def test_pairs_that_show_nobody_on_both_sides_tell_nothing() -> None:
    key: Key = ("s", "nurse", "t", "", "arm")
    rng, nothing = np.random.default_rng(0), np.zeros(3, int)
    side = changes.Side(reading=RAW, shares={key: tables.uncorrected(nothing, RAW, rng)}, counts={key: nothing})
    pairs = {key: (np.zeros((3, 3), int), 0)}
    with np.errstate(all="raise"):
        (row, _) = changes.rows(side, side, [key], pairs, rng)
        (whole, _) = changes.pooled(side, side, [key], pairs, rng)
    assert np.isnan(row["change"]) and (row["change_low"], row["change_high"], row["p"]) == (-1, 1, 1)
    assert (whole["change"]["low"], whole["change"]["high"], whole["p"]) == (-1, 1, 1)


@pytest.mark.parametrize("gone", ["none", "guardrail"])
def test_images_that_either_side_lacks_are_missing_partners(drawn: Callable[..., Opened], gone: str) -> None:
    opened = drawn(images_per_prompt=30, arms=["none", "guardrail"], **GENDER)
    perceive_anew(opened)
    run, study, planned = opened
    lost = [shard for shard in planned.shards() if shard.arm == gone][1:]
    assert lost
    for shard in lost:
        run.images(shard).unlink()
        run.perceptions(study.perceive.name, shard).unlink()
    line.estimate(opened)
    rows = [row for row in table(opened, "effects.csv") if row["template"] and row["level"] == "woman"]
    assert rows and sum(int(row["missing_partners"] or 0) for row in rows) > 0
    assert all(int(row["pairs"]) + int(row["missing_partners"]) == 30 for row in rows if int(row["pairs"]))


def test_images_left_alone_are_those_of_neutral_prompts() -> None:
    shard: Any = object.__new__(effects._Shard)
    columns = {"identity": ["", "woman"], "drawn": ["left alone: names a group"] * 2, "status": ["made"] * 2}
    columns |= {name: ["a photo"] * 2 for name in ("prompt", "prompt_sent", "negative_prompt")}
    numbers = {"tokens": [1, 1], "tokens_cut": [0, 0], "seconds": [1.0, 1.0]}
    shard.table, shard.scores, shard.recognised = (
        pa.table({**columns, **numbers}),
        np.full(2, np.nan),
        np.zeros(2, bool),
    )
    images = effects.Images()
    shard.add_to(images, mitigations.Unchanged())
    assert images.n == 2 and effects._left_alone(images.drawn) == {"names a group": 1}
