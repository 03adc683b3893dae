"""Skin tone by colour: the ten swatches of the Monk scale are its ten tones, and light moves them little."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from classifiers import skin_tone
from classifiers.attributes import ATTRIBUTES, MONK_TONE
from pipeline.types import Pixels

SWATCHES = "f6ede4 f3e7db f7ead0 eadaba d7bd96 a07e56 825c43 604134 3a312a 292420"
"""The colours from light to dark, as two public codebases have them."""


def swatches() -> list[Pixels]:
    return [np.full((64, 64, 3), list(bytes.fromhex(word)), np.uint8) for word in SWATCHES.split()]


def levels(pictures: list[Pixels]) -> npt.NDArray[np.int64]:
    found = [skin_tone.tone(picture) for picture in pictures]
    return np.array([0 if tone is None else tone.level for tone in found])


def light(picture: Pixels, gain: Any) -> Pixels:
    """More or less light: a factor on the linear values of sRGB (IEC 61966-2-1)."""
    c = picture / 255
    linear = np.clip(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) * gain, 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * coded).astype(np.uint8)


def test_the_ten_swatches_are_the_ten_tones() -> None:
    assert levels(swatches()).tolist() == list(range(1, 11))
    assert all(tone and tone.distance < 0.01 for tone in map(skin_tone.tone, swatches()))


def test_the_colours_are_the_published_ones() -> None:
    """Lab of DALL-Eval's list, but for how the white point is rounded."""
    assert skin_tone.scale()[[0, 5, 9]] == pytest.approx(
        np.array([[94.211, 1.503, 5.422], [55.142, 7.783, 26.740], [14.610, 1.482, 3.525]]), abs=0.02
    )
    with (skin_tone.Path(skin_tone.__file__).with_name("skin_tones.csv")).open(newline="") as file:
        assert [row["hex"][1:] for row in csv.DictReader(file)] == SWATCHES.split()


@pytest.mark.parametrize("quality", [95, 75, 50, 30])
def test_jpeg_changes_no_tone(quality: int) -> None:
    kept = []
    for picture in swatches():
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=quality)
        kept.append(np.asarray(Image.open(out)))
    assert levels(kept).tolist() == list(range(1, 11))


@pytest.mark.parametrize("stops", [-0.3, -0.2, -0.1, 0.1, 0.2, 0.3])
def test_a_little_more_or_less_light_moves_the_lightest_tones_by_one_step_at_most(stops: float) -> None:
    off = levels([light(picture, 2**stops) for picture in swatches()]) - np.arange(1, 11)
    assert np.abs(off).max() <= (0 if abs(stops) <= 0.1 else 1) and not off[4:].any()


@pytest.mark.parametrize("gain", [(1.05, 1, 0.95), (0.95, 1, 1.05)])
def test_slightly_warm_or_cool_light_moves_at_most_one_of_the_lightest_tones(gain: tuple[float, ...]) -> None:
    off = levels([light(picture, np.array(gain)) for picture in swatches()]) - np.arange(1, 11)
    assert np.abs(off).sum() <= 1 and not off[2:].any()


def test_light_from_the_side_and_grain_change_no_tone() -> None:
    slope = 2 ** np.linspace(-0.25, 0.25, 64)[None, :, None]
    assert levels([light(picture, slope) for picture in swatches()]).tolist() == list(range(1, 11))
    rng = np.random.default_rng(0)
    grain = [np.clip(p + rng.normal(0, 8, p.shape), 0, 255).astype(np.uint8) for p in swatches()]
    assert levels(grain).tolist() == list(range(1, 11))


def test_eyes_hair_and_what_is_around_the_face_do_not_count() -> None:
    rng = np.random.default_rng(1)
    for level, skin in enumerate(swatches(), 1):
        picture = rng.integers(0, 256, (120, 120, 3), np.uint8)
        picture[20:100, 30:90] = skin[0, 0]
        picture[20:35, 30:90] = (20, 15, 10)
        picture[48:56, 40:54] = picture[48:56, 66:80] = (250, 250, 250)
        picture[80:86, 48:72] = (150, 60, 70)
        found = skin_tone.tone(picture, (30, 20, 90, 100))
        assert found is not None and found.level == level


def test_where_nothing_is_alike_the_tone_cannot_be_told() -> None:
    assert skin_tone.tone(np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)) is None
    assert skin_tone.tone(swatches()[4], (0, 0, 4, 4)) is None
    assert skin_tone.tone(swatches()[4], (60, 60, 200, 200)) is None


def test_the_tone_is_no_attribute_of_a_clip_probe() -> None:
    assert MONK_TONE.name not in ATTRIBUTES and len(MONK_TONE.levels) == len(skin_tone.scale())
