"""Pictures of which a person has said what they show: a CSV, folders, FairFace, the Chicago Face Database, the emoji world.

The pictures of FairFace and of the Chicago Face Database are not here and may not be given on: whoever has obtained
them names the folder. What their labels say is what the people in the pictures, or whoever labelled them, said.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifiers.attributes import ATTRIBUTES
from pipeline import checks
from pipeline.errors import InputError
from pipeline.pictures import bytes_of, decoded, files_below
from pipeline.types import CANNOT_TELL, Pixels

EMBEDDED = Path(__file__).parents[1] / "pipeline" / "embedded"
TRAIN, CALIBRATION, TEST = "train", "calibration", "test"
SPLITS = (TRAIN, CALIBRATION, TEST, "")
VALIDATION = "validation"
"""What most datasets call the split `calibration`."""
TILE = 64
MOST = 5
"""Names that an error lists."""
OUTSIDE = "a link that leads out of the folder"
NO_FILE = "no file: a link to nothing or to a folder, or something else that is not read"


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
    elif any(CFD.fullmatch(file.name) for file in files_below(path)):
        album = _cfd(path)
    else:
        album = _folders(path)
    if not album.attributes:
        raise InputError(f"{source}: no picture is labelled for any of {', '.join(ATTRIBUTES)}")
    return album


UNREADABLE = (OSError, ValueError)
"""Of a picture that cannot be read."""


def _read(path: Path, home: Path) -> Pixels:
    """The pixels of a file; `ValueError` where there are none. Nothing is read that lies outside of the folder `home`."""
    if not _inside(path, home):
        raise ValueError(OUTSIDE)
    if not path.is_file():
        raise ValueError(NO_FILE)
    return _pixels(bytes_of(path))


def _pixels(content: bytes | str) -> Pixels:
    """What a file holds, as it is meant to be looked at; `ValueError` with the reason where it holds no picture."""
    found = content if isinstance(content, str) else decoded(content)
    if isinstance(found, str):
        raise ValueError(found)
    return found


def _unlabelled(path: Path, home: Path, why: str) -> Pixels:
    """Of a file that says not what it shows nothing is used; `ValueError` with the reason, or that it is no picture."""
    _read(path, home)
    raise ValueError(why)


def _inside(path: Path, home: Path) -> bool:
    """Does a path stay below a folder, where its links lead?"""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(home))


# -- a CSV, folders, a dataset -----------------------------------------------------------------------


def _csv(path: Path) -> Album:
    """Columns `image` (a path from the folder of the CSV) and one per attribute; `concept`, `person` and `split` may be
    there. An empty cell and `cannot tell` are no label."""
    lines = read_rows(path)
    columns = list(lines[0][1])
    if "image" not in columns:
        raise InputError(f"{path}: the column image is missing; its columns are: {', '.join(columns)}")
    attributes = [name for name in ATTRIBUTES if name in columns]
    if not attributes:
        raise InputError(f"{path}: needs a column for at least one attribute: {', '.join(ATTRIBUTES)}")
    _check(f"{path}: line", lines, attributes)
    wrong = _misnamed(path.parent, "image", lines)
    if wrong:
        raise checks.all_wrong(path, wrong)
    return Album(what=path.name, pictures=tuple(_picture(path.parent, row, attributes) for _, row in lines))


def _picture(folder: Path, row: Mapping[str, str], attributes: Sequence[str]) -> Picture:
    return Picture(
        name=row["image"],
        labels=_labels(row, attributes),
        concept=row.get("concept") or "",
        group=row.get("person") or "",
        split=row.get("split") or "",
        pixels=functools.partial(_read, folder / row["image"], folder),
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
    wrong_split: dict[str, list[int]] = {}
    for number, row in rows:
        if row.get("split") and row["split"] not in SPLITS:
            wrong_split.setdefault(str(row["split"]), []).append(number)
    if wrong_split:
        said = "; ".join(f"{word!r} ({', '.join(map(str, some[:MOST]))})" for word, some in wrong_split.items())
        raise InputError(f"{where}: split: {said}; it should be train, calibration, test or empty")


def _misnamed(folder: Path, column: str, lines: Iterable[tuple[int, Mapping[str, str]]]) -> checks.Problems:
    """Names that are no path below the folder as they are written, and pictures that are in several lines.

    Where a link leads is not asked here: the picture of one that leads out of the folder is listed (`_read`).
    """
    home = os.path.abspath(folder)
    wrong: checks.Problems = {}
    places: dict[str, list[int]] = {}
    for number, row in lines:
        name = row[column]
        if name and "\0" not in name and Path(os.path.abspath(folder / name)).is_relative_to(home):
            places.setdefault(os.path.normpath(name), []).append(number)
        else:
            wrong.setdefault(f"{column}: {name!r} is no path below {folder}", []).append(number)
    twice = {f"{column}: {name!r} is there more than once": some for name, some in places.items() if len(some) > 1}
    return wrong | twice


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV in UTF-8 with their numbers, at least one; cells and columns without the spaces around them."""
    found = []
    for number, cells in checks.csv_lines(path, path.read_bytes()):
        row = {column.strip(): cell.strip() for column, cell in cells.items()}
        if len(row) < len(cells):
            raise InputError(f"{path}: two columns have the same name: {', '.join(cells)}")
        found.append((number, row))
    if not found:
        raise InputError(f"{path}: holds no line but the first")
    return found


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
    return Album(what=path.name, pictures=tuple(_in_folder(file, path, fits[0]) for file in sorted(files_below(path))))


