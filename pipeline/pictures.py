"""A picture file that somebody else made -> the pixels that are stored, or the reason why there are none."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.errors import InputError
from pipeline.types import Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What is read. Pillow knows more, and some of those (EPS) would start another program."""
MOST_PIXELS = 89_478_485
"""Pillow's own limit: a quarter of a gigabyte of RGB. A file of a few kilobytes can claim to be far more."""
TOO_LARGE = f"too large: more than {MOST_PIXELS:,} pixels"
MOST_APART = 100
"""How many times as long as the other a side may be: a CLIP reads the shorter side at a few hundred pixels, and the longer
one would be too large for any memory."""
MOST_BYTES = 10**9
"""No picture of so many pixels needs more; a video in the folder might have more bytes than there is memory."""
BESIDE = ("Decompressed data too large", "Too much memory used in text chunks")
"""How Pillow says that it leaves a PNG for what stands beside the pixels."""
WITHOUT_A_SCALE = {"F": "floating-point pixels", "I": "pixels that are whole numbers of 32 bits, or with a sign"}
"""By Pillow's mode. Taken as they are, such pictures become black or white, and nobody is told."""
BITS, PHOTOMETRIC = 258, 262
"""Tags of a TIFF: bits of a sample, and what they mean (0: white is zero). TIFF 6.0, sections 4 and 8."""
REASON_LENGTH = 120


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of a folder and the folders in it, in no order; `InputError` for a folder that may not be listed.

    Those whose name begins with a dot are none. A link to a folder is one, though it is not followed: it is said so.
    """

    def refused(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed: {error.strerror}; allow it, or move it away") from None

    for place, folders, files in os.walk(folder, onerror=refused):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = (name for name in folders if os.path.islink(os.path.join(place, name)))
        yield from (Path(place, name) for name in (*files, *links) if not name.startswith("."))


def bytes_of(path: Path) -> bytes | str:
    """What a file holds; or, in words, why it is not read."""
    try:
        size = path.stat().st_size
        return path.read_bytes() if size <= MOST_BYTES else f"too large: {size:,} bytes"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def decoded(content: bytes) -> Pixels | str:
    """A file's pixels as uint8 RGB `(height, width, 3)`, upright and in sRGB; or, in words, why it has none.

    The first frame of an animation, turned as EXIF says, its colours brought to sRGB by its own profile, what is
    transparent laid on white, 16 bits of grey taken down to 8. Never raises for what a file holds.
    """
    if not content:
        return "the file is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; what matters is raised
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MOST_PIXELS:
                    return TOO_LARGE
                if max(picture.size) > MOST_APART * min(picture.size):
                    return (
                        f"too narrow: {picture.width:,} x {picture.height:,} pixels, and 1 : {MOST_APART} is the most"
                    )
                picture.load()
                return _rgb(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return TOO_LARGE
    except UnidentifiedImageError:
        return f"no picture of a known kind ({', '.join(FORMATS)})"
    except Exception as error:  # every decoder has its own: OSError, SyntaxError, ValueError, struct.error, ...
        said = " ".join(str(error).split()) or type(error).__name__
        if said.startswith(BESIDE):
            return "the texts or the colour profile in it are larger than is read: save the picture without them"
        return f"damaged or cut off: {said[:REASON_LENGTH]}"


def _rgb(picture: Image.Image) -> Pixels | str:
    if picture.mode in WITHOUT_A_SCALE:
        return f"{WITHOUT_A_SCALE[picture.mode]}, and the file does not say how bright white is"
    profile = picture.info.get("icc_profile")
    upright: Image.Image = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):
        tags = getattr(picture, "tag_v2", {})  # of a TIFF
        (bits, *_), white_is_zero = tags.get(BITS, (16,)), tags.get(PHOTOMETRIC) == 0
        upright = _eight_bits(upright, bits, white_is_zero=white_is_zero)
    if upright.has_transparency_data:
        clear = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    elif upright.mode == "P":
        upright = upright.convert("RGB")
    return np.asarray(_in_srgb(upright, profile).convert("RGB"))


def _eight_bits(grey: Image.Image, bits: int, *, white_is_zero: bool) -> Image.Image:
    """9 to 16 bits of grey as 8, whichever way Pillow holds them: it leaves them as a TIFF has them."""
    light = (np.asarray(grey) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(255 - light if white_is_zero else light)


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours by the picture's own profile; as they are where it has none, or one that does not fit."""
    if not profile or picture.mode not in ("RGB", "CMYK", "L"):
        return picture
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    return converted or picture


def quarters(pixels: Pixels) -> tuple[Pixels, ...]:
    """A 2 x 2 grid `(H, W, 3)` cut into four `(H // 2, W // 2, 3)`, row by row; an odd middle line belongs to none."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    rows = (slice(0, height), slice(pixels.shape[0] - height, None))
    columns = (slice(0, width), slice(pixels.shape[1] - width, None))
    return tuple(np.ascontiguousarray(pixels[row, column]) for row in rows for column in columns)
