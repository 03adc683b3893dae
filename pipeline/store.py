"""The run folder: shards that appear whole or not at all, and the files that the stages hand to each other."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import RunError
from pipeline.types import Attribute, ImageRecord, Perceived, Pixels, Shard

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
IMAGE_SCHEMA = pa.schema(
    [
        ("unit_id", pa.string()),
        ("concept", pa.string()),
        ("prompt_set", pa.string()),
        ("template", pa.string()),
        ("identity", pa.string()),
        ("arm", pa.string()),
        ("prompt", pa.string()),
        ("prompt_sent", pa.string()),
        ("negative_prompt", pa.string()),
        ("drawn", pa.string()),
        ("sample", pa.int64()),
        ("seed", pa.int64()),
        ("batch", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("sha256", pa.string()),
        ("seconds", pa.float64()),
        ("file", pa.string()),
        ("image", _IMAGE),
    ]
)
"""A row per unit. `image` is what `datasets` calls an Image feature: PNG bytes and no path."""


def sha256(pixels: Pixels) -> str:
    """The digest of the pixels as they are stored and classified."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def encode(pixels: Pixels) -> bytes:
    """The pixels as PNG: lossless, and quick to write rather than small."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def decode(png: bytes) -> Pixels:
    """The pixels that were stored, `(height, width, 3)`."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@contextlib.contextmanager
def appears(path: Path) -> Iterator[BinaryIO]:
    """A file that appears whole, by rename, when the block ends well, and not at all when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A small text file that appears whole."""
    with appears(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """A JSON file that appears whole; NaN and infinities become null."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def study_file(self) -> Path:
        """The study with every default filled in; written first."""
        return self.folder / "study.yaml"

    def images(self, shard: Shard | str) -> Path:
        """The file of an image shard. That it exists means that the shard is done."""
        return self.folder / "images" / f"{shard if isinstance(shard, str) else shard.name}.parquet"

    def perceptions(self, perceiver: str, shard: Shard | str) -> Path:
        """The file of what one perceiver made of a shard."""
        name = shard if isinstance(shard, str) else shard.name
        return self.folder / "perceptions" / perceiver / f"{name}.parquet"

    def write_images(
        self, shard: Shard, records: Sequence[ImageRecord], pngs: Sequence[bytes | None], environment: dict[str, Any]
    ) -> None:
        """Write a finished image shard; a row per unit, made or not."""
        rows = {
            "unit_id": [r.unit.id for r in records],
            "concept": [r.unit.prompt.concept for r in records],
            "prompt_set": [r.unit.prompt.prompt_set for r in records],
            "template": [r.unit.prompt.template for r in records],
            "identity": [r.unit.prompt.identity for r in records],
            "arm": [r.unit.arm for r in records],
            "prompt": [r.unit.prompt.text for r in records],
            "prompt_sent": [r.unit.prompt_sent for r in records],
            "negative_prompt": [r.unit.negative_prompt for r in records],
            "drawn": [r.unit.drawn for r in records],
            "sample": [r.unit.sample for r in records],
            "seed": [r.unit.seed for r in records],
            "batch": [r.batch for r in records],
            "status": [r.status for r in records],
            "reason": [r.reason for r in records],
            "sha256": [r.sha256 for r in records],
            "seconds": [r.seconds for r in records],
            "file": [r.file for r in records],
            "image": [None if png is None else {"bytes": png, "path": None} for png in pngs],
        }
        features = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _plain_types()}
        features["image"] = {"_type": "Image"}
        notes = {
            "huggingface": json.dumps({"info": {"features": features}}),
            "environment": json.dumps(environment, sort_keys=True),
        }
        _write(self.images(shard), pa.table(rows, schema=IMAGE_SCHEMA.with_metadata(notes)))

    def read_images(self, shard: Shard | str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of an image shard, its checksums verified."""
        return _read(self.images(shard), columns)

    def write_perceptions(
        self,
        perceiver: str,
        shard: Shard,
        unit_ids: Sequence[str],
        perceived: Perceived,
        attributes: Sequence[Attribute],
    ) -> None:
        """Write what a perceiver made of a shard: a row per unit, null where there was no image.

        `perceived` has a row per unit too; an embedding of NaN marks a unit without an image.
        """
        seen = ~np.isnan(perceived.embeddings[:, 0]) if len(unit_ids) else np.zeros(0, bool)
        table: dict[str, Any] = {"unit_id": list(unit_ids), "embedding": _lists(perceived.embeddings, seen)}
        for attribute in attributes:
            name = attribute.name
            table[f"{name}_probabilities"] = _lists(perceived.probabilities[name], seen)
            table[name] = [d if s else None for d, s in zip(perceived.decisions[name], seen, strict=True)]
        levels = json.dumps({a.name: list(a.levels) for a in attributes})
        _write(self.perceptions(perceiver, shard), pa.table(table).replace_schema_metadata({"levels": levels}))

    def read_perceptions(self, perceiver: str, shard: Shard | str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a perception shard, its checksums verified."""
        return _read(self.perceptions(perceiver, shard), columns)


def _lists(matrix: npt.NDArray[Any], seen: npt.NDArray[np.bool_]) -> pa.Array:
    width = matrix.shape[1]
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(~seen))


def _plain_types() -> list[tuple[str, pa.DataType]]:
    names = {pa.string(): "string", pa.int64(): "int64", pa.float64(): "float64"}
    return [(field.name, names[field.type]) for field in IMAGE_SCHEMA if field.type in names]


def _write(path: Path, table: pa.Table) -> None:
    with appears(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, use_dictionary=False)


def _read(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True, partitioning=None)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def finished(path: Path) -> bool:
    """Is this shard there and whole? Reads only its end: the schema and the number of rows."""
    try:
        pq.read_metadata(path)
    except FileNotFoundError:
        return False
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that it is drawn again and nothing is lost."""
    for number in range(1000):
        aside = path.with_name(f"{path.name}.unreadable-{number}")
        if not aside.exists():
            path.replace(aside)
            return aside
    raise RunError(f"{path}: cannot be set aside: there are 1000 others already")
