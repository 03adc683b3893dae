"""Pixels -> the faces in them, and who is in the picture: nobody, one person or several.

The detector is BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047) with MediaPipe's published weights for pictures
taken at some distance (Apache-2.0), computed by torch: the packages that ship it want TensorFlow, and fail beside
today's numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from classifiers import skin_tone
from classifiers.attributes import BY_DETECTOR, MONK_TONE, PEOPLE
from classifiers.skin_tone import Box
from pipeline.types import CANNOT_TELL, NOT_ONE_PERSON, Attribute, Perceived, Pixels, Rereader

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]

SIDE = 256
"""Of the square that the network looks at, in pixels; a picture is shrunk or enlarged to fit."""
BLOCKS = 32
HALVING = (7, 15, 23, 31)
"""Blocks at whose end the map has half the side; the last one has no way around it."""
GRIDS = ((16, 2), (8, 6))
"""Cells a side, and boxes in each."""
SURE = 0.5
"""Score from which on a box is a face, as in MediaPipe."""
SAME = 0.3
"""Intersection over union from which on two boxes are one face, as in MediaPipe."""
AT_ONCE = 16

MARGIN = 0.5
"""Of a face's box, that is left around it on each side where the largest face is cut out."""

Policy = Literal["largest_face", "exactly_one"]


@dataclass(frozen=True)
class Face:
    """A face in a picture."""

    box: Box
    """In pixels of the picture, cut to it: brows to chin."""
    score: float
    """0..1."""


def find(images: Sequence[Pixels]) -> list[tuple[Face, ...]]:
    """The faces of each image, the largest first."""
    found = []
    for start in range(0, len(images), AT_ONCE):
        some = images[start : start + AT_ONCE]
        scores, boxes = _scores_and_boxes(np.stack([_square(image) for image in some]))
        found += [_faces(image, *both) for image, *both in zip(some, scores, boxes, strict=True)]
    return found


