"""Pictures of which a person has said what they show: a CSV, folders, FairFace, the Chicago Face Database, the emoji world.

The pictures of FairFace and of the Chicago Face Database are not here and may not be given on: whoever has obtained
them names the folder. What their labels say is what the people in the pictures, or whoever labelled them, said.
"""

from __future__ import annotations

import csv
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifiers.attributes import ATTRIBUTES
from pipeline.errors import InputError
from pipeline.pictures import decoded
from pipeline.types import CANNOT_TELL, Pixels

EMBEDDED = Path(__file__).parents[1] / "pipeline" / "embedded"
TRAIN, CALIBRATION, TEST = "train", "calibration", "test"
SPLITS = (TRAIN, CALIBRATION, TEST, "")
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
TILE = 64
MOST = 5
"""Names that an error lists."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One labelled picture."""

    name: str
    labels: Mapping[str, str]
    """Attribute to level; an attribute that is not labelled is not there."""
    concept: str = ""
    """What the picture is about, such as an occupation, if that is known."""
    group: str = ""
    """Pictures of one group (one person, one drawing) are learnt from together or judged together; empty: it is alone."""
    split: str = ""
    """`train`: only learnt from. `test`: left for `evaluate`. Else learnt from, and judged by what has not seen it."""
    pixels: Callable[[], Pixels]
    """`OSError` or `ValueError` where it cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Album:
    """Labelled pictures, and what to call them in a sentence."""

    what: str
    pictures: tuple[Picture, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """Those that some picture is labelled for, in the order of `ATTRIBUTES`."""
        return tuple(name for name in ATTRIBUTES if any(name in p.labels for p in self.pictures))


def load(source: str) -> Album:
    """`emoji`; a CSV; or a folder: of FairFace, of the Chicago Face Database, of the emoji world's layout, of a dataset
    that `datasets` saved, or with a folder of pictures for each level of one attribute."""
    path = EMBEDDED if source == "emoji" else Path(source).expanduser()
    if path.is_file():
        album = _csv(path)
    elif not path.is_dir():
        raise InputError(
            f"{source}: no such file or folder of pictures; the right answers are: emoji, a CSV or a folder"
        )
    elif (path / "world.csv").is_file():
        album = _emoji(path)
    elif (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        album = _dataset(path)
    elif [*path.glob("fairface_label_*.csv")]:
        album = _fairface(path)
    elif next(_cfd_files(path), None):
        album = _cfd(path)
    else:
        album = _folders(path)
    if not album.attributes:
        raise InputError(f"{source}: no picture is labelled for any of {', '.join(ATTRIBUTES)}")
    return album


def _read(path: Path) -> Pixels:
    """The pixels of a file as it is meant to be looked at."""
    found = decoded(path.read_bytes())
    if isinstance(found, str):
        raise ValueError(found)
    return found


UNREADABLE = (OSError, ValueError)
"""Of a picture that cannot be read."""


# -- a CSV, folders, a dataset -----------------------------------------------------------------------


def _csv(path: Path) -> Album:
    """Columns `image` (a path from the folder of the CSV) and one per attribute; `concept`, `person` and `split` may be
    there. An empty cell and `cannot tell` are no label."""
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path}: holds no line")
    columns = list(rows[0])
    if "image" not in columns:
        raise InputError(f"{path}: the column image is missing; its columns are: {', '.join(map(str, columns))}")
    attributes = [name for name in ATTRIBUTES if name in columns]
    if not attributes:
        raise InputError(f"{path}: needs a column for at least one attribute: {', '.join(ATTRIBUTES)}")
    _check(f"{path}: line", [(number, row) for number, row in enumerate(rows, 2)], attributes)
    twice = [name for name, n in Counter(row["image"] for row in rows).items() if n > 1]
    if twice:
        raise InputError(f"{path}: image: {len(twice)} are there twice: {', '.join(twice[:MOST])}")
    outside = [row["image"] for row in rows if not _inside(path.parent, row["image"])]
    if outside:
        raise InputError(f"{path}: image: must be a path below {path.parent}; is not: {', '.join(outside[:MOST])}")
    return Album(what=path.name, pictures=tuple(_picture(path.parent, row, attributes) for row in rows))


def _picture(folder: Path, row: Mapping[str, str], attributes: Sequence[str]) -> Picture:
    file = folder / row["image"]
    return Picture(
        name=row["image"],
        labels=_labels(row, attributes),
        concept=row.get("concept") or "",
        group=row.get("person") or "",
        split=row.get("split") or "",
        pixels=functools.partial(_read, file),
    )


def _labels(row: Mapping[str, Any], attributes: Sequence[str]) -> dict[str, str]:
    return {name: row[name] for name in attributes if row.get(name) and row[name] != CANNOT_TELL}


def _check(where: str, rows: Sequence[tuple[int, Mapping[str, Any]]], attributes: Sequence[str]) -> None:
    """Every word must be a level; all that are not are named, with the lines."""
    for name in attributes:
        known = (*ATTRIBUTES[name].levels, CANNOT_TELL)
        wrong: dict[str, list[int]] = {}
        for number, row in rows:
            if row.get(name) and row[name] not in known:
                wrong.setdefault(str(row[name]), []).append(number)
        if wrong:
            said = "; ".join(f"{word!r} ({', '.join(map(str, some[:MOST]))})" for word, some in wrong.items())
            raise InputError(f"{where}: {name}: {said}; it should be one of {', '.join(known)}, or empty")
    wrong_split = {str(row["split"]) for _, row in rows if row.get("split") and row["split"] not in SPLITS}
    if wrong_split:
        raise InputError(
            f"{where}: split: {', '.join(sorted(wrong_split))}; it should be train, calibration, test or empty"
        )


def _inside(folder: Path, name: str) -> bool:
    """Does a name stay below its folder?"""
    return bool(name) and (folder / name).resolve().is_relative_to(folder.resolve())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV in UTF-8, cells without the spaces around them."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    try:
        rows = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as a CSV: {error}") from None
    odd = [number for number, row in enumerate(rows, 2) if None in row or None in row.values()]
    if odd:
        raise InputError(f"{path}: line {odd[0]}: has another number of cells than the first line")
    return [{key.strip(): cell.strip() for key, cell in row.items()} for row in rows]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES and not p.name.startswith("."))


def _folders(path: Path) -> Album:
    """`FOLDER/woman/*.jpg`, `FOLDER/man/*.jpg`: the names of the folders are levels of one attribute."""
    names = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    fits = [a.name for a in ATTRIBUTES.values() if names and set(names) <= set(a.levels)]
    if not fits:
        levels = "; ".join(f"{a.name}: {', '.join(a.levels)}" for a in ATTRIBUTES.values())
        raise InputError(
            f"{path}: its folders are {', '.join(names) or 'none'}; they should be levels of one attribute ({levels}), or "
            "it should hold fairface_label_*.csv, CFD-*.jpg, world.csv or a dataset that `datasets` saved"
        )
    return Album(
        what=path.name,
        pictures=tuple(
            Picture(
                name=file.relative_to(path).as_posix(), labels={fits[0]: level}, pixels=functools.partial(_read, file)
            )
            for level in names
            for file in _files(path / level)
        ),
    )


def _dataset(path: Path) -> Album:
    """A dataset that `datasets` saved to a folder: a column `image`, columns as in a CSV; splits may be named
    `train`, `calibration` and `test`, and a dataset that has these three is read by them."""
    import datasets

    loaded = datasets.load_from_disk(str(path))
    parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    by_split = set(parts) == {TRAIN, CALIBRATION, TEST}
    pictures: list[Picture] = []
    for split, part in parts.items():
        names = part.column_names
        attributes = [name for name in ATTRIBUTES if name in names]
        if "image" not in names or not attributes:
            raise InputError(
                f"{path}: needs the columns image and one of {', '.join(ATTRIBUTES)}; has: {', '.join(names)}"
            )
        told = part.select_columns([n for n in (*attributes, "concept", "person", "split") if n in names])
        rows = [_named(row, told.features) for row in told]
        _check(f"{path}: {split or 'row'}", list(enumerate(rows)), attributes)
        pictures += [
            Picture(
                name=f"{split or 'row'} {number}",
                labels=_labels(row, attributes),
                concept=row.get("concept", ""),
                group=row.get("person", ""),
                split=split if by_split else row.get("split", ""),
                pixels=functools.partial(_row_of, part, number),
            )
            for number, row in enumerate(rows)
        ]
    return Album(what=path.name, pictures=tuple(pictures))


def _row_of(dataset: Any, number: int) -> Pixels:
    return np.asarray(dataset[number]["image"].convert("RGB"))


def _named(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row as text; a class as its name."""
    found = {}
    for key, value in row.items():
        to_name = getattr(features[key], "int2str", None)
        found[key] = "" if value is None else to_name(value) if to_name and value >= 0 else str(value)
    return found


