"""Build the emoji world from the published packages: `python -m scripts.build_emoji_world`.

The packages come by `npm pack`, once, and stay in a folder. From them are written, in this order:

    world.csv     a row per picture: what it shows, the digest of its pixels, and its split
    world.webp    the pictures, 64 pixels wide, 64 in a row, in the order of the rows

Rows go by set, then in the order of Unicode. `--foreign` builds another such pair from a set that no model may be
trained on (its licence is CC-BY-SA), to test on a style never seen; it goes to `outputs/` and to no other place.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image

from scripts import emoji_world
from scripts.emoji_world import GENDERS, TILE, TONES

PACKAGES = emoji_world.HOME / "outputs" / "emoji_packages"
FOREIGN_WORLD = emoji_world.HOME / "outputs" / "emoji_world"
DRAWN = 2 * TILE
"""Side at which a picture is drawn, in pixels. Two by two are then averaged, which smooths the edges."""
ATLAS_COLUMNS = 64
VISIBLE = 24
"""Two pixels look different if a channel differs by more than this, of 255."""

MODIFIERS = dict(zip(TONES.values(), ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"), strict=True))
"""Unicode's modifier of each skin tone."""

Tile = npt.NDArray[np.uint8]
Drawings = Mapping[str, Image.Image]
"""Pictures with transparency, by their codepoints."""


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One person as Unicode defines it, in no set's drawing yet."""

    codepoints: str
    """Lower case, without the variation selector, that some packages write and others don't."""
    base: str
    """Its name without the skin tone."""
    name: str
    tone: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of `world.csv`, but for its number and its split."""

    vendor: str
    codepoints: str
    name: str
    kind: str
    concept: str
    gender: str
    """As the name says it."""
    gender_drawn: str
    """As drawn: some sets give the person the very picture of the woman or the man."""
    tone: str
    age: str
    md5: str
    """Start of the digest of the tile's RGB bytes: equal for pictures with the same pixels, and only for them."""
    gender_px: int
    """Pixels in which the woman and the man of this picture look different, of 4,096; -1 if one of them is missing."""

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """The combination that is held out in all sets or in none."""
        return self.concept, self.gender_drawn, self.age, self.tone


# -- packages ----------------------------------------------------------------------------------------


def tarball(package: str, version: str, folder: Path) -> Path:
    """The package as published; asks npm for it if the folder does not have it."""
    path = folder / f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"npm is needed to get {package}@{version}: install Node.js, or put {path.name} into {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as draft:  # renamed when complete: a half file is never taken for one
        command = [npm, "pack", f"{package}@{version}", "--pack-destination", draft]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(f"npm could not get {package}@{version}; what it said is above")
        Path(draft, path.name).replace(path)
    return path


