"""A probe from words: an image is compared with several wordings of each level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.attributes import digest_of, prompts
from classifiers.clip import ClipModel
from classifiers.probe import CONFUSION, Head, Probe
from pipeline.errors import InputError
from pipeline.types import Attribute, Intersection


class ZeroShot(Probe):
    """Needs no labelled picture. Its errors are known where they were counted, as for any probe."""

    def __init__(
        self,
        clip: ClipModel,
        attributes: Sequence[Attribute],
        *,
        threshold: float,
        confusion_file: Path | None = None,
        name: str | None = None,
    ) -> None:
        """Encode the words of all attributes, each text once.

        `name` is the folder of the perceptions, made of the CLIP's name unless given.
        `threshold`, in 0..1, is the probability that the best level must reach to be decided. `confusion_file` is
        `confusion.json` in the folder of the CLIP unless given.
        """
        if confusion_file is not None and not confusion_file.is_file():
            raise InputError(f"{confusion_file}: no such confusion file")
        asked = {a.name: {level: prompts(a, level) for level in a.levels} for a in attributes}
        texts = list(dict.fromkeys(text for levels in asked.values() for some in levels.values() for text in some))
        vector = dict(zip(texts, clip.encode_texts(texts), strict=True))
        self.phrasings = {
            name: {some: np.stack([vector[text] for text in some]) for some in zip(*levels.values(), strict=True)}
            for name, levels in asked.items()
        }
        """Attribute name to its phrasings, each a text per level, and their vectors `(K, d)`."""
        self.texts = {
            name: np.stack([ensemble(np.stack([vector[text] for text in some])) for some in levels.values()])
            for name, levels in asked.items()
        }
        """Attribute name to `(K, d)` unit vectors, one per level."""
        super().__init__(
            clip,
            attributes,
            {name: in_words(vectors, clip.logit_scale) for name, vectors in self.texts.items()},
            {a.name: threshold for a in attributes},
            name=name or f"{clip.name}-zero_shot",
            confusion_file=confusion_file or (clip.folder / CONFUSION if clip.folder else None),
        )
        self.threshold = threshold

    def wordings(self, attribute: str) -> dict[str, Head]:
        """Each phrasing alone, by what it says of the first level."""
        return {
            some[0]: in_words(vectors, self.clip.logit_scale) for some, vectors in self.phrasings[attribute].items()
        }

    def stamp(self, attribute: Attribute | Intersection) -> dict[str, Any]:
        """With the words that are asked."""
        return super().stamp(attribute) | {"wordings": digest_of(attribute)}


def in_words(vectors: npt.NDArray[np.float32], logit_scale: float) -> Head:
    """softmax(s · t · e) with the vectors of the levels' words `(K, d)`: Radford et al. (2021), section 3.1.2."""
    return Head(vectors, np.zeros(len(vectors), np.float32), logit_scale)


def ensemble(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean of unit vectors, at unit length again: `(m, d) -> (d,)`.

    Radford et al. (2021), arXiv:2103.00020, section 3.1.4.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    unit: npt.NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit
