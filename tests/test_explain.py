"""Each wording alone: of every probe that asks in words, of one person's pictures; and what `explain` says of a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.table import Table

from classifiers import faces, probe
from classifiers.attributes import ATTRIBUTES
from classifiers.clip import ClipModel
from classifiers.zero_shot import ZeroShot
from pipeline import explain, labels, line, probes, stages
from pipeline.errors import RunError
from pipeline.line import Readable
from tests import tiny_clip
from tests.test_album import fill
from tests.test_probes import dark_and_light, small_study

GENDER = ATTRIBUTES["gender"]
SEEN = (faces.Face(box=(2, 2, 12, 12), score=0.9), faces.Face(box=(20, 20, 28, 28), score=0.8))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ClipModel:
    return ClipModel(str(tiny_clip.clip(tmp_path_factory.mktemp("clip") / "tiny")), device="cpu")


@pytest.fixture(scope="module")
def in_words(tiny: ClipModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe that asks in words, calibrated."""
    home = tmp_path_factory.mktemp("probes")
    probes.fit_folder(
        str(dark_and_light(60, home / "pictures")),
        clip=str(tiny.folder),
        pretrained=None,
        kind="zero_shot",
        attributes=("gender",),
        risk=0.3,
        out=home / "words",
    )
    return home / "words"


@pytest.fixture
def opened(tiny: ClipModel, tmp_path: Path) -> line.Opened:
    assert tiny.folder
    found = line.begin(small_study(tiny.folder), tmp_path / "run")
    line.generate(found, perceive=True)
    return found


def said(parts: Iterator[Table | str]) -> list[str]:
    """The sentences, without the tables."""
    return [part for part in parts if isinstance(part, str)]


def test_a_calibrated_probe_in_words_has_each_wording_alone(tiny: ClipModel, in_words: Path) -> None:
    asked = ZeroShot(tiny, [GENDER], threshold=0.0).wordings("gender")
    loaded = probe.load(in_words, tiny, [GENDER], name="words")
    alone = loaded.wordings("gender")
    temperature = probe.read_description(in_words)["attributes"]["gender"]["temperature"]
    some = np.random.default_rng(0).normal(size=(5, tiny_clip.WIDTH)).astype(np.float16)
    assert list(alone) == list(asked) and len(alone) == 20
    for text, head in alone.items():
        np.testing.assert_allclose(head.logits(some), asked[text].logits(some) / temperature, rtol=1e-3, atol=1e-3)


def test_a_probe_that_was_fitted_to_other_words_has_none(tiny: ClipModel, in_words: Path) -> None:
    other = replace(GENDER, wordings={level: (f"xx {level[::-1]} qq",) for level in GENDER.levels})
    assert probe.load(in_words, tiny, [other], name="words").wordings("gender") == {}


def test_a_run_read_by_a_calibrated_probe_in_words_has_votes_and_a_spread(opened: line.Opened, in_words: Path) -> None:
    run, chosen, planned = opened
    changes = (f"perceive.probe={in_words}",)
    line.perceive(opened, changes)
    by = line.other_perceiver(chosen, changes)
    _, (women, _) = line.wordings.spread(run, planned, by.perceive.name, line.read_by(run, by))
    assert women["n_wordings"] == 20 and women["low"] <= women["high"]
    _, (reason,), _ = explain.explain(opened, planned.units(planned.shards()[0])[0].id, changes)
    assert len(reason.votes) == 20


def test_what_has_not_read_a_run_is_named_with_its_settings(opened: line.Opened, in_words: Path) -> None:
    changes = (f"perceive.probe={in_words}", "perceive.attributes=[gender, age]")
    words = re.escape(f"--set perceive.probe={in_words} --set 'perceive.attributes=[gender, age]'")
    with pytest.raises(RunError, match=f"typecast perceive {opened[0].folder} {words}"):
        explain.explain(opened, opened[2].units(opened[2].shards()[0])[0].id, changes)


