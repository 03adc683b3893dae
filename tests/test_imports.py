"""Pictures made and read elsewhere: what comes in, what is refused, and that the estimates are the usual ones."""

from __future__ import annotations

import csv
import json
import struct
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

import prompt_sets
from pipeline import amplification, imports, report, stages, study, summary, tables
from pipeline.errors import InputError, RunError, TypecastError
from pipeline.imports import Imported
from pipeline.tables import COLUMNS
from pipeline.types import Distribution
from tests.test_cli import typecast

STUDIES = prompt_sets.FOLDER / "studies"
COUNTS = "job,source,sex,n\n" + "".join(
    f"{job},{source},{sex},{n}\n"
    for job, source, sex, n in (
        ("mechanic", "web", "f", 2),
        ("mechanic", "web", "m", 38),
        ("mechanic", "model", "f", 0),
        ("mechanic", "model", "m", 30),
        ("mechanic", "model", "?", 5),
        ("teacher", "web", "f", 90),
        ("teacher", "web", "m", 10),
        ("teacher", "model", "f", 33),
        ("teacher", "model", "m", 2),
        ("cook", "web", "f", 4),
        ("cook", "web", "m", 4),
        ("cook", "model", "f", 10),
        ("cook", "model", "m", 25),
        ("cook", "model", "crowd", 7),
    )
)
LABELS = "picture,job,label\na.png,teacher,female\nb.png,teacher,male \nc.png,teacher,Both\nd.png,cook,male\n"


ONE = ("f", "female", "m", "male")
"""How Raza et al. write one person."""


def counts_study(**changes: Any) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "name": "made",
        "source": "a test",
        "licence": "none",
        "prompt_sets": ["emoji_occupations"],
        "data": "made.csv",
        "columns": {"concept": "job", "count": "n"},
        "attributes": {
            "gender": {
                "column": "sex",
                "levels": {"f": "woman", "m": "man", "?": "cannot tell", "crowd": "not one person"},
            }
        },
        "read_by": {"who": "a classifier", "kind": "classifier"},
        "arms": {"drawn": {"model": "Some Model", "lines": {"source": "model"}}},
        "own_references": [
            {
                "publisher": "Web",
                "table": "pictures",
                "title": "of the web",
                "licence": "none",
                "lines": {"source": "web"},
            }
        ],
    }
    return raw | changes


def labels_study(**changes: Any) -> dict[str, Any]:
    said = {"female": "woman", "male": "man", "male ": "man", "Both": "not one person"}
    raw = counts_study(
        columns={"concept": "job", "image": "picture"},
        attributes={"gender": {"column": "label", "levels": said}},
        read_by={"who": "two people", "kind": "person"},
        arms={"drawn": {"model": "Some Model"}},
        own_references=[],
        reference=[{"table": "bls_cps_table11", "year": 2023}],
    )
    return raw | changes


def read(folder: Path, raw: dict[str, Any], data: str | bytes) -> Imported:
    (folder / "made.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    (folder / "made.yaml").write_text(yaml.safe_dump(raw))
    chosen, where = study.load_import(str(folder / "made.yaml"))
    return imports.read(chosen, where)


def save(folder: Path, *names: str) -> None:
    """Pictures of noise, too small to be of anybody."""
    (folder / "pictures").mkdir()
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / name)


def refused(folder: Path, raw: dict[str, Any], data: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, raw, data)
    return str(caught.value)


def count(found: Imported, concept: str, arm: str = "drawn", reading: int = 0) -> list[int]:
    (key,) = (key for key in tables.keys(found) if key[1] == concept and key[4] == arm)
    return found.counts.count(key, found.readings[reading]).tolist()


def of(found: Imported, concept: str) -> Distribution:
    reference = found.references[0].distribution(concept, "gender", ("woman", "man"))
    assert isinstance(reference, Distribution)
    return reference


# -- what comes in -----------------------------------------------------------------------------------


