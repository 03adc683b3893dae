"""What the pictures of Raza et al. (2025) say of the face detector, of skin tone by colour, and of an import with labels.

    python -m scripts.raza_pictures FOLDER outputs/raza_pictures

FOLDER holds `labels.csv` and the pictures that it names: github.com/maximus-powers/img-gen-bias-analysis @ e416a364, MIT,
300 pictures, here with the longer side at 256 pixels. Prints the tables of `docs/pictures.md`.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from classifiers import faces, skin_tone
from pipeline import labels, line, stages
from pipeline.pictures import decoded
from pipeline.types import NOT_ONE_PERSON, Pixels

GENDERS = {"f": "woman", "female": "woman", "m": "man", "male": "man"}
CONCEPTS = {"swe": "software engineer"}
CHANGES = ("perceive.attributes=[gender]",)
Row = dict[str, str]


def read(folder: Path) -> list[tuple[Row, Pixels]]:
    """Every line of `labels.csv` with its picture."""
    found = []
    with (folder / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            pixels = decoded((folder / row["image"]).read_bytes())
            assert not isinstance(pixels, str), (row["image"], pixels)
            found.append((row, pixels))
    return found


def gender(row: Row) -> str:
    """What the person who labelled the pictures saw, in our words."""
    return GENDERS.get(row["gender_raw"].strip().casefold(), NOT_ONE_PERSON)


def who(pictures: list[tuple[Row, Pixels]], found: list[tuple[faces.Face, ...]]) -> None:
    """Faces found, by what a person saw."""
    groups: dict[str, Callable[[Row], bool]] = {
        "one person": lambda row: gender(row) != NOT_ONE_PERSON,
        "a woman": lambda row: gender(row) == "woman",
        "a man": lambda row: gender(row) == "man",
        "several": lambda row: gender(row) == NOT_ONE_PERSON,
    }
    for model in dict.fromkeys(row["model"] for row, _ in pictures):
        groups[f"one person, {model}"] = lambda row, model=model: (  # type: ignore[misc]
            row["model"] == model and gender(row) != NOT_ONE_PERSON
        )
    print(
        "| a person saw | pictures | no face found | one | several | left out by `exactly_one` |\n|---|---|---|---|---|---|"
    )
    for name, belongs in groups.items():
        n = Counter(min(len(some), 2) for (row, _), some in zip(pictures, found, strict=True) if belongs(row))
        total = n.total()
        print(f"| {name} | {total} | {n[0]} | {n[1]} | {n[2]} | {100 * (total - n[1]) / total:.0f}% |")


def tones(pictures: list[tuple[Row, Pixels]], found: list[tuple[faces.Face, ...]]) -> None:
    """Monk tones of the largest face, by the race category that a person saw."""
    print(
        "\n| a person saw | faces | tone not told | median Monk tone | quartiles | median L* |\n|---|---|---|---|---|---|"
    )
    for race in ("white", "asian", "black"):
        said = [
            skin_tone.tone(pixels, some[0].box)
            for (row, pixels), some in zip(pictures, found, strict=True)
            if some and row["race_raw"].strip().casefold() == race
        ]
        told = [tone for tone in said if tone]
        low, middle, high = np.quantile([tone.level for tone in told], [0.25, 0.5, 0.75])
        light = np.median([tone.lab[0] for tone in told])
        print(f"| {race} | {len(said)} | {len(said) - len(told)} | {middle:g} | {low:g} to {high:g} | {light:.0f} |")

    light = {
        race: [
            tone.lab[0]
            for (row, pixels), some in zip(pictures, found, strict=True)
            if some and row["race_raw"].strip().casefold() == race and (tone := skin_tone.tone(pixels, some[0].box))
        ]
        for race in ("white", "black")
    }
    pairs = np.subtract.outer(light["white"], light["black"])
    print(
        f"\nOf two faces, one seen as white and one as black, the first is lighter in {100 * np.mean(pairs > 0):.0f}%."
    )


def labelled(folder: Path, pictures: list[tuple[Row, Pixels]], out: Path) -> None:
    """Import the pictures of each model, let the person's labels fill the sheet, and hold the estimates against all labels."""
    print("\n| model | as the probe said | 10 labels a concept | 20 | all labels |\n|---|---|---|---|---|")
    for model in dict.fromkeys(row["model"] for row, _ in pictures):
        mine = [row for row, _ in pictures if row["model"] == model]
        home = out / "pictures" / mine[0]["image"].split("/")[1]
        for row in mine:
            place = home / CONCEPTS.get(row["occupation"], row["occupation"]).replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / row["image"], place)
        opened = line.import_folder(home, concept=None, model=model, grid=False, changes=CHANGES, out=out / home.name)
        line.perceive(opened)
        cells = [_share(line.estimate(opened), out / home.name)]
        truth = {Path(row["image"]).name: gender(row) for row in mine}
        run, study, planned = opened
        files = {
            row["unit_id"]: Path(row["file"]).name
            for shard in planned.shards()
            for row in run.read_images(shard, ["unit_id", "file"]).to_pylist()
        }
        readings = line.read_by(run, study)
        for per_concept in (10, 20):
            sample = labels.draw(run, planned, study.perceive.name, readings, per_concept=per_concept, seed=0)
            sheet = out / f"{home.name}.csv"
            lines = [f"{unit},{truth[files[unit]]}" for unit in sample.units]
            sheet.write_text("unit_id,gender\n" + "\n".join(lines) + "\n")
            labels.take(run, planned, readings, [sheet], now="2026-01-01T00:00:00+00:00")
            cells.append(_share(line.estimate(opened), out / home.name))
        people = Counter(truth.values())
        everyone = 100 * people["woman"] / (people["woman"] + people["man"])
        print(f"| {model} | {' | '.join(cells)} | {everyone:.0f}% |")


def _share(headline: str, run: Path) -> str:
    """The mean share of women over the concepts, and the mean half-width of their intervals."""
    assert headline
    with (run / "estimates.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["level"] == "woman" and row["share"]]
    mean = np.mean([float(row["share"]) for row in rows])
    half = np.mean([(float(row["high"]) - float(row["low"])) / 2 for row in rows])
    return f"{100 * mean:.0f}% (±{100 * half:.0f})"


def main() -> None:
    """Print the tables."""
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.rmtree(out, ignore_errors=True)
    pictures = read(folder)
    stages.say(f"{len(pictures)} pictures; looking for faces")
    found = faces.find([pixels for _, pixels in pictures])
    who(pictures, found)
    tones(pictures, found)
    labelled(folder, pictures, out)


if __name__ == "__main__":
    main()
