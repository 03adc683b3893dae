"""What people say: the sample is a random one, no answer is lost, and only the sample moves the estimates."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifiers.correction import corrected_shares_many
from pipeline import labels, line, report, stages, tables
from pipeline.errors import InputError, RunError
from pipeline.estimates import prediction_powered, wilson
from pipeline.labels import Label
from pipeline.line import Opened
from pipeline.tables import Reading, Tally
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON
from tests.test_cli import typecast

NOW = "2026-01-02T03:04:05+00:00"
KEY = ("set", "cook", "face", "", "none")
LIGHT: dict[str, Any] = {
    "perceive": {"clip": "fake", "attributes": ["gender"]},
    "reference": [{"table": "bls_cps_table11", "year": 2023}],
}
"""What makes a study quick to estimate and to report."""
GENDER = Reading("gender", "perceived gender presentation", ("woman", "man"), None)


def fill(path: Path, rows: list[dict[str, str]], *, mark: str = "") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def sheet(opened: Opened, per_concept: int = 3, seed: int = 0) -> list[dict[str, str]]:
    run, study, planned = opened
    labels.draw(run, planned, study.perceive.name, line.read_by(run, study), per_concept=per_concept, seed=seed)
    with (labels.folder(run) / "sheet.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def take(opened: Opened, *files: Path) -> tuple[list[Label], list[Label]]:
    run, study, planned = opened
    return labels.take(run, planned, line.read_by(run, study), files, now=NOW)


def refused(opened: Opened, *files: Path) -> str:
    with pytest.raises(InputError) as caught:
        take(opened, *files)
    return str(caught.value)


# -- the sample --------------------------------------------------------------------------------------


def test_the_sample_has_as_many_of_each_concept_and_grows_by_what_it_has(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=12)
    run, _, planned = opened
    small = [row["unit_id"] for row in sheet(opened, 3)]
    concept = {
        row["unit_id"]: row["concept"]
        for shard in planned.shards()
        for row in run.read_images(shard, ["unit_id", "concept"]).to_pylist()
    }
    assert set(Counter(concept[unit] for unit in small).values()) == {3} and len(small) == 3 * 20
    assert [row["unit_id"] for row in sheet(opened, 3)] == small
    large = [row["unit_id"] for row in sheet(opened, 5)]
    assert set(small) < set(large) and len(large) == 5 * 20
    assert [concept[unit] for unit in large] != sorted(concept[unit] for unit in large)  # mixed, so that none leads
    with pytest.raises(RunError, match="seed 0"):
        sheet(opened, 5, seed=1)
    with pytest.raises(RunError, match="only grow"):
        sheet(opened, 4)


def grown(opened: Opened, to: int) -> Opened:
    """The same run with more images of each prompt."""
    run, study, _ = opened
    more = line.begin(study.model_copy(update={"images_per_prompt": to}), run.folder)
    line.generate(more, perceive=True)
    return more


def test_what_was_sampled_stays_in_a_run_that_grows(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=12, **LIGHT)
    rows = [row | {"gender": "woman"} for row in sheet(opened, 4)]
    take(opened, fill(tmp_path / "ann.csv", rows))
    more = grown(opened, 24)
    assert [row["unit_id"] for row in sheet(more, 4)] == [row["unit_id"] for row in rows]
    run, study, planned = more
    name, readings = study.perceive.name, line.read_by(*more[:2])
    counts = labels.counted(run, planned, name, readings, tables.tally(run, planned, name, readings))
    assert counts.labelled.total() == len(rows) == 80  # all of them are in the estimates still
    nearly_double, double = (labels.draw(run, planned, name, readings, per_concept=n, seed=0) for n in (7, 12))
    assert {row["unit_id"] for row in rows} < set(nearly_double.units) < set(double.units)
    (labels.folder(run) / "sample.json").unlink()
    assert labels.draw(run, planned, name, readings, per_concept=12, seed=0) == double  # as if it had always been large


def test_new_pictures_come_into_the_sample_as_it_grows_with_the_run(drawn: Callable[..., Opened]) -> None:
    """Two of ten images, then six of twenty: over seeds, half of the six are new."""
    small = drawn(images_per_prompt=10, **LIGHT)
    run, study, planned = small
    earlier = {u for shard in planned.shards() for u in run.read_images(shard, ["unit_id"])["unit_id"].to_pylist()}
    large = grown(small, 20)
    readings, new = line.read_by(run, study), 0
    for seed in range(30):
        first, same, most = (
            labels.draw(run, of, study.perceive.name, readings, per_concept=n, seed=seed)
            for of, n in ((planned, 2), (large[2], 2), (large[2], 6))
        )
        assert same == first and set(first.units) < set(most.units) and len(most.units) == 6 * 20
        new += len(set(most.units) - earlier)
        (labels.folder(run) / "sample.json").unlink()
    assert new / (30 * 6 * 20) == pytest.approx(0.5, abs=0.03)


def test_a_sheet_with_answers_is_not_written_over(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=4, **LIGHT)
    path = labels.folder(opened[0]) / "sheet.csv"
    rows = sheet(opened, 1)
    for note in ({"gender": "woman"}, {"gender": "womann"}, {"remark": "blurred"}):
        filled = fill(path, [row | dict.fromkeys(note, "") for row in rows[:-1]] + [rows[-1] | note]).read_bytes()
        with pytest.raises(RunError, match=r"answers that are not imported.*typecast labels import .*sheet\.csv"):
            sheet(opened, 2)
        assert path.read_bytes() == filled and labels.sample_of(opened[0]) is not None
    fill(path, [rows[0] | {"gender": "woman"}, *rows[1:]])
    take(opened, path)
    assert len(sheet(opened, 2)) == 40
    assert [(label.annotator, label.level) for label in labels.log_of(opened[0])] == [("sheet", "woman")]


def test_every_picture_is_as_likely_to_be_drawn(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=10, prompt_sets=["emoji_occupations"])
    run, study, planned = opened
    readings = line.read_by(run, study)
    times: Counter[str] = Counter()
    for seed in range(100):
        times.update(labels.draw(run, planned, study.perceive.name, readings, per_concept=2, seed=seed).units)
        (labels.folder(run) / "sample.json").unlink()
    assert sum(times.values()) == 100 * 40 and len(times) == len(planned) == 200
    chi_squared = sum((n - 20) ** 2 / 20 for n in times.values())  # of 180 degrees of freedom, times 0.8 (2 of 10)
    assert 110 < chi_squared / 0.8 < 260


def test_the_page_shows_the_pictures_and_not_what_the_probe_said(drawn: Callable[..., Opened]) -> None:
    opened = drawn(images_per_prompt=4)
    run, study, planned = opened
    readings = line.read_by(run, study)
    sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=1, seed=0)
    page = report.write_sheet(run, sample, readings, "keep_all").read_text(encoding="utf-8")
    assert [page.index(unit) for unit in sample.units] == sorted(page.index(unit) for unit in sample.units)
    assert page.count("<img ") == 20 and "mechanic" not in page and "http:" not in page and "https:" not in page
    assert page.count('type="radio"') == 20 * (3 + 6) and "gender_x_skin_tone" not in page
    assert not re.search(r"checked[ >]", page)
    assert "there is nobody, or there are several" in page and "face" not in page
    page = report.write_sheet(run, sample, readings, "largest_face").read_text(encoding="utf-8")
    assert "label the person whose face is largest" in page and "there are several." not in page


# -- the answers -------------------------------------------------------------------------------------


def test_answers_are_read_whatever_the_case_and_the_byte_order_mark(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    opened = drawn(images_per_prompt=4)
    rows = sheet(opened, 1)
    rows[0] |= {"gender": " Woman", "skin_tone": "DARK"}
    rows[1] |= {"gender": "cannot tell"}
    rows[2] |= {"gender": "Not one person"}
    new, corrections = take(opened, fill(tmp_path / "ann.csv", rows, mark="\ufeff"))
    assert [(n.unit_id, n.attribute, n.level) for n in new] == [
        (rows[0]["unit_id"], "gender", "woman"),
        (rows[0]["unit_id"], "skin_tone", "dark"),
        (rows[1]["unit_id"], "gender", CANNOT_TELL),
        (rows[2]["unit_id"], "gender", NOT_ONE_PERSON),
        (rows[2]["unit_id"], "skin_tone", NOT_ONE_PERSON),
    ]
    assert {(n.annotator, n.when, n.sampled) for n in new} == {("ann", NOW, "sample")} and corrections == []
    assert take(opened, tmp_path / "ann.csv") == ([], [])
    rows[0]["gender"] = "man"
    (changed,), _ = take(opened, fill(tmp_path / "ann.csv", rows))
    assert changed.level == "man" and len(labels.log_of(opened[0])) == 6


def test_what_is_wrong_in_a_sheet_is_one_error_with_its_lines_and_nothing_is_kept(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    opened = drawn(images_per_prompt=4)
    rows = sheet(opened, 1)[:4]
    rows[0]["gender"] = "female"
    rows[1] |= {"gender": "woman", "skin_tone": NOT_ONE_PERSON}
    rows[2] |= {"gender": "man", "unit_id": "nobody"}
    rows.append(rows[3] | {"gender": "man"})
    said = refused(opened, fill(tmp_path / "bad.csv", rows))
    assert "line 2: gender 'female' is no answer; the answers are: woman, man, cannot tell" in said
    assert "line 3: says 'not one person' and a level" in said and "line 4: unit_id 'nobody' is no picture" in said
    assert "line 6: bad labels the picture of line 5 again" in said
    good = fill(tmp_path / "good.csv", [sheet(opened, 1)[0] | {"gender": "man"}])
    refused(opened, good, tmp_path / "bad.csv")
    assert labels.log_of(opened[0]) == []
    assert "gendr" in refused(opened, fill(tmp_path / "c.csv", [{"unit_id": rows[0]["unit_id"], "gendr": "man"}]))
    assert "nothing is filled in" in refused(opened, labels.folder(opened[0]) / "sheet.csv")
    assert "no column 'unit_id'" in refused(opened, fill(tmp_path / "d.csv", [{"gender": "man"}]))
    both = fill(tmp_path / "e.csv", [{"unit_id": rows[0]["unit_id"], "annotator": "good", "gender": "woman"}])
    assert "does so in" in refused(opened, good, both)


def said_of(opened: Opened, unit: str) -> dict[str, tuple[str, str]]:
    run, study, planned = opened
    found = labels.opinions(run, planned.shards(), study.perceive.name, line.read_by(run, study))
    return {o.attribute: (o.people, o.answers) for o in found if o.unit_id == unit}


def test_not_one_person_is_said_of_the_picture_and_taken_back_of_all_attributes(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    opened = drawn(images_per_prompt=4)
    run, study, planned = opened
    row = sheet(opened, 1)[0]
    unit, nobody, woman = row["unit_id"], row | {"gender": NOT_ONE_PERSON}, row | {"gender": "woman"}
    take(opened, fill(tmp_path / "ann.csv", [nobody]))
    assert said_of(opened, unit) == dict.fromkeys(("gender", "skin_tone"), (NOT_ONE_PERSON, "ann: not one person"))
    take(opened, fill(tmp_path / "ann.csv", [woman]))
    assert said_of(opened, unit) == {"gender": ("woman", "ann: woman")}
    readings = line.read_by(run, study)
    counts = labels.counted(
        run, planned, study.perceive.name, readings, tables.tally(run, planned, study.perceive.name, readings)
    )
    assert counts.labelled.total() == 1 and not counts.not_one_person.total()
    assert len(take(opened, fill(tmp_path / "ann.csv", [nobody]))[0]) == 2  # said again, of both
    assert take(opened, tmp_path / "ann.csv") == ([], [])
    assert {people for people, _ in said_of(opened, unit).values()} == {NOT_ONE_PERSON}


def test_most_of_those_who_labelled_a_picture_say_whether_it_shows_one_person(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    opened = drawn(images_per_prompt=4)
    rows = sheet(opened, 1)[:3]
    says = {
        "ann": (NOT_ONE_PERSON, NOT_ONE_PERSON, NOT_ONE_PERSON),
        "bob": ("woman", NOT_ONE_PERSON, "woman"),
        "cid": ("woman", "woman", ""),
    }
    for who, answers in says.items():
        filled = [row | {"gender": answer} for row, answer in zip(rows, answers, strict=True)]
        take(opened, fill(tmp_path / f"{who}.csv", filled))
    outvoted, agreed, tied = (said_of(opened, row["unit_id"]) for row in rows)
    assert outvoted == {"gender": ("woman", "ann: not one person; bob: woman; cid: woman")}
    assert {people for people, _ in agreed.values()} == {NOT_ONE_PERSON} and len(agreed) == 2
    assert tied == {"gender": ("", "ann: not one person; bob: woman")}
    run, study, planned = opened
    about = labels.summary(run, planned, study.perceive.name, line.read_by(run, study))
    assert about and about["attributes"]["skin_tone"]["not_one_person"] == 1


def test_a_log_that_a_table_program_saved_is_read(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=4, **LIGHT)
    take(opened, fill(tmp_path / "ann.csv", [sheet(opened, 1)[0] | {"gender": "woman"}]))
    log, (label,) = labels.folder(opened[0]) / "labels.csv", labels.log_of(opened[0])
    plain = log.read_text()
    log.write_text(plain, encoding="utf-8-sig")
    assert labels.log_of(opened[0]) == [label] and line.status(opened)["labelled"] == 1
    log.write_text(plain.replace(",", ";"))
    with pytest.raises(RunError, match=r"labels\.csv: has no column 'when', 'annotator'.*its columns are: when;ann"):
        line.status(opened)


def test_people_agree_by_more_than_half(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    assert labels.agreed(["woman"]) == "woman" and labels.agreed(["woman", "man"]) == ""
    assert labels.agreed(["woman", "man", "woman"]) == "woman"
    assert labels.agreed(["woman", "man", CANNOT_TELL]) == ""


def test_alpha_is_the_published_one() -> None:
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C: nominal data, four observers, 12
    units with gaps: 0.743."""
    observers = (
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    )
    answers = [
        Label(when=NOW, annotator=str(a), unit_id=str(u), attribute="x", level=str(level), sampled="sample")
        for a, row in enumerate(observers)
        for u, level in enumerate(row)
        if level
    ]
    assert labels.alpha(answers) == pytest.approx(0.743, abs=5e-4)
    assert np.isnan(labels.alpha(answers[:9]))  # one observer alone
    assert np.isnan(labels.alpha(replace(answer, level="1") for answer in answers))  # 1 - 0/0