def test_what_people_said_is_told_with_what_stands_and_so_is_that_no_labelled_picture_is_known(
    opened: line.Opened, tmp_path: Path
) -> None:
    run, chosen, planned = opened
    first, second, third, *_ = planned.units(planned.shards()[0])
    readings = line.read_by(run, chosen)
    sample = labels.Sample(seed=0, per_concept=1, units=(first.id, second.id))
    stages.store.write_json(labels.folder(run) / "sample.json", {**asdict(sample)})
    answers = {"ann": ("woman", "man", "man"), "bob": ("woman", "woman", "")}
    for who, levels in answers.items():
        lines = [f"{unit.id},{level}" for unit, level in zip((first, second, third), levels, strict=True)]
        (tmp_path / f"{who}.csv").write_text("\n".join(["unit_id,gender", *lines]) + "\n")
    labels.take(run, planned, readings, [tmp_path / f"{who}.csv" for who in answers], now="then")
    told = [said(explain.shown(*explain.explain(opened, unit.id))) for unit in (first, second, third)]
    _, (reason,), _ = explain.explain(opened, second.id)
    assert told[0][1] == "gender, by people: woman (ann: woman; bob: woman; in the sample); what stands: woman"
    assert told[1][1] == (
        f"gender, by people: people disagree (ann: man; bob: woman; in the sample); what stands: {reason.decision}"
    )
    assert told[2][1] == "gender, by people: man (ann: man; a correction); what stands: man"
    assert told[0][-1].startswith("nearest labelled pictures: none are known")


@pytest.fixture
def left_out(tiny: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Readable:
    """Pictures made elsewhere: a detector finds nobody in some, one person in some and two in others."""

    def find(images: Any) -> list[tuple[faces.Face, ...]]:
        return [SEEN[: int(image[0, 0, 0]) % 3] for image in images]

    fill(tmp_path / "mine", 30, size=(32, 32))
    monkeypatch.setattr(faces, "find", find)
    changes = ("clip=" + str(tiny.folder), "attributes=[gender]", "threshold=0", "people=exactly_one")
    found = line.import_folder(
        tmp_path / "mine",
        concept="ceo",
        model=None,
        grid=False,
        changes=[f"perceive.{change}" for change in changes],
        out=tmp_path / "run",
    )
    line.perceive(found)
    return found


def decisions(opened: Readable) -> list[dict[str, str]]:
    run, chosen, planned = opened
    columns = ["unit_id", "people", "gender"]
    return [
        row
        for shard in planned.shards()
        for row in run.read_perceptions(chosen.perceive.name, shard, columns).to_pylist()
    ]


def test_the_wordings_are_counted_of_the_pictures_of_one_person(left_out: Readable) -> None:
    line.estimate(left_out)
    kept = [row["gender"] for row in decisions(left_out) if row["people"] == "one"]
    found = stages.read_json(left_out[0].folder / "summary.json")["wordings"]
    women = next(entry for entry in found if entry["level"] == "woman")
    assert 0 < len(kept) < 30 and (women["n_wordings"], women["n_images"]) == (20, len(kept))
    assert women["raw_share"] == kept.count("woman") / len(kept)
    assert (left_out[0].folder / "wordings.csv").is_file()


@pytest.mark.parametrize(("people", "found"), [("nobody", "no face was"), ("several", "several faces were")])
def test_of_a_picture_that_is_left_out_its_file_and_its_faces_are_told(
    left_out: Readable, people: str, found: str
) -> None:
    number, row = next((n, row) for n, row in enumerate(decisions(left_out)) if row["people"] == people)
    heading, faces_, *_ = said(explain.shown(*explain.explain(left_out, row["unit_id"])))
    assert f"\n{number:02d}.png, “ceo”, sample {number}; read by " in heading
    assert faces_ == f"{found} found (perceive.people: exactly_one)"