# -- layouts that others distribute ------------------------------------------------------------------

FAIRFACE = {
    "gender": {"Male": "man", "Female": "woman"},
    "age": {
        **dict.fromkeys(("0-2", "3-9"), "child"),
        **dict.fromkeys(("20-29", "30-39", "40-49", "50-59"), "adult"),
        **dict.fromkeys(("60-69", "more than 70"), "older"),
        "10-19": "",
    },
    "race": {"White": "White", "Black": "Black", "East Asian": "Asian", "Southeast Asian": "Asian"}
    | dict.fromkeys(("Indian", "Middle Eastern", "Latino_Hispanic"), ""),
}
"""Kärkkäinen and Joo (2021), arXiv:1908.04913: labels by paid viewers. Ages of 10 to 19 are on both sides of a border,
and what we do not count as White, Black or Asian without a doubt is not labelled."""


def _fairface(path: Path) -> Album:
    """`fairface_label_train.csv`, `fairface_label_val.csv` and the folders `train/` and `val/`; `val` is the test."""
    pictures = []
    for table in sorted(path.glob("fairface_label_*.csv")):
        rows = read_rows(table)
        if rows and not {"file", *FAIRFACE} <= set(rows[0]):
            raise InputError(f"{table}: needs the columns file, {', '.join(FAIRFACE)}; has: {', '.join(rows[0])}")
        for number, row in enumerate(rows, 2):
            for name, words in FAIRFACE.items():
                if row[name] not in words:
                    raise InputError(f"{table}: line {number}: {name}: {row[name]!r}; known are {', '.join(words)}")
            if not _inside(path, row["file"]):
                raise InputError(f"{table}: line {number}: file: {row['file']!r} is no path below {path}")
            labels = {name: words[row[name]] for name, words in FAIRFACE.items() if words[row[name]]}
            split = TEST if table.stem.endswith("_val") else ""
            file = path / row["file"]
            pictures.append(
                Picture(name=row["file"], labels=labels, split=split, pixels=functools.partial(_read, file))
            )
    return Album(what="FairFace", pictures=tuple(pictures))