# -- the estimates -----------------------------------------------------------------------------------


def counts(table: Any, others: Any, *, nobody: int = 0, open_: int = 0) -> Tally:
    """One key: `table` (2, 3) labelled, `others` (3,) not."""
    tally = Tally()
    for k, level in enumerate(GENDER.levels):
        for j, decision in enumerate(GENDER.columns):
            tally.labelled[KEY, "gender", level, decision] = table[k][j]
            tally.decisions[KEY, "gender", decision] += table[k][j]
    for j, decision in enumerate(GENDER.columns):
        tally.decisions[KEY, "gender", decision] += others[j]
    tally.not_one_person[KEY, "gender"] = nobody
    tally.undecided[KEY, "gender", "man"] = open_
    tally.decisions[KEY, "gender", "man"] += open_
    return tally


def test_from_fifty_labels_on_the_share_is_prediction_powered() -> None:
    table, others = [[20, 5, 2], [1, 30, 2]], [60, 130, 10]
    (share,) = tables._labelled([KEY], counts(table, others), GENDER, np.random.default_rng(0))
    expected = prediction_powered(table, others)
    assert np.array_equal(share.value, expected.value) and np.array_equal(share.low, expected.low)
    assert "prediction-powered, 60 labelled images" in share.method and share.draws is not None


