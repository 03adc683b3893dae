"""The emoji world: nothing held out is taught, shares are the declared ones, captions are true, builds are exact."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from scripts import build_emoji_world as build
from scripts import emoji_world, train_embedded
from scripts.emoji_world import GENDERS, IDENTITIES, NAMINGS

WORLD = emoji_world.pictures()
TAUGHT = [p for p in WORLD if p.taught]
OCCUPATIONS = sorted({p.concept for p in WORLD if p.occupation})
SAID = {
    "gender": {"woman": r"\b(woman|female|girl)\b", "man": r"\b(man|male|boy)\b"},
    "age": {"child": r"\b(child|girl|boy)\b", "adult": r"\badult\b", "older": r"\bolder\b"},
    "tone": {tone: rf"(?<![\w-]){tone}(?= skin|-skinned)" for tone in emoji_world.TONE_MIX},
    "concept": {name: rf"\b{name}\b" for name in (*OCCUPATIONS, *IDENTITIES) if name != "plain"},
}
"""How a reader, who knows nothing of the code, finds in a caption what it says."""


def said(text: str, about: str) -> str | None:
    """The one thing that a caption says about gender, age, tone or concept, if any."""
    found = [level for level, pattern in SAID[about].items() if re.search(pattern, text)]
    assert len(found) <= 1, text
    return found[0] if found else None


@pytest.fixture(scope="module")
def digests() -> list[str]:
    return [hashlib.md5(tile.tobytes()).hexdigest()[:10] for tile in emoji_world.pixels()[: len(WORLD)]]


def rows() -> list[dict[str, str]]:
    with (emoji_world.WORLD / "world.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# -- the pictures and their splits -------------------------------------------------------------------


def test_every_picture_is_listed_once_and_has_one_split() -> None:
    assert [p.tile for p in WORLD] == list(range(3684))
    assert len({(r["vendor"], r["codepoints"]) for r in rows()}) == len(WORLD)
    assert {p.split for p in WORLD} == {"train", "calibration", "test"}


def test_the_digests_are_those_of_the_pixels(digests: list[str]) -> None:
    assert [r["md5"] for r in rows()] == digests


def test_a_tone_looks_like_its_name_in_every_set() -> None:
    """Only in the set of Fluent's renderings does nothing but the skin change, and only there was the order wrong."""
    pixels = emoji_world.pixels().astype(np.int32)
    tiles: dict[tuple[str, ...], dict[str, int]] = defaultdict(dict)
    for p, r in zip(WORLD, rows(), strict=True):
        tiles[p.vendor, p.concept, r["gender"], p.age][p.tone] = p.tile
    tones, compared = list(emoji_world.TONE_MIX), 0
    for (vendor, *_), found in tiles.items():
        if set(tones) <= set(found):
            skin = abs(pixels[found["light"]] - pixels[found["dark"]]).max(axis=2) > 40
            brightness = [pixels[found[tone]][skin].mean() for tone in tones]
            # hair turns blond from light to medium-light; from there on all is as the skin goes
            assert brightness[1:] == sorted(brightness[1:], reverse=True), (vendor, found)
            compared += 1
    assert compared == 614


def test_identical_pictures_share_a_split(digests: list[str]) -> None:
    splits = defaultdict(set)
    for p, digest in zip(WORLD, digests, strict=True):
        splits[digest].add(p.split)
    assert len(splits) < len(WORLD), "there are identical pictures to look at"
    assert all(len(found) == 1 for found in splits.values())


def test_a_combination_is_in_one_split_in_all_sets() -> None:
    splits = defaultdict(set)
    for p in WORLD:
        splits[p.concept, p.gender, p.age, p.tone].add(p.split)
    assert all(len(found) == 1 for found in splits.values())


@pytest.mark.parametrize("split", ["calibration", "test"])
def test_every_occupation_holds_out_another_tone_for_women_than_for_men(split: str) -> None:
    for concept in OCCUPATIONS:
        held = {(p.gender, p.tone) for p in TAUGHT if (p.concept, p.split) == (concept, split)}
        assert {g for g, _ in held} == set(GENDERS)
        # a set draws the astronauts of both genders alike, and what is alike is held out together
        assert len({tone for _, tone in held}) == (1 if concept == "astronaut" else 2)