CFD = re.compile(r"CFD-(?P<race>[ABLWMI])(?P<gender>[FM])-(?P<person>\d+)-\d+-(?P<look>[A-Z]+)\.jpe?g", re.IGNORECASE)
CFD_RACES = {"A": "Asian", "B": "Black", "W": "White"}


def _cfd_files(path: Path) -> Iterator[Path]:
    return (p for p in path.rglob("CFD-*") if CFD.fullmatch(p.name))


def _cfd(path: Path) -> Album:
    """`CFD-WF-001-003-N.jpg`, in any folders below: ethnicity and gender as the person in it said, number, expression.

    Ma, Correll and Wittenbrink (2015), Behavior Research Methods 47:1122, and the extensions CFD-MR and CFD-INDIA.
    Latino, multiracial and Indian people are not labelled for race: a viewer's categories do not follow from theirs.
    """
    pictures = []
    for file in sorted(_cfd_files(path)):
        found = CFD.fullmatch(file.name)
        assert found
        race, gender = CFD_RACES.get(found["race"].upper()), {"F": "woman", "M": "man"}[found["gender"].upper()]
        pictures.append(
            Picture(
                name=file.relative_to(path).as_posix(),
                labels={"gender": gender} | ({"race": race} if race else {}),
                group=f"{found['race']}{found['gender']}-{found['person']}".upper(),
                pixels=functools.partial(_read, file),
            )
        )
    return Album(what="Chicago Face Database", pictures=tuple(pictures))


IDENTITIES = ("plain", "blond hair", "red hair", "curly hair", "white hair", "bald")
"""What the embedded models were taught of people without an occupation."""


def _emoji(path: Path) -> Album:
    """The emoji world, `world.csv` and `world.webp`: people with a skin tone.

    The splits are those of the embedded models, and only of what these were taught; their other pictures are learnt
    from alone. Another world of this layout is all foreign to them and has no splits. A combination of concept, gender,
    age and tone is one group, in all sets together.
    """
    own = path == EMBEDDED
    rows = [row for row in read_rows(path / "world.csv") if row["tone"] != "none"]
    atlas = np.asarray(Image.open(path / "world.webp").convert("RGB"))
    across = atlas.shape[1] // TILE

    def picture(row: Mapping[str, str]) -> Picture | None:
        taught = (row["kind"] == "occupation" or row["concept"] in IDENTITIES) and row["gender_drawn"] in ATTRIBUTES[
            "gender"
        ].levels
        if own and not taught and row["split"] == TEST:
            return None
        labels = {"gender": row["gender_drawn"], "skin_tone": row["tone"], "age": row["age"]}
        y, x = (TILE * place for place in divmod(int(row["tile"]), across))
        return Picture(
            name=f"{row['vendor']}/{row['codepoints']}",
            labels={name: word for name, word in labels.items() if word in ATTRIBUTES[name].levels},
            concept=row["concept"],
            group=" ".join((row["concept"], row["gender_drawn"], row["age"], row["tone"])),
            split=(row["split"] if taught else TRAIN) if own else "",
            pixels=lambda: np.ascontiguousarray(atlas[y : y + TILE, x : x + TILE]),
        )

    found = tuple(p for row in rows if (p := picture(row)))
    return Album(
        what="the emoji world" if own else f"the emoji of {', '.join(sorted({r['vendor'] for r in rows}))}",
        pictures=found,
    )
