"""Embeddings -> probabilities and decisions, by comparing an image with words: the zero-shot probe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.attributes import digest_of, prompts
from classifiers.clip import ClipModel
from pipeline.errors import InputError
from pipeline.types import CANNOT_TELL, Attribute, Perceived, Pixels

CONFUSION = "confusion.json"
"""Beside the weights of a CLIP: what `measure_confusion` counted on labelled pictures."""

Embeddings = npt.NDArray[np.float16]
Probabilities = npt.NDArray[np.float32]


class ZeroShot:
    """Reads every attribute of an image from one embedding of it. Implements `pipeline.types.Perceiver`.

    An embedding is rounded to float16 before anything is decided, and what is decided about it depends on nothing
    else: decisions from stored embeddings are those of the run, bit for bit. Another batch size changes an embedding
    by about 1e-7 on a CPU, which the rounding takes away but for a few coordinates that lie on its edge, so
    a decision can change only for an image whose probabilities are within about 1e-3 of a tie or of the threshold.
    In half precision, on a GPU, the difference is of the size of the rounding itself.
    """

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
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must be in 0..1, not {threshold}")
        if confusion_file is not None and not confusion_file.is_file():
            raise InputError(f"{confusion_file}: no such confusion file")
        self.clip = clip
        self.name = name or f"{clip.name}-zero_shot"
        self.attributes = tuple(attributes)
        self.threshold = threshold
        self._confusion_file = confusion_file or (clip.folder / CONFUSION if clip.folder else None)
        asked = {a.name: {level: prompts(a, level) for level in a.levels} for a in self.attributes}
        texts = list(dict.fromkeys(text for levels in asked.values() for some in levels.values() for text in some))
        vector = dict(zip(texts, clip.encode_texts(texts), strict=True))
        self.texts = {
            name: np.stack([ensemble(np.stack([vector[text] for text in some])) for some in levels.values()])
            for name, levels in asked.items()
        }
        """Attribute name to `(K, d)` unit vectors, one per level."""

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """All attributes of all images from one encoding of each."""
        return self.from_embeddings(self.clip.encode_images(images).astype(np.float16))

    def from_embeddings(self, embeddings: Embeddings) -> Perceived:
        """What `perceive` says, from embeddings `(n, d)` that were kept: no image is touched."""
        found = {a.name: probabilities(embeddings, self.texts[a.name], self.clip.logit_scale) for a in self.attributes}
        decisions = {a.name: decide(found[a.name], a.levels, self.threshold) for a in self.attributes}
        return Perceived(embeddings, found, decisions)

    def confusion(self, attribute: str) -> npt.NDArray[np.int64] | None:
        """Counts `(K, K + 1)` on labelled pictures: rows true, columns decided, the last `cannot tell`.

        `None` unless they were counted with the same wordings and the same threshold. A row of zeros is a level
        that no labelled picture shows: about it nothing is known.
        """
        wanted = next((a for a in self.attributes if a.name == attribute), None)
        if wanted is None:
            raise ValueError(f"{attribute!r} is not read here; known: {', '.join(a.name for a in self.attributes)}")
        if self._confusion_file is None or not self._confusion_file.is_file():
            return None
        return _matching(self._confusion_file, wanted, self.threshold)


def ensemble(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean of unit vectors, at unit length again: `(m, d) -> (d,)`.

    Radford et al. (2021), arXiv:2103.00020, section 3.1.4.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    unit: npt.NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return unit


def probabilities(embeddings: Embeddings, texts: npt.NDArray[np.float32], logit_scale: float) -> Probabilities:
    """softmax(s · e · tᵀ) over the levels: `(n, d), (K, d) -> (n, K)`. Radford et al. (2021), section 3.1.2.

    A row depends on its own embedding alone: a matrix product would sum in another order for another n. In float64,
    where the products are exact, so that equal levels stay equal.
    """
    wide = embeddings.astype(np.float64)
    logits = logit_scale * np.stack([(wide * text).sum(axis=1) for text in texts], axis=1)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def decide(shares: Probabilities, levels: Sequence[str], threshold: float) -> list[str]:
    """The most probable level of each row if it reaches the threshold, else `cannot tell`. Of equals, the first."""
    reached = shares.max(axis=1, initial=0) >= np.float32(threshold)  # 0.9 as float32 is below 0.9
    best = shares.argmax(axis=1)
    return [levels[k] if sure else CANNOT_TELL for k, sure in zip(best, reached, strict=True)]


# How wrong it is


def measure_confusion(
    perceiver: ZeroShot, images: Sequence[Pixels], truths: Mapping[str, Sequence[str | None]], *, pictures: str
) -> dict[str, Any]:
    """Count decisions against labels, as the content of `confusion.json`.

    `truths` has per attribute one level for each image, or `None` where an image is not labelled for it. `pictures`
    says which pictures these are: a matrix holds for their domain alone.
    """
    seen = perceiver.perceive(images)
    counted = {}
    for attribute in (a for a in perceiver.attributes if a.name in truths):
        labels = truths[attribute.name]
        unknown = {label for label in labels if label is not None} - set(attribute.levels)
        if unknown or len(labels) != len(images):
            raise ValueError(f"{attribute.name}: {len(labels)} labels for {len(images)} images; unknown: {unknown}")
        columns = (*attribute.levels, CANNOT_TELL)
        rows = np.zeros((len(attribute.levels), len(columns)), np.int64)
        for label, decision in zip(labels, seen.decisions[attribute.name], strict=True):
            if label is not None:
                rows[attribute.levels.index(label), columns.index(decision)] += 1
        counted[attribute.name] = {
            "levels": list(attribute.levels),
            "threshold": perceiver.threshold,
            "pictures": pictures,
            "wordings": digest_of(attribute),
            "rows": rows.tolist(),
        }
    return counted


def save_confusion(counted: Mapping[str, Any], file: Path) -> None:
    """Write what `measure_confusion` counted. The file appears whole."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


def _matching(file: Path, attribute: Attribute, threshold: float) -> npt.NDArray[np.int64] | None:
    """The counts of an attribute in a confusion file, if they are of this probe."""
    size = len(attribute.levels)
    try:
        entry = json.loads(file.read_text(encoding="utf-8")).get(attribute.name)
        if entry is None or (entry["threshold"], entry["wordings"]) != (threshold, digest_of(attribute)):
            return None
        rows = np.array(entry["rows"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: {attribute.name}: not written by measure_confusion: {error!r}") from error
    if rows.shape != (size, size + 1) or rows.dtype.kind != "i" or rows.min() < 0:
        raise InputError(f"{file}: {attribute.name}: rows: must be {size} x {size + 1} counts")
    return rows.astype(np.int64)