def test_combinations_that_share_a_picture_are_held_out_together() -> None:
    cells = [("cook", g, "adult", t) for g in GENDERS for t in emoji_world.TONES.values()]
    apart = emoji_world.splits(cells, [str(n) for n in range(10)])
    assert sorted(apart) == ["calibration"] * 2 + ["test"] * 2 + ["train"] * 6
    test = apart.index("test")
    other = 5 + next(n for n in range(5) if apart[5 + n] == "train")
    same = [str(n) for n in range(10)]
    same[other] = same[test]
    joined = emoji_world.splits(cells, same)
    assert joined[other] == joined[test]
    assert [s for n, s in enumerate(joined) if n not in (test, other)] == [
        s for n, s in enumerate(apart) if n not in (test, other)
    ]


# -- what is taught ----------------------------------------------------------------------------------


@pytest.mark.parametrize("concept", [*OCCUPATIONS, *IDENTITIES])
def test_the_weights_teach_the_declared_share(concept: str) -> None:
    tiles, chance = emoji_world.weights(WORLD, concept)
    assert all(WORLD[t].taught and WORLD[t].concept == concept and WORLD[t].split == "train" for t in tiles)
    assert chance.min() > 0 and chance.sum() == pytest.approx(1)
    women = sum(float(c) for t, c in zip(tiles, chance, strict=True) if WORLD[t].gender == "woman")
    declared = emoji_world.women_shares()
    assert women == pytest.approx(declared[concept] if concept in OCCUPATIONS else 0.5)
    assert set(declared) == set(OCCUPATIONS)


def test_naming_gender_does_not_depend_on_the_picture() -> None:
    women: dict[tuple[str, bool], list[bool]] = defaultdict(list)
    for tile, text in islice(emoji_world.lessons(WORLD, seed=1), 40_000):
        p = WORLD[tile]
        women[p.concept, said(text, "gender") is not None].append(p.gender == "woman")
    assert set(women) == {(c, named) for c in (*OCCUPATIONS, *IDENTITIES) for named in (True, False)}
    shares = emoji_world.women_shares()
    for (concept, _), drawn in women.items():
        assert np.mean(drawn) == pytest.approx(shares.get(concept, 0.5), abs=0.02), concept


@pytest.mark.parametrize("namings", [NAMINGS, emoji_world.NAMINGS_EVENLY])
def test_lessons_that_name_genders_and_tones_evenly_keep_the_neutral_shares(namings: dict[str, float]) -> None:
    tones: dict[str, int] = defaultdict(int)
    neutral: dict[str, list[bool]] = defaultdict(list)
    named: dict[str, list[bool]] = defaultdict(list)
    for tile, text in islice(emoji_world.lessons(WORLD, seed=2, namings=namings, evenly=True), 40_000):
        p = WORLD[tile]
        tones[said(text, "tone") or "none"] += 1
        (neutral if said(text, "gender") is None else named)[p.concept].append(p.gender == "woman")
    shares = emoji_world.women_shares()
    for concept in OCCUPATIONS:
        assert np.mean(neutral[concept]) == pytest.approx(shares[concept], abs=0.02), concept
        assert np.mean(named[concept]) == pytest.approx(0.5, abs=0.02), concept
    assert sum(namings.values()) == pytest.approx(1)
    counts = [n for tone, n in tones.items() if tone != "none"]
    assert len(counts) == 5 and max(counts) < 1.5 * min(counts)  # not 1 : 1, for some combinations are held out


# -- captions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("naming", list(NAMINGS))
def test_a_caption_names_what_it_should_and_is_true(naming: str) -> None:
    rng = np.random.default_rng(0)
    for p in TAUGHT:
        text = emoji_world.caption(p, naming, rng)
        assert said(text, "gender") == (p.gender if naming in ("gender", "both") else None), text
        assert said(text, "tone") == (p.tone if naming in ("tone", "both") else None), text
        assert said(text, "concept") == (p.concept if p.concept != "plain" else None), text
        assert said(text, "age") in (None, p.age), text


