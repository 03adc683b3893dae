"""The run folder: shards that appear whole or not at all, and the files that the stages hand to each other."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import RunError
from pipeline.types import Attribute, ImageRecord, Perceived, Pixels, Shard

T = TypeVar("T")

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
        ("tokens", pa.int64()),
        ("tokens_cut", pa.int64()),
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


STALE = 3600.0
"""Seconds after which nobody is still writing a file: a shard takes less than one."""


@contextlib.contextmanager
def appears(path: Path) -> Iterator[BinaryIO]:
    """A file that appears whole, by rename, when the block ends well, and not at all when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # two containers may share name and number
    try:
        with partial.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:  # what an open file says of a full disk names no file
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what is to be said
            partial.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half-written: what has not been touched for `STALE` seconds."""
    for partial in folder.rglob(".*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > STALE:
                partial.unlink()


@contextlib.contextmanager
def locked(path: Path, *, alone: bool = False) -> Iterator[bool]:
    """Hold a file's lock beside others or, if nobody else holds it, `alone`: was it to be had?

    On a file system without locks it always is.
    """
    had = True
    with path.open("a+b") as file:  # over NFS the one kind needs a file to read, the other one to write
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            had = False
        except OSError:
            pass  # no locks here
        yield had


def write_text(path: Path, text: str) -> None:
    """A small text file that appears whole."""
    with appears(path) as file:
        file.write(text.encode())


def write_first(path: Path, text: str) -> bool:
    """The same of a file that there is not yet, and was this process the first? Of several at one moment just one is."""
    ready = path.with_name(f".{path.name}.{uuid.uuid4().hex}.first.partial")
    write_text(ready, text)
    try:
        os.link(ready, path)  # unlike a rename it fails where there is a file, over NFS too
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        ready.replace(path)
    finally:
        ready.unlink(missing_ok=True)
    return True


def write_json(path: Path, value: Any) -> None:
    """A JSON file that appears whole; NaN and infinities become null."""
    write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


HELD = "held.txt"
"""In a folder that an engine keeps in the run folder: see `Run.held`."""


@dataclass(frozen=True)
class Run:
    """One run folder."""

    folder: Path

    @property
    def study_file(self) -> Path:
        """The study with every default filled in; written first."""
        return self.folder / "study.yaml"

    @property
    def lock(self) -> Path:
        """The file whose lock is held by whoever draws: meanwhile the folder is not given to another study."""
        return self.folder / ".drawing"

    @property
    def held(self) -> str:
        """What to do before the folder may become another study's, in the words of an engine that will draw in it; or nothing."""
        return "; ".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob(f"*/{HELD}")))

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
        """Write a finished image shard; a row per unit, made or not. What was read of pictures that were there before is
        gone."""
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
            "tokens": [r.tokens for r in records],
            "tokens_cut": [r.tokens_cut for r in records],
            "file": [r.file for r in records],
            "image": [None if png is None else {"bytes": png, "path": None} for png in pngs],
        }
        features = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _plain_types()}
        features["image"] = {"_type": "Image"}
        notes = {
            "huggingface": json.dumps({"info": {"features": features}}),
            "environment": json.dumps(environment, sort_keys=True),
        }
        for stale in self.folder.glob(f"perceptions/*/{shard.name}.parquet"):
            stale.unlink(missing_ok=True)
        _write(self.images(shard), pa.table(rows, schema=IMAGE_SCHEMA.with_metadata(notes)))

    def read_images(self, shard: Shard | str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of an image shard, its checksums verified. What an older shard does not have is null."""
        return _read(self.images(shard), columns, IMAGE_SCHEMA)

    def environment(self, shard: Shard | str) -> dict[str, Any]:
        """Where an image shard was drawn, and by which weights."""
        try:
            found = json.loads((pq.read_schema(self.images(shard)).metadata or {}).get(b"environment", b"{}"))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise RunError(f"{self.images(shard)}: cannot be read: {error}") from None
        return dict(found)

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


# -- seals -------------------------------------------------------------------------------------------
#
# A page checksum of Parquet covers a page's content, neither the page's header nor the end of the file, where a flipped
# bit can turn one number into another unseen. So between the pages and the footer, where readers of Parquet look for
# nothing, lies a seal: where the pictures begin (8 bytes), the sha256 of the pictures, and the sha256 of all the rest.
# Whoever asks for a few columns need not read the pictures, which come last.

_TAIL = 8
"""Bytes after the footer: its length, and `PAR1`."""
_SEAL = 8 + 32 + 32


def _write(path: Path, table: pa.Table) -> None:
    with appears(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, use_dictionary=False)
        _seal(file)


def _read(path: Path, columns: Sequence[str] | None, schema: pa.Schema | None = None) -> pa.Table:
    wanted = None if columns is None else [*columns]

    def rows(file: BinaryIO) -> pa.Table:
        _check(file, pictures=columns is None or "image" in columns)
        known = schema if schema is None else schema.with_metadata(pq.read_schema(path).metadata)
        return pq.read_table(path, columns=wanted, partitioning=None, schema=known)

    return _looked_at(path, rows)


def _looked_at(path: Path, look: Callable[[BinaryIO], T]) -> T:
    """What `look` makes of a shard's file. One that is not there or is damaged is a `RunError`.

    Any other trouble of the file system stays an `OSError`, and names the file: no permission, a server that does not
    answer. Nothing says that the file is damaged, and it is not set aside.
    """
    for last in (False, True):
        try:
            with path.open("rb") as file:
                return look(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            number = error.errno if isinstance(error, OSError) else None  # pyarrow has none for what is in a file
            if number in (None, errno.ENOENT):
                raise RunError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
            if number != errno.ESTALE or last:  # over NFS another process has replaced it: opened anew, it is there
                raise OSError(number, os.strerror(number), str(path)) from error
    raise AssertionError("unreachable")


def finished(path: Path) -> bool:
    """Is this shard there, and every byte as it was written?"""
    try:
        check(path)
    except RunError:
        return False
    return True


def check(path: Path) -> None:
    """Read all of a shard's file: a byte that is not as it was written is a `RunError`. An `OSError` says nothing of it."""
    _looked_at(path, lambda file: _check(file, pictures=True))


def _seal(file: BinaryIO) -> None:
    """Put the seal into a Parquet file that has just been written."""
    size, footer = _footer(file, sealed=0)
    end = size - len(footer)
    begin = min(_pictures(pq.read_metadata(file)), default=end)
    start, pictures = begin.to_bytes(8, "little"), _sha256(file, begin, end)
    seal = start + pictures + _sha256(file, 0, begin, start, pictures, footer)
    file.seek(end)
    file.write(seal + footer)


def _pictures(found: Any) -> Iterator[int]:
    """Where the pages of the pictures begin."""
    for group in range(found.num_row_groups):
        for number in range(found.num_columns):
            column = found.row_group(group).column(number)
            if column.path_in_schema.startswith("image."):
                yield column.data_page_offset


def _check(file: BinaryIO, *, pictures: bool) -> None:
    """Compare a file with its seal; the pictures only if they are asked for."""
    size, footer = _footer(file, sealed=_SEAL)
    end = size - len(footer) - _SEAL
    file.seek(end)
    seal = file.read(_SEAL)
    start, picture_sum, rest = seal[:8], seal[8:40], seal[40:]
    begin = int.from_bytes(start, "little")
    if begin > end or _sha256(file, 0, begin, start, picture_sum, footer) != rest:
        raise ValueError("it is damaged: its checksum is wrong")
    if pictures and _sha256(file, begin, end) != picture_sum:
        raise ValueError("its pictures are damaged: their checksum is wrong")


def _footer(file: BinaryIO, *, sealed: int) -> tuple[int, bytes]:
    """The size of a file, and its end from the footer on."""
    size = file.seek(0, os.SEEK_END)
    if size < 4 + sealed + _TAIL:
        raise ValueError("it is cut off")
    file.seek(size - _TAIL)
    length = int.from_bytes(file.read(4), "little") + _TAIL
    if length + sealed > size:
        raise ValueError("it is cut off or damaged")
    file.seek(size - length)
    return size, file.read()


def _sha256(file: BinaryIO, begin: int, end: int, *more: bytes) -> bytes:
    """The digest of a part of a file and of what else is given."""
    total = hashlib.sha256()
    file.seek(begin)
    while begin < end:
        part = file.read(min(2**20, end - begin))
        if not part:
            raise ValueError("it is cut off")
        total.update(part)
        begin += len(part)
    for part in more:
        total.update(part)
    return total.digest()


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be read, so that it is drawn again and nothing is lost."""
    for number in range(1000):
        aside = path.with_name(f"{path.name}.unreadable-{number}")
        if not aside.exists():
            with contextlib.suppress(FileNotFoundError):  # another process on this folder was first
                path.replace(aside)
            return aside
    raise RunError(f"{path}: cannot be set aside: there are 1000 others already")