def test_fewer_labels_are_modelled_together_with_the_predictions() -> None:
    table, others = [[10, 2, 1], [1, 14, 0]], [60, 130, 10]
    (share,) = tables._labelled([KEY], counts(table, others), GENDER, np.random.default_rng(0))
    (expected,) = corrected_shares_many(
        [others], np.zeros((1, 2, 3), int), labelled=[table], rng=np.random.default_rng(0)
    )
    assert np.array_equal(share.value, expected.value) and "28 images labelled by people" in share.method
    alone = wilson(13, 28)
    assert share.high[0] - share.low[0] < alone.high - alone.low  # the predictions sharpen it


def test_where_some_of_the_sample_is_nobody_the_others_are_not_counted_on() -> None:
    table = [[25, 5, 0], [0, 30, 0]]
    tally = counts(table, [900, 0, 0], nobody=3, open_=2)
    assert tally.nobody_in(KEY, GENDER) and not counts(table, [900, 0, 0], open_=2).nobody_in(KEY, GENDER)
    (share,) = tables._labelled([KEY], tally, GENDER, np.random.default_rng(0))
    assert share.value[0] == 0.5 and share.low[0] < wilson(30, 60).low + 0.01
    told = counts(table, [800, 100, 0], open_=6)
    # 30 of 41 read as a man could be told, and all of 25 read as a woman; 60 of 66 of all
    assert told.tellable(KEY, GENDER).tolist() == [
        round(800 * (25 + 60 / 66) / 26),
        round(100 * (35 + 60 / 66) / 42),
        0,
    ]
    assert told.unlabelled(KEY, GENDER).tolist() == [800, 100, 0]