def _in_folder(file: Path, path: Path, attribute: str) -> Picture:
    name = file.relative_to(path).as_posix()
    level, inner, _ = name.partition("/")
    if not inner:
        why = "in no folder, so nothing says what it shows"
        return Picture(name=name, labels={}, pixels=functools.partial(_unlabelled, file, path, why))
    return Picture(name=name, labels={attribute: level}, pixels=functools.partial(_read, file, path))


def _dataset(path: Path) -> Album:
    """A dataset that `datasets` saved to a folder: a column `image`, columns as in a CSV, splits by their names."""
    import datasets

    parts = _parts(path)
    meant = _meant(path, parts)
    pictures: list[Picture] = []
    for split, part in parts.items():
        names = part.column_names
        attributes = [name for name in ATTRIBUTES if name in names]
        if "image" not in names or not attributes:
            raise InputError(
                f"{path}: needs the columns image and one of {', '.join(ATTRIBUTES)}; has: {', '.join(names)}"
            )
        if not isinstance(part.features["image"], datasets.Image):
            raise InputError(f"{path}: image: is {part.features['image']}; it should be an Image feature")
        rows = _told(path, part.select_columns([n for n in (*attributes, "concept", "person", "split") if n in names]))
        _check(f"{path}: {split or 'row'}", list(enumerate(rows)), attributes)
        # As bytes: Pillow's own way to RGB cuts 16 bits of grey off, and reads what a bomb claims to hold.
        images = part.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
        pictures += [
            Picture(
                name=f"{split or 'row'} {number}",
                labels=_labels(row, attributes),
                concept=row.get("concept", ""),
                group=row.get("person", ""),
                split=TEST if meant[split] == TEST else row.get("split") or meant[split],
                pixels=functools.partial(_row_of, images, number),
            )
            for number, row in enumerate(rows)
        ]
    return Album(what=path.name, pictures=tuple(pictures))


def _meant(path: Path, splits: Iterable[str]) -> dict[str, str]:
    """What each split of a dataset is to a fit. `train` beside nothing to be judged by is judged too, in folds."""
    known = {"": "", TRAIN: TRAIN, CALIBRATION: CALIBRATION, VALIDATION: CALIBRATION, TEST: TEST}
    if unknown := [split for split in splits if split not in known]:
        raise InputError(
            f"{path}: split {', '.join(map(repr, unknown))}: may be learnt from or may not, nothing says; rename it to one of: "
            f"{', '.join(name for name in known if name)}"
        )
    meant = {split: known[split] for split in splits}
    return meant if CALIBRATION in meant.values() else {s: "" if to == TRAIN else to for s, to in meant.items()}


