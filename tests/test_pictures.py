"""Files that others made: what is read is right to the pixel, what cannot be read is said, and nothing raises."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from classifiers import labelled
from pipeline import album, imports, pictures
from pipeline.types import Pixels

RNG = np.random.default_rng(0)
ACROSS, DOWN = np.meshgrid(np.arange(0, 240, 6), np.arange(0, 180, 6))
SMOOTH = np.stack([ACROSS, DOWN, np.full((30, 40), 90)], -1).astype(np.uint8)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def read(content: bytes) -> Pixels:
    found = pictures.decoded(content)
    assert not isinstance(found, str), found
    assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
    return found


def why(content: bytes) -> str:
    found = pictures.decoded(content)
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_kinds_are_read_to_the_pixel(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read(saved(Image.fromarray(SMOOTH), kind, **options)), SMOOTH)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF"])
def test_lossy_kinds_are_read(kind: str) -> None:
    found = read(saved(Image.fromarray(SMOOTH), kind, quality=95)).astype(int)
    assert np.abs(found - SMOOTH).mean() < 4


def test_a_palette_is_its_colours() -> None:
    flat = np.repeat(RNG.integers(0, 256, (5, 1, 3), np.uint8), 7, axis=1)
    assert np.array_equal(read(saved(Image.fromarray(flat).quantize(5), "PNG")), flat)


def test_sixteen_bits_are_taken_down_to_eight_and_not_clipped() -> None:
    levels = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        found = read(saved(Image.fromarray(levels), kind))
        assert np.array_equal(found, np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, -1))


@pytest.mark.parametrize(("bits", "photometric"), [(12, 1), (16, 1), (16, 0)])
def test_grey_of_a_tiff_is_as_bright_as_its_tags_say(bits: int, photometric: int) -> None:
    """Written by hand (TIFF 6.0, section 4): two pixels, a quarter and three quarters of the brightest."""
    dark, light = (2**bits // 4, 2**bits // 4 * 3) if photometric else (2**bits // 4 * 3, 2**bits // 4)
    strip = struct.pack("<HH", dark, light) if bits == 16 else (dark << 12 | light).to_bytes(3, "big")
    tags = {256: 2, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(strip)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    content = (
        b"II*\0" + struct.pack("<I", 12) + strip.ljust(4, b"\0") + struct.pack("<H", len(tags)) + entries + bytes(4)
    )
    found = read(content)[0, :, 0].astype(int)
    assert np.abs(found - [64, 192]).max() <= 1


def test_sixteen_bits_of_colour_are_taken_down_to_eight() -> None:
    """Written by hand, for Pillow cannot: 1 x 2 pixels, truecolour with 16 bits a channel (PNG, section 11.2.2)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + struct.pack(">6H", 0x1234, 0x8000, 0xFFFF, 0x00FF, 0x0100, 0xABCD)
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert read(png).tolist() == [[[0x12, 0x80, 0xFF], [0x00, 0x01, 0xAB]]]