def test_counts_become_the_estimates_of_a_run(tmp_path: Path) -> None:
    found = read(tmp_path, counts_study(), COUNTS)
    run, again = imports.begin(found.study, tmp_path, tmp_path / "run")
    headline = imports.estimate(run, again)
    with (run.folder / "estimates.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = {(row["concept"], row["level"]): row for row in reader}
    assert reader.fieldnames == [*COLUMNS, "model"] and {row["model"] for row in rows.values()} == {"Some Model"}
    teacher, cook, mechanic = (rows[name, "woman"] for name in ("teacher", "cook", "mechanic"))
    assert (cook["n"], cook["n_one_person"], cook["n_cannot_tell"]) == ("42", "35", "0")
    assert (mechanic["n"], mechanic["n_one_person"], mechanic["n_cannot_tell"]) == ("35", "35", "5")
    low, high = proportion_confint(33, 35, method="wilson")
    assert [float(teacher[c]) for c in ("share", "low", "high")] == pytest.approx([33 / 35, low, high], rel=1e-5)
    low, high = proportion_confint(90, 100, method="wilson")
    ends = [float(teacher[c]) for c in ("reference", "reference_low", "reference_high")]
    assert ends == pytest.approx([0.9, low, high], rel=1e-5)
    assert (
        teacher["reference_source"] == "Web, pictures, woman"
        and "errors on these pictures are not known" in teacher["method"]
    )
    assert "Some Model" in headline and "Web, pictures" in headline
    assert ", as a classifier said, its errors not corrected, among the 100 images that it decided." in headline
    about = json.loads((run.folder / "summary.json").read_text())
    assert [p["n_concepts"] for p in about["pooled"]] == [3] and about["pooled"][0]["stretch"]["value"] is not None
    undecided = [about["classifier"]["gender"][f"cannot_tell_{end}"] for end in ("rate", "low", "high")]
    assert undecided == pytest.approx([5 / (3 * 35), *proportion_confint(5, 3 * 35, method="wilson")])  # no crowd
    assert about["images"]["made"] == about["images"]["asked"] == 3 * 35 + 7


@pytest.mark.parametrize("kind", ["classifier", "person"])
def test_the_headline_of_two_concepts_has_the_reference_and_why_there_is_no_stretch(tmp_path: Path, kind: str) -> None:
    without_cook = "".join(line for line in COUNTS.splitlines(True) if not line.startswith("cook"))
    found = read(tmp_path, counts_study(read_by={"who": "FairFace", "kind": kind}), without_cook)
    text = summary.estimates(found, found.counts, found.readings, found.readings)[1]["headline"]
    start = "Against “Web, pictures, woman”, over 2 concepts of the model Some Model in perceived gender presentation"
    assert text.startswith(start) and "points from the reference (" in text
    said = {
        "classifier": "as FairFace said, its errors not corrected, among the 65 images that it decided.",
        "person": "as labelled by FairFace, among the 65 images of which a level was said.",
    }
    why = " How far apart the concepts lie is not known: too few concepts (2; three are needed)."
    assert text.endswith(said[kind] + why)


def test_the_headline_of_one_concept_says_whose_word_it_is_and_who_is_undecided(tmp_path: Path) -> None:
    mechanic = "".join(line for line in COUNTS.splitlines(True) if line.startswith(("job", "mechanic")))
    found = read(tmp_path, counts_study(), mechanic)
    text = summary.estimates(found, found.counts, found.readings, found.readings)[1]["headline"]
    most = 100 * proportion_confint(5, 35, method="wilson")[1]
    assert text == (
        "Some Model: of 35 images of “mechanic”, 0.0% show “woman” in perceived gender presentation, as a classifier said, its "
        f"errors not corrected, among the 30 images that it decided (95% interval 0.0 to {most:.1f}, the 5 undecided counted "
        "either way); “Web, pictures, woman” has 5.0%."
    )


def test_pictures_that_others_made_were_read_and_not_made(tmp_path: Path) -> None:
    found = read(tmp_path, labels_study(reference=[]), LABELS)
    text = summary.estimates(found, found.counts, found.readings, found.readings)[1]["headline"]
    assert text.startswith("Some Model: 4 images were read; no reference")


def test_the_page_says_who_read_the_pictures(tmp_path: Path) -> None:
    for name, raw, data, said in (
        ("counts", counts_study(), COUNTS, "The shares are raw"),
        ("labels", labels_study(), LABELS, "The labels are by two people; nothing is corrected"),
    ):
        found = read(tmp_path, raw, data)
        run, _ = imports.begin(found.study, tmp_path, tmp_path / name)
        imports.estimate(run, found)
        about = json.loads((run.folder / "summary.json").read_text())
        about["pooled"][0].setdefault("stretch", {})["erased_by"] = 0.05
        (run.folder / "summary.json").write_text(json.dumps(about))
        page = report.write_report(run.folder).read_text(encoding="utf-8")
        assert said in page and "guidance" not in page and "Some Model" in page
        for of_a_probe in ("A classifier answered", "A probe that leaned 5.0 points"):
            assert (of_a_probe in page) is (name == "counts")


def test_a_reference_of_counts_has_its_sampling_error_and_the_mean_as_its_base(tmp_path: Path) -> None:
    found = read(tmp_path, counts_study(), COUNTS)
    assert of(found, "teacher").shares == pytest.approx((0.9, 0.1)) and of(found, "teacher").n == 100
    assert of(found, "cook").n == 8
    base = found.references[0].base("gender", ("woman", "man"))
    assert isinstance(base, Distribution) and base.shares[0] == pytest.approx((0.05 + 0.9 + 0.5) / 3)
    assert base.n == round(9 / (1 / 40 + 1 / 100 + 1 / 8))
    assert isinstance(found.references[0].distribution("pilot", "gender", ("woman", "man")), str)


def test_a_reference_of_none_in_n_is_tested_and_stays_in_the_stretch(tmp_path: Path) -> None:
    data = COUNTS.replace("mechanic,web,f,2", "mechanic,web,f,0")
    found = read(tmp_path, counts_study(), data)
    assert of(found, "mechanic").shares == (0, 1)
    shares, about = summary.estimates(found, found.counts, found.readings, found.readings)
    rows = tables.estimate(found, found.counts, found.readings, shares)
    p = {row["concept"]: row["p_adjusted"] for row in rows}
    assert p["mechanic"] > 0.9 and p["cook"] < p["mechanic"]  # 0 of 30 against 0 of 38
    assert summary._inside(np.array([0.0, 1.0, 0.2, 0.0]), np.array([38, 1, 5, np.nan])).tolist() == pytest.approx(
        [0.5 / 39, 0.75, 0.2, 0]
    )
    (pool,) = about["pooled"]
    assert pool["n_concepts"] == 3 and pool["stretch"]["low"] < pool["stretch"]["high"]


def test_labels_are_read_to_the_letter_as_the_study_declares_them(tmp_path: Path) -> None:
    found = read(tmp_path, labels_study(), LABELS)
    assert count(found, "teacher") == [1, 1, 0] and count(found, "cook") == [0, 1, 0]
    assert len(found) == 4 and "labelled by two people" in found.readings[0].uncorrected


def test_gender_and_tone_of_every_picture_are_estimated_together_as_of_own_pictures(tmp_path: Path) -> None:
    said = ("a,cook,female,l", "b,cook,female,d", "c,cook,male,d", "d,cook,male,?", "e,cook,Both,?", "f,cook,male,d")
    raw = labels_study()
    tones = {"column": "tone", "levels": {"l": "light", "d": "dark", "?": "cannot tell"}}
    found = read(
        tmp_path,
        raw | {"attributes": raw["attributes"] | {"skin_tone": tones}},
        "\n".join(("picture,job,label,tone", *said)),
    )
    (both,) = (reading for reading in found.readings if reading.of)
    assert both.of == ("gender", "skin_tone") and len(both.levels) == 10
    genders = ["woman", "woman", "man", "man", "not one person", "man"]
    shades = ["light", "dark", "dark", "cannot tell", "cannot tell", "dark"]
    own = Counter(tables.together([pa.chunked_array([genders]), pa.chunked_array([shades])]).to_pylist())
    (key,) = tables.keys(found)
    counted = dict(zip(both.columns, found.counts.count(key, both).tolist(), strict=True))
    assert counted == {column: own[column] for column in both.columns} and counted["man, dark"] == 2
    run, _ = imports.begin(found.study, tmp_path, tmp_path / "run")
    imports.estimate(run, found)
    with (run.folder / "estimates.csv").open(newline="") as file:
        shares = {row["level"]: row["share"] for row in csv.DictReader(file) if row["attribute"] == both.attribute}
    assert shares["man, dark"] == "0.5" and len(shares) == 10


def test_a_concept_may_have_another_name_in_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, labels_study(concepts={"Prof": "teacher"}), LABELS.replace(",teacher,", ",prof,"))
    assert count(found, "teacher") == [1, 1, 0]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, mark: bytes, end: str) -> None:
    found = read(tmp_path, counts_study(), mark + COUNTS.replace("\n", end).encode())
    assert count(found, "teacher") == [33, 2, 0]


