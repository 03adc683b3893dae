"""The face detector is the published one, and who is in a picture decides what is read of it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifiers import faces
from classifiers.attributes import GENDER, MONK_TONE, PEOPLE
from classifiers.faces import Face, OnePerson
from classifiers.fake import FakePerceiver
from pipeline import line, report, tables
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON, Perceiver, Pixels
from tests.test_album import fill, imported

PUBLISHED = {
    0: ([112, 113, 77], [-1.210, -1.221, -1.264], -5.555, [-3.02, -0.71, 12.45, 12.45], 5.340),
    1: ([136, 137, 134], [-0.504, -0.620, -0.788], -5.634, [-5.46, -5.00, 14.69, 14.69], 5.317),
}
"""By seed of a picture: the three likeliest boxes and their scores, the mean score, the likeliest box, the mean of all
box values; by LiteRT 2.3.0 from the file that MediaPipe published."""


def noise(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_network_is_the_published_one(seed: int) -> None:
    import torch

    places, likeliest, mean, box, mean_box = PUBLISHED[seed]
    pixels = torch.from_numpy(noise(seed)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        scores, boxes = (values[0].numpy() for values in faces._network(faces._weights(), pixels))
    assert np.argsort(-scores)[:3].tolist() == places
    assert scores[places] == pytest.approx(np.array(likeliest), abs=2e-3)
    assert scores.mean() == pytest.approx(mean, abs=1e-3) and boxes.mean() == pytest.approx(mean_box, abs=1e-3)
    assert boxes[places[0], :4] == pytest.approx(np.array(box), abs=0.02)


def test_a_picture_of_nobody_has_no_face_whatever_its_shape() -> None:
    shapes = [(64, 64), (300, 40), (40, 300), (1, 1), (700, 500)]
    grey = [np.full((*shape, 3), 128, np.uint8) for shape in shapes]
    assert faces.find([*grey, noise(0), noise(1)]) == [()] * 7 and faces.find([]) == []


def test_boxes_are_put_back_into_the_pictures_own_pixels() -> None:
    """A tall picture of 128 x 512 is shrunk by two, with 96 black columns on each side."""
    scores, boxes = np.zeros(896), np.zeros((896, 4))
    scores[[3, 9, 20, 40]] = 0.9, 0.8, 0.7, 0.4
    boxes[3] = 100, 50, 120, 70
    boxes[9] = 101, 51, 121, 71  # the same face again
    boxes[20] = 140, 200, 170, 240
    boxes[40] = 100, 100, 200, 200  # not sure enough
    found = faces._faces(np.zeros((512, 128, 3), np.uint8), scores, boxes)
    assert [face.box for face in found] == [(88, 400, 128, 480), (8, 100, 48, 140)]
    assert [face.score for face in found] == [0.7, 0.9]


def test_one_face_found_twice_is_one_by_intersection_over_union() -> None:
    one = np.array([0.0, 0.0, 10.0, 10.0])
    for shift, union in ((0, 1.0), (5, 50 / 150), (10, 0.0), (20, 0.0)):
        assert faces._overlap(one, one + np.array([shift, 0, shift, 0])) == pytest.approx(union)


FOUND = (Face(box=(10, 10, 50, 50), score=0.9), Face(box=(60, 20, 80, 40), score=0.8))


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    """Three pictures of one skin, of which a detector says: nobody, one, two."""
    skin = [np.full((100, 100, 3), (160, 126, 86), np.uint8) + np.uint8(n) for n in range(3)]

    def find(images: Any) -> list[tuple[Face, ...]]:
        return [FOUND[: int(image[0, 0, 0]) - 160] for image in images]

    monkeypatch.setattr(faces, "find", find)
    return skin


def test_what_is_not_one_person_is_in_no_share_and_its_probabilities_are_kept(some: list[Pixels]) -> None:
    within = FakePerceiver((GENDER,), name="fake")
    sees: Perceiver = OnePerson(within, "exactly_one", name="one")
    seen, whole = sees.perceive(some), within.perceive(some)
    assert seen.decisions["gender"] == [NOT_ONE_PERSON, whole.decisions["gender"][1], NOT_ONE_PERSON]
    assert np.array_equal(seen.probabilities["gender"], whole.probabilities["gender"])
    assert seen.decisions[PEOPLE.name] == ["nobody", "one", "several"]
    assert seen.decisions[MONK_TONE.name] == [NOT_ONE_PERSON, "6", NOT_ONE_PERSON]
    assert [a.name for a in sees.attributes] == ["gender", "people", "monk_tone"]
    assert sees.confusion("people") is None


def test_the_largest_face_is_read_with_what_is_around_it(some: list[Pixels]) -> None:
    within = FakePerceiver((GENDER,), name="fake")
    seen = OnePerson(within, "largest_face", name="one").perceive(some)
    cut = within.perceive([some[1][0:70, 0:70], some[2][0:70, 0:70]])
    assert seen.decisions["gender"] == [NOT_ONE_PERSON, *cut.decisions["gender"]]
    assert faces.around(some[0], (80, 0, 100, 20)).shape == (30, 30, 3)


def test_no_face_is_no_tone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "find", lambda images: [FOUND[:1]] * len(images))
    seen = OnePerson(FakePerceiver((GENDER,), name="fake"), "exactly_one", name="one").perceive(
        [np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)]
    )
    assert seen.decisions[MONK_TONE.name] == [CANNOT_TELL]


@pytest.mark.parametrize(
    ("policy", "kept_of", "said_of"),
    [
        ("exactly_one", {"one"}, "a face that a detector finds, or with several, are in no share"),
        ("largest_face", {"one", "several"}, "a face that a detector finds are in no share"),
    ],
)
def test_a_run_counts_whom_its_policy_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, kept_of: set[str], said_of: str
) -> None:
    fill(tmp_path / "mine", 40, size=(100, 100))

    def find(images: Any) -> list[tuple[Face, ...]]:
        return [FOUND[: int(image[0, 0, 0]) % 3] for image in images]

    monkeypatch.setattr(faces, "find", find)
    changes = ("perceive.clip=fake", "perceive.attributes=[gender]", f"perceive.people={policy}")
    run, chosen, planned = opened = imported(tmp_path / "mine", tmp_path / "run", changes=changes)
    line.perceive(opened)
    line.estimate(opened)
    (shard,) = planned.shards()
    rows = run.read_perceptions(f"fake-zero_shot-{policy}", shard).to_pylist()
    said = Counter(row["people"] for row in rows)
    with (run.folder / "estimates.csv").open(newline="") as file:
        table = {(row["attribute"], row["level"]): row for row in csv.DictReader(file)}
    assert {level: float(table["people", level]["share"]) * 40 for level in PEOPLE.levels} == pytest.approx(
        dict(said), rel=1e-4
    )
    assert (table["gender", "woman"]["n"], table["gender", "woman"]["n_one_person"]) == (
        "40",
        str(sum(said[level] for level in kept_of)),
    )
    left = tables.left_out(run, planned, chosen.perceive.name, line.read_by(run, chosen))
    assert left is not None and list(left) == ["gender"]
    for level, column in (("woman", 0), ("man", 1)):
        likeliest = [row for row in rows if int(np.argmax(row["gender_probabilities"])) == column]
        kept = sum(row["people"] in kept_of for row in likeliest)
        assert left["gender"][level] == {"kept": kept, "left_out": len(likeliest) - kept}
    page = report.write_report(run.folder).read_text(encoding="utf-8")
    assert "that look most like “woman”" in page and said_of in page