def test_what_is_transparent_is_laid_on_white() -> None:
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (200, 10, 10, 255)
    clear[3] = (0, 0, 0, 128)
    found = read(saved(Image.fromarray(clear), "PNG"))
    assert found[0, 0].tolist() == [200, 10, 10] and found[2, 0].tolist() == [255, 255, 255]
    assert found[3, 0].tolist() == [127, 127, 127]
    mask = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    mask.putpalette([10, 20, 30, 40, 50, 60])
    assert read(saved(mask, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_camera_was(orientation: int) -> None:
    """EXIF 2.3, table 6: where row 0 and column 0 of the stored pixels are when the picture is upright."""
    stored = {
        1: SMOOTH,
        2: SMOOTH[:, ::-1],
        3: SMOOTH[::-1, ::-1],
        4: SMOOTH[::-1],
        5: SMOOTH.transpose(1, 0, 2),
        6: np.rot90(SMOOTH, 1),
        7: SMOOTH[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(SMOOTH, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(read(content), SMOOTH)


def test_ink_becomes_light() -> None:
    """Without a profile, cyan is what absorbs red alone, and black ink absorbs all."""
    ink = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255], [0, 0, 0, 0]]], np.uint8).repeat(8, 0)
    found = read(saved(Image.fromarray(ink, "CMYK"), "TIFF"))
    assert found[0].tolist() == [[0, 255, 255], [255, 0, 255], [0, 0, 0], [255, 255, 255]]
    photo = Image.fromarray(SMOOTH).convert("CMYK")
    assert np.abs(read(saved(photo, "JPEG", quality=95)).astype(int) - SMOOTH).mean() < 4


def test_colours_are_brought_to_srgb_by_the_pictures_profile() -> None:
    """A profile that swaps nothing but the order of its primaries would show; sRGB's own changes nothing."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = read(saved(Image.fromarray(SMOOTH), "PNG", icc_profile=srgb)).astype(int)
    assert np.abs(found - SMOOTH).max() <= 1
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()  # does not fit an RGB picture
    assert np.array_equal(read(saved(Image.fromarray(SMOOTH), "PNG", icc_profile=lab)), SMOOTH)
    assert np.array_equal(read(saved(Image.fromarray(SMOOTH), "PNG", icc_profile=b"nonsense" * 30)), SMOOTH)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    def png(width: int, height: int) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)))
        )

    for size in ((10_000, 10_000), (50_000, 50_000)):
        assert why(png(*size)) == "too large: more than 89,478,485 pixels"
    note = saved(Image.fromarray(SMOOTH), "PNG")
    text = b"Comment\0\0" + zlib.compress(b"\0" * 80_000_000)
    bomb = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert "save the picture without them" in why(note[:33] + bomb + note[33:])  # a comment of 80 MB
    profile = b"icc\0\0" + text[9:]
    bomb = struct.pack(">I", len(profile)) + b"iCCP" + profile + struct.pack(">I", zlib.crc32(b"iCCP" + profile))
    assert "save the picture without them" in why(note[:33] + bomb + note[33:])


def test_a_picture_too_narrow_for_a_clip_is_refused() -> None:
    """Its shorter side at 64 pixels, that of 1 x 2,000 has 128,000 pixels on the other, and of 1 x 40,000,000 no memory."""
    for size in ((1, 101), (202, 2), (2000, 1)):
        assert why(saved(Image.new("RGB", size), "PNG")).startswith(f"too narrow: {size[0]:,} x {size[1]:,} pixels")
    assert read(saved(Image.new("RGB", (2, 200)), "PNG")).shape == (200, 2, 3)


def test_a_file_with_more_bytes_than_memory_is_not_read(tmp_path: Path) -> None:
    """A video of 4 TB among the pictures, in each of the three places that read files of others."""
    video = tmp_path / "video.mp4"
    with video.open("wb") as file:
        file.truncate(4 * 10**12)  # takes no room
    said = "too large: 4,000,000,000,000 bytes"
    assert pictures.bytes_of(video) == said and imports._why_unread(str(video)) == said
    assert album._content(tmp_path, album.File(name="video.mp4", concept="ceo", sha256="x")) == said
    with pytest.raises(ValueError, match=f"^{said}$"):
        labelled._read(video, tmp_path)


def test_what_is_no_picture_is_said() -> None:
    assert why(b"") == "the file is empty"
    for content in (b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\0" * 500):
        assert "no picture of a known kind" in why(content)
    assert "floating-point" in why(saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))
    for largest in (255, 2**16, 2**31 - 1):  # taken as 16 bits, they would be black, or clipped to white
        wide = Image.fromarray(np.linspace(0, largest, 16).reshape(4, 4).astype(np.int32))
        assert "does not say how bright white is" in why(saved(wide, "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_a_file_that_was_cut_or_scrambled_never_raises(kind: str) -> None:
    whole = saved(Image.fromarray(SMOOTH), kind)
    for end in np.linspace(1, len(whole) - 8, 12).astype(int):
        pictures.decoded(whole[:end])  # raises nothing
    assert isinstance(pictures.decoded(whole[: len(whole) // 2]), str)
    for _ in range(60):
        noisy = np.frombuffer(whole, np.uint8).copy()
        places = RNG.integers(0, len(noisy), 5)
        noisy[places] = RNG.integers(0, 256, 5)
        found = pictures.decoded(noisy.tobytes())
        assert isinstance(found, str) or found.dtype == np.uint8


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.fromarray(np.full((6, 6, 3), value, np.uint8)) for value in (30, 200)]
    assert (read(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])) == 30).all()


def test_a_grid_is_cut_into_its_quarters() -> None:
    whole = RNG.integers(0, 256, (7, 9, 3), np.uint8)
    four = pictures.quarters(whole)
    assert [q.shape for q in four] == [(3, 4, 3)] * 4
    corners = [whole[0, 0], whole[0, -1], whole[-1, 0], whole[-1, -1]]
    assert [q[r, c].tolist() for q, (r, c) in zip(four, [(0, 0), (0, -1), (-1, 0), (-1, -1)], strict=True)] == [
        corner.tolist() for corner in corners
    ]