def test_a_line_without_its_picture_is_counted_as_failed(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.png", "c.png")
    found = read(tmp_path, labels_study(images="pictures"), LABELS)
    assert found.not_here == {"d.png": "no such file"} and count(found, "cook") == [0, 0, 0] and len(found) == 4
    shares = {reading.attribute: tables.corrected(found, found.counts, reading) for reading in found.readings}
    (row, _) = (r for r in tables.estimate(found, found.counts, found.readings, shares) if r["concept"] == "cook")
    assert (row["n"], row["n_failed"], row["n_one_person"]) == (1, 1, 0)
    done = typecast("import", str(tmp_path / "made.yaml"), "--out", str(tmp_path / "run"))
    assert done.returncode == 1 and "1 pictures failed" in done.stderr
    assert "pictures/d.png: no such file" in done.stderr
    about = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert about["data"]["not_here"] == {"d.png": "no such file"} and about["images"]["failed"] == 1


def test_a_picture_that_cannot_be_read_is_counted_as_failed_with_the_reason(tmp_path: Path) -> None:
    save(tmp_path, "a.png")
    home = tmp_path / "pictures"
    whole = (home / "a.png").read_bytes()
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = whole[:8] + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    for name, content in (("empty", b""), ("cut", whole[:-30]), ("text", b"hello"), ("bomb", bomb + whole[33:])):
        (home / f"{name}.png").write_bytes(content)
    (home / "loop.png").symlink_to("loop.png")
    (home / "folder.png").mkdir()
    long = "x" * 300
    others = "".join(f"{name}.png,cook,male\n" for name in ("empty", "cut", "text", "bomb", "loop", "folder", long))
    before = warnings.filters[:]
    found = read(tmp_path, labels_study(images="pictures"), "picture,job,label\na.png,cook,male\n" + others)
    assert {name.removesuffix(".png"): why.split(":")[0] for name, why in found.not_here.items()} == {
        "empty": "the file is empty",
        "cut": "damaged or cut off",
        "text": "no picture of a known kind (PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF)",
        "bomb": "too large",
        "loop": "no such file",
        "folder": "no such file",
        long: "cannot be read",
    }
    assert count(found, "cook") == [0, 1, 0] and len(found) == 8 and warnings.filters == before


def test_a_picture_of_a_reference_that_cannot_be_read_is_not_in_it(tmp_path: Path) -> None:
    save(tmp_path, "a.png", "b.png")
    (tmp_path / "pictures" / "b.png").write_bytes(b"")
    seen = counts_study()["own_references"][0] | {"lines": {"source": "web"}}
    arms = {"drawn": {"model": "Some Model", "lines": {"source": "model"}}}
    raw = labels_study(images="pictures", own_references=[seen], arms=arms)
    data = "picture,job,label,source\na.png,cook,female,web\nb.png,cook,male,web\nc.png,cook,male,model\n"
    found = read(tmp_path, raw, data)
    assert of(found, "cook").shares == (1, 0) and set(found.not_here) == {"b.png", "c.png"}


# -- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "job,source,sex,n",
            "job,source,gender,n",
            "has no column 'sex' (attributes.gender.column); its columns are: job",
        ),
        ("job,source,sex,n", "job,source,n,n", "two columns have the same name"),
        ("teacher,model,f,33", "teacher,model,f,-33", "line 9: n '-33' is no count"),
        ("teacher,model,f,33", "teacher,model,f,33.5", "line 9: n '33.5' is no count"),
        ("teacher,model,f,33", "teacher,model,f,", "line 9: n '' is no count"),
        ("teacher,model,f,33", "teacher,model,f,nan", "line 9: n 'nan' is no count"),
        ("teacher,model,f,33", "teacher,model,f,3333333333333", "line 9: n '3333333333333' is no count"),
        ("teacher,model,f,33", "teacher,model,f,33\nteacher,model,f,33", "line 10: says the same as line 9 again"),
        (
            "teacher,model,f,33",
            "teacher,model,F ,33",
            "line 9: sex 'F ' is not in attributes.gender.levels; put it to one of",
        ),
        ("teacher,model,f,33", "teacher,other,f,33", "line 9: source 'other' is of no arm and no reference"),
        ("teacher,model,f,33", "nuns,model,f,33", "line 9: job 'nuns' is no concept of emoji_occupations"),
        ("teacher,model,f,33", "teacher,model,33", "line 9: 3 cells, and the first line has 4"),
        ("teacher,model,f,33", 'teacher,"model,f,33', "unexpected end of data"),
        (COUNTS, "", "has no column"),
        (COUNTS, "job,source,sex,n\n", "has no line but the first"),
    ],
)
def test_a_wrong_line_is_one_message_that_names_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in COUNTS
    message = refused(tmp_path, counts_study(), COUNTS.replace(old, new))
    assert "made.csv" in message and said in message


