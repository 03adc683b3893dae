"""From perceptions to the rows of the table: what is counted, and what it is held against."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from classifiers.attributes import GENDER, MONK_TONE, RACES, SKIN_TONE
from classifiers.correction import corrected_shares, corrected_shares_many
from pipeline import amplification, figures, line, stages, tables
from pipeline.errors import RunError
from pipeline.estimates import prediction_powered, wilson
from pipeline.line import Opened
from pipeline.types import CANNOT_TELL, Distribution, Intersection
from prompt_sets import load_reference


def test_decisions_together_are_those_of_the_noun() -> None:
    genders = ["woman", CANNOT_TELL, "man", "man"]
    tones = ["dark", "light", CANNOT_TELL, "medium"]
    both = Intersection(of=(GENDER, SKIN_TONE))
    joined = tables.together([pa.chunked_array([genders]), pa.chunked_array([tones])]).to_pylist()
    assert joined == both.together({"gender": genders, "skin_tone": tones})
    assert joined == ["woman, dark", CANNOT_TELL, CANNOT_TELL, "man, medium"]
    assert set(joined) - {CANNOT_TELL} <= set(both.levels) and len(both.levels) == 10


def described(labels: int, concepts: int) -> dict[str, object]:
    rows = [[labels, 0, 0], [1, labels - 1, 0]]
    return {
        "attributes": {"gender": {"title": "perceived gender presentation", "levels": ["woman", "man"]}},
        "confusion": {"gender": (np.array(rows) * concepts).tolist()},
        "confusion_by_concept": {"gender": {f"c{i}": rows for i in range(concepts)}},
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"confusion": {"gender": [[-9, 1, 0], [1, 9, 0]]}}, "confusion of gender must be whole numbers"),
        ({"confusion": {"gender": [[9, 1, math.nan], [1, 9, 0]]}}, "confusion of gender must be counts"),
        ({"confusion": {"gender": [[9, 1, 0], [1, 9]]}}, "confusion of gender must be counts in a table"),
        ({"confusion": {"gender": [[9, 1], [1, 9]]}}, "confusion of gender must be 2 x 3"),
        ({"confusion_by_concept": {"gender": {"c": [[9, 0.5, 0], [1, 9, 0]]}}}, "confusion of gender must be whole"),
        ({"confusion": {}, "attributes": {"gender": {}}}, "KeyError"),
        ({"attributes": []}, "AttributeError"),
    ],
)
def test_a_perceiver_that_is_not_as_it_was_written_is_one_message(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    (tmp_path / "perceiver.json").write_text(json.dumps(described(9, 1) | changed))
    with pytest.raises(RunError, match=rf"perceiver.json: cannot be read: .*{said}"):
        tables.described_in(tmp_path / "perceiver.json")


@pytest.mark.parametrize(("labels", "concepts", "apart"), [(5, 3, True), (4, 3, False), (50, 2, False)])
def test_errors_are_taken_by_concept_only_where_enough_is_labelled(labels: int, concepts: int, apart: bool) -> None:
    (reading,) = tables.readings(described(labels, concepts))
    assert bool(reading.by_concept) is apart
    assert doubted(reading) == []


def test_a_classifier_that_hardly_tells_levels_apart_is_said_so_once_and_by_name() -> None:
    blind = described(9, 3) | {"confusion": {"gender": [[5, 5, 0], [5, 5, 0]]}, "confusion_by_concept": {}}
    (warning,) = doubted(*tables.readings(blind))
    assert warning.startswith("perceived gender presentation: ") and "hardly tells some levels apart" in warning


def doubted(*attributes: tables.Reading) -> list[str]:
    """What is said of attributes, while correcting by their matrices warns of nothing more."""
    said: list[str] = []
    with warnings.catch_warnings(), tables.doubts(attributes, said.append):
        for reading in attributes:
            tables.means(np.array([[5, 5, 1]]), ["cook"], [[1.0]], reading, np.random.default_rng(0))
    return said


def test_the_method_says_so_where_errors_are_taken_by_concept(drawn: Callable[..., Opened]) -> None:
    run, study, planned = drawn(images_per_prompt=4)
    (reading,) = tables.readings(described(9, 3))
    counts = tables.tally(run, planned, study.perceive.name, [reading])
    by_concept = tables.corrected(planned, counts, reading)
    alike = tables.corrected(planned, counts, replace(reading, by_concept={}))
    assert all(share.method.endswith(", errors by concept") for share in by_concept.values())
    assert not any("by concept" in share.method for share in alike.values())


def test_labelled_pictures_without_a_concept_count_beside_those_by_concept() -> None:
    """Three concepts of ten pictures each, and the rest of the record: the n on the page is the n that is used."""
    for rest, apart in ((7, True), (400, False)):
        record = described(5, 3)
        record["confusion"] = {"gender": [[15 + rest, 0, 0], [3, 12 + rest, 0]]}
        (reading,) = tables.readings(record)
        assert bool(reading.by_concept) is apart and reading.confusion is not None
        used = tables.matrices(reading, ["c0", "other"])
        assert used.sum() == reading.confusion.sum() == 30 + 2 * rest
    with pytest.raises(ValueError, match="confusion_by_concept of gender counts pictures that confusion does not"):
        tables.readings(described(5, 3) | {"confusion": {"gender": [[14, 0, 0], [3, 12, 0]]}})


def test_labelled_pictures_of_a_concept_are_its_own_however_its_letters_are_cased() -> None:
    rows = {f"c{i}": [[39, 1, 0], [1, 39, 0]] for i in range(3)} | {"CEO": [[10, 30, 0], [1, 39, 0]]}
    shares = []
    for spelled in ({"CEO": rows["CEO"]}, {"Ceo": [[4, 11, 0], [0, 20, 0]], "ceo": [[6, 19, 0], [1, 19, 0]]}):
        known = {concept: rows[concept] for concept in ("c0", "c1", "c2")} | spelled
        counted: dict[str, Any] = {"confusion": {"gender": np.sum([*known.values()], axis=0).tolist()}}
        (reading,) = tables.readings(described(40, 4) | counted | {"confusion_by_concept": {"gender": known}})
        assert len(reading.by_concept) == 4
        for concept in ("CEO", "ceo"):
            key, counts = ("set", concept, "plain", "", "none"), tables.Tally()
            for said in ("woman", "man"):
                counts.labelled[key, "gender", "man", said] = 3
            after = tables.informed(reading, counts, [key])
            assert len(after.by_concept) == 4  # in which the run's labels are those of the same concept
            errors = tables.errors_of(after, ["c0", concept]).taken_for
            (share,) = tables._block([key], np.array([[20, 80, 0]]), after, np.random.default_rng(0))
            shares.append((errors.tolist(), share.value.tolist(), tables.matrices(after, [concept]).tolist()))
    assert all(each == shares[0] for each in shares)
    assert shares[0][2][0] == [[10, 30, 0], [4, 42, 0]]


def test_what_was_decided_stands_beside_its_image_apart_and_together(drawn: Callable[..., Opened]) -> None:
    run, study, planned = drawn(images_per_prompt=4)
    described = stages.read_json(run.perceptions(study.perceive.name, "x").with_name("perceiver.json"))
    attributes = tables.readings(described)
    shard = planned.shards()[0]
    table = tables.decided(run, study.perceive.name, shard, attributes, ["concept", "seed"])
    assert table.column_names == ["concept", "seed", "gender", "skin_tone", "gender_x_skin_tone"]
    both = Intersection(of=(GENDER, SKIN_TONE))
    for row in table.to_pylist():
        (expected,) = both.together({name: [row[name]] for name in ("gender", "skin_tone")})
        assert row["gender_x_skin_tone"] == expected


def test_an_intersection_is_counted_image_by_image_and_every_level_stays(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=4)
    run, study, planned = opened
    expected = Counter[tuple[str, str]]()
    for shard in planned.shards():
        images = run.read_images(shard, ["concept"])["concept"].to_pylist()
        seen = run.read_perceptions(study.perceive.name, shard, ["gender", "skin_tone"]).to_pydict()
        for concept, gender, tone in zip(images, seen["gender"], seen["skin_tone"], strict=True):
            expected[concept, CANNOT_TELL if CANNOT_TELL in (gender, tone) else f"{gender}, {tone}"] += 1
    line.estimate(opened)
    with (run.folder / "estimates.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["attribute"] == "gender_x_skin_tone"]
    assert len({row["level"] for row in rows}) == 10
    for row in rows:
        decided = sum(
            n for (concept, level), n in expected.items() if concept == row["concept"] and level != CANNOT_TELL
        )
        assert int(row["n_one_person"]) == 4 and int(row["n_cannot_tell"]) == 4 - decided
        if decided:
            assert float(row["raw_share"]) == round(expected[row["concept"], row["level"]] / decided, 6)


def test_tones_read_twice_are_set_beside_each_other(drawn: Callable[..., Opened], monkeypatch: Any) -> None:
    """The fake reads one tone; colour is made to say twice that and one more, and now and then nothing."""
    run, study, planned = drawn(images_per_prompt=5, perceive={"clip": "fake", "attributes": ["skin_tone"]})
    name = study.perceive.name
    mine = tables.readings(stages.read_json(run.perceptions(name, "x").with_name("perceiver.json")))
    colour = tables.Reading(MONK_TONE.name, MONK_TONE.title, MONK_TONE.levels, None)
    assert tables.two_tones(run, planned, name, mine) is None
    read = type(run).read_perceptions

    def also(self: Any, perceiver: str, shard: Any, columns: Any = None) -> Any:
        table = read(self, perceiver, shard, ["skin_tone"])
        said = [
            "not one person"
            if n % 10 == 0 or tone == CANNOT_TELL
            else str(2 * SKIN_TONE.levels.index(tone) + 1 + n % 2)
            for n, tone in enumerate(table["skin_tone"].to_pylist())
        ]
        return table.append_column(MONK_TONE.name, [said])

    monkeypatch.setattr(type(run), "read_perceptions", also)
    found = tables.two_tones(run, planned, name, [*mine, colour])
    assert found is not None and isinstance(found["counts"], list)
    counts = np.array(found["counts"])
    assert counts.shape == (5, 10) and counts.sum() == found["n"] > 60
    assert counts[~np.kron(np.eye(5, dtype=bool), np.ones((1, 2), bool))].sum() == 0
    one, other = (np.repeat(at, counts.ravel()) for at in np.indices(counts.shape).reshape(2, -1))
    ranks = [np.array([np.mean(np.flatnonzero(np.sort(x) == v)) for v in x]) for x in (one, other)]
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])


SEVERAL = """
description: Two templates of three occupations, and one prompt that names a group.
source: the test
licence: Apache-2.0
status: verified
templates:
  plain: "a photo of {a_concept}"
  proud: "a photo of a proud {concept}"
  named: "a photo of {an_identity} {concept}"