def test_labels_that_do_not_show_every_level_leave_a_raw_share_raw() -> None:
    (share,) = tables._labelled([KEY], counts([[9, 0, 0], [0, 0, 0]], [9, 9, 0]), GENDER, np.random.default_rng(0))
    assert share.value[0] == pytest.approx(18 / 27) and "do not show every level" in share.method


def test_a_record_from_elsewhere_is_believed_as_far_as_the_concepts_with_labels_are_like_it() -> None:
    """Twenty concepts of which each is read its own way, ten labels in each, and a record of 400 pictures of all alike:
    taken for each concept's own errors it held six in ten of the true shares."""
    right, true = np.array([0.93, 0.96]), np.linspace(0.03, 0.92, 20)
    keys = [("set", f"concept {place}", "", "", "none") for place in range(20)]
    held = []
    for audit in range(5):
        rng = np.random.default_rng([audit, 7])
        rates = rng.beta(right * 17 / 3, (1 - right) * 17 / 3, (20, 2))  # an intraclass correlation of .15
        women = rng.binomial(400, true)
        sample = np.column_stack([some := rng.hypergeometric(women, 400 - women, 10), 10 - some])
        hits = rng.binomial(sample, rates)
        rest = np.column_stack([women, 400 - women]) - sample
        said = rng.binomial(rest[:, 0], rates[:, 0]) + rng.binomial(rest[:, 1], 1 - rates[:, 1])
        tally = Tally()
        for key, (w, m), (of_w, of_m), women_said in zip(keys, sample, hits, said, strict=True):
            table = {
                ("woman", "woman"): of_w,
                ("woman", "man"): w - of_w,
                ("man", "woman"): m - of_m,
                ("man", "man"): of_m,
            }
            for (level, decision), n in table.items():
                tally.labelled[key, "gender", level, decision] += int(n)
                tally.decisions[key, "gender", decision] += int(n)
            tally.decisions[key, "gender", "woman"] += int(women_said)
            tally.decisions[key, "gender", "man"] += 390 - int(women_said)
        w, m = rng.binomial(200, right).tolist()
        record = [[w, 200 - w, 0], [200 - m, m, 0]]
        reading = replace(GENDER, confusion=np.array(record))
        shares = tables._labelled(keys, tally, reading, rng)
        place = GENDER.levels.index("woman")
        held += [s.low[place] <= t <= s.high[place] for s, t in zip(shares, true, strict=True)]
        assert all("errors by concept" in share.method for share in shares)
        known = tables.informed(reading, tally, keys)
        assert np.array_equal(known.by_concept[tables.ELSEWHERE], record) and len(known.by_concept) == 21
        few = tables.informed(reading, tally, keys[:2])
        assert np.array_equal(few.by_concept[tables.ELSEWHERE], record) and len(few.by_concept) == 3
        assert few.confusion is not None and few.confusion.sum() == 420
    assert np.mean(held) >= 0.9