def _square(image: Pixels) -> Pixels:
    """The image in the middle of a black square `(SIDE, SIDE, 3)`, all of it, its sides in proportion."""
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new("RGB", (SIDE, SIDE))
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    square.paste(small, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return np.asarray(square)


def _faces(image: Pixels, scores: Floats, boxes: Floats) -> tuple[Face, ...]:
    """From the network's `(896,)` scores and `(896, 4)` boxes, left, top, right and bottom in the square's pixels."""
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        if scores[place] < SURE:
            break
        if all(_overlap(boxes[place], boxes[other]) < SAME for other in kept):
            kept.append(int(place))
    height, width = image.shape[:2]
    scale = max(height, width) / SIDE
    shift = np.array([(SIDE - width / scale) / 2, (SIDE - height / scale) / 2] * 2)
    limits = np.array([width, height] * 2)
    faces = []
    for place in kept:
        box = np.clip(np.round((boxes[place] - shift) * scale), 0, limits).astype(int)
        if box[0] < box[2] and box[1] < box[3]:
            left, top, right, bottom = (int(value) for value in box)
            faces.append(Face(box=(left, top, right, bottom), score=float(scores[place])))
    return tuple(sorted(faces, key=lambda f: -(f.box[2] - f.box[0]) * (f.box[3] - f.box[1])))


def _overlap(one: Floats, other: Floats) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    return shared / max(float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared, 1e-9)


# -- who is in the picture ---------------------------------------------------------------------------


@dataclass(frozen=True)
class OnePerson:
    """A perceiver that is asked about one person alone; of any other picture it says `not one person`.

    `exactly_one`: the whole picture, if one face is found. `largest_face`: what is around the largest face, if there is
    one. Beside the attributes of the perceiver within, it reads who is in the picture and the colour of the skin.
    """

    inner: Rereader
    policy: Policy
    name: str

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Those of the perceiver within, and two of its own."""
        return (*self.inner.attributes, *BY_DETECTOR)

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """All attributes; the probabilities and the embedding of a picture that is left out are kept."""
        faces = find(images)
        cut = self.policy == "largest_face"
        seen = self.inner.perceive(
            [around(image, some[0].box) if cut and some else image for image, some in zip(images, faces, strict=True)]
        )
        tones = [skin_tone.tone(i, f[0].box) if f else None for i, f in zip(images, faces, strict=True)]
        found = {
            PEOPLE.name: [PEOPLE.levels[min(len(some), 2)] for some in faces],
            MONK_TONE.name: [CANNOT_TELL if tone is None else str(tone.level) for tone in tones],
        }
        return self._of_one(seen, found)

    def from_kept(self, embeddings: npt.NDArray[np.float16], found: Mapping[str, Sequence[str]]) -> Perceived:
        """What `perceive` says, from embeddings `(n, d)` that were kept and what was found in the pictures then, by
        attribute of `BY_DETECTOR`: no image is touched."""
        return self._of_one(self.inner.from_embeddings(embeddings), found)

    def _of_one(self, seen: Perceived, found: Mapping[str, Sequence[str]]) -> Perceived:
        """What was seen of all, as it is said of those that are kept."""
        _, one, several = PEOPLE.levels
        kept = [who == one or (self.policy == "largest_face" and who == several) for who in found[PEOPLE.name]]
        said = {
            name: [decision if keep else NOT_ONE_PERSON for decision, keep in zip(some, kept, strict=True)]
            for name, some in (seen.decisions | {MONK_TONE.name: found[MONK_TONE.name]}).items()
        }
        said[PEOPLE.name] = [*found[PEOPLE.name]]
        sure = {a.name: _one_hot(a, said[a.name]) for a in BY_DETECTOR}
        return Perceived(seen.embeddings, seen.probabilities | sure, said)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As the perceiver within."""
        return self.inner.encode_texts(texts)

    def confusion(self, attribute: str) -> npt.NDArray[np.int64] | None:
        """That of the perceiver within, for whole pictures; of a face that is cut out, no errors are known."""
        own = {a.name for a in BY_DETECTOR}
        return None if attribute in own or self.policy == "largest_face" else self.inner.confusion(attribute)

    def confusion_by_concept(self, attribute: str) -> dict[str, npt.NDArray[np.int64]]:
        """The same."""
        return {} if self.confusion(attribute) is None else self.inner.confusion_by_concept(attribute)


def around(image: Pixels, box: Box) -> Pixels:
    """A face with `MARGIN` around it, as far as the picture goes."""
    left, top, right, bottom = box
    across, down = round(MARGIN * (right - left)), round(MARGIN * (bottom - top))
    return image[max(top - down, 0) : bottom + down, max(left - across, 0) : right + across]


def _one_hot(attribute: Attribute, decisions: Sequence[str]) -> npt.NDArray[np.float32]:
    """`(n, K)`: a detector and a colour give no probabilities. NaN where no level was decided."""
    rows = np.full((len(decisions), len(attribute.levels)), np.nan, np.float32)
    for row, decision in zip(rows, decisions, strict=True):
        if decision in attribute.levels:
            row[:] = np.eye(len(attribute.levels))[attribute.levels.index(decision)]
    return rows


# -- the network -------------------------------------------------------------------------------------


def _scores_and_boxes(squares: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Scores `(n, 896)` in 0..1 and boxes `(n, 896, 4)` in pixels of the squares `(n, SIDE, SIDE, 3)`."""
    import torch

    with torch.inference_mode():
        pixels = torch.from_numpy(squares.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
        scores, raw = (values.double().numpy() for values in _network(_weights(), pixels))
    centres = raw[..., :2] + _anchors() * SIDE
    half = raw[..., 2:4] / 2
    return 1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.concatenate([centres - half, centres + half], -1)


@cache
def _anchors() -> Floats:
    """The middle of each cell in 0..1, once for each of its boxes: `(896, 2)`."""
    parts = []
    for cells, boxes in GRIDS:
        down, across = np.mgrid[:cells, :cells]
        parts.append(np.repeat((np.stack([across, down], -1).reshape(-1, 2) + 0.5) / cells, boxes, axis=0))
    return np.concatenate(parts)


@cache
def _weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    loaded = load_file(Path(__file__).with_name("face_detector.safetensors"))
    return {name: values.float() for name, values in loaded.items()}


def _network(weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`(n, 3, 256, 256)` in -1..1 to scores `(n, 896)`, before the sigmoid, and boxes and key points `(n, 896, 16)`."""
    import torch
    from torch.nn import functional

    def convolved(name: str, maps: torch.Tensor, stride: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}.weight"]
        reach = kernel.shape[-1] - stride if kernel.shape[-1] > 1 else 0  # zeros at the end first: TensorFlow's SAME
        padded = functional.pad(maps, (reach // 2, reach - reach // 2) * 2)
        groups = maps.shape[1] // kernel.shape[1]
        return functional.conv2d(padded, kernel, weights[f"{name}.bias"], stride=stride, groups=groups)

    maps = [functional.relu(convolved("first", pixels, 2))]
    for block in range(BLOCKS):
        before, stride = maps[-1], 2 if block in HALVING else 1
        after = convolved(f"{block}.pointwise", convolved(f"{block}.depthwise", before, stride))
        if block < BLOCKS - 1:
            around = functional.max_pool2d(before, 2) if stride == 2 else before
            after = after + functional.pad(around, (0, 0, 0, 0, 0, after.shape[1] - around.shape[1]))
        maps.append(functional.relu(after))
    heads = (("16", maps[-2]), ("8", maps[-1]))
    scores = [convolved(f"scores.{name}", m).permute(0, 2, 3, 1).reshape(len(pixels), -1) for name, m in heads]
    boxes = [convolved(f"boxes.{name}", m).permute(0, 2, 3, 1).reshape(len(pixels), -1, 16) for name, m in heads]
    return torch.cat(scores, 1), torch.cat(boxes, 1)