concepts: [mechanic, pilot, teacher]
identities: {woman: female}
"""


def test_the_templates_of_a_concept_are_one_concept(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(SEVERAL)
    opened = drawn(
        prompt_sets=[str(tmp_path / "several.yaml")], images_per_prompt=12, arms=["none", {"negative": {"text": "x"}}],
        draw={"height": 16, "width": 16, "threads": 1, "guidance_scale": 5}, perceive={"clip": "fake", "attributes": ["gender"]},
        reference=[{"table": "taught_shares"}],
    )  # fmt: skip
    line.estimate(opened)
    folder = opened[0].folder
    for name, n in (("estimates.csv", "n"), ("effects.csv", "pairs")):
        with (folder / name).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["level"] == "woman" and row["concept"] != "all concepts"]
        assert {row["template"] for row in rows} == {"*", "plain", "proud", "named"}
        parts = Counter[tuple[str, str]]()
        for row in rows:
            if row["template"] in ("plain", "proud"):
                assert not row["p_adjusted"]
                parts[row["concept"], row["arm"]] += int(row[n])
        whole = {(row["concept"], row["arm"]): int(row[n]) for row in rows if row["template"] == "*"}
        assert whole == parts and len(whole) == 3 * len({row["arm"] for row in rows})
        assert all(row["p_adjusted"] for row in rows if row["template"] in ("*", "named"))
    pooled = json.loads((folder / "summary.json").read_text())["pooled"]
    assert {entry["n_concepts"] for entry in pooled} == {3} and len(pooled) == 2
    arm = json.loads((folder / "summary.json").read_text())["arms"][0]
    assert arm["n_concepts"] == 3 and arm["diversity"]["gender"]["n"] == 3
    with (folder / "estimates.csv").open(newline="") as file:
        shown = figures.by_concept([*csv.DictReader(file)])
    assert {row["template"] for row in shown} == {"*", "named"}
    assert figures.labels([row for row in shown if row["level"] == "woman" and row["arm"] == "none"])[:2] == [
        "mechanic, woman, named",
        "pilot, woman, named",
    ]
    assert "The templates of a concept are taken together" in line.report(opened).read_text()


def test_the_share_of_several_templates_is_that_of_their_counts(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    (tmp_path / "several.yaml").write_text(SEVERAL)
    run, study, planned = drawn(
        prompt_sets=[str(tmp_path / "several.yaml")], images_per_prompt=40, perceive={"clip": "fake", "attributes": ["gender"]}
    )  # fmt: skip
    (reading,) = line.read_by(run, study)
    reading = replace(reading, confusion=np.array([[40, 6, 2], [3, 45, 0]]))
    counts = tables.tally(run, planned, study.perceive.name, [reading])
    found = tables.corrected(planned, counts, reading)
    for concept in ("mechanic", "pilot", "teacher"):
        apart = [counts.count(("several", concept, t, "", "none"), reading) for t in ("plain", "proud")]
        rng = np.random.default_rng(0)
        share = corrected_shares(np.sum(apart, axis=0), reading.confusion, rng=rng)
        whole = found["several", concept, "*", "", "none"]
        assert whole.n == sum(sum(row) for row in apart) == 80
        assert whole.estimate(0)[:3] == pytest.approx(share.estimate(0)[:3], abs=0.02)


def test_means_without_a_matrix_are_raw_and_count_the_undecided_either_way() -> None:
    reading = tables.Reading("gender", "perceived gender", ("woman", "man"), None)
    counts, rng = np.array([[30, 10, 20], [5, 35, 0]]), np.random.default_rng(0)
    together, one = tables.means(counts, ["cook", "nurse"], [[1, 1], [1, 0]], reading, rng)
    assert together.value[0] == 35 / 80 and one.value[0] == 30 / 40 and one.n == 60
    assert (one.low[0], one.high[0]) == (wilson(30, 60, 0.95).low, wilson(50, 60, 0.95).high)
    assert one.method == reading.uncorrected


def test_the_mean_without_a_matrix_is_not_rounded_to_whole_pictures() -> None:
    reading = tables.Reading("gender", "perceived gender", ("woman", "man"), None)
    counts, rng = np.array([[3, 11, 0], [5, 5, 0]]), np.random.default_rng(0)
    (mean,) = tables.means(counts, ["cook", "nurse"], 1 / counts.sum(1)[None], reading, rng)
    assert mean.value == pytest.approx([(3 / 14 + 1 / 2) / 2, (11 / 14 + 1 / 2) / 2])


@pytest.mark.parametrize("reference", [0.306, 0.5, 0.1])
def test_a_share_whose_undecided_may_be_anything_is_tested_at_their_worst(reference: float) -> None:
    """12 women, no man and 20 undecided are anything from 12 to 32 women of 32."""
    reading = tables.Reading("gender", "perceived gender", ("woman", "man"), None)
    share = tables.uncorrected(np.array([12, 0, 20]), reading, np.random.default_rng(0))
    p = amplification.p_value(share, [reference, 1 - reference])
    fewest = stats.binomtest(12, 32, reference).pvalue
    assert p == pytest.approx(1 if reference > 12 / 32 else fewest, abs=0.08)  # the exact test is the more careful
    assert (p < 0.001) == (reference == 0.1)


def test_race_is_tested_though_white_is_a_range() -> None:
    """Black and Asian housekeepers have a share in the table; White one of 1,100 answers, with and without Hispanic people."""
    reading = tables.Reading("race", "perceived race category", RACES, None)
    found = load_reference("bls_cps_table11", 2023).distribution("housekeeper", "race", RACES)
    assert isinstance(found, Distribution) and found.n is not None and found.least[0] < 0.5 < found.shares[0]
    for black in (25, 60):
        share = tables.uncorrected(np.array([50, black, 5, 0]), reading, np.random.default_rng(0))
        n, k = 55 + black, round(found.shares[1] * found.n)
        exactly = stats.fisher_exact([[black, n - black], [k, found.n - k]], alternative="greater").pvalue
        assert tables._p_value(share, found) == pytest.approx(min(1, 3 * 2 * exactly), rel=0.8)
    none = tables.uncorrected(np.array([1, 40, 30, 0]), reading, np.random.default_rng(0))
    assert tables._p_value(none, found) < 1e-9, "fewer White than even without Hispanic people"
    row = tables._compared(none.estimate(0), found, 0, math.nan, 0.1, either=False)
    assert row["direction"] == "below all that the table allows" and row["direction"] in figures.DIRECTIONS


def test_the_row_a_concept_is_held_against_and_its_match_are_said(drawn: Callable[..., Opened]) -> None:
    asked = {"reference": [{"table": "bls_cps_table11", "year": 2019}], "images_per_prompt": 2}
    opened = drawn(perceive={"clip": "fake", "attributes": ["gender"]}, **asked)
    line.estimate(opened)
    with (opened[0].folder / "estimates.csv").open(newline="") as file:
        found = {row["concept"]: (row["reference_row"], row["reference_match"]) for row in csv.DictReader(file)}
    row = "Secretaries and administrative assistants"  # as it was called in 2019
    assert found["office worker"] == (row, "poor")
    assert found["astronaut"] == ("", "") and found["firefighter"][1] == "good"
    page = line.report(opened).read_text(encoding="utf-8")
    assert f"<li>poor: office worker, by “{row}”</li>" in page
    assert ": firefighter, by" not in page


def test_prompts_that_are_no_longer_those_that_were_drawn_are_one_message(drawn: Callable[..., Opened]) -> None:
    """A prompt set that ships may differ in the next version, and a run's study.yaml can be edited."""
    own = {"description": "d", "source": "s", "licence": "none", "status": "verified", "concepts": ["pilot", "nurse"]}
    run, _, _ = drawn(
        prompt_sets=[{"own": own | {"templates": {"one": "a photo of {a_concept}"}}}], images_per_prompt=2, reference=[]
    )
    run.study_file.write_text(run.study_file.read_text().replace("nurse", "plumber"))
    with pytest.raises(RunError, match=r"drawn from 'a photo of a nurse', which is no prompt of own any more"):
        line.estimate(line.reopen(run.folder))


def test_a_p_value_from_many_labels_does_not_believe_a_record_that_is_wrong_here() -> None:
    """The record says 95 % right, and of this concept's women a quarter are misread; half are women, as in the reference."""
    rng = np.random.default_rng(51)
    record = np.array([[171, 9, 20], [9, 171, 20]])
    here = np.array([[0.675, 0.225, 0.1], [0.027, 0.873, 0.1]])
    labels = rng.multinomial(100, (0.5 * here).ravel(), 60).reshape(-1, 2, 3)
    others = rng.multinomial(200, [0.5, 0.5] @ here, 60)
    joint = corrected_shares_many(others, record, labelled=labels, rng=rng)
    powered = [prediction_powered(some, rest) for some, rest in zip(labels, others, strict=True)]
    both = [tables._powered(*each) for each in zip(powered, joint, strict=True)]
    p = np.array([amplification.p_value(share, [0.5, 0.5]) for share in both])
    missed = np.array([not share.low[0] <= 0.5 <= share.high[0] for share in both])
    assert (p < 0.05).mean() <= 0.12
    assert ((p < 0.05) == missed).mean() >= 0.95