@pytest.mark.parametrize(("labelled", "right"), [(20, 0.65), (40, 0.65)])
def test_labels_of_one_concept_are_not_overruled_by_a_record_from_elsewhere(labelled: int, right: float) -> None:
    """Half are women. The record of 400 pictures reads 19 of 20 rightly, here it is 13 of 20 women: added to the labels as
    if it were of these pictures, it held the share of 400 pictures in no audit, and that of these 120 in few."""
    reading = replace(GENDER, confusion=np.array([[190, 10, 0], [10, 190, 0]]))
    held = []
    for audit in range(6):
        rng = np.random.default_rng([audit, labelled])
        woman = rng.random(120) < 0.5
        said = rng.random(120) < np.where(woman, right, 0.05)
        table = [[int((said[:labelled] == s)[woman[:labelled] == w].sum()) for s in (1, 0)] + [0] for w in (1, 0)]
        tally = counts(table, [int(said[labelled:].sum()), int((~said[labelled:]).sum()), 0])
        (share,) = tables._labelled([KEY], tally, reading, rng)
        rest = tally.unlabelled(KEY, reading)[None]
        (mean,) = tables.means(rest, [KEY[1]], [[1.0]], tables.informed(reading, tally, [KEY]), rng)
        held.append([s.low[0] <= 0.5 <= s.high[0] for s in (share, mean)])
    assert (np.mean(held, axis=0) >= 0.8).all()


