"""A folder of pictures made elsewhere: it becomes a run like ours, and nothing in it is lost or read from outside."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifiers import labelled
from pipeline import album, cli, line, stages, store, study
from pipeline.album import Album
from pipeline.errors import InputError, RunError, TypecastError
from pipeline.line import Readable
from tests.test_cli import typecast

READ = ("perceive.clip=fake", "perceive.attributes=[gender, skin_tone]")


def fill(folder: Path, n: int, *, seed: int = 0, size: tuple[int, int] = (12, 10)) -> list[np.ndarray[Any, Any]]:
    """n pictures of noise, `00.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    some = [np.random.default_rng([seed, i]).integers(0, 256, (*size, 3), np.uint8) for i in range(n)]
    for number, pixels in enumerate(some):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return some


def imported(folder: Path, out: Path, **options: Any) -> Readable:
    given: dict[str, Any] = {"concept": "ceo", "model": None, "grid": False, "changes": READ} | options
    return line.import_folder(folder, out=out, **given)


def rows(opened: Readable) -> list[dict[str, Any]]:
    run, _, planned = opened
    return [row for shard in planned.shards() for row in run.read_images(shard).to_pylist()]


@pytest.mark.parametrize("change", ["files=2", "concepts=[pilot]", "pictures=elsewhere", "sha256=x"])
def test_what_is_in_a_folder_cannot_be_set(tmp_path: Path, change: str) -> None:
    fill(tmp_path / "mine", 3)
    with pytest.raises(InputError, match=f"--set {change.split('=')[0]}.*is what is in the folder"):
        imported(tmp_path / "mine", tmp_path / "out", changes=[*READ, change])
    assert not (tmp_path / "out").exists()


def test_a_folder_is_perceived_estimated_and_reported_like_a_run(tmp_path: Path) -> None:
    some = fill(tmp_path / "mine", 30)
    done = typecast("import", "mine", "--concept", "CEO", "--model", "Some Model", "--set", READ[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Some Model: of 30 images of “CEO”" in done.stdout and "CPS Table 11" in done.stdout
    run = tmp_path / "outputs/mine"
    opened = line.reopen(run)
    found = rows(opened)
    assert [row["file"] for row in found] == [f"{i:02d}.png" for i in range(30)]
    for row, pixels in zip(found, some, strict=True):
        assert np.array_equal(store.decode(row["image"]["bytes"]), pixels) and row["sha256"] == store.sha256(pixels)
    with (run / "estimates.csv").open(newline="") as file:
        women = next(row for row in csv.DictReader(file) if row["level"] == "woman")
    said = Counter(d for shard in opened[2].shards() for d in read(opened, shard))
    assert float(women["share"]) == pytest.approx(said["woman"] / (said["woman"] + said["man"]), abs=1e-6)
    assert (women["n"], women["n_cannot_tell"], women["concept"]) == ("30", str(said["cannot tell"]), "CEO")
    assert women["reference_source"] == "BLS, CPS Table 11, 2023, women" and float(women["reference"]) > 0.2
    page = (run / "report.html").read_text()
    assert "Some Model" in page and "Picture 00.png" in page and "guidance" not in page
    assert "1 shard was read in it." in page and "<dt>images per kWh</dt><dd>–</dd>" in page
    state = json.loads(typecast("status", str(run), "--json").stdout)
    assert (state["made"], state["shards_perceived"], state["report"]) == (30, 1, True)
    before = (run / "estimates.csv").read_bytes()
    for stage in ("perceive", "estimate", "report"):
        assert typecast(stage, str(run)).returncode == 0
    assert (run / "estimates.csv").read_bytes() == before


def read(opened: Readable, shard: Any) -> list[str]:
    run, chosen, _ = opened
    decisions: list[str] = run.read_perceptions(chosen.perceive.name, shard, ["gender"])["gender"].to_pylist()
    return decisions


def test_sub_folders_say_what_the_pictures_show(tmp_path: Path) -> None:
    fill(tmp_path / "mine" / "software_engineer", 2)
    fill(tmp_path / "mine" / "nurse" / "deeper", 3, seed=1)
    opened = imported(tmp_path / "mine", tmp_path / "run", concept=None)
    assert Counter(row["concept"] for row in rows(opened)) == {"nurse": 3, "software engineer": 2}
    assert [row["sample"] for row in rows(opened)] == [0, 1, 2, 0, 1]
    opened = imported(tmp_path / "mine" / "software_engineer", tmp_path / "one", concept=" software_engineer")
    assert {row["concept"] for row in rows(opened)} == {"software engineer"}
    (tmp_path / "mine" / "Nurse").mkdir()
    Image.new("RGB", (3, 3)).save(tmp_path / "mine" / "Nurse" / "0.png")
    opened = imported(tmp_path / "mine", tmp_path / "either", concept=None)
    assert Counter(row["concept"] for row in rows(opened)) == {"Nurse": 4, "software engineer": 2}
    Image.new("RGB", (3, 3)).save(tmp_path / "mine" / "loose.png")
    with pytest.raises(InputError, match=r"loose\.png: in no sub-folder.*--concept"):
        imported(tmp_path / "mine", tmp_path / "other", concept=None)
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_read_is_a_row_with_its_reason_and_nothing_else_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    fill(folder, 3)
    (tmp_path / "secret.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "a.txt").write_text("not a picture")
    (folder / "b.png").touch()
    (folder / "c.png").write_bytes((folder / "00.png").read_bytes()[:100])
    (folder / "d.png").symlink_to(tmp_path / "secret.png")
    (folder / "e.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "f.png").symlink_to(folder / "nowhere.png")
    (folder / "g").symlink_to(tmp_path)
    os.mkfifo(folder / "h.png")
    (folder / ".DS_Store").write_text("hidden")
    found = {row["file"]: row for row in rows(imported(folder, tmp_path / "run"))}
    assert {name: row["status"] for name, row in found.items()} == {
        **{f"{i:02d}.png": "made" for i in range(3)},
        **{name: "failed" for name in ("a.txt", "b.png", "c.png", "d.png", "e.png", "f.png", "g", "h.png")},
    }
    assert found["b.png"]["reason"] == "the file is empty" and "no picture of a known kind" in found["a.txt"]["reason"]
    assert "cut off" in found["c.png"]["reason"] and found["f.png"]["reason"] == found["h.png"]["reason"]
    assert found["d.png"]["reason"] == found["e.png"]["reason"] == found["g"]["reason"] == album.OUTSIDE
    done = typecast("import", str(folder), "--concept", "ceo", "--out", str(tmp_path / "run2"), "--set", READ[0])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "c.png: damaged or cut off" in done.stderr and "3 images failed: a link" in done.stderr
    with (tmp_path / "run2/estimates.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["n"], row["n_one_person"], row["n_failed"]) == ("11", "3", "8")


def test_of_files_that_are_no_pictures_nothing_is_known(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_text("no")
    done = typecast("import", str(tmp_path / "mine"), "--concept", "ceo", "--set", READ[0], cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "could be told in none" in done.stdout


def test_a_grid_is_four_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    some = fill(folder, 2, size=(8, 6))
    (folder / "zz.png").write_text("no")
    opened = imported(folder, tmp_path / "run", grid=True)
    found = rows(opened)
    assert len(found) == len(opened[2]) == 12 and len({row["unit_id"] for row in found}) == 12
    first = [store.decode(row["image"]["bytes"]) for row in found[:4]]
    assert np.array_equal(np.block([[[first[0]], [first[1]]], [[first[2]], [first[3]]]]), some[0])
    assert [row["status"] for row in found[8:]] == ["failed"] * 4 and [row["sample"] for row in found] == [*range(12)]


def test_an_interrupted_import_goes_on_and_another_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(album, "SHARD_SIZE", 8)
    fill(tmp_path / "mine", 20)
    whole = rows(imported(tmp_path / "mine", tmp_path / "whole"))
    run, chosen, planned = imported(tmp_path / "mine", tmp_path / "run")
    assert isinstance(planned, Album) and len(planned.shards()) == 3
    run.images(planned.shards()[1]).write_bytes(b"cut off")
    run.images(planned.shards()[2]).unlink()
    kept = run.images(planned.shards()[0]).stat().st_mtime_ns
    assert rows(imported(tmp_path / "mine", tmp_path / "run")) == whole
    assert run.images(planned.shards()[0]).stat().st_mtime_ns == kept
    fill(tmp_path / "mine", 21)
    with pytest.raises(RunError, match=r"holds other pictures.*files is 20 there and 21 here; sha256 is"):
        imported(tmp_path / "mine", tmp_path / "run")
    with pytest.raises(InputError, match=r"made elsewhere \(typecast import FOLDER\)"):
        stages.load_run(tmp_path / "run")
    assert study.of_run(run.study_file) == chosen


def test_a_perceiver_that_there_is_not_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    fill(tmp_path / "mine", 3)
    wrong = {
        ("perceive.clip=ViT-L-41",): "no folder and no model",
        ("perceive.probe=nowhere",): "nowhere holds no probe.json",
        ("perceive.probe=embedded", "perceive.attributes=[race]"): "does not read race; it reads gender",
    }
    for changes, said in wrong.items():
        with pytest.raises(TypecastError, match=said):
            imported(tmp_path / "mine", tmp_path / "run", changes=changes)
        assert not (tmp_path / "run").exists()
    opened = imported(tmp_path / "mine", tmp_path / "run", changes=("perceive.clip=fake",))
    assert line.reopen(tmp_path / "run")[1] == opened[1]


def test_what_is_not_read_yet_may_be_read_otherwise(tmp_path: Path) -> None:
    fill(tmp_path / "mine", 3)
    imported(tmp_path / "mine", tmp_path / "run", changes=("perceive.attributes=[gender]",))
    opened = imported(tmp_path / "mine", tmp_path / "run")
    assert line.reopen(tmp_path / "run")[1] == opened[1] and opened[1].perceive.clip == "fake"
    line.perceive(opened)
    with pytest.raises(RunError, match=r"perceive\.attributes is \['gender', 'skin_tone'\] there and \['age'\] here"):
        imported(tmp_path / "mine", tmp_path / "run", changes=(READ[0], "perceive.attributes=[age]"))
    assert line.reopen(tmp_path / "run")[1] == opened[1]


@pytest.mark.parametrize("out", [None, Path("audit"), Path("a/b")])
def test_a_run_inside_of_the_folder_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path | None
) -> None:
    fill(tmp_path / "mine", 3)
    monkeypatch.chdir(tmp_path / "mine")
    for _ in range(2):
        opened = line.import_folder(
            Path("."), concept="ceo", model=None, grid=False, changes=(READ[0], "reference=[]"), out=out
        )
        assert [row["file"] for row in rows(opened)] == ["00.png", "01.png", "02.png"]


def test_the_same_picture_twice_is_said_and_counted(tmp_path: Path) -> None:
    fill(tmp_path / "mine", 3)
    shutil.copy(tmp_path / "mine/00.png", tmp_path / "mine/copy.png")
    run, _, planned = imported(tmp_path / "mine", tmp_path / "run")
    assert isinstance(planned, Album) and album.repeated(run, planned) == 1 and len(planned) == 4
    done = typecast("import", str(tmp_path / "mine"), "--concept", "ceo", "--set", READ[0], cwd=tmp_path)
    assert done.returncode == 0 and "1 pictures are the same as an earlier one" in done.stderr


def test_of_many_files_that_failed_the_first_are_listed_and_the_rest_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, more in ((8, 0), (11, 3)):
        cli._list_failed(tmp_path, [(f"{i}.png", "the file is empty") for i in range(n)])
        lines = capsys.readouterr().err.splitlines()
        assert lines[:8] == [f"{tmp_path / f'{i}.png'}: the file is empty" for i in range(8)]
        assert lines[8:] == ([f"{tmp_path}: and {more} more"] if more else [])


def test_a_folder_whose_name_is_no_concept_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "mine" / "nurse", 1)
    fill(tmp_path / "mine" / "_", 1)
    with pytest.raises(InputError, match="mine/_: its name is no concept; rename it"):
        imported(tmp_path / "mine", tmp_path / "run", concept=None)


def test_a_folder_that_may_not_be_listed_is_named_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "mine" / "woman", 1)
    fill(tmp_path / "mine" / "woman" / "locked", 1)
    listed = os.scandir

    def scandir(path: Any) -> Any:  # root may list whatever a mode forbids
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for read in (
        lambda: album.look(tmp_path / "mine", None, runs=tmp_path / "outputs"),
        lambda: labelled.load(str(tmp_path / "mine")),
    ):
        with pytest.raises(InputError, match="mine/woman/locked: cannot be listed: Permission denied"):
            read()


@pytest.mark.parametrize("concept", ["", " ", "_"])
def test_pictures_of_nothing_are_refused(tmp_path: Path, concept: str) -> None:
    fill(tmp_path / "mine", 1)
    with pytest.raises(InputError, match=f"--concept '{concept}': name what all pictures show"):
        cli.import_(str(tmp_path / "mine"), concept=concept, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["import", "nowhere", "--concept", "ceo"], "nowhere: no such folder"),
        (
            ["import", "nowhere"],
            "nowhere: no such folder or study file; the studies that ship and can be imported are: fair",
        ),
        (["import", "empty", "--concept", "ceo"], "holds no file"),
        (["import", "full", "--concept", "ceo", "--set", "perceive.clp=x"], "clp"),
        (["import", "full", "--concept", "ceo", "--set", "reference=[{table: x}]"], "bls_cps_table11"),
        (["import", "full"], "--concept ceo"),
    ],
)
def test_wrong_input_is_one_message(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "full", 1)
    done = typecast(*words, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_name_that_is_none_and_a_link_to_itself_are_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    fill(tmp_path / "in", 1)
    (tmp_path / "in" / "loop").symlink_to("loop")
    (tmp_path / "in" / os.fsdecode(b"bad\xff.png")).write_bytes(b"")
    found = {
        row["file"]: (row["status"], row["reason"])
        for row in rows(imported(tmp_path / "in", tmp_path / "run", concept="ceo"))
    }
    assert len(found) == 3
    assert found["loop"] == ("failed", album.NO_FILE) and found["bad\\xff.png"] == ("failed", album.NO_NAME)