def unpacked(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The wanted files of a tarball, by name, in one pass: going back in a compressed file means to start anew."""
    files = {}
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member) if wanted(member.name) else None
            if content is not None:
                files[member.name] = content.read()
    return files


def json_file(path: Path, name: str) -> Any:
    """One JSON file of a package."""
    return json.loads(unpacked(path, lambda n: n == f"package/{name}")[f"package/{name}"])


# -- what Unicode knows ------------------------------------------------------------------------------

NAMES = ("emojibase-data", "17.0.0")
SUBGROUPS = ("person", "person-role")
"""Single people who just are somebody. Gestures, fantasy, activities, sports and couples stay out."""
PLAIN = {
    "baby": ("person", "baby"),
    "child": ("person", "child"),
    "boy": ("man", "child"),
    "girl": ("woman", "child"),
    "person": ("person", "adult"),
    "man": ("man", "adult"),
    "woman": ("woman", "adult"),
    "older person": ("person", "older"),
    "old man": ("man", "older"),
    "old woman": ("woman", "older"),
}
UNNAMED = {
    "prince": ("royalty", "man"),
    "princess": ("royalty", "woman"),
    "breast-feeding": ("breast-feeding", "woman"),
}
"""Names that imply a gender without its word."""


def codepoints(hexcode: str) -> str:
    """`1f575-200d-2642` for `1F575-FE0F-200D-2642-FE0F`."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def emojis(path: Path) -> list[Emoji]:
    """Every single person, without tone and in five, in the order of Unicode."""
    subgroups = {int(k) for k, v in json_file(path, "meta/groups.json")["subgroups"].items() if v in SUBGROUPS}
    words = ["none", *TONES.values()]
    people = [e for e in json_file(path, "en/data.json") if e.get("subgroup") in subgroups]
    return [
        Emoji(codepoints=codepoints(e["hexcode"]), base=p["label"], name=e["label"], tone=words[e.get("tone", 0)])
        for p in sorted(people, key=lambda p: int(p["order"]))
        for e in (p, *p.get("skins", []))
    ]


def meaning(base: str) -> tuple[str, str, str]:
    """Concept, gender and age of a name without a tone: `man: red hair` is (`red hair`, `man`, `adult`)."""
    if base in PLAIN:
        return "plain", *PLAIN[base]
    concept = re.sub(r"\b(woman|man|person)\b:?", "", base).strip()
    gender = next((g for g in GENDERS if re.search(rf"\b{g}\b", base)), "person")
    concept, gender = UNNAMED.get(base, (concept, gender))
    # white hair may be an age or a choice, and the drawing does not tell which
    return concept, gender, "" if concept == "white hair" else "adult"


# -- how the packages draw ---------------------------------------------------------------------------


def picture(content: bytes) -> Image.Image:
    """A picture file, with its transparency."""
    return Image.open(io.BytesIO(content)).convert("RGBA")


def rendered(svg: str) -> Image.Image:
    """An SVG in its own proportions, its longer side `DRAWN` pixels."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=DRAWN, height=DRAWN, skip_system_fonts=True)
    return picture(bytes(png))


def icon_names(emoji: Emoji) -> list[str]:
    """How iconify may call it: after the full name, or, in Fluent, after the base name and the tone's word."""
    full, base = (re.sub(r"[^a-z0-9]+", "-", name.lower()) for name in (emoji.name, emoji.base))
    fluent = base.replace("blond-", "blonde-")
    return [full, fluent if emoji.tone == "none" else f"{fluent}-{emoji.tone}"]


def iconify(path: Path, people: Sequence[Emoji]) -> Drawings:
    """The drawings of an iconify package, where all bodies are in one file under names of its own."""
    content = json_file(path, "icons.json")
    icons = content["icons"]
    icons |= {name: icons[alias["parent"]] for name, alias in content.get("aliases", {}).items() if len(alias) == 1}
    drawings = {}
    for emoji in people:
        icon = next((icons[name] for name in icon_names(emoji) if name in icons), None)
        if icon is not None:
            width, height = (icon.get(side, content[side]) for side in ("width", "height"))
            drawings[emoji.codepoints] = rendered(
                '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
                f' width="{width}" height="{height}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
            )
    return drawings


def files(path: Path, people: Sequence[Emoji], folder: str) -> Drawings:
    """The drawings of a package with a file per emoji, SVG or WebP, that is named by its codepoints."""
    wanted = {emoji.codepoints for emoji in people}
    found = unpacked(path, lambda name: Path(name).parent == Path(folder) and codepoints(Path(name).stem) in wanted)
    return {
        codepoints(Path(name).stem): rendered(content.decode()) if name.endswith(".svg") else picture(content)
        for name, content in found.items()
    }


def fitted(drawing: Image.Image) -> Image.Image:
    """A drawing of any size, in its proportions in the middle of a square of `DRAWN` pixels.

    The filter works on unrounded colours times alpha: Pillow's own way rounds between its two passes, and its result
    is up to 3 of 255 away.
    """
    if drawing.size == (DRAWN, DRAWN):
        return drawing
    width, height = (round(side * DRAWN / max(drawing.size)) for side in drawing.size)
    rgba = np.asarray(drawing, dtype=np.float32)
    rgba = np.concatenate([rgba[..., :3] * (rgba[..., 3:] / 255), rgba[..., 3:]], axis=2)
    channels = [Image.fromarray(channel) for channel in np.moveaxis(rgba, 2, 0)]
    small = np.stack([np.asarray(c.resize((width, height), Image.Resampling.LANCZOS)) for c in channels], axis=2)
    small = small.clip(0, 255)  # the filter overshoots at edges
    colour, alpha = small[..., :3], small[..., 3:]
    colour = np.divide(colour, alpha / 255, out=np.zeros_like(colour), where=alpha > 0).clip(0, 255)
    square = Image.new("RGBA", (DRAWN, DRAWN))
    resized = Image.fromarray(np.concatenate([colour, alpha], axis=2).astype(np.uint8))
    square.paste(resized, ((DRAWN - width) // 2, (DRAWN - height) // 2))
    return square


def on_white(drawing: Image.Image) -> Tile:
    """A drawing of `DRAWN` pixels as a tile of the atlas, `(64, 64, 3)`."""
    rgba = np.asarray(drawing, dtype=np.float32)
    alpha = rgba[..., 3:] / 255
    flat = Image.fromarray((rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    return np.asarray(flat.resize((TILE, TILE), Image.Resampling.BOX))


@dataclass(frozen=True, kw_only=True)
class EmojiSet:
    """Who drew, which package has it, and where in it the drawings are."""

    vendor: str
    package: str
    version: str
    folder: str = ""
    """Where a package keeps its files; empty for the packages of iconify."""
    exchanged: tuple[str, ...] = ()
    """Two skin tones whose files the package has under each other's names."""
    not_exchanged: tuple[str, ...] = ()
    """Concepts of which that is not so."""

    def file_of(self, emoji: Emoji) -> str:
        """The codepoints under which the package has an emoji."""
        if emoji.tone not in self.exchanged or meaning(emoji.base)[0] in self.not_exchanged:
            return emoji.codepoints
        here, there = (MODIFIERS[tone] for tone in sorted(self.exchanged, key=lambda tone: tone != emoji.tone))
        return emoji.codepoints.replace(here, there)

    def tiles(self, folder: Path, people: Sequence[Emoji]) -> Iterator[tuple[Emoji, Tile]]:
        """Everyone whom the set has drawn."""
        path = tarball(self.package, self.version, folder)
        drawings = files(path, people, self.folder) if self.folder else iconify(path, people)
        for emoji in people:
            if self.file_of(emoji) in drawings:
                yield emoji, on_white(fitted(drawings[self.file_of(emoji)]))


PERMISSIVE = (
    EmojiSet(vendor="twemoji", package="@iconify-json/twemoji", version="1.2.5"),
    EmojiSet(vendor="noto", package="@iconify-json/noto", version="1.2.9"),
    EmojiSet(vendor="noto-v1", package="@iconify-json/noto-v1", version="1.2.5"),
    EmojiSet(vendor="fluent-flat", package="@iconify-json/fluent-emoji-flat", version="1.2.6"),
    EmojiSet(vendor="fluent-color", package="@iconify-json/fluent-emoji", version="1.2.7"),
    EmojiSet(
        vendor="fluent-3d",
        package="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        folder="package/assets",
        exchanged=("medium-light", "medium"),  # seen: the same design in @iconify-json/fluent-emoji is in order
        not_exchanged=("technologist",),
    ),
)
"""CC-BY-4.0, Apache-2.0 and MIT: the world that the embedded models are trained on (credits: `NOTICE`)."""
FOREIGN = (EmojiSet(vendor="openmoji", package="openmoji", version="17.0.0", folder="package/color/svg"),)
"""CC-BY-SA-4.0: kept out of the training and of the repository."""


# -- rows --------------------------------------------------------------------------------------------


def row(vendor: str, emoji: Emoji, tile: Tile, occupations: Container[str]) -> Row:
    """What the picture shows, as far as it tells by itself."""
    concept, gender, age = meaning(emoji.base)
    return Row(
        vendor=vendor,
        codepoints=emoji.codepoints,
        name=emoji.name,
        kind="occupation" if concept in occupations else "identity",
        concept=concept,
        gender=gender,
        gender_drawn=gender,
        tone=emoji.tone,
        age=age,
        md5=hashlib.md5(tile.tobytes(), usedforsecurity=False).hexdigest()[:10],
        gender_px=-1,
    )


def compared(rows: Sequence[Row], tiles: Sequence[Tile]) -> Iterator[Row]:
    """The rows with what only shows beside the woman and the man of the same set, concept, age and tone."""
    place = {(r.vendor, (r.concept, r.gender, r.age, r.tone)): number for number, r in enumerate(rows)}
    for r in rows:
        others = {g: place.get((r.vendor, (r.concept, g, r.age, r.tone))) for g in GENDERS}
        known = [number for number in others.values() if number is not None]
        if r.gender == "person":
            twins = [rows[number].gender for number in known if rows[number].md5 == r.md5]
            r = replace(r, gender_drawn=next(iter(twins), "person"))
        if len(known) == len(GENDERS):
            woman, man = (tiles[number].astype(int) for number in known)
            r = replace(r, gender_px=int((abs(woman - man).max(axis=2) > VISIBLE).sum()))
        yield r


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """`world.csv`: the rows, numbered, each with its split."""
    splits = emoji_world.splits([r.cell for r in rows], [r.md5 for r in rows])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tile", *(field.name for field in fields(Row)), "split"])
        writer.writerows([n, *asdict(r).values(), split] for n, (r, split) in enumerate(zip(rows, splits, strict=True)))


def write_atlas(path: Path, tiles: Sequence[Tile]) -> None:
    """`world.webp`: all tiles without loss; the last row is filled up with white."""
    count = -(-len(tiles) // ATLAS_COLUMNS)
    atlas = np.full((count * ATLAS_COLUMNS, TILE, TILE, 3), 255, dtype=np.uint8)
    atlas[: len(tiles)] = tiles
    atlas = atlas.reshape(count, ATLAS_COLUMNS, TILE, TILE, 3).swapaxes(1, 2)
    image = Image.fromarray(atlas.reshape(count * TILE, ATLAS_COLUMNS * TILE, 3))
    image.save(path, lossless=True, quality=100, method=6)


def build(sets: Iterable[EmojiSet], packages: Path, out: Path) -> list[Row]:
    """Draw every person of the sets, then write the rows and then the atlas."""
    people = emojis(tarball(*NAMES, packages))
    occupations = emoji_world.women_shares()
    rows: list[Row] = []
    tiles: list[Tile] = []
    for emoji_set in sets:
        for emoji, tile in emoji_set.tiles(packages, people):
            rows.append(row(emoji_set.vendor, emoji, tile, occupations))
            tiles.append(tile)
        print(f"{emoji_set.vendor}: {sum(r.vendor == emoji_set.vendor for r in rows)} pictures", flush=True)
    rows = list(compared(rows, tiles))
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / "world.csv", rows)
    write_atlas(out / "world.webp", tiles)
    return rows


def main() -> None:
    """Read the command line and build one world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, default=PACKAGES, help="where the tarballs are kept")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--out", type=Path, default=emoji_world.WORLD, help="where world.csv and world.webp go")
    place.add_argument("--foreign", action="store_true", help=f"build the set never trained on, in {FOREIGN_WORLD}")
    args = parser.parse_args()
    sets, out = (FOREIGN, FOREIGN_WORLD) if args.foreign else (PERMISSIVE, args.out)
    rows = build(sets, args.packages, out)
    print(f"{len(rows)} pictures, {len({r.md5 for r in rows})} of them different, in {out}")


if __name__ == "__main__":
    main()
