"""Embeddings -> probabilities and decisions, by comparing an image with words: the zero-shot probe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.attributes import digest_of, prompts, readable
from classifiers.clip import ClipModel
from pipeline.errors import InputError
from pipeline.types import CANNOT_TELL, Attribute, Intersection, Perceived, Pixels

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

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts as unit vectors `(m, d)` in the space of the embeddings."""
        return self.clip.encode_texts(texts)

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
        wanted = self._read(attribute)
        entry = self._counted(wanted)
        return None if entry is None else _matrix(self._confusion_file, wanted, entry["rows"])

    def confusion_by_concept(self, attribute: str) -> dict[str, npt.NDArray[np.int64]]:
        """The same for the labelled pictures of each concept; empty where that was not counted."""
        wanted = self._read(attribute)
        entry = self._counted(wanted) or {}
        some = entry.get("by_concept", {})
        return {concept: _matrix(self._confusion_file, wanted, rows) for concept, rows in some.items()}

    def _read(self, attribute: str) -> Attribute | Intersection:
        read = {a.name: a for a in readable(self.attributes)}
        if attribute not in read:
            raise ValueError(f"{attribute!r} is not read here; known: {', '.join(read)}")
        return read[attribute]

    def _counted(self, attribute: Attribute | Intersection) -> dict[str, Any] | None:
        """The entry of an attribute in the confusion file, if it is of this probe."""
        file = self._confusion_file
        if file is None or not file.is_file():
            return None
        try:
            entry: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")).get(attribute.name)
            if entry is None or (entry["threshold"], entry["wordings"]) != (self.threshold, digest_of(attribute)):
                return None
            entry["rows"], entry.get("by_concept", {}).items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: {attribute.name}: not written by measure_confusion: {error!r}") from error
        return entry


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
    perceiver: ZeroShot,
    images: Sequence[Pixels],
    truths: Mapping[str, Sequence[str | None]],
    *,
    concepts: Sequence[str],
    pictures: str,
) -> dict[str, Any]:
    """Count decisions against labels, as the content of `confusion.json`, over all and by concept.

    `truths` has per attribute one level for each image, or `None` where an image is not labelled for it. `concepts`
    says what each image is about, for that is where a probe may err by itself. `pictures` says which pictures these
    are: a matrix holds for their domain alone.
    """
    seen = perceiver.perceive(images).decisions
    labels = {name: list(some) for name, some in truths.items()}
    for attribute in (a for a in perceiver.attributes if a.name in truths):
        unknown = {label for label in labels[attribute.name] if label is not None} - set(attribute.levels)
        if unknown or len(labels[attribute.name]) != len(images):
            some = len(labels[attribute.name])
            raise ValueError(f"{attribute.name}: {some} labels for {len(images)} images; unknown: {unknown}")
    measured = readable([a for a in perceiver.attributes if a.name in truths])
    for both in (a for a in measured if isinstance(a, Intersection)):
        rows = zip(*(labels[part.name] for part in both.of), strict=True)
        labels[both.name] = [None if None in row else ", ".join(map(str, row)) for row in rows]
        seen = seen | {both.name: both.together(seen)}
    return {
        attribute.name: {
            "levels": list(attribute.levels),
            "threshold": perceiver.threshold,
            "pictures": pictures,
            "wordings": digest_of(attribute),
            "rows": _crossed(attribute.levels, labels[attribute.name], seen[attribute.name]).tolist(),
            "by_concept": _by_concept(attribute.levels, labels[attribute.name], seen[attribute.name], concepts),
        }
        for attribute in measured
    }


def _crossed(levels: Sequence[str], labels: Sequence[str | None], decisions: Sequence[str]) -> npt.NDArray[np.int64]:
    """How often which decision was made about which label, `(K, K + 1)`."""
    columns = (*levels, CANNOT_TELL)
    rows = np.zeros((len(levels), len(columns)), np.int64)
    for label, decision in zip(labels, decisions, strict=True):
        if label is not None:
            rows[levels.index(label), columns.index(decision)] += 1
    return rows


def _by_concept(
    levels: Sequence[str], labels: Sequence[str | None], decisions: Sequence[str], concepts: Sequence[str]
) -> dict[str, list[list[int]]]:
    """`_crossed` for each concept of which a picture is labelled."""
    found = {}
    for concept in sorted(set(concepts)):
        mine = [i for i, c in enumerate(concepts) if c == concept]
        rows = _crossed(levels, [labels[i] for i in mine], [decisions[i] for i in mine])
        if rows.any():
            found[concept] = rows.tolist()
    return found


def save_confusion(counted: Mapping[str, Any], file: Path) -> None:
    """Write what `measure_confusion` counted. The file appears whole."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


def _matrix(file: Path | None, attribute: Attribute | Intersection, counts: Any) -> npt.NDArray[np.int64]:
    """Counts from a confusion file, or an error that names it."""
    size = len(attribute.levels)
    try:
        rows = np.array(counts)
    except ValueError:
        rows = np.empty(0)
    if rows.shape != (size, size + 1) or rows.dtype.kind != "i" or rows.min() < 0:
        raise InputError(f"{file}: {attribute.name}: rows: must be {size} x {size + 1} counts")
    return rows.astype(np.int64)