def test_every_word_that_is_not_declared_is_listed_with_its_lines(tmp_path: Path) -> None:
    data = LABELS + "e.png,cook, male\nf.png,cook,females\ng.png,cook,females\n"
    message = refused(tmp_path, labels_study(), data)
    assert "line 6: label ' male' is not in" in message and "lines 7, 8: label 'females' is not in" in message
    assert "woman, man, cannot tell, not one person" in message


def test_all_words_that_are_not_declared_are_listed_however_many(tmp_path: Path) -> None:
    lines = "".join(f"{i}.png,job {i},word {i}\n" for i in range(30)) + "".join(
        f",cook,male{' ' * i}\n" for i in range(30)
    )
    message = refused(tmp_path, labels_study(), LABELS + lines)
    assert all(f"job 'job {i}' is no" in message and f"label 'word {i}' is not" in message for i in range(30))
    assert "lines 36, 37, 38, 39, 40 and 25 more: picture is empty" in message


def test_two_models_may_each_have_a_picture_of_one_name_unless_both_are_here(tmp_path: Path) -> None:
    data = "picture,job,label,model\n1.png,cook,female,A\n1.png,cook,male,B\n2.png,cook,male,B\n"
    arms = {name: {"model": name, "lines": {"model": name}} for name in ("A", "B")}
    found = read(tmp_path, labels_study(arms=arms), data)
    assert (count(found, "cook", "A"), count(found, "cook", "B")) == ([1, 0, 0], [0, 2, 0])
    assert "line 5: says the same as line 3 again" in refused(
        tmp_path, labels_study(arms=arms), data + "1.png,cook,female,B\n"
    )
    save(tmp_path, "1.png", "2.png")
    assert "line 3: says the same as line 2 again" in refused(
        tmp_path, labels_study(arms=arms, images="pictures"), data
    )