def women(run: Path) -> dict[str, dict[str, str]]:
    with (run / "estimates.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["level"] == "woman"]
    return {row["concept"]: row for row in rows if row["attribute"] == "gender"}


def test_the_sample_moves_the_estimates_and_a_correction_does_not(
    drawn: Callable[..., Opened], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = drawn(images_per_prompt=12, **LIGHT)
    run, _, planned = opened
    line.estimate(opened)
    before = (run.folder / "estimates.csv").read_bytes()
    rows = sheet(opened, 4)
    drawn_units = {row["unit_id"] for row in rows}
    everyone = [u for shard in planned.shards() for u in run.read_images(shard, ["unit_id"])["unit_id"].to_pylist()]
    outside = [unit for unit in everyone if unit not in drawn_units]
    some = [{"unit_id": unit, "annotator": "cy", "gender": "woman"} for unit in outside[:40]]
    assert len(take(opened, fill(tmp_path / "cy.csv", some))[1]) == 40
    line.estimate(opened)
    assert (run.folder / "estimates.csv").read_bytes() == before
    with (labels.folder(run) / "opinions.csv").open(newline="") as file:
        opinions = list(csv.DictReader(file))
    assert {(o["sampled"], o["stands"], o["answers"]) for o in opinions} == {("correction", "woman", "cy: woman")}
    page = report.write_report(run.folder).read_text(encoding="utf-8")
    assert "Corrections outside of the sample" in page and f"(cy, {NOW})" in page
    assert "nobody has labelled any of them yet" in page and "are in the estimates" not in page

    for n, row in enumerate(rows):
        row["gender"] = "woman" if n % 4 else "man"
    bob = [row | {"gender": "woman" if n % 8 else "man"} for n, row in enumerate(rows)]
    ann = fill(tmp_path / "ann.csv", rows)
    new, _ = take(opened, ann, ann, fill(tmp_path / "bob.csv", bob))
    assert len(new) == len({(label.annotator, label.unit_id, label.attribute) for label in new})
    capsys.readouterr()
    line.estimate(opened)
    assert "gender: people disagree about 10 of the 80 pictures" in capsys.readouterr().err
    after = women(run.folder)
    assert all("images labelled by people" in row["method"] for row in after.values())
    about = json.loads((run.folder / "summary.json").read_text())["labels"]
    assert about["annotators"] == ["ann", "bob"] and len(about["corrections"]) == 40
    gender = about["attributes"]["gender"]
    assert (gender["labelled"], gender["disagreed"]) == (80, 10) and 0 < gender["alpha"] < 1
    page = report.write_report(run.folder).read_text(encoding="utf-8")
    assert "What people said" in page and "2 people labelled them: ann, bob. These" in page


def test_a_correction_moves_no_estimate_when_the_sample_grows_to_hold_it(
    drawn: Callable[..., Opened], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What surprised was chosen by what it shows: only an answer that is given again is of the sample."""
    opened = drawn(images_per_prompt=12, **LIGHT)
    run, study, planned = opened
    rows = [row | {"gender": "woman" if n % 2 else "man"} for n, row in enumerate(sheet(opened, 4))]
    take(opened, fill(tmp_path / "ann.csv", rows))
    sampled = {row["unit_id"] for row in rows}
    read = [
        row
        for shard in planned.shards()
        for row in tables.decided(run, study.perceive.name, shard, line.read_by(run, study), ["unit_id"]).to_pylist()
    ]
    surprising = [row["unit_id"] for row in read if row["unit_id"] not in sampled and row["gender"] == "woman"]
    corrected = [{"unit_id": unit, "annotator": "ann", "gender": "man"} for unit in surprising]
    assert len(take(opened, fill(tmp_path / "surprising.csv", corrected))[1]) == len(corrected) > 20
    line.estimate(opened)
    before = (run.folder / "estimates.csv").read_bytes()
    assert "of the sample" not in capsys.readouterr().err

    assert set(surprising) < {row["unit_id"] for row in sheet(opened, 12)}
    line.estimate(opened)
    assert (run.folder / "estimates.csv").read_bytes() == before
    assert "gender: people labelled 80 of the 240 pictures of the sample" in capsys.readouterr().err
    assert line.status(opened)["labelled"] == 80 and line.status(opened)["sampled"] == 240
    assert "Not all of them are labelled" in report.write_report(run.folder).read_text(encoding="utf-8")

    filled = fill(labels.folder(run) / "sheet.csv", corrected)  # the same answers, this time to the sheet
    with pytest.raises(RunError, match="answers that are not imported"):
        sheet(opened, 12)
    assert (len(take(opened, filled)[0]), take(opened, filled)) == (len(corrected), ([], []))
    line.estimate(opened)
    assert (run.folder / "estimates.csv").read_bytes() != before
    about = json.loads((run.folder / "summary.json").read_text())["labels"]
    assert about["attributes"]["gender"]["labelled"] == 80 + len(corrected) == line.status(opened)["labelled"]
    assert len(about["corrections"]) == len(corrected)  # what was said when is still there


def test_true_labels_bring_the_share_of_a_probe_that_knows_nothing_to_the_truth(
    drawn: Callable[..., Opened], tmp_path: Path
) -> None:
    """The fake reads noise. A person who knows says woman of a quarter: so say the estimates, with few labels or many."""
    opened = drawn(images_per_prompt=200, **LIGHT)
    run = opened[0]
    for per_concept in (30, 60):
        rows = sheet(opened, per_concept)
        for row in rows:
            row["gender"] = "woman" if int(row["unit_id"], 16) % 4 == 0 else "man"
        take(opened, fill(tmp_path / "ann.csv", rows))
        line.estimate(opened)
        shares = women(run.folder).values()
        assert np.mean([float(row["share"]) for row in shares]) == pytest.approx(0.25, abs=0.03)
        assert sum(float(row["low"]) <= 0.25 <= float(row["high"]) for row in shares) >= 17
        assert ("prediction-powered" in next(iter(shares))["method"]) is (per_concept == 60)
    record = stages.read_json(run.folder / "summary.json")["classifier"]["gender"]
    assert record["n"] == 1200 and abs(record["accuracy"] - 0.5) < 0.06
    decided = np.array(record["confusion"])[:, :2]
    right = wilson(int(np.trace(decided)), int(decided.sum()))
    assert (record["accuracy_low"], record["accuracy_high"]) == (right.low, right.high)


# -- the door ----------------------------------------------------------------------------------------


def test_a_plan_counts_the_labels_and_what_the_run_cannot_tell(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=12, **LIGHT)
    run, study, planned = opened
    tables_ = [run.read_perceptions(study.perceive.name, shard, ["gender"]) for shard in planned.shards()]
    said = Counter(word for table in tables_ for word in table["gender"].to_pylist())
    undecided = said[CANNOT_TELL] / (said["woman"] + said["man"] + said[CANNOT_TELL])
    (before,), told = line.readings(study, run.folder)
    assert before.confusion is None and told == pytest.approx({"gender": undecided}) and undecided > 0
    rows = [row | {"gender": ("woman", "man")[n % 2]} for n, row in enumerate(sheet(opened, 4))]
    take(opened, fill(tmp_path / "ann.csv", rows))
    (after,), _ = line.readings(study, run.folder)
    assert after.confusion is not None and after.confusion.sum() == len(rows)


def test_the_commands_say_what_to_do_next(drawn: Callable[..., Opened], tmp_path: Path) -> None:
    opened = drawn(images_per_prompt=4, **LIGHT)
    where = str(opened[0].folder)
    done = typecast("labels", "import", where, str(tmp_path / "x.csv"))
    assert done.returncode == 2 and "typecast labels sample" in done.stderr
    done = typecast("labels", "sample", where, "--per-concept", "2", "--seed", "7")
    assert done.returncode == 0 and "40 pictures" in done.stdout and "sheet.html" in done.stdout, done.stderr
    rows = [row | {"gender": "woman"} for row in sheet(opened, 2, 7)]
    done = typecast("labels", "import", where, str(fill(tmp_path / "ann.csv", rows)))
    assert done.returncode == 0 and "40 new labels of the sample" in done.stdout and "report:" in done.stdout
    done = typecast("labels", "import", where, str(tmp_path / "nowhere.csv"))
    assert done.returncode == 2 and "nowhere.csv: cannot be read" in done.stderr and "Traceback" not in done.stderr
