"""Labelled pictures as others keep them: every file is a picture or is listed, and a table says what is wrong in it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifiers import labelled
from pipeline.errors import InputError
from pipeline.types import Pixels
from scripts import emoji_world
from tests import tiny_clip


def waves(n: int, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (tiny_clip.SIZE, tiny_clip.SIZE, 3)).astype(np.uint8) for _ in range(n)]


def saved(folder: Path, names: list[str], seed: int = 0) -> None:
    for name, pixels in zip(names, waves(len(names), seed), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def png(picture: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


def bomb(small: bytes) -> bytes:
    """A PNG that claims to be of 20,000 x 20,000 pixels."""
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + small[24:29]
    return small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]


def read(picture: labelled.Picture) -> Pixels | str:
    """The pixels, or why there are none."""
    try:
        return picture.pixels()
    except labelled.UNREADABLE as error:
        return str(error)


# -- a CSV -----------------------------------------------------------------------------------------------


def test_a_csv_may_have_a_mark_empty_cells_and_cannot_tell(tmp_path: Path) -> None:
    saved(tmp_path, ["a.png", "b/c.png"])
    (tmp_path / "l.csv").write_text(
        "image,gender,concept,person\na.png,woman,nurse,7\nb/c.png,cannot tell,,\n", "utf-8-sig"
    )
    first, second = labelled.load(str(tmp_path / "l.csv")).pictures
    assert (first.labels, first.concept, first.group) == ({"gender": "woman"}, "nurse", "7")
    assert second.labels == {} and second.pixels().shape == (tiny_clip.SIZE, tiny_clip.SIZE, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,gender\na.png,female\nb.png,female\n", "'female' (2, 3); it should be one of woman, man"),
        ("image,sex\na.png,woman\n", "at least one attribute: gender"),
        ("picture,gender\na.png,woman\n", "column image is missing"),
        ("image,gender\na.png,woman\nb.png,man\n./a.png,man\n", "lines 2, 4: image: 'a.png' is there more than once"),
        ("image,gender\n../a.png,woman\n,man\n", "line 2: image: '../a.png' is no path below"),
        ("image,gender\nb.png,man\na\0.png,woman\n", r"line 3: image: 'a\x00.png' is no path below"),
        ("image,gender\na.png\n", "line 2: 1 cells, and the first line has 2"),
        ("image,gender,gender\na.png,woman,man\n", "two columns have the same name: image, gender, gender"),
        ("image,gender, gender\na.png,woman,man\n", "two columns have the same name: image, gender,  gender"),
        ('image,gender,concept\n\na.png,woman,"a\nb"\nb.png,female,\n', "line: gender: 'female' (5)"),
        ('image,gender\na.png,"wo"man\n', "line 2: ',' expected after"),
        ("image,gender,split\na.png,woman,dev\n", "split: 'dev' (2); it should be"),
        ("", "holds no line"),
        ("image,gender\n\n", "holds no line but the first"),
    ],
)
def test_a_csv_that_says_something_wrong_is_one_message(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=r"l\.csv") as error:
        labelled.load(str(tmp_path / "l.csv"))
    assert said in str(error.value)


def test_a_cell_may_hold_what_only_some_take_for_the_end_of_a_line(tmp_path: Path) -> None:
    saved(tmp_path, ["a.png"])
    (tmp_path / "l.csv").write_text("image,gender,concept\na.png,woman,cook\u2028and \x0bbaker\n", "utf-8")
    (only,) = labelled.load(str(tmp_path / "l.csv")).pictures
    assert only.concept == "cook\u2028and \x0bbaker"


def test_what_a_csv_names_and_is_no_file_is_listed_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "l.csv").write_text("image,gender\npipe,woman\nnowhere.png,man\n.,man\n")
    assert [read(picture) for picture in labelled.load(str(tmp_path / "l.csv")).pictures] == [labelled.NO_FILE] * 3


# -- folders ---------------------------------------------------------------------------------------------


def test_folders_are_the_levels_of_one_attribute(tmp_path: Path) -> None:
    saved(tmp_path, ["child/a.png", "older/b.jpg", "older/deep/c.webp"])
    album = labelled.load(str(tmp_path))
    assert [(p.name, p.labels["age"]) for p in album.pictures] == [
        ("child/a.png", "child"),
        ("older/b.jpg", "older"),
        ("older/deep/c.webp", "older"),
    ]
    (tmp_path / "ancient").mkdir()
    with pytest.raises(InputError, match="ancient, child, older; they should be levels of one attribute"):
        labelled.load(str(tmp_path))


def test_every_file_of_a_folder_is_a_picture_or_is_listed_with_the_reason(tmp_path: Path) -> None:
    saved(
        tmp_path, ["elsewhere/d.png", "in/woman/a.avif", "in/woman/b.jpg", "in/woman/c.png", "in/man/a.png", "in/d.png"]
    )
    home = tmp_path / "in"
    (home / "woman/b.jpg").rename(home / "woman/b.jfif")
    (home / "woman/c.png").rename(home / "woman/c")
    (home / "man/notes.txt").write_text("no picture")
    (home / "man/away.png").symlink_to(tmp_path / "elsewhere/d.png")
    (home / "man/here.png").symlink_to(home / "man/a.png")
    (home / "man/round.png").symlink_to(home / "man/round.png")
    (home / "man/linked").symlink_to(tmp_path / "elsewhere")
    (home / "man/.DS_Store").write_text("of the system")
    (home / "man/.thumbnails").mkdir()
    saved(home / "man/.thumbnails", ["a.png"])
    found = {picture.name: picture for picture in labelled.load(str(home)).pictures}
    assert [name for name, picture in found.items() if not isinstance(read(picture), str)] == [
        "man/a.png", "man/here.png", "woman/a.avif", "woman/b.jfif", "woman/c",
    ]  # fmt: skip
    assert {name: why for name, picture in found.items() if isinstance(why := read(picture), str)} == {
        "d.png": "in no folder, so nothing says what it shows",
        "man/away.png": labelled.OUTSIDE,
        "man/linked": labelled.OUTSIDE,
        "man/notes.txt": "no picture of a known kind (PNG, JPEG, WEBP, GIF, BMP, TIFF, AVIF)",
        "man/round.png": labelled.NO_FILE,
    }
    assert {found[name].labels["gender"] for name in found if name.startswith("man/")} == {"man"}


def test_a_link_out_of_the_folder_in_a_csv_is_listed_and_the_others_are_read(tmp_path: Path) -> None:
    home = tmp_path / "in"
    home.mkdir()
    for place in (home / "a.png", tmp_path / "away.png"):
        Image.new("RGB", (4, 4)).save(place)
    (home / "link.png").symlink_to(tmp_path / "away.png")
    (home / "labels.csv").write_text("image,gender\na.png,woman\nlink.png,man\nb/../../away.png,man\n")
    with pytest.raises(InputError, match=r"line 4: image: 'b/\.\./\.\./away\.png' is no path below"):
        labelled.load(str(home / "labels.csv"))
    (home / "labels.csv").write_text(f"image,gender\n{home / 'a.png'},woman\nlink.png,man\n")
    one, other = labelled.load(str(home / "labels.csv")).pictures
    assert one.pixels().shape == (4, 4, 3)
    with pytest.raises(ValueError, match=labelled.OUTSIDE):
        other.pixels()


def test_a_level_whose_folder_is_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    saved(tmp_path, ["elsewhere/a.png", "in/man/a.png"])
    (tmp_path / "in/woman").symlink_to(tmp_path / "elsewhere")
    man, woman = labelled.load(str(tmp_path / "in")).pictures
    assert not isinstance(read(man), str)
    assert (woman.name, woman.labels, read(woman)) == ("woman", {}, labelled.OUTSIDE)


# -- a dataset -------------------------------------------------------------------------------------------


def test_a_saved_dataset_is_read_with_its_classes_and_splits(tmp_path: Path) -> None:
    import datasets

    def part(seed: int) -> Any:
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "gender": datasets.ClassLabel(names=["man", "woman"]),
                "person": datasets.Value("int64"),
            }
        )
        rows = {"image": waves(2, seed), "gender": [1, 0], "person": [3, 4]}
        return datasets.Dataset.from_dict(rows, features=features)

    datasets.DatasetDict({"train": part(0), "calibration": part(1), "test": part(2)}).save_to_disk(str(tmp_path / "d"))
    album = labelled.load(str(tmp_path / "d"))
    assert [p.split for p in album.pictures] == ["train"] * 2 + ["calibration"] * 2 + ["test"] * 2
    assert [p.labels["gender"] for p in album.pictures] == ["woman", "man"] * 3
    np.testing.assert_array_equal(album.pictures[4].pixels(), waves(2, 2)[0])


@pytest.mark.parametrize(
    ("splits", "meant"),
    [
        (("train", "test"), ("", "test")),
        (("train", "validation", "test"), ("train", "calibration", "test")),
        (("train", "validation"), ("train", "calibration")),
        (("test",), ("test",)),
        (("train",), ("",)),
    ],
)
def test_the_split_test_of_a_dataset_is_never_learnt_from(
    tmp_path: Path, splits: tuple[str, ...], meant: tuple[str, ...]
) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "gender": datasets.Value("string")})
    parts = {
        split: datasets.Dataset.from_dict({"image": waves(2, seed), "gender": ["woman", "man"]}, features=features)
        for seed, split in enumerate(splits)
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    assert [p.split for p in labelled.load(str(tmp_path / "d")).pictures] == [word for word in meant for _ in range(2)]
    datasets.DatasetDict(parts | {"dev": parts[splits[0]]}).save_to_disk(str(tmp_path / "e"))
    with pytest.raises(InputError, match=r"split 'dev': .* train, calibration, validation, test"):
        labelled.load(str(tmp_path / "e"))


def test_a_column_of_a_dataset_may_say_the_split_but_makes_no_test_learnt_from(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "gender": datasets.Value("string"), "split": datasets.Value("string")}
    )
    rows = {"image": waves(3, 0), "gender": ["woman", "man", "man"], "split": ["train", "test", None]}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(str(tmp_path / "d"))
    found = [p.split for p in labelled.load(str(tmp_path / "d")).pictures]
    assert found == ["train", "test", "", "test", "test", "test"]


def of_dataset(folder: Path, contents: list[bytes | None]) -> Path:
    """A dataset of women with these files, saved as one that answers in arrays."""
    import datasets

    rows = {"image": [c and {"bytes": c, "path": None} for c in contents], "gender": ["woman"] * len(contents)}
    features = datasets.Features({"image": datasets.Image(), "gender": datasets.Value("string")})
    datasets.Dataset.from_dict(rows, features=features).with_format("numpy").save_to_disk(str(folder))
    return folder


def test_a_dataset_is_read_to_the_pixel_as_its_files_are(tmp_path: Path) -> None:
    """16 bits of grey, a transparent picture, one that EXIF turns, and an animation."""
    colours = waves(1, 0)[0]
    deep = Image.fromarray((colours[..., 0].astype(np.uint16) << 8) + 7)
    clear = Image.fromarray(np.dstack([colours, colours[..., 0]]))
    turned = Image.Exif()
    turned[274] = 6
    frames = [Image.fromarray(pixels) for pixels in waves(2, 1)]
    contents = [
        png(deep),
        png(clear),
        png(Image.fromarray(colours[:20]), exif=turned),
        png(frames[0], save_all=True, append_images=frames[1:]),
    ]
    (tmp_path / "f" / "woman").mkdir(parents=True)
    for number, content in enumerate(contents):
        (tmp_path / "f" / "woman" / f"{number}.png").write_bytes(content)
    files = labelled.load(str(tmp_path / "f")).pictures
    dataset = labelled.load(str(of_dataset(tmp_path / "d", [*contents]))).pictures
    for file, row in zip(files, dataset, strict=True):
        np.testing.assert_array_equal(row.pixels(), file.pixels())
    assert dataset[0].pixels().std() > 50, "16 bits are not cut off"


def test_a_row_of_a_dataset_that_is_no_picture_is_listed_with_the_reason(tmp_path: Path) -> None:
    whole = png(Image.fromarray(waves(1, 0)[0]))
    found = labelled.load(
        str(of_dataset(tmp_path / "d", [None, b"", b"GIF?", bomb(whole), whole[:200], whole]))
    ).pictures
    none, empty, other, large, cut, good = (read(picture) for picture in found)
    assert none == "the dataset holds no bytes of it" and empty == "the file is empty"
    assert [str(why)[:12] for why in (other, large, cut)] == ["no picture o", "too large: m", "damaged or c"]
    np.testing.assert_array_equal(good, waves(1, 0)[0])


@pytest.mark.parametrize("damage", ["cut", "state", "bytes"])
def test_a_damaged_dataset_is_one_message(tmp_path: Path, damage: str) -> None:
    folder = of_dataset(tmp_path / "d", [png(Image.fromarray(pixels)) for pixels in waves(4, 0)])
    (arrow,) = folder.glob("*.arrow")
    whole = arrow.read_bytes()
    if damage == "cut":
        arrow.write_bytes(whole[: len(whole) // 2])
    elif damage == "state":
        (folder / "state.json").write_text('{"_data_files":')
    else:  # where the words of the labels begin in their buffer
        offsets = struct.pack("<5i", 0, 5, 10, 15, 20)
        assert whole.count(offsets) == 1
        arrow.write_bytes(whole.replace(offsets, struct.pack("<5i", 0, 5, 1 << 30, 15, 20)))
    with pytest.raises(InputError, match=r"d: cannot be read as a dataset that `datasets` saved: "):
        labelled.load(str(folder))


def test_a_column_that_is_no_image_and_a_class_without_a_name_are_said(tmp_path: Path) -> None:
    import datasets

    def kept(name: str, rows: dict[str, Any], features: dict[str, Any]) -> str:
        dataset = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        dataset.save_to_disk(str(tmp_path / name))
        return str(tmp_path / name)

    text, gender = datasets.Value("string"), datasets.ClassLabel(names=["man", "woman"])
    with pytest.raises(InputError, match=r"a: image: is Value\(.*should be an Image feature"):
        labelled.load(kept("a", {"image": ["x.png"], "gender": [0]}, {"image": text, "gender": gender}))
    rows = {"image": waves(1, 0), "gender": [0]}
    folder = Path(kept("b", rows, {"image": datasets.Image(), "gender": gender}))
    described = (folder / "dataset_info.json").read_text()
    (folder / "dataset_info.json").write_text(described.replace('"man",', "").replace('"woman"', ""))
    with pytest.raises(InputError, match=r"b: cannot be read as a dataset"):
        labelled.load(str(folder))


# -- layouts that others distribute ----------------------------------------------------------------------


def test_fairface_is_read_as_it_is_distributed(tmp_path: Path) -> None:
    header = "file,age,gender,race,service_test\n"
    saved(tmp_path, ["train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg"])
    (tmp_path / "fairface_label_train.csv").write_text(
        header
        + "train/1.jpg,50-59,Male,East Asian,True\ntrain/2.jpg,10-19,Female,Latino_Hispanic,False\n"
        + "train/3.jpg,60-69,Female,Indian,False\n"  # older begins at 65 in BLS Table 11b
    )
    (tmp_path / "fairface_label_val.csv").write_text(header + "val/1.jpg,more than 70,Female,White,True\n")
    album = labelled.load(str(tmp_path))
    assert [(p.labels, p.split) for p in album.pictures] == [
        ({"gender": "man", "age": "adult", "race": "Asian"}, ""),
        ({"gender": "woman"}, ""),
        ({"gender": "woman"}, ""),
        ({"gender": "woman", "age": "older", "race": "White"}, "test"),
    ]
    (tmp_path / "fairface_label_val.csv").write_text(header + "val/1.jpg,71+,Female,White,True\n")
    with pytest.raises(InputError, match=r"fairface_label_val.csv: line 2: age: '71\+'; known are 0-2"):
        labelled.load(str(tmp_path))


def test_a_picture_that_fairface_lists_twice_is_refused_with_the_lines(tmp_path: Path) -> None:
    header, row = "file,age,gender,race\n", ",50-59,Male,White\n"
    (tmp_path / "fairface_label_train.csv").write_text(header + f"train/1.jpg{row}train/2.jpg{row}train/1.jpg{row}")
    with pytest.raises(InputError, match=r"train\.csv: lines 2, 4: file: 'train/1\.jpg' is there more than once"):
        labelled.load(str(tmp_path))
    (tmp_path / "fairface_label_train.csv").write_text(header + f"train/1.jpg{row}")
    (tmp_path / "fairface_label_val.csv").write_text(header + f"val/1.jpg{row}train/1.jpg{row}")
    said = r"val\.csv: line 3: file: 'train/1\.jpg' is in fairface_label_train\.csv too"
    with pytest.raises(InputError, match=said):
        labelled.load(str(tmp_path))


def test_the_chicago_face_database_is_read_by_its_file_names(tmp_path: Path) -> None:
    base = "CFD Version 3.0/Images"
    names = [
        f"{base}/CFD/BF-001/CFD-BF-001-021-HO.jpg",
        f"{base}/CFD/BF-001/CFD-BF-001-025-N.jpg",
        f"{base}/CFD/LM-200/CFD-LM-200-045-N.jpg",
        f"{base}/CFD-INDIA/CFD-IF-603-161-N.jpg",
    ]
    saved(tmp_path, names)
    found = {p.name: (p.labels, p.group) for p in labelled.load(str(tmp_path)).pictures}
    assert found[names[0]] == found[names[1]] == ({"gender": "woman", "race": "Black"}, "BF-001")
    assert found[names[2]] == ({"gender": "man"}, "LM-200")
    assert found[names[3]] == ({"gender": "woman"}, "IF-603")


def test_a_file_that_is_not_named_as_the_chicago_face_database_names_its_own_is_listed(tmp_path: Path) -> None:
    saved(tmp_path, ["CFD-BF-001-021-HO.avif", "CFD-BF-1.png", "other.png", "CFD-WM-001-014-N.png"])
    (tmp_path / "CFD-WM-001-014-N.png").rename(tmp_path / "CFD-WM-001-014-N")
    (tmp_path / "codebook.xlsx").write_bytes(b"PK")
    (tmp_path / "CFD-WM-009-014-N.jpg").symlink_to("/nowhere/CFD-WM-009-014-N.jpg")
    found = {picture.name: picture for picture in labelled.load(str(tmp_path)).pictures}
    good = ("CFD-BF-001-021-HO.avif", "CFD-WM-001-014-N")
    assert [found[name].group for name in good if not isinstance(read(found[name]), str)] == ["BF-001", "WM-001"]
    why = {name: str(read(picture)) for name, picture in found.items() if name not in good}
    assert why.pop("codebook.xlsx").startswith("no picture of a known kind")
    assert why.pop("CFD-WM-009-014-N.jpg") == labelled.OUTSIDE
    assert set(why) == {"CFD-BF-1.png", "other.png"}
    assert set(why.values()) == {"not named as CFD-WF-001-003-N.jpg, so nothing says who is in it"}


def test_the_emoji_world_is_that_of_the_embedded_models() -> None:
    album = labelled.load("emoji")
    taught = {p.tile: p for p in emoji_world.pictures() if p.taught}
    for split in ("calibration", "test"):
        assert sum(p.split == split for p in album.pictures) == sum(p.split == split for p in taught.values())
    assert emoji_world.IDENTITIES == labelled.IDENTITIES
    by_split = {s: {p.group for p in album.pictures if p.split == s} for s in ("train", "calibration", "test")}
    assert not by_split["test"] & (by_split["train"] | by_split["calibration"])
    pixels = emoji_world.pixels()
    mine = next(p for p in album.pictures if p.split == "test")
    assert any(np.array_equal(mine.pixels(), pixels[tile]) for tile, p in taught.items() if p.split == "test")
