"""Pixels of a face -> the nearest tone of the Monk scale: skin tone by colour, beside what a CLIP probe says of it.

It is the colour as drawn and lit, not anybody's. The typical angle (ITA) is not used: it puts Monk's tones 1 to 4 into
one class and 8 to 10 into another.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.types import Pixels

Floats = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are outside."""

INNER = (0.6, 0.7)
"""Width and height of the ellipse inside of a face's box that is looked at: without hair, ears and background."""
NEAR = 12.0
"""ΔE*ab around the median within which a pixel counts as skin; eyes, lips, brows, glasses and highlights lie outside."""
ROUNDS = 4
FEWEST = 30
"""Skin pixels, and a fifth of the ellipse: with fewer, the tone cannot be told."""


class Tone(NamedTuple):
    """What the skin's colour is nearest to."""

    level: int
    """1 to 10."""
    lab: tuple[float, float, float]
    """Median L*, a*, b* of the skin pixels, D65."""
    distance: float
    """ΔE00 to the nearest tone: large, where the light is coloured or it is no skin."""
    margin: float
    """How much farther the second nearest is: near 0, the tone could be either."""
    pixels: int


@cache
def scale() -> Floats:
    """The ten tones as CIELAB `(10, 3)`, from the sRGB colours of `skin_tones.csv`."""
    with Path(__file__).with_name("skin_tones.csv").open(encoding="utf-8", newline="") as file:
        colours = [bytes.fromhex(row["hex"].removeprefix("#")) for row in csv.DictReader(file)]
    return _lab(np.array([list(colour) for colour in colours], np.uint8))


def tone(pixels: Pixels, box: Box | None = None) -> Tone | None:
    """The tone of the face in a box, or of the whole picture; `None` where too few pixels are alike to be skin.

    The skin is what is near the median colour of the inner ellipse, found again from what is left (`ROUNDS` times).
    No fixed range of colours decides what is skin: the usual ones (RGB, YCbCr) leave out the darkest tones.
    """
    inside = _ellipse(pixels, box)
    if len(inside) < FEWEST:
        return None
    lab = _lab(inside)
    skin = lab
    for _ in range(ROUNDS):
        skin = lab[np.linalg.norm(lab - np.median(skin, axis=0), axis=1) <= NEAR]
        if len(skin) < max(FEWEST, len(lab) / 5):
            return None
    median = np.median(skin, axis=0)
    distances = _ciede2000(median)
    first, second = np.argsort(distances, kind="stable")[:2]
    lightness, a, b = (float(value) for value in median)
    return Tone(
        level=int(first) + 1,
        lab=(lightness, a, b),
        distance=float(distances[first]),
        margin=float(distances[second] - distances[first]),
        pixels=len(skin),
    )


def _ellipse(pixels: Pixels, box: Box | None) -> Pixels:
    """The pixels `(m, 3)` of the ellipse in a box, cut to the picture."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = box or (0, 0, width, height)
    rows, columns = np.mgrid[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    across = (columns + 0.5 - (left + right) / 2) / (INNER[0] * (right - left) / 2)
    down = (rows + 0.5 - (top + bottom) / 2) / (INNER[1] * (bottom - top) / 2)
    kept: Pixels = pixels[rows, columns][across**2 + down**2 <= 1]
    return kept


def _lab(colours: npt.NDArray[np.uint8]) -> Floats:
    """sRGB `(n, 3)` to CIELAB, D65."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(colours[None])[0], np.float64)


def _ciede2000(colour: Floats) -> Floats:
    """ΔE00 of one CIELAB colour to the ten tones: Sharma, Wu and Dalal (2005), Color Research & Application 30:21."""
    from skimage.color import deltaE_ciede2000

    return np.asarray(deltaE_ciede2000(np.broadcast_to(colour, scale().shape), scale()), np.float64)
