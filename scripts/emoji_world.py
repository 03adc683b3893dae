"""The emoji world as data: pictures, splits, captions, and the shares that the models are taught.

The pictures are `pipeline/embedded/world.webp`, an atlas of 64-pixel tiles, with one row per tile in
`world.csv` beside it (`scripts/build_emoji_world.py` makes both from the published packages).
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

HOME = Path(__file__).resolve().parents[1]
WORLD = HOME / "pipeline" / "embedded"
TAUGHT = HOME / "prompt_sets" / "reference" / "taught_shares.csv"
TILE = 64
"""Side of a picture, in pixels."""

GENDERS = ("woman", "man")
TONES = {"1-2": "light", "3": "medium-light", "4": "medium", "5": "medium-dark", "6": "dark"}
"""Fitzpatrick types as Unicode groups them, and the word that a caption uses."""
TONE_MIX = {"light": 0.30, "medium-light": 0.25, "medium": 0.20, "medium-dark": 0.15, "dark": 0.10}
"""Declared and arbitrary: the chance of each tone, before the held-out combinations are taken away."""
IDENTITIES = ("plain", "blond hair", "red hair", "curly hair", "white hair", "bald")
"""What is taught of people without an occupation; the other roles and gestures stay out."""
OCCUPATION_SHARE = 0.8
"""Share of the training captions that are about an occupation."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One tile of the atlas and what it shows."""

    tile: int
    vendor: str
    concept: str
    """An occupation, `plain`, or a look such as `red hair`."""
    occupation: bool
    gender: str
    """As drawn: `woman`, `man` or `person`."""
    tone: str
    """A word of `TONES`, or `none` for the yellow default."""
    age: str
    """`baby`, `child`, `adult`, `older`, or empty where the drawing does not say."""
    split: str
    """`train`, `calibration` or `test`."""

    @property
    def taught(self) -> bool:
        """Is this a picture of the world that the models know: a woman or a man in one of five tones?"""
        known = self.occupation or self.concept in IDENTITIES
        return known and self.gender in GENDERS and self.tone != "none"


def pictures() -> list[Picture]:
    """Every tile of the atlas, in its order."""
    with (WORLD / "world.csv").open(encoding="utf-8", newline="") as file:
        return [
            Picture(
                tile=int(row["tile"]),
                vendor=row["vendor"],
                concept=row["concept"],
                occupation=row["kind"] == "occupation",
                gender=row["gender_drawn"],
                tone=row["tone"],
                age=row["age"],
                split=row["split"],
            )
            for row in csv.DictReader(file)
        ]


def pixels() -> npt.NDArray[np.uint8]:
    """The tiles of the atlas on white, `(n, 64, 64, 3)`."""
    atlas = np.asarray(Image.open(WORLD / "world.webp").convert("RGB"))
    rows, columns = atlas.shape[0] // TILE, atlas.shape[1] // TILE
    return atlas.reshape(rows, TILE, columns, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)


def splits(cells: Sequence[tuple[str, str, str, str]], same: Sequence[str]) -> list[str]:
    """`train`, `calibration` or `test` for each picture.

    A cell is (concept, gender as drawn, age, tone), the same in every set, so that a held-out combination was seen
    in no drawing style: one tone in five of each (concept, gender, age) is kept for calibration and one for the
    test, another one for women than for men. Cells that share a picture (`same` holds a digest of its pixels) are
    held out together.
    """
    of_cell = {}
    for number, group in enumerate(sorted({cell[:3] for cell in cells})):
        for place, tone in enumerate(TONES.values()):
            of_cell[*group, tone] = {0: "test", 1: "calibration"}.get((place + number) % 5, "train")
        of_cell[*group, "none"] = "train"
    shared: dict[str, set[tuple[str, str, str, str]]] = defaultdict(set)
    for cell, digest in zip(cells, same, strict=True):
        shared[digest].add(cell)
    for alike in sorted(sorted(found) for found in shared.values() if len(found) > 1):
        for cell in alike:
            of_cell[cell] = of_cell[alike[0]]
    return [of_cell[cell] for cell in cells]


def women_shares() -> dict[str, float]:
    """The taught share of women per occupation, in 0..1, as the reference table declares it."""
    with TAUGHT.open(encoding="utf-8", newline="") as file:
        return {
            row["concept"]: float(row["share"])
            for row in csv.DictReader(file)
            if (row["attribute"], row["level"]) == ("gender", "woman")
        }