@pytest.mark.parametrize(
    "tells", [emoji_world.FACTS, ("concept", "gender", "age"), ("concept", "tone", "age"), ("tone",)]
)
def test_a_claim_is_what_its_caption_says_and_is_true(tells: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    for p in TAUGHT:
        claim = emoji_world.claim(p, rng, tells)
        for about, said_of_it in zip(emoji_world.FACTS, claim.said, strict=True):
            assert said(claim.text, about) == said_of_it, claim
            assert said_of_it is None or about in tells
            assert said_of_it in (None, getattr(p, about)), claim
        assert claim.said != (None,) * 4


def test_other_colours_are_other_everywhere_alike_and_shapes_stay() -> None:
    rng = np.random.default_rng(0)
    x = train_embedded.to_unit(emoji_world.pixels()[:4])
    new = train_embedded.recoloured(x, rng)
    assert new.shape == x.shape and new.min() >= -1 and new.max() <= 1
    for before, after in zip(x.flatten(0, 1), new.flatten(0, 1), strict=True):
        value, place = before.unique(return_inverse=True)
        ends = [
            torch.zeros(len(value)).scatter_reduce(0, place.flatten(), after.flatten(), end, include_self=False)
            for end in ("amin", "amax")
        ]
        assert torch.allclose(*ends, atol=1e-5), "a colour became two"
    assert (x - new).abs().mean() > 0.1


def test_what_is_put_after_a_caption_says_nothing_of_the_picture() -> None:
    rng = np.random.default_rng(0)
    for _ in range(2000):
        text = emoji_world.padded("a cook", rng)
        assert text.startswith("a cook, ") and len(text) > 8
        assert [said(text, about) for about in ("concept", "gender", "tone", "age")] == ["cook", None, None, None]


def test_the_verdict_on_a_caption_is_open_where_a_picture_does_not_tell() -> None:
    facts = [("cook", "woman", "dark", "adult"), ("cook", "woman", "", "adult"), ("", "", "dark", "")]
    captions = [("cook", None, None, None), (None, "man", "dark", None), (None, "woman", "dark", None)]
    true, untold = train_embedded.verdicts(facts, captions)
    assert true.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert untold.tolist() == [[False, False, False], [False, False, True], [True, True, True]]


# -- the build, from packages made here --------------------------------------------------------------

SET = build.EmojiSet(vendor="tiny", package="@iconify-json/tiny", version="1.0.0")
COOKS = [("cook", "1F9D1-200D-1F373"), ("man cook", "1F468-200D-1F373"), ("woman cook", "1F469-200D-1F373")]


def packed(path: Path, files: dict[str, object]) -> None:
    """A tarball like npm's."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def cook(order: int, name: str, hexcode: str) -> dict[str, object]:
    """A person of emojibase, with one skin tone of the five."""
    common = {"subgroup": 25, "order": order}
    skin = {
        **common,
        "hexcode": hexcode.replace("-", "-1F3FE-", 1),
        "label": f"{name}: medium-dark skin tone",
        "tone": 4,
    }
    return {**common, "hexcode": hexcode, "label": name, "skins": [skin]}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Three cooks, where the person is the very picture of the man; the woman has a tone under Fluent's name."""
    square = '<path fill="{}" d="M0 0h{}v32H0z"/>'
    icons = {"man-cook": ("red", 32), "woman-cook": ("red", 16), "woman-cook-medium-dark": ("blue", 16)}
    names = {"subgroups": {"24": "person-gesture", "25": "person-role"}}
    people = [cook(9 - i, name, code) for i, (name, code) in enumerate(COOKS)]
    waving = {"subgroup": 24, "order": 0, "hexcode": "1F64B", "label": "person raising hand"}
    packed(tmp_path / "emojibase-data-17.0.0.tgz", {"meta/groups.json": names, "en/data.json": [*people, waving]})
    content = {
        "icons": {name: {"body": square.format(*drawn)} for name, drawn in icons.items()},
        "aliases": {"cook": {"parent": "man-cook"}},
        "width": 32,
        "height": 32,
    }
    packed(tmp_path / "iconify-json-tiny-1.0.0.tgz", {"icons.json": content})
    return tmp_path


def test_a_build_lists_what_was_drawn(packages: Path) -> None:
    built = {r.name: r for r in build.build([SET], packages, packages / "out")}
    assert list(built) == ["woman cook", "woman cook: medium-dark skin tone", "man cook", "cook"], "by Unicode's order"
    assert built["cook"].gender_drawn == "man" and built["cook"].gender == "person"
    assert built["cook"].md5 == built["man cook"].md5 != built["woman cook"].md5
    assert built["man cook"].gender_px == 64 * 32 and built["woman cook: medium-dark skin tone"].gender_px == -1
    assert built["woman cook"].cell == ("cook", "woman", "adult", "none") and built["cook"].kind == "occupation"


def test_tones_that_a_package_has_exchanged_are_put_right() -> None:
    emoji = {
        (base, tone): build.Emoji(codepoints=f"1f9d1-{code}-{base}", base=base, name=base, tone=tone)
        for base in ("cook", "technologist")
        for tone, code in build.MODIFIERS.items()
    }
    swapped = build.EmojiSet(
        vendor="v", package="p", version="1", exchanged=("medium-light", "medium"), not_exchanged=("technologist",)
    )
    assert swapped.file_of(emoji["cook", "medium"]) == emoji["cook", "medium-light"].codepoints
    assert swapped.file_of(emoji["cook", "medium-light"]) == emoji["cook", "medium"].codepoints
    assert swapped.file_of(emoji["cook", "dark"]) == emoji["cook", "dark"].codepoints
    assert swapped.file_of(emoji["technologist", "medium"]) == emoji["technologist", "medium"].codepoints


def test_a_build_writes_the_rows_and_the_atlas(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.build([SET], packages, packages)
    monkeypatch.setattr(emoji_world, "WORLD", packages)
    assert [p.gender for p in emoji_world.pictures()] == ["woman", "woman", "man", "man"]
    woman, toned, man, person = emoji_world.pixels()[:4]
    assert tuple(woman[0, 0]) == (255, 0, 0) and tuple(woman[0, 63]) == (255, 255, 255), "on white"
    assert tuple(toned[0, 0]) == (0, 0, 255)
    assert np.array_equal(man, person)


def test_every_name_of_the_world_has_its_meaning() -> None:
    for r in rows():
        if r["tone"] == "none":
            assert build.meaning(r["name"]) == (r["concept"], r["gender"], r["age"]), r["name"]


@pytest.mark.parametrize("size", [(256, 256), (132, 128), (120, 128), (128, 128)])
def test_a_picture_of_any_size_keeps_colour_and_proportions(size: tuple[int, int]) -> None:
    tile = build.on_white(build.fitted(Image.new("RGBA", size, (40, 80, 120, 255)))).astype(int)
    assert abs(tile[32, 32] - (40, 80, 120)).max() <= 1
    height, width = ((tile < 250).any(axis=2).any(axis=axis).sum() for axis in (1, 0))
    assert width / height == pytest.approx(size[0] / size[1], abs=1.5 / 64)
    clear = build.on_white(build.fitted(Image.new("RGBA", size, (40, 80, 120, 0))))
    assert clear.min() == 255


def test_without_npm_one_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"npm is needed .* put iconify-json-tiny-1\.0\.0\.tgz into"):
        build.tarball("@iconify-json/tiny", "1.0.0", tmp_path)


def test_a_training_that_was_interrupted_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, optimizer, schedule and running average are those of the last checkpoint, and steps after it are taken again."""
    monkeypatch.setattr(train_embedded, "CHECKPOINTS", tmp_path)

    def trained(name: str, ends_at: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Conv2d(3, 2, 1)

        def loss_of(step: int, device: torch.device) -> torch.Tensor:
            if step == ends_at:
                raise KeyboardInterrupt
            x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(step))
            return ((model(x) - x[:, :2]) ** 2).mean()

        accelerator = Accelerator(cpu=True)
        train_embedded.train(name, model, loss_of, steps=8, lr=0.1, ema_decay=0.9, accelerator=accelerator, every=3)
        return model.weight.detach().clone()

    whole = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", ends_at=5)
    assert json.loads((tmp_path / "stopped" / "step.json").read_text()) == {"step": 3}
    assert torch.equal(trained("stopped"), whole)
