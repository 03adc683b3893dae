"""Embeddings -> probabilities -> decisions: what every kind of probe has in common, and the folder that it is kept in."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifiers.attributes import prompts, readable
from classifiers.clip import ClipModel
from pipeline.errors import InputError, ModelError
from pipeline.types import CANNOT_TELL, Attribute, Intersection, Perceived, Pixels

CONFUSION = "confusion.json"
"""Beside the weights of a CLIP or of a probe: what was counted on labelled pictures."""
DESCRIPTION = "probe.json"
WEIGHTS = "weights.npz"

Embeddings = npt.NDArray[np.float16]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """One attribute's part of a probe: softmax(s · (W e + b)) over its K levels.

    The kinds of probes differ in where W comes from alone: words, the means of labelled pictures, a logistic
    regression. A temperature divides s.
    """

    weights: npt.NDArray[np.float32]
    """`(K, d)`."""
    bias: npt.NDArray[np.float32]
    """`(K,)`."""
    scale: float

    def logits(self, embeddings: Embeddings) -> npt.NDArray[np.float64]:
        """s · (W e + b): `(n, d) -> (n, K)`.

        A row depends on its own embedding alone: a matrix product would sum in another order for another n. In
        float64, where the products are exact, so that equal levels stay equal.
        """
        wide = embeddings.astype(np.float64)
        rows = zip(self.weights, self.bias, strict=True)
        products = [(wide * weight).sum(axis=1) + float(bias) for weight, bias in rows]
        return self.scale * np.stack(products, axis=1)

    def probabilities(self, embeddings: Embeddings) -> Probabilities:
        """`(n, d) -> (n, K)`."""
        return softmax(self.logits(embeddings))


def softmax(logits: npt.NDArray[np.float64]) -> Probabilities:
    """Over the last axis, in float32, as probabilities are kept."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Probabilities = (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def decide(shares: Probabilities, levels: Sequence[str], threshold: float) -> list[str]:
    """The most probable level of each row if it reaches the threshold, else `cannot tell`. Of equals, the first."""
    reached = shares.max(axis=1, initial=0) >= np.float32(threshold)  # 0.9 as float32 is below 0.9
    best = shares.argmax(axis=1)
    return [levels[k] if sure else CANNOT_TELL for k, sure in zip(best, reached, strict=True)]