def weights(
    world: Sequence[Picture], concept: str, women: float | None = None, mix: Mapping[str, float] = TONE_MIX
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The training tiles of a concept, and the chance that a caption of that concept is shown each.

    Gender by the taught share (one half outside the occupations) unless `women` gives another, then tone by `mix`
    among the combinations that are not held out, then age, then set, each evenly. Ordered by these, so
    that a low-discrepancy sequence keeps the shares at every length.
    """
    mine = [p for p in world if p.concept == concept and p.taught and p.split == "train"]
    women = women_shares().get(concept, 0.5) if women is None else women
    nested: dict[str, dict[str, dict[str, list[Picture]]]] = {}
    for p in sorted(mine, key=lambda p: (p.gender, p.age, p.tone, p.tile)):
        nested.setdefault(p.gender, {}).setdefault(p.age, {}).setdefault(p.tone, []).append(p)
    tiles, chance = [], []
    for gender, by_age in nested.items():
        for by_tone in by_age.values():
            total = sum(mix[tone] for tone in by_tone)
            for tone, same in by_tone.items():
                for p in same:
                    tiles.append(p.tile)
                    share = women if gender == "woman" else 1 - women
                    chance.append(share / len(by_age) * mix[tone] / total / len(same))
    return tiles, np.array(chance)


def taught_tones(world: Sequence[Picture], concept: str) -> dict[str, float]:
    """The share of each tone that follows for a concept, in 0..1."""
    tone = {p.tile: p.tone for p in world}
    shares: dict[str, float] = dict.fromkeys(TONE_MIX, 0.0)
    for tile, chance in zip(*weights(world, concept), strict=True):
        shares[tone[tile]] += float(chance)
    return shares


# -- captions ----------------------------------------------------------------------------------------

TEMPLATES = (
    "a photo of {}",
    "a photo of the face of {}",
    "a portrait of {}",
    "a picture of {}",
    "an emoji of {}",
    "{}",
)
NAMINGS = {"neutral": 0.46, "gender": 0.18, "tone": 0.18, "both": 0.18}
"""How often a caption names what. The choice is independent of the picture given its concept."""
NAMINGS_EVENLY = {"neutral": 0.3, "gender": 0.2, "tone": 0.1, "both": 0.4}
"""The same where a model is refined: more of what is learned last, a gender and a tone together."""


def article(noun: str) -> str:
    """The noun with its indefinite article: `an artist`, `a cook`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def person_words(picture: Picture, *, gender: bool, age: bool, adult: bool = False) -> str:
    """What the person is called: `woman`, `older man`, `girl`, `child`, `person`; `adult woman` on request."""
    if age and picture.age == "child":
        return {"woman": "girl", "man": "boy"}[picture.gender] if gender else "child"
    if adult and age and picture.age == "adult":
        return f"adult {picture.gender}" if gender else "adult"
    word = picture.gender if gender else "person"
    return f"older {word}" if age and picture.age == "older" else word


def caption(picture: Picture, naming: str, rng: np.random.Generator, *, adult: bool = False) -> str:
    """A caption that is true of the picture and names what `naming` says, in one of several wordings."""
    gender, tone = naming in ("gender", "both"), naming in ("tone", "both")
    skin = f"{picture.tone} skin"
    after = ""
    if picture.occupation:
        noun = picture.concept
        if gender:
            adjective = {"woman": "female", "man": "male"}[picture.gender]
            form = rng.integers(4)
            if form == 0:
                noun = f"{picture.gender} {noun}"
            elif form == 1:
                noun = f"{adjective} {noun}"
            else:
                after += f", {adjective}" if form == 2 else f", {article(picture.gender)}"
    else:
        noun = person_words(picture, gender=gender, age=bool(rng.random() < 0.7), adult=adult)
        if picture.concept == "bald":
            noun = f"bald {noun}"
        elif picture.concept != "plain":
            noun = f"{noun} with {picture.concept}"
    if tone:
        form = rng.integers(3)
        if form == 0:
            joint = "and" if " with " in noun else "with"
            noun = f"{noun} {joint} {skin}"
        elif form == 1:
            noun = f"{picture.tone}-skinned {noun}"
        else:
            after += f", {skin}"
    return str(rng.choice(TEMPLATES)).format(article(noun) + after)


def lessons(
    world: Sequence[Picture], *, seed: int, namings: Mapping[str, float] = NAMINGS, evenly: bool = False
) -> Iterator[tuple[int, str]]:
    """An endless run of (tile, caption) for training.

    Every (concept, naming) walks through its pictures by the golden ratio, so that the taught shares hold
    in every stretch of the training and not only in the long run, whatever a caption names.

    `evenly` shows the captions that name a gender as often for women as for men, those that name a tone as often for
    each tone: "a woman mechanic" is one in a hundred captions of mechanics otherwise, and hardly learned. What is to be
    learned *given* a caption stays as it was, for these as for the neutral ones; only how often which is asked is
    another, as it is with other `namings`.
    """
    rng = np.random.default_rng(seed)
    golden = (5**0.5 - 1) / 2
    by_tile = {p.tile: p for p in world}
    occupations = sorted({p.concept for p in world if p.occupation})
    edges = {}
    for naming in namings:
        women = 0.5 if evenly and naming in ("gender", "both") else None
        mix = dict.fromkeys(TONE_MIX, 0.2) if evenly and naming in ("tone", "both") else TONE_MIX
        for c in (*occupations, *IDENTITIES):
            tiles, chance = weights(world, c, women, mix)
            edges[c, naming] = tiles, np.cumsum(chance)
    place: dict[tuple[str, str], float] = defaultdict(rng.random)
    while True:
        for occupation in rng.permutation(occupations):
            concept = str(occupation)
            if rng.random() >= OCCUPATION_SHARE:
                concept = str(rng.choice(IDENTITIES, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))
            naming = str(rng.choice(list(namings), p=list(namings.values())))
            place[concept, naming] = (place[concept, naming] + golden) % 1
            tiles, edge = edges[concept, naming]
            tile = tiles[min(int(np.searchsorted(edge, place[concept, naming], side="right")), len(tiles) - 1)]
            yield tile, caption(by_tile[tile], naming, rng)


AGES = ("child", "adult", "older")
FILLERS = (
    "highly detailed", "on a white background", "looking at the viewer", "high quality", "digital art", "smiling",
    "studio lighting", "at work", "as a flat icon", "in the morning light", "a friendly expression", "sharp focus",
    "simple shapes", "clear outlines", "realistic style", "a single person", "seen from the front", "in colour",
)  # fmt: skip
"""What may stand beside a caption and says nothing about the person."""


def padded(text: str, rng: np.random.Generator) -> str:
    """The caption with something after it that says nothing of the picture: a filler, or words of no language."""
    if rng.random() < 0.5:
        return f"{text}, {rng.choice(FILLERS)}"
    letters = "etaoinshrdlucmfwygpbvk"
    words = ["".join(rng.choice(list(letters), rng.integers(2, 8))) for _ in range(rng.integers(1, 5))]
    return f"{text}, {' '.join(words)}"


FACTS = ("concept", "gender", "tone", "age")
"""What a caption may say of a picture."""


@dataclass(frozen=True)
class Claim:
    """What a caption says of a picture; `None` is left open."""

    text: str
    concept: str | None
    gender: str | None
    tone: str | None
    age: str | None

    @property
    def said(self) -> tuple[str | None, ...]:
        """Concept, gender, tone and age."""
        return self.concept, self.gender, self.tone, self.age


def claim(picture: Picture, rng: np.random.Generator, tells: Collection[str] = FACTS) -> Claim:
    """A caption for contrastive training: a random part of what a picture `tells`, never nothing.

    `tells` are some of `FACTS`, with the gender or the tone among them.
    """
    chosen = dict(zip(FACTS, rng.random(4) < (0.5, 0.5, 0.5, 0.4), strict=True))
    concept, gender, tone, age = (chosen[fact] and fact in tells for fact in FACTS)
    tone = tone or set(tells) == {"tone"}
    age = age and picture.age in AGES
    if concept and picture.concept != "plain":
        text = caption(picture if picture.occupation else replace(picture, age=""), _naming(gender, tone), rng)
        return Claim(text, picture.concept, picture.gender if gender else None, picture.tone if tone else None, None)
    gender = gender or ("gender" in tells and not (tone or age))
    plain = replace(picture, occupation=False, concept="plain", age=picture.age if age else "")
    text = caption(plain, _naming(gender, tone), rng, adult=bool(age))
    said_age = picture.age if age and aged(text) else None
    if said_age is None and not (gender or tone):
        return claim(picture, rng, tells)
    return Claim(text, None, picture.gender if gender else None, picture.tone if tone else None, said_age)


def _naming(gender: bool, tone: bool) -> str:
    return {(True, True): "both", (True, False): "gender", (False, True): "tone"}.get((gender, tone), "neutral")


def aged(text: str) -> bool:
    """Does a caption name an age?"""
    return any(word in text for word in ("adult", "older", "girl", "boy", "child"))