def _parts(path: Path) -> dict[str, Any]:
    """The splits of a saved dataset; one without splits is that of no name."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
        parts = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
        for part in parts.values():
            part.data.validate(full=True)  # what points outside of its buffers would end the process
    except Exception as error:  # json, pyarrow and datasets each have their own of a damaged file
        raise _damaged(path, error) from None
    return {split: part.with_format(None) for split, part in parts.items()}


def _damaged(path: Path, error: Exception) -> InputError:
    said = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{path}: cannot be read as a dataset that `datasets` saved: {said}")


def _told(path: Path, labels: Any) -> list[dict[str, str]]:
    """The cells of every row as text; a class as its name."""
    try:
        return [_named(row, labels.features) for row in labels]
    except Exception as error:  # such as a class that the dataset has no name for
        raise _damaged(path, error) from None


def _row_of(images: Any, number: int) -> Pixels:
    image = images[number]["image"]
    if image is None or image["bytes"] is None:
        raise ValueError("the dataset holds no bytes of it")
    return _pixels(image["bytes"])


def _named(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, str]:
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
        "more than 70": "older",
        **dict.fromkeys(("10-19", "60-69"), ""),
    },
    "race": {"White": "White", "Black": "Black", "East Asian": "Asian", "Southeast Asian": "Asian"}
    | dict.fromkeys(("Indian", "Middle Eastern", "Latino_Hispanic"), ""),
}
"""Kärkkäinen and Joo (2021), arXiv:1908.04913: labels by paid viewers. Ages of 10 to 19 and of 60 to 69 are on both sides of a
border (in BLS Table 11b people are older from 65 on), and what we do not count as White, Black or Asian without a doubt is
not labelled."""


def _fairface(path: Path) -> Album:
    """`fairface_label_train.csv`, `fairface_label_val.csv` and the folders `train/` and `val/`; `val` is the test."""
    pictures = []
    listed: dict[str, str] = {}
    for table in sorted(path.glob("fairface_label_*.csv")):
        lines = read_rows(table)
        if not {"file", *FAIRFACE} <= set(lines[0][1]):
            raise InputError(f"{table}: needs the columns file, {', '.join(FAIRFACE)}; has: {', '.join(lines[0][1])}")
        wrong = _misnamed(path, "file", lines)
        for number, row in lines:
            for name, words in FAIRFACE.items():
                if row[name] not in words:
                    wrong.setdefault(f"{name}: {row[name]!r}; known are {', '.join(words)}", []).append(number)
            if listed.setdefault(row["file"], table.name) != table.name:
                wrong[f"file: {row['file']!r} is in {listed[row['file']]} too"] = [number]
        if wrong:
            raise checks.all_wrong(table, wrong)
        pictures += [_of_fairface(path, row, TEST if table.stem.endswith("_val") else "") for _, row in lines]
    return Album(what="FairFace", pictures=tuple(pictures))


def _of_fairface(path: Path, row: Mapping[str, str], split: str) -> Picture:
    return Picture(
        name=row["file"],
        labels={name: words[row[name]] for name, words in FAIRFACE.items() if words[row[name]]},
        split=split,
        pixels=functools.partial(_read, path / row["file"], path),
    )


CFD = re.compile(r"CFD-(?P<race>[ABLWMI])(?P<gender>[FM])-(?P<person>\d+)-\d+-(?P<look>[A-Z]+)(\.\w+)?", re.IGNORECASE)
CFD_RACES = {"A": "Asian", "B": "Black", "W": "White"}


def _cfd(path: Path) -> Album:
    """`CFD-WF-001-003-N.jpg`, in any folders below: ethnicity and gender as the person in it said, number, expression.

    Ma, Correll and Wittenbrink (2015), Behavior Research Methods 47:1122, and the extensions CFD-MR and CFD-INDIA.
    Latino, multiracial and Indian people are not labelled for race: a viewer's categories do not follow from theirs.
    A file of another name is none of its pictures, and is listed.
    """
    return Album(
        what="Chicago Face Database", pictures=tuple(_of_cfd(file, path) for file in sorted(files_below(path)))
    )


def _of_cfd(file: Path, path: Path) -> Picture:
    name, found = file.relative_to(path).as_posix(), CFD.fullmatch(file.name)
    if not found:
        why = "not named as CFD-WF-001-003-N.jpg, so nothing says who is in it"
        return Picture(name=name, labels={}, pixels=functools.partial(_unlabelled, file, path, why))
    race, gender = CFD_RACES.get(found["race"].upper()), {"F": "woman", "M": "man"}[found["gender"].upper()]
    return Picture(
        name=name,
        labels={"gender": gender} | ({"race": race} if race else {}),
        group=f"{found['race']}{found['gender']}-{found['person']}".upper(),
        pixels=functools.partial(_read, file, path),
    )


IDENTITIES = ("plain", "blond hair", "red hair", "curly hair", "white hair", "bald")
"""What the embedded models were taught of people without an occupation."""


def _emoji(path: Path) -> Album:
    """The emoji world, `world.csv` and `world.webp`: people with a skin tone.

    The splits are those of the embedded models, and only of what these were taught; their other pictures are learnt
    from alone. Another world of this layout is all foreign to them and has no splits. A combination of concept, gender,
    age and tone is one group, in all sets together.
    """
    own = path == EMBEDDED
    rows = [row for _, row in read_rows(path / "world.csv") if row["tone"] != "none"]
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