class Probe:
    """A CLIP and a head per attribute. Implements `pipeline.types.Perceiver`.

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
        heads: Mapping[str, Head],
        thresholds: Mapping[str, float],
        *,
        name: str,
        confusion_file: Path | None,
        sha256: str = "",
        wordings: Mapping[str, dict[str, Head]] | None = None,
    ) -> None:
        """`name` is the folder of the perceptions. `heads`, `thresholds` and `wordings` are by the names of the attributes.

        A threshold, in 0..1, is the probability that the best level must reach to be decided.
        """
        for threshold in thresholds.values():
            if not 0 <= threshold <= 1:
                raise ValueError(f"threshold must be in 0..1, not {threshold}")
        self.clip = clip
        self.attributes = tuple(attributes)
        self.heads = dict(heads)
        self.thresholds = dict(thresholds)
        self.name = name
        self.sha256 = sha256
        """Of the folder of a fitted probe: another fit under the same name is another probe."""
        self._confusion_file = confusion_file
        self._wordings = dict(wordings or {})

    def perceive(self, images: Sequence[Pixels]) -> Perceived:
        """All attributes of all images from one encoding of each."""
        return self.from_embeddings(self.clip.encode_images(images).astype(np.float16))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts as unit vectors `(m, d)` in the space of the embeddings."""
        return self.clip.encode_texts(texts)

    def from_embeddings(self, embeddings: Embeddings) -> Perceived:
        """What `perceive` says, from embeddings `(n, d)` that were kept: no image is touched."""
        found = {a.name: self.heads[a.name].probabilities(embeddings) for a in self.attributes}
        decisions = {a.name: decide(found[a.name], a.levels, self.thresholds[a.name]) for a in self.attributes}
        return Perceived(embeddings, found, decisions)

    def wordings(self, attribute: str) -> dict[str, Head]:
        """Each phrasing alone as a head, by what it says: of a probe that asks in words. No other has any."""
        return self._wordings.get(attribute, {})

    def stamp(self, attribute: Attribute | Intersection) -> dict[str, Any]:
        """What a confusion matrix must have been counted with, to be of this probe. An intersection has the
        threshold of its parts, a list where they differ."""
        parts = attribute.of if isinstance(attribute, Intersection) else (attribute,)
        thresholds = [self.thresholds[part.name] for part in parts]
        return {"threshold": thresholds if len(set(thresholds)) > 1 else thresholds[0]}

    def confusion(self, attribute: str) -> npt.NDArray[np.int64] | None:
        """Counts `(K, K + 1)` on labelled pictures: rows true, columns decided, the last `cannot tell`.

        `None` unless they were counted with the same words and the same threshold. A row of zeros is a level
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
            stamp = self.stamp(attribute)
            if entry is None or {key: entry[key] for key in stamp} != stamp:
                return None
            entry["rows"], entry.get("by_concept", {}).items()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: {attribute.name}: not written by measure_confusion: {error!r}") from error
        return entry


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


# -- the folder of a fitted probe --------------------------------------------------------------------


def read_description(folder: Path) -> dict[str, Any]:
    """`probe.json`: the kind, the CLIP, and per attribute its levels, scale, threshold and record."""
    file = folder / DESCRIPTION
    if not file.is_file():
        raise InputError(
            f"perceive.probe: {folder} holds no {DESCRIPTION}; the right answers are: zero_shot, embedded, or a folder "
            "that `typecast probe fit` wrote"
        )
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for entry in found["attributes"].values():
            if not isinstance(entry["levels"], list):
                raise TypeError("levels must be a list")
            float(entry["scale"])
            if not 0 <= float(entry["threshold"]) <= 1:
                raise ValueError(f"threshold must be in 0..1, not {entry['threshold']}")
        str(found["kind"]), str(found["clip"]), found["pretrained"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not written by `typecast probe fit`: {error!r}") from None
    return found


def described_for(folder: Path, attributes: Sequence[Attribute]) -> dict[str, Any]:
    """`probe.json`, of a probe that reads these attributes, else an `InputError`."""
    described = read_description(folder)
    for attribute in attributes:
        entry = described["attributes"].get(attribute.name)
        if entry is None:
            known = ", ".join(described["attributes"])
            raise InputError(
                f"perceive.attributes: the probe {folder} does not read {attribute.name}; it reads {known}"
            )
        if tuple(entry["levels"]) != attribute.levels:
            raise InputError(
                f"{folder / DESCRIPTION}: {attribute.name}: has the levels {', '.join(entry['levels'])}, and here they "
                f"are {', '.join(attribute.levels)}; fit the probe again"
            )
    return described


def load(folder: Path, clip: ClipModel, attributes: Sequence[Attribute], *, name: str) -> Probe:
    """A fitted probe on the CLIP that it was fitted on. It has thresholds of its own."""
    described = described_for(folder, attributes)
    try:
        with (folder / WEIGHTS).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            stored = {key: arrays[key] for key in arrays.files}
        heads = {
            a.name: Head(
                stored[f"{a.name}.weights"], stored[f"{a.name}.bias"], float(described["attributes"][a.name]["scale"])
            )
            for a in attributes
        }
        fingerprint = stored["fingerprint"]
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{folder / WEIGHTS}: not written by `typecast probe fit`: {error}") from None
    seen = fingerprint_of(clip)
    if not alike(fingerprint, seen):
        raise ModelError(
            f"perceive.probe: {folder} was fitted on the CLIP {described['clip']} ({described['pretrained']}), and "
            f"perceive.clip is {clip.name}, which embeds otherwise; name that CLIP, or fit the probe again"
        )
    for attribute in attributes:
        weights, bias = heads[attribute.name].weights, heads[attribute.name].bias
        if weights.shape != (len(attribute.levels), len(seen)) or bias.shape != (len(attribute.levels),):
            raise InputError(f"{folder / WEIGHTS}: {attribute.name}: weights of the shape {weights.shape} do not fit")
    thresholds = {a.name: float(described["attributes"][a.name]["threshold"]) for a in attributes}
    in_words = attributes if described["kind"] == "zero_shot" else ()
    together = b"".join((folder / name).read_bytes() for name in (DESCRIPTION, WEIGHTS))
    return Probe(
        clip,
        attributes,
        heads,
        thresholds,
        name=name,
        confusion_file=folder / CONFUSION,
        sha256=hashlib.sha256(together).hexdigest(),
        wordings={a.name: _asked_again(clip, a, heads[a.name]) for a in in_words},
    )


def _asked_again(clip: ClipModel, attribute: Attribute, head: Head) -> dict[str, Head]:
    """Each phrasing alone, by what it says of the first level, calibrated as all together were: of those the folder keeps
    the mean. None where the mean is another by now: the probe was fitted to other words."""
    levels = [clip.encode_texts(prompts(attribute, level)) for level in attribute.levels]
    vectors = np.stack(levels, axis=1)  # (P, K, d)
    means = vectors.mean(axis=0, dtype=np.float64)
    if ((means / np.linalg.norm(means, axis=1, keepdims=True)) * head.weights).sum(axis=1).min() < ALIKE:
        return {}
    texts = prompts(attribute, attribute.levels[0])
    return {text: replace(head, weights=some) for text, some in zip(texts, vectors, strict=True)}


ALIKE = 0.999
"""The least cosine between embeddings of one picture by one CLIP: half precision and another device stay above."""


def alike(fingerprint: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> bool:
    """Are these of one CLIP?"""
    return fingerprint.shape == other.shape and float(fingerprint @ other) >= ALIKE


def fingerprint_of(clip: ClipModel) -> npt.NDArray[np.float32]:
    """What a CLIP makes of one fixed picture of waves, `(d,)`: other weights under the same name give another."""
    y, x, channel = np.mgrid[:64, :64, :3]
    waves = np.sin(x * (channel + 1) / 9) + np.sin(y * (3 - channel) / 7)
    (seen,) = clip.encode_images([(127.5 + 63 * waves).astype(np.uint8)])
    return np.asarray(seen)