@pytest.mark.parametrize(
    ("concepts", "said"),
    [
        ({"prof": "techer"}, "made.yaml: concepts.prof: 'techer' is no concept of the prompts; they are: "),
        ({"prof": "teacher", "Prof": "cook"}, "made.yaml: concepts: 'Prof', 'prof' are one word but for"),
    ],
)
def test_a_word_that_is_put_to_no_concept_or_to_two_is_refused(
    tmp_path: Path, concepts: dict[str, str], said: str
) -> None:
    assert said in refused(tmp_path, labels_study(concepts=concepts), LABELS)


def test_a_picture_that_is_labelled_twice_is_refused(tmp_path: Path) -> None:
    assert "line 6: says the same as line 2" in refused(tmp_path, labels_study(), LABELS + "a.png,cook,male\n")
    save(tmp_path, "a.png", "b.png")
    (tmp_path / "pictures" / "link.png").symlink_to("b.png")
    again = LABELS + "./a.png,cook,male\nlink.png,cook,male\n"
    message = refused(tmp_path, labels_study(images="pictures"), again)
    assert "line 6: says the same as line 2" in message and "line 7: says the same as line 3" in message


@pytest.mark.parametrize("where", ["name", "images", "data"])
def test_a_nul_byte_in_a_path_is_one_message(tmp_path: Path, where: str) -> None:
    save(tmp_path, "a.png")
    changes = {"images": "pictures"} if where == "name" else {"images": "pictures"} | {where: "pic\0tures"}
    data = LABELS.replace("d.png", "d\0.png") if where == "name" else LABELS
    assert "has a NUL byte in it" in refused(tmp_path, labels_study(**changes), data)


