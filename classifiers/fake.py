"""A perceiver that ships for tests and dry runs: it reads colours, not people, in no time and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.types import CANNOT_TELL, Attribute, Perceived, Pixels

STEPS = 997
"""Around the circle of the embeddings."""


@dataclass(frozen=True)
class FakePerceiver:
    """The level is drawn from the digest of the pixels; one image in eight is `cannot tell`."""

    attributes: tuple[Attribute, ...]
    name: str

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """Probabilities from the pixels alone: the same image always reads the same."""
        angles = np.array([float(image.astype(np.float64).sum() % STEPS) for image in images]) * 2 * np.pi / STEPS
        return self.from_embeddings(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float16).reshape(-1, 2))

    def from_embeddings(self, embeddings: npt.NDArray[np.float16]) -> Perceived:
        """An embedding is a place on the circle, in steps that float16 tells apart."""
        wide = embeddings.astype(np.float64)
        steps = np.rint(np.arctan2(wide[:, 1], wide[:, 0]) * STEPS / 2 / np.pi).astype(int) % STEPS
        probabilities: dict[str, npt.NDArray[np.float32]] = {}
        decisions: dict[str, list[str]] = {}
        for attribute in self.attributes:
            k = len(attribute.levels)
            chosen = steps % k
            probabilities[attribute.name] = np.eye(k, dtype=np.float32)[chosen]
            decisions[attribute.name] = [
                CANNOT_TELL if step % 8 == 0 else attribute.levels[c] for step, c in zip(steps, chosen, strict=True)
            ]
        return Perceived(embeddings, probabilities, decisions)

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Directions on the circle, in the order of the texts."""
        angles = 2 * np.pi * np.arange(len(texts)) / max(len(texts), 1)
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    def confusion(self, attribute: str) -> npt.NDArray[np.int64] | None:
        """There are no labelled pictures of noise."""
        return None

    def confusion_by_concept(self, attribute: str) -> dict[str, npt.NDArray[np.int64]]:
        """Nor by concept."""
        return {}