@pytest.mark.parametrize("name", ["../made.csv", "/etc/hostname", "link/made.csv"])
def test_a_picture_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "link").symlink_to(tmp_path)
    message = refused(tmp_path, labels_study(images="pictures"), LABELS.replace("d.png", name))
    assert f"line 5: picture {name!r} leads out of the folder pictures" in message


@pytest.mark.parametrize("key", ["data", "images"])
@pytest.mark.parametrize("path", ["../made.csv", "/made.csv", "a/../../made.csv", "..\\made.csv", "C:\\made.csv"])
def test_data_outside_the_folder_of_the_study_is_refused(tmp_path: Path, key: str, path: str) -> None:
    assert "leaves the folder of the study" in refused(tmp_path, labels_study(**{key: path}), LABELS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"concept": "job"}}, "either count"),
        ({"columns": {"concept": "job", "count": "n", "image": "picture"}}, "either count"),
        (
            {"attributes": {"sex": {"column": "sex", "levels": {"f": "woman"}}}},
            "'sex' is not known; the choices are: gender",
        ),
        (
            {"attributes": {"gender": {"column": "sex", "levels": {"f": "female"}}}},
            "'f' is put to 'female'; the choices",
        ),
        ({"read_by": {"who": "FairFace", "kind": "robot"}}, "classifier, person"),
        ({"images": "pictures"}, "columns.image does not say"),
        ({"prompt_sets": ["emoji_identities"]}, "several prompts for"),
        ({"prompt_sets": ["nowhere"]}, "no such prompt set"),
        ({"reference": [{"table": "nowhere"}]}, "reference.table"),
        ({"arms": {}}, "arms"),
        ({"guidance": 3}, "guidance"),
        ({"data": "nowhere.csv"}, "no such file"),
        ({"arms": {"a": {"model": "x", "lines": {"source": "model"}}, "b": {"model": "y"}}}, "of arm a and arm b"),
        (
            {
                "own_references": [
                    {**counts_study()["own_references"][0], "lines": {"source": s}} for s in ("web", "model")
                ]
            },
            "own_references: Web, pictures: several references are called so",
        ),
    ],
)
def test_a_wrong_study_is_one_message_that_names_the_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, counts_study(**changes), COUNTS)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    assert "line 2: not UTF-8" in refused(tmp_path, counts_study(), b"job,source,sex,n\nt\xe4cher,model,f,1\n")
    assert "not UTF-8" in refused(tmp_path, counts_study(), COUNTS.encode("utf-16"))


def test_what_is_wrong_leaves_no_folder_behind_and_another_study_keeps_its_own(tmp_path: Path) -> None:
    found = read(tmp_path, counts_study(), COUNTS)
    (tmp_path / "made.csv").write_text("nothing")
    with pytest.raises(InputError):
        imports.begin(found.study, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "made.csv").write_text(COUNTS)
    imports.begin(found.study, tmp_path, tmp_path / "run")
    other = found.study.model_copy(update={"seed": 1})
    with pytest.raises(RunError, match="holds another study"):
        imports.begin(other, tmp_path, tmp_path / "run")
    with pytest.raises(RunError, match=r"is not empty and holds no study\.yaml"):
        imports.begin(found.study, tmp_path, tmp_path)


def test_each_kind_of_study_goes_through_its_own_door(tmp_path: Path) -> None:
    found = read(tmp_path, counts_study(), COUNTS)
    imports.begin(found.study, tmp_path, tmp_path / "run")
    for act in (lambda: study.load("raza2025"), lambda: stages.load_run(tmp_path / "run")):
        with pytest.raises(TypecastError, match="made elsewhere; read it with: typecast import"):
            act()
    with pytest.raises(InputError, match="names no data to import"):
        study.load_import("emoji")


# -- what ships --------------------------------------------------------------------------------------


def test_the_published_reading_of_fair_diffusion_is_reproduced() -> None:
    """Mean |p - 1/2| of LAION, Stable Diffusion 1.5 and edited: 0.258, 0.311, 0.105; and 109 of 153 on the same side."""
    found = imports.read(*study.load_import("fair_diffusion_fairface"))
    shares = tables.corrected(found, found.counts, found.readings[0])
    by_arm = {arm.name: [shares[key].value[0] - 0.5 for key in shares if key[4] == arm.name] for arm in found.arms}
    laion = np.array([of(found, prompt.concept).shares[0] for prompt in found.prompts]) - 0.5
    drawn, edited = np.array(by_arm["as drawn"]), np.array(by_arm["edited"])
    assert [round(float(np.abs(some).mean()), 3) for some in (laion, drawn, edited)] == [0.258, 0.311, 0.105]
    assert ((np.sign(drawn) == np.sign(laion)) & (np.abs(drawn) > np.abs(laion))).sum() == 109
    assert len(found.prompts) == 153 and len(found) == 75660
    same = amplification.total_variation([0.5 + drawn[0], 0.5 - drawn[0]], [0.5, 0.5])
    assert same == pytest.approx(abs(drawn[0]))  # so that its noise floor is the floor of the published reading


def test_a_picture_that_is_of_several_people_is_in_no_attribute(tmp_path: Path) -> None:
    """Two people of one category are two people."""
    races = {"a": "Asian", "w": "White"}
    said = labels_study()["attributes"] | {"race": {"column": "race", "levels": races}}
    lines = "picture,job,label,race\n1,teacher,female,a\n2,teacher,Both,a\n3,teacher,male,w\n"
    found = read(tmp_path, labels_study(attributes=said), lines)
    assert count(found, "teacher") == [1, 1, 0] and count(found, "teacher", reading=1) == [1, 0, 1, 0]


def test_the_labels_of_raza_are_all_counted_and_none_is_guessed() -> None:
    found = imports.read(*study.load_import("raza2025"))
    assert len(found) == 300 and len(found.arms) == 6 and not found.not_here
    with (STUDIES / "raza2025.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    women = Counter((r["model"], r["arm"], r["occupation"]) for r in rows if r["gender_raw"].strip() in ("F", "female"))
    men = Counter((r["model"], r["arm"], r["occupation"]) for r in rows if r["gender_raw"].strip() in ("M", "male"))
    for arm, prompt in (("plain", "baseline"), ("diversity", "controlled")):
        for model in ("DALL-E 3", "FLUX.1-dev", "SDXL Turbo"):
            for concept, word in (("CEO", "ceo"), ("software engineer", "swe"), ("nurse", "nurse")):
                cell = (model, prompt, word)
                assert count(found, concept, f"{model}, {arm}") == [women[cell], men[cell], 0]
                seen = Counter(
                    r["race_raw"].strip()
                    for r in rows
                    if (r["model"], r["arm"], r["occupation"]) == cell and r["gender_raw"].strip().lower() in ONE
                )
                races = [seen[race] for race in ("white", "black", "asian", "mixed")]
                assert count(found, concept, f"{model}, {arm}", reading=1) == races
    assert count(found, "nurse", "SDXL Turbo, diversity") == [10, 0, 0]
    assert count(found, "software engineer", "SDXL Turbo, plain") == [0, 10, 0]


def test_the_door_imports_reports_and_reports_again(tmp_path: Path) -> None:
    read(tmp_path, labels_study(), LABELS)
    done = typecast("import", "made.yaml", cwd=tmp_path)
    assert done.returncode == 0 and "report: outputs/made/report.html" in done.stdout, done.stderr
    page = (tmp_path / "outputs/made/report.html").read_bytes()
    assert typecast("report", "outputs/made", cwd=tmp_path).returncode == 0
    assert (tmp_path / "outputs/made/report.html").read_bytes() == page
    for words in (["status", "outputs/made"], ["compare", "outputs/made", "other"], ["run", "made.yaml"]):
        done = typecast(*words, cwd=tmp_path)
        assert done.returncode == 2 and "made elsewhere" in done.stderr and "Traceback" not in done.stderr
    assert "raza2025" in typecast("studies").stdout and "made elsewhere" in typecast("import", "--help").stdout


def test_an_arm_with_a_baseline_says_unpaired_what_it_changed(tmp_path: Path) -> None:
    """Against statsmodels' interval of a difference of two proportions (Newcombe's), and Holm over the concepts."""
    arms = {
        "plain": {"model": "Some Model", "lines": {"source": "web"}},
        "asked": {"model": "Some Model", "lines": {"source": "model"}, "baseline": "plain"},
    }
    found = read(tmp_path, counts_study(arms=arms, own_references=[]), COUNTS)
    run, again = imports.begin(found.study, tmp_path, tmp_path / "run")
    imports.estimate(run, again)
    with (run.folder / "effects.csv").open(newline="") as file:
        rows = {row["concept"]: row for row in csv.DictReader(file) if row["level"] == "woman"}
    assert set(rows) == {"cook", "mechanic", "teacher", "all concepts"}
    assert {(row["arm"], row["baseline"], row["pairs"]) for row in rows.values()} == {("asked", "plain", "0")}
    low, high = confint_proportions_2indep(33, 35, 90, 100, method="newcomb", compare="diff")
    ends = [float(rows["teacher"][c]) for c in ("change", "change_low", "change_high")]
    assert ends == pytest.approx([33 / 35 - 0.9, low, high], abs=1e-4)
    raw = [float(rows[c]["p"]) for c in ("cook", "mechanic", "teacher")]
    holm = multipletests(raw, method="holm")[1]
    assert [float(rows[c]["p_adjusted"]) for c in ("cook", "mechanic", "teacher")] == pytest.approx(
        list(holm), rel=1e-4
    )
    plain = counts_study(arms=arms | {"asked": arms["asked"] | {"baseline": "asked"}}, own_references=[])
    assert "the choices are: plain" in refused(tmp_path, plain, COUNTS)


def did_it_help(folder: Path, data: str) -> tuple[dict[str, Any], str]:
    """The entry against parity, and the page."""
    arms = {
        "plain": {"model": "Some Model", "lines": {"source": "web"}},
        "asked": {
            "model": "Some Model",
            "lines": {"source": "model"},
            "baseline": "plain",
            "caution": "Not of a batch.",
        },
    }
    tables_ = [{"table": "bls_cps_table11", "year": 2023}]
    found = read(folder, counts_study(arms=arms, own_references=[], reference=tables_), data)
    run, again = imports.begin(found.study, folder, folder / "run")
    imports.estimate(run, again)
    entries = json.loads((run.folder / "summary.json").read_text())["arms"]
    assert [entry["target"] for entry in entries] == ["uniform", "bls_cps_table11 2023"]
    return entries[0], report.write_report(run.folder).read_text(encoding="utf-8")


def test_whether_an_imported_arm_helped_is_said_as_far_as_counts_can_say(tmp_path: Path) -> None:
    entry, page = did_it_help(tmp_path, COUNTS)
    assert entry["distance_before"]["value"] == pytest.approx(np.mean([0.5 - 2 / 40, 0.9 - 0.5, 0]))
    assert entry["distance_after"]["value"] == pytest.approx(np.mean([0.5, 33 / 35 - 0.5, 0.5 - 10 / 35]))
    shares = [[2 / 40, 0.9, 0.5], [1e-12, 33 / 35, 10 / 35]]
    evenness = [np.mean([-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) for p in side]) for side in shares]
    diversity = entry["diversity"]["gender"]
    assert diversity["low"] < evenness[1] - evenness[0] < diversity["high"]
    assert not entry["paired"] and entry["baseline"] == "plain"
    section = page[page.index('id="arms"') : page.index('id="figures"')]
    for words in ("asked, beside plain", "unpaired", "Recognised and CLIP score: not known", f">{entry['verdict']}<"):
        assert words in section
    assert section.count("<p><b>asked</b>: Not of a batch.</p>") == 1
    assert "same seeds" not in section and (tmp_path / "run" / "figures" / "arms.svg").is_file()


def test_an_imported_arm_that_turns_all_men_into_women_is_over_corrected(tmp_path: Path) -> None:
    """As in Raza et al. (2025): ten of ten men became ten of ten women."""
    jobs = ("mechanic", "cook", "teacher", "judge")
    lines = [f"{job},{source},{sex},40\n" for job in jobs for source, sex in (("web", "m"), ("model", "f"))]
    entry, _ = did_it_help(tmp_path, "job,source,sex,n\n" + "".join(lines))
    assert entry["verdict"] == "over-corrected" and sorted(entry["past"]) == sorted(jobs)
    assert 0.4 < entry["excess"]["low"] < 0.5 and abs(entry["distance_change"]["value"]) < 0.05
